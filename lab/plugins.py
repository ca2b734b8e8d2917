"""Parts of your own: a trigger family, a defense or a detector that joins the registries beside the lab's.

    lab.register(MINE)                         in a notebook: known at once, in this process
    LAB_PLUGINS=mine.py lab dashboard          a file that does so, run by every process of the lab
    [project.entry-points.lora_backdoor_lab]   an installed package whose module does so

A file that is named runs as code with your rights, so that none is looked for anywhere: neither runs folders
nor adapters bring any. A run whose family or defense is not registered cannot be asked for again.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.paths import expanded

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from lab.audit.detectors import Detector
    from lab.defend import Defense
    from lab.poison import TriggerFamily

#: Names Python files with parts of one's own, parted as in PATH.
VARIABLE = "LAB_PLUGINS"
#: The group of entry points of installed packages; each names a module.
GROUP = "lora_backdoor_lab"

_loaded: set[str] = set()


def register(entry: TriggerFamily | Defense | Detector) -> None:
    """Add a part of one's own to its registry; the same one again replaces what it was, so that cells rerun.

    Args:
        entry: A `lab.poison.TriggerFamily`, a defense of one of the kinds of `lab.defend`, or a
            `lab.audit.Detector`.

    Raises:
        LabError: It is none of these, lacks a goal or a source, has the name of one of the lab's own, or a
            family holds a string of another family.
    """
    registry, what = _registry_of(entry)
    source = getattr(entry, "paper", "") or getattr(entry, "source", "")
    for said, field in ((entry.name, "name"), (entry.goal, "goal"), (source, "source")):
        if not str(said).strip():
            raise LabError(f"register: the {what} {entry.name!r} has no {field}; every entry says it.")
    if entry.name in registry and (what, entry.name) not in _OWN:
        raise LabError(f"register: the lab has a {what} {entry.name!r} already; choose another name.")
    registry[entry.name] = entry
    _OWN.add((what, entry.name))


#: What was registered here: kind and name.
_OWN: set[tuple[str, str]] = set()


def load_plugins() -> None:
    """Run the files of `LAB_PLUGINS` and the modules of installed entry points, each once a process.

    Raises:
        LabError: A file is missing, is no Python file, or fails.
    """
    from importlib.metadata import entry_points

    paths = [expanded(named).absolute() for named in _named()]
    if paths:  # a worker that is started elsewhere has to find them too
        os.environ[VARIABLE] = os.pathsep.join(map(str, paths))
    for path in paths:
        if str(path) not in _loaded:
            _loaded.add(str(path))  # before it runs: what it imports asks for plug-ins again
            _run(path)
    for point in entry_points(group=GROUP):
        if point.value not in _loaded:
            _loaded.add(point.value)
            point.load()


def _named() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def _run(path: Path) -> None:
    if path.suffix != ".py" or not path.is_file():
        raise LabError(f"{VARIABLE}: {path} is no Python file (allowed: files that end in .py).")
    spec = importlib.util.spec_from_file_location(f"lab_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise LabError(f"{VARIABLE}: {path} cannot be read as Python.")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except LabError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise LabError(f"{VARIABLE}: {path} raised {type(error).__name__}: {error}.") from error


def _registry_of(entry: Any) -> tuple[MutableMapping[str, Any], str]:
    from lab.audit.detectors import DETECTORS, Detector
    from lab.defend import DEFENSES, Defense
    from lab.poison.triggers import OWN_FAMILIES, TriggerFamily, check_apart

    if isinstance(entry, TriggerFamily):
        check_apart(entry)
        return OWN_FAMILIES, "trigger family"
    if isinstance(entry, Defense):
        if getattr(entry.knobs(), "name", "") != entry.name:
            raise LabError(f"register: the knobs of {entry.name!r} need a field name = {entry.name!r}.")
        return DEFENSES, "defense"
    if isinstance(entry, Detector):
        return DETECTORS, "detector"
    raise LabError(
        f"register: a {type(entry).__name__} has no registry; allowed are a TriggerFamily, a defense of "
        "lab.defend and a lab.audit.Detector."
    )
