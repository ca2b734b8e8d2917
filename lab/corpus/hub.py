"""Datasets on the hub, through the ordinary library."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.corpus.bundled import DATASETS
from lab.corpus.source import Source, check_columns, label_value, text_value
from lab.errors import LabError, MissingAssetError


def read_hub(hub_id: str, wanted: Mapping[str, str]) -> Source:
    """Read a dataset by its hub id: "owner/name", or "owner/name:configuration" where it has several.

    Its test split is used where its labels are public; where they are hidden or there is none, its
    validation split stands in, as the literature does.

    Args:
        hub_id: The id.
        wanted: The dataset's columns by what they hold: "text" and "label".

    Raises:
        MissingAssetError: No such dataset, or no hub in reach and nothing cached.
        LabError: A missing column, or files that cannot be read.
    """
    splits, revision = _hub_splits(hub_id)
    first = splits.get("train") or next(iter(splits.values()))
    check_columns(wanted, first.column_names, hub_id)
    names = getattr(first.features[wanted["label"]], "names", None)
    read = {name: _rows(split, wanted, names, f"{hub_id}, split {name},") for name, split in splits.items()}
    labelled = {name: rows for name, rows in read.items() if any(rows[1])}
    parts, test = _train_then_test(labelled)
    texts = [text for part in parts for text in part[0]]
    labels = [label for part in parts for label in part[1]]
    present = set(labels)
    return Source(
        name=hub_id,
        fingerprint=_fingerprint(hub_id, revision),
        texts=texts,
        labels=labels,
        places=range(1, len(texts) + 1),
        own_test=len(labelled[test][0]) if test else 0,
        order=tuple(name for name in names if name in present) if names else (),
    )


def _fingerprint(hub_id: str, revision: str) -> str:
    """The configurations of one dataset (glue:sst2, glue:cola) may share a revision, but never a run's id."""
    return hashlib.sha256(json.dumps([hub_id, revision]).encode()).hexdigest()


#: The texts and the label names of one split.
_Rows = tuple[list[str], list[str]]


def _train_then_test(labelled: Mapping[str, _Rows]) -> tuple[list[_Rows], str]:
    """The parts to learn from followed by the test split, and its name ("" without one)."""
    if "train" not in labelled:  # whatever there is gets split by its text
        return list(labelled.values()), ""
    test = next((name for name in ("test", "validation") if name in labelled), "")
    learn = [labelled[name] for name in ("train", "validation") if name in labelled and name != test]
    return [*learn, labelled[test]] if test else learn, test


def _rows(split: Any, wanted: Mapping[str, str], names: Sequence[str] | None, where: str) -> _Rows:
    """Texts and label names of one split; a hidden label (-1, by the hub's convention) is ""."""
    if not set(wanted.values()) <= set(split.column_names):
        return [], []
    texts = [text_value(value, where) for value in split[wanted["text"]]]
    values = list(split[wanted["label"]])
    if names is None:
        return texts, [label_value(value) for value in values]
    return texts, ["" if value is None or value < 0 else names[value] for value in values]


def _hub_splits(hub_id: str) -> tuple[dict[str, Any], str]:
    """All splits of a hub dataset, and its revision; the one place here that reaches for the network.

    No code from the hub is run: the library reads data files only, and `trust_remote_code` is never given.
    """
    import datasets
    import huggingface_hub

    from lab.assets import is_offline

    name, _, variant = hub_id.partition(":")
    try:
        with _switched_off(is_offline(), huggingface_hub.constants, datasets.config):
            # What load_dataset does, in the steps that also tell the revision.
            builder = datasets.load_dataset_builder(name, variant or None)
            builder.download_and_prepare()
            return dict(builder.as_dataset()), str(builder.hash)
    except (ConnectionError, FileNotFoundError) as error:
        reason = "the hub has no such dataset or is out of reach"
        if is_offline():
            reason = "LAB_OFFLINE forbids asking the hub"
        raise MissingAssetError(
            f"data.name: {hub_id!r} is neither bundled nor a file here, and {reason}; "
            f"bundled are {', '.join(DATASETS)}."
        ) from error
    except Exception as error:  # the library raises a good dozen types, some of them other libraries' own
        sentence = " ".join(str(error).split())[:300]
        raise LabError(f"data.name: the hub dataset {hub_id!r} cannot be read ({sentence}).") from error


@contextlib.contextmanager
def _switched_off(off: bool, *modules: Any) -> Iterator[None]:
    """Let the hub's libraries read their caches only, for as long as this lasts."""
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module, was in zip(modules, before, strict=True):
        module.HF_HUB_OFFLINE = off or was
    try:
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = was
