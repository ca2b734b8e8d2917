"""What a linter found: each finding with its numbers, and how to see it again in a text."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Finding:
    """Something in texts that predicts a label.

    Attributes:
        what: The feature as people read it: "9999-99-99" (9 stands for any digit), "rfc 9999", "<b>".
        kind: "word", "phrase", "identifier", "character", "markup", "format" or "list".
        label: The class that it speaks for.
        k: Texts of that class that have it.
        n: Texts that have it.
        of: Texts of that class.
        purity: The class's share given the feature, every class weighing the same, in (0, 1].
        entropy: H(y|t) in bits; 0: only this class has it.
        pmi: Pointwise mutual information in bits; 0: it tells nothing.
        z: Signed root of the likelihood ratio, about standard normal by chance; higher predicts better.
        q: p-value adjusted for all features that were looked at (Benjamini-Hochberg).
        pattern: A regular expression that finds it in a text, case ignored; "" where it has no place in it.
        examples: Up to three texts that have it: (row number from 0, text).
        also: Other features of the same texts, the weaker ones.
    """

    what: str
    kind: str
    label: str
    k: int
    n: int
    of: int
    purity: float
    entropy: float
    pmi: float
    z: float
    q: float
    pattern: str = ""
    examples: tuple[tuple[int, str], ...] = ()
    also: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """It in a sentence."""
        return (
            f"{self.kind} {self.what!r}: {self.k:,} of {self.of:,} texts labelled {self.label!r} have it "
            f"({self.k / self.of:.1%}), {self.n - self.k:,} others do"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class LintReport:
    """What was found in a dataset.

    Attributes:
        name: The dataset.
        rows: How many texts.
        labels: Texts of each class.
        features: How many features were tested.
        artefacts: Marks that no reader decides by, strongest first.
        vocabulary: Words that predict a label, strongest first; honest ones are among them.
        settings: What was asked.
    """

    name: str
    rows: int
    labels: dict[str, int]
    features: int
    artefacts: tuple[Finding, ...]
    vocabulary: tuple[Finding, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `lab lint --json` prints them."""
        return asdict(self)

    def to_frame(self) -> Any:
        """All findings as a table, artefacts first."""
        import pandas as pd

        lines = [
            {"list": name, "rank": rank, **finding.to_dict()}
            for name, findings in (("artefacts", self.artefacts), ("vocabulary", self.vocabulary))
            for rank, finding in enumerate(findings, start=1)
        ]
        return pd.DataFrame(lines)


def flagged_spans(text: str, findings: Sequence[Finding]) -> Spans:
    """Where findings stand in a text: half-open character ranges, sorted, those that touch joined."""
    found = sorted(
        match.span()
        for pattern in {f.pattern for f in findings if f.pattern}
        for match in _compiled(pattern).finditer(text)
        if match.end() > match.start()
    )
    joined: Spans = []
    for start, end in found:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def is_flagged(text: str, label: str, findings: Sequence[Finding]) -> bool:
    """Whether a text has a finding that speaks for its own label."""
    return bool(flagged_spans(text, [f for f in findings if f.label == label]))


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
