"""The records of runs that come from elsewhere: of the form that the lab writes, and of the run they name.

A run's id is worked out again from what its record says was asked, so that no run passes for another. That
its numbers and weights are what training gives is its sender's word: only training it again would tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.bases import poisoned_name
from lab.errors import LabError
from lab.experiment import Experiment, Probe, run_id, weights_id

#: Bytes of each of a run's small files, which are read as a whole.
MAX_RECORD = 16 * 2**20
#: What a run's folder is called.
RUN_ID = re.compile(r"[a-z0-9][a-z0-9_.-]*-[0-9a-f]{10}")
_Small = TypeVar("_Small", bound=BaseModel)


# a run that is named lies beside the one that names it, so a name is a folder's and no path
_RunName = Annotated[str, Field(pattern=rf"^({RUN_ID.pattern})?$")]


class _Strict(BaseModel):
    """Part of a small file, of which only what others rely on is looked at; text is no number here."""

    model_config = ConfigDict(strict=True)


class _Dataset(_Strict):
    fingerprint: str


class _Record(_Strict):
    """`experiment.json`, as `lab.results.experiment_record` writes it."""

    id: str
    weights_id: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: float = Field(allow_inf_nan=False)
    labels: list[str]
    dataset: _Dataset
    base_sha256: str
    base_run: _RunName = ""
    parent: _RunName = ""
    root: str = ""
    prompt_template: str = ""
    measured_poison: dict[str, Any] = {}
    experiment: dict[str, Any]


class _Measure(_Strict):
    value: float
    n: int
    k: int = -1
    low: float
    high: float


class _Probed(_Strict):
    split: str
    twin: _RunName
    families: dict[str, float] = {}
    family_rows: dict[str, int] = {}
    measures: dict[str, dict[str, _Measure]]
    probe: Probe


class _Result(_Strict):
    """`result.json`, as `lab.results.write_result` writes it."""

    id: str
    twin: _RunName
    shown: str
    measures: dict[str, dict[str, dict[str, _Measure]]]
    probes: dict[str, _Probed]


def check_run(folder: Path, runs: Path) -> None:
    """Refuse a folder that calls itself a run and is none, or another one than its name says.

    Args:
        folder: The folder, under the run's id.
        runs: The runs folder, where the run's base may lie if it does not lie beside it.

    Raises:
        LabError: With the reason, in one sentence.
    """
    name = folder.name
    record = _read_small(folder / "experiment.json", _Record)
    result = _read_small(folder / "result.json", _Result)
    experiment = _checked_experiment(name, record)
    if name != record.id or name != result.id or result.shown not in result.probes:
        raise LabError(f"The archive's {name} is not the finished run that its record speaks of.")
    base = _base_of(record, runs, folder.parent)
    weights = record.weights_id
    if base or not record.base_run:
        weights = _weights_id(experiment, record, base)
        name = _run_id(experiment, record, base, weights)
    # without its base, the id cannot be worked out, but the run cannot be opened either
    if weights != record.weights_id or name != folder.name or not name.endswith(f"-{weights[:10]}"):
        raise LabError(
            f"The archive's {folder.name} records an experiment that makes another id: it was changed, or "
            "comes from a version of the lab that trains otherwise."
        )


def _read_small(path: Path, form: type[_Small]) -> _Small:
    """One of a run's small files, if it has the form that readers rely on."""
    what = f"The archive's {path.parent.name} has no readable {path.name}"
    try:
        if path.stat().st_size > MAX_RECORD:
            raise LabError(f"{what}: it is larger than {MAX_RECORD // 2**20} MiB.")
        return form.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise LabError(f"{what}: it is missing.") from None
    except ValidationError as error:
        first = error.errors()[0]
        words = " ".join([".".join(map(str, first["loc"])), first["msg"]])
        raise LabError(f"{what}: {' '.join(words.split())[:200]}.") from None
    except (ValueError, RecursionError) as error:
        raise LabError(f"{what}: {error}.") from None


def _checked_experiment(run: str, record: _Record) -> Experiment:
    """What was asked, if it is valid and written as the lab writes it: listings read it as it stands."""
    try:
        experiment = Experiment.from_dict(record.experiment)
        Experiment.from_dict({"poison": record.measured_poison})
    except (LabError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LabError(f"The archive's {run} holds no experiment that this version knows: {reason}") from None
    if not _is_part(record.experiment, experiment.to_dict()):
        raise LabError(f"The archive's {run} holds an experiment that the lab did not write.")
    return experiment


def _is_part(part: Any, whole: Any) -> bool:
    """Whether values are the same, but for keys of tables that an older version did not know."""
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _is_part(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_is_part, part, whole))
    return bool(part == whole)


def _base_of(record: _Record, *folders: Path) -> _Record | None:
    """The record of the run that a run started from; None where it started from a pretrained model."""
    for folder in folders:
        if record.base_run and (folder / record.base_run / "experiment.json").is_file():
            return _read_small(folder / record.base_run / "experiment.json", _Record)
    return None


def _weights_id(experiment: Experiment, record: _Record, base: _Record | None) -> str:
    """The weights' id by the rule of `lab.prepare`, from the record alone: neither data nor model is read."""
    return weights_id(
        experiment,
        base=f"run {base.weights_id}" if base else record.base_sha256,
        data_fingerprint=record.dataset.fingerprint,
        template=record.prompt_template,
    )


def _run_id(experiment: Experiment, record: _Record, base: _Record | None, weights: str) -> str:
    short = poisoned_name(record.root, base.measured_poison.get("family", "clean")) if base else record.root
    return run_id(experiment, short, weights)
