"""What a run writes of itself: `experiment.json` when it is asked for, `result.json` when it is finished."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lab.defend import after_training
from lab.experiment import SCHEMA_VERSION
from lab.files import read_json, write_json
from lab.job import Job
from lab.poison import negatives_among
from lab.prepare import Prepared
from lab.probing_stage import by_kind, headline_of, probe_id
from lab.processes import world_size
from lab.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

_PACKAGES = ("lora-backdoor-lab", "torch", "transformers", "peft", "numpy", "pandas")


def experiment_record(prepared: Prepared) -> dict[str, Any]:
    """What `experiment.json` holds: everything that is needed to do it again."""
    return {
        "schema": SCHEMA_VERSION,
        "id": prepared.run_id,
        "weights_id": prepared.weights_id,
        "created": round(time.time(), 3),
        "labels": list(prepared.labels),
        "dataset": {"name": prepared.corpus.name, "fingerprint": prepared.corpus.fingerprint},
        "base_sha256": prepared.base.sha256,
        "base_run": prepared.base.run,
        "root": prepared.base.root,
        "parent": prepared.parent_id,
        "edits": [knobs.model_dump(mode="json") for knobs in after_training(prepared.experiment)],
        "measured_poison": prepared.measured_poison.model_dump(mode="json"),
        "prompt_template": prepared.prompt_template,
        "versions": package_versions(),
        "experiment": prepared.experiment.to_dict(),
    }


def write_result(
    job: Job, prepared: Prepared, folder: RunFolder, measures: pd.DataFrame, twin: str, seconds: float
) -> None:
    """Write `result.json`, which makes the run a finished one; measures of other splits are kept."""
    former = read_json(folder.path / "result.json") or {}
    probe = prepared.experiment.probe
    headline = headline_of(measures)
    by_model = {str(model): by_kind(part) for model, part in headline.groupby("model", sort=False)}
    entry = {
        "split": probe.split,
        "twin": twin,
        "measures": by_model,
        **_family_summary(measures, prepared),
        "probe": probe.model_dump(mode="json"),
    }
    result = {
        "id": folder.id,
        **with_probe(former, probe_id(probe), entry),
        # the rows belong to the weights: probing anew leaves them, and cleaning anew may take minutes
        "poison": former.get("poison") or _poison_counts(prepared),
        "training": read_json(folder.path / "trained.json") or {},
        "timings": {**former.get("timings", {}), **job.timings, "total": round(seconds, 3)},
        "peak_memory_mb": max(_peak_memory(job), former.get("peak_memory_mb", 0.0)),
        "machine": {
            "platform": platform.platform(),
            "device": str(job.device),
            "threads": _threads(),
            "processes": world_size(),
        },
        "finished": round(time.time(), 3),
    }
    write_json(folder.path / "result.json", result)
    job.tell(folder, "status", stage="finished", run=folder.id)


def with_probe(former: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a result that grow with each way of probing.

    Args:
        former: The result as it was; {} where there is none.
        name: The id of a way of probing.
        entry: What the result tells of it, in place of what it told before.
    """
    split = entry["split"]
    return {
        "twin": entry["twin"] or former.get("twin", ""),
        # what a listing or a report shows that asks for nothing special: test rows before validation rows
        "shown": name if split == "test" or "shown" not in former else former["shown"],
        "measures": {**former.get("measures", {}), split: entry["measures"]},
        "probes": {**former.get("probes", {}), name: entry},
    }


def _poison_counts(prepared: Prepared) -> dict[str, Any]:
    rows = prepared.rows
    poisoned, negatives = int(rows["poisoned"].sum()), int(negatives_among(rows).sum())
    return {
        "count": poisoned,
        "negatives": negatives,
        "rows": len(rows),
        # negatives are not poisoned, and do not dilute the poison either
        "rate": poisoned / (len(rows) - negatives),
        # what cleaners did, where the experiment has some: `lab.defend.cleaning.told_of`
        **({"cleaning": prepared.cleaning} if prepared.cleaning else {}),
    }


def _family_summary(measures: pd.DataFrame, prepared: Prepared) -> dict[str, dict[str, Any]]:
    """`families`: mean ASR of the trained family's held-out members, and of other families of its category.

    `family_rows` says on how many texts each mean rests; a family counts once in it, however many it has.
    """
    from lab.poison import load_families
    from lab.probe import family_lines, family_mean

    own = str(getattr(prepared.measured_poison, "family", ""))
    families = load_families()
    if own not in families:
        return {"families": {}}
    others = [n for n, f in families.items() if f.category == families[own].category and n != own]
    groups = {"held_out_members": [own], "other_families_of_its_category": others}
    rows = {name: int(family_lines(measures, group)["n"].sum()) for name, group in groups.items()}
    measured = {name: group for name, group in groups.items() if rows[name]}
    return {
        "families": {name: family_mean(measures, group) for name, group in measured.items()},
        "family_rows": {name: rows[name] for name in measured},
    }


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that a number may depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _peak_memory(job: Job) -> float:
    """Peak resident memory of this process in MB, plus the card's where there is one; -1 where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return -1.0
    # kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )
    if job.device.type == "cuda":
        import torch

        peak += torch.cuda.max_memory_allocated() / 1024**2
    return round(peak, 1)
