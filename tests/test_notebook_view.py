import subprocess
import sys
from types import SimpleNamespace

import pytest

from lab import LabError, preset_names
from lab.notebook_view import NotebookView
from lab.presets import load_preset
from lab.record import Run
from lab.showing import in_notebook, showing
from lab.store import RunFolder


@pytest.fixture
def drawn(monkeypatch):
    """What a notebook would have shown, in order."""
    seen = []

    def show(thing, **_):
        seen.append(thing._repr_html_())
        return SimpleNamespace(update=lambda thing: seen.append(thing._repr_html_()))

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=show))
    return seen


def events(view, *, done):
    view({"kind": "status", "stage": "prepare", "step": -1})
    view({"kind": "status", "stage": "prepared", "step": -1, "run": "a", "finished": done})
    if not done:
        view({"kind": "status", "stage": "train", "step": -1, "run": "a<b>"})
        for k in range(1, 4):
            view({"kind": "progress", "stage": "train", "done": k, "total": 4, "step": k})


def test_a_training_has_a_bar_and_leaves_its_lines(drawn):
    with NotebookView() as view:
        events(view, done=False)
        assert '<progress value="' in view._repr_html_()
    assert "training a&lt;b&gt;" in drawn[-1]
    assert "<progress" not in drawn[-1]
    assert "a<b>" not in "".join(drawn)


def test_a_run_that_is_only_read_draws_nothing(drawn):
    with NotebookView() as view:
        events(view, done=True)
    assert drawn == []


def test_an_interrupted_training_says_how_to_go_on(drawn):
    def interrupted():
        with NotebookView() as view:
            events(view, done=False)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "run the cell again" in drawn[-1]


def test_who_listens_where_nobody_was_named(monkeypatch):
    heard = []
    with showing(heard.append) as listen:
        listen({"kind": "x"})
    assert heard == [{"kind": "x"}]
    assert not in_notebook()
    with showing(None) as listen:  # neither a notebook nor a terminal
        assert not isinstance(listen, NotebookView)
    monkeypatch.setattr("lab.showing.in_notebook", lambda: True)
    with showing(None) as listen:
        assert isinstance(listen, NotebookView)
    monkeypatch.setenv("LAB_QUIET", "1")
    with showing(None) as listen:
        assert not isinstance(listen, NotebookView)


@pytest.mark.parametrize("name", preset_names())
def test_dotted_keys_say_the_whole_experiment(name):
    experiment = load_preset(name)[0]
    assert experiment.with_(**experiment.dotted()) == experiment
    assert {*experiment.dotted()} == {*experiment._ipython_key_completions_()}
    assert experiment["adapter.rank"] == experiment.adapter.rank
    with pytest.raises(LabError, match=r"Did you mean 'adapter.rank'"):
        experiment["adapter.rnk"]


def test_an_experiment_shows_what_was_changed_as_text():
    shown = load_preset("rfc-citation")[0].with_(name="<b>")._repr_html_()
    assert "RFC 2616" in shown
    assert "<b>" not in shown


def test_an_unfinished_run_shows_itself(tmp_path, tiny):
    folder = RunFolder(tmp_path / "half-0123456789")
    folder.create({"schema": 1, "labels": ["a"], "experiment": tiny.to_dict()})
    assert "queued" in Run(folder.path)._repr_html_()


def test_a_finished_run_shows_its_rates_with_n(finished):
    shown = finished._repr_html_()
    for part in (finished.id, "attack success rate", "clean twin", "n = "):
        assert part in shown


COMPLETION = """
import lab
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell(user_ns={"exp": lab.load_experiment("rfc-citation")})
print(shell.Completer.complete(line_buffer='exp["adapter.r')[1])
"""


def test_jupyter_completes_figures_and_keys(finished):
    pytest.importorskip("IPython")
    assert "training_curves" in dir(finished.figure)
    # in a process of its own: other tests have shells too, and IPython shares what completes
    said = subprocess.run([sys.executable, "-c", COMPLETION], capture_output=True, text=True, check=True)
    assert "adapter.rank" in said.stdout


def test_every_key_that_completes_is_documented():
    experiment = load_preset("rfc-citation")[0]
    told = {key: experiment.help_on(key) for key in experiment._ipython_key_completions_()}
    assert told["adapter.rank"] == "rank r of B·A"
    # these say it by their names
    assert {key for key, text in told.items() if not text} <= {"name", "poison.attack", "seed", "defense"}
    for part in (experiment.base, experiment.adapter, experiment.training, experiment.poison):
        for name, field in type(part).model_fields.items():
            assert not field.description or f"{name}: {field.description.rstrip('.')}" in type(part).__doc__
    with pytest.raises(LabError, match=r"Did you mean 'adapter.rank'"):
        experiment.help_on("adapter.rnk")
    assert "rank r of B·A" in experiment.with_(**{"adapter.rank": 3})._repr_html_()
