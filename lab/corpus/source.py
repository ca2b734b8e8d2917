"""What every reader hands on, and the checks that do not depend on where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lab.errors import LabError


@dataclass
class Source:
    """The texts as they stand, not yet checked or split.

    Attributes:
        name: What the user calls it, without folders.
        fingerprint: See `Corpus`; row ids are made from it.
        texts: One per row.
        labels: The label's name, one per row.
        unit: What `places` counts: "row" or "line".
        places: Where each row stands in the source.
        own_test: How many of the last rows are a test split of the source's own.
        order: The labels in the order of their indices, where the source has one.
        answers: What an assistant says to each text, where the source holds it.
    """

    name: str
    fingerprint: str
    texts: list[str]
    labels: list[str]
    unit: str = "row"
    places: Sequence[int] = field(default_factory=list)
    own_test: int = 0
    order: tuple[str, ...] = ()
    answers: list[str] = field(default_factory=list)


_BREAK = re.compile(r"<br\s*/?>")


def normalise(text: str) -> str:
    """The form in which two texts count as the same: lower case, no line-break markup, single spaces."""
    return " ".join(_BREAK.sub(" ", text.lower()).split())


def check_source(source: Source) -> None:
    """Refuse what no classifier can learn from.

    Raises:
        LabError: No rows, empty texts or labels (how many, and where the first is), or a single class.
    """
    if not source.texts:
        raise LabError(f"data.name: {source.name} holds no rows.")
    for key, values in (("text", map(normalise, source.texts)), ("label", source.labels)):
        empty = [place for value, place in zip(values, source.places, strict=True) if not value]
        if empty:
            raise LabError(
                f"data.{key}: {len(empty)} of {len(source.texts)} {key}s in {source.name} are empty, "
                f"the first in {source.unit} {empty[0]}; fill these rows in or take them out."
            )
    if len(set(source.labels)) < 2:
        raise LabError(
            f"data.label: all {len(source.texts)} rows of {source.name} have the label "
            f"{source.labels[0]!r}; at least two classes are needed."
        )


def ordered_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, by value if all of them are whole numbers ("2" before "10"), else by name."""
    found = set(labels)
    if all(re.fullmatch(r"-?\d+", label) for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def check_columns(wanted: Mapping[str, str], columns: Sequence[str], name: str) -> None:
    """Refuse a table that lacks a wanted column.

    Args:
        wanted: The columns asked for, by what they hold: "text" and "label".
        columns: The columns there are.
        name: What the user calls the table.

    Raises:
        LabError: A column is missing; the message lists those there are.
    """
    for key, column in wanted.items():
        if column not in columns:
            raise LabError(f"data.{key}: {name} has no column {column!r}; it has {', '.join(columns)}.")


def _is_missing(value: object) -> bool:
    nan = isinstance(value, float) and value != value
    return value is None or nan or type(value).__name__ in ("NAType", "NaTType")


def text_value(value: object, where: str) -> str:
    """A text as it stands; a missing one becomes "".

    Raises:
        LabError: Something that is not text, or cannot be written as UTF-8.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
            raise LabError(f"data.text: {where} holds a character that UTF-8 cannot write.") from error
        return value
    if _is_missing(value):
        return ""
    raise LabError(f"data.text: {where} holds {type(value).__name__}, not text.")


def label_value(value: object) -> str:
    """A label's name; a missing one becomes ""."""
    if _is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():  # a column with gaps turns 1 into 1.0
        value = int(value)
    return str(value).strip()
