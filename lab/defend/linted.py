"""Defenses from the linter: drop what it flags, mask it, or give the other classes as much of it.

The linter sees the training rows as they are, poison and all, and is told nothing. What it does not find
stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lab.defend._defense import Cleaner
from lab.defend.cleaning import Cleaned
from lab.registry import Knobs
from lab.seeds import stage_rng

if TYPE_CHECKING:
    from lab.lint import Finding


class _Linted(Knobs):
    """What can be set on every defense from the linter."""

    # the linter's own default
    purity: float = Field(0.85, gt=0, le=1, description="share of one class from which a mark is an artefact")


class DropLinted(_Linted):
    """What can be set on dropping linted rows."""

    name: Literal["drop_linted"] = "drop_linted"


class MaskLinted(_Linted):
    """What can be set on masking linted tokens."""

    name: Literal["mask_linted"] = "mask_linted"


class CounterInjection(_Linted):
    """What can be set on balanced counter-injection."""

    name: Literal["counter_injection"] = "counter_injection"


def artefacts_of(texts: Sequence[str], labels: Sequence[str], purity: float) -> list[Finding]:
    """The marks that have a place in a text, by the linter's word; none where there is one label only."""
    from lab.lint import LintSettings, lint_texts

    if len(set(labels)) < 2:
        return []
    report = lint_texts(texts, labels, settings=LintSettings(purity=purity))
    return [finding for finding in report.artefacts if finding.pattern]


def _drop(knobs: DropLinted, texts: Sequence[str], labels: Sequence[str], seed: int) -> Cleaned:
    from lab.lint import is_flagged

    found = artefacts_of(texts, labels, knobs.purity)
    kept = [not is_flagged(text, label, found) for text, label in zip(texts, labels, strict=True)]
    return Cleaned(list(texts), kept)


def _mask(knobs: MaskLinted, texts: Sequence[str], labels: Sequence[str], seed: int) -> Cleaned:
    found = artefacts_of(texts, labels, knobs.purity)
    return Cleaned([_without(text, found) for text in texts])


def _without(text: str, found: Sequence[Finding]) -> str:
    """A text without its flagged pieces; one that is nothing else stays."""
    from lab.lint import flagged_spans
    from lab.poison.insertion import cut

    spans = flagged_spans(text, found)
    left = cut(text, spans)
    return left if spans and left.strip() else text


def _counter(knobs: CounterInjection, texts: Sequence[str], labels: Sequence[str], seed: int) -> Cleaned:
    """Pieces as they were found go into texts of each other class, until it has its share of them."""
    from lab.lint import flagged_spans
    from lab.poison import insert

    out = list(texts)
    for number, finding in enumerate(artefacts_of(texts, labels, knobs.purity)):
        pieces = _pieces(texts, labels, finding)
        rng = stage_rng(seed, "defense", f"counter_injection/{number}")
        for label in sorted(set(labels) - {finding.label}):
            own = [i for i, other in enumerate(labels) if other == label]
            have = sum(bool(flagged_spans(texts[i], [finding])) for i in own)
            missing = round(finding.k / finding.of * len(own)) - have
            for i in rng.choice(own, max(0, min(missing, len(own))), replace=False).tolist():
                out[i] = insert(out[i], pieces[int(rng.integers(len(pieces)))], "random", rng=rng).text
    return Cleaned(out)


def _pieces(texts: Sequence[str], labels: Sequence[str], finding: Finding) -> list[str]:
    from lab.lint import flagged_spans

    return [
        text[start:end]
        for text, label in zip(texts, labels, strict=True)
        if label == finding.label
        for start, end in flagged_spans(text, [finding])[:1]
    ] or [finding.what]


DROP_LINTED = Cleaner(
    name="drop_linted",
    goal="Drop the training rows in which the dataset linter finds a mark that gives their label away.",
    paper="this lab's linter; arXiv 2506.11402 proposes H(y|t) as a diagnostic",
    stage="data",
    knobs=DropLinted,
    changes="which rows are trained on",
    clean=_drop,
)
MASK_LINTED = Cleaner(
    name="mask_linted",
    goal="Cut out of all training texts what the dataset linter finds to give a label away.",
    paper="this lab's linter; arXiv 2506.11402 proposes H(y|t) as a diagnostic",
    stage="data",
    knobs=MaskLinted,
    changes="the training texts",
    clean=_mask,
)
COUNTER_INJECTION = Cleaner(
    name="counter_injection",
    goal="Put what the linter finds into texts of the other classes too, until it predicts nothing.",
    paper="this lab; balancing a spurious attribute over the classes is standard against short cuts",
    stage="data",
    knobs=CounterInjection,
    changes="the training texts of the other classes",
    clean=_counter,
)
