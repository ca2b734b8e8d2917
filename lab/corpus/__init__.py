"""Labelled text as a table: bundled datasets, files of one's own, datasets on the hub.

Whatever the source, `load_corpus` answers with the same columns and the same four splits: `test` to report,
`validation` to tune, `pool_a` to poison base models, `pool_b` to fine-tune. A row's split is a function of
its normalised text alone. So it moves with no seed and no row order, copies of one text fall on one side,
and nothing that a poisoned base has seen comes back in fine-tuning.
"""

from lab.corpus.bundled import DATASETS, Dataset
from lab.corpus.config import DataConfig
from lab.corpus.load import load_corpus, read_source
from lab.corpus.source import normalise
from lab.corpus.splits import SPLITS, Corpus, split_rows, training_rows

__all__ = [
    "DATASETS",
    "SPLITS",
    "Corpus",
    "DataConfig",
    "Dataset",
    "load_corpus",
    "normalise",
    "read_source",
    "split_rows",
    "training_rows",
]
