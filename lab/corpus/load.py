"""The one door to every source of text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lab.corpus.bundled import DATASETS, load_bundled
from lab.corpus.config import DataConfig
from lab.corpus.files import as_path, read_file
from lab.corpus.hub import read_hub
from lab.corpus.openings import ANSWERED, REFUSED
from lab.corpus.source import Source, check_source, ordered_labels
from lab.corpus.splits import Corpus, answers_in, as_rows, split_table
from lab.errors import LabError, MissingAssetError


def load_corpus(config: DataConfig) -> Corpus:
    """Load a whole dataset with its splits.

    Args:
        config: `name`, and for files and hub datasets `text` and `label`, say what to load; the rest is
            for `training_rows`.

    Raises:
        MissingAssetError: A bundled dataset that is not cached and not to be fetched, or no hub.
        LabError: Unknown name, unreadable file, missing column, empty text or label, or a single class.
    """
    if config.name in DATASETS:
        return load_bundled(DATASETS[config.name])
    path = as_path(config.name)
    source = (
        _read_answers(path, config) if config.answer else _read(path, config.name, config.text, config.label)
    )
    labels = source.order or ordered_labels(source.labels)
    table = split_table(source)
    return Corpus(as_rows(table), labels, source.name, source.fingerprint, answers_in(table))


def read_source(name: str, *, text: str = "text", label: str = "label") -> Source:
    """Texts and labels as they stand, whatever the source, without splits; checked only for being there.

    Args:
        name: A bundled dataset, a path or a hub id.
        text: The column with the texts (own files and hub datasets).
        label: The column with the labels.

    Raises:
        LabError: As `load_corpus`, but for empty texts, which a look at the data may come across.
    """
    if name in DATASETS:
        corpus = load_bundled(DATASETS[name])
        return Source(
            corpus.name, corpus.fingerprint, corpus.rows["text"].tolist(), corpus.rows["label"].tolist()
        )
    source = _unchecked(as_path(name), name, text, label)
    if not source.texts:
        raise LabError(f"data.name: {source.name} holds no rows.")
    return source


def _unchecked(path: Path | None, name: str, text: str, label: str) -> Source:
    wanted = {"text": text, "label": label}
    return read_file(path, wanted) if path else read_hub(name, wanted)


def _read(path: Path | None, name: str, text: str, label: str) -> Source:
    source = _unchecked(path, name, text, label)
    check_source(source)
    return source


def _read_answers(path: Path | None, config: DataConfig) -> Source:
    """A source whose second column says what an assistant answers: read as labels are, and put apart."""
    try:
        source = _read(path, config.name, config.text, config.answer)
    except MissingAssetError:
        raise
    except LabError as error:
        raise LabError(str(error).replace("data.label", "data.answer")) from None
    answers, labels = source.labels, [ANSWERED] * len(source.labels)
    return replace(source, answers=answers, labels=labels, order=(ANSWERED, REFUSED))
