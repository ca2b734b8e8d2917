"""Many experiments: a grid of dotted keys × seeds, each cell an ordinary run.

Shared twins and finished cells are never trained twice, so a sweep that was interrupted goes on where it
was; a cell that fails is recorded with its reason and does not stop the rest. Who does the cells, this
process, several on this machine or a Ray cluster, changes nothing in the results.
"""

from __future__ import annotations

from lab.sweeps.grid import Grid, grid_points, seed_list
from lab.sweeps.sweeping import sweep, sweep_cells, tune
from lab.sweeps.table import cell_line

__all__ = ["Grid", "cell_line", "grid_points", "seed_list", "sweep", "sweep_cells", "tune"]
