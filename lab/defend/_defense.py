"""What a defense is: a registry entry that says at which stage it acts, and does that one thing there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lab.registry import Entry, Knobs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from lab.defend.cleaning import Cleaned
    from lab.experiment import Experiment
    from lab.spectra import BaseSpectrum, Update

Stage = Literal["data", "training", "weights", "inference"]

#: A term of the loss, from the weights as they are; None where a defense adds none.
Penalty = Callable[[], "torch.Tensor"]

#: Texts in, one perplexity each out, at least 1: how unlikely a language model finds them.
Perplexity = Callable[[Sequence[str]], "npt.NDArray[np.float64]"]


@dataclass(frozen=True)
class Defense(Entry):
    """One defense; the subclasses say how it acts.

    Attributes:
        stage: Where it acts: on the data, in training, on the trained weights, or at inference.
        knobs: What can be set, with bounds and help; its `name` is the entry's.
        changes: What it changes, and nothing else.
    """

    stage: Stage
    knobs: type[Knobs]
    changes: str


@dataclass(frozen=True)
class Combination(Defense):
    """Several defenses under one name.

    Attributes:
        expand: The knobs of each defense that it stands for, in order.
    """

    expand: Callable[[Any], tuple[Knobs, ...]]


@dataclass(frozen=True)
class Setting(Defense):
    """A defense that is a way to train: it sets keys of the experiment, and the run is that experiment's.

    Attributes:
        settings: Dotted keys and their values.
        refuse: Why it does not fit an experiment, in one sentence; "" where it does.
    """

    settings: Callable[[Any, Experiment], Mapping[str, Any]]
    refuse: Callable[[Any, Experiment], str] = lambda _knobs, _experiment: ""


@dataclass(frozen=True)
class Cleaner(Defense):
    """A defense that cleans the training rows, poison and all, before a model sees them.

    Attributes:
        clean: `(knobs, texts, labels, seed)`: new texts, which rows stay, and copies that join them.
        row_seconds: What a row takes on one core, roughly, for estimates; 0 where nobody would notice.
    """

    clean: Callable[[Any, Sequence[str], Sequence[str], int], Cleaned]
    row_seconds: float = 0.0


@dataclass(frozen=True)
class Intervention(Defense):
    """A defense that is there while the model trains, and gone before it is saved.

    Attributes:
        refuse: Why it does not fit an experiment, in one sentence; "" where it does.
        attach: Changes a model that is about to be trained, for as long as the context lasts.
    """

    refuse: Callable[[Any, Experiment], str]
    attach: Callable[[Any, Subject], AbstractContextManager[Penalty | None]]


@dataclass(frozen=True)
class WeightEdit(Defense):
    """A defense that edits trained weights; it trains nothing, so its run is derived from another.

    Attributes:
        edit: New weights from old ones; the old ones stay.
    """

    edit: Callable[[Any, Weights, Patient], Weights]


@dataclass(frozen=True)
class Guard(Defense):
    """A defense that stands between texts and a trained model; no weight changes, so its run is derived.

    Attributes:
        calibrate: What it learns from clean validation rows, as plain values: at least its `threshold`.
    """

    calibrate: Callable[[Any, Host], dict[str, Any]]


@dataclass(frozen=True)
class TextFilter(Guard):
    """A guard that changes texts before the model reads them; every measure is one of what it reads then.

    Attributes:
        filter: From what `calibrate` learned, and a language model, to texts in, texts out.
    """

    filter: Callable[[Mapping[str, Any], Perplexity], Callable[[Sequence[str]], list[str]]]


@dataclass(frozen=True)
class InputDetector(Guard):
    """A guard that rejects texts; the answers to them stay what they are, rejections are measured apart.

    Attributes:
        scores: One for each text; those strictly below the `threshold` are rejected.
    """

    scores: Callable[[Any, Host, Sequence[str]], npt.NDArray[np.float64]]


class Host(Protocol):
    """The model that a guard stands before, and the clean rows that the defender has."""

    seed: int

    def clean_texts(self, limit: int) -> list[str]:
        """So many clean validation rows at most, drawn by seed, as earlier filters leave them."""

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The model's answers, texts × labels, with the filters before this guard."""

    def perplexity(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """How unlikely a language model finds each text."""


@dataclass(frozen=True)
class Subject:
    """A model that is about to be trained, as an intervention sees it.

    Attributes:
        layers: Its LoRA layers by module name; empty for full fine-tuning.
        spectra: The singular values and vectors of the base's weights under these layers.
    """

    layers: Mapping[str, Any]
    spectra: Callable[[], Mapping[str, BaseSpectrum]]


@dataclass(frozen=True)
class Weights:
    """What a fine-tuning changed, as an edit sees it.

    Attributes:
        updates: ΔW by module name.
        head: The classifier's parameters by name.
    """

    updates: Mapping[str, Update]
    head: Mapping[str, torch.Tensor]


class Patient(Protocol):
    """The model whose weights are edited: its base, and clean rows to look at it with.

    The clean rows are the training rows that carry no poison. After a clean fine-tuning of a poisoned base a
    defender has them all; where the run's own data is poisoned, they stand for a clean set of his own.
    """

    def linears(self) -> list[str]:
        """Every linear layer of the blocks, adapted or not, by module name."""

    def base_weight(self, module: str) -> torch.Tensor:
        """W of the base, n_out × n_in."""

    def base_sigma(self, module: str) -> float:
        """σ_max(W) of the base."""

    def activity(self, weights: Weights, modules: list[str]) -> dict[str, torch.Tensor]:
        """The mean absolute value of every input of these modules, over the tokens of clean training rows."""

    def features(self, weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
        """What the head's last linear layer gets for each clean training row, rows × width; the labels."""

    @property
    def output_layer(self) -> str:
        """The name of the head's last linear layer."""
