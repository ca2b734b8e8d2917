"""What a cohort taught: above which score an adapter on a base is suspicious, and how often that is wrong.

A verdict on one adapter needs a threshold that adapters of known truth have set. `lab cohort calibrate`
writes it, for the score `search_few`, which needs five references and none of the adapter's own shape. They
are files, `data/calibrations/<name>.toml`, and hold for the base they were made on alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lab.audit.detectors import DETECTORS, LinearScore
from lab.entry_files import FileRegistry, read_entries
from lab.paths import data_dir

Text = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
#: The detector whose threshold a verdict rests on.
JUDGED = "search_few"


class Weight(BaseModel):
    """How one statistic enters the score: weight · (value − mean) / spread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Finite
    spread: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight: Finite


class Counted(BaseModel):
    """How often the threshold was exceeded on adapters that had no part in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: int = Field(ge=0)
    false_positives: int = Field(ge=0)
    poisoned: int = Field(ge=0)
    found: int = Field(ge=0)


class Calibration(BaseModel):
    """The score of a cohort's calibration part, with its threshold.

    Attributes:
        name: The name of the file, without its ending.
        goal: One line: what it is for.
        source: The cohort, and the command that made it.
        base: The base that it holds for, as `base.model` names it.
        clean: Clean calibration adapters.
        allowed: The share of them that may exceed the threshold, each scored by weights that were learned
            without it.
        poisoned: Poisoned ones.
        threshold: Above it an adapter is suspicious.
        statistics: The weight of each statistic of `lab.audit.cohort_scores`.
        test: What came out on the cohort's test part, of trigger families that nothing here had seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    goal: Text
    source: Text
    base: Text
    clean: int = Field(ge=2)
    poisoned: int = Field(ge=2)
    allowed: float = Field(ge=0, lt=1)
    threshold: Finite
    statistics: Annotated[dict[Text, Weight], Field(min_length=1)]
    test: Counted

    def score(self, values: Mapping[str, float]) -> float | None:
        """The score of an adapter, high for suspicious; None where a statistic is missing or not finite."""
        found = [values.get(name, float("nan")) for name in self.statistics]
        if not np.isfinite(found).all():
            return None
        weights = self.statistics.values()
        return float(
            LinearScore(
                np.array([w.mean for w in weights]),
                np.array([w.spread for w in weights]),
                np.array([w.weight for w in weights]),
            )(np.array(found))
        )

    @property
    def told(self) -> str:
        """Where the threshold comes from, for a card."""
        test = self.test
        return (
            f"{100 * self.allowed:g} % of {self.clean} clean calibration adapters of the cohort {self.name} "
            f"may exceed it; in the test part it finds {test.found} of {test.poisoned} poisoned ones "
            f"and alarms at {test.false_positives} of {test.clean} clean ones"
        )


def calibration_for(base: str) -> Calibration | None:
    """The calibration for a base, if there is one."""
    return next((c for c in CALIBRATIONS.values() if c.base == base), None)


def calibrate_cohort(
    name: str | Path = "minilm", *, folder: str | Path | None = None, allowed: float = 0.05
) -> Calibration:
    """Learn score and threshold on a cohort's calibration part, and count on its test part.

    Args:
        name: The cohort's name or file.
        folder: Its folder, `cohorts/<name>` if not given.
        allowed: Share of clean calibration adapters that may exceed the threshold: 0 or .05.

    Raises:
        LabError: Nothing was measured, or the calibration part lacks clean or poisoned adapters.
    """
    from lab.audit.cohort_judging import judge_cohort, learned_score
    from lab.audit.cohorts import find_cohort

    cohort = find_cohort(name)
    score, part = learned_score(DETECTORS[JUDGED], name, folder)
    table = judge_cohort(name, folder=folder)
    line = table[(table["detector"] == JUDGED) & (table["allowed"] == allowed)].iloc[0]
    return Calibration(
        name=cohort.name,
        goal=f"When an adapter on {cohort.set['base.model']} is suspicious.",
        source=f"lab cohort build {cohort.name}, score, calibrate",
        base=cohort.set["base.model"],
        clean=int((~part).sum()),
        poisoned=int(part.sum()),
        allowed=allowed,
        threshold=float(line["threshold"]),
        statistics={
            statistic: Weight(mean=float(mean), spread=float(spread), weight=float(weight))
            for statistic, mean, spread, weight in zip(
                DETECTORS[JUDGED].statistics, score.mean, score.spread, score.weights, strict=True
            )
        },
        test=Counted(
            clean=line["false_positives.n"],
            false_positives=line["false_positives.k"],
            poisoned=line["recall.n"],
            found=line["recall.k"],
        ),
    )


def calibration_toml(calibration: Calibration) -> str:
    """The file that `CALIBRATIONS` reads."""
    import json

    held = calibration.model_dump()
    statistics, test = held.pop("statistics"), held.pop("test")
    lines = [f"{key} = {json.dumps(value)}" for key, value in held.items()]
    lines += ["", "[test]", *(f"{key} = {value}" for key, value in test.items())]
    for name, weight in statistics.items():
        lines += ["", f"[statistics.{json.dumps(name)}]", *(f"{k} = {v!r}" for k, v in weight.items())]
    return "\n".join(lines) + "\n"


def load_calibrations(folder: str | Path | None = None) -> dict[str, Calibration]:
    """Read every calibration of a folder; the answer is cached for the life of the process.

    Args:
        folder: A folder of `<name>.toml` files; the lab's own `data/calibrations` if not given.

    Raises:
        LabError: A file is malformed (the message names file and field), or is not named as its calibration.
    """
    return dict(_load(Path(folder) if folder else data_dir() / "calibrations"))


@cache
def _load(folder: Path) -> dict[str, Calibration]:
    return read_entries(folder, Calibration.model_validate, "calibrations")


#: The registry of calibrations, from name to `Calibration`.
CALIBRATIONS: Mapping[str, Calibration] = FileRegistry("calibrations", _load)
