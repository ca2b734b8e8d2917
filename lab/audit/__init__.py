"""Verdicts on an adapter or a dataset that nobody here made."""

from __future__ import annotations

from lab.audit.adapter_files import AdapterFiles, UnreadableAdapterError, open_adapter
from lab.audit.archives import UnpackedAdapter, opened, unpack_adapter
from lab.audit.cohort_builds import build_cohort, key_table, summarise_key
from lab.audit.cohorts import COHORTS, Cohort, Member, find_cohort, plan_cohort
from lab.audit.counted import counted_detectors
from lab.audit.detectors import DETECTORS, Detector
from lab.audit.reference_plans import ReferencePlan
from lab.audit.weight_statistics import (
    STATISTICS,
    adapter_statistics,
    module_statistics,
    robust_scores,
)
from lab.batteries import BATTERIES, Battery, battery

__all__ = [
    "BATTERIES",
    "COHORTS",
    "DETECTORS",
    "STATISTICS",
    "AdapterFiles",
    "Battery",
    "Cohort",
    "Detector",
    "Member",
    "ReferencePlan",
    "UnpackedAdapter",
    "UnreadableAdapterError",
    "adapter_statistics",
    "battery",
    "build_cohort",
    "counted_detectors",
    "find_cohort",
    "key_table",
    "module_statistics",
    "open_adapter",
    "opened",
    "plan_cohort",
    "robust_scores",
    "summarise_key",
    "unpack_adapter",
]
