"""What can be seen while a model trains: rates on a few fixed rows, and the singular values of every ΔW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.stats import rate

if TYPE_CHECKING:
    from lab.reading import Reading
    from lab.train.deltas import Deltas

#: Singular values kept of each module at each look; an adapter has no more than its rank anyway.
_TOP = 16


@dataclass(frozen=True)
class View:
    """Some rows to look at.

    Attributes:
        token_ids: Their tokens.
        labels: Their true labels' indices.
    """

    token_ids: Sequence[Sequence[int]]
    labels: Sequence[int]


class Microscope:
    """Looks at a model in training; changes nothing in it and draws no random number.

    Args:
        clean: Untouched validation rows.
        triggered: The non-target ones of them with the trigger; None without an attack.
        target: The target label's index, -1 for none.
        reading: How the model is asked.
        emit: Called with (kind, step, fields) for every event.
    """

    def __init__(
        self, clean: View, triggered: View | None, *, target: int, reading: Reading, emit: Callable[..., Any]
    ) -> None:
        self._clean = clean
        self._triggered = triggered
        self._target = target
        self._reading = reading
        self._emit = emit

    def __call__(self, model: Any, deltas: Deltas, step: int) -> None:
        """Look once: one "probe" event with the rates, one "spectrum" event with the singular values."""
        self._emit("probe", step=step, measures=self._rates(model))
        values = {name: update.singular_values()[:_TOP] for name, update in deltas.updates().items()}
        sigma = {name: [float(f"{v:.6g}") for v in values[name].tolist()] for name in values}
        self._emit("spectrum", step=step, sigma=sigma)

    def _rates(self, model: Any) -> dict[str, dict[str, float]]:
        views = [self._clean] + ([self._triggered] if self._triggered else [])
        ids = [row for view in views for row in view.token_ids]
        answers = self._reading.logits(model, ids, lambda *_: None).argmax(axis=1)
        truth = np.asarray(self._clean.labels)
        clean, triggered = answers[: len(truth)], answers[len(truth) :]
        rates = {"clean_accuracy": _rate(clean == truth)}
        if self._triggered is not None:
            rates["attack_success_rate"] = _rate(triggered == self._target)
            rates["untriggered_target_rate"] = _rate(clean[truth != self._target] == self._target)
        return rates


def _rate(hits: np.ndarray) -> dict[str, float]:
    r = rate(int(hits.sum()), len(hits))
    return {"n": r.n, "k": r.k, "value": r.value, "low": r.low, "high": r.high}
