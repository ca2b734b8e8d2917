"""Where experiments come from: presets that the lab ships, and files of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError, unknown_name
from lab.experiment import Experiment, check_table, parse_json, parse_toml
from lab.paths import data_dir, expanded


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep file asks for; the arguments of `lab.sweep`.

    Attributes:
        about: What the file says of itself: goal, paper, machine, takes.
        experiment: What every cell starts from.
        over: The grid.
        arms: Named ways to run every point, None without.
        seeds: How many seeds, or which.
        tune: What is chosen on validation rows for every point and arm, None without: over, measure.
    """

    about: dict[str, str]
    experiment: Experiment
    over: dict[str, list[Any]]
    arms: dict[str, dict[str, Any]] | None
    seeds: int | list[int]
    tune: dict[str, Any] | None = None


def preset_names() -> list[str]:
    """The names of the presets that the lab ships, sorted."""
    return sorted(path.stem for path in (data_dir() / "presets").glob("*.toml"))


def load_preset(name: str) -> tuple[Experiment, dict[str, str]]:
    """Read a shipped preset.

    Returns:
        The experiment, and what the preset says of itself: goal, paper, machine, takes.

    Raises:
        LabError: On an unknown name; lists the valid ones.
    """
    path = data_dir() / "presets" / f"{name}.toml"
    if name not in preset_names():
        raise unknown_name("preset", name, preset_names())
    return _from_file(path, name)


def sweep_names() -> list[str]:
    """The names of the sweeps that the lab ships, sorted."""
    return sorted(path.stem for path in (data_dir() / "sweeps").glob("*.toml"))


def load_sweep(name: str) -> SweepPlan:
    """Read a shipped sweep, or one of the user's own (a TOML file with a table `over`, `arms` or both).

    Keys are dotted, in quotes ("adapter.rank" = 4) or as TOML's own tables (adapter.rank = 4).

    Raises:
        LabError: An unknown name, or a file that is no sweep; names the key that is wrong.
    """
    path = data_dir() / "sweeps" / f"{name}.toml" if name in sweep_names() else expanded(name)
    if not path.is_file():
        raise unknown_name("sweep", name, sweep_names())
    values = parse_toml(_text(path), path.name)
    start = load_experiment(str(values.pop("preset", "rfc-citation")))
    tables = {key: values.pop(key, {}) for key in ("about", "set", "over", "tune", "arms")}
    seeds = values.pop("seeds", 3)
    if values:
        raise unknown_name(f"key in {path.name}", next(iter(values)), ["preset", "seeds", *tables])
    if not all(isinstance(t, Mapping) for t in tables.values()) or not isinstance(seeds, int | list):
        raise LabError(f"{path.name}: about, set, over, tune and arms are tables, seeds a number or a list.")
    arms, tune = tables["arms"], dict(tables["tune"])
    for arm, keys in arms.items():
        if not isinstance(keys, Mapping):
            raise LabError(f"{path.name}: arms are tables of keys, but {arm} = {keys!r}.")
    if isinstance(tune.get("over"), Mapping):
        tune["over"] = _dotted(tune["over"], f"{path.name}: tune.over")
    return SweepPlan(
        about={k: str(v) for k, v in tables["about"].items()},
        experiment=start.with_(**_dotted(tables["set"], f"{path.name}: set")),
        over=_dotted(tables["over"], f"{path.name}: over"),
        arms={arm: _dotted(keys, f"{path.name}: arms.{arm}") for arm, keys in arms.items()} or None,
        seeds=seeds,
        tune=tune or None,
    )


def _dotted(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A table's values by dotted key; without its quotes, TOML reads one as a table within a table.

    As a table it would replace its whole section, and so reset what the experiment says there.
    """
    out: dict[str, Any] = {}
    for key, value in table.items():
        within = {key: value}
        if isinstance(value, Mapping):
            within = {f"{key}.{k}": v for k, v in _dotted(value, where).items()}
        for name in within:
            if name in out:
                raise LabError(f"{where}: {name} is given twice.")
        out |= within
    return out


def is_sweep(name: str) -> bool:
    """Whether a name or file is a sweep and not a single experiment."""
    if name in sweep_names():
        return True
    path = expanded(name)
    if path.suffix != ".toml" or not path.is_file():
        return False
    values = parse_toml(_text(path), path.name)
    return "over" in values or "arms" in values


def load_experiment(source: str | Path | Experiment) -> Experiment:
    """An experiment from a preset's name, a TOML or JSON file, or an `Experiment` itself."""
    if isinstance(source, Experiment):
        return source
    path = expanded(source)
    if path.suffix in (".toml", ".json"):
        if not path.is_file():
            raise LabError(f"No experiment file {str(source)!r}; give a TOML file or a preset's name.")
        return _from_file(path, "")[0]
    return load_preset(str(source))[0]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LabError(f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise LabError(f"{path.name} cannot be read ({error.strerror}).") from None


def _from_file(path: Path, name: str) -> tuple[Experiment, dict[str, str]]:
    text = _text(path)
    if path.suffix == ".json":
        values = parse_json(text, path.name)
        check_table(values, f"{path.name}: ")
        values = values.get("experiment", values)  # a run's own experiment.json is a file to start from too
    else:
        values = parse_toml(text, path.name)
    check_table(values, f"{path.name}: ")
    about = values.pop("about", {})
    if not isinstance(about, Mapping):
        raise LabError(f"{path.name}: about = {about!r}: should be a table of words about the experiment.")
    values.setdefault("name", name)
    return Experiment.from_dict(values), {k: str(v) for k, v in about.items()}
