"""Jobs as Ray tasks: Ray places them by their resources, and does those of a lost node again elsewhere.

Needs are object references, so Ray itself keeps the order; a job whose need is lost is asked for again
without it. Where all nodes see the runs folder, jobs work in it and a run that was begun on a lost node goes
on from its checkpoint. Where they do not, each job works in a folder of its node, runs travel through the
object store, and the driver unpacks what comes back; at the end those folders are removed from the nodes that
still answer. A run that lies here finished, but was probed in another way, travels too, and is not trained
again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.files import write_text
from lab.run_packs import pack_runs, unpack_runs, with_what_they_rest_on
from lab.sweeps.doing import Outcome, Place, do_job, job_standing
from lab.sweeps.executors import Setting, split_address
from lab.sweeps.executors.stopping import check_wanted
from lab.sweeps.plan import SweepJob
from lab.sweeps.resources import core_count
from lab.sweeps.schedule import Schedule
from lab.work_queue import thread_variables

#: How often a job is done again whose worker or node was lost.
_RETRIES = 3
#: Seconds in which a cluster has to answer.
_ANSWER = 5.0
#: How a client greets a gRPC server, and the type of the frame with which that greets back (RFC 9113, 3.4).
_HELLO, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 4
#: Bytes of the object store of a Ray that is started here: outcomes are small.
_STORE = 100 * 2**20
#: Memory of a card that a job's share is reckoned by, in bytes; larger ones have room to spare.
_CARD = 16.0 * 2**30
#: Seconds between two looks whether to stop.
_LOOK = 0.3
#: Seconds that cancelled tasks have to save a checkpoint.
_GRACE = 30.0
#: Seconds in which all nodes have to say whether they see a folder, and in which they may tidy up.
_ALL_LOOK, _ALL_TIDY = 60.0, 10.0


@dataclass(frozen=True)
class _Asked:
    """A job that Ray was asked for.

    Attributes:
        job: The job.
        needs: The tasks that it waits for, by key.
        parcels: References of runs that lie here already.
    """

    job: SweepJob
    needs: Mapping[str, Any]
    parcels: Sequence[Any]


class RayPool:
    """A Ray cluster; see `lab.sweeps.executors.Pool`."""

    def __init__(self, setting: Setting) -> None:
        if importlib.util.find_spec("ray") is None:
            raise LabError(
                "The executor 'ray' needs Ray, which is not installed; pip install 'lora-backdoor-lab[ray]'."
            )
        self._setting = setting
        self._is_own = False
        self._refs: dict[Any, _Asked] = {}
        #: The latest task of each job, by key.
        self._made: dict[str, Any] = {}
        self._token = ""
        self._left_folders = False

    def __enter__(self) -> RayPool:
        # nothing is told to anybody, and progress is the lab's own
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if not ray.is_initialized():
            self._is_own = True
            self._join(ray)
        self._token = secrets.token_hex(8)
        write_text(self._setting.folder / "token", self._token)
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        try:
            self._end_tasks(ray)
        finally:
            (self._setting.folder / "token").unlink(missing_ok=True)
            if self._is_own:
                ray.shutdown()

    def run(
        self,
        jobs: Schedule,
        on_begin: Callable[[SweepJob], None],
        on_end: Callable[[Outcome], None],
        on_event: Callable[[SweepJob, dict[str, Any]], None],
    ) -> None:
        """Do every job; see `lab.sweeps.executors.Pool`. Events stay on the nodes, outcomes come back."""
        import ray

        def end(outcome: Outcome) -> None:
            jobs.end(outcome.key)
            on_end(outcome)

        self._made = {}  # what Ray keeps for a former plan can go
        is_shared = self._is_shared(ray)
        self._left_folders |= not is_shared
        runs = self._setting.place.runs
        task = ray.remote(max_retries=_RETRIES, **self._resources(ray))(_do)
        told = {"folder": str(self._setting.folder), "token": self._token, "shared": is_shared}

        def ask(asked: _Asked) -> None:
            words = (vars(asked.job), str(runs), self._setting.place.device, told)
            ref = task.remote(*words, *asked.needs.values(), *asked.parcels)
            self._made[asked.job.key] = ref
            self._refs[ref] = asked

        for job in jobs.jobs:
            here = _Here() if is_shared else _lying_here(job, runs)
            parcels = [ray.put((Outcome("", run), _packed(runs, run))) for run in here.runs]
            if here.is_done:
                self._made[job.key] = parcels[0]
                end(Outcome(job.key, here.runs[0]))
            else:
                ask(_Asked(job, {key: self._made[key] for key in job.needs}, parcels))
        while self._refs:
            check_wanted(self._setting.should_stop)
            ready, _ = ray.wait(list(self._refs), num_returns=1, timeout=_LOOK)
            for ref in ready:
                asked = self._refs.pop(ref)
                outcome = self._fetch(ray, ref, asked)
                if outcome is None:
                    ask(replace(asked, needs=self._left_of(ray, asked.needs)))
                else:
                    on_begin(asked.job)
                    end(outcome)

    def _end_tasks(self, ray: Any) -> None:
        """Cancel what is under way, wait until it has saved, and remove what the nodes wrote beside."""
        for ref in self._refs:
            with contextlib.suppress(Exception):
                ray.cancel(ref, force=False)
        with contextlib.suppress(Exception):  # nodes may be lost
            if self._refs:
                ray.wait(list(self._refs), num_returns=len(self._refs), timeout=_GRACE)
            if self._left_folders:
                tidied = self._on_every_node(ray, _remove_node_folder, self._token)
                ray.wait(tidied, num_returns=len(tidied), timeout=_ALL_TIDY)

    def _fetch(self, ray: Any, ref: Any, asked: _Asked) -> Outcome | None:
        """The outcome of a task, with its runs in the runs folder; None where a lost need kept it back."""
        try:
            outcome, parcel = ray.get(ref)
            if parcel:
                unpack_runs(parcel, self._setting.place.runs, add=True)
        except Exception as error:
            is_rays = isinstance(error, ray.exceptions.RayError)
            if is_rays and any(_is_lost(ray, need) for need in asked.needs.values()):
                return None
            return Outcome(asked.job.key, reason=_sentence(error))
        found: Outcome = outcome
        return found

    def _left_of(self, ray: Any, needs: Mapping[str, Any]) -> dict[str, Any]:
        """Needs without those that are lost, unless they have been asked for again since."""
        return {
            key: self._made[key]
            for key, ref in needs.items()
            if self._made[key] is not ref or not _is_lost(ray, ref)
        }

    def _join(self, ray: Any) -> None:
        """Connect to the cluster that was asked for, or start one here that nobody else reaches."""
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = self._setting.address
        if not address:
            ray.init(
                address="local",
                num_cpus=self._setting.workers or core_count(),
                include_dashboard=False,
                object_store_memory=_STORE,
                _node_ip_address="127.0.0.1",  # Ray asks nobody who they are: no port of it on a network
                **quiet,
            )
            return
        if address != "auto":
            _check_address(address)
        try:
            ray.init(address=address, **quiet)
        except Exception as error:
            raise LabError(f"--address {address!r}: no Ray cluster there ({_first_line(error)}).") from None

    def _resources(self, ray: Any) -> dict[str, Any]:
        """What a task takes: a core, room for its model, and a share of a card where there are some."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        asked: dict[str, Any] = {"num_cpus": 1}
        need = self._setting.need
        # what no node has would be waited for without end
        if nodes and all(node.get("memory", 0) >= need for node in nodes):
            asked["memory"] = int(need)
        if self._setting.place.device != "cpu" and any(node.get("GPU", 0) for node in nodes):
            asked["num_gpus"] = min(1.0, max(0.01, round(need / _CARD, 2)))
        return asked

    def _is_shared(self, ray: Any) -> bool:
        """Whether every node sees the runs folder, by a token that lies in it."""
        refs = self._on_every_node(ray, _sees, str(self._setting.folder), self._token)
        try:
            return all(ray.get(refs, timeout=_ALL_LOOK))
        except ray.exceptions.RayError as error:
            raise LabError(
                f"A node of the Ray cluster cannot run the lab ({_first_line(error)}); install the same "
                f"version of lora-backdoor-lab on every node."
            ) from None

    def _on_every_node(self, ray: Any, function: Callable[..., Any], *words: str) -> list[Any]:
        """Call a function on each node that lives, whatever else it does; references of what it says."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = ray.remote(num_cpus=0)(function)
        places = [
            NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            for node in ray.nodes()
            if node["Alive"]
        ]
        return [task.options(scheduling_strategy=place).remote(*words) for place in places]


def _sees(folder: str, token: str) -> bool:
    """Whether this node sees a folder of the driver's."""
    try:
        return (Path(folder) / "token").read_text(encoding="utf-8") == token
    except OSError:
        return False


