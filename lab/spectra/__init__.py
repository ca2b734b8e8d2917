"""ΔW as an object that knows its singular values without ever being formed."""

from __future__ import annotations

from lab.spectra.base_spectra import base_singular_values
from lab.spectra.updates import DenseUpdate, FactoredUpdate, Update

__all__ = ["DenseUpdate", "FactoredUpdate", "Update", "base_singular_values"]
