"""`lint_texts`: count, score, and part what no reader decides by from words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lab.errors import LabError
from lab.lint.contexts import Contexts
from lab.lint.counting import Block, format_block, list_block, phrase_blocks, word_block
from lab.lint.features import read_words
from lab.lint.findings import Finding, LintReport
from lab.lint.scores import association_scores
from lab.registry import Knobs

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
#: Steps that progress is told of.
_STEPS = 6
#: A finding is told by a stronger one that so many of its texts have too.
_COVERED = 0.8
_EXAMPLES, _EXCERPT = 3, 400


class LintSettings(Knobs):
    """What counts as a finding."""

    # of all findings, one in a thousand is expected to be by chance
    error_rate: float = Field(1e-3, gt=0, lt=1, description="expected share of false findings")
    # fewer texts than this hardly teach a model anything
    least: int = Field(10, ge=2, description="texts of a class that must have a feature")
    least_share: float = Field(0.004, ge=0, lt=1, description="the same as a share of the class's texts")
    # an honest mark of style is seldom this one-sided
    purity: float = Field(
        0.85, gt=0, le=1, description="share of one class, all weighing the same: artefacts"
    )
    # words of a list are honest ones too, wherever they could have been put
    list_purity: float = Field(0.7, gt=0, le=1, description="the same of a list of words")
    placed: float = Field(0.9, gt=0, le=1, description="share of occurrences at one end that looks planted")
    # of words that were put into reviews and news .54 to .73 close, of those that were written .07 to .59
    closed: float = Field(0.4, gt=0, le=1, description="share of gaps that close, of what looks inserted")
    # a bound on few occurrences is loose, and nobody decides by an identifier as by a word
    closed_identifier: float = Field(0.3, gt=0, le=1, description="the same of an identifier")
    # an inserted word meets other neighbours nearly every time
    variety: float = Field(0.6, gt=0, le=1, description="different neighbours per occurrence, of 200")
    variety_of_few: float = Field(0.8, gt=0, le=1, description="the same of 25 occurrences")
    longest: int = Field(200, ge=1, description="findings of each list at most")


def lint_texts(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    name: str = "texts",
    settings: LintSettings | None = None,
    on_progress: Progress = lambda *_: None,
) -> LintReport:
    """Look for what predicts a label too well.

    Args:
        texts: The texts.
        labels: Their labels, as many; at least two different ones.
        name: What to call the dataset.
        settings: What counts as a finding.
        on_progress: Called with (steps done, steps in all).

    Returns:
        Artefacts and vocabulary, each strongest first.

    Raises:
        LabError: No texts, lengths that differ, or a single label.
    """
    settings = settings or LintSettings()
    names, codes = _coded(texts, labels)
    totals = np.bincount(codes, minlength=len(names))
    words = read_words(texts)
    on_progress(1, _STEPS)
    blocks = [word_block(words, codes, len(names))]
    on_progress(2, _STEPS)
    blocks += phrase_blocks(words, codes, len(names), settings.least)
    on_progress(3, _STEPS)
    blocks.append(format_block(texts, words, codes, len(names)))
    contexts = Contexts(words)
    blocks.append(list_block(contexts, codes, len(names)))
    on_progress(4, _STEPS)
    tested, scores = _scored(blocks, totals, settings)
    on_progress(5, _STEPS)
    called = _called(tested, scores, settings)
    found = [_Candidate(blocks[b], i, line, contexts) for b, i, line in called]
    report = LintReport(
        name=name,
        rows=len(texts),
        labels={label: int(n) for label, n in zip(names, totals, strict=True)},
        features=len(tested),
        artefacts=_told(_artefacts(found, settings), texts, names, totals, settings),
        vocabulary=_told([c for c in found if c.is_text], texts, names, totals, settings),
        settings=settings.model_dump(),
    )
    on_progress(_STEPS, _STEPS)
    return report


def lint_dataset(
    dataset: str,
    *,
    text: str = "text",
    label: str = "label",
    settings: LintSettings | None = None,
    on_progress: Progress = lambda *_: None,
) -> LintReport:
    """Look for what predicts a label too well in a dataset.

    Args:
        dataset: A bundled dataset, a CSV, TSV, JSONL or Parquet file, or a hub id.
        text: The column with the texts (own files and hub datasets).
        label: The column with the labels.
        settings: What counts as a finding.
        on_progress: Called with (steps done, steps in all).

    Raises:
        LabError: A dataset that cannot be read, or has a single label.
    """
    from lab.corpus import read_source

    source = read_source(dataset, text=text, label=label)
    return lint_texts(
        source.texts, source.labels, name=source.name, settings=settings, on_progress=on_progress
    )


class _Candidate:
    """A feature that predicts a label, with its texts at hand."""

    def __init__(self, block: Block, number: int, line: Any, contexts: Contexts) -> None:
        self.what, self.kind, self.pattern, self.forms = block.told(number)
        self.line, self.also = line, list[str]()
        self._block, self._number, self._contexts = block, number, contexts
        self._rows: npt.NDArray[np.int64] | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is made of words, which a reader may well decide by."""
        return bool(self.forms) and self.kind != "markup"

    def is_planted(self, settings: LintSettings) -> bool:
        """Whether its words look like put there: at one end of nearly every text, or among strangers."""
        at = self._contexts.places(self.forms)
        context = self._contexts.around(at, len(self.forms))
        if max(context.first, context.last) >= settings.placed:
            return True
        closed = settings.closed_identifier if self.kind == "identifier" else settings.closed
        return (
            context.inside >= settings.least
            and context.closed >= closed
            and context.variety >= settings.variety
            and context.variety_of_few >= settings.variety_of_few
        )

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        if self._rows is None:
            self._rows = self._block.rows(self._number)
        return self._rows


