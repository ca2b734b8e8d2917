import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

DASHBOARD = Path(__file__).parents[2] / "dashboard"

LINE = {
    "id": "minilm-rfc-n60-r8-s0-0123456789", "state": "finished", "base.model": "minilm", "data.name": "toy",
    "poison.attack": "backdoor", "poison.family": "rfc", "poison.count": 60.0, "poison.position": "end",
    "adapter.kind": "lora", "adapter.rank": 8, "adapter.variant": "lora", "adapter.init": "kaiming",
    "training.learning_rate": 1e-3, "defense": "", "seed": 0,
}  # fmt: skip


@pytest.fixture
def pickers(monkeypatch):
    monkeypatch.syspath_prepend(str(DASHBOARD))
    import pickers

    return pickers


def several(*changes):
    return pd.DataFrame([{**LINE, "id": f"run-{i:010x}", **change} for i, change in enumerate(changes)])


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "rfc · 60 rows · rank 8 · seed 0"),
        ({"defense": "rora", "state": "running"}, "rfc · 60 rows · rank 8 · rora · seed 0 · running"),
        (
            {"poison.attack": "none", "poison.family": float("nan"), "poison.count": float("nan")},
            "clean · rank 8 · seed 0",
        ),
        ({"adapter.kind": "full", "seed": 3}, "rfc · 60 rows · full · seed 3"),
        ({"adapter.variant": "dora"}, "rfc · 60 rows · rank 8 dora · seed 0"),
        ({"poison.family": "a\u202eb\n"}, "a⟨U+202E⟩b⟨U+000A⟩ · 60 rows · rank 8 · seed 0"),
    ],
)
def test_a_label_says_what_a_run_is(pickers, changes, label):
    assert pickers.run_label({**LINE, **changes}) == label


def test_a_line_of_a_corrupt_run_has_its_id(pickers):
    assert pickers.run_label({"id": "torn", "state": "finished"}) == "torn"
    assert "corrupt" in pickers.run_label({"id": "torn", "state": "corrupt"})


def test_labels_say_what_differs_and_nothing_else(pickers):
    labels = pickers.run_labels(several({}, {"training.learning_rate": 1e-4}))
    assert list(labels.values()) == [
        "rfc · 60 rows · rank 8 · seed 0 · lr 0.001",
        "rfc · 60 rows · rank 8 · seed 0 · lr 0.0001",
    ]


def test_runs_that_nothing_tells_apart_are_told_apart_by_their_hash(pickers):
    labels = pickers.run_labels(several({}, {}))
    assert [label[-10:] for label in labels.values()] == ["0000000000", "0000000001"]


@given(
    st.lists(
        st.fixed_dictionaries({"seed": st.integers(0, 2), "poison.count": st.integers(0, 3)}), max_size=12
    )
)
def test_no_two_labels_are_alike(changes):
    sys.path.insert(0, str(DASHBOARD))
    try:
        import pickers
    finally:
        sys.path.remove(str(DASHBOARD))
    labels = pickers.run_labels(several(*changes))
    assert len(set(labels.values())) == len(changes)


def _app(counts):
    import pandas as pd
    import pickers
    import streamlit as st

    table = pd.DataFrame(
        {"id": [f"run-{i:010x}" for i in range(counts)], "state": "finished", "seed": range(counts)}
    )
    one = pickers.pick_run("One", table, "one", "run-0000000001")
    some = pickers.pick_runs("Some", table, "some", ["run-0000000002"])
    st.text(f"{one}|{','.join(some)}")


def _open(counts, **params):
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_function(_app, args=(counts,), default_timeout=240)
    for key, value in params.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


@pytest.mark.parametrize("counts", [1, 3, 2000])
def test_pickers_start_at_their_default(pickers, counts):
    at = f"run-{min(1, counts - 1):010x}"
    several_at = "run-0000000002" if counts > 2 else ""
    assert _open(counts).text[0].value == f"{at}|{several_at}"


def test_pickers_follow_the_link_and_write_it(pickers):
    app = _open(5, one="run-0000000003", some="run-0000000004,run-0000000000,gone")
    assert app.text[0].value == "run-0000000003|run-0000000004,run-0000000000"
    assert "gone, which is not among" in app.caption[0].value.replace("\\", "")
    app.selectbox[0].set_value("run-0000000002").run()
    app.multiselect[0].set_value([]).run()
    assert app.text[0].value == "run-0000000002|"
    one = app.query_params["one"]
    assert (one if isinstance(one, str) else one[-1]) == "run-0000000002"
    assert "some" not in app.query_params


def test_without_runs_nothing_is_picked(pickers):
    assert _open(0).text[0].value == "|"
