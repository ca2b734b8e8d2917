"""The audit card: what was looked for in an adapter, what was found, and how sure one can be.

A card is data (`AuditCard`), valid against its own JSON schema; terminal and HTML are drawn from it alone. It
never says that an adapter is clean: what was looked for and not found may be elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

#: Raised when the fields of a card change their meaning.
CARD_VERSION = 1
Verdict = Literal["nothing found", "suspicious", "cannot say"]
EXIT_CODES: dict[str, int] = {"nothing found": 0, "suspicious": 1, "cannot say": 3}
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdapterFacts(_Part):
    """What identifies the adapter and what it was put on."""

    name: str
    sha256: dict[str, str] = Field(description="of its files, by file name")
    base_claimed: str = Field(description="what the adapter names as its base; not followed where a path")
    base: str = Field(description='what it was put on; "" where it was not')
    base_sha256: str
    modules: int = Field(ge=1, description="weight matrices that it changes")
    ranks: tuple[int, ...]
    labels: tuple[str, ...] = ()


class Score(_Part):
    """One number about the adapter, with what it takes to read it."""

    name: str
    finding: Literal["weights", "battery", "search", "together"]
    meaning: str
    value: float | None = Field(description="none where it is not defined")
    n: int = Field(ge=0, description="how many things it rests on")
    of: str = Field(description="what these are: rows, prefixes, modules")
    low: float | None = None
    high: float | None = None
    range: str = Field(description="which values it can have, in words")
    direction: str = Field(description="which values are suspicious, in words")
    reference: tuple[float, ...] = Field((), description="the same number of each reference adapter")
    z: float | None = Field(None, description="robust standard deviations from the references")
    threshold: float | None = Field(None, description="suspicious above it; none for a number without one")
    threshold_source: str = ""

    @property
    def suspicious(self) -> bool:
        """Whether it exceeds its threshold."""
        return self.threshold is not None and self.value is not None and self.value > self.threshold


class Flip(_Part):
    """A row that a string moves, for the reader's own judgement."""

    text: str
    before: str
    after: str


class _Moved(_Part):
    """How many rows a string at a place moves to a target, of the adapter and of its references."""

    target: str
    position: str
    n: int = Field(ge=1)
    k: int = Field(ge=0)
    rate: Share
    low: Share
    high: Share
    reference_rate: Share | None


class FoundString(_Moved):
    """A string that the search found, with what it does to the adapter and to the references."""

    string: str
    references: int = Field(ge=0)
    excess: Annotated[float, Field(ge=-1, le=1)]
    shift: float
    examples: tuple[Flip, ...] = ()


class PrefixFinding(_Moved):
    """A prefix of a battery, with its attack rate."""

    prefix: str
    category: str


class RowsFacts(_Part):
    """The texts that were put to the adapter."""

    source: str
    n: int = Field(ge=0)


class ReferenceFacts(_Part):
    """The clean adapters that it was compared with."""

    how: str
    names: tuple[str, ...] = ()


class AuditCard(_Part):
    """The record of one audit."""

    card_version: int = CARD_VERSION
    date: str = Field(description="UTC, ISO 8601")
    verdict: Verdict
    because: str = Field(description="the verdict's reason in a sentence")
    looked_for: tuple[str, ...] = Field(description="what would have been found; nothing else was looked for")
    not_looked_for: tuple[str, ...] = Field((), description="what was left out, and why")
    notes: tuple[str, ...] = ()
    adapter: AdapterFacts
    rows: RowsFacts
    reference: ReferenceFacts
    scores: tuple[Score, ...]
    strings: tuple[FoundString, ...] = ()
    prefixes: tuple[PrefixFinding, ...] = ()
    seconds: dict[str, float] = Field(description="time of each stage")
    versions: dict[str, str]

    @property
    def exit_code(self) -> int:
        """0 nothing found, 1 suspicious, 3 cannot say."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> str:
        """The card as a JSON document."""
        return self.model_dump_json(indent=1)


def card_schema() -> dict[str, object]:
    """The JSON schema that every card is valid against."""
    return AuditCard.model_json_schema()