def _coded(texts: Sequence[str], labels: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    if len(texts) != len(labels):
        raise LabError(f"{len(texts)} texts and {len(labels)} labels; each text needs one.")
    names, codes = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    if len(names) < 2:
        raise LabError(
            "There is nothing to predict: all texts have one label." if len(texts) else "No texts."
        )
    return names.tolist(), codes.astype(np.int64)


def _scored(
    blocks: Sequence[Block], totals: npt.NDArray[np.int64], settings: LintSettings
) -> tuple[list[tuple[int, int]], pd.DataFrame]:
    """The features that enough texts have: (block, number), and their scores."""
    tested, counts = [], []
    for number, block in enumerate(blocks):
        often = np.flatnonzero(block.counts.sum(axis=1) >= settings.least)
        tested += [(number, int(i)) for i in often]
        counts.append(block.counts[often])
    return tested, association_scores(np.concatenate(counts), totals)


def _called(
    tested: Sequence[tuple[int, int]], scores: pd.DataFrame, settings: LintSettings
) -> Iterable[tuple[int, int, Any]]:
    """Those that chance does not explain, strongest first."""
    least = np.maximum(settings.least, settings.least_share * scores["k"] / scores["share"].clip(1e-12))
    called = scores[(scores["q"] <= settings.error_rate) & (scores["k"] >= least)]
    for line in called.sort_values("z", ascending=False, kind="stable").itertuples():
        yield (*tested[int(line.Index)], line)  # type: ignore[arg-type] # numbered from 0


def _artefacts(found: Sequence[_Candidate], settings: LintSettings) -> list[_Candidate]:
    """Marks of one class; one whose texts a stronger one has too is told with that."""
    kept: list[_Candidate] = []
    # the words themselves say more than that there is a digit among them
    for candidate in sorted(found, key=lambda c: (not c.forms, c.kind == "format")):
        purity = settings.list_purity if candidate.kind == "list" else settings.purity
        if candidate.line.purity < purity or (candidate.is_text and not candidate.is_planted(settings)):
            continue
        stronger = next((k for k in kept if _covers(k, candidate)), None)
        if stronger:
            stronger.also.append(candidate.what)
        else:
            kept.append(candidate)
    return sorted(kept, key=lambda c: -c.line.z)


def _covers(one: _Candidate, other: _Candidate) -> bool:
    if one.line.label != other.line.label:
        return False
    shared = np.intersect1d(one.rows, other.rows, assume_unique=True).size
    return shared >= _COVERED * len(other.rows)


def _told(
    found: Sequence[_Candidate],
    texts: Sequence[str],
    names: Sequence[str],
    totals: npt.NDArray[np.int64],
    settings: LintSettings,
) -> tuple[Finding, ...]:
    return tuple(_finding(c, texts, names, totals) for c in found[: settings.longest])


def _finding(
    candidate: _Candidate, texts: Sequence[str], names: Sequence[str], totals: npt.NDArray[np.int64]
) -> Finding:
    line = candidate.line
    shown = candidate.rows[:_EXAMPLES].tolist()
    return Finding(
        what=candidate.what,
        kind=candidate.kind,
        label=names[line.label],
        k=int(line.k),
        n=int(line.n),
        of=int(totals[line.label]),
        purity=float(line.purity),
        entropy=float(line.entropy),
        pmi=float(line.pmi),
        z=float(line.z),
        q=float(line.q),
        pattern=candidate.pattern,
        examples=tuple((int(row), texts[row][:_EXCERPT]) for row in shown),
        also=tuple(candidate.also[:20]),
    )
