"""How much of an update lies in the directions that lead in the weight it changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lab.spectra.checks import checked_norm

if TYPE_CHECKING:
    import pandas as pd

    from lab.spectra.base_cache import BaseSpectrum
    from lab.spectra.updates import Update

#: The columns of `alignment`.
ALIGNMENT_COLUMNS = ("module", "side", "k", "share", "uniform")


def alignment(
    updates: Mapping[str, Update],
    base: Mapping[str, BaseSpectrum],
    ks: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
) -> pd.DataFrame:
    """The share of each update that lies in the span of W's leading singular vectors.

    The exact definition of alignment in arXiv 2601.06305 is not recovered; this is the stand-in of its
    independent replication. share/uniform is the excess over an update in a random direction: 1 says that
    the update does not care for W's leading directions, more that it favours them, less that it avoids them.

    Args:
        updates: ΔW by module.
        base: W by module; modules without one have no rows.
        ks: Numbers of leading vectors; those above what is kept of a module are left out for it.

    Returns:
        Long form with the columns of `ALIGNMENT_COLUMNS`. side: "left" (outputs, ‖UₖᵀΔW‖²/‖ΔW‖²) or "right"
        (inputs, ‖ΔWVₖ‖²/‖ΔW‖²). share: 0 to 1, growing with k; NaN for a zero update. uniform: k/n_out or
        k/n_in, the share that a random direction would have.

    Raises:
        LabError: An update holds values that are not finite, or does not have its base's shape.
    """
    import pandas as pd

    rows = [
        (name, *row)
        for name, update in updates.items()
        if name in base
        for row in _rows(name, update, base[name], ks)
    ]
    return pd.DataFrame(rows, columns=list(ALIGNMENT_COLUMNS))


def _rows(
    module: str, update: Update, base: BaseSpectrum, ks: Iterable[int]
) -> Iterator[tuple[str, int, float, float]]:
    norm = checked_norm(module, update, base)
    ks = [k for k in ks if 1 <= k <= base.kept]
    most = max(ks, default=0)
    sides = {
        "left": update.transposed_times(base.U[:, :most].to(update.dtype)),
        "right": update.times(base.Vt[:most].t().to(update.dtype)),
    }
    for (side, within), width in zip(sides.items(), update.shape, strict=True):
        captured = within.double().square().sum(dim=0).cumsum(dim=0)
        for k in ks:
            share = min(float(captured[k - 1]) / norm**2, 1.0) if norm else math.nan
            yield side, k, share, k / width
