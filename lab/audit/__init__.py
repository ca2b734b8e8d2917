"""Verdicts on an adapter or a dataset that nobody here made."""

from __future__ import annotations

from lab.audit.adapter_files import AdapterFiles, UnreadableAdapterError, open_adapter
from lab.audit.archives import UnpackedAdapter, opened, unpack_adapter
from lab.audit.batteries import BATTERIES, Battery, battery
from lab.audit.weight_statistics import (
    STATISTICS,
    adapter_statistics,
    module_statistics,
    robust_scores,
)

__all__ = [
    "BATTERIES",
    "STATISTICS",
    "AdapterFiles",
    "Battery",
    "UnpackedAdapter",
    "UnreadableAdapterError",
    "adapter_statistics",
    "battery",
    "module_statistics",
    "open_adapter",
    "opened",
    "robust_scores",
    "unpack_adapter",
]
