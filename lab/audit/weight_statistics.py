"""What the weights of an adapter show by themselves: statistics of scaled ΔW = s·B·A, without a model.

Every statistic comes from two r × r matrices (`lab.audit.gram_matrices`) and a sample of ΔW's entries.
None depends on how many modules there are or what they are called, so that adapters of one configuration can
be compared, whatever the base. What is "high" depends on rank, learning rate and data: a value means nothing
without a reference bag of clean adapters of the same configuration (`robust_scores`).
The statistics of arXiv 2605.30189 are those of its notebooks 10 and 15, there of B·A without the scaling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.audit.gram_matrices import spectrum
from lab.audit.side_by_side import side_by_side
from lab.errors import LabError
from lab.modules import layer_index, module_groups, projection
from lab.seeds import stage_rng

if TYPE_CHECKING:
    from lab.audit.adapter_files import LoraModule
    from lab.spectra import FactoredUpdate

#: What is measured of every module; range and direction where there are any.
MODULE_STATISTICS = {
    "norm": "‖ΔW‖_F / √(n_in·n_out), the root mean square of ΔW's entries; 0 and more",
    "sigma_max": "the largest singular value of ΔW; 0 and more",
    "entropy": "entropy of σ/Σσ over ln r; 0 (one direction) to 1 (all r alike)",
    "participation": "(Σσ)² / Σσ²; 1 (one direction) to r",
    "stable_rank": "‖ΔW‖²_F / σ²_max; 1 to r",
    "top_ratio": "σ_max / Σσ; 1/r to 1",
    "asymmetry": "ln‖B‖_F − ln‖A‖_F, B without the scaling; depends on how the factors were initialised",
    "kurtosis": "excess kurtosis of sampled entries of ΔW; 0 for normal ones, high for few large ones",
}
#: What is measured of an adapter, as a number over its modules; none has a direction of its own.
STATISTICS = {
    "norm_std": "population standard deviation of norm over modules: the headline of arXiv 2605.30189",
    "norm_mean": "mean of norm",
    "norm_max": "largest norm",
    "attention_norm_mean": "mean of norm over attention's modules",
    "mlp_norm_mean": "mean of norm over the other modules",
    "attention_mlp_ratio": "attention_norm_mean / mlp_norm_mean",
    "entropy_mean": "mean of entropy",
    "entropy_min": "smallest entropy",
    "participation_mean": "mean of participation",
    "participation_min": "smallest participation",
    "stable_rank_mean": "mean of stable_rank",
    "top_ratio_mean": "mean of top_ratio",
    "top_ratio_max": "largest top_ratio",
    "asymmetry_mean": "mean of asymmetry",
    "asymmetry_std": "population standard deviation of asymmetry",
    "kurtosis_mean": "mean of kurtosis",
}
#: Sampled rows and columns of ΔW for its kurtosis: 4,096 entries.
_SAMPLED = 64


def module_statistics(updates: Iterable[tuple[LoraModule, FactoredUpdate]], *, seed: int = 0) -> pd.DataFrame:
    """The statistics of every module that an adapter changes.

    Args:
        updates: Modules with their scaled ΔW, as `AdapterFiles.updates` gives them, one at a time.
        seed: Of the sampled entries for the kurtosis.

    Returns:
        One line a module: module, projection, layer, rank, n_out, n_in, then `MODULE_STATISTICS`. A module
        whose ΔW is zero has a norm of 0 and nothing else.

    Raises:
        LabError: There is no module.
    """
    lines = side_by_side(lambda pair: _line(*pair, seed), updates, lambda pair: _bytes(pair[1]))
    if not lines:
        raise LabError("An adapter without modules has no weight statistics.")
    return pd.DataFrame(lines)


def adapter_statistics(modules: pd.DataFrame) -> dict[str, float]:
    """The statistics of an adapter, from those of its modules.

    Args:
        modules: The table of `module_statistics`.

    Returns:
        The names of `STATISTICS`; NaN where an adapter has nothing of the kind (no attention module, say).
    """
    attention = modules["projection"].isin(module_groups(modules["projection"])["attention"])
    norm = modules["norm"]
    found = {
        "norm_std": norm.std(ddof=0),
        "norm_mean": norm.mean(),
        "norm_max": norm.max(),
        "attention_norm_mean": norm[attention].mean(),
        "mlp_norm_mean": norm[~attention].mean(),
        "entropy_mean": modules["entropy"].mean(),
        "entropy_min": modules["entropy"].min(),
        "participation_mean": modules["participation"].mean(),
        "participation_min": modules["participation"].min(),
        "stable_rank_mean": modules["stable_rank"].mean(),
        "top_ratio_mean": modules["top_ratio"].mean(),
        "top_ratio_max": modules["top_ratio"].max(),
        "asymmetry_mean": modules["asymmetry"].mean(),
        "asymmetry_std": modules["asymmetry"].std(ddof=0),
        "kurtosis_mean": modules["kurtosis"].mean(),
    }
    mlp = found["mlp_norm_mean"]
    found["attention_mlp_ratio"] = found["attention_norm_mean"] / mlp if mlp else math.nan
    return {name: float(found[name]) for name in STATISTICS}


def robust_scores(
    modules: pd.DataFrame, reference: Sequence[pd.DataFrame], statistic: str = "norm"
) -> pd.DataFrame:
    """How far each module lies from the same kind of module in clean adapters, in robust standard deviations.

    The family of a module is its projection ("attention.self.query"), over all layers: z = (x − median) /
    (1.4826 · MAD) of the reference bag's modules of the family.

    Args:
        modules: The adapter's table of `module_statistics`.
        reference: Tables of clean adapters of the same configuration.
        statistic: One of `MODULE_STATISTICS`.

    Returns:
        module, projection, layer, value, z (no direction of its own; NaN for a family that the reference does
        not have, or whose values are all alike) and n, how many reference modules it rests on.

    Raises:
        LabError: There is no reference, or no such statistic.
    """
    from scipy.stats import median_abs_deviation

    if statistic not in MODULE_STATISTICS:
        raise LabError(f"statistic = {statistic!r}: should be one of {', '.join(MODULE_STATISTICS)}.")
    if not reference:
        raise LabError("Robust scores need at least one clean reference adapter.")
    bag = pd.concat(reference)[["projection", statistic]].dropna().groupby("projection")[statistic]
    median, count = bag.median(), bag.count()
    spread = bag.agg(median_abs_deviation, scale="normal")
    kinds, values = modules["projection"], modules[statistic]
    scale = kinds.map(spread).replace(0.0, math.nan)
    return pd.DataFrame(
        {
            "module": modules["module"],
            "projection": kinds,
            "layer": modules["layer"],
            "value": values,
            "z": (values - kinds.map(median)) / scale,
            "n": kinds.map(count).fillna(0).astype(int),
        }
    )


def _line(module: LoraModule, update: FactoredUpdate, seed: int) -> dict[str, Any]:
    return {
        "module": module.name,
        "projection": projection(module.name),
        "layer": layer_index(module.name),
        "rank": module.rank,
        "n_out": module.shape[0],
        "n_in": module.shape[1],
        **_statistics(module, update, seed),
    }


def _bytes(update: FactoredUpdate) -> int:
    return update.left.nbytes + update.right.nbytes


def _statistics(module: LoraModule, update: FactoredUpdate, seed: int) -> dict[str, float]:
    from scipy.special import entr

    sigma, norm_left, norm_right = spectrum(update)
    total, square = float(sigma.sum()), float((sigma**2).sum())
    if square == 0:
        return dict.fromkeys(MODULE_STATISTICS, math.nan) | {"norm": 0.0, "sigma_max": 0.0}
    n_out, n_in = update.shape
    return {
        "norm": math.sqrt(square / (n_out * n_in)),
        "sigma_max": float(sigma[0]),
        "entropy": float(entr(sigma / total).sum()) / math.log(len(sigma)) if len(sigma) > 1 else 0.0,
        "participation": total**2 / square,
        "stable_rank": square / float(sigma[0]) ** 2,
        "top_ratio": float(sigma[0]) / total,
        "asymmetry": math.log(norm_left / abs(module.scaling)) - math.log(norm_right),
        "kurtosis": _sampled_kurtosis(update, stage_rng(seed, "kurtosis", module.name)),
    }


def _sampled_kurtosis(update: FactoredUpdate, random: np.random.Generator) -> float:
    rows, columns = (random.choice(n, min(_SAMPLED, n), replace=False) for n in update.shape)
    entries = (update.left.numpy()[rows] @ update.right.numpy()[:, columns]).astype(np.float64)
    apart = (entries - entries.mean()) ** 2
    # of entries that are all alike (a matrix of one number) it is not defined
    if not math.sqrt(apart.mean()) > 1e-12 * abs(entries).max():
        return math.nan
    return float((apart**2).mean() / apart.mean() ** 2) - 3
