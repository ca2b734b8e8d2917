"""ΔW as an object: its singular values without ever being formed, its surgery, and how it lies in W."""

from __future__ import annotations

from lab.spectra.alignments import alignment
from lab.spectra.base_cache import BaseSpectrum, base_spectra
from lab.spectra.base_values import base_singular_values
from lab.spectra.dense import DenseUpdate
from lab.spectra.descriptions import describe
from lab.spectra.dora import DoraUpdate
from lab.spectra.factored import FactoredUpdate
from lab.spectra.updates import Update

__all__ = [
    "BaseSpectrum",
    "DenseUpdate",
    "DoraUpdate",
    "FactoredUpdate",
    "Update",
    "alignment",
    "base_singular_values",
    "base_spectra",
    "describe",
]
