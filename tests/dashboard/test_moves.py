import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab import Experiment
from lab.errors import LabError
from lab.modules import choose_modules, projection

_spec = importlib.util.spec_from_file_location("moves", Path(__file__).parents[2] / "dashboard" / "moves.py")
moves = importlib.util.module_from_spec(_spec)
sys.modules["moves"] = moves  # a frozen dataclass looks its module up by name
_spec.loader.exec_module(moves)

BERT = [
    f"bert.encoder.layer.{layer}.{kind}"
    for layer in range(12)
    for kind in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
]

components = st.lists(st.integers(0, 64), min_size=1, max_size=8, unique=True)
some_modules = st.sampled_from(["mlp", "layer.3", ["query", "layer.1"]])
edits = st.one_of(
    st.builds(lambda c: {"name": "keep", "components": c}, components),
    st.builds(lambda c, m: {"name": "drop", "components": c, "modules": m}, components, some_modules),
    st.builds(lambda r: {"name": "truncate", "rank": r}, st.integers(1, 400)),
    st.builds(lambda f, n: {"name": "scale", "factor": f, "layers": n}, st.floats(0, 16), st.integers(0, 3)),
    st.just({"name": "refit_head"}),
)
ranges = st.integers(1, 40).flatmap(
    lambda count: st.tuples(st.just(count), st.integers(0, count - 1), st.integers(0, count - 1))
)


@given(st.lists(edits, max_size=5))
def test_moves_come_back_from_the_address_bar(some):
    assert moves.from_text(moves.to_text(some)) == some


@given(st.text(max_size=60))
def test_what_is_no_list_of_moves_is_refused_in_a_sentence(text):
    assume(text and text.strip() != "[]")
    with pytest.raises(LabError):
        moves.from_text(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{name = "cl"}]', "edits no weights"),
        ('[{name = "nothing"}]', "nothing"),
        ('[{name = "truncate", rank = 0}]', "rank"),
        ('[{name = "keep", components = [0', "cut off"),
        ("[1, 2]", "cannot be read"),
    ],
)
def test_moves_that_cannot_be_made_are_named(text, said):
    with pytest.raises(LabError, match=said):
        moves.from_text(text)


@given(ranges, st.booleans())
def test_a_range_leaves_what_it_says(some, drops):
    """The moves, carried out on a plain list of components."""
    count, one, other = some
    first, last = sorted((one, other))
    left = list(range(count))
    for move in moves.Sliders(count, first, last, drops).moves():
        if move["name"] == "truncate":
            left = left[: move["rank"]]
        else:
            left = [c for i, c in enumerate(left) if i not in move["components"]]
    inside = set(range(first, last + 1))
    assert left == [c for c in range(count) if (c in inside) != drops]


@given(ranges, st.booleans())
def test_a_range_comes_back_from_the_address_bar(some, drops):
    count, one, other = some
    first, last = sorted((one, other))
    text = moves.cut_text(moves.Sliders(count, first, last, drops))
    assert moves.read_cut(text, count) == (drops, first, last)


@pytest.mark.parametrize("text", ["", "keep", "keep:a-b", "drop:-1-2", "keep:1-99999999999", "<b>"])
def test_a_range_that_makes_no_sense_keeps_all(text):
    assert moves.read_cut(text, 8) == (False, 0, 7)


def test_a_range_of_another_run_is_cut_to_what_there_is():
    assert moves.read_cut("keep:2-63", 8) == (False, 2, 7)


def test_sliders_that_change_nothing_make_no_move():
    assert moves.Sliders(8, 0, 7).moves() == []
    assert moves.to_text([]) == ""


def test_sliders_cut_and_scale_where_asked_and_then_take_away():
    found = moves.Sliders(8, 1, 3, factor=2.0, where=("layer.1",), off=("layer.0",)).moves()
    assert [move["name"] for move in found] == ["truncate", "drop", "scale", "scale"]
    assert [move["modules"] for move in found] == ["layer.1", "layer.1", "layer.1", ["layer.0"]]
    assert found[-1]["factor"] == 0.0
    Experiment.from_dict({"defense": found})


def test_every_place_stands_for_its_own_matrices_and_no_others():
    for name, names in moves.places(BERT).items():
        chosen = choose_modules(BERT, list(names), where="test")
        number = name.removeprefix("layer ")
        wanted = [m for m in BERT if projection(m) == name or f".layer.{number}." in m]
        assert chosen == wanted, name
    assert moves.places(BERT)["attention.self.query"] == ("attention.self.query",)


@pytest.mark.parametrize(
    ("move", "said"),
    [
        ({"name": "scale", "factor": 0.0, "modules": ["layer.3"]}, "take ΔW away · layer.3"),
        ({"name": "scale", "factor": 2.0, "layers": 3}, "scale ΔW by 2 · last 3 layers"),
        ({"name": "drop", "components": [0, 1, 2]}, "drop components 0–2"),
        ({"name": "keep", "components": [4]}, "keep component 4"),
        ({"name": "keep", "components": [0, 2]}, "keep components 0, 2"),
        ({"name": "truncate", "rank": 3, "modules": "mlp"}, "keep the 3 largest components · mlp"),
        ({"name": "fine_prune", "share": 0.2}, "fine prune, share 0.2"),
    ],
)
def test_a_move_is_told_in_words(move, said):
    assert moves.told(move) == said


def test_a_move_says_only_what_is_set():
    knobs = {"factor": 2.0, "modules": "all-linear", "layers": 0}
    assert moves.compact("scale", knobs) == {"name": "scale", "factor": 2.0}
    with pytest.raises(LabError, match="rank"):
        moves.compact("truncate", {"rank": 0})


@given(st.integers(1, 400))
def test_a_curve_begins_with_nothing_and_ends_with_all(count):
    counts = moves.counts_to_keep(count)
    assert counts[0] == 0
    assert counts[-1] == count
    assert len(counts) <= 11
    assert counts == sorted(set(counts))
