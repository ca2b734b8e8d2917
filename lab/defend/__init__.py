"""Defenses: every one a registry entry with its stage, its paper and its knobs.

`experiment.defense` is a list, in order. Combinations stand for others; settings become keys of the
experiment; cleaners act on the training rows, interventions while the model trains; weight edits come after
it, in their order, and guards stand before the trained model: both make a run that is derived from the one
without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.defend._defense import (
    Cleaner,
    Combination,
    Defense,
    Guard,
    Host,
    InputDetector,
    Intervention,
    Patient,
    Penalty,
    Setting,
    Subject,
    TextFilter,
    WeightEdit,
    Weights,
)
from lab.defend.baselines import SETTINGS
from lab.defend.cleaning import Cleaned, cleaned_rows, told_of
from lab.defend.components import DROP, KEEP, SCALE, TRUNCATE
from lab.defend.duplicates import DEDUPLICATE
from lab.defend.freezing import FREEZE_A
from lab.defend.heads import REFIT_HEAD
from lab.defend.linted import COUNTER_INJECTION, DROP_LINTED, MASK_LINTED
from lab.defend.normalise import NORMALISE
from lab.defend.onion import ONION
from lab.defend.paraphrase import PARAPHRASE
from lab.defend.pruning import FINE_PRUNE
from lab.defend.rora import CL, PT, RORA, TR
from lab.defend.strip import STRIP
from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.experiment import Experiment
    from lab.registry import Knobs

__all__ = [
    "DEFENSES",
    "Cleaned",
    "Cleaner",
    "Combination",
    "Defense",
    "Guard",
    "Host",
    "InputDetector",
    "Intervention",
    "Patient",
    "Penalty",
    "Setting",
    "Subject",
    "TextFilter",
    "WeightEdit",
    "Weights",
    "after_training",
    "clean_rows",
    "cleaning_seconds",
    "guards",
    "interventions",
    "settle",
    "weight_edits",
]

DEFENSES: dict[str, Defense] = {
    d.name: d
    for d in (
        *(NORMALISE, DEDUPLICATE, DROP_LINTED, MASK_LINTED, COUNTER_INJECTION, PARAPHRASE),
        *(RORA, CL, TR, PT, *SETTINGS, FREEZE_A, TRUNCATE, KEEP, DROP, SCALE, FINE_PRUNE, REFIT_HEAD),
        *(ONION, STRIP),
    )
}


#: When a defense acts; what stands before the trained model comes last.
_TIME: dict[type[Defense], int] = {Cleaner: 0, Intervention: 1, WeightEdit: 2}
_TIME_OF_GUARDS = 3


def settle(experiment: Experiment) -> Experiment:
    """The same experiment with combinations taken apart and settings made; doing it again changes nothing.

    Raises:
        LabError: A defense does not fit the way of training.
    """
    apart = _apart(experiment.defense)
    settled, set_by = experiment, dict[str, str]()
    for defense, knobs in [(d, k) for k in apart if isinstance(d := _entry(k), Setting)]:
        _check(defense, knobs, settled)
        values = defense.settings(knobs, settled)
        _check_untouched(values, set_by, defense.name)
        settled = settled.with_(**values)
    left = [k for k in apart if not isinstance(_entry(k), Setting)]
    # in the order in which they act, so that one experiment has one list
    left.sort(key=lambda k: _TIME.get(type(_entry(k)), _TIME_OF_GUARDS))
    settled = settled.model_copy(update={"defense": tuple(left)})
    for intervention, knobs in interventions(settled):
        _check(intervention, knobs, settled)
    return settled


def clean_rows(rows: pd.DataFrame, experiment: Experiment) -> tuple[pd.DataFrame, dict[str, int]]:
    """The training rows as the cleaners of a settled experiment leave them.

    Args:
        rows: The rows, poisoned or not (`lab.tables.ROW_COLUMNS`); left as they are.
        experiment: Settled.

    Returns:
        The rows to train on, and what was done, in counts of rows (`lab.defend.cleaning.told_of`); {} where
        there is no cleaner.

    Raises:
        LabError: Nothing is left, or no row of some label.
    """
    chosen = [(d, k) for k in experiment.defense if isinstance(d := _entry(k), Cleaner)]
    cleaned = rows
    for cleaner, knobs in chosen:
        found = cleaner.clean(knobs, cleaned["text"].tolist(), cleaned["label"].tolist(), experiment.seed)
        cleaned = cleaned_rows(cleaned, found)
        if gone := sorted(set(rows["label"]) - set(cleaned["label"])):
            raise LabError(
                f"The defense {cleaner.name!r} leaves no row with the label {gone[0]!r}; make it milder."
            )
    return cleaned, told_of(rows, cleaned) if chosen else {}


def cleaning_seconds(experiment: Experiment) -> float:
    """What the cleaners of a settled experiment take for one training row on one core, roughly."""
    return sum(d.row_seconds for k in experiment.defense if isinstance(d := _entry(k), Cleaner))


def interventions(experiment: Experiment) -> list[tuple[Intervention, Knobs]]:
    """The defenses of a settled experiment that act in training, in order."""
    return [(d, k) for k in experiment.defense if isinstance(d := _entry(k), Intervention)]


def weight_edits(experiment: Experiment) -> list[tuple[WeightEdit, Knobs]]:
    """The defenses of a settled experiment that edit the trained weights, in order."""
    return [(d, k) for k in experiment.defense if isinstance(d := _entry(k), WeightEdit)]


def guards(experiment: Experiment) -> list[tuple[Guard, Knobs]]:
    """The defenses of a settled experiment that stand before the trained model, in order."""
    return [(d, k) for k in experiment.defense if isinstance(d := _entry(k), Guard)]


def after_training(experiment: Experiment) -> list[Knobs]:
    """The knobs of all that comes after training, edits and guards, in order: what makes a derived run."""
    return [knobs for _, knobs in (*weight_edits(experiment), *guards(experiment))]


def _check(defense: Setting | Intervention, knobs: Knobs, experiment: Experiment) -> None:
    if why := defense.refuse(knobs, experiment):
        raise LabError(f"The defense {defense.name!r} does not fit this experiment: {why}.")


def _check_untouched(values: Mapping[str, object], set_by: dict[str, str], name: str) -> None:
    """Refuse a setting whose keys another one has set: the later would undo the earlier, or double it."""
    for key in values:
        for other, owner in set_by.items():
            if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                raise LabError(f"The defenses {owner!r} and {name!r} both set {key}; take one of them.")
    set_by.update(dict.fromkeys(values, name))


def _apart(defenses: tuple[Knobs, ...]) -> list[Knobs]:
    out: list[Knobs] = []
    for knobs in defenses:
        defense = _entry(knobs)
        out += defense.expand(knobs) if isinstance(defense, Combination) else [knobs]
    return out


def _entry(knobs: Knobs) -> Defense:
    return DEFENSES[knobs.name]  # type: ignore[attr-defined] # every defense's knobs carry their name
