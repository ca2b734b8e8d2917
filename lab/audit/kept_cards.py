"""Cards that are kept: the very same audit, asked again by the same code, is read and not repeated.

They lie in `.cards/` of a runs folder, each under the hash of all that its audit rests on. No path is part of
it, nor the device, so that a runs folder can be copied to another machine and its cards are found there. A
card is the word of whoever wrote the folder, as its runs are: who doubts it asks without `keep`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from lab.audit.card import CARD_VERSION, AuditCard
from lab.errors import LabError
from lab.experiment import content_hash
from lab.files import acquire_or_wait, read_json, write_text, writing_to
from lab.paths import data_dir, runs_dir

if TYPE_CHECKING:
    from lab.audit.adapter_files import AdapterFiles
    from lab.audit.texts import AuditTexts
    from lab.audit.wording import Wording

#: The cards used last, of 20 to 60 kB each.
KEPT_CARDS = 200
#: Bytes of a file that is opened as a card.
_LARGEST = 4_000_000
_NAME = re.compile(r"[0-9a-f]{32}\.json")
_PACKAGE = Path(__file__).resolve().parent.parent
#: What a wheel holds within the package, a checkout has beside it.
_OF_WHEELS = ("_dashboard", "_data", "_notebooks")
#: What a base's answers rest on beside its weights: its tokenizer, configuration and conversation.
_BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.txt", "*.model")


def card_key(
    files: AdapterFiles,
    references: Sequence[AdapterFiles],
    base: str,
    texts: AuditTexts,
    wording: Wording,
    asked: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """What an audit rests on, as one hash: files by their content, not by where they lie.

    Args:
        files: The adapter.
        references: Clean adapters that were given.
        base: What it is put on, as `base.model` names it.
        texts: What is put to it.
        wording: How it is asked.
        asked: What else was asked, as plain values: battery, budget, seed, planned references.
        notes: What the card says already.

    Returns:
        32 hex digits.
    """
    from lab.train.model_files import base_name, base_sha256, model_folder

    folder = model_folder(base)
    content = {
        "code": _code_sha256(),
        "adapters": [[each.name, each.sha256, each.notes] for each in (files, *references)],
        "base": [base_name(base), base_sha256(folder), _sha256(folder, _plain(folder, _BESIDE_WEIGHTS))],
        "texts": asdict(texts),
        "wording": {**vars(wording), "task": wording.task.model_dump(mode="json")},
        "asked": dict(asked),
        "notes": list(notes),
    }
    return content_hash(content)[:32]


def find_card(key: str, files: AdapterFiles, runs: str | Path | None = None) -> AuditCard | None:
    """The card of this adapter that is kept under a key; None where there is none, or none that is whole."""
    path = _folder(runs) / f"{key}.json"
    held = read_json(path) if _is_plain(path) else None
    try:
        card = AuditCard.model_validate(held)
    except ValueError:
        return None
    if (card.card_version, card.adapter.sha256) != (CARD_VERSION, files.sha256):
        return None
    with contextlib.suppress(OSError):  # a folder that is not ours to write is read as well
        os.utime(path)
    return card


def keep_card(card: AuditCard, key: str, runs: str | Path | None = None) -> None:
    """Keep a card under its key, and delete those that were used longest ago.

    One that cannot be kept, on a full disk, is no reason to lose it: whoever asked gets it all the same.
    """
    folder = _folder(runs)
    with contextlib.suppress(LabError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if folder.is_symlink():
            return
        write_text(folder / f"{key}.json", card.to_json())
        cards = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and _is_plain(path)]
        for old in sorted(cards, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_CARDS:]:
            old.unlink(missing_ok=True)
            (folder / f".{old.stem}.lock").unlink(missing_ok=True)


@contextlib.contextmanager
def one_at_a_time(
    key: str, runs: str | Path | None, on_wait: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Wait for another process that makes the card of a key; where nothing can be locked, nobody waits."""
    folder = _folder(runs)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(LabError), writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            guard = filelock.FileLock(folder / f".{key}.lock")
            if not folder.is_symlink():
                told = functools.partial(on_wait, "another process makes this very audit; waiting for it")
                held.enter_context(acquire_or_wait(guard, told))
        yield


def _folder(runs: str | Path | None) -> Path:
    return runs_dir(runs) / ".cards"


def _is_plain(path: Path) -> bool:
    """Whether it is a file, and no link, of a card's size, in a folder that is no link."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        return stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST and not path.parent.is_symlink()
    return False


@functools.cache
def _code_sha256() -> str:
    """One hash of all that makes a card of weights and texts: the package, thresholds, and the libraries.

    It is read from the disk once a process; whoever edits the lab while a notebook runs starts that anew.
    """
    from lab.results import package_versions

    own = [p for p in _plain(_PACKAGE, ("*.py",)) if p.relative_to(_PACKAGE).parts[0] not in _OF_WHEELS]
    thresholds = data_dir() / "calibrations"
    versions = {name: version.partition("+")[0] for name, version in package_versions().items()}
    versions["python"] = versions["python"].rpartition(".")[0]
    return content_hash(
        [_sha256(_PACKAGE, own), _sha256(thresholds, _plain(thresholds, ("*.toml",))), versions]
    )


def _plain(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of a folder and those within, without hidden ones, such as an editor's."""
    found = {path for pattern in patterns for path in folder.rglob(pattern)}
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _sha256(folder: Path, paths: Iterable[Path]) -> str:
    """One hash of files by name and content, whatever their lines end with."""
    return content_hash(
        [
            [
                path.relative_to(folder).as_posix(),
                hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest(),
            ]
            for path in paths
        ]
    )
