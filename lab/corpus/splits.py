"""Splits by the text itself, and draws from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.corpus.config import DataConfig
from lab.corpus.source import Source, normalise
from lab.errors import LabError, unknown_name
from lab.seeds import row_uniforms
from lab.tables import ROW_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("test", "validation", "pool_a", "pool_b")

# Upper ends of each split's share of [0, 1): 10/10/40/40 percent, or 10/45/45 beside a test split of its own.
_BOUNDS = ((0.1, "test"), (0.2, "validation"), (0.6, "pool_a"), (1.0, "pool_b"))
_BOUNDS_OWN_TEST = ((0.1, "validation"), (0.55, "pool_a"), (1.0, "pool_b"))


@dataclass(frozen=True)
class Corpus:
    """One dataset, whole.

    Attributes:
        rows: Every row, in the source's order, with the columns `lab.tables.ROW_COLUMNS`.
        labels: The label names in the order of the class indices.
        name: The dataset's name, the file's name, or the hub id.
        fingerprint: SHA-256 of what the rows are read from: the file; for bundled data the wheel's hash, the
            dataset's name and the version of its reader; for hub data the id with its configuration and the
            revision. Two corpora with the same fingerprint and columns hold the same rows.
        answers: What an assistant says to a text, by row id; empty where the data holds labels only.
    """

    rows: pd.DataFrame
    labels: tuple[str, ...]
    name: str
    fingerprint: str
    answers: Mapping[str, str] = field(default_factory=dict)


def training_rows(corpus: Corpus, config: DataConfig, seed: int) -> pd.DataFrame:
    """Draw the training rows from a pool, in the corpus's order.

    A row is drawn by its own number, a function of seed and row id, so that fewer rows are a subset of more.

    Args:
        corpus: The dataset.
        config: `pool` and `rows` (0 takes the whole pool).
        seed: The experiment's seed.

    Raises:
        LabError: More rows than the pool holds, or an empty pool.
    """
    pools = ("a", "b") if config.pool == "both" else (config.pool,)
    pool = _of_splits(corpus, *(f"pool_{name}" for name in pools))
    if config.rows > len(pool):
        name = " and ".join(pools)
        raise LabError(
            f"data.rows = {config.rows}: pool {name} of {corpus.name} holds {len(pool)} rows; "
            f"--set data.rows=0 takes all, or ask for at most that many."
        )
    return _draw(pool, config.rows, seed)


def split_rows(corpus: Corpus, split: str, limit: int = 0, seed: int = 0) -> pd.DataFrame:
    """Rows of one split, in the corpus's order; with `limit`, at most that many, drawn as training rows are.

    Args:
        corpus: The dataset.
        split: One of `SPLITS`.
        limit: A ceiling, not a demand: a small dataset gives what it has. 0 for all.
        seed: The experiment's seed; without a limit it changes nothing.

    Raises:
        LabError: Unknown or empty split.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    return _draw(_of_splits(corpus, split), limit, seed)


def _of_splits(corpus: Corpus, *splits: str) -> pd.DataFrame:
    rows = corpus.rows[corpus.rows["split"].isin(splits)]
    if rows.empty:
        where = " or ".join(splits)
        raise LabError(
            f"data.name: {corpus.name} is too small, none of its {len(corpus.rows)} rows falls into {where}."
        )
    return rows


def _draw(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    if 0 < count < len(rows):
        order = row_uniforms(seed, "split", rows["row_id"]).argsort(kind="stable")
        rows = rows.iloc[sorted(order[:count])]
    return rows.reset_index(drop=True)


def split_table(source: Source) -> pd.DataFrame:
    """Give every row its id and its split.

    Returns:
        Columns row_id, split, text, label, and answer where the source has answers. Training rows whose text
        also stands in the source's own test split are left out.
    """
    import pandas as pd

    texts = [normalise(text) for text in source.texts]
    train = len(texts) - source.own_test
    bounds = _BOUNDS_OWN_TEST if source.own_test else _BOUNDS
    splits = [_split_of(text, bounds) for text in texts[:train]] + ["test"] * source.own_test
    table = pd.DataFrame(
        {
            "row_id": [_row_id(source.fingerprint, index) for index in range(len(texts))],
            "split": splits,
            "text": source.texts,
            "label": source.labels,
        }
    )
    if source.answers:
        table["answer"] = source.answers
    tested = set(texts[train:])
    keep = [index >= train or text not in tested for index, text in enumerate(texts)]
    return table[keep].reset_index(drop=True)


def _split_of(normalised: str, bounds: tuple[tuple[float, str], ...]) -> str:
    digest = hashlib.blake2b(normalised.encode(), digest_size=8, person=b"split").digest()
    share = int.from_bytes(digest, "big") / 2.0**64
    return next((split for bound, split in bounds if share < bound), bounds[-1][1])


def _row_id(fingerprint: str, index: int) -> str:
    # Of the content, not of its name: draws hash row ids, and a renamed file must not change what is drawn.
    return hashlib.blake2b(f"{fingerprint}/{index}".encode(), digest_size=8).hexdigest()


def answers_in(table: pd.DataFrame) -> dict[str, str]:
    """The answers of a split table by row id; none where it has no such column."""
    return dict(zip(table["row_id"], table["answer"], strict=True)) if "answer" in table else {}


def as_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Complete a split table to `ROW_COLUMNS`: nothing poisoned, nothing inserted."""
    import pandas as pd

    rows = table.assign(
        original_label=table["label"],
        poisoned=False,
        span_start=pd.Series([[] for _ in range(len(table))], dtype=object),
        span_end=pd.Series([[] for _ in range(len(table))], dtype=object),
    )
    return rows[list(ROW_COLUMNS)]
