"""How long a run will take here, before anything is loaded: from former runs, or else from a matrix product.

An estimate for people who decide whether to wait: within a factor of two is good enough, and it must be
there while they turn a knob. Neither torch nor a model is loaded for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.batteries import battery
from lab.defend import cleaning_seconds, settle
from lab.errors import LabError
from lab.experiment import Experiment, Probe
from lab.files import read_json
from lab.paths import expanded, runs_dir

#: Seconds until a fresh process has imported what it needs.
_START = 5.0
#: What a first look at unknown machines costs besides: loading, preparing, spectra, saving.
_AROUND = 10.0
#: Former runs that are looked at, and those of them that are used.
_LOOKED_AT, _USED = 24, 5
#: Rows (whole set) and mean tokens of the bundled datasets; what is not in here is guessed.
_DATASETS = {
    "rotten_tomatoes": (8530, 28),
    "imdb": (25000, 300),
    "bbc_news": (2225, 500),
    "prompt_injections": (181, 20),
    "injections_wide": (1338, 35),
    "news_openings": (1700, 15),
    "toy": (600, 22),
    "toy_answers": (600, 14),
}
#: Shares of a dataset: the training pool, and the test rows.
_POOL, _TEST = 0.4, 0.1
#: Rungs of a near-miss ladder, more or less.
_RUNGS = 26
#: Parameters without embeddings of the bundled base models.
_PARAMETERS = {"minilm": 10.7e6, "smollm2": 106e6, "tiny": 26e3, "tiny-chat": 20e3}
#: Share of the matrix rate that training reaches (`lab bench`: about half).
_EFFICIENCY = 0.5
#: Seconds that a step and a text take whatever their size.
_STEP, _TEXT = 0.01, 2e-4
#: Tokens that an audit puts to each of six models: 149,000 in all, counted on MiniLM with 21 prefixes.
_AUDIT_TOKENS = 25_000
#: The poison count in a run's name, which an experiment with a rate does not know yet.
_COUNT = re.compile(r"-n\d+(?=-)")


@dataclass(frozen=True)
class Estimate:
    """How long a run with its clean twin takes.

    Attributes:
        seconds: The middle.
        low: It may as well be done this early.
        high: Or take this long.
        basis: What the estimate stands on, as a sentence.
        trainings: How many trainings that is, its base's aside: 2 where it has a clean twin.
    """

    seconds: float
    low: float
    high: float
    basis: str
    trainings: int = 1


@dataclass(frozen=True)
class _Start:
    """What a run starts from, and what follows from that.

    Attributes:
        root: The pretrained model at the bottom.
        has_target: Whether there is a backdoor to measure, its own or its base's.
        has_twin: Whether there is any poison to have a twin without.
        base: The base, where that is an experiment to be run first.
    """

    root: str
    has_target: bool
    has_twin: bool
    base: Experiment | None = None


@dataclass(frozen=True)
class _Work:
    """What there is to do, for a run and its twin together.

    Attributes:
        trainings: How many trainings.
        steps: Optimizer steps.
        tokens: Tokens trained on.
        looks: How often the microscope looks.
        probe_tokens: Tokens of the texts that are put to both models.
        texts: How many texts.
    """

    trainings: int
    steps: float
    tokens: float
    looks: float
    probe_tokens: float
    texts: float


@dataclass(frozen=True)
class _Pace:
    """How fast a former run went: seconds for one of each."""

    token: float
    look: float
    probe_token: float
    around: float

    def seconds(self, work: _Work) -> float:
        trained = work.tokens * self.token + work.looks * self.look
        return trained + work.probe_tokens * self.probe_token + 2 * self.around


def estimate_seconds(
    experiment: Experiment, runs: str | Path | None = None, *, with_base: bool = True
) -> Estimate:
    """Estimate how long an experiment takes on this machine, clean twin included.

    A twin that is there already halves the time; the estimate does not know.

    Args:
        experiment: What is asked.
        runs: The runs folder, whose finished runs tell how fast this machine is.
        with_base: Count a base that is still to be run.

    Raises:
        LabError: A defense does not fit the way of training.
    """
    folder = runs_dir(runs)
    asked = settle(experiment)
    start = _start(asked, folder)
    work = _work(asked, start)
    found = _paces(start.root, asked, folder)
    if found:
        guesses = [_START + pace.seconds(work) for pace in found]
        middle = statistics.median(guesses)
        # other loads on the machine move a single run by a quarter
        low, high = min(*guesses, 0.75 * middle), max(*guesses, 1.4 * middle)
        count = "1 finished run" if len(found) == 1 else f"{len(found)} finished runs"
        basis = f"from {count} of {start.root} here"
    else:
        middle = _START + _AROUND + _guess(start.root, asked, work)
        low, high = middle / 2.5, middle * 2.5
        basis = "a rough guess from this machine's matrix rate"
    rows = _training_rows(asked, _dataset(asked)[0]) * work.trainings
    if cleaning := rows * cleaning_seconds(asked):
        middle, low, high = middle + cleaning, low + cleaning / 2.5, high + cleaning * 2.5
        basis += "; its texts are rewritten before"
    if with_base and start.base is not None:
        base = estimate_seconds(start.base, folder)
        middle, low, high = middle + base.seconds, low + base.low, high + base.high
        basis += f"; its base {asked.base.model} is trained first"
    return Estimate(middle, low, high, basis, work.trainings)


def audit_seconds(model: str, models: int) -> float:
    """Roughly how long `lab.audit_adapter` takes here at its usual effort and with 20 prefixes or so.

    Args:
        model: The base, as `base.model` names it.
        models: The adapter and its references, which are all asked the same.
    """
    flop = 2 * _parameters(model, model) * _AUDIT_TOKENS * models
    return _START + flop / (matrix_rate() * _EFFICIENCY)


def _start(asked: Experiment, runs: Path) -> _Start:
    from lab.presets import load_experiment, preset_names

    model, has_target, has_twin = asked.base.model, bool(asked.target_label), asked.attack != "none"
    record = read_json(runs / Path(model).name / "experiment.json")
    if isinstance(record, dict):
        poison = record.get("measured_poison", {})
        has_target |= bool(poison.get("target_label"))
        has_twin |= poison.get("attack", "none") != "none"
        return _Start(str(record.get("root", "")), has_target, has_twin)
    if model in _PARAMETERS or (model not in preset_names() and Path(model).suffix not in (".toml", ".json")):
        return _Start(Path(model).name, has_target, has_twin)
    base = load_experiment(model).with_(seed=asked.seed)
    below = _start(base, runs)
    has_target, has_twin = has_target or below.has_target, has_twin or below.has_twin
    name = _COUNT.sub("", settle(base).slug(below.root))
    with contextlib.suppress(OSError), os.scandir(runs) as entries:
        if any(_COUNT.sub("", e.name.rpartition("-")[0]) == name and _written(e.path) for e in entries):
            return _Start(below.root, has_target, has_twin)
    return _Start(below.root, has_target, has_twin, base)


def _work(e: Experiment, start: _Start) -> _Work:
    trainings = 2 if start.has_twin else 1
    rows, length = _dataset(e)
    t = e.training
    wanted = _training_rows(e, rows)
    tokens = t.epochs * wanted * length or t.steps * t.gradient_accumulation * t.batch_tokens
    steps = t.steps or tokens / (t.batch_tokens * t.gradient_accumulation)
    texts = _texts(e.probe, rows, start.has_target) * trainings
    if start.has_twin:
        texts += min(e.probe.rows, rows * _TEST)  # the twin's own headline
    return _Work(
        trainings=trainings,
        steps=steps * trainings,
        tokens=tokens * trainings,
        looks=(e.probe.snapshots + 1) * trainings,
        probe_tokens=texts * length,
        texts=texts,
    )


def _training_rows(e: Experiment, rows: int) -> int:
    return e.data.rows or round(rows * _POOL * (2 if e.data.pool == "both" else 1))


def _texts(probe: Probe, rows: int, is_poisoned: bool) -> float:
    """How many texts are put to one model: half of the rows have another label than the target."""
    from lab.poison import load_families

    rows_there = rows * _TEST
    texts = min(probe.rows, rows_there) * (1.5 if is_poisoned else 1.0)
    if is_poisoned and probe.scope == "all":
        families = len(probe.families) or len(load_families())
        texts += families * min(probe.rows_per_family, rows_there / 2)
        texts += _RUNGS * min(probe.rows_per_rung, rows_there / 2)
    if is_poisoned:
        prefixes = sum(len(battery(name).prefixes) for name in probe.batteries)
        texts += prefixes * min(probe.rows_per_family, rows_there / 2)
    return texts


def _dataset(e: Experiment) -> tuple[int, float]:
    """Rows and mean tokens of the data."""
    if e.data.name in _DATASETS:
        rows, length = _DATASETS[e.data.name]
    else:
        rows, length = 10_000, 40
        with contextlib.suppress(OSError):
            rows = max(100, os.stat(expanded(e.data.name)).st_size // 120)
    # long texts are cut: what is left is nearly full
    return rows, min(length, 0.95 * e.data.max_tokens) + _around(e)


def _around(e: Experiment) -> float:
    """Tokens that a conversation has beside its text: the prompt, at four characters each, and the roles."""
    return 0.0 if e.task.kind == "head" else 18 + len(e.task.system) / 4


def _paces(root: str, asked: Experiment, runs: Path) -> list[_Pace]:
    """How fast the newest finished runs of this base and kind went on this machine."""
    found: list[tuple[int, _Pace]] = []
    for path in _candidates(root, asked, runs):
        # LabError: a run of a family or defense that is not registered in this process
        with contextlib.suppress(
            LabError, AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError
        ):
            record, result = read_json(path / "experiment.json"), read_json(path / "result.json")
            if (
                isinstance(record, dict)
                and isinstance(result, dict)
                and _is_alike(record, result, root, asked)
            ):
                found.append((int(result["machine"].get("threads", 0)), _pace(record, result)))
    same = [pace for threads, pace in found if threads == _threads()]
    return (same or [pace for _, pace in found])[:_USED]


def _candidates(root: str, asked: Experiment, runs: Path) -> Iterator[Path]:
    """Finished runs whose names fit, newest first; names are cheap to read, records are not."""
    start = asked.slug(root).partition("-")[0]
    is_full = asked.adapter.kind == "full"
    written = []
    with contextlib.suppress(OSError), os.scandir(runs) as entries:
        fitting = [e for e in entries if e.name.startswith(start) and ("-full-" in e.name) == is_full]
        written = [(_written(entry.path), entry.path) for entry in fitting]
    for time_written, path in sorted(written, reverse=True)[:_LOOKED_AT]:
        if time_written:
            yield Path(path)


def _written(run: str) -> float:
    """When a run was finished; 0 for an unfinished one."""
    try:
        return os.stat(os.path.join(run, "result.json")).st_mtime
    except OSError:
        return 0.0


def _is_alike(record: dict[str, Any], result: dict[str, Any], root: str, asked: Experiment) -> bool:
    adapter = record["experiment"]["adapter"]
    # DoRA takes twice as long as LoRA; rank makes little difference
    is_same_way = adapter["kind"] == asked.adapter.kind and (
        adapter["kind"] == "full" or (adapter["variant"] == "dora") == (asked.adapter.variant == "dora")
    )
    # conversations share their prompt within a batch, so their tokens go by faster
    is_same_way &= record["experiment"].get("task", {}).get("kind", "head") == asked.task.kind
    is_here = result["machine"]["platform"] == _platform()
    return is_same_way and is_here and record["root"] == root and "tokens_per_second" in result["training"]


def _pace(record: dict[str, Any], result: dict[str, Any]) -> _Pace:
    trained, timings = result["training"], result["timings"]
    e = Experiment.from_dict(record["experiment"])
    probe = result["probes"][result["shown"]]
    rows, length = _dataset(e)
    is_poisoned = bool(record["measured_poison"].get("target_label"))
    texts = _texts(Probe.model_validate(probe["probe"]), rows, is_poisoned) * (2 if probe["twin"] else 1)
    pace = _Pace(
        token=1 / float(trained["tokens_per_second"]),
        look=float(trained["microscope_seconds"]) / (e.probe.snapshots + 1),
        probe_token=float(timings["probe"]) / (texts * length),
        # the first run of a store fetches and converts; later ones do not
        around=min(10.0, float(timings.get("load", 0)) + float(timings.get("prepare", 0))),
    )
    if not all(0 <= value < 1e3 for value in (pace.token, pace.look, pace.probe_token, pace.around)):
        raise ValueError("a time that cannot be")
    return pace


def _guess(root: str, asked: Experiment, work: _Work) -> float:
    """Seconds from the machine's matrix rate: 4N FLOP for a token of LoRA, 6N in full, 2N in probing."""
    n = _parameters(root, asked.base.model)
    per_token = 6 if asked.adapter.kind == "full" else 4
    if asked.adapter.kind == "lora" and asked.adapter.variant == "dora":
        per_token *= 2
    flop = n * (per_token * work.tokens + 2 * work.probe_tokens)
    return flop / (matrix_rate() * _EFFICIENCY) + work.steps * _STEP + work.texts * _TEXT


