"""The claims of the papers as data: `data/claims/<paper>.toml`, read and checked.

A file has the paper (`[paper]`), where numbers come from (`[sources.<name>]`) and the claims (`[[claims]]`).
A claim says in one sentence of our own what the paper found, at which place, and which quantity of this
laboratory answers it: a measure at a point of a source, the difference of two points, or its trend.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.errors import LabError, unknown_name
from lab.experiment import parse_toml
from lab.paper_cards.verdicts import Expected
from lab.paths import data_dir
from lab.presets import SweepPlan, load_experiment, load_sweep

Tier = Literal["cpu", "gpu"]
#: Of `result.json`, beside the headline: mean attack success of other strings than the trained one.
FAMILY_MEASURES = ("held_out_members", "other_families_of_its_category")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Paper(_Part):
    """What a paper is and how its setting differs from what is run here."""

    arxiv: str = Field(min_length=1)
    title: str = Field(min_length=1)
    says: str = Field(min_length=1)
    theirs: str = Field(min_length=1)
    ours: str = Field(min_length=1)


class Source(_Part):
    """Where numbers come from: a sweep or preset that can be run, or a command that only is named.

    Attributes:
        sweep: A sweep of `data/sweeps` or a file; or
        preset: a preset or a file, run for the seeds alone unless `over` says more; or
        command: what to type; `lab reproduce` does not run it, and its numbers are committed ones.
        tier: On which machine it is run.
        twin: Whether clean twins are run too.
        core_minutes: What all of it takes on one core, with three seeds.
        set: Dotted keys that differ from the sweep's or preset's own.
        over: Grid that takes the place of the sweep's values, by key.
        arms: Which of the sweep's arms; none for all.
        lines: Prefix of the committed lines, if not the source's name.
    """

    sweep: str = ""
    preset: str = ""
    command: str = ""
    tier: Tier = "cpu"
    twin: bool = True
    core_minutes: float = Field(default=0.0, ge=0)
    set: dict[str, Any] = {}
    over: dict[str, list[Any]] = {}
    arms: tuple[str, ...] = ()
    lines: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if sum(map(bool, (self.sweep, self.preset, self.command))) != 1:
            raise ValueError("a source is one of sweep, preset and command")
        return self

    @property
    def runs(self) -> bool:
        """Whether `lab reproduce` can run it."""
        return not self.command

    def plan(self) -> SweepPlan:
        """What `lab.sweep` is asked for.

        Raises:
            LabError: A sweep, preset, arm or key that there is not.
        """
        if self.command:
            raise LabError(f"{self.command!r} is a command of its own and no sweep.")
        start = load_sweep(self.sweep) if self.sweep else SweepPlan(
            {}, load_experiment(self.preset), {}, None, 3)  # fmt: skip
        arms = start.arms
        if self.arms:
            for arm in self.arms:
                if arm not in (arms or {}):
                    raise unknown_name(f"arm of {self.sweep or self.preset}", arm, arms or {})
            arms = {arm: (arms or {})[arm] for arm in self.arms}
        return SweepPlan(
            about=start.about,
            experiment=start.experiment.with_(**self.set),
            over={**start.over, **self.over},
            arms=arms,
            seeds=start.seeds,
            tune=start.tune,
        )


class Quantity(_Part):
    """What this laboratory measures in answer to a claim, and what the claim says of it.

    Attributes:
        source: A name of `[sources]`.
        measure: A headline measure, the twin's with the prefix "twin.", or one of `FAMILY_MEASURES`.
        of: The point: arm and swept keys with their values.
        minus: With it, the difference of two points, or
        minus_measure: of two measures at the same point.
        trend: With it, Spearman's rank correlation of the measure with this swept key.
        lines: Committed lines, if their names do not follow from source and point: one, or two for a
            difference.
        above: The claim's bounds; at least one of the two.
        below: As `above`.
        paper_value: The paper's number for the same quantity, where it gives one.
        tolerance: How far ours may be from it.
    """

    source: str
    measure: str
    of: dict[str, Any] = {}
    minus: dict[str, Any] | None = None
    minus_measure: str = ""
    trend: str = ""
    lines: tuple[str, ...] = ()
    above: float | None = None
    below: float | None = None
    paper_value: float | None = None
    tolerance: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _says_something(self) -> Quantity:
        if self.above is None and self.below is None:
            raise ValueError("say above, below, or both")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("above has to be smaller than below")
        if sum((self.minus is not None, bool(self.minus_measure), bool(self.trend))) > 1:
            raise ValueError("only one of minus, minus_measure and trend")
        return self

    @property
    def expected(self) -> Expected:
        """What the claim says of the number."""
        return Expected(
            -math.inf if self.above is None else self.above,
            math.inf if self.below is None else self.below,
            math.nan if self.paper_value is None else self.paper_value,
            self.tolerance,
        )


class Claim(_Part):
    """One claim of a paper.

    Attributes:
        id: Its name within the paper.
        says: The claim in one sentence of our own.
        place: Where the paper has it: table, figure, notebook.
        paper: The paper's value or values, in words.
        quantity: What answers it here; none where nothing in this laboratory does.
        note: What explains a difference, or has to be known beside the verdict.
        own: Whether it is a check of this laboratory's beside the paper, which the paper does not claim.
    """

    id: str = Field(min_length=1, pattern=r"^[a-z0-9-]+$")
    says: str = Field(min_length=1)
    place: str = Field(min_length=1)
    paper: str = Field(min_length=1)
    quantity: Quantity | None = None
    note: str = ""
    own: bool = False


class PaperClaims(_Part):
    """A paper with its sources and claims; `name` is the file's."""

    name: str
    paper: Paper
    sources: dict[str, Source] = {}
    claims: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _no_strangers(self) -> PaperClaims:
        seen: set[str] = set()
        for claim in self.claims:
            if claim.id in seen:
                raise ValueError(f"the claim {claim.id} is there twice")
            seen.add(claim.id)
            if claim.quantity and claim.quantity.source not in self.sources:
                raise ValueError(f"{claim.id}: there is no source {claim.quantity.source}")
        return self

    def tier(self, claim: Claim) -> str:
        """The tier that answers a claim; "" for a claim that nothing here answers."""
        return self.sources[claim.quantity.source].tier if claim.quantity else ""

    def measures(self) -> dict[str, list[str]]:
        """The measures that claims ask of each source, each once; a source that no claim asks is left out."""
        asked: dict[str, list[str]] = {}
        for quantity in filter(None, (claim.quantity for claim in self.claims)):
            own = asked.setdefault(quantity.source, [])
            own += [m for m in (quantity.measure, quantity.minus_measure) if m and m not in own]
        return asked


def paper_names() -> list[str]:
    """The papers that have a file of claims, sorted."""
    return sorted(path.stem for path in (data_dir() / "claims").glob("*.toml"))


def load_claims(paper: str | Path) -> PaperClaims:
    """Read a paper's claims, by its name or from a file of one's own.

    Raises:
        LabError: An unknown paper, or a file that says something it must not; in one sentence.
    """
    path = data_dir() / "claims" / f"{paper}.toml" if str(paper) in paper_names() else Path(paper)
    if path.suffix != ".toml" or not path.is_file():
        raise unknown_name("paper", paper, paper_names())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise LabError(f"{path.name} cannot be read as UTF-8 text.") from None
    values = parse_toml(text, path.name)
    try:
        return PaperClaims.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise LabError(f"{path.name}: {where}: {first['msg']}.") from None