def _do(
    asked: dict[str, Any], runs: str, device: str, told: dict[str, Any], *needs: tuple[Outcome, bytes]
) -> tuple[Outcome, bytes]:
    """A task: do a job on this node; its outcome, and its runs where the driver does not see them.

    What fails is an outcome too: an exception would come to the driver as a traceback, and keep Ray from
    trying the jobs that need this one.
    """
    job = SweepJob(**asked)
    try:
        return _done(job, Path(runs), device, told, needs)
    except Exception as error:
        return Outcome(job.key, reason=_sentence(error)), b""


def _done(
    job: SweepJob, runs: Path, device: str, told: dict[str, Any], needs: Sequence[tuple[Outcome, bytes]]
) -> tuple[Outcome, bytes]:
    if "torch" not in sys.modules:  # a thread for each core that Ray gave, before torch is there
        for name in thread_variables():
            os.environ[name] = "1"
    from lab.train.kept_bases import are_kept, keep_bases

    if not are_kept():
        keep_bases()
    if told["shared"]:
        if not _sees(told["folder"], told["token"]):
            reason = f"The node {socket.gethostname()} does not see the runs folder {runs}."
            return Outcome(job.key, reason=reason), b""
        return do_job(job, Place(runs, device), lambda _: None), b""
    folder = _node_folder(told["token"])
    for _, parcel in needs:
        if parcel:
            unpack_runs(parcel, folder, add=True)
    outcome = do_job(job, Place(folder, device), lambda _: None)
    return outcome, _packed(folder, outcome.run)


