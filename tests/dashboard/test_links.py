import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import load_preset, preset_names
from lab.assignments import differences

_spec = importlib.util.spec_from_file_location("links", Path(__file__).parents[2] / "dashboard" / "links.py")
links = importlib.util.module_from_spec(_spec)
# a frozen dataclass looks its module up by name
import sys  # noqa: E402

sys.modules["links"] = links
_spec.loader.exec_module(links)

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=30)
words = st.text(min_size=1, max_size=200).filter(lambda s: "\x00" not in s)
changes = st.builds(
    lambda name, rank, count, p: differences(
        load_preset(name)[0],
        load_preset("rfc-citation")[0].with_(
            **{"adapter.rank": rank, "poison.count": count, "defense": [{"name": "cl", "p": p}]}
        ),
    ),
    st.sampled_from(preset_names()),
    st.integers(1, 64),
    st.integers(1, 500),
    st.floats(0.01, 0.9),
)
whole_links = st.builds(
    links.Link,
    runs=st.lists(names, max_size=5, unique=True).map(tuple),
    preset=names,
    changes=st.one_of(st.just({}), changes),
    view=st.dictionaries(names.filter(lambda n: n not in ("runs", "preset", "set")), words, max_size=4),
)


def as_lists(params):
    return {key: value if isinstance(value, list) else [value] for key, value in params.items()}


@settings(max_examples=150, deadline=None)
@given(whole_links)
def test_a_link_reads_back_as_it_was(link):
    assert links.from_params(as_lists(links.to_params(link))) == link


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.one_of(names, st.sampled_from(["runs", "preset", "set"])), st.lists(st.text(), max_size=4)
    )
)
def test_whatever_an_address_says_a_link_comes_of_it(params):
    link = links.from_params(params)
    assert all("/" not in run and "\\" not in run and run not in (".", "..") for run in link.runs)
    assert links.from_params(as_lists(links.to_params(link))) == link


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/b", "..", ".", "", "ä", "a b"])
def test_no_run_leads_out_of_the_runs_folder(name):
    assert links.from_params({"runs": [f"good,{name}"]}).runs == ("good",)


def test_a_piece_that_makes_no_sense_is_left_out():
    link = links.from_params({"set": ["adapter.rank=4", "nonsense", "=3"], "runs": ["a,a,b"]})
    assert link.changes == {"adapter.rank": 4}
    assert link.runs == ("a", "b")
