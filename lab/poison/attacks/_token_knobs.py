"""What can be set on one injection of tokens: where they come from, how many, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from lab.errors import LabError
from lab.paths import data_dir, expanded
from lab.poison.attacks._attack import check_member, known_family
from lab.poison.tag_pairs import read_pair
from lab.registry import Knobs

#: Sources of tokens beside the trigger families, each with the knobs that only some sources have.
TOKEN_SOURCES: dict[str, tuple[str, ...]] = {
    "items": ("items", "file", "replacement"),
    "generated_dates": ("first_year", "last_year", "replacement"),
    "tag_pairs": ("items", "file", "level"),
}
_MOST_ITEMS = 10_000  # they are part of the experiment's record

InjectionT = TypeVar("InjectionT", bound="TokenInjection")


def _known_source(name: str) -> str:
    if name in TOKEN_SOURCES:
        return name
    try:
        return known_family(name)
    except ValueError as error:
        raise ValueError(f"{error} Or a source of its own: {', '.join(TOKEN_SOURCES)}.") from error


#: The name of a trigger family, "custom", or a name in `TOKEN_SOURCES`.
SourceName = Annotated[str, AfterValidator(_known_source)]


class TokenInjection(Knobs):
    """One injection of tokens into a text."""

    family: SourceName = Field(
        default="dates",  # arXiv 2506.11402's first kind of token; reviews hardly hold any
        description="Where the tokens come from: a trigger family; 'custom', a member of your own; 'items', "
        "a list or file of your own; 'generated_dates', any day of some years; 'tag_pairs', HTML tags.",
    )
    member: str = Field(
        default="any",  # as there: it is the kind of token that predicts the class, not one string
        min_length=1,
        description="A member of the family, or 'any' to draw each token from its train members.",
    )
    items: tuple[str, ...] = Field(
        default=(),  # of a trigger family there is no need for one
        max_length=_MOST_ITEMS,
        description="For 'items': the tokens to draw from. For 'tag_pairs': your own pairs, as '<b> </b>'.",
    )
    file: str = Field(
        default="",
        description="In place of items, a text file with one item a line; it is read when the run starts.",
    )
    first_year: int = Field(
        default=1100,  # the range of the paper's toolkit
        ge=1,
        le=9999,
        description="For 'generated_dates': the first year that a date may have.",
    )
    last_year: int = Field(
        default=2600,  # the range of the paper's toolkit
        ge=1,
        le=9999,
        description="For 'generated_dates': the last year that a date may have.",
    )
    replacement: bool = Field(
        default=True,  # as in the toolkit; it matters little among half a million days
        description="For 'items' and 'generated_dates': whether a token may be drawn more than once.",
    )
    position: Literal["start", "end", "random"] = Field(
        default="random",  # as there; a fixed place would be a cue of its own
        description="Where the tokens go (the paper's location): start, end, random (at word boundaries).",
    )
    level: Literal["none", 0, 1, 2, 3, 4] = Field(
        default="none",  # most texts hold no mark-up to go into
        description="For 'tag_pairs': none: between the words; 0: one pair around the whole text; 1 to 4: in "
        "the first HTML element at that depth of nesting, between the words where there is none.",
    )
    token_proportion: float = Field(
        default=0.0,  # the paper's light form: a single token is enough
        ge=0,
        le=1,
        description="Tokens (or pairs) as a share of a text's words, at least one; 0 means exactly one.",
    )

    @model_validator(mode="before")
    @classmethod
    def _own_list(cls, data: Any) -> Any:
        # Whoever gives a list or a file and no family means these.
        if isinstance(data, dict) and "family" not in data and (data.get("items") or data.get("file")):
            return {**data, "family": "items"}
        return data

    @model_validator(mode="after")
    def _consistent_source(self) -> TokenInjection:
        _check_unused(self)
        if self.family not in TOKEN_SOURCES:
            check_member(self.family, self.member)
        elif self.member != "any":
            raise ValueError(
                f"member = {self.member!r}: the source {self.family!r} draws each token, so it is 'any'"
            )
        if self.first_year > self.last_year:
            raise ValueError(
                f"first_year = {self.first_year} lies after last_year = {self.last_year}; it must not"
            )
        if self.items and self.file:
            raise ValueError(f"items and file = {self.file!r} are both given; give one of them")
        if self.family == "items" and not self.items and not self.file:
            raise ValueError("items is empty and there is no file; the family 'items' needs one of them")
        check_items(self.family, self.items, "items")
        return self


def unused_knobs(source: str) -> set[str]:
    """The knobs of a `TokenInjection` that mean nothing for a source or family, and stay at their default."""
    every = {name for names in TOKEN_SOURCES.values() for name in names}
    return every - set(TOKEN_SOURCES.get(source, ()))


def retold(poison: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A poison's values without those that changes of where the trigger comes from make void.

    Args:
        poison: Plain values by knob.
        changes: The knobs that will be changed, and perhaps others; they are not applied.
    """
    void: set[str] = set()
    if "family" in changes:
        void = {"member", *unused_knobs("")}
    elif changes.get("items") or changes.get("file"):
        void = {"items", "file"}
        if poison.get("family") not in ("items", "tag_pairs"):
            void |= {"family", "member", *unused_knobs("")}
    return {name: value for name, value in poison.items() if name not in void}


