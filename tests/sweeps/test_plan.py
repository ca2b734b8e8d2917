"""Laws of a sweep's plan: every training once, needs first, bases together; nothing is loaded for it."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import Experiment
from lab.sweeps.grid import Cell, grid_cells
from lab.sweeps.plan import JOB_KINDS, plan_jobs
from lab.sweeps.schedule import Schedule

START = Experiment.from_dict(
    {
        "base": {"model": "tiny"},
        "data": {"name": "toy"},
        "poison": {"attack": "backdoor", "family": "rfc", "count": 12, "target_label": "positive"},
    }
)
CHOICES = {
    "poison.count": [4, 8],
    "adapter.rank": [1, 2],
    "defense": [[], [{"name": "scale", "factor": 0.5}], ["weight_decay"]],
    "base.model": ["tiny", "minilm"],
    "poison.attack": ["backdoor", "none"],
    "probe.rows": [10, 20],
}
GRIDS = (
    st.dictionaries(st.sampled_from(sorted(CHOICES)), st.just(None), max_size=3)
    .map(lambda keys: {key: CHOICES[key] for key in keys})
    .filter(lambda over: not {"poison.count", "poison.attack"} <= set(over))
)  # no poison has no count


def cells_of(over, seeds=(0, 1)):
    return grid_cells(START, over, {"": {}}, seeds)


@given(GRIDS, st.booleans())
def test_needs_come_before_their_users_and_every_job_is_there_once(over, twin):
    cells = cells_of(over)
    jobs, keys = plan_jobs(cells, twin=twin)
    names = [job.key for job in jobs]
    assert len(set(names)) == len(names)
    assert len(keys) == len(cells)
    assert set(keys) == {job.key for job in jobs if job.kind == "cell"}
    assert {job.kind for job in jobs} <= set(JOB_KINDS)
    for place, job in enumerate(jobs):
        assert set(job.needs) <= set(names[:place])


@given(GRIDS)
def test_a_twin_is_one_job_for_all_who_share_it(over):
    cells = cells_of(over)
    jobs, _ = plan_jobs(cells, twin=True)
    twins = [job for job in jobs if job.kind == "twin"]
    poisoned = [c.experiment for c in cells if c.experiment.attack != "none"]

    def weights(e):
        return e.twin().with_(**{"probe.rows": 10}).to_json()

    edited = [e.untouched() for e in poisoned if e.untouched() != e.model_copy(update={"name": ""})]
    assert len(twins) == len({weights(e) for e in [*poisoned, *edited]})
    assert not [j for j in plan_jobs(cells, twin=False)[0] if j.kind == "twin"]


@given(GRIDS, st.integers(1, 4), st.integers(0, 99))
def test_workers_do_every_job_once_and_never_stand_still_together(over, workers, seed):
    random = Random(seed)
    jobs, _ = plan_jobs(cells_of(over), twin=True)
    schedule, running, done = Schedule(jobs), [], []
    last = [""] * workers
    while not schedule.is_done:
        while len(running) < workers and (job := schedule.take(last[len(running)])) is not None:
            unmet = [key for key in job.needs if key not in done]
            assert set(unmet) <= {r.key for r in running if r.kind == "twin"}
            running.append(job)
        assert running, "somebody always has work"
        ended = running.pop(random.randrange(len(running)))
        if random.random() < 0.1 and ended.key not in done:
            schedule.give_back(ended.key)
            continue
        schedule.end(ended.key)
        done.append(ended.key)
        last = [ended.affinity] * workers
    assert sorted(done) == sorted(job.key for job in jobs)


def test_one_worker_goes_from_base_to_base_once():
    jobs, _ = plan_jobs(cells_of({"base.model": ["tiny", "minilm"], "adapter.rank": [1, 2]}), twin=True)
    schedule, order = Schedule(jobs), []
    while not schedule.is_done:
        job = schedule.take(order[-1] if order else "")
        order.append(job.affinity)
        schedule.end(job.key)
    changes = sum(a != b for a, b in pairwise(order))
    assert changes == len(set(order)) - 1


def test_an_edited_cell_waits_for_the_run_that_it_edits():
    over = {"defense": [[{"name": "scale", "factor": 0.5}], []]}
    jobs, (edited, plain) = plan_jobs(cells_of(over, seeds=[0]), twin=True)
    by_key = {job.key: job for job in jobs}
    kinds = [by_key[key].kind for key in by_key[edited].needs]
    assert kinds == ["parent", "twin"]
    assert by_key[edited].needs[0] in by_key[plain].needs, "the plain run is that parent"


def test_a_base_that_is_yet_to_be_run_is_a_job_of_its_own():
    cells = cells_of({"base.model": ["rfc-citation"], "adapter.rank": [1, 2]}, seeds=[0])
    jobs, keys = plan_jobs(cells, twin=False)
    bases = [job for job in jobs if job.kind == "base"]
    assert len(bases) == 1
    assert all(bases[0].key in job.needs for job in jobs if job.key in keys)


@pytest.mark.parametrize("twin", [True, False])
def test_equal_cells_are_one_job(twin):
    cell = Cell(START, {}, 0)
    jobs, keys = plan_jobs([cell, cell], twin=twin)
    assert keys[0] == keys[1]
    assert len(jobs) == 1 + twin
