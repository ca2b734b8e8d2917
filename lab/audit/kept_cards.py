"""Cards that are kept: the very same audit, asked again by the same code, is read and not repeated.

They lie in `.cards/` of a runs folder, each under the hash of all that its audit rests on. No path is part of
it, so that a runs folder can be copied to another machine and its cards are found there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.audit.card import AuditCard
from lab.errors import LabError
from lab.experiment import content_hash
from lab.files import read_json, write_text
from lab.paths import data_dir, runs_dir

if TYPE_CHECKING:
    from lab.audit.adapter_files import AdapterFiles
    from lab.audit.texts import AuditTexts
    from lab.audit.wording import Wording

#: The cards used last, of 20 to 60 kB each.
KEPT_CARDS = 200
_PACKAGE = Path(__file__).resolve().parent.parent


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
        asked: What else was asked, as plain values: battery, budget, seed, device, planned references.
        notes: What the card says already.
    """
    from lab.train.models import base_sha256, model_folder

    return content_hash(
        {
            "code": _code_sha256(),
            "adapters": [[each.name, each.sha256, each.notes] for each in (files, *references)],
            "base": [base, base_sha256(model_folder(base))],
            "texts": asdict(texts),
            "wording": {
                **{name: value for name, value in vars(wording).items() if name != "task"},
                "task": wording.task.model_dump(mode="json"),
            },
            "asked": dict(asked),
            "notes": list(notes),
        }
    )


def read_card(key: str, runs: str | Path | None = None) -> AuditCard | None:
    """The card kept under a key; None where there is none, or none that is whole."""
    path = _place(key, runs)
    held = read_json(path)
    if held is None:
        return None
    try:
        card = AuditCard.model_validate(held)
    except ValueError:
        return None
    with contextlib.suppress(OSError):  # somebody else's folder is read as well
        os.utime(path)
    return card


def kept_cards(runs: str | Path | None = None) -> Iterator[AuditCard]:
    """All whole cards that a runs folder keeps; nothing says that today's code would make them alike."""
    for path in sorted(_folder(runs).glob("*.json")):
        with contextlib.suppress(ValueError):
            yield AuditCard.model_validate(read_json(path))


def keep_card(card: AuditCard, key: str, runs: str | Path | None = None) -> None:
    """Keep a card under its key, and delete those that were used longest ago.

    A card that cannot be kept, on a full disk, is no reason to lose it: whoever asked gets it all the same.
    """
    path = _place(key, runs)
    with contextlib.suppress(LabError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, card.to_json())
        by_use = sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in by_use[KEPT_CARDS:]:
            old.unlink(missing_ok=True)


def _folder(runs: str | Path | None) -> Path:
    return runs_dir(runs) / ".cards"


def _place(key: str, runs: str | Path | None) -> Path:
    return _folder(runs) / f"{key[:32]}.json"


@cache
def _code_sha256() -> str:
    """One hash of all that makes a card of weights and texts: the package, thresholds, and the libraries."""
    from lab.results import package_versions

    whole = hashlib.sha256()
    sources = sorted(_PACKAGE.rglob("*.py")) + sorted((data_dir() / "calibrations").glob("*.toml"))
    for path in sources:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return content_hash([whole.hexdigest(), package_versions()])
