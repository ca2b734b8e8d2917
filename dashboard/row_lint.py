"""The linter on the Bench's training rows: what in them gives a label away, and whether it was planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import panels
import readers
import streamlit as st
from text import plain, short, show_text
from widgets import on_demand

from lab.defend import DEFENSES

if TYPE_CHECKING:
    import pandas as pd

    from lab.experiment import Experiment
    from lab.lint import Finding, LintReport, PlantedShare
    from lab.stats import Rate

#: A planted cue that is a word counts as seen among so many of the vocabulary.
_WORDS = 20
#: Artefacts that are shown with a text.
_EXAMPLES = 3
_HELP = "Reads every row, which takes about a second for a thousand sentences. Trains nothing."
_MEANING = (
    "An artefact is a mark that no reader decides by and that predicts a label: purity is its label's share "
    "of the texts that have it, all classes weighing the same, and H(y|t) what is left to guess, in bits (0: "
    "nothing). z is about standard normal by chance; 9 in a mark stands for any digit."
)


def render(experiment: Experiment, rows: pd.DataFrame) -> None:
    """Draw the button, and what was found once these very rows were asked about.

    Args:
        experiment: What is asked.
        rows: Its training rows, poisoned (`lab.preview.preview_rows`).
    """
    st.markdown("## Lint this dataset")
    st.caption(plain(_saying(experiment, len(rows)), 300))
    # other rows are another question: the button is back when a knob has changed them
    key = readers.digest(rows[["text", "label"]])
    if not on_demand("lint", {key: "Lint these rows"}, icon=":material/rule:", help={key: _HELP}):
        return
    with panels.part("The linter"):
        with st.spinner(f"Linting {len(rows):,} rows …", show_time=True):
            report, by_artefacts, by_words = _linted(key, readers.digest(rows[["row_id", "poisoned"]]), rows)
        st.markdown(_verdict(report, by_artefacts, by_words, int(rows["poisoned"].sum())))
        _render_findings(report)


def _saying(experiment: Experiment, rows: int) -> str:
    cleaners = [str(d.name) for d in experiment.defense if DEFENSES[d.name].stage == "data"]  # type: ignore[attr-defined]
    before = f", before {', '.join(cleaners)} cleaned them" if cleaners else ""
    return (
        f"The linter sees the {rows:,} training rows as they are{before}, and is told nothing of the poison."
    )


@st.cache_data(show_spinner=False, max_entries=20)
def _linted(texts: str, poison: str, _rows: pd.DataFrame) -> tuple[LintReport, PlantedShare, PlantedShare]:
    """The report, and what its artefacts point at: alone, and with the first words of the vocabulary."""
    from lab.lint import lint_texts, planted_share

    report = lint_texts(_rows["text"].tolist(), _rows["label"].tolist())
    words = [*report.artefacts, *report.vocabulary[:_WORDS]]
    return report, planted_share(_rows, report.artefacts), planted_share(_rows, words)


def _verdict(report: LintReport, by_artefacts: PlantedShare, by_words: PlantedShare, poisoned: int) -> str:
    """Whether what was planted is among what was found."""
    found = by_artefacts.planted
    others = f"Of the {'other ' if poisoned else ''}rows, artefacts flag {_counted(by_artefacts.others)}."
    if not poisoned:
        return f"Nothing was planted: what is found is the data's own. {others}"
    if not found.n:
        return f"Only labels were changed: no planted text is there to be found. {others}"
    head = "Artefacts lie in what was planted" if found.k else "What was planted is not among the artefacts"
    said = f"**{head}**: {_counted(found)} of the poisoned rows have one there. {others}"
    if found.k == found.n:
        return said
    return f"{said} With the vocabulary's first {_WORDS} words it is {_counted(by_words.planted)}."


def _counted(share: Rate) -> str:
    return f"{share.k:,} of {share.n:,} ({panels.percent(share.value)}; {panels.interval(asdict(share))})"


def _render_findings(report: LintReport) -> None:
    import pandas as pd

    found = report.to_frame() if report.artefacts or report.vocabulary else pd.DataFrame()
    numbers = found.drop(columns="examples", errors="ignore")
    title = f"{len(report.artefacts)} artefact{'s' * (len(report.artefacts) != 1)} found"
    with panels.table_panel(title, _MEANING, key="lint", table=numbers):
        if report.artefacts:
            _table(report.artefacts)
        else:
            st.caption("No markup, identifier, fixed string, place, format or odd character tells a label.")
        for finding in report.artefacts[:_EXAMPLES]:
            _render_example(finding)
        if report.vocabulary:
            with st.expander(f"The first {min(_WORDS, len(report.vocabulary))} words of the vocabulary"):
                st.caption("Words that predict a label, strongest first. Honest ones are among them.")
                _table(report.vocabulary[:_WORDS])


def _render_example(finding: Finding) -> None:
    from lab.lint import flagged_spans

    for row, text in finding.examples[:1]:
        show_text(text, flagged_spans(text, [finding]), label=f"{short(finding.what)}, row {row + 1}")


def _table(findings: Sequence[Finding]) -> None:
    number = st.column_config.NumberColumn
    st.dataframe(
        {
            "what": [short(f.what) for f in findings],
            "kind": [f.kind for f in findings],
            "speaks for": [short(f.label) for f in findings],
            "texts": [f"{f.k:,} of {f.n:,}" for f in findings],
            "purity": [100 * f.purity for f in findings],
            "entropy": [f.entropy for f in findings],
            "z": [f.z for f in findings],
        },
        hide_index=True,
        height=38 + 35 * min(len(findings), 12),
        column_config={
            "texts": st.column_config.TextColumn("texts", help="that label's, of all that have it"),
            "purity": number("purity", format="%.1f %%"),
            "entropy": number("H(y|t)", format="%.2f"),
            "z": number("z", format="%.1f"),
        },
    )