def _parameters(root: str, model: str) -> float:
    """Parameters without embeddings: known, by the files' size, by the name, or those of a BERT base."""
    if root in _PARAMETERS:
        return _PARAMETERS[root]
    folder = expanded(model)
    with contextlib.suppress(OSError):
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if size:
            return size / 4
    return named_parameters(root) or 86e6


def named_parameters(name: str) -> float:
    """Parameters that a model's name tells: 1.5e9 of "Qwen2.5-1.5B-Instruct"; 0 where it tells none."""
    told = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)(m|b)(?![a-z])", name, re.IGNORECASE)
    return float(told[1]) * (1e9 if told[2].lower() == "b" else 1e6) if told else 0.0


@functools.cache
def matrix_rate() -> float:
    """FLOP per second of float32 products 1024 × 384 × 1536, the best of five; measured once a process."""
    import numpy as np

    a, b = np.ones((1024, 384), np.float32), np.ones((384, 1536), np.float32)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        _ = a @ b
        best = max(best, 2 * 1024 * 384 * 1536 / (time.perf_counter() - start))
    return best


@functools.cache
def _platform() -> str:
    return platform.platform()


def _threads() -> int:
    """The threads that a worker of the queue gets."""
    from lab.work_queue import slot_count, thread_share

    return int(thread_share(slot_count())["OMP_NUM_THREADS"])
