"""One job of a sweep, done in this process; the same for every executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.experiment import Experiment
from lab.sweeps.jobs import Outcome, SweepJob, failed
from lab.sweeps.table import cell_line


def do_job(
    job: SweepJob, runs: str | Path | None, device: str, listen: Callable[[dict[str, Any]], None]
) -> Outcome:
    """Run a job's experiment, or read it where it is finished; what goes wrong is its outcome.

    Raises:
        KeyboardInterrupt: Somebody wants it stopped; asked again, it goes on.
    """
    from lab.pipeline import run
    from lab.training_stage import StoppedError

    start = time.perf_counter()
    try:
        done = run(
            Experiment.from_dict(job.experiment), runs=runs, twin=job.twin, device=device, on_event=listen
        )
        return Outcome(cell_line(done), time.perf_counter() - start)
    except StoppedError as stopped:
        return Outcome({"run": "", "state": "stopped", "reason": str(stopped)})
    except LabError as error:
        return failed(str(error))
    except Exception as error:
        return failed(f"{type(error).__name__}: {error}")
