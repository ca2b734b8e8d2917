"""What a run was asked elsewhere: a copy comes back with more measures than lie here, and they are added."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lab.files import read_json, write_json, write_table
from lab.store import RunFolder

#: How `lab.probing_stage.probe_id` writes; anything else is no name to make a path of.
_PROBE_ID = re.compile(r"[0-9a-f]{10}")
#: What a result tells of its last measuring.
_OF_THE_LAST = ("timings", "peak_memory_mb", "machine", "finished")


def add_probes(copy: Path, run: Path) -> list[str]:
    """Add to a finished run the ways of probing that a copy has more; all that is there stays.

    Nothing is added from weights that were trained another time, nor to a run that is not finished.

    Args:
        copy: The copy's folder, its records checked; its weights are not needed.
        run: The run's folder, which is held meanwhile.

    Returns:
        The ids of the ways of probing that were added.

    Raises:
        LabError: The run's folder cannot be written.
    """
    if not _missing(copy, run):  # nobody is waited for then
        return []
    with RunFolder(run).lock():
        names = _missing(copy, run)  # whoever held it may have changed that
        if names:
            _add(names, copy, run)
    return names


def _missing(copy: Path, run: Path) -> list[str]:
    """Ways of probing that the copy has, and the run not at all or without the twin."""
    training, here, brought = _training(run), _probes(run), _probes(copy)
    if training is None or training != _training(copy) or here is None or brought is None:
        return []
    return [
        name
        for name, entry in brought.items()
        if _PROBE_ID.fullmatch(name)
        and _measures(copy, name).is_file()
        and (
            name not in here
            or not _measures(run, name).is_file()
            or bool(entry["twin"]) > bool(here[name]["twin"])
        )
    ]


def _training(run: Path) -> tuple[str, Any] | None:
    """What tells one training from another of the same weights id: what was noted at its end."""
    record, noted = read_json(run / "experiment.json"), read_json(run / "trained.json")
    return (record["weights_id"], noted) if record and noted else None


def _probes(run: Path) -> dict[str, Any] | None:
    """What a finished run's result tells of each way of probing; None of an unfinished one."""
    result = read_json(run / "result.json")
    return None if result is None else dict(result["probes"])


def _measures(run: Path, name: str) -> Path:
    return run / "measures" / f"{name}.parquet"


def _add(names: list[str], copy: Path, run: Path) -> None:
    """Tables first and the result last, as when a run is measured: a kill in between leaves it as it was."""
    import pandas as pd

    from lab.probing_stage import add_predictions
    from lab.results import with_probe

    told = pd.read_parquet(copy / "predictions.parquet")
    add_predictions(run, told[told["probe"].isin(names)])
    for name in names:
        write_table(_measures(run, name), pd.read_parquet(_measures(copy, name)))
    result: dict[str, Any] = read_json(run / "result.json") or {}
    brought: dict[str, Any] = read_json(copy / "result.json") or {}
    for name in names:
        result |= with_probe(result, name, brought["probes"][name])
    result |= {key: brought[key] for key in _OF_THE_LAST if key in brought}
    write_json(run / "result.json", result)
    _add_events(copy, run)


def _add_events(copy: Path, run: Path) -> None:
    here = RunFolder(run)
    known = {json.dumps(event) for event in here.read_events()}
    for event in RunFolder(copy).read_events():
        if json.dumps(event) not in known:
            here.append_event(**event)
