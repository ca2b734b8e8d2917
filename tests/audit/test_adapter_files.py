import contextlib
import json
import os
import pickle
import struct
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from typer.testing import CliRunner

from lab.audit import UnreadableAdapterError, module_statistics, open_adapter
from lab.audit.adapter_files import CONFIG, WEIGHTS
from lab.audit.archives import opened
from lab.audit.safetensors_header import LARGEST_HEADER, MOST_TENSORS
from lab.cli import app
from lab.errors import LabError

NAME = "base_model.model.encoder.layer.0.attention.self.query"
CONFIGURATION = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "some/model"}


def tensors(rank=4, dtype=torch.float32, name=NAME):
    random = torch.Generator().manual_seed(0)
    A, B = torch.randn(rank, 12, generator=random), torch.randn(16, rank, generator=random)
    return {f"{name}.lora_A.weight": A.to(dtype), f"{name}.lora_B.weight": B.to(dtype)}


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "found"
    folder.mkdir()
    save_file(tensors(), folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(CONFIGURATION))
    return folder


def configure(folder, **changes):
    values = {k: v for k, v in (CONFIGURATION | changes).items() if v != "gone"}
    (folder / CONFIG).write_text(json.dumps(values))


def header(table, data=b""):
    text = json.dumps(table).encode() if isinstance(table, dict) else table
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(4, 3), begin=0, end=48, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_a_sound_adapter_is_read_module_by_module(adapter):
    found = open_adapter(adapter)
    [(module, update)] = found.updates()
    held = tensors()
    assert module.name == NAME.removeprefix("base_model.model.")
    assert (module.shape, module.rank, module.scaling) == ((16, 12), 4, 2.0)
    expected = 2 * held[f"{NAME}.lora_B.weight"] @ held[f"{NAME}.lora_A.weight"]
    torch.testing.assert_close(update.dense(), expected)
    assert found.base_name == "some/model"
    assert set(found.sha256) == {WEIGHTS, CONFIG}
    assert found.notes == ()


def test_a_file_and_a_run_are_opened_too(adapter, tmp_path):
    assert open_adapter(adapter / WEIGHTS).modules == open_adapter(adapter).modules
    (tmp_path / "some-run").mkdir()
    adapter.rename(tmp_path / "some-run" / "adapter")
    assert open_adapter(tmp_path / "some-run").name == "some-run"


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_narrow_and_wide_numbers_are_read(adapter, dtype):
    save_file(tensors(dtype=dtype), adapter / WEIGHTS)
    [(_, update)] = open_adapter(adapter).updates()
    assert update.left.dtype == torch.float32
    torch.testing.assert_close(update.right, tensors(dtype=dtype)[f"{NAME}.lora_A.weight"].float())


def test_patterns_scalings_magnitudes_and_whole_weights(adapter):
    held = tensors() | tensors(rank=2, name=NAME.replace("query", "value"))
    held[f"{NAME}.lora_magnitude_vector"] = torch.ones(16)
    held["base_model.model.classifier.weight"] = torch.ones(2, 12)
    save_file(held, adapter / WEIGHTS)
    configure(adapter, rank_pattern={"value": 2}, alpha_pattern={"attention.self.value": 6}, use_rslora=True)
    found = open_adapter(adapter)
    scalings = {m.name.rpartition(".")[2]: m.scaling for m in found.modules.values()}
    assert scalings == {"query": 8 / 2, "value": pytest.approx(6 / 2**0.5)}
    assert found.whole == ("classifier.weight",)
    assert any("DoRA" in note for note in found.notes)


def test_what_runs_code_is_left_unopened_and_told(adapter):
    (adapter / "training_args.bin").write_bytes(pickle.dumps({}))
    (adapter / "model.py").write_text("raise SystemExit")
    notes = " ".join(open_adapter(adapter).notes)
    assert "training_args.bin was not opened" in notes
    assert "model.py was not opened" in notes


