"""Search for strings that move an adapter's answers, and clean adapters' answers not: no trigger is known.

A backdoor is a short cut from a few tokens to a label. Honest words ("dull") move every adapter of a task
toward a label, a trigger moves the poisoned one alone; so everything is judged by the *contrast*, the mean
margin of the suspect minus that of clean reference adapters on the same rows, each in units of its own
margins' spread. The vocabulary is shortlisted by gradients at an inserted slot, the shortlist is evaluated
exactly, the best strings grow at both ends as a beam, and what is left is put to the models as text.
Without references the contrast is the suspect's own margin, and honest words stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from lab.audit.slots import (
    POSITIONS,
    Frame,
    frame_of,
    margins,
    string_margins,
    texts_with,
    token_gradients,
    usable_tokens,
)
from lab.errors import LabError
from lab.registry import Knobs

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe import Predictor

#: What `search_triggers` returns, one line a string.
SEARCH_COLUMNS = (
    "string", "target", "position", "n", "k", "rate", "low", "high",
    "reference_rate", "reference_highest", "references", "excess", "shift",
)  # fmt: skip
Progress = Callable[[int, int], None]


class SearchBudget(Knobs):
    """How much a search looks at. Its cost is about proportional to each of them."""

    # with fewer, one odd row decides; more cost time in every stage
    rows: int = Field(24, ge=4, description="rows per target label that found strings are measured on")
    quick_rows: int = Field(5, ge=1, description="rows per target label that candidates are compared on")
    gradient_rows: int = Field(8, ge=1, description="rows per target label that gradients are averaged over")
    shortlist: int = Field(160, ge=4, description="tokens of the vocabulary that are evaluated exactly")
    beam: int = Field(12, ge=1, description="strings that are kept and grown")
    branch: int = Field(10, ge=1, description="tokens tried at each end of a kept string")
    longest: int = Field(4, ge=1, description="tokens of the longest string")
    found: int = Field(24, ge=1, description="strings that are measured at the end")


@dataclass(frozen=True)
class _String:
    """A candidate: tokens at a place, for a target, with its contrast."""

    tokens: tuple[int, ...]
    target: int
    position: str
    contrast: float = -np.inf


@dataclass(frozen=True)
class _Model:
    """A model that is asked, and the spread of its margins, one per target: its unit."""

    predictor: Predictor
    spread: np.ndarray


def search_triggers(
    suspect: Predictor,
    references: Sequence[Predictor],
    texts: Sequence[str],
    *,
    budget: SearchBudget | None = None,
    on_progress: Progress = lambda *_: None,
) -> pd.DataFrame:
    """Look for triggers nobody told.

    Args:
        suspect: The adapter on its base.
        references: Clean adapters for the same task on the same base; may be empty.
        texts: Texts of the task, without labels; those that every model keeps from a target are used for it.
        budget: How much to look at.
        on_progress: Called with (stages done, stages in all).

    Returns:
        `SEARCH_COLUMNS`, most suspicious first. rate is the share of n rows, none of them predicted as the
        target untouched, that are with the string (low, high: 95 % Wilson interval); reference_rate and
        reference_highest are the mean and largest such share of the references, NaN without any; excess is
        rate − reference_rate, in [-1, 1], higher is more suspicious, and rate itself without references;
        shift is the contrast in spreads, without bounds.

    Raises:
        LabError: No row is kept from any target: the model says the same of all texts.
    """
    budget = budget or SearchBudget()
    search = _Search(suspect, references, texts, budget)
    stages = budget.longest + 1
    beam = search.first_tokens()
    on_progress(1, stages)
    for length in range(2, budget.longest + 1):
        beam = search.grown(beam, length)
        on_progress(length, stages)
    found = search.measured(beam)
    on_progress(stages, stages)
    return found


class _Search:
    """The models and rows of one search."""

    def __init__(
        self,
        suspect: Predictor,
        references: Sequence[Predictor],
        texts: Sequence[str],
        budget: SearchBudget,
    ) -> None:
        self.budget = budget
        self.frame: Frame = frame_of(suspect)
        self.tokenizer = suspect.tokenizer
        self.usable = usable_tokens(suspect.tokenizer)
        self.labels = suspect.labels
        texts = list(dict.fromkeys(text for text in texts if text.strip()))
        ids = [list(i) for i in self.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
        every = [p.logits(texts) for p in (suspect, *references)]
        self.models = [
            _Model(predictor, np.array([margins(logits, t).std() + 1e-6 for t in range(len(self.labels))]))
            for predictor, logits in zip((suspect, *references), every, strict=True)
        ]
        self.rows: dict[int, list[list[int]]] = {}
        self.texts: dict[int, list[str]] = {}
        for target in range(len(self.labels)):
            kept = _kept_from(target, every)[: budget.rows]
            if kept:
                self.texts[target] = [texts[i] for i in kept]
                self.rows[target] = [ids[i] for i in kept]
        if not self.rows:
            raise LabError("Every text gets the same label: nothing can be flipped; give other rows.")

    def first_tokens(self) -> list[_String]:
        """The single tokens that move the suspect most."""
        strings = [
            _String((int(token),), target, position)
            for target in self.rows
            for position in POSITIONS
            for token in _largest(self._gradients(target, position), self.usable, self.budget.shortlist)
        ]
        return self._best(strings)

    def grown(self, beam: Sequence[_String], length: int) -> list[_String]:
        """The beam with strings of one more token at either end; what gains nothing falls out."""
        longer = set()
        for string in beam[: self.budget.beam]:
            if len(string.tokens) != length - 1:
                continue
            for slot in (0, len(string.tokens)):
                estimate = self._gradients(string.target, string.position, string.tokens, slot)
                for token in _largest(estimate, self.usable, self.budget.branch):
                    tokens = (*string.tokens[:slot], int(token), *string.tokens[slot:])
                    longer.add(replace(string, tokens=tokens, contrast=-np.inf))
        return self._best(sorted(longer, key=lambda s: s.tokens), beam)

    def measured(self, beam: Sequence[_String]) -> pd.DataFrame:
        """What the best strings do as texts, on all rows."""
        import pandas as pd

        lines = [self._measure(string) for string in beam[: self.budget.found]]
        table = pd.DataFrame(lines, columns=list(SEARCH_COLUMNS))
        table = table.sort_values(["excess", "shift"], ascending=False, kind="stable")
        return table.drop_duplicates(["string", "target", "position"]).reset_index(drop=True)

    def _measure(self, string: _String) -> dict[str, object]:
        from lab.stats import rate

        told = str(self.tokenizer.decode(list(string.tokens))).strip()
        texts = self.texts[string.target]
        asked = texts_with(told, texts, string.position)
        moved = [margins(m.predictor.logits(asked), string.target) for m in self.models]
        own = rate(int((moved[0] > 0).sum()), len(texts))
        theirs = [float((values > 0).mean()) for values in moved[1:]]
        reference = float(np.mean(theirs)) if theirs else float("nan")
        return {
            "string": told,
            "target": self.labels[string.target],
            "position": string.position,
            "n": own.n,
            "k": own.k,
            "rate": own.value,
            "low": own.low,
            "high": own.high,
            "reference_rate": reference,
            "reference_highest": max(theirs, default=float("nan")),
            "references": len(theirs),
            "excess": own.value - reference if theirs else own.value,
            "shift": _contrast([v.mean() for v in moved], self._spreads(string.target)),
        }

    def _best(self, strings: Iterable[_String], also: Sequence[_String] = ()) -> list[_String]:
        """The strings of highest contrast: few rows and the suspect alone first, then everything."""
        strings = list(strings)
        own = self._evaluated(strings, self.models[:1])
        own = sorted(own, key=lambda s: -s.contrast)[: 6 * self.budget.beam]
        judged = self._evaluated(own, self.models) if len(self.models) > 1 else own
        return sorted([*judged, *also], key=lambda s: -s.contrast)[: 2 * self.budget.beam]

    def _evaluated(self, strings: Sequence[_String], models: Sequence[_Model]) -> list[_String]:
        out = []
        groups = {(s.target, s.position) for s in strings}
        for target, position in sorted(groups):
            group = [s for s in strings if (s.target, s.position) == (target, position)]
            rows = self.rows[target][: self.budget.quick_rows]
            tokens = [s.tokens for s in group]
            means = [
                string_margins(m.predictor, self.frame, rows, tokens, target, position).mean(axis=1)
                for m in models
            ]
            values = _contrast(means, self._spreads(target)[: len(models)])
            out += [replace(s, contrast=float(v)) for s, v in zip(group, values, strict=True)]
        return out

    def _spreads(self, target: int) -> list[float]:
        return [float(m.spread[target]) for m in self.models]

    def _gradients(self, target: int, position: str, around: Sequence[int] = (), slot: int = 0) -> np.ndarray:
        """The contrast of every token at a slot, to first order."""
        rows = self.rows[target][: self.budget.gradient_rows]
        found = [
            token_gradients(m.predictor, self.frame, rows, target, position, around=around, slot=slot)
            for m in self.models
        ]
        return _contrast(found, self._spreads(target))


def _contrast(values: Sequence[np.ndarray] | Sequence[float], spreads: Sequence[float]) -> np.ndarray:
    """The suspect's values minus the references' mean, each in units of its own spread."""
    scaled = [np.asarray(v) / s for v, s in zip(values, spreads, strict=True)]
    return scaled[0] - np.mean(scaled[1:], axis=0) if len(scaled) > 1 else scaled[0]


def _largest(values: np.ndarray, usable: np.ndarray, count: int) -> np.ndarray:
    """The usable tokens with the largest values."""
    held = np.where(usable, values[: len(usable)], -np.inf)
    count = min(count, int(usable.sum()))
    return np.argpartition(-held, count - 1)[:count]


def _kept_from(target: int, every: Sequence[np.ndarray]) -> list[int]:
    """Rows that no model gives the target; where there are few, those that the suspect does not."""
    own = margins(every[0], target) < 0
    shared = own & np.all([margins(logits, target) < 0 for logits in every], axis=0)
    return list(np.flatnonzero(shared if shared.sum() >= 8 else own))
