"""What no statement can be made about."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.spectra.base_cache import BaseSpectrum
    from lab.spectra.updates import Update


def checked_norm(module: str, update: Update, base: BaseSpectrum | None) -> float:
    """The Frobenius norm of an update that is finite and belongs to its base.

    Args:
        module: Its name, for the sentence.
        update: ΔW.
        base: W, or None where it is not known.

    Raises:
        LabError: The update is not finite, or does not have its base's shape.
    """
    if base is not None and base.shape != update.shape:
        raise LabError(
            f"{module}: the base's weight is {base.shape}, the update {update.shape}; "
            f"they do not belong together."
        )
    norm = update.norm()
    if not math.isfinite(norm):
        raise LabError(
            f"{module}: the update holds values that are not finite; nothing can be said about it."
        )
    return norm
