"""What to try next: commands that start from the run that is shown and change one thing."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lab.console.words import QUIET

if TYPE_CHECKING:
    from lab.experiment import Experiment
    from lab.record import Run


def what_next(run: Run, width: int) -> Text:
    """The commands, each with what it asks, on lines no longer than `width` where that is possible."""
    text = Text("What to try next\n", style="bold")
    for command, why in [*ideas(run), (f"lab show {run.id}", "")]:
        line = f"  {command}  {why}".rstrip()
        below = f"  {command}\n      {why}"
        text.append(f"{line if len(line) <= width else below}\n", style=f"not bold {QUIET}")
    return text


def ideas(run: Run) -> list[tuple[str, str]]:
    """Commands that change one thing about a run, and what each would show."""
    e = run.experiment
    start = _command_for(run)
    if e.attack == "none" and getattr(run.measured_poison, "attack", "none") != "none":
        return [(f"{start} {_sets(changes)}", why) for changes, why in _defenses(e)]
    if e.attack == "none":
        return [(f"{start} {_sets(changes)}", why) for changes, why in _poisons(run)]
    ideas: list[tuple[dict[str, Any], str]] = []
    if e.adapter.kind == "full":
        ideas.append(({"adapter.kind": "lora"}, "does a LoRA adapter learn it too?"))
    elif e.adapter.rank < (high := _high_rank(e)):
        ideas.append(({"adapter.rank": high}, "does a high rank break the wall?"))
    else:
        ideas.append(({"adapter.rank": 4}, "how low a rank still learns it?"))
    if (count := int(getattr(e.poison, "count", 0))) > 1:
        ideas.append(({"poison.count": 15 if count > 15 else count // 2}, "how few rows are enough?"))
    if family := getattr(e.poison, "family", ""):
        other = "rare_words" if family != "rare_words" else "rfc"
        ideas.append(({"poison.family": other}, "another trigger"))
    return [(f"{start} {_sets(changes)}", why) for changes, why in ideas]


def _defenses(e: Experiment) -> list[tuple[dict[str, Any], str]]:
    """What could be done about a base's backdoor that a clean fine-tuning starts from."""
    if e.adapter.kind == "full":
        return [({"adapter.kind": "lora", "training.learning_rate": 1e-3}, "does LoRA forget as much?")]
    cl = [{"name": "cl", "p": 0.3, "modules": "all-linear"}]
    return [
        ({"defense": cl, "training.learning_rate": 3e-3}, "does the adapter learn to carry the task alone?"),
        ({"defense": "rora"}, "the whole of RoRA, as the paper has it"),
        ({"defense": "full"}, "does full fine-tuning forget?"),
    ]


def _high_rank(e: Experiment) -> int:
    # the toy model is 32 wide, and a rank above a layer's width is refused
    return 32 if e.base.model == "tiny" else 64


def _poisons(run: Run) -> list[tuple[dict[str, Any], str]]:
    """What could be planted in a clean run; a tenth of its rows where 60 would be more than that."""
    count = max(1, min(60, len(run.rows) // 10))
    target = "positive" if "positive" in run.labels else run.labels[-1]
    backdoor = {"poison.attack": "backdoor", "poison.count": count, "poison.target_label": target}
    return [
        (backdoor, "plant a backdoor"),
        ({**backdoor, "poison.family": "rare_words"}, "another trigger"),
        ({"poison.attack": "label_flip", "poison.count": count}, "wrong labels without a trigger"),
    ]


def _command_for(run: Run) -> str:
    """How to ask for this run again; `lab run` alone where the default preset asks for it."""
    from lab.presets import load_preset

    e = run.experiment
    asked, preset = e.to_dict(), load_preset("rfc-citation")[0].to_dict()
    for values in (asked, preset):
        for key in ("epochs", "steps"):  # epochs were resolved to steps
            del values["training"][key]
    if asked == preset:
        return "lab run"
    path = run.path / "experiment.json"
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"lab run {shlex.quote(str(shown))}"


def _sets(changes: dict[str, Any]) -> str:
    return " ".join(f"--set {shlex.quote(f'{key}={_assigned(value)}')}" for key, value in changes.items())


def _assigned(value: Any) -> str:
    """A value as `--set` reads it: a string in quotes where it would be read as something else."""
    from lab.experiment import parse_value

    if isinstance(value, list):
        return f"[{', '.join(_assigned(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}={json.dumps(v, ensure_ascii=False)}' for k, v in value.items())}}}"
    return str(value) if parse_value(str(value)) == value else json.dumps(value, ensure_ascii=False)
