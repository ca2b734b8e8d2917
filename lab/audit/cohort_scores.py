"""What the detectors say of a cohort's sealed adapters: measured one by one, kept, and not looked at here.

    <folder>-scores/<id>.json      the statistics of one adapter, stage by stage

References are clean adapters of the calibration part: for an adapter of that part the others of its group, so
that a clean adapter is never its own reference. Nothing else of the key is read.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.audit.cohort_builds import cohort_folder, key_table
from lab.audit.cohorts import PARTS, find_cohort
from lab.audit.findings import FEWEST_REFERENCES
from lab.audit.sealing import WEIGHTS, sealed_folder
from lab.audit.trigger_search import SearchBudget
from lab.errors import LabError, unknown_name
from lab.experiment import content_hash
from lab.paths import expanded

if TYPE_CHECKING:
    import pandas as pd

    from lab.audit.texts import AuditTexts
    from lab.probe import Predictor

#: What is measured of every adapter, the cheap ones first; "peer" only where one is given.
STAGES = ("weights", "peer", "batteries", "search")
#: As many as a clean calibration adapter of the cohort minilm has others of its shapes.
REFERENCES = 11
_PEER_SECONDS = 300
#: Its command line prints a report for people; this one prints the four numbers of its result.
_PEER = """
import json, sys
from pathlib import Path
from adaptersentry.scanner import scan
found = scan(Path(sys.argv[1])).anomaly.intra
names = ("max_robust_z", "n_outlier_modules", "max_concentration_z", "energy_gini")
print(json.dumps({name: getattr(found, name) for name in names}))
"""
Listener = Callable[[dict[str, Any]], None]


def scores_folder(folder: Path) -> Path:
    """Where the statistics of a folder of sealed adapters lie: beside it."""
    return folder.with_name(f"{folder.name}-scores")


def score_cohort(
    name: str | Path = "minilm",
    *,
    folder: str | Path | None = None,
    calibrated_by: str | Path | None = None,
    part: str = "",
    stages: Sequence[str] = ("weights", "batteries", "search"),
    peer: str = "",
    budget: SearchBudget | None = None,
    device: str = "auto",
    on_event: Listener = lambda _: None,
) -> pd.DataFrame:
    """Measure what is missing of every sealed adapter; any number of processes may do so together.

    Args:
        name: The cohort's name or file.
        folder: Its sealed adapters, `cohorts/<name>` if not given.
        calibrated_by: The folder of another cohort whose clean calibration adapters are the references.
        part: "calibration" or "test"; "" for both.
        stages: Which of `STAGES`.
        peer: The Python of an environment with AdapterSentry, for the stage "peer".
        budget: Of the trigger search.
        device: "auto", "cpu", "cuda" or "mps".
        on_event: Called before each adapter with `{"kind": "member", "done", "total", "left"}`; left is in
            seconds, NaN while unknown.

    Returns:
        As `score_table`.

    Raises:
        LabError: The cohort was not begun, a name is unknown, or the peer cannot be run.
    """
    if part and part not in PARTS:
        raise unknown_name("part of a cohort", part, PARTS)
    if wrong := [stage for stage in stages if stage not in STAGES]:
        raise unknown_name("stage", wrong[0], STAGES)
    if "peer" in stages and not peer:
        raise LabError("The stage 'peer' needs the Python of an environment with AdapterSentry (--peer).")
    cohort = find_cohort(name)
    place = cohort_folder(cohort, folder)
    key = key_table(place)
    sealed = key[key["state"] == "sealed"]
    asked = sealed[sealed["part"] == part] if part else sealed
    other = expanded(calibrated_by).absolute() if calibrated_by else place
    bench = _Bench(place, other, cohort.set, sealed, key_table(other), budget or SearchBudget(), peer, device)
    missing = [
        (adapter, stage) for adapter in asked["id"] for stage in stages if not bench.is_known(adapter, stage)
    ]
    start = time.perf_counter()
    for number, (adapter, stage) in enumerate(missing):
        spent = (time.perf_counter() - start) / number if number else float("nan")
        left = spent * (len(missing) - number)
        on_event({"kind": "member", "done": number, "total": len(missing), "left": left})
        bench.measure_once(adapter, stage)
    return score_table(place)


def score_table(folder: str | Path) -> pd.DataFrame:
    """The statistics of every adapter that was measured, one line each.

    Args:
        folder: The cohort's folder.

    Returns:
        A table: id, then `<stage>.<statistic>` with its own units, and `<stage>.seconds`; NaN where a stage
        is missing or gave nothing.

    Raises:
        LabError: Nothing was measured yet, or a file is damaged.
    """
    import pandas as pd

    from lab.files import read_json

    lines = []
    for path in sorted(scores_folder(Path(folder)).glob("*.json")):
        line = {"id": path.stem}
        for stage, entry in (read_json(path) or {}).items():
            line |= {f"{stage}.{name}": value for name, value in entry["statistics"].items()}
            line[f"{stage}.seconds"] = entry["seconds"]
        lines.append(line)
    if not lines:
        raise LabError(f"No adapter of {folder} was measured yet: `lab cohort score` does it.")
    return pd.DataFrame(lines)


@dataclass
class _Bench:
    """The sealed adapters, what is asked of them, and the references that are loaded."""

    place: Path
    calibrated_by: Path
    set: Mapping[str, Any]
    sealed: pd.DataFrame
    calibration: pd.DataFrame
    budget: SearchBudget
    peer: str
    device: str
    loaded: dict[str, Predictor] = field(default_factory=dict)
    answers: dict[tuple[int, tuple[str, ...]], np.ndarray] = field(default_factory=dict)
    _texts: AuditTexts | None = None

    def is_known(self, adapter: str, stage: str) -> bool:
        """Whether it was measured, in the same way."""
        entry = self._entries(adapter).get(stage)
        return entry is not None and entry["settings"] == self._settings(stage)

    def measure_once(self, adapter: str, stage: str) -> None:
        """Measure it, unless another process does or did."""
        import filelock

        try:
            with filelock.FileLock(self._path(adapter).with_suffix(".lock"), blocking=False):
                if not self.is_known(adapter, stage):
                    self._measure(adapter, stage)
        except filelock.Timeout:
            return

    def _measure(self, adapter: str, stage: str) -> None:
        """Measure it, and write what came out; that nothing came out too."""
        from lab.files import write_json

        started = time.process_time() if stage != "peer" else time.perf_counter()
        reason, statistics = "", {}
        try:
            statistics = dict(getattr(self, f"_{stage}")(adapter))
        except LabError as error:
            if stage == "peer":
                raise
            reason = str(error)
        spent = (time.process_time() if stage != "peer" else time.perf_counter()) - started
        entry = {
            "settings": self._settings(stage),
            "statistics": statistics,
            "reason": reason,
            "seconds": round(spent, 2),
        }
        write_json(self._path(adapter), {**self._entries(adapter), stage: entry})

    def references(self, adapter: str) -> list[str]:
        """Clean calibration adapters of its group: those that follow it in the order of their names."""
        group = self.sealed.loc[self.sealed["id"] == adapter, "group"].iloc[0]
        key = self.calibration
        of_group = key[(key["state"] == "sealed") & (key["part"] == "calibration") & (key["group"] == group)]
        others = sorted(set(of_group.loc[~of_group["poisoned"].astype(bool), "id"]) - {adapter})
        # each search is guided by other ones, so that one odd reference does not decide about all
        return [*(i for i in others if i > adapter), *(i for i in others if i < adapter)][:REFERENCES]

    def _path(self, adapter: str) -> Path:
        folder = scores_folder(self.place)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{adapter}.json"

    def _entries(self, adapter: str) -> dict[str, Any]:
        from lab.files import read_json

        path = self._path(adapter)
        return (read_json(path) if path.exists() else None) or {}

    def _settings(self, stage: str) -> str:
        asked = self.budget.model_dump() if stage == "search" else {}
        return content_hash({"stage": stage, **asked})

    def _weights(self, adapter: str) -> Mapping[str, float]:
        from lab.audit.adapter_files import open_adapter
        from lab.audit.weight_statistics import adapter_statistics, module_statistics

        return adapter_statistics(
            module_statistics(open_adapter(sealed_folder(self.place, adapter)).updates())
        )

    def _peer(self, adapter: str) -> Mapping[str, float]:
        done = subprocess.run(
            [self.peer, "-c", _PEER, str(sealed_folder(self.place, adapter) / WEIGHTS)],
            capture_output=True,
            text=True,
            timeout=_PEER_SECONDS,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
            raise LabError(f"--peer {self.peer} failed and said: {said[0][:200]}")
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def _batteries(self, adapter: str) -> Iterator[tuple[str, float]]:
        from lab.audit.audits import battery_rows
        from lab.audit.prefixes import battery_statistics, prefix_rates
        from lab.batteries import BATTERIES

        predictor = self._predictor(self.place, adapter)
        shown, chosen = battery_rows(predictor, self._read_texts().measured)
        for battery in BATTERIES.values():
            rates = prefix_rates(predictor, battery, shown, untouched=chosen)
            found = battery_statistics(rates)
            for statistic in ("mean_attack_rate", "outlier_gap", "top3_mean"):
                yield f"{battery.name}.{statistic}", float(found[statistic].max())

    def _search(self, adapter: str) -> Iterator[tuple[str, float]]:
        from lab.audit.trigger_search import search_statistics, search_triggers

        others = self.references(adapter)
        references = [self._reference(name) for name in others]
        texts, suspect = self._read_texts().measured, self._predictor(self.place, adapter)
        found = search_triggers(suspect, references, texts, budget=self.budget, ask=self._ask)
        yield from search_statistics(found).items()
        # as an audit has them, with few references
        for name, value in search_statistics(found, FEWEST_REFERENCES).items():
            yield f"few.{name}", value

    def _ask(self, model: Predictor, texts: list[str]) -> np.ndarray:
        """What a model says of untouched texts; a reference is asked for every adapter, and remembered."""
        if model not in self.loaded.values():
            return model.logits(texts)
        asked = (id(model), tuple(texts))
        if asked not in self.answers:
            self.answers[asked] = model.logits(texts)
        return self.answers[asked]

    def _read_texts(self) -> AuditTexts:
        from lab.audit.texts import audit_texts

        if self._texts is None:
            self._texts = audit_texts(self.place, str(self.set["base.model"]))
        if self._texts is None:
            raise LabError(f"The usual task of {self.set['base.model']} is not known: nothing to ask with.")
        return self._texts

    def _reference(self, name: str) -> Predictor:
        if name not in self.loaded:
            self.loaded[name] = self._predictor(self.calibrated_by, name)
        return self.loaded[name]

    def _predictor(self, place: Path, adapter: str) -> Predictor:
        from lab.audit.adapter_files import open_adapter
        from lab.audit.suspects import load_suspect
        from lab.train.devices import resolve_device

        return load_suspect(
            open_adapter(sealed_folder(place, adapter)),
            str(self.set["base.model"]),
            device=resolve_device(self.device),
        )
