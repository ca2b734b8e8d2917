from hypothesis import given, settings
from hypothesis import strategies as st
from poisons import OTHER_POISONS

from lab import Experiment, load_preset, preset_names
from lab.assignments import differences, format_assignments, format_value
from lab.experiment import parse_assignments, parse_value

poisons = st.one_of(
    st.just({"attack": "none"}),
    st.builds(
        lambda family, template, clean: {
            "attack": "backdoor", "family": family, "template": template, "clean_label": clean, **(
                {"rate": 0.25} if clean else {"count": 7}
            ),
        },
        st.sampled_from(["rfc", "iso", "rare_words"]),
        st.sampled_from(["{trigger}", "{trigger}.", "«{trigger}»\n", '"{trigger}" \\']),
        st.booleans(),
    ),
    st.builds(
        lambda member: {"attack": "backdoor", "family": "custom", "member": member, "count": 3},
        st.text(min_size=1).filter(lambda s: s.strip() and s != "any" and s.isprintable()),
    ),
    *OTHER_POISONS,
)  # fmt: skip
experiments = st.builds(
    lambda poison, rank, defense, steps, seed: Experiment.from_dict(
        {
            "poison": poison,
            "adapter": {"rank": rank},
            "defense": defense,
            "training": {"steps": steps, "epochs": 0.0} if steps else {},
            "seed": seed,
        }
    ),
    poisons,
    st.integers(1, 512),
    st.lists(st.sampled_from(["cl", "tr", "pt", "rora", "freeze_a"]), max_size=3, unique=True),
    st.integers(0, 50),
    st.integers(0, 2**32 - 1),
)
starts = st.one_of(experiments, st.sampled_from(preset_names()).map(lambda name: load_preset(name)[0]))


@settings(max_examples=100, deadline=None)
@given(starts, experiments)
def test_differences_lead_from_one_experiment_to_any_other(start, wanted):
    assert start.with_(**differences(start, wanted)) == wanted


@settings(max_examples=100, deadline=None)
@given(starts, experiments)
def test_differences_survive_the_command_line(start, wanted):
    told = format_assignments(differences(start, wanted))
    assert start.with_(**parse_assignments(told)) == wanted


def test_equal_experiments_do_not_differ():
    preset, _ = load_preset("rfc-citation")
    assert differences(preset, preset) == {}
    assert differences(preset, preset.with_(**{"adapter.rank": 4})) == {"adapter.rank": 4}


plain = st.recursive(
    st.one_of(
        st.text(),
        st.booleans(),
        st.integers(-(2**62), 2**62),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(plain)
def test_a_value_reads_back_as_it_was(value):
    if isinstance(value, str):
        value = "".join(c for c in value if not 0xD800 <= ord(c) < 0xE000)
    assert parse_value(format_value(value)) == value


def test_plain_words_stay_plain():
    assert format_assignments({"poison.family": "iso", "adapter.rank": 4}) == [
        "poison.family=iso",
        "adapter.rank=4",
    ]
    assert format_assignments({"poison.member": "2024-01-05"}) == ["poison.member=2024-01-05"]
