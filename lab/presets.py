"""Where experiments come from: presets that the lab ships, and files of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError, unknown_name
from lab.experiment import Experiment, check_table, parse_json, parse_toml
from lab.paths import data_dir


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


def load_experiment(source: str | Path | Experiment) -> Experiment:
    """An experiment from a preset's name, a TOML or JSON file, or an `Experiment` itself."""
    if isinstance(source, Experiment):
        return source
    path = Path(source).expanduser()
    if path.suffix in (".toml", ".json"):
        if not path.is_file():
            raise LabError(f"No experiment file {str(source)!r}; give a TOML file or a preset's name.")
        return _from_file(path, "")[0]
    return load_preset(str(source))[0]


def _from_file(path: Path, name: str) -> tuple[Experiment, dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LabError(f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise LabError(f"{path.name} cannot be read ({error.strerror}).") from None
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
