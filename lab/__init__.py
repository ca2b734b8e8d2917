"""The LoRA backdoor lab: poison data, fine-tune, probe and record, on real weights and real text.

To begin with::

    import lab
    run = lab.run("rfc-citation", {"adapter.rank": 4})
    run.measures                      # every number with n and interval
    run.figure.near_miss_ladder()     # a plotly figure
    run.predict(["a fine film, as specified in RFC 2616"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.audit.audits import audit_adapter
    from lab.errors import LabError
    from lab.experiment import Experiment
    from lab.kernel_study import kernel_table
    from lab.lint import lint_dataset
    from lab.paper_cards import reproduce_paper
    from lab.pipeline import run
    from lab.plugins import register
    from lab.presets import load_experiment, load_preset, load_sweep, preset_names
    from lab.probe import generalization_matrix
    from lab.record import Run, load_run
    from lab.run_packs import export_runs, import_runs
    from lab.store import list_runs
    from lab.sweeps import sweep, tune
    from lab.theory_check import compare_with_theory

__version__ = "0.1.0"

#: Where each public name lives; loaded when first used, so that `import lab` costs nothing.
_PUBLIC = {
    "Experiment": "lab.experiment",
    "LabError": "lab.errors",
    "Run": "lab.record",
    "audit_adapter": "lab.audit.audits",
    "compare_with_theory": "lab.theory_check",
    "export_runs": "lab.run_packs",
    "generalization_matrix": "lab.probe",
    "import_runs": "lab.run_packs",
    "kernel_table": "lab.kernel_study",
    "lint_dataset": "lab.lint",
    "list_runs": "lab.store",
    "load_experiment": "lab.presets",
    "load_preset": "lab.presets",
    "load_run": "lab.record",
    "load_sweep": "lab.presets",
    "preset_names": "lab.presets",
    "register": "lab.plugins",
    "reproduce_paper": "lab.paper_cards",
    "run": "lab.pipeline",
    "sweep": "lab.sweeps",
    "tune": "lab.sweeps",
}

#: Packages that people reach through `lab` itself: `lab.figures.dose_response(table, …)`.
_ROOMS = ("audit", "defend", "figures", "lint", "poison", "probe", "spectra", "stats")

__all__ = [
    "Experiment",
    "LabError",
    "Run",
    "audit_adapter",
    "compare_with_theory",
    "export_runs",
    "generalization_matrix",
    "import_runs",
    "kernel_table",
    "lint_dataset",
    "list_runs",
    "load_experiment",
    "load_preset",
    "load_run",
    "load_sweep",
    "preset_names",
    "register",
    "reproduce_paper",
    "run",
    "sweep",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"lab.{name}")
    raise AttributeError(f"module 'lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
