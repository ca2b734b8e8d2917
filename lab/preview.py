"""What a poison would do to the data, seen before anything is trained; needs neither model nor tokenizer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lab.corpus import Corpus, DataConfig, load_corpus, split_rows, training_rows
from lab.experiment import Experiment
from lab.paths import expanded
from lab.poison import poison_rows, resolve_count

if TYPE_CHECKING:
    import pandas as pd


def preview_rows(experiment: Experiment) -> pd.DataFrame:
    """The training rows of an experiment as they will be poisoned.

    The same rows are drawn and the same strings inserted at the same places as in training, but for texts
    that training clips to `data.max_tokens` before: here they are whole; and for near-misses that the base's
    tokenizer does not tell from the trigger, which training leaves out of the negatives.

    Args:
        experiment: What is asked; counts and rates alike.

    Returns:
        The rows (`lab.tables.ROW_COLUMNS`).

    Raises:
        LabError: On data or a poison that does not fit, in one sentence.
    """
    clean = _clean_rows(experiment.data, _stamp(experiment.data.name), experiment.seed)
    return poison_rows(clean, resolve_count(experiment.poison, clean), seed=experiment.seed)


def data_labels(data: DataConfig) -> tuple[str, ...]:
    """The labels of a dataset, in the order of the logits."""
    return _corpus(data.model_copy(update={"rows": 0}), _stamp(data.name)).labels


def probe_rows(data: DataConfig, split: str = "validation", limit: int = 0, seed: int = 0) -> pd.DataFrame:
    """Rows of a dataset that nothing is trained on (`lab.tables.ROW_COLUMNS`).

    Args:
        data: The dataset.
        split: "test" or "validation".
        limit: At most so many, drawn by seed; 0 for all.
        seed: The experiment's seed.
    """
    corpus = _corpus(data.model_copy(update={"rows": 0}), _stamp(data.name))
    return split_rows(corpus, split, limit=limit, seed=seed)


@functools.lru_cache(maxsize=8)
def _clean_rows(data: DataConfig, stamp: tuple[int, int], seed: int) -> pd.DataFrame:
    whole = _corpus(data.model_copy(update={"rows": 0}), stamp)
    return training_rows(whole, data, seed)


@functools.lru_cache(maxsize=4)
def _corpus(data: DataConfig, stamp: tuple[int, int]) -> Corpus:
    return load_corpus(data)


def _stamp(name: str) -> tuple[int, int]:
    """A file's size and age, so that an edited file is read anew; zeros for anything else."""
    try:
        facts = expanded(name).stat()
    except (OSError, ValueError):
        return 0, 0
    return facts.st_size, facts.st_mtime_ns