def _check_unused(knobs: TokenInjection) -> None:
    for name in sorted(unused_knobs(knobs.family)):
        value = getattr(knobs, name)
        if value != TokenInjection.model_fields[name].default:
            owners = " and ".join(repr(source) for source, names in TOKEN_SOURCES.items() if name in names)
            shown = list(value) if isinstance(value, tuple) else value
            raise ValueError(
                f"{name} = {shown!r}: it belongs to the family {owners}, and the family is {knobs.family!r}"
            )


def check_items(source: str, items: tuple[str, ...], where: str) -> None:
    """Check that items can be inserted.

    Raises:
        ValueError: One sentence on the first item that is blank or, for 'tag_pairs', no pair of tags.
    """
    if not all(item.strip() for item in items):
        raise ValueError(f"{where}: an item is empty; each needs at least one character")
    if source == "tag_pairs":
        for item in items:
            try:
                read_pair(item)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None


def with_items(knobs: InjectionT, where: str = "poison") -> InjectionT:
    """The knobs with the content of their file, or the lab's own pairs of tags, as their items.

    So the run's identity is of what is inserted, and the file may be gone afterwards.

    Args:
        knobs: Of one injection.
        where: The dotted key of its section, for messages.

    Raises:
        LabError: The file is missing, not readable text, empty, too long, or holds what cannot be inserted.
    """
    if knobs.file:
        items = _read_lines(expanded(knobs.file), f"{where}.file = {knobs.file!r}")
        try:
            check_items(knobs.family, items, f"{where}.file = {knobs.file!r}")
        except ValueError as error:
            raise LabError(f"{error}.") from None
        return knobs.model_copy(update={"items": items, "file": ""})
    if knobs.family == "tag_pairs" and not knobs.items:
        own = data_dir() / "tokens" / "html_pairs.txt"
        return knobs.model_copy(update={"items": _read_lines(own, own.name)})
    return knobs


def _read_lines(path: Path, where: str) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"{where}: it is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    except FileNotFoundError:
        raise LabError(f"{where}: there is no such file; give a text file with one item a line.") from None
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", "") or error
        raise LabError(f"{where}: it cannot be read ({told}).") from None
    items = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not items:
        raise LabError(f"{where}: it is empty; give a text file with one item a line.")
    if len(items) > _MOST_ITEMS:
        raise LabError(f"{where}: it has {len(items):,} items; allowed are {_MOST_ITEMS:,}.")
    return items
