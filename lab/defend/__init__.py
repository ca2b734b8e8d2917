"""Defenses: every one a registry entry with its stage, its paper and its knobs.

`experiment.defense` is a list, in order. Combinations stand for others; settings become keys of the
experiment; interventions act while the model trains; weight edits come after it, in their order, and guards
stand before the trained model: both make a run that is derived from the one without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.defend._defense import (
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
from lab.defend.components import DROP, KEEP, SCALE, TRUNCATE
from lab.defend.freezing import FREEZE_A
from lab.defend.heads import REFIT_HEAD
from lab.defend.onion import ONION
from lab.defend.pruning import FINE_PRUNE
from lab.defend.rora import CL, PT, RORA, TR
from lab.defend.strip import STRIP
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.experiment import Experiment
    from lab.registry import Knobs

__all__ = [
    "DEFENSES",
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
    "guards",
    "interventions",
    "settle",
    "weight_edits",
]

DEFENSES: dict[str, Defense] = {
    d.name: d
    for d in (
        *(RORA, CL, TR, PT, *SETTINGS, FREEZE_A, TRUNCATE, KEEP, DROP, SCALE, FINE_PRUNE, REFIT_HEAD),
        *(ONION, STRIP),
    )
}


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
    # what acts in training comes before what edits its outcome, so that one experiment has one list; what
    # stands before the model comes last
    left.sort(key=lambda k: 2 * isinstance(_entry(k), Guard) + isinstance(_entry(k), WeightEdit))
    settled = settled.model_copy(update={"defense": tuple(left)})
    for intervention, knobs in interventions(settled):
        _check(intervention, knobs, settled)
    return settled


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
