"""Turn what no sweep answers into reference lines: single runs, looked into.

    python benchmarks/paper_diagnostics.py                        # all of it
    python benchmarks/paper_diagnostics.py patching threshold     # some

*kernels* (2505.12871): largest eigenvalue of M_Δ = s²AᵀA − I over all adapted layers, where training would
start: for ranks, and for alpha = rank (s = 1, as the paper writes it) beside the default's alpha = 2 × rank;
seeds draw A anew.

*attention* (2506.11402): attention entropy with one date in a text minus without, as a share of its largest
value, averaged over layers and heads: of `ssti-light`'s cell on 600 rows, and of its clean twin on the same
texts; 64 validation texts a seed.

*patching* (2605.30189): attack success of the default experiment with the clean twin's outputs in place of
one projection's, on test rows. Windows are a third of the layers, as `lab patch` has them. Beside the least
over all windows stands the window that lies as deep as the paper's strongest (layers 18 to 21 of 28: 3 and 4
of 6).

*threshold* (2601.06305): plain LoRA's cells of `rora-table`. s* is estimated on validation rows; at a
multiple of it, fixed before anything was measured, the share of test rows with the trigger that do not get
the target, beside the clean accuracy that is left.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from reference_lines import MACHINE, as_lines, replace_lines

import lab
from lab.errors import unknown_name
from lab.paired_texts import triggered_pairs
from lab.paper_cards import load_claims
from lab.prepare import prepare
from lab.probe import attention_entropy_shift
from lab.probe.kernel_table import WHOLE
from lab.stats import bootstrap_mean
from lab.trained_model import load_predictor

SEEDS = (0, 1, 2)
RANKS = (1, 8, 64, 384)
#: PEFT's own, times the width.
VARIANCE = 1 / 3
LIGHT = {"data.rows": 600, "probe.rows": 500, "probe.scope": "headline", "probe.snapshots": 0}
#: The model's names of what the paper calls down_proj and v_proj, and the window as deep as its strongest.
PATCHED = {"down": "output.dense", "value": "attention.self.value"}
AS_DEEP = (3, 4)
PATCHED_ROWS = 120
BASES = {"rare-word": "poisoned-base-rare-word", "sentence": "poisoned-base-sentence"}
#: How far above s* the model is asked.
ABOVE = 1.5
ASKED_ROWS = 600


def shifts() -> Iterator[list[object]]:
    """A line for each scaling and rank."""
    for alpha in ("r", "2r"):
        tables = []
        for seed in SEEDS:
            asked = lab.load_experiment("rfc-citation").with_(**{"adapter.alpha": alpha, "seed": seed})
            tables.append(lab.kernel_table(asked, [(rank, VARIANCE) for rank in RANKS], rows=8))
        table = pd.concat(tables).query("kernel == 'lora' and measure == 'shift_largest'")
        for rank, lines in table[table["layer"] == WHOLE].groupby("rank"):
            values = lines["value"].tolist()
            yield _line(f"kernels.alpha={alpha}.rank={rank:.0f}.shift_largest", values, len(values))


def entropies() -> Iterator[list[object]]:
    """A line for the poisoned runs and one for their twins, for each of the two entropies."""
    found: dict[str, list[float]] = {}
    rows = 0
    for seed in SEEDS:
        run = lab.run("ssti-light", LIGHT, seed=seed)
        assert run.twin is not None
        clean, injected = triggered_pairs(prepare(run.experiment, run.path.parent), 64, "validation")
        rows += len(clean)
        for model, part in (("", run), ("twin.", run.twin)):
            predictor = load_predictor(part.path, torch.device("cpu"), attention="eager")
            table = attention_entropy_shift(predictor, clean, injected, seed=seed)
            for name, lines in table[table["unit"] == "share"].groupby("entropy"):
                found.setdefault(f"{model}attention_{name}", []).append(float(lines["value"].mean()))
    for name, values in found.items():
        yield _line(f"ssti-light.{name}", values, rows)


#: By kind, then by seed.
Found = dict[str, dict[int, float]]


def patchings() -> Iterator[list[object]]:
    """Lines for the attack as it is, each projection's least, and the window as deep as the paper's."""
    found: Found = {}
    rows = 0
    for seed in SEEDS:
        table = lab.run("rfc-citation", seed=seed).patching(
            rows=PATCHED_ROWS,
            split="test",
            projections=list(PATCHED.values()),
            directions=["twin into poisoned"],
        )
        rows += int(table["n"].iloc[0])
        found.setdefault("unpatched", {})[seed] = float(table.query("projection == 'none'")["asr"].iloc[0])
        for name, projection in PATCHED.items():
            own = table[table["projection"] == projection].set_index(["first_layer", "last_layer"])["asr"]
            found.setdefault(f"{name}.least", {})[seed] = float(own.min())
            found.setdefault(f"{name}.layers=3-4", {})[seed] = float(own[AS_DEEP])
    for name, values in found.items():
        yield from _with_seeds(f"patching.{name}.attack_success_rate", values, rows)


def thresholds() -> Iterator[list[object]]:
    """Lines for each trigger: s*, what is turned away above it, what that leaves of the accuracy."""
    plan = load_claims("rora").sources["rora-table"].plan()
    arms = {"lora": (plan.arms or {})["lora"]}
    for trigger, base in BASES.items():
        found: Found = {}
        rows = 0
        over = {"base.model": [base]}
        cells = lab.sweep(plan.experiment, over, arms=arms, seeds=list(SEEDS), workers="auto")
        for seed, name in zip(cells["seed"], cells["run"], strict=True):
            run = lab.load_run(name)
            s_star = run.surgery(rows=ASKED_ROWS).threshold(scales=[1.0]).s_star
            sys.stdout.write(f"{name}: s* = {s_star:.2f}\n")
            if not math.isfinite(s_star):  # nothing lies above it, or no row gets the target
                continue
            opened = run.surgery(rows=ASKED_ROWS, split="test")
            flips = opened.threshold(scales=[1.0, ABOVE * s_star]).flips
            rows += int(flips["n"].iloc[0])
            kept = opened.scale(ABOVE * s_star).measures().set_index("kind")["value"]
            found.setdefault("s_star", {})[seed] = s_star
            found.setdefault("turned_away_as_trained", {})[seed] = float(flips["measured"].iloc[0])
            found.setdefault("turned_away_above", {})[seed] = float(flips["measured"].iloc[1])
            found.setdefault("clean_accuracy_above", {})[seed] = float(kept["clean_accuracy"])
        for kind, values in found.items():
            yield from _with_seeds(f"threshold.{trigger}.{kind}", values, rows)


def _with_seeds(claim: str, values: dict[int, float], n: int) -> Iterator[list[object]]:
    """The mean's line, then those of single seeds, from which differences are paired."""
    yield _line(claim, list(values.values()), n, tuple(values))
    unknown = float("nan")
    for seed, value in values.items():
        each = n // len(values)
        yield [f"{claim}.base{seed}", "", unknown, value, each, unknown, unknown, str(seed), MACHINE]


def _line(claim: str, values: Sequence[float], n: int, of: Sequence[int] = SEEDS) -> list[object]:
    mean = bootstrap_mean(list(values), seed=0)
    seeds = " ".join(map(str, of))
    return [claim, "", float("nan"), mean.value, n, mean.low, mean.high, seeds, MACHINE]


#: By name: the paper, what measures, and the start of the lines that it makes stale.
PARTS: dict[str, tuple[str, Callable[[], Iterator[list[object]]], tuple[str, ...]]] = {
    "kernels": ("2505.12871", shifts, ("kernels.",)),
    "attention": ("2506.11402", entropies, ("ssti-light.attention_", "ssti-light.twin.attention_")),
    "patching": ("2605.30189", patchings, ("patching.",)),
    "threshold": ("2601.06305", thresholds, ("threshold.",)),
}


def main() -> None:
    """Measure what is asked for, or all, and write it beside the papers' other lines."""
    for name in sys.argv[1:] or PARTS:
        if name not in PARTS:
            raise unknown_name("diagnostic", name, PARTS)
        paper, measure, stale = PARTS[name]
        replace_lines(paper, as_lines(list(measure())), lambda claim, stale=stale: claim.startswith(stale))


if __name__ == "__main__":
    main()
