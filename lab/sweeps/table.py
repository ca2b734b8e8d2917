"""A sweep's table: one line per cell, what was asked of it and what its run says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.defend import settle
from lab.experiment import Experiment

if TYPE_CHECKING:
    from lab.record import Run


@dataclass
class Line:
    """One line of a sweep's table: keys as they were asked for, and what the run says of them and more."""

    asked: dict[str, Any]
    found: dict[str, Any] = field(default_factory=dict)


def cell_line(run: Run) -> dict[str, Any]:
    """The headline of a finished run as a sweep's table has it.

    What is easily confounded with a rank stands beside it: alpha/r, learning rate, steps as trained with.
    The trigger is the one that was measured, the run's own or its base's; "" where there is none.
    """
    from lab.store import headline_columns

    headline = run.headline
    adapter, training = run.experiment.adapter, run.experiment.training
    return {
        "run": run.id,
        "state": run.state,
        "reason": "",
        "split": headline["split"],
        "trigger": _trigger(run),
        "alpha/r": adapter.alpha_value / adapter.rank if adapter.kind == "lora" else float("nan"),
        "training.learning_rate": training.learning_rate,
        "training.steps": training.steps,
        **headline_columns(headline["measures"]),
    }


def trained_with(asked: Experiment, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The values of these keys in the training itself, the very objects where they are those asked for."""
    settled = settle(asked)
    before, after = asked.to_dict(), settled.to_dict()
    found = {}
    for key, value in keys.items():
        section, _, name = key.partition(".")
        if section == "adapter" and name != "kind" and settled.adapter.kind == "full":
            found[key] = float("nan")
        elif section == "defense" or value_at(before, key) == value_at(after, key):
            found[key] = value
        else:
            found[key] = value_at(after, key)
    return found


def with_asked(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The table's lines, with a column for what was asked of each key that some cell trained otherwise."""
    apart = [
        key
        for key in dict.fromkeys(key for line in lines for key in line.asked)
        if any(key in line.found and line.found[key] != line.asked[key] for line in lines)
    ]
    return [
        {**line.asked, **{f"asked.{k}": line.asked[k] for k in apart if k in line.asked}, **line.found}
        for line in lines
    ]


def value_at(values: Any, key: str) -> Any:
    """The value at a dotted key of nested plain values; numbers index lists."""
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


def _trigger(run: Run) -> str:
    """What to call the trigger that a run was measured with: the strings asked for, a member, or a name."""
    from lab.poison import own_injection

    poison = run.measured_poison
    own = str(getattr(poison, "member", "")) or own_injection(poison)
    named = str(getattr(poison, "family", "")) or own
    return ", ".join(run.asked_probe.triggers) or (named if own == "any" else own)