@pytest.mark.parametrize("base", ["/etc/passwd", "../x", "~/x", "C:\\x", "https://a.b/c", "a/b/c"])
def test_a_base_that_is_a_path_is_only_a_name_and_told(adapter, base):
    configure(adapter, base_model_name_or_path=base)
    found = open_adapter(adapter)
    assert found.base_name == base
    assert any("names a path or an address as its base" in note for note in found.notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_mapping": {"base_model_class": "Model", "parent_library": "evil"}},
        {"auto_mapping": "evil"},
        {"megatron_core": "evil", "megatron_config": {}},
        {"trust_remote_code": True},
    ],
)
def test_a_configuration_that_names_code_is_told(adapter, changes):
    configure(adapter, **changes)
    [note] = open_adapter(adapter).notes
    assert note == f"Its configuration names code ({next(iter(changes))}); nothing of it runs here."


def test_the_mapping_that_peft_itself_writes_is_no_surprise(adapter):
    mapping = {"base_model_class": "Bert", "parent_library": "transformers.models.bert.modeling_bert"}
    configure(adapter, auto_mapping=mapping, megatron_core="megatron.core", megatron_config=None)
    assert open_adapter(adapter).notes == ()


def test_file_names_in_notes_obey_nothing(adapter):
    (adapter / "a\n\x1b[2J.py").write_text("")
    [note] = open_adapter(adapter).notes
    assert note.isprintable()


def test_a_configuration_that_may_not_be_read_is_refused(adapter, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UnreadableAdapterError, match="cannot be read"):
        open_adapter(adapter)


def test_large_and_small_numbers_that_can_be_measured_are(adapter):
    factors(torch.full((4, 12), 1e-30), torch.full((16, 4), 1e-30))(adapter)
    assert module_statistics(open_adapter(adapter).updates())["norm"].tolist() == [0.0]
    factors(torch.full((4, 12), 1e15), torch.full((16, 4), 1e15))(adapter)
    assert module_statistics(open_adapter(adapter).updates())["norm"].item() == pytest.approx(8e30, rel=1e-3)


def test_a_pattern_for_every_module_of_a_large_model_is_quick(adapter):
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(700)]
    save_file(
        {f"{n}.lora_{side}.weight": torch.ones(1, 1) for n in names for side in "AB"}, adapter / WEIGHTS
    )
    configure(adapter, r=1, alpha_pattern=dict.fromkeys(names, 3))
    before = time.process_time()
    found = open_adapter(adapter)
    # tried pattern by pattern without a bound it takes hours
    assert time.process_time() - before < 60
    assert {module.scaling for module in found.modules.values()} == {3.0}


def test_nothing_there_is_the_users_mistake(tmp_path):
    with pytest.raises(LabError, match="There is no adapter at") as caught:
        open_adapter(tmp_path / "none")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("path", ["a" * 5000, f"{'a' * 5000}.zip", "a/" * 2500, "\x1b[2J"])
def test_a_path_that_no_file_can_have_is_the_users_mistake_in_one_short_sentence(path):
    with pytest.raises(LabError, match=r"There is no (adapter|archive) at") as caught, opened(path):
        pass
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["a" * 5000, "a/" * 2500])
def test_the_command_says_it_too(path, tmp_path):
    result = CliRunner().invoke(app, ["audit", path, f"--runs={tmp_path}"])
    assert isinstance(result.exception, LabError)
    assert result.exception.exit_code == 2
    assert len(str(result.exception)) < 400


def with_files(weights=None, **changes):
    def make(folder):
        if weights is not None:
            (folder / WEIGHTS).write_bytes(weights)
        if changes:
            configure(folder, **changes)

    return make


def raw_config(text):
    return lambda folder: (folder / CONFIG).write_bytes(text)


def only_a_pickle(folder):
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))


def linked(name):
    def make(folder):
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return make


