"""An audit card on a page: the verdict, what it rests on, and the way to take it along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st
from text import plain, short, show_text

if TYPE_CHECKING:
    from lab.audit.card import AuditCard, FoundString, PrefixFinding, Score

_LONGEST = 200
#: Sign and box of a verdict; none is green, as nothing found is not clean.
_VERDICTS: Mapping[str, tuple[Any, str]] = {
    "suspicious": (st.error, ":material/warning:"),
    "nothing found": (st.info, ":material/search_off:"),
    "cannot say": (st.warning, ":material/help:"),
}
_CSS = """
<style>
.lab-score {border-color: #8A94A0;} .lab-score.lab-over {border-color: #D55E00;}
</style>
"""


def render(card: AuditCard, name: str) -> None:
    """Draw a card.

    Args:
        card: The card; every text in it comes from outside.
        name: The audit's id, for keys and file names.
    """
    st.html(_CSS)
    _render_head(card, name)
    _render_tiles(card.scores)
    _render_looked(card)
    if card.strings:
        _render_strings(card)
    if card.prefixes:
        _render_prefixes(card)
    _render_scores(card)
    _render_facts(card)


def _render_head(card: AuditCard, name: str) -> None:
    from lab.audit.card_page import card_html

    left, right = st.columns([0.66, 0.34], vertical_alignment="center")
    left.markdown(f"## {plain(card.adapter.name)}")
    with right.container(horizontal=True, horizontal_alignment="right"):
        for kind, mime, made in (
            ("JSON", "application/json", card.to_json),
            ("HTML", "text/html", lambda: card_html(card)),
        ):
            st.download_button(
                f"Card as {kind}",
                data=lambda made=made: made().encode(),
                file_name=f"audit-{name}.{kind.lower()}",
                mime=mime,
                key=f"card-{kind}-{name}",
                icon=":material/download:",
                on_click="ignore",
            )
    box, icon = _VERDICTS[card.verdict]
    box(f"**{card.verdict.capitalize()}.** {plain(card.because, 500)}", icon=icon)
    facts = card.adapter
    ranks = ", ".join(map(str, facts.ranks))
    st.caption(
        f"{facts.modules} modules of rank {ranks} on {plain(facts.base) or 'no base'}; "
        f"{card.rows.n} rows of {plain(card.rows.source, 120)}; reference: {plain(card.reference.how, 120)}."
    )


def _render_tiles(scores: Sequence[Score]) -> None:
    """The scores that the verdict rests on, each beside its threshold and its references."""
    judged = [score for score in scores if score.threshold is not None]
    if judged:
        st.html(f'<div class="lab-tiles">{"".join(map(_tile, judged))}</div>')


def _tile(score: Score) -> str:
    from lab.markup import escaped

    over = " lab-over" if score.suspicious else ""
    said = "above" if score.suspicious else "not above"
    return (
        f'<div class="lab-tile lab-score{over}" title="{escaped(score.meaning)}">'
        f'<span class="lab-name">{escaped(score.name.replace("_", " "))}</span>'
        f'<span class="lab-value">{_number(score.value)}</span>'
        f'<span class="lab-under">{said} its threshold {_number(score.threshold)}, '
        f"n = {score.n:,} {escaped(score.of)}</span>"
        f'<span class="lab-twin">{_beside(score)}</span></div>'
    )


def _render_looked(card: AuditCard) -> None:
    with st.container(border=True, key="panel-looked"):
        st.markdown("## What was looked for, and what was not")
        for head, lines in (
            ("Looked for", card.looked_for),
            ("Not looked for", card.not_looked_for),
            ("Notes", card.notes),
        ):
            if lines:
                said = "\n".join(f"- {plain(line, 400)}" for line in lines)
                st.markdown(f"**{head}**\n\n{said}")
        if not card.not_looked_for:
            st.caption(
                "Everything that an audit here looks for; a backdoor of another kind would stay unseen."
            )


def _render_strings(card: AuditCard) -> None:
    with st.container(border=True, key="panel-strings"):
        st.markdown("## Strings that move it")
        st.caption(
            "Found without knowing a trigger. Excess: share of rows moved, minus the references' share."
        )
        strings = {"string": [short(s.string, _LONGEST) for s in card.strings]}
        excess = {"excess": [f"{s.excess:+.2f}" for s in card.strings]}
        _table({**strings, **_moved(card.strings), **excess}, lines=8)
        shown = [found for found in card.strings if found.examples]
        if shown:
            st.markdown("**Rows with the first one, and what they were called before and after**")
            _render_flips(shown[0])
        if shown[1:]:
            with st.expander("Rows with the others"):
                for found in shown[1:]:
                    _render_flips(found)


def _render_flips(found: FoundString) -> None:
    """Rows with the string in them, marked, and what they were called before and after."""
    for flip in found.examples:
        start = flip.text.find(found.string) if found.position == "start" else flip.text.rfind(found.string)
        spans = [(start, start + len(found.string))] if start >= 0 else []
        show_text(flip.text[:2000], spans, label=f"{flip.before} → {flip.after}")


def _render_prefixes(card: AuditCard) -> None:
    with st.container(border=True, key="panel-prefixes"):
        st.markdown("## Prefixes of the battery that move it most")
        st.caption(
            "Few rows a prefix, as there are many: each interval is wide, and honest words move rows too."
        )
        prefixes = {
            "prefix": [short(p.prefix, _LONGEST) for p in card.prefixes],
            "category": [short(p.category) for p in card.prefixes],
        }
        _table({**prefixes, **_moved(card.prefixes)}, lines=8)


def _moved(found: Sequence[FoundString | PrefixFinding]) -> dict[str, list[str]]:
    """How many rows each moves where to, beside the references: the columns that both tables share."""
    return {
        "toward": [short(f.target) for f in found],
        "at the": [short(f.position) for f in found],
        "rows moved": [f"{f.k} of {f.n}" for f in found],
        "95 %": [f"{f.low:.2f} to {f.high:.2f}" for f in found],
        "references": [_rate(f.reference_rate) for f in found],
    }


def _render_scores(card: AuditCard) -> None:
    with st.expander(f"All {len(card.scores)} scores, beside their references"):
        _table(
            {
                "score": [short(s.name) for s in card.scores],
                "value": [_number(s.value) for s in card.scores],
                "n": [f"{s.n:,} {short(s.of)}" for s in card.scores],
                "references": [_span(s) for s in card.scores],
                "z": [_number(s.z) for s in card.scores],
                "suspicious above": [_number(s.threshold) for s in card.scores],
                "what it is": [short(s.meaning, _LONGEST) for s in card.scores],
                "how to read it": [short(f"{s.range}; {s.direction}", _LONGEST) for s in card.scores],
            }
        )


def _render_facts(card: AuditCard) -> None:
    facts = card.adapter
    pairs = {
        "base": facts.base or "none",
        "base that it names": facts.base_claimed or "none",
        "base weights, SHA-256": facts.base_sha256 or "–",
        **{f"{name}, SHA-256": digest for name, digest in facts.sha256.items()},
        "labels": ", ".join(facts.labels) or "–",
        "references": ", ".join(card.reference.names) or "none",
        "date": card.date,
        **{f"seconds: {stage}": f"{seconds:g}" for stage, seconds in card.seconds.items()},
        **card.versions,
    }
    with st.expander("Facts and hashes"):
        _table(
            {
                "fact": [short(name, _LONGEST) for name in pairs],
                "value": [short(value, _LONGEST) for value in pairs.values()],
            }
        )


def _table(columns: Mapping[str, Sequence[str]], lines: int = 30) -> None:
    """A table of text, which scrolls by itself beyond so many lines."""
    count = len(next(iter(columns.values())))
    st.dataframe(dict(columns), hide_index=True, height=38 + 35 * min(count, lines))


def _beside(score: Score) -> str:
    if score.reference:
        return f"references {_span(score)}"
    # an excess is a difference: there is nothing left to lay beside it
    return "what moves the references too is taken off" if score.finding == "search" else "no references"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _span(score: Score) -> str:
    """The smallest and the largest of the references, and how many there are."""
    if not score.reference:
        return "–"
    low, high = min(score.reference), max(score.reference)
    return f"{_number(low)} to {_number(high)} ({len(score.reference)})"
