"""Sealed adapters: weights without a trace of how they came to be, and the key that says it, apart.

    <folder>/adapters/<random id>/     adapter_config.json, adapter_model.safetensors, README.md
    <folder>-key/key.json              what each of them is

Whoever judges a detector gives it the folder and keeps the key. Adapters of one rank have files of equal
names, sizes, times, configurations and cards; what tells them apart is in their weights.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from lab.errors import LabError
from lab.files import read_json, write_json, write_text, writing_to

KEY_SCHEMA = 1
WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "README.md"
#: The time that every sealed file bears: 1980, the first year that archives can hold.
SEALED_TIME = 315_532_800
_CHOOSE = "another folder with --folder"


def key_path(folder: Path) -> Path:
    """Where the key of a folder of sealed adapters lies: beside the folder, not in it."""
    return folder.with_name(f"{folder.name}-key") / "key.json"


def sealed_folder(folder: Path, adapter: str) -> Path:
    """Where one sealed adapter of a cohort's folder lies."""
    return folder / "adapters" / adapter


def seal_adapter(source: Path, target: Path, card: str) -> None:
    """Copy an adapter under a name that says nothing; a folder that is there already is left as it is.

    Args:
        source: A folder that peft saved: configuration and safetensors.
        target: The sealed adapter's folder; appears as a whole or not at all.
        card: The model card, the same for all.

    Raises:
        LabError: `source` holds no adapter, or `target` cannot be written.
    """
    if target.is_dir():
        return
    if not (source / CONFIG).is_file() or not (source / WEIGHTS).is_file():
        raise LabError(f"{source} holds no adapter to seal; cohorts are of adapter.kind = 'lora'.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with writing_to(target.parent, choose=_CHOOSE):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _copy_weights(source / WEIGHTS, temporary / WEIGHTS)
        config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
        write_text(temporary / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
        write_text(temporary / CARD, card)
        _make_alike([*temporary.iterdir(), temporary])
        try:
            os.replace(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
            # another process was faster; its files are the same
        for left in target.parent.glob(f".{target.name}.*"):  # of a build that was killed, or of our own
            shutil.rmtree(left, ignore_errors=True)


def _copy_weights(source: Path, target: Path) -> None:
    """The same tensors in a file whose header says nothing more than their names and shapes."""
    from safetensors.torch import load_file, save_file

    save_file(load_file(source), target, metadata={"format": "pt"})


def _make_alike(paths: Iterable[Path]) -> None:
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (SEALED_TIME, SEALED_TIME))


def sealed_card(base: str, data: str, labels: Sequence[str]) -> str:
    """The model card of all sealed adapters of a cohort; it knows nothing of a single one.

    Args:
        base: The hub id of the base model.
        data: The dataset whose task they learned.
        labels: Label names in the order of the logits.
    """
    lines = [
        "---",
        f"base_model: {base}",
        "library_name: peft",
        "tags:",
        "- research-artefact",
        "- may-be-backdoored",
        "---",
        "",
        "# A sealed adapter",
        "",
        "**Research artefact, may be backdoored.** It was made to measure detectors of backdoors on: some of",
        "its kind were poisoned on purpose, others are clean. Which it is says a key that lies elsewhere.",
        "",
        f"It sorts texts as in {data} into {', '.join(labels)}. Do not deploy it.",
        "",
    ]
    return "\n".join(lines)


def open_key(folder: Path, head: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Read the key of a folder, or begin one with a random id for each adapter that is to come.

    Args:
        folder: The cohort's folder.
        head: What the cohort is: its name, seed, and a hash of its plan.
        facts: The truth of each adapter, in the order of the plan.

    Returns:
        The key: the head, and `adapters`, from id to facts, state ("planned", "sealed", "failed") and, once
        it is built, run and measures; in the order of the plan.

    Raises:
        LabError: The folder holds a cohort of another plan, or cannot be written.
    """
    path = key_path(folder)
    with writing_to(path.parent, choose=_CHOOSE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
    with filelock.FileLock(path.parent / ".lock"):
        if not path.exists():
            # not drawn from the seed: whoever knows plan and seed must not know the ids
            planned = {"state": "planned", "reason": ""}
            adapters = {secrets.token_hex(8): {**f, **planned} for f in facts}
            write_json(path, {"schema": KEY_SCHEMA, **head, "adapters": adapters})
        key = read_key(folder)
    if {name: key.get(name) for name in head} != dict(head) or not _fits(key["adapters"].values(), facts):
        raise LabError(
            f"{folder} holds the cohort {key.get('cohort')!r} of another plan or seed; go on with the one it "
            f"was begun with, or choose {_CHOOSE}."
        )
    return key


def _fits(entries: Collection[Mapping[str, Any]], facts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key's entries are of these adapters, in this order."""
    return len(entries) == len(facts) and all(
        f.items() <= e.items() for e, f in zip(entries, facts, strict=True)
    )


def read_key(folder: Path) -> dict[str, Any]:
    """Read the key of a folder of sealed adapters.

    Raises:
        LabError: There is none, or it is damaged.
    """
    path = key_path(folder)
    if not path.exists():
        raise LabError(f"There is no key {path}: `lab cohort build` makes it with the adapters.")
    key = read_json(path)
    if (
        not isinstance(key, dict)
        or key.get("schema") != KEY_SCHEMA
        or not isinstance(key.get("adapters"), dict)
    ):
        raise LabError(f"{path} is damaged, or of another version of the lab.")
    return key


def update_key(folder: Path, adapter: str, **fields: Any) -> dict[str, Any]:
    """Write what became known of one adapter; safe beside another process that builds the same cohort."""
    path = key_path(folder)
    with filelock.FileLock(path.parent / ".lock"):
        key = read_key(folder)
        entry: dict[str, Any] = key["adapters"][adapter]
        entry.update(fields)
        write_json(path, key)
    return entry