def _node_folder(token: str) -> Path:
    """Where the jobs of a sweep work on this node, which its id tells: nodes share hosts, and hosts names."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return Path(tempfile.gettempdir()) / f"lab-runs-{token}-{node}"


def _remove_node_folder(token: str) -> None:
    shutil.rmtree(_node_folder(token), ignore_errors=True)


def _packed(runs: Path, run: str) -> bytes:
    """A run and what it rests on as an archive; nothing where there is none."""
    return pack_runs(with_what_they_rest_on([runs / run])) if run else b""


@dataclass(frozen=True)
class _Here:
    """What lies of a job in the driver's folder.

    Attributes:
        runs: Finished runs, its own first.
        is_done: Whether nothing is left to do.
    """

    runs: Sequence[str] = ()
    is_done: bool = False


def _lying_here(job: SweepJob, runs: Path) -> _Here:
    """What of a job is finished here: its own run, however it was probed, and the run that it starts from."""
    own, is_done, state = _standing(job, runs)
    if not own:  # its base may lack no more than its twin
        own, _, state = _standing(replace(job, twin=False), runs)
    if is_done:
        return _Here([own], is_done)
    return _Here([*([own] if state == "finished" else []), *_base(job, runs)])


def _standing(job: SweepJob, runs: Path) -> tuple[str, bool, str]:
    try:
        return job_standing(job, runs)
    except Exception:  # the job itself will say what is wrong
        return "", False, ""


def _base(job: SweepJob, runs: Path) -> list[str]:
    """The finished run that a job starts from, if any."""
    from lab.bases import base_run

    try:
        base = base_run(str(job.experiment["base"]["model"]), runs)
    except LabError:
        return []
    return [base.id] if base else []


def _is_lost(ray: Any, ref: Any) -> bool:
    """Whether a task ended without an outcome, after all that Ray did for it."""
    try:
        ray.get(ref, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return False
    except Exception:
        return True
    return False


def _sentence(error: Exception) -> str:
    """Why something failed; of a task's error, which prints as a traceback, what was raised in it."""
    from ray.exceptions import RayError, RayTaskError

    raised: Any = error
    while isinstance(raised, RayTaskError):
        raised = raised.cause
    if isinstance(raised, LabError):
        return str(raised)
    told = f"{type(raised).__name__}: {_first_line(raised)}"
    return f"Ray gave it up: {told}" if isinstance(error, RayError) else told


def _check_address(address: str) -> None:
    """Refuse an address where nobody answers, or somebody who is no Ray; Ray itself would wait for minutes.

    Raises:
        LabError: It is no HOST:PORT, or no cluster.
    """
    host, port = split_address(address)
    if host in ("localhost", "127.0.0.1", "::1"):  # Ray looks under this machine's own address instead
        from ray.util import get_node_ip_address

        host = get_node_ip_address()
    try:
        with socket.create_connection((host, port), timeout=_ANSWER) as link:
            link.sendall(_HELLO)
            answer = link.recv(9)
    except OSError as error:
        raise LabError(f"--address {address!r}: no Ray cluster answers there ({error}).") from None
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise LabError(f"--address {address!r}: what answers there is no Ray cluster.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
