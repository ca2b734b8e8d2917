"""The linter of labelled texts: what predicts a label too well, apart from what the texts say.

Two lists come out. *Artefacts* are marks that no reader decides by: markup, digits and identifiers, fixed
strings, places, formats, odd characters, doubles. *Vocabulary* are words, ranked; hundreds of honest ones
tell a topic, so that only their order says something.
"""

from __future__ import annotations

from lab.lint.findings import Finding, LintReport, flagged_spans, is_flagged
from lab.lint.linting import LintSettings, lint_dataset, lint_texts
from lab.lint.planted import PlantedShare, planted_share
from lab.lint.scores import association_scores, conditional_entropy

__all__ = [
    "Finding",
    "LintReport",
    "LintSettings",
    "PlantedShare",
    "association_scores",
    "conditional_entropy",
    "flagged_spans",
    "is_flagged",
    "lint_dataset",
    "lint_texts",
    "planted_share",
]
