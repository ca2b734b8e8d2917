import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lab import Experiment, LabError, list_runs, run_index
from lab.run_index import RunIndex
from lab.store import RunFolder

NAMES = st.sampled_from(["a-1", "b-2", "c-3", "d-4"])


def create(runs, name, rank=8, created=1.0):
    asked = Experiment().with_(**{"adapter.rank": rank}).to_dict()
    RunFolder(runs / name).create({"schema": 1, "created": created, "experiment": asked})
    return runs / name


def finish(folder, value=0.9, kind="clean_accuracy"):
    rates = {kind: {"value": value, "k": 1, "n": 2, "low": 0.0, "high": 1.0}}
    text = json.dumps({"twin": "t", "measures": {"test": {"poisoned": rates}}})
    (folder / "result.json").write_text(text)


def same(index):
    pd.testing.assert_frame_equal(index.table(), list_runs(index.runs))


def age(runs):
    """Let every file look old, so that the index has to go by its stamps."""
    for path in runs.rglob("*.json"):
        os.utime(path, (1000, 1000))


class Folder(RuleBasedStateMachine):
    """Whatever happens to a runs folder, the index is what a full listing is."""

    def __init__(self):
        super().__init__()
        self.runs = Path(tempfile.mkdtemp())
        self.index, self.held = RunIndex(self.runs), {}

    def teardown(self):
        for name in list(self.held):
            self.held.pop(name).__exit__(None, None, None)
        shutil.rmtree(self.runs)

    def there(self, name):
        return (self.runs / name).is_dir()

    @rule(name=NAMES, rank=st.integers(1, 3), created=st.sampled_from([1.0, 2.0]))
    def creates(self, name, rank, created):
        with contextlib.suppress(LabError):  # a damaged one is not written over
            create(self.runs, name, rank, created)

    @rule(name=NAMES, value=st.sampled_from([0.1, 0.2]), kind=st.sampled_from(["clean_accuracy", "x"]))
    def finishes(self, name, value, kind):
        if self.there(name):
            finish(self.runs / name, value, kind)

    @rule(name=NAMES, mark=st.sampled_from(["stop", "failure.json", "events.jsonl", ".lock"]))
    def marks(self, name, mark):
        if self.there(name):
            (self.runs / name / mark).touch()

    @rule(
        name=NAMES,
        file=st.sampled_from(["result.json", "experiment.json"]),
        text=st.sampled_from(["{", "{}"]),
    )
    def damages(self, name, file, text):
        if self.there(name):
            (self.runs / name / file).write_text(text)

    @rule(name=NAMES, file=st.sampled_from(["result.json", "stop", "failure.json", "experiment.json"]))
    def loses(self, name, file):
        if self.there(name):
            (self.runs / name / file).unlink(missing_ok=True)

    @rule(name=NAMES)
    def is_deleted(self, name):
        if self.there(name) and name not in self.held:
            shutil.rmtree(self.runs / name)

    @rule(name=NAMES)
    def is_worked_on(self, name):
        if self.there(name) and name not in self.held:
            self.held[name] = RunFolder(self.runs / name).lock()
            self.held[name].__enter__()

    @rule(name=NAMES)
    def is_let_go(self, name):
        if name in self.held:
            self.held.pop(name).__exit__(None, None, None)

    @rule()
    def time_passes(self):
        self.index.table()
        age(self.runs)

    @invariant()
    def is_as_listed(self):
        same(self.index)


Folder.TestCase.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestFolder = Folder.TestCase


def test_no_folder_one_run_and_strangers(tmp_path):
    index = RunIndex(tmp_path / "runs")
    same(index)
    folder = create(tmp_path / "runs", "a-1")
    (tmp_path / "runs" / "stranger").mkdir()
    (tmp_path / "runs" / ".queue").mkdir()
    (tmp_path / "runs" / "odd" / "experiment.json").mkdir(parents=True)
    same(index)
    finish(folder)
    same(index)
    assert index.table()["state"].tolist() == ["finished"]
    changed = index.table()
    changed.loc[0, "state"] = "changed"
    same(index)
    shutil.rmtree(tmp_path / "runs")
    same(index)


@pytest.fixture
def read(monkeypatch):
    """Counts which runs are read."""
    counted, line = Counter(), run_index.listing_line
    monkeypatch.setattr(run_index, "listing_line", lambda f: (counted.update([f.id]), line(f))[1])
    return counted


def test_only_what_changed_is_read_again(tmp_path, read):
    for i in range(30):
        finish(create(tmp_path, f"r-{i:02}"))
    create(tmp_path, "s-99")
    age(tmp_path)
    index = RunIndex(tmp_path)
    index.table()
    assert len(read) == 31
    read.clear()
    index.table()
    assert not read
    finish(tmp_path / "r-07", value=0.5)
    os.utime(tmp_path / "r-07" / "result.json", (2000, 2000))
    (tmp_path / "s-99" / "stop").touch()
    same(index)
    assert read == {"r-07": 1, "s-99": 1}


def test_a_file_written_twice_within_one_tick_is_seen(tmp_path):
    folder = create(tmp_path, "a-1")
    finish(folder, 0.1)
    index = RunIndex(tmp_path)
    index.table()
    stamp = (folder / "result.json").stat()
    finish(folder, 0.2)  # of the same size, and in the same place
    os.utime(folder / "result.json", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    same(index)


def test_a_run_that_another_process_works_on_is_running_until_it_dies(tmp_path):
    folder = create(tmp_path, "a-1")
    (folder / "events.jsonl").touch()
    index = RunIndex(tmp_path)
    age(tmp_path)
    code = (
        "import time; from pathlib import Path; from lab.store import RunFolder\n"
        f"with RunFolder(Path({str(folder)!r})).lock():\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    assert index.table()["state"].tolist() == ["running"]
    holder.kill()
    holder.wait()
    assert index.table()["state"].tolist() == ["killed"]


def test_threads_share_it(tmp_path):
    for i in range(20):
        finish(create(tmp_path, f"r-{i:02}"))
    index, wrong = RunIndex(tmp_path), []

    def ask():
        try:
            for _ in range(20):
                assert len(index.table()) >= 20
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for i in range(20, 30):
        create(tmp_path, f"r-{i:02}")
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    assert not wrong
    same(index)


def test_those_who_wait_share_one_look(tmp_path, monkeypatch):
    looks, refresh = [], RunIndex._refresh

    def slow(self):
        looks.append(1)
        time.sleep(0.1)
        refresh(self)

    monkeypatch.setattr(RunIndex, "_refresh", slow)
    index = RunIndex(tmp_path)
    threads = [threading.Thread(target=index.table) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looks) <= 3


def test_while_it_rests_a_table_is_given_from_memory_until_it_is_told_to_look_again(tmp_path):
    finish(create(tmp_path, "a-1"))
    index = RunIndex(tmp_path, rest=1e9)
    assert index.table()["id"].tolist() == ["a-1"]
    finish(create(tmp_path, "b-2"))
    assert index.table()["id"].tolist() == ["a-1"]
    index.look_again()
    same(index)
    assert len(index.table()) == 2
