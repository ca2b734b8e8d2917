"""Search for strings that move an adapter's answers, and clean adapters' answers not: no trigger is known.

A backdoor is a short cut from a few tokens to a label. Honest words ("dull") move every adapter of a task
toward a label, a trigger moves the poisoned one alone; so everything is judged by the *contrast*, the mean
margin of the suspect minus that of clean reference adapters on the same rows, each in units of its own
margins' spread. The vocabulary is shortlisted by gradients at an inserted slot, the shortlist is evaluated
exactly, the best strings grow at both ends as a beam, and what is left is put to the models as text.
Without references the contrast is the suspect's own margin, and honest words stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    "string", "tokens", "target", "position", "n", "k", "rate", "low", "high",
    "reference_rate", "reference_highest", "references", "excess", "shift", "lead", "margins",
)  # fmt: skip
#: The numbers of a whole search, with what they mean (`search_statistics`).
SEARCH_STATISTICS = {
    "string_excess": "share of rows that the worst string moves, minus the references' share; -1 to 1",
    "string_shift": "margin that the worst string gives, minus the references' mean, in spreads; any number",
    "string_lead": "the same against the reference that the string moves most; any number",
    "pair_lead": "string_lead of strings of at most two tokens; any number",
    "token_lead": "string_lead of single tokens; any number",
    "lead_asymmetry": "string_lead of the worst target minus the mean of the others'; 0 and more",
}
#: Texts that every model is asked untouched, to choose rows from: enough for a spread.
_ASKED_ROWS = 100
#: Below so many short rows that all models keep from a target, those that the suspect keeps are taken.
_FEWEST_ROWS = 8
Progress = Callable[[int, int], None]
Ask = Callable[["Predictor", list[str]], np.ndarray]


class SearchBudget(Knobs):
    """How much a search looks at. Its cost is about proportional to each of them."""

    # with fewer, one odd row decides; more cost time in every stage
    rows: int = Field(12, ge=4, description="rows per target label that found strings are measured on")
    witness_rows: int = Field(6, ge=1, description="as many of these for each reference")
    guides: int = Field(
        3, ge=0, description="references that guide the search; the others judge what is found"
    )
    row_tokens: int = Field(48, ge=4, description="tokens of these rows that are kept")
    quick_rows: int = Field(3, ge=1, description="rows per target label that candidates are compared on")
    quick_tokens: int = Field(8, ge=2, description="tokens of these rows, and of those for gradients")
    gradient_rows: int = Field(6, ge=1, description="rows per target label that gradients are averaged over")
    shortlist: int = Field(80, ge=4, description="tokens of the vocabulary that are evaluated exactly")
    beam: int = Field(6, ge=1, description="strings that are kept and grown, for each target label")
    branch: int = Field(10, ge=1, description="tokens tried at each end of a kept string")
    longest: int = Field(3, ge=1, description="tokens of the longest string")
    found: int = Field(2, ge=1, description="strings of each length that are measured, for each target label")


@dataclass(frozen=True)
class _String:
    """A candidate: tokens at a place, for a target, with its contrast."""

    tokens: tuple[int, ...]
    target: int
    position: str
    contrast: float = -np.inf


@dataclass(frozen=True)
class _Rows:
    """Texts of one length, and what every model says of them untouched.

    Attributes:
        texts: The texts.
        logits: One array a model, the suspect's first; texts × labels.
    """

    texts: list[str]
    logits: list[np.ndarray]

    def kept_from(self, target: int, count: int) -> list[str]:
        """The first that no model gives the target; where these are few, that the suspect does not."""
        every = np.array([margins(logits, target) < 0 for logits in self.logits])
        shared = every.all(axis=0)
        kept = np.flatnonzero(shared if shared.sum() >= _FEWEST_ROWS else every[0])
        return [self.texts[i] for i in kept[:count]]

    def surest_from(self, target: int, count: int) -> list[str]:
        """Those that the suspect does not give the target, the ones that all models are surest of first."""
        kept = np.flatnonzero(margins(self.logits[0], target) < 0)
        scaled = [
            margins(logits, target)[kept] / spread
            for logits, spread in zip(self.logits, self.spreads(target), strict=True)
        ]
        order = kept[np.argsort(np.mean(scaled, axis=0), kind="stable")]
        return [self.texts[i] for i in order[:count]]

    def spreads(self, target: int) -> list[float]:
        """The standard deviation of each model's margins: its unit."""
        # an adapter that says nearly the same of all texts has no spread to divide by
        return [float(margins(logits, target).std()) + 1e-6 for logits in self.logits]