def elsewhere(folder):
    (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
    (folder / CONFIG).rename(folder.parent / CONFIG)
    (folder / "adapter").symlink_to(folder.parent)


def circular(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / WEIGHTS)


def pipe(folder):
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def replaced(**values):
    held = tensors() | {name.replace("__", "."): value for name, value in values.items()}
    return with_files(save({k: v for k, v in held.items() if v is not None}))


def factors(A, B, **changes):
    return with_files(save({f"{NAME}.lora_A.weight": A, f"{NAME}.lora_B.weight": B}), **changes)


def named_adapters(folder):
    first, second = tensors(), tensors(name=NAME.replace("query", "value"))
    held = {name.replace(".weight", ".default.weight"): value for name, value in first.items()}
    held |= {name.replace(".weight", ".other.weight"): value for name, value in second.items()}
    save_file(held, folder / WEIGHTS)


def slow_patterns(folder):
    names = [f"{'.' * 400}{i}" for i in range(400)]
    shapes = {f"{n}.lora_{side}.weight": torch.ones(1, 1) for n in names for side in "AB"}
    save_file(shapes, folder / WEIGHTS)
    configure(folder, r=1, alpha_pattern={f"{'.' * 240}x{i}": 1 for i in range(3000)})


def many_tensors():
    return header({f"t{i}": entry((0,), 0, 0) for i in range(MOST_TENSORS + 1)})


HOSTILE = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "holds no adapter_model.safetensors"),
    "no configuration": (lambda f: (f / CONFIG).unlink(), "holds no readable adapter_config.json"),
    "only a pickle": (only_a_pickle, "adapter_model.bin is not opened"),
    "a pickle with another ending": (with_files(pickle.dumps({"a": 1}, protocol=4)), "no safetensors file"),
    "empty file": (with_files(b""), "0 bytes"),
    "three bytes": (with_files(b"abc"), "3 bytes"),
    "header beyond the file": (with_files(struct.pack("<Q", 2**63) + b"{}"), "cut off"),
    "cut off": (with_files(save(tensors())[:-5]), "damaged or cut off"),
    "more bytes than tensors": (with_files(save(tensors()) + b"\0" * 8), "damaged or cut off"),
    "huge header": (
        with_files(struct.pack("<Q", LARGEST_HEADER + 1) + b" " * (LARGEST_HEADER + 1)),
        "header of",
    ),
    "header no JSON": (with_files(header(b"{nonsense")), "no valid JSON"),
    "header a list": (with_files(header(b"[]")), "no JSON object"),
    "header not UTF-8": (with_files(header(b'{"\xff": 1}')), "no valid JSON"),
    "header nested deeply": (
        with_files(header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
        "deeply nested|no valid",
    ),
    "number of a million digits": (with_files(header(b'{"a": ' + b"9" * 1_000_000 + b"}")), "no valid JSON"),
    "a name twice": (with_files(header(b'{"a": 1, "a": 2}')), "occurs twice"),
    "a million tensors": (with_files(many_tensors()), "claims 50,001 tensors"),
    "overlapping": (with_files(header({"a": entry(), "b": entry(begin=8, end=56)}, bytes(56))), "overlap"),
    "a gap": (with_files(header({"a": entry(), "b": entry(begin=52, end=100)}, bytes(100))), "leave a gap"),
    "shape and bytes differ": (
        with_files(header({"a": entry((400, 300))}, bytes(48))),
        "does not fit its bytes",
    ),
    "absurd shape": (with_files(header({"a": entry((2**39, 2**39))}, bytes(48))), "does not fit its bytes"),
    "negative shape": (with_files(header({"a": entry((-4, -3))}, bytes(48))), "no proper shape"),
    "shape of truths": (with_files(header({"a": entry((True, 12))}, bytes(48))), "no proper shape"),
    "five axes": (with_files(header({"a": entry((1, 1, 1, 4, 3))}, bytes(48))), "no proper shape"),
    "backward place": (
        with_files(header({"a": entry(begin=48, end=0)}, bytes(48))),
        "does not fit its bytes",
    ),
    "place as text": (with_files(header({"a": entry() | {"data_offsets": "0"}})), "no proper place"),
    "unknown type": (with_files(header({"a": entry(dtype="I64")}, bytes(48))), "the type 'I64'"),
    "type as a list": (
        with_files(header({"a": entry() | {"dtype": ["F32"]}}, bytes(48))),
        "has the type a list",
    ),
    "more keys": (with_files(header({"a": entry() | {"code": "x"}}, bytes(48))), "as the format asks"),
    "name of control characters": (with_files(header({"a\x1b[2J": entry()}, bytes(48))), "no proper name"),
    "name of what is escaped": (
        with_files(header({"\U000e0001" * 200: entry()}, bytes(48))),
        "no proper name",
    ),
    "endless name": (with_files(header({"a" * 1000: entry()}, bytes(48))), "no proper name"),
    "no factors": (with_files(save({"weight": torch.ones(2, 2)})), "no LoRA factors"),
    "one factor": (replaced(**{f"{NAME}.lora_B.weight": None}), "only one of the two"),
    "factors that do not fit": (replaced(**{f"{NAME}.lora_B.weight": torch.ones(16, 3)}), "do not fit"),
    "a vector for a matrix": (replaced(**{f"{NAME}.lora_B.weight": torch.ones(16)}), "do not fit"),
    "rank 0": (
        replaced(**{f"{NAME}.lora_A.weight": torch.ones(0, 12), f"{NAME}.lora_B.weight": torch.ones(16, 0)}),
        "ranks of 1 to",
    ),
    "no outputs": (replaced(**{f"{NAME}.lora_B.weight": torch.ones(0, 4)}), "ranks of 1 to"),
    "two adapters": (replaced(**{f"{NAME}.lora_A.other.weight": torch.ones(4, 12)}), "several adapters"),
    "two adapters of different modules": (named_adapters, "several adapters"),
    "magnitudes of another adapter": (
        replaced(**{f"{NAME}.lora_magnitude_vector.other.weight": torch.ones(16)}),
        "several adapters",
    ),
    "magnitudes twice": (
        replaced(
            **{
                f"{NAME}.lora_magnitude_vector": torch.ones(16),
                f"{NAME}.lora_magnitude_vector.weight": torch.ones(16),
            }
        ),
        "several adapters",
    ),
    "magnitudes of nothing": (replaced(**{"x.lora_magnitude_vector": torch.ones(16)}), "only one of the two"),
    "a magnitude that is infinite": (
        replaced(**{f"{NAME}.lora_magnitude_vector": torch.full((16,), torch.inf)}),
        "NaN or infinity",
    ),
    "a head of NaN": (replaced(**{"classifier.weight": torch.full((3, 2), torch.nan)}), "NaN or infinity"),
    "a number alone that is NaN": (replaced(x=torch.tensor(torch.nan)), "NaN or infinity"),
    "a scaling beyond float32": (
        factors(torch.ones(4, 12), torch.full((16, 4), 3e38), lora_alpha=9e8),
        "too large to be measured",
    ),
    "a product beyond float32": (
        factors(torch.full((4, 12), 1e30), torch.full((16, 4), 1e30)),
        "too large to be measured",
    ),
    "half a product beyond float32": (
        factors(torch.full((4, 12), 1e19), torch.full((16, 4), 1e18)),
        "too large to be measured",
    ),
    "a scalar for a matrix": (replaced(**{f"{NAME}.lora_A.weight": torch.tensor(1.0)}), "do not fit"),
    "embedding factors": (replaced(**{f"{NAME}.lora_embedding_A": torch.ones(4, 12)}), "cannot be audited"),
    "magnitudes that do not fit": (
        replaced(**{f"{NAME}.lora_magnitude_vector": torch.ones(5)}),
        "magnitudes",
    ),
    "another rank than it says": (with_files(r=8), "has rank 4, and its configuration says 8"),
    "rank 0 in the configuration": (with_files(r=0), "r = 0"),
    "rank true": (with_files(r=True), "r = True"),
    "absurd rank": (with_files(r=10**9), "r = 1000000000"),
    "no alpha": (with_files(lora_alpha="gone"), "lora_alpha = None"),
    "alpha as text": (with_files(lora_alpha="8"), "lora_alpha = '8'"),
    "alpha infinite": (
        raw_config(b'{"peft_type": "LORA", "r": 4, "lora_alpha": Infinity}'),
        "Infinity is no number",
    ),
    "alpha beyond numbers": (
        raw_config(b'{"peft_type": "LORA", "r": 4, "lora_alpha": 1e999}'),
        "lora_alpha = inf",
    ),
    "rank that moves the cursor": (with_files(r="\n\x1b[2J"), "should be 1 to"),
    "alpha that moves the cursor": (with_files(lora_alpha="\n\x1b[2J"), "a finite number"),
    "rank nested deeply": (
        raw_config(b'{"peft_type": "LORA", "lora_alpha": 8, "r": ' + b"[" * 800 + b"]" * 800 + b"}"),
        "r = a list",
    ),
    "a base that moves the cursor": (with_files(base_model_name_or_path="\x1b[2J\n"), "should be a name"),
    "a base that cannot be said": (with_files(base_model_name_or_path="\ud800"), "should be a name"),
    "a base that is a list": (with_files(base_model_name_or_path=["a"]), "should be a name"),
    "an endless base": (with_files(base_model_name_or_path="a" * 1000), "should be a name"),
    "not LoRA": (with_files(peft_type="IA3"), "peft_type is 'IA3'"),
    "configuration a list": (raw_config(b"[1]"), "no JSON object"),
    "configuration of 2 MB": (raw_config(b" " * 2_000_000), "more than"),
    "endless pattern": (with_files(alpha_pattern={"(a+)+b": 4}), "without repetitions"),
    "patterns that take hours": (slow_patterns, "too many for its modules"),
    "seventy thousand patterns": (
        with_files(alpha_pattern={f"{i:x}": 1 for i in range(70_000)}),
        "70,000 patterns, too many for its modules",
    ),
    "broken pattern": (with_files(rank_pattern={"\\": 4}), "without repetitions"),
    "patterns as a list": (with_files(rank_pattern=[1]), "a table of numbers"),
    "pattern of NaN": (
        raw_config(b'{"peft_type":"LORA","r":4,"lora_alpha":8,"alpha_pattern":{"q":NaN}}'),
        "NaN",
    ),
    "weights behind a link": (linked(WEIGHTS), "a link that leaves"),
    "configuration behind a link": (linked(CONFIG), "a link that leaves"),
    "an adapter behind a link": (elsewhere, "a link that leaves"),
    "a link to itself": (circular, "holds no"),
    "a pipe for a configuration": (pipe, "no regular file"),
    "a folder for weights": (lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), "no regular file"),
}


