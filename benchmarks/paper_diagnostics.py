"""Turn what no sweep answers into reference lines: M_Δ (2505.12871) and attention entropy (2506.11402).

    python benchmarks/paper_diagnostics.py

Largest eigenvalue of M_Δ = s²AᵀA − I over all adapted layers, where training would start: for ranks, and for
alpha = rank (s = 1, as the paper writes it) beside the default's alpha = 2 × rank; seeds draw A anew.

Attention entropy with one date in a text minus without, as a share of its largest value, averaged over
layers and heads: of `ssti-light`'s cell on 600 rows, and of its clean twin on the same texts; 64 validation
texts a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from reference_lines import MACHINE, as_lines, replace_lines

import lab
from lab.paired_texts import triggered_pairs
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


def _line(claim: str, values: Sequence[float], n: int) -> list[object]:
    mean = bootstrap_mean(list(values), seed=0)
    seeds = " ".join(map(str, SEEDS))
    return [claim, "", float("nan"), mean.value, n, mean.low, mean.high, seeds, MACHINE]


def main() -> None:
    """Measure both, and write them beside the papers' other lines."""
    replace_lines("2505.12871", as_lines(list(shifts())), lambda claim: claim.startswith("kernels."))
    stale = ("ssti-light.attention_", "ssti-light.twin.attention_")
    replace_lines("2506.11402", as_lines(list(entropies())), lambda claim: claim.startswith(stale))


if __name__ == "__main__":
    main()
