"""What a sweep is asked for, checked and counted out into cells, before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.experiment import Experiment
from lab.presets import load_experiment
from lab.sweeps.grid import (
    MOST_CELLS,
    Cell,
    Grid,
    Tuning,
    check_keys,
    check_size,
    grid_cells,
    grid_points,
    read_tuning,
    seed_list,
)


@dataclass(frozen=True)
class Lost:
    """The candidates of one tuning that could not be chosen, since there is no run to look at.

    Attributes:
        tried: How many candidates there were in all.
        diverged: How many trained until their loss was not finite: a finding, and the same when asked again.
        failed: How many failed in another way, of which one might have been the best.
        reason: Why the first of these failed.
    """

    tried: int
    diverged: int
    failed: int
    reason: str

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], diverged: Sequence[bool]) -> Lost:
        """Count them.

        Args:
            lines: For each candidate its line of the table.
            diverged: For each whether it diverged.
        """
        reasons = [
            str(line.get("reason", ""))
            for line, is_finding in zip(lines, diverged, strict=True)
            if line["state"] == "failed" and not is_finding
        ]
        return cls(len(lines), sum(diverged), len(reasons), reasons[0] if reasons else "")

    def __bool__(self) -> bool:
        return bool(self.failed or self.diverged)

    def __str__(self) -> str:
        of = f"of {self.tried} candidates"
        told = [f"{self.diverged} {of} diverged"] if self.diverged else []
        if self.failed:
            told.append(f"{self.failed} {of} failed, the first: {self.reason.rstrip('.')}")
        return f"tuning: {'; '.join(told)}."


class Asked:
    """What a sweep is asked for, checked.

    Attributes:
        start: What every cell starts from.
        over: The grid.
        arms: Named ways, {} for none.
        seeds: Which seeds.
        tuning: What is chosen before.
        twin: Whether clean twins are run.
        cells: Every cell, in the order of the table.
    """

    def __init__(
        self,
        start: Experiment,
        over: Grid,
        arms: Mapping[str, Mapping[str, Any]],
        seeds: list[int],
        tuning: Tuning,
        twin: bool,
    ) -> None:
        self.start, self.over, self.arms = start, over, arms
        self.seeds, self.tuning, self.twin = seeds, tuning, twin
        self.cells = grid_cells(start, over, arms or {"": {}}, seeds)
        for cell in self.cells:  # a wrong key is told before hours of work, not after
            for point in grid_points(tuning.over) if tuning.over else []:
                cell.experiment.with_(**point)

    @classmethod
    def read(
        cls,
        experiment: str | Path | Experiment,
        over: Grid,
        *,
        arms: Mapping[str, Mapping[str, Any]] | None,
        seeds: int | Sequence[int],
        tune: Mapping[str, Any] | None,
        twin: bool,
        most_cells: int = MOST_CELLS,
    ) -> Asked:
        """Check what is asked; see `sweep`."""
        start, listed, tuning = load_experiment(experiment), seed_list(seeds), read_tuning(tune)
        ways = arms or {}
        check_keys(over, tuning.over, ways)
        check_size(over, ways or {"": {}}, listed, tuning.over, most_cells)
        return cls(start, over, ways, listed, tuning, twin)

    def described(self) -> dict[str, Any]:
        """Plain values that say what is asked; equal ones are the same sweep."""
        tuning = self.tuning
        how = {
            "over": dict(tuning.over),
            "measure": tuning.measure,
            "of": "twin" if tuning.of_twin else "run",
        }
        return {
            "experiment": self.start.to_dict(),
            "over": dict(self.over),
            "arms": {arm: dict(keys) for arm, keys in self.arms.items()},
            "seeds": self.seeds,
            "tune": how if tuning.over else None,
            "twin": self.twin,
        }

    def points(self) -> dict[str, Cell]:
        """A cell of every point and arm, by `Cell.point`."""
        return {cell.point: cell for cell in reversed(self.cells)}

    def tuning_cells(self) -> dict[str, list[Cell]]:
        """What is tried for every point and arm; {} without a tuning."""
        if not self.tuning.over:
            return {}
        points = dict.fromkeys(cell.point for cell in self.cells)
        first = self.points()
        return {point: self.tuning.candidates(first[point], self.seeds[0]) for point in points}

    @property
    def tuning_twin(self) -> bool:
        """Whether the tuning looks at twins."""
        return self.tuning.measure == "excess_asr"

    def choose(self, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The best of a tuning's values.

        Args:
            lines: For each candidate, in the grid's order, its line of the table.

        Raises:
            LabError: No candidate has the measure.
        """
        measure = self.tuning.measure
        values = [float(line.get(measure, float("nan"))) for line in lines]
        return best_values(self.tuning.over, values, measure, [str(line.get("reason", "")) for line in lines])

    def with_chosen(self, cell: Cell, chosen: Mapping[str, Any]) -> Cell:
        """A cell with what was tuned for its point."""
        return Cell(cell.experiment.with_(**chosen), cell.shown, cell.seed) if chosen else cell


def best_values(over: Grid, values: Sequence[float], measure: str, reasons: Iterable[str]) -> dict[str, Any]:
    """The grid's point with the largest value, the first of equal ones.

    Raises:
        LabError: No point has a value.
    """
    if all(value != value for value in values):
        told = "; ".join(sorted({r for r in reasons if r})) or f"no run has the measure {measure!r}"
        raise LabError(f"Nothing to tune on: {told}.")
    return grid_points(over)[max(range(len(values)), key=lambda i: (values[i] == values[i], values[i]))]
