"""A Ray cluster as the engine: Ray places jobs by resources and tries those of lost nodes again.

Every node needs the lab installed in the same version, and either sees the runs folder under the same path,
or works in a folder of its own and sends finished runs back through Ray's object store.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.sweeps.jobs import JobBoard, Outcome, SweepJob, failed

if TYPE_CHECKING:
    from lab.sweeps.executors import Place, Watcher

#: How often Ray may begin a job again whose node or process was lost.
_RETRIES = 4
#: Seconds to find out whether anybody listens at an address.
_KNOCK = 5.0
#: Bytes of the object store of a cluster that is started here; runs are small, and most share a disk anyway.
_OBJECT_STORE = 200 * 2**20


class RayExecutor:
    """Does jobs as Ray tasks, on this machine or on a cluster."""

    name = "ray"
    goal = "Cells on the nodes of a Ray cluster, with its retries; fractions of GPUs."

    def check(self, place: Place) -> None:
        """Refuse a missing Ray, and an address where nobody answers.

        Raises:
            LabError: Says which.
        """
        try:
            import ray  # noqa: F401
        except ImportError:
            raise LabError(
                "executor = 'ray': Ray is not installed; pip install 'lora-backdoor-lab[ray]'; or 'local'."
            ) from None
        if place.address and place.address != "auto":
            _knock(place.address)

    def work(self, board: JobBoard, place: Place, watcher: Watcher) -> None:
        """Do all jobs of a board; as many at once as the cluster has room for."""
        import ray

        with _connected(place), _marked(place.runs) as mark:
            share = _share(ray.cluster_resources(), place)
            there: Any = ray.remote(_do_there)
            remote = there.options(**share, num_returns=2, max_retries=_RETRIES, retry_exceptions=False)
            room = _room(ray.cluster_resources(), share)
            packs: dict[str, Any] = {}
            running: dict[Any, tuple[SweepJob, Any]] = {}
            try:
                while not board.is_done:
                    while len(running) < room and (job := board.take()) is not None:
                        watcher.begins(job)
                        needed = [packs[key] for key in job.needs if key in packs]
                        said, pack = remote.remote(asdict(job), str(place.runs), place.device, mark, needed)
                        running[said] = (job, pack)
                    ended, _ = ray.wait(list(running), num_returns=1)
                    for said in ended:
                        job, pack = running.pop(said)
                        outcome = _outcome(ray, said, pack, place)
                        if outcome.line.get("state") == "finished":
                            packs[job.key] = pack
                        board.put(job, outcome)
                        watcher.ends(job, outcome)
            except BaseException:
                for said in running:
                    ray.cancel(said, force=False)  # raises KeyboardInterrupt there, so the run can go on
                raise


def _do_there(
    job: Mapping[str, Any], runs: str, device: str, mark: str, needed: list[Any]
) -> tuple[dict[str, Any], bytes]:
    """What a node does: the job, in the shared runs folder, or in its own with the runs that are needed.

    Returns:
        The outcome as a dict, and the finished runs as an archive; empty where the disk is shared.
    """
    import ray

    from lab.run_packs import pack_runs, unpack_runs
    from lab.sweeps.work import do_job

    mine = SweepJob(**{**job, "needs": tuple(job["needs"])})
    is_shared = bool(mark) and os.path.exists(os.path.join(runs, mark))
    folder = Path(runs) if is_shared else Path(tempfile.gettempdir()) / f"lab-runs-{mark.strip('.')}"
    if not is_shared:
        folder.mkdir(parents=True, exist_ok=True)
        for reference in needed:
            unpack_runs(ray.get(reference), folder)
    outcome = do_job(mine, folder, device, lambda _: None)
    pack = b"" if is_shared else pack_runs([p for p in folder.iterdir() if (p / "result.json").is_file()])
    return asdict(outcome), pack


def _outcome(ray: Any, said: Any, pack: Any, place: Place) -> Outcome:
    """What a task came to, its runs unpacked; a task that Ray gave up has failed."""
    from lab.run_packs import unpack_runs

    try:
        outcome = Outcome(**ray.get(said))
        if archive := ray.get(pack):
            unpack_runs(archive, place.runs)
    except ray.exceptions.RayError as error:
        return failed(f"Ray gave it up after {_RETRIES} retries: {str(error).strip().splitlines()[0]}")
    return outcome


@contextmanager
def _connected(place: Place) -> Iterator[None]:
    """A connection to the cluster, or to one that is started here and ended afterwards."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
    is_ours = not ray.is_initialized()
    try:
        if is_ours and place.address:
            ray.init(address=place.address, **quiet)
        elif is_ours:
            # several small runs are faster with a thread each; Ray counts these as its CPUs
            ray.init(
                num_cpus=_cores(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LabError(f"--address {place.address or 'auto'}: no Ray cluster there: {reason}") from None
    try:
        yield
    finally:
        if is_ours:
            ray.shutdown()


@contextmanager
def _marked(runs: Path) -> Iterator[str]:
    """A file in the runs folder by which nodes see whether they share it; its name."""
    runs.mkdir(parents=True, exist_ok=True)
    mark = runs / f".ray-{secrets.token_hex(8)}"
    mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)
        shutil.rmtree(Path(tempfile.gettempdir()) / f"lab-runs-{mark.name.strip('.')}", ignore_errors=True)


def _share(resources: Mapping[str, float], place: Place) -> dict[str, Any]:
    """What one job is given: threads of a core, and a fraction of a card where there are some.

    Args:
        resources: What the cluster has in all, as `ray.cluster_resources` tells it.
        place: How many jobs at once are asked for, and where they compute.
    """
    cpus, cards = max(1.0, resources.get("CPU", 1.0)), resources.get("GPU", 0.0)
    threads = max(1, int(cpus // place.workers))
    share: dict[str, Any] = {"num_cpus": threads}
    if cards and place.device in ("auto", "cuda"):
        share["num_gpus"] = min(1.0, round(cards / place.workers, 3)) if place.workers > cards else 1.0
    share["runtime_env"] = {
        "env_vars": {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    }
    return share


def _room(resources: Mapping[str, float], share: Mapping[str, Any]) -> int:
    """How many jobs of this share the cluster holds at once; at least one."""
    rooms = [resources.get("CPU", 1.0) // share["num_cpus"]]
    if "num_gpus" in share:
        rooms.append(resources.get("GPU", 0.0) // share["num_gpus"])
    return max(1, int(min(rooms)))


def _knock(address: str) -> None:
    """Refuse an address where nobody listens, in seconds; Ray itself tries for long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise LabError(f"--address {address!r}: write host:port, for example 10.0.0.1:6379, or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
    except (OSError, OverflowError) as error:
        raise LabError(f"--address {address}: nobody answers there ({error}).") from None


def _cores() -> int:
    from lab.sweeps.crews import core_count

    return core_count()