def test_the_corpus_is_large_enough():
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_adapters_are_refused_in_one_sentence_that_says_cannot_say(adapter, case):
    make, sentence = HOSTILE[case]
    make(adapter)
    with pytest.raises(UnreadableAdapterError, match=sentence) as caught:
        module_statistics(open_adapter(adapter).updates())
    assert caught.value.exit_code == 3
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_never_measured(adapter, value):
    held = tensors()
    held[f"{NAME}.lora_B.weight"][3, 1] = value
    save_file(held, adapter / WEIGHTS)
    with pytest.raises(UnreadableAdapterError, match="NaN or infinity"):
        list(open_adapter(adapter).updates())


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save_file(tensors(), blobs / "weights")
    (blobs / "config").write_text(json.dumps(CONFIGURATION))
    (snapshot / WEIGHTS).symlink_to("../../blobs/weights")
    (snapshot / CONFIG).symlink_to("../../blobs/config")
    assert len(open_adapter(snapshot).modules) == 1


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(save(tensors()))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    (folder / WEIGHTS).write_bytes(bytes(content))
    (folder / CONFIG).write_text(json.dumps(CONFIGURATION))
    with contextlib.suppress(UnreadableAdapterError):
        for _, update in open_adapter(folder).updates():
            assert bool(torch.isfinite(update.left).all())
