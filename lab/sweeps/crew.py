"""Who does the jobs of a sweep: its executor and workers, chosen alike for a sweep and for its preview."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.sweeps.asking import Asked
from lab.sweeps.doing import Place, job_standing
from lab.sweeps.executors import Pool, Setting, find_executor, split_address
from lab.sweeps.plan import plan_jobs
from lab.sweeps.resources import Team, choose_team, core_count, need_bytes, worker_count

#: Looking a cell up takes a part of a second, and workers some ten seconds until they do the same.
_QUICKLY_READ = 24


@dataclass(frozen=True)
class Crew:
    """Who does the jobs of a sweep.

    Attributes:
        executor: One of `lab.sweeps.executors.EXECUTORS`.
        team: Its workers; their number is 0 where a Ray cluster has its own.
        address: Of a Ray cluster; "" for this machine.
        need: Memory that a job may take in bytes, an estimate.
    """

    executor: str
    team: Team
    address: str
    need: float

    @property
    def is_elsewhere(self) -> bool:
        """Whether other machines compute, of whose pace nothing is known here."""
        return bool(self.address)

    def pool(self, place: Place, folder: Path, should_stop: Callable[[], bool] = lambda: False) -> Pool:
        """Its workers, who begin when the pool is entered as a context.

        Args:
            place: Where runs lie, and on what is computed.
            folder: Takes logs and the like; it is there when the pool is entered.
            should_stop: Asked now and then; True ends the sweep so that it can go on later.

        Raises:
            LabError: What the executor needs is not installed.
        """
        setting = Setting(
            place=place,
            workers=self.team.count,
            folder=folder,
            address=self.address,
            environments=self.team.environments,
            need=self.need,
            should_stop=should_stop,
        )
        return find_executor(self.executor).open(setting)


def check_executor(name: str, workers: int | str, address: str) -> None:
    """Refuse an executor that is not there, and what does not go with it: quick, and nothing is written.

    Args:
        name: One of `lab.sweeps.executors.EXECUTORS`, or "auto".
        workers: How many workers are asked for, or "auto".
        address: Of a Ray cluster, "auto" or HOST:PORT; "" for none.

    Raises:
        LabError: There is no such executor, or it does not go with these workers or this address.
    """
    count = worker_count(workers)
    if name != "auto":
        find_executor(name)
    if name == "inline" and count > 1:
        raise LabError(f"workers = {count}: the executor 'inline' is this process alone; take 'local'.")
    if address and name != "ray":
        raise LabError(f"--address {address!r}: of a Ray cluster; it goes with the executor 'ray' alone.")
    # an executor asks whether somebody answers there; a dry run asks nobody
    if address not in ("", "auto"):
        split_address(address)


def choose_crew(asked: Asked, name: str, workers: int | str, address: str, place: Place) -> Crew:
    """Choose the executor where that is left open, and how many workers it has.

    Where it is left open and a few finished runs are only to be read, no worker is worth its start.

    Args:
        asked: What the sweep is asked for; its largest model bounds the number of workers.
        name: As for `check_executor`, which has passed it, and so are the next two.
        workers: How many workers, or "auto".
        address: Of a Ray cluster.
        place: Where runs lie, and on what is computed.
    """
    experiments = [asked.start, *(cell.experiment for cell in asked.points().values())]
    need, count = need_bytes(experiments), worker_count(workers)
    if name == "ray":
        own = Team(0, (), "the Ray cluster's own")
        team = own if address else Team(count or core_count(), (), "Ray on this machine")
        return Crew(name, team, address, need)
    if name == "inline" or (name == "auto" and (count == 1 or _is_all_there(asked, place.runs))):
        return Crew("inline", Team(1, ({},), "this process"), "", need)
    trials = max(len(asked.cells), sum(len(cells) for cells in asked.tuning_cells().values()))
    team = choose_team(workers, trials, experiments, place.device)
    return Crew("inline" if name == "auto" and team.count == 1 else "local", team, "", need)


def _is_all_there(asked: Asked, runs: Path) -> bool:
    """Whether a small sweep needs only to be read, which takes less time than workers take to start."""
    if asked.tuning.over or len(asked.cells) > _QUICKLY_READ:
        return False
    jobs, _ = plan_jobs(asked.cells, twin=asked.twin)
    try:
        return all(job_standing(job, runs)[1] for job in jobs if job.kind == "cell")
    except Exception:  # whatever it is, it is the cell's failure, which is told where the cell is done
        return False
