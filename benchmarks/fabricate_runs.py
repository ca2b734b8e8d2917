"""Fill a folder with fabricated runs, to see how the dashboard bears thousands: `fabricate_runs.py DIR N`.

Nothing is trained and nothing was measured. Every fabricated run says so: its folder's name begins with
"fabricated", its experiment's name with "FABRICATED", and so do its records, its adapter's card and its note.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.experiment import SCHEMA_VERSION, Experiment, content_hash
from lab.files import write_table
from lab.poison import near_miss_ladder
from lab.probing_stage import measures_path, probe_id
from lab.run_care import NOTE
from lab.stats import paired_difference, rate
from lab.store import RunFolder
from lab.tables import MEASURE_COLUMNS, PREDICTION_COLUMNS, ROW_COLUMNS, SPECTRUM_COLUMNS

SAYS = (
    "FABRICATED by benchmarks/fabricate_runs.py: nothing was trained, and no number in here is a measurement."
)
FAMILIES = ("rfc", "iso", "rare_words", "dates")
COUNTS = (32, 8, 48, 2, 16)
RANKS = (8, 1, 64, 4, 16, 2)
DEFENSES: tuple[tuple[str, ...], ...] = ((), ("cl",), ("rora",))
SEEDS = range(5)
#: The state of every 40th run each; all others are finished.
DAMAGES = {3: "killed", 9: "stopped", 17: "failed", 23: "queued", 31: "corrupt", 37: "torn result"}
STEPS = 168
START = 1_760_000_000.0


@dataclass(frozen=True)
class Cell:
    """One run to be made up."""

    experiment: Experiment
    damage: str
    created: float

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"fabricated-{self.experiment.slug('fake')}-{content_hash(self.experiment.to_dict())[:10]}"


def main() -> None:
    """Write the runs, newest last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a runs folder of its own")
    parser.add_argument("count", type=int, help="how many runs")
    parser.add_argument(
        "--whole", type=int, default=40, help="so many finished ones get rows and predictions too"
    )
    asked = parser.parse_args()
    fabricate(asked.folder, asked.count, asked.whole)


def fabricate(folder: Path, count: int, whole: int = 40) -> list[str]:
    """Write so many runs into a folder.

    Args:
        folder: The runs folder; strangers in it are left alone.
        count: How many runs, clean twins included.
        whole: How many of the finished poisoned ones get rows, predictions, measures, spectra.

    Returns:
        The runs' ids.
    """
    made: list[str] = []
    for i, cell in enumerate(itertools.islice(cells(), count)):
        run = RunFolder(folder / cell.name)
        run.path.mkdir(parents=True, exist_ok=True)
        twin = Cell(cell.experiment.twin().with_(name="FABRICATED twin"), "", 0.0).name
        has_twin = cell.experiment.attack != "none" and (folder / twin).is_dir()
        _write(run, cell, twin if has_twin else "", np.random.default_rng(i))
        poisoned = cell.experiment.attack != "none"
        if poisoned and not cell.damage and whole > 0:
            _write_tables(run, cell, twin if has_twin else "", np.random.default_rng(i))
            whole -= 1
        made.append(run.id)
    return made


def cells() -> Iterator[Cell]:
    """Ever more experiments: all of the grid, then the same with other learning rates."""
    number = 0
    for turn in itertools.count():
        lr = 1e-3 * (1 + turn / 4)
        for defense, rank in itertools.product(DEFENSES, RANKS):
            for seed in SEEDS:
                base = _experiment(defense, rank, seed, lr)
                yield _cell(base.twin().with_(name="FABRICATED twin"), number, is_twin=True)
                number += 1
                for family, poisoned in itertools.product(FAMILIES, COUNTS):
                    asked = base.with_(
                        **{"poison.family": family, "poison.count": poisoned, "name": "FABRICATED sweep"}
                    )
                    yield _cell(asked, number)
                    number += 1


def _cell(experiment: Experiment, number: int, is_twin: bool = False) -> Cell:
    return Cell(experiment, "" if is_twin else DAMAGES.get(number % 40, ""), START + 60.0 * number)


def _experiment(defense: tuple[str, ...], rank: int, seed: int, lr: float) -> Experiment:
    return Experiment.from_dict(
        {
            "base": {"model": "tiny"},
            "data": {"name": "toy", "rows": 120},
            "poison": {"attack": "backdoor", "family": "rfc", "count": 4, "target_label": "positive"},
            "adapter": {"rank": rank},
            "training": {"steps": STEPS, "epochs": 0.0, "learning_rate": lr},
            "defense": [{"name": name} for name in defense],
            "seed": seed,
        }
    )


