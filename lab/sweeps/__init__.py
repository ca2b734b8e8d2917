"""Many experiments: a grid of dotted keys × seeds, each cell an ordinary run.

Shared twins and finished cells are never trained twice, so a sweep that was interrupted goes on where it
was; a cell that fails is recorded with its reason and does not stop the rest.

    grid (what is asked) → plan (jobs, each training once) → executor (who does them) → table
"""

from __future__ import annotations

from lab.sweeps.background import go_on_sweep, recorded_sweep, start_sweep
from lab.sweeps.grid import grid_points, seed_list
from lab.sweeps.preview import SweepPreview, preview_sweep
from lab.sweeps.records import SweepState, list_sweeps, read_sweep, stop_sweep
from lab.sweeps.running import sweep, tune
from lab.sweeps.table import cell_line

__all__ = [
    "SweepPreview",
    "SweepState",
    "cell_line",
    "go_on_sweep",
    "grid_points",
    "list_sweeps",
    "preview_sweep",
    "read_sweep",
    "recorded_sweep",
    "seed_list",
    "start_sweep",
    "stop_sweep",
    "sweep",
    "tune",
]
