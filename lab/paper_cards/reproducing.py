"""Reproduce a paper: run what its claims still lack, then read the card."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, unknown_name
from lab.paper_cards.card import Card, evaluate
from lab.paper_cards.cells import COMMITTED, HERE, finished_cells
from lab.paper_cards.claims import PaperClaims, Source, load_claims
from lab.paper_cards.evidence import result_table
from lab.paths import runs_dir

if TYPE_CHECKING:
    import pandas as pd

TIERS = ("cpu", "gpu")
#: How many seeds a pass has.
SEEDS = 3
#: What the estimates of `data/claims` are for: two cores, each training on one.
_CORES = 2

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Step:
    """A source of a paper, and how much of it is there.

    Attributes:
        name: The source's.
        cells: Of its plan, with all seeds.
        missing: Those that are not finished in the runs folder.
        minutes: What the missing ones take on two cores, estimated; NaN where nobody has measured it.
        command: What to type oneself for a source that is not run; such a one has no cells.
    """

    name: str
    cells: int
    missing: int
    minutes: float
    command: str = ""


def reproduce_paper(
    paper: str | Path,
    *,
    tier: str = "cpu",
    seeds: int = SEEDS,
    run: bool = True,
    runs: str | Path | None = None,
    device: str = "auto",
    workers: int | str = 1,
    on_event: Listener | None = None,
) -> Card:
    """Run what a paper's claims need and this machine has not run, and judge the claims.

    Finished cells are read and not trained again, so that an interrupted call goes on where it was. A source
    that fails is told among the card's facts and does not stop the rest.

    Args:
        paper: "token-generalization", "rora", "ssti" or "lora-vs-full", or a file of claims of one's own.
        tier: "cpu", the laptop's sweeps; or "gpu", the paper's own settings on a CUDA card.
        seeds: How many seeds (0, 1, …); below three there are no intervals, and no verdicts.
        run: Whether to run anything; without, the card is read.
        runs: The runs folder.
        device: "auto", "cpu", "cuda" or "mps".
        workers: How many trainings at once, or "auto", as for `lab.sweep`.
        on_event: As for `lab.sweep`; also `{"kind": "source", "name", "done", "total"}`.

    Returns:
        The card.

    Raises:
        LabError: An unknown paper or tier, no seed, or the GPU tier without a CUDA card.
    """
    claims = load_claims(paper)
    check_request(tier, seeds)
    failures: dict[str, str] = {}
    if run:
        if tier == "gpu":
            require_gpu()
        how: dict[str, Any] = {"runs": runs, "device": device, "workers": workers}
        failures = run_sources(claims, tier, seeds, on_event or (lambda _: None), **how)
    card = read_card(claims, runs=runs)
    return Card(card.claims, card.table, {**card.facts, **failures})


def read_card(paper: str | Path | PaperClaims, *, runs: str | Path | None = None) -> Card:
    """The card of what is known: finished runs of a folder, else committed numbers. Nothing is run.

    Raises:
        LabError: An unknown paper, or a file of claims that is wrong.
    """
    from lab.store import list_runs

    claims = paper if isinstance(paper, PaperClaims) else load_claims(paper)
    folder = runs_dir(runs)
    return card_of(claims, list_runs(folder), folder)


def card_of(claims: PaperClaims, listing: pd.DataFrame, folder: Path) -> Card:
    """As `read_card`, for who has a listing already.

    Args:
        claims: The paper's.
        listing: Runs as `lab.list_runs` lists them; empty for committed numbers alone.
        folder: Where they lie.
    """
    table = evaluate(claims, result_table(claims, listing, folder))
    own, committed = (int((table["held"] == where).sum()) for where in (HERE, COMMITTED))
    return Card(claims, table, {"numbers": f"{own} of this machine, {committed} committed"})


def check_request(tier: str, seeds: int) -> None:
    """Refuse a tier that there is not, and a number of seeds below one.

    Raises:
        LabError: In one sentence.
    """
    if tier not in TIERS:
        raise unknown_name("tier", tier, TIERS)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise LabError(f"seeds = {seeds!r}: give a whole number from 1 up.")


def require_gpu() -> None:
    """Refuse the GPU tier where no CUDA card is.

    Raises:
        LabError: There is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise LabError(
            "--tier gpu runs the paper's own models and needs a CUDA card, and there is none here; "
            "--tier cpu runs on any machine."
        )


