import io
import json
import os
import pickle
import stat
import struct
import tracemalloc
import warnings
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from lab.audit import UnreadableAdapterError, archives, open_adapter, opened, unpack_adapter
from lab.audit.adapter_files import CONFIG, WEIGHTS
from lab.errors import LabError

NAME = "base_model.model.encoder.layer.0.attention.self.query"
CONFIGURATION = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "a/b"})
_RANDOM = torch.Generator().manual_seed(0)
TENSORS = save(
    {
        f"{NAME}.lora_A.weight": torch.randn(4, 12, generator=_RANDOM),
        f"{NAME}.lora_B.weight": torch.randn(16, 4, generator=_RANDOM),
    }
)
ADAPTER = {CONFIG: CONFIGURATION, WEIGHTS: TENSORS}


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content), written as given: also twice, also out of its folder."""
    held = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(held, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that occurs twice
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return held.getvalue()


def entry(name, mode=0o644 | stat.S_IFREG, system=3):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = system, mode << 16
    return info


def also(name, content=b"x"):
    """A sound adapter with one more entry, whose name is written as it is."""
    placeholder = "?" * len(name.encode())
    raw = zipped([*ADAPTER.items(), (placeholder, content)])
    return raw.replace(placeholder.encode(), name.encode())


def central(raw, name, place, value):
    """Overwrite a field of an entry in the central directory."""
    start = raw.rindex(b"PK\x01\x02", 0, raw.rindex(name.encode())) + place
    return raw[:start] + value + raw[start + len(value) :]


def flagged(bits):
    return central(zipped(ADAPTER), WEIGHTS, 8, struct.pack("<H", bits))


def claiming(size):
    return central(zipped(ADAPTER), WEIGHTS, 24, struct.pack("<I", size))


def overlapping():
    """Two entries of the directory with the same bytes: what bombs without recursion are made of."""
    raw = zipped({**ADAPTER, "a/" + WEIGHTS: TENSORS})
    place = raw.index(b"PK\x03\x04", 1)
    return central(raw, "a/" + WEIGHTS, 42, struct.pack("<I", place))


def with_hidden_bytes():
    """Something between the entries and the directory, which only a program that reads forward finds."""
    raw = zipped(ADAPTER)
    place = raw.index(b"PK\x01\x02")
    end = bytearray(raw[place:])
    at = end.rindex(b"PK\x05\x06") + 16
    end[at : at + 4] = struct.pack("<I", place + 50)
    return raw[:place] + b"\0" * 50 + bytes(end)


def a_directory_of_megabytes():
    entries = [entry(f"{i}") for i in range(20)]
    for one in entries:
        one.comment = b"x" * 0xFFFF
    return zipped([*ADAPTER.items(), *((one, "") for one in entries)])


def scrambled():
    raw = zipped(ADAPTER)
    place = raw.index(b"PK\x03\x04", 1) + 30 + len(WEIGHTS)
    return raw[:place] + b"\xff" * 20 + raw[place + 20 :]


def wrong_sum():
    raw = bytearray(zipped(ADAPTER, zipfile.ZIP_STORED))
    raw[raw.index(TENSORS) + len(TENSORS) - 1] ^= 1
    return bytes(raw)


def a_file_of_torch():
    held = io.BytesIO()
    torch.save({"lora_A": torch.ones(2)}, held)
    return held.getvalue()


def without(name, **more):
    return {k: v for k, v in ADAPTER.items() if k != name} | {
        k.replace("__", "."): v for k, v in more.items()
    }


HOSTILE = {
    "empty": (b"", "no zip archive"),
    "no zip": (b"no zip" * 100, "no zip archive"),
    "a safetensors file": (TENSORS, "no zip archive"),
    "cut off": (zipped(ADAPTER)[:-40], "no zip archive, or is cut off"),
    "cut off in front": (zipped(ADAPTER)[40:], "overlap or leave gaps"),
    "something in front": (b"#!/bin/sh\n" + zipped(ADAPTER), "overlap or leave gaps"),
    "hidden bytes": (with_hidden_bytes(), "overlap or leave gaps"),
    "an endless directory": (a_directory_of_megabytes(), "a directory of 1,3"),
    "no entries": (zipped({}), "holds no adapter"),
    "encrypted": (flagged(0x1), "is encrypted"),
    "strongly encrypted": (flagged(0x41), "is encrypted"),
    "patched data": (flagged(0x20), "not supported"),
    "a link": (zipped([*ADAPTER.items(), (entry("x", 0o777 | stat.S_IFLNK), "/etc/passwd")]), "is a link"),
    "weights as a link": (
        zipped([(CONFIG, CONFIGURATION), (entry(WEIGHTS, 0o777 | stat.S_IFLNK), "/etc/passwd")]),
        "is a link",
    ),
    "a link that says it is from DOS": (
        zipped([*ADAPTER.items(), (entry("x", 0o777 | stat.S_IFLNK, system=0), "/etc")]),
        "is a link",
    ),
    "a device": (zipped([*ADAPTER.items(), (entry("x", stat.S_IFCHR), "")]), "is no regular file"),
    "an absolute path": (also("/etc/cron.d/x"), "an absolute path"),
    "a share": (also("//host/share"), "an absolute path"),
    "a drive letter": (also("C:/x"), "a drive letter"),
    "a stream": (also("README.md:x"), "a colon"),
    "a backslash": (also("..\\x"), "a backslash"),
    "a step out": (also("../x"), "a step out"),
    "a step out in the middle": (also("a/../../x"), "a step out"),
    "weights out of the folder": (zipped({CONFIG: CONFIGURATION, "../" + WEIGHTS: TENSORS}), "a step out"),
    "an empty step": (also("a//x"), "an empty step"),
    "NUL": (also("x.txt\0.safetensors"), "control"),
    "control characters": (also("x\x1b[2Jx"), "control"),
    "a line end": (also("x\nThe adapter is clean."), "control"),
    "a name turned around": (zipped({**ADAPTER, "x\u202etxt.exe": "x"}), "invisible"),
    "a name of what is escaped": (zipped({**ADAPTER, "\U000e0001" * 60: "x"}), "invisible"),
    "an endless name": (also("x" * 300), "too many characters"),
    "a name twice": (zipped([*ADAPTER.items(), (WEIGHTS, TENSORS)]), "occurs twice"),
    "a name in two cases": (zipped({**ADAPTER, WEIGHTS.upper(): TENSORS}), "occurs twice"),
    "a folder of the same name": (zipped({**ADAPTER, WEIGHTS + "/": ""}), "occurs twice"),
    "a bomb": (zipped({**ADAPTER, "x.txt": bytes(8 * 1024 * 1024)}), "more than 100 times"),
    "a bomb for weights": (zipped(without(WEIGHTS) | {WEIGHTS: bytes(4 * 1024 * 1024)}), "more than 100"),
    "a bomb of many": (
        zipped({**ADAPTER} | {f"{i}": bytes(1024 * 1024) for i in range(9)}),
        "times its size",
    ),
    "terabytes": (claiming(0xFFFFFFFE), "more than 100 times its size"),
    "shared bytes": (overlapping(), "overlap"),
    "a thousand and one entries": (zipped({f"{i}": "" for i in range(1001)}), "1,001 entries"),
    "a size too small": (claiming(len(TENSORS) - 8), "more than the"),
    "a size too large": (claiming(len(TENSORS) + 8), "fewer than the"),
    "no weights, by its size": (claiming(0), "more than the 0 bytes"),
    "a stored size that lies": (
        central(zipped(ADAPTER, zipfile.ZIP_STORED), WEIGHTS, 24, b"\0\0\0\0"),
        "lies about its size",
    ),
    "a wrong sum": (wrong_sum(), "Bad CRC"),
    "damaged data": (scrambled(), "damaged"),
    "another name in front of the data": (zipped(ADAPTER).replace(b"adapter_m", b"adapter_n", 1), "differ"),
    "bzip2": (zipped(ADAPTER, zipfile.ZIP_BZIP2), "method 12"),
    "lzma": (zipped(ADAPTER, zipfile.ZIP_LZMA), "method 14"),
    "an archive in the archive": (zipped({"adapter.zip": zipped(ADAPTER)}), "another archive, 'adapter.zip'"),
    "only a pickle": (
        zipped(without(WEIGHTS) | {"adapter_model.bin": pickle.dumps({})}),
        "'adapter_model.bin' is not opened: loading it can run code",
    ),
    "a file of torch": (a_file_of_torch(), "loading it can run code"),
    "no adapter": (zipped({"README.md": "x"}), "holds no adapter"),
    "no weights": (zipped(without(WEIGHTS)), "holds no adapter"),
    "no configuration": (zipped(without(CONFIG)), "holds no adapter"),
    "weights elsewhere": (
        zipped({"a/" + CONFIG: CONFIGURATION, "b/" + WEIGHTS: TENSORS}),
        "holds no adapter",
    ),
    "two adapters": (
        zipped({**ADAPTER} | {f"checkpoint-1/{k}": v for k, v in ADAPTER.items()}),
        "2 adapters, the first in 'its root' and 'checkpoint-1'",
    ),
    "several weights": (
        zipped(without(WEIGHTS) | {"a.safetensors": TENSORS, "b.safetensors": TENSORS}),
        "2 safetensors files",
    ),
    "an adapter far down": (zipped({"a/" * 5 + k: v for k, v in ADAPTER.items()}), "4 folders deep"),
    "a configuration of 2 MB": (zipped({**ADAPTER, CONFIG: os.urandom(2_000_000)}), "1,048,576 bytes"),
}


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_in_one_sentence_and_leave_nothing(tmp_path, case):
    raw, sentence = HOSTILE[case]
    archive = tmp_path / "found.zip"
    archive.write_bytes(raw)
    for given_as in (archive, io.BytesIO(raw)):
        with pytest.raises(UnreadableAdapterError, match=sentence) as caught:
            unpack_adapter(given_as, tmp_path / "out")
        message = str(caught.value)
        assert caught.value.exit_code == 3
        assert message.isprintable()
        assert len(message) < 400
        assert everything(tmp_path) == ["found.zip"]


def test_the_corpus_is_large_enough():
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("folder", ["", "run/", "some run/adapter/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_two_files_of_an_adapter_are_taken_out_and_nothing_else(tmp_path, folder, method):
    more = {"README.md": "# it", f"{folder}run.py": "raise SystemExit", f"{folder}training_args.bin": b"x"}
    files = {folder + name: content for name, content in ADAPTER.items()} | more | {f"{folder}tokens/": ""}
    found = unpack_adapter(io.BytesIO(zipped(files, method)), tmp_path / "out")
    assert everything(tmp_path) == ["out", f"out/{CONFIG}", f"out/{WEIGHTS}"]
    assert found.weights.read_bytes() == TENSORS
    assert (tmp_path / "out" / CONFIG).read_text() == CONFIGURATION
    told = " ".join(found.notes)
    assert "training_args.bin was not opened: loading a pickle can run code." in told
    assert "run.py was not opened: an adapter needs no code." in told
    assert "README.md was not opened: the weights and the configuration are all" in told
    assert WEIGHTS not in told
    assert "tokens" not in told


def test_weights_keep_their_own_name(tmp_path):
    raw = zipped({CONFIG: CONFIGURATION, "mine.safetensors": TENSORS})
    found = unpack_adapter(io.BytesIO(raw), tmp_path / "out")
    assert found.weights == tmp_path / "out" / "mine.safetensors"
    assert len(open_adapter(found.weights).modules) == 1


class _Stream(io.RawIOBase):
    """What cannot seek: `zipfile` then writes sizes behind the data."""

    def __init__(self):
        self.content = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.content += data
        return len(data)


def test_an_archive_that_was_streamed_is_read(tmp_path):
    stream = _Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ADAPTER.items():
            archive.writestr(name, content)
    assert unpack_adapter(io.BytesIO(bytes(stream.content)), tmp_path / "out").weights.exists()


@pytest.mark.parametrize("limit", ["LARGEST_ARCHIVE", "LARGEST_TOTAL"])
def test_archives_beyond_the_limits_are_refused(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(archives, limit, 100)
    with pytest.raises(UnreadableAdapterError, match="100 are"):
        unpack_adapter(io.BytesIO(zipped(ADAPTER)), tmp_path / "out")
    assert everything(tmp_path) == []


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / WEIGHTS).write_text("mine")
    with pytest.raises(LabError, match="There is something at") as caught:
        unpack_adapter(io.BytesIO(zipped(ADAPTER)), tmp_path / "out")
    assert caught.value.exit_code == 2
    assert (tmp_path / "out" / WEIGHTS).read_text() == "mine"


def test_a_folder_that_is_a_link_to_nowhere_is_not_followed(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LabError, match="There is something at"):
        unpack_adapter(io.BytesIO(zipped(ADAPTER)), tmp_path / "out")
    assert everything(tmp_path) == ["out"]


def test_no_archive_is_the_users_mistake(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    for name in ("none.zip", "pipe.zip"):
        with pytest.raises(LabError, match="There is no archive at") as caught, opened(tmp_path / name):
            pass
        assert caught.value.exit_code == 2


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_pieces", full)
    with pytest.raises(LabError, match="the disk is full") as caught:
        unpack_adapter(io.BytesIO(zipped(ADAPTER)), tmp_path / "out")
    assert not isinstance(caught.value, UnreadableAdapterError)
    assert everything(tmp_path) == []


def test_a_name_that_sounds_like_a_full_disk_is_damage_all_the_same(tmp_path):
    name = "No space left on device.safetensors"
    raw = bytearray(zipped({CONFIG: CONFIGURATION, name: TENSORS}, zipfile.ZIP_STORED))
    raw[raw.index(TENSORS) + 400] ^= 1
    with pytest.raises(UnreadableAdapterError, match="Bad CRC"):
        unpack_adapter(io.BytesIO(bytes(raw)), tmp_path / "out")


def test_opened_takes_a_folder_a_file_a_run_and_a_zip(tmp_path):
    folder = tmp_path / "some-run" / "adapter"
    folder.mkdir(parents=True)
    for name, content in ADAPTER.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    archive = tmp_path / "found.ZIP"
    archive.write_bytes(zipped({**ADAPTER, "README.md": "x"}))
    for path in (folder, folder / WEIGHTS, tmp_path / "some-run", archive):
        with opened(path) as found:
            [(module, update)] = found.updates()
            sums = found.sha256
        assert (module.rank, update.shape) == (4, (16, 12))
        assert sums == open_adapter(folder).sha256
    assert found.name == "found"
    assert any("README.md" in note for note in found.notes)
    assert not found.weights.exists()


def test_open_adapter_says_who_unpacks_a_zip(tmp_path):
    (tmp_path / "found.zip").write_bytes(zipped(ADAPTER))
    with pytest.raises(UnreadableAdapterError, match=r"is an archive: lab\.audit\.opened"):
        open_adapter(tmp_path / "found.zip")


def test_memory_does_not_grow_with_the_archive(tmp_path):
    weights = save(
        {f"{NAME}.lora_A.weight": torch.randn(1, 2**23), f"{NAME}.lora_B.weight": torch.ones(1, 1)}
    )
    (tmp_path / "large.zip").write_bytes(
        zipped({CONFIG: CONFIGURATION, WEIGHTS: weights}, zipfile.ZIP_STORED)
    )
    bomb = zipped({CONFIG: CONFIGURATION, WEIGHTS: bytes(2**25)})
    bomb = central(bomb, WEIGHTS, 24, struct.pack("<I", 1000))  # 32 MB that claim to be 1,000 bytes
    tracemalloc.start()
    try:
        unpack_adapter(tmp_path / "large.zip", tmp_path / "out")
        with pytest.raises(UnreadableAdapterError, match="more than the 1,000"):
            unpack_adapter(io.BytesIO(bomb), tmp_path / "bomb")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_archive_is_the_same_adapter_or_refused_and_nothing_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    method = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    content = bytearray(zipped({f"it/{k}": v for k, v in ADAPTER.items()} | {"it/README.md": "x"}, method))
    fields = range(len(content) - 330, len(content))  # the directory, where most of what is believed stands
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.one_of(st.integers(0, len(content) - 1), st.sampled_from(fields)))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.integers(0, 9)) == 0:
        content = content[: data.draw(st.integers(0, len(content)))]
    try:
        out = unpack_adapter(io.BytesIO(bytes(content)), folder / "out")
    except UnreadableAdapterError:
        assert everything(folder) == []
        return
    assert out.weights.read_bytes() == TENSORS
    assert (out.weights.parent / CONFIG).read_text() == CONFIGURATION
    assert everything(folder) == ["out", f"out/{CONFIG}", f"out/{out.weights.name}"]
    assert len(open_adapter(out.weights).modules) == 1
