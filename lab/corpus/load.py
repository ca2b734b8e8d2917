"""The one door to every source of text."""

from __future__ import annotations

from lab.corpus.bundled import DATASETS, load_bundled
from lab.corpus.config import DataConfig
from lab.corpus.files import as_path, read_file
from lab.corpus.hub import read_hub
from lab.corpus.source import check_source, ordered_labels
from lab.corpus.splits import Corpus, as_rows, split_table


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
    wanted = {"text": config.text, "label": config.label}
    source = read_file(path, wanted) if path else read_hub(config.name, wanted)
    check_source(source)
    labels = source.order or ordered_labels(source.labels)
    return Corpus(as_rows(split_table(source)), labels, source.name, source.fingerprint)