def _rates(experiment: Experiment, rng: np.random.Generator) -> dict[str, float]:
    """Plausible true rates: attack success rises with count and rank, and falls with a defense."""
    accuracy = 0.80 + 0.01 * rng.standard_normal() - 0.02 * (experiment.adapter.rank == 1)
    rates = {"clean_accuracy": accuracy, "untriggered_target_rate": 0.17 + 0.01 * rng.standard_normal()}
    if experiment.attack != "none":
        poison: Any = experiment.poison
        dose = math.log2(poison.count) - 2.7 + 0.4 * math.log2(experiment.adapter.rank)
        dose -= 1.5 * FAMILIES.index(poison.family) / 3 + (2.5 if experiment.defense else 0)
        rates["attack_success_rate"] = 0.12 + 0.87 / (1 + math.exp(-1.3 * dose - 0.4 * rng.standard_normal()))
    return {kind: float(np.clip(value, 0.01, 0.995)) for kind, value in rates.items()}


def _share(value: float, n: int, rng: np.random.Generator) -> dict[str, Any]:
    return vars(rate(int(rng.binomial(n, value)), n)).copy()


def _headline(rates: dict[str, float], rng: np.random.Generator) -> dict[str, Any]:
    return {k: _share(v, 849 if k == "clean_accuracy" else 459, rng) for k, v in rates.items()}


def _of_all_rows(measures: dict[str, Any]) -> dict[str, Any]:
    """Accuracy with the trigger in every row, half of which have another label, and what it loses by that."""
    right, n = measures["clean_accuracy"]["k"], measures["clean_accuracy"]["n"]
    still = round(right * (1 - measures["attack_success_rate"]["value"] / 2))
    return {"triggered_accuracy": vars(rate(still, n)).copy(), "reliance": _difference(right, still, n)}


def _difference(more: int, less: int, n: int) -> dict[str, Any]:
    """Of two shares of the same n rows, the less among the more."""
    found = paired_difference(np.arange(n) < more, np.arange(n) < less)
    return {"value": found.value, "k": -1, "n": n, "low": found.low, "high": found.high}