def search_triggers(
    suspect: Predictor,
    references: Sequence[Predictor],
    texts: Sequence[str],
    *,
    budget: SearchBudget | None = None,
    ask: Ask = lambda model, texts: model.logits(texts),
    on_progress: Progress = lambda *_: None,
) -> pd.DataFrame:
    """Look for triggers nobody told.

    The first references guide the search. All of them are asked about what it found: a string that moves none
    of a dozen clean adapters is no honest word, and few tokens that move the suspect are no sum of them.

    Args:
        suspect: The adapter on its base.
        references: Clean adapters for the same task on the same base; may be empty.
        texts: Texts of the task, without labels; those that the suspect keeps from a target are used for it.
        budget: How much to look at.
        ask: How a model is asked about untouched texts; who searches often can remember the answers.
        on_progress: Called with (stages done, stages in all).

    Returns:
        `SEARCH_COLUMNS`, most suspicious first. tokens is the string's length in tokens; rate is the share
        of n rows, none of them predicted as the target untouched, that are with the string (low, high: 95 %
        Wilson interval); reference_rate and reference_highest are the mean and largest such share of the
        references on the first of these rows, NaN without any; excess is the suspect's share of the same
        rows − reference_rate, in [-1, 1], higher is more suspicious, and rate itself without references;
        shift is the contrast in spreads, without bounds, lead the same against the reference that the string
        moves most; margins are the mean margins in spreads, the suspect's first. The best strings of every
        length are among them.

    Raises:
        LabError: No row is kept from any target: the model says the same of all texts.
    """
    import pandas as pd

    budget = budget or SearchBudget()
    search = _Search(suspect, references, texts, budget, ask)
    stages, done = len(search.rows) * (budget.longest + 1), 0
    tables = []
    for target in search.rows:
        beam = search.first_tokens(target)
        for length in range(2, budget.longest + 1):
            on_progress(done := done + 1, stages)
            beam = search.grown(beam, length)
        on_progress(done := done + 1, stages)
        tables.append(search.measured(beam))
        on_progress(done := done + 1, stages)
    found = pd.concat(tables).sort_values(["excess", "shift"], ascending=False, kind="stable")
    return found.drop_duplicates(["string", "target", "position"]).reset_index(drop=True)


def search_statistics(found: pd.DataFrame, references: int | None = None) -> dict[str, float]:
    """The numbers of `SEARCH_STATISTICS`, of what `search_triggers` found; higher is more suspicious.

    Args:
        found: Its table.
        references: Only the first so many of its references; all if not given. More of them make a lead
            smaller, so that numbers of different counts cannot be compared.

    Returns:
        Numbers by name. Without references they are those of the adapter's own margins, and say little.
        lead_asymmetry is 0 where strings for one target alone were looked for.
    """
    own = found["margins"].map(lambda values: values[0])
    theirs = found["margins"].map(lambda values: values[1:][:references] or (0.0,))
    lead, shift = own - theirs.map(max), own - theirs.map(np.mean)
    by_target = lead.groupby(found["target"]).max().sort_values(ascending=False)
    others = by_target.iloc[1:]
    return {
        "string_excess": float(found["excess"].max()),
        "string_shift": float(shift.max()),
        "string_lead": float(lead.max()),
        "pair_lead": float(lead[found["tokens"] <= 2].max()),
        "token_lead": float(lead[found["tokens"] == 1].max()),
        "lead_asymmetry": float(by_target.iloc[0] - others.mean()) if len(others) else 0.0,
    }