def steps(claims: PaperClaims, tier: str, seeds: int, listing: pd.DataFrame, runs: Path) -> list[Step]:
    """What would be run, source by source, and how long it would take; then what has a command of its own.

    Args:
        claims: The paper's.
        tier: "cpu" or "gpu".
        seeds: How many.
        listing: Runs as `lab.list_runs` lists them.
        runs: The folder that they lie in.
    """
    asked = _asked(claims, tier).items()
    run = [_step(name, source, seeds, listing, runs) for name, source in asked if source.runs]
    return run + [Step(name, 0, 0, 0.0, source.command) for name, source in asked if not source.runs]


def _asked(claims: PaperClaims, tier: str) -> dict[str, Source]:
    """The sources of a tier that a claim rests on."""
    used = claims.measures()
    return {n: s for n, s in claims.sources.items() if s.tier == tier and n in used}


def _step(name: str, source: Source, seeds: int, listing: pd.DataFrame, runs: Path) -> Step:
    plan = source.plan()
    cells = math.prod(map(len, plan.over.values())) * len(plan.arms or {"": {}}) * seeds
    done = finished_cells(source, listing, runs) if len(listing) else listing
    missing = cells - (int((done["seed"] < seeds).sum()) if len(done) else 0)
    minutes = source.core_minutes / _CORES * seeds / SEEDS * missing / cells
    return Step(name, cells, missing, minutes if source.core_minutes else math.nan)


def run_sources(
    claims: PaperClaims, tier: str, seeds: int, listen: Listener, *, runs: str | Path | None, **how: Any
) -> dict[str, str]:
    """Run the sources of a tier whose cells are not all finished.

    Args:
        claims: The paper's.
        tier: "cpu" or "gpu".
        seeds: How many.
        listen: Called with every event.
        runs: The runs folder.
        **how: Further arguments of `lab.sweep`: device and workers.

    Returns:
        By source, what failed, in a sentence; {} where all went well.

    Raises:
        StoppedError: Somebody asked a source's sweep to stop.
    """
    from lab.store import list_runs
    from lab.training_stage import StoppedError

    todo = [s for s in steps(claims, tier, seeds, list_runs(runs), runs_dir(runs)) if s.missing]
    failures: dict[str, str] = {}
    for number, step in enumerate(todo):
        listen({"kind": "source", "name": step.name, "done": number, "total": len(todo)})
        try:
            table = run_source(claims.sources[step.name], seeds, runs=runs, on_event=listen, **how)
        except StoppedError:
            raise
        except LabError as error:  # somebody else runs it just now, or its workers cannot start
            failures[f"{step.name}, failed"] = str(error)
        else:
            failures.update(_failed(step.name, table.to_dict("records")))
    return failures


def run_source(source: Source, seeds: int = SEEDS, **how: Any) -> pd.DataFrame:
    """Run the cells of a source that are not finished, and read the others.

    Args:
        source: One that can be run.
        seeds: How many.
        **how: Further arguments of `lab.sweep`: runs, device, workers and on_event.

    Returns:
        The table of `lab.sweep`.
    """
    from lab.sweeps import sweep

    plan = source.plan()
    return sweep(
        plan.experiment, plan.over, arms=plan.arms, seeds=seeds, tune=plan.tune, twin=source.twin, **how
    )


def _failed(name: str, cells: Sequence[Mapping[Any, Any]]) -> dict[str, str]:
    reasons = [str(cell["reason"]) for cell in cells if cell["state"] != "finished"]
    if not reasons:
        return {}
    return {f"{name}, failed": f"{len(reasons)} of {len(cells)} cells, the first: {reasons[0]}"}
