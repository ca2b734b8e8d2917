"""The moves of a surgery: as text for the address bar, as words, and from sliders. It needs no model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.assignments import format_value
from lab.errors import LabError
from lab.experiment import Experiment, parse_value
from lab.modules import choose_modules, layer_index, projection

#: One weight edit of `lab.defend` with the knobs that are not at their default, as in `experiment.defense`.
Move = dict[str, Any]

_EVERYWHERE = "all-linear"


@dataclass(frozen=True)
class Sliders:
    """Where the sliders of the operating table stand.

    Attributes:
        count: How many singular components ΔW has.
        first: The first component of the range, from 0, the largest.
        last: The last component of the range.
        drops: Whether the range goes, and not what is outside of it.
        factor: Factor on ΔW.
        where: The modules that are cut and scaled: a group, or names.
        off: Names of modules whose update is taken away.
    """

    count: int
    first: int
    last: int
    drops: bool = False
    factor: float = 1.0
    where: str | tuple[str, ...] = _EVERYWHERE
    off: tuple[str, ...] = ()

    def moves(self) -> list[Move]:
        """What they ask for, [] where nothing is changed; first the cut, then the scale, then what is off."""
        place = {} if self.where == _EVERYWHERE else {"modules": _plain(self.where)}
        found: list[Move] = []
        if self.drops:
            found.append({"name": "drop", "components": list(range(self.first, self.last + 1)), **place})
        else:
            if self.last < self.count - 1:
                found.append({"name": "truncate", "rank": self.last + 1, **place})
            if self.first > 0:
                found.append({"name": "drop", "components": list(range(self.first)), **place})
        if self.factor != 1.0:
            found.append({"name": "scale", "factor": self.factor, **place})
        if self.off:
            found.append({"name": "scale", "factor": 0.0, "modules": list(self.off)})
        return found


def to_text(moves: Sequence[Mapping[str, Any]]) -> str:
    """Moves as `--set defense=` takes them; "" for none."""
    return format_value([dict(move) for move in moves], "defense") if moves else ""


def from_text(text: str) -> list[Move]:
    """The moves of a link; the inverse of `to_text`.

    Raises:
        LabError: It holds something else than weight edits.
    """
    if not text:
        return []
    found = parse_value(text, "defense")
    if not isinstance(found, list) or not all(isinstance(move, Mapping) for move in found):
        raise LabError("The moves in this link cannot be read; it may have been cut off.")
    try:
        edits = Experiment.from_dict({"defense": found}).defense
    except LabError as error:
        raise LabError(f"The moves in this link cannot be made: {error}") from None
    from lab.defend import DEFENSES, WeightEdit

    names = [edit.name for edit in edits]  # type: ignore[attr-defined] # every defense's knobs carry their name
    for name in names:
        if not isinstance(DEFENSES[name], WeightEdit):
            raise LabError(
                f"The moves in this link hold {name!r}, which acts in training and edits no weights."
            )
    return [dict(move) for move in found]


def compact(name: str, knobs: Mapping[str, Any]) -> Move:
    """A move without the knobs that stand at their default.

    Raises:
        LabError: The knobs do not fit.
    """
    [edit] = Experiment.from_dict({"defense": [{"name": name, **knobs}]}).defense
    return {"name": name, **edit.model_dump(mode="json", exclude_defaults=True)}


def told(move: Mapping[str, Any]) -> str:
    """A move in words, as plain text: "drop components 0–3 · mlp"."""
    rest = {key: value for key, value in move.items() if key not in ("name", "modules", "layers")}
    name = str(move["name"])
    if name == "scale" and move.get("factor") == 0:
        words = ["take ΔW away"]
    elif name == "scale":
        words = [f"scale ΔW by {move.get('factor', 0.5):g}"]
    elif name in ("drop", "keep"):
        words = [f"{name} {_span(move.get('components', [0]))}"]
    elif name == "truncate":
        words = [f"keep the {move.get('rank', 4)} largest components"]
    else:
        words = [", ".join([name.replace("_", " "), *(f"{key} {value}" for key, value in rest.items())])]
    if "modules" in move:
        words.append(_listed(move["modules"]))
    if move.get("layers"):
        words.append(f"last {move['layers']} layers")
    return " · ".join(words)


def places(modules: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What can be pointed at in a model: name for people → names for a move's `modules`.

    Args:
        modules: Full module names.

    Returns:
        Every kind of matrix, then every layer. A kind whose short name would fit other modules too
        ("output.dense" fits the attention's output) stands for its modules' full names.
    """
    found: dict[str, tuple[str, ...]] = {}
    for kind in dict.fromkeys(projection(module) for module in modules):
        own = [module for module in modules if projection(module) == kind]
        exact = choose_modules(modules, kind, where="places") == own
        found[kind] = (kind,) if exact else tuple(own)
    numbered = sorted({layer_index(module): module for module in modules if layer_index(module) >= 0}.items())
    for number, module in numbered:
        block = re.search(rf"([^.]+\.{number})\.", module)
        found[f"layer {number}"] = (block.group(1) if block else str(number),)
    return found


def cut_text(sliders: Sliders) -> str:
    """The range as text for the address bar: "drop:0-3"; "" where all is kept."""
    whole = not sliders.drops and (sliders.first, sliders.last) == (0, sliders.count - 1)
    return "" if whole else f"{'drop' if sliders.drops else 'keep'}:{sliders.first}-{sliders.last}"


def read_cut(text: str, count: int) -> tuple[bool, int, int]:
    """Whether a range is dropped, its first and its last component; all is kept where it makes no sense."""
    found = re.fullmatch(r"(keep|drop):(\d{1,6})-(\d{1,6})", text)
    if found is None:
        return False, 0, count - 1
    first, last = sorted(min(int(number), count - 1) for number in found.groups()[1:])
    return found.group(1) == "drop", first, last


def counts_to_keep(count: int, most: int = 10) -> list[int]:
    """How many components a curve keeps in turn: 0 to all, in at most `most` even steps."""
    steps = min(count, most)
    return sorted({round(i * count / steps) for i in range(steps + 1)})


def _plain(names: str | tuple[str, ...]) -> str | list[str]:
    if isinstance(names, str):
        return names
    return names[0] if len(names) == 1 else list(names)


def _span(components: Sequence[int]) -> str:
    """Several numbers in a row as a range."""
    numbers = sorted(components)
    if len(numbers) == 1:
        return f"component {numbers[0]}"
    in_a_row = numbers == list(range(numbers[0], numbers[-1] + 1))
    return "components " + (f"{numbers[0]}–{numbers[-1]}" if in_a_row else ", ".join(map(str, numbers)))


def _listed(modules: str | Sequence[str]) -> str:
    names = [modules] if isinstance(modules, str) else list(modules)
    kinds = list(dict.fromkeys(projection(name) for name in names))
    return ", ".join(kinds)