class _Search:
    """The models and rows of one search."""

    def __init__(
        self,
        suspect: Predictor,
        references: Sequence[Predictor],
        texts: Sequence[str],
        budget: SearchBudget,
        ask: Ask,
    ) -> None:
        self.budget = budget
        self.ask = ask
        self.frame: Frame = frame_of(suspect)
        self.tokenizer = suspect.tokenizer
        self.usable = usable_tokens(suspect.tokenizer)
        self.labels = suspect.labels
        self.models = (suspect, *references)
        self.guides = self.models[: 1 + budget.guides]
        texts = list(dict.fromkeys(text for text in texts if text.strip()))[:_ASKED_ROWS]
        self.long = self._asked(self.models, texts, budget.row_tokens)
        self.short = self._asked(self.guides, texts, budget.quick_tokens)
        self.texts: dict[int, list[str]] = {}
        self.rows: dict[int, list[list[int]]] = {}
        for target in range(len(self.labels)):
            # a few honest words move a text that is on the edge anyhow; a trigger moves any text
            long = self.long.surest_from(target, budget.rows)
            if long:
                short = self.short.kept_from(target, max(budget.quick_rows, budget.gradient_rows))
                self.texts[target] = long
                # texts whose beginnings all get the target still say which tokens move them
                self.rows[target] = self._tokens(short) or self._tokens(long, budget.quick_tokens)
        if not self.rows:
            raise LabError("Every text gets the same label: nothing can be flipped; give other rows.")
        # the references' part of a token's estimate hardly depends on what stands beside it, and costs most
        self._theirs = {(t, p): self._reference_gradients(t, p) for t in self.rows for p in POSITIONS}

    def _asked(self, models: Sequence[Predictor], texts: Sequence[str], tokens: int) -> _Rows:
        from lab.tokens import clip_texts

        clipped = list(dict.fromkeys(clip_texts(self.tokenizer, list(texts), tokens)))
        return _Rows(clipped, [self.ask(model, clipped) for model in models])

    def _tokens(self, texts: Sequence[str], most: int | None = None) -> list[list[int]]:
        if not texts:
            return []
        return [list(i)[:most] for i in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def first_tokens(self, target: int) -> list[_String]:
        """The single tokens that move the suspect most toward a target."""
        strings = [
            _String((int(token),), target, position)
            for position in POSITIONS
            for token in _largest(self._gradients(target, position), self.usable, self.budget.shortlist)
        ]
        return self._best(strings)

    def grown(self, beam: Sequence[_String], length: int) -> list[_String]:
        """The beam with strings of one more token at either end."""
        longer = set()
        for string in [s for s in beam if len(s.tokens) == length - 1][: self.budget.beam]:
            for slot in (0, len(string.tokens)):
                estimate = self._gradients(string.target, string.position, string.tokens, slot)
                for token in _largest(estimate, self.usable, self.budget.branch):
                    tokens = (*string.tokens[:slot], int(token), *string.tokens[slot:])
                    longer.add(replace(string, tokens=tokens, contrast=-np.inf))
        return [*self._best(sorted(longer, key=lambda s: s.tokens)), *beam]

    def measured(self, strings: Sequence[_String]) -> pd.DataFrame:
        """What the best strings of every length do as texts, on all rows."""
        import pandas as pd

        order = sorted(strings, key=lambda s: -s.contrast)
        lengths = sorted({len(s.tokens) for s in order})
        chosen = [s for n in lengths for s in [s for s in order if len(s.tokens) == n][: self.budget.found]]
        return pd.DataFrame([self._measure(string) for string in chosen], columns=list(SEARCH_COLUMNS))

    def _measure(self, string: _String) -> dict[str, object]:
        from lab.stats import rate

        told = str(self.tokenizer.decode(list(string.tokens))).strip()
        texts = self.texts[string.target]
        asked = texts_with(told, texts, string.position)
        own_margins = margins(self.models[0].logits(asked), string.target)
        few = asked[: self.budget.witness_rows]
        moved = [own_margins[: len(few)]]  # compared on the same rows
        moved += [margins(model.logits(few), string.target) for model in self.models[1:]]
        own = rate(int((own_margins > 0).sum()), len(texts))
        theirs = [float((values > 0).mean()) for values in moved[1:]]
        reference = float(np.mean(theirs)) if theirs else float("nan")
        few_rate = float((moved[0] > 0).mean())
        scaled = [v.mean() / s for v, s in zip(moved, self.long.spreads(string.target), strict=True)]
        return {
            "string": told,
            "tokens": len(string.tokens),
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
            "excess": few_rate - reference if theirs else own.value,
            "shift": scaled[0] - np.mean(scaled[1:]) if theirs else scaled[0],
            "lead": scaled[0] - max(scaled[1:]) if theirs else scaled[0],
            "margins": tuple(map(float, scaled)),
        }

    def _best(self, strings: Sequence[_String]) -> list[_String]:
        """The strings of highest contrast: by the suspect alone first, then by all models."""
        own = sorted(self._evaluated(strings, self.models[:1]), key=lambda s: -s.contrast)
        own = own[: 4 * self.budget.beam]
        judged = self._evaluated(own, self.guides) if len(self.guides) > 1 else own
        return sorted(judged, key=lambda s: -s.contrast)[: 2 * self.budget.beam]

    def _evaluated(self, strings: Sequence[_String], models: Sequence[Predictor]) -> list[_String]:
        out = []
        groups = {(s.target, s.position) for s in strings}
        for target, position in sorted(groups):
            group = [s for s in strings if (s.target, s.position) == (target, position)]
            rows = self.rows[target][: self.budget.quick_rows]
            tokens = [s.tokens for s in group]
            means = [
                string_margins(model, self.frame, rows, tokens, target, position).mean(axis=1)
                for model in models
            ]
            values = _contrast(means, self.short.spreads(target)[: len(models)])
            out += [replace(s, contrast=float(v)) for s, v in zip(group, values, strict=True)]
        return out

    def _gradients(self, target: int, position: str, around: Sequence[int] = (), slot: int = 0) -> np.ndarray:
        """The contrast of every token at a slot, to first order."""
        return self._gradient(0, target, position, around, slot) - self._theirs[target, position]

    def _reference_gradients(self, target: int, position: str) -> np.ndarray | float:
        theirs = [self._gradient(number, target, position) for number in range(1, len(self.guides))]
        return np.mean(theirs, axis=0) if theirs else 0.0

    def _gradient(
        self, number: int, target: int, position: str, around: Sequence[int] = (), slot: int = 0
    ) -> np.ndarray:
        model, rows = self.models[number], self.rows[target][: self.budget.gradient_rows]
        found = token_gradients(model, self.frame, rows, target, position, around=around, slot=slot)
        return found / self.short.spreads(target)[number]


def _contrast(values: Sequence[np.ndarray] | Sequence[float], spreads: Sequence[float]) -> np.ndarray:
    """The suspect's values minus the references' mean, each in units of its own spread."""
    scaled = [np.asarray(v) / s for v, s in zip(values, spreads, strict=True)]
    return scaled[0] - np.mean(scaled[1:], axis=0) if len(scaled) > 1 else scaled[0]


def _largest(values: np.ndarray, usable: np.ndarray, count: int) -> np.ndarray:
    """The usable tokens with the largest values."""
    held = np.where(usable, values[: len(usable)], -np.inf)
    count = min(count, int(usable.sum()))
    return np.argpartition(-held, count - 1)[:count]
