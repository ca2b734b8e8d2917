"""Each module's update in a few numbers: how strong, of which rank, with how many new directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.spectra.checks import checked_norm
from lab.spectra.intruders import count_intruders

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from lab.spectra.base_cache import BaseSpectrum
    from lab.spectra.updates import Update

#: The columns of `describe`.
DESCRIPTION_COLUMNS = (
    "module",
    "n_out",
    "n_in",
    "norm",
    "sigma_max",
    "base_sigma_max",
    "strength",
    "effective_rank",
    "stable_rank",
    "intruders",
)


def describe(updates: Mapping[str, Update], base: Mapping[str, BaseSpectrum]) -> pd.DataFrame:
    """Describe the update of each module.

    Args:
        updates: ΔW by module.
        base: W by module; for a module without one, what needs it is missing.

    Returns:
        One row per module with the columns of `DESCRIPTION_COLUMNS`. norm: ‖ΔW‖_F. sigma_max and
        base_sigma_max: the largest singular values of ΔW and W. strength: their ratio, 0 or more
        (arXiv 2601.06305). effective_rank: exp of the entropy of σ/Σσ (Roy & Vetterli 2007), and stable_rank:
        ‖ΔW‖²_F/σ²_max; both from 1 to the rank, low where few directions carry the update, missing where it
        is zero. intruders: from 0 to 10, what `lab.spectra.intruders.count_intruders` counts.

    Raises:
        LabError: An update holds values that are not finite, or does not have its base's shape.
    """
    import pandas as pd

    rows = [(name, *_numbers(name, update, base.get(name))) for name, update in updates.items()]
    return pd.DataFrame(rows, columns=list(DESCRIPTION_COLUMNS))


def _numbers(module: str, update: Update, base: BaseSpectrum | None) -> tuple[float, ...]:
    norm = checked_norm(module, update, base)
    sigma = update.singular_values().double()
    largest = float(sigma[0])
    of_base = float(base.sigma[0]) if base else math.nan
    return (
        *update.shape,
        norm,
        largest,
        of_base,
        largest / of_base if of_base else math.nan,
        _effective_rank(sigma),
        _stable_rank(sigma),
        count_intruders(update, base) if base else math.nan,
    )


def _effective_rank(sigma: torch.Tensor) -> float:
    import torch

    share = sigma / sigma.sum()  # 0/0 is NaN: a zero update has no rank to speak of
    return float(torch.special.entr(share).sum().exp())


def _stable_rank(sigma: torch.Tensor) -> float:
    return float((sigma / sigma[0]).square().sum())
