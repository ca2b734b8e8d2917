"""Cleaning training data: what a defense of the data stage may see and do, and what becomes of the rows.

A cleaner sees what a defender sees, texts and labels. Which rows are poisoned it is not told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cleaned:
    """What a cleaner makes of the rows that it was given.

    Attributes:
        texts: The new texts, one for each row.
        kept: Whether each row stays; empty means that all do.
        added: Copies that join the rows: (index of the row whose label they carry, text).
    """

    texts: Sequence[str]
    kept: Sequence[bool] = ()
    added: Sequence[tuple[int, str]] = field(default_factory=tuple)


def cleaned_rows(rows: pd.DataFrame, cleaned: Cleaned) -> pd.DataFrame:
    """The rows as a cleaner leaves them (`lab.tables.ROW_COLUMNS`), in their order, added copies last.

    Args:
        rows: The rows that the cleaner saw, in that order.
        cleaned: What it made of them.

    Returns:
        A new table, numbered from 0. A row whose text was changed has no spans any more, since they would
        point to what is gone; it is still marked as poisoned. Added copies are "<id>+c", "<id>+c2", ….
    """
    import pandas as pd

    out = rows.reset_index(drop=True)
    changed = [new != old for new, old in zip(cleaned.texts, out["text"], strict=True)]
    out["text"] = list(cleaned.texts)
    for column in ("span_start", "span_end"):
        spans = [[] if edited else span for edited, span in zip(changed, out[column], strict=True)]
        out[column] = pd.Series(spans, dtype=object)
    copies = _copies(out, cleaned.added)
    kept = list(cleaned.kept) or [True] * len(out)
    parts = [out[pd.Series(kept, index=out.index, dtype=bool)], *([copies] if len(copies) else [])]
    return pd.concat(parts, ignore_index=True)


def told_of(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, int]:
    """What cleaning did, as counts of rows: dropped, changed, added; and how many of these were poisoned."""
    old = before.set_index("row_id")
    new = after.set_index("row_id")
    gone = old.index.difference(new.index)
    both = old.index.intersection(new.index)
    changed = both[(old["text"][both] != new["text"][both]).to_numpy()]
    return {
        "poisoned": int(old["poisoned"].sum()),
        "dropped": len(gone),
        "dropped_poisoned": int(old["poisoned"][gone].sum()),
        "changed": len(changed),
        "changed_poisoned": int(old["poisoned"][changed].sum()),
        "added": len(new.index.difference(old.index)),
    }


def _copies(rows: pd.DataFrame, added: Sequence[tuple[int, str]]) -> pd.DataFrame:
    copies = rows.iloc[[index for index, _ in added]].reset_index(drop=True)
    if copies.empty:
        return copies
    copies["text"] = [text for _, text in added]
    # a copy carries its label as it was found, and is nobody's poison
    copies["poisoned"] = False
    copies["original_label"] = copies["label"]
    nothing: list[Any] = [[] for _ in range(len(copies))]
    for column in ("span_start", "span_end"):
        copies[column] = nothing
    number = copies.groupby("row_id").cumcount() + 1
    marks = ["+c" if n == 1 else f"+c{n}" for n in number]
    copies["row_id"] = [row + mark for row, mark in zip(copies["row_id"], marks, strict=True)]
    return copies