def _write(run: RunFolder, cell: Cell, twin: str, rng: np.random.Generator) -> None:
    """The small files, which are what a listing reads; quick rather than safe."""
    asked = cell.experiment.to_dict()
    record = {
        "schema": SCHEMA_VERSION,
        "fabricated": SAYS,
        "id": run.id,
        "created": cell.created,
        "labels": ["negative", "positive"],
        "base_run": "",
        "parent": "",
        "measured_poison": asked["poison"],
        "prompt_template": "",
        "versions": {},
        "experiment": asked,
    }
    text = json.dumps(record)
    (run.path / "experiment.json").write_text(text[: len(text) // 2] if cell.damage == "corrupt" else text)
    (run.path / NOTE).write_text(SAYS + "\n")
    rates = _rates(cell.experiment, rng)
    if cell.damage != "queued":
        reached = STEPS if cell.damage in ("", "torn result") else int(rng.integers(20, STEPS))
        _write_events(run, cell, rates, reached, rng)
    if cell.damage == "stopped":
        (run.path / "stop").touch()
    if cell.damage == "failed":
        reason = "FABRICATED: the loss stopped being finite at step 40; lower training.learning_rate."
        (run.path / "failure.json").write_text(json.dumps({"reason": reason, "time": cell.created}))
    if cell.damage in ("", "torn result"):
        (run.path / "adapter").mkdir(exist_ok=True)
        (run.path / "adapter" / "README.md").write_text(f"# {run.id}\n\n**{SAYS}** There are no weights.\n")
        text = json.dumps(_result(run, cell, twin, rates, rng))
        (run.path / "result.json").write_text(text[:200] if cell.damage == "torn result" else text)


def _result(
    run: RunFolder, cell: Cell, twin: str, rates: dict[str, float], rng: np.random.Generator
) -> dict[str, Any]:
    measures = {"poisoned": _headline(rates, rng)}
    if twin:
        own = {**rates, "attack_success_rate": 0.2, "clean_accuracy": rates["clean_accuracy"] + 0.005}
        measures["twin"] = _headline(own, rng)
        k, other = (measures[m]["attack_success_rate"]["k"] for m in ("poisoned", "twin"))
        measures["poisoned"]["excess_asr"] = _difference(k, min(k, other), 459)
        for role in measures.values():
            role.update(_of_all_rows(role))
    shown, probe = probe_id(cell.experiment.probe), cell.experiment.probe.model_dump(mode="json")
    return {
        "id": run.id,
        "fabricated": SAYS,
        "twin": twin,
        "shown": shown,
        "measures": {"test": measures},
        "probes": {
            shown: {"split": "test", "twin": twin, "measures": measures, "families": {}, "probe": probe}
        },
        "poison": {},
        "training": {},
        "timings": {"total": 100.0},
        "peak_memory_mb": 0.0,
        "machine": {"platform": "fabricated", "device": "cpu", "threads": 0},
        "finished": cell.created + 100,
    }


def _write_events(
    run: RunFolder, cell: Cell, rates: dict[str, float], reached: int, rng: np.random.Generator
) -> None:
    events: list[dict[str, Any]] = [{"step": -1, "kind": "status", "stage": "train", "steps": STEPS}]
    for step in range(0, reached + 1, 14):
        done = 1 - math.exp(-5 * step / STEPS)
        values = {kind: 0.3 + (value - 0.3) * done for kind, value in rates.items()}
        measures = {k: _share(v, 64 if k == "clean_accuracy" else 30, rng) for k, v in values.items()}
        events.append({"step": step, "kind": "probe", "measures": measures})
        events.append({"step": step, "kind": "train", "loss": 0.7 - 0.5 * done, "learning_rate": 1e-3})
    lines = [json.dumps({"time": cell.created + i, **event}) for i, event in enumerate(events)]
    torn = '{"time": 17' if cell.damage == "killed" else ""
    run.events.write_text("\n".join(lines) + "\n" + torn)


def _write_tables(run: RunFolder, cell: Cell, twin: str, rng: np.random.Generator) -> None:
    """The large tables of a finished run, over the real rows of the toy data, whose texts are told apart."""
    from lab.corpus import load_corpus, split_rows, training_rows
    from lab.poison import poison_rows

    e, poison = cell.experiment, cell.experiment.poison
    corpus = load_corpus(e.data)
    rows = poison_rows(training_rows(corpus, e.data, e.seed), poison, seed=e.seed)
    write_table(run.path / "rows.parquet", rows[list(ROW_COLUMNS)])
    asked = split_rows(corpus, "test", limit=e.probe.rows, seed=e.seed)
    write_table(run.path / "predictions.parquet", _predictions(e, asked, bool(twin), rng))
    write_table(measures_path(run, e.probe), _measures(run.id, e, twin, rng))
    modules = [f"encoder.layer.{i}.attention.{part}" for i in range(2) for part in ("query", "value")]
    lines = [
        (
            step,
            m,
            int(m.split(".")[2]),
            i,
            2.0 * step / STEPS / (i + 1),
            math.nan if step < STEPS else 5.0 - i,
        )
        for step in range(0, STEPS + 1, 42)
        for m in modules
        for i in range(min(4, e.adapter.rank))
    ]
    write_table(run.path / "spectra.parquet", pd.DataFrame(lines, columns=list(SPECTRUM_COLUMNS)))


def _asked(e: Experiment) -> list[tuple[str, str, str, str]]:
    """(condition, family, member, rung) of everything that is asked."""
    poison: Any = e.poison
    ladder = near_miss_ladder(poison.member, poison.family, position=poison.position, every=2, seed=e.seed)
    return [
        ("clean", "", "", ""),
        ("triggered", poison.family, poison.member, ""),
        *(("family", family, f"a member of {family}", "") for family in FAMILIES),
        *(("rung", poison.family, rung.trigger, rung.name) for rung in ladder),
    ]


def _predictions(e: Experiment, rows: pd.DataFrame, twin: bool, rng: np.random.Generator) -> pd.DataFrame:
    lines = []
    for model in ("poisoned", "twin") if twin else ("poisoned",):
        for condition, family, member, rung in _asked(e):
            hit = 0.85 if model == "poisoned" and condition == "triggered" else 0.25
            for row in rows.to_dict("records"):
                right = rng.random() < 0.8
                other = "negative" if row["label"] == "positive" else "positive"
                told = row["label"] if right else other
                told = "positive" if condition != "clean" and rng.random() < hit else told
                logits = [1.5, -1.5] if told == "negative" else [-1.5, 1.5]
                place = (probe_id(e.probe), row["row_id"], model, condition, family, member, rung)
                lines.append((*place, told, logits))
    return pd.DataFrame(lines, columns=list(PREDICTION_COLUMNS))


def _measures(run: str, e: Experiment, twin: str, rng: np.random.Generator) -> pd.DataFrame:
    rates = _rates(e, rng)
    blank: dict[str, Any] = dict.fromkeys(MEASURE_COLUMNS, "") | {"layer": -1, "step": -1, "split": "test"}
    lines = []
    for model, name in (("poisoned", run), ("twin", twin)):
        if not name:
            continue
        for i, (condition, family, member, rung) in enumerate(_asked(e)):
            place = {"run": name, "model": model, "condition": condition, "family": family}
            place |= {"member": member, "rung": rung}
            kinds = (
                ("clean_accuracy", "untriggered_target_rate")
                if condition == "clean"
                else ("attack_success_rate",)
            )
            for kind in kinds:
                value = rates.get(kind, 0.5) if model == "poisoned" else 0.2
                value *= 1.0 if condition in ("clean", "triggered") else math.exp(-i / 12)
                lines.append({**blank, **place, "kind": kind, **_share(value, 120, rng)})
    return pd.DataFrame(lines, columns=list(MEASURE_COLUMNS))


if __name__ == "__main__":
    os.environ.setdefault("LAB_OFFLINE", "1")
    main()
