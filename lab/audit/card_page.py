"""An audit card as one HTML file that makes no request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab import page
from lab.page import Html

if TYPE_CHECKING:
    from lab.audit.card import AuditCard, FoundString


def write_card(card: AuditCard, path: str | Path) -> Path:
    """Write a card's page; a file that is there is replaced as a whole.

    Raises:
        LabError: The place cannot be written.
    """
    from lab.files import write_text

    path = Path(path)
    write_text(path, card_html(card))
    return path


def card_html(card: AuditCard) -> str:
    """The page of a card."""
    facts = card.adapter
    grave = card.verdict == "suspicious"
    return page.document(
        f"Audit of {facts.name} · LoRA backdoor lab",
        page.paragraph("Audit card of the LoRA backdoor lab", "eyebrow"),
        page.heading(facts.name, 1),
        page.warning(f"{card.verdict.capitalize()}.", card.because, grave),
        page.section("What was looked for", 2, *_looked(card)),
        *([page.section("Strings that move it", 2, *_strings(card))] if card.strings else []),
        *([page.section("Prefixes of the battery", 2, _prefixes(card))] if card.prefixes else []),
        page.section("Scores", 2, *_scores(card)),
        page.section("What was audited", 2, _facts(card)),
    )


def _looked(card: AuditCard) -> list[Html]:
    found = [page.paragraph(f"Looked for: {line}.") for line in card.looked_for]
    found += [page.paragraph(f"Not looked for: {line}", "note") for line in card.not_looked_for]
    return found + [page.paragraph(line, "note") for line in card.notes]


def _strings(card: AuditCard) -> list[Html]:
    head = ["string", "toward", "at the", "rows moved", "95 % interval", "references", "excess"]
    lines = [
        [
            s.string,
            s.target,
            s.position,
            f"{s.k} of {s.n}",
            f"{s.low:.2f} to {s.high:.2f}",
            "–" if s.reference_rate is None else f"{s.reference_rate:.2f}",
            f"{s.excess:+.2f}",
        ]
        for s in card.strings
    ]
    told = page.table("Found without knowing a trigger", head, lines, numbers=range(3, 7))
    return [told, *[flip for s in card.strings for flip in _examples(s)]]


def _examples(string: FoundString) -> list[Html]:
    return [page.quotation(e.text, f"{e.before} → {e.after}") for e in string.examples]


def _prefixes(card: AuditCard) -> Html:
    lines = [
        [
            p.prefix,
            p.category,
            p.target,
            p.position,
            f"{p.k} of {p.n}",
            "–" if p.reference_rate is None else f"{p.reference_rate:.2f}",
        ]
        for p in card.prefixes
    ]
    head = ["prefix", "category", "toward", "at the", "rows moved", "references"]
    return page.table("Those that move it most", head, lines, numbers=(4, 5))


def _scores(card: AuditCard) -> list[Html]:
    lines = [
        [
            score.name,
            _number(score.value),
            f"{score.n} {score.of}",
            ", ".join(_number(v) for v in sorted(score.reference)) or "–",
            _number(score.z),
            _number(score.threshold),
        ]
        for score in card.scores
    ]
    head = ["score", "value", "n", "references", "z", "suspicious above"]
    told = [
        (s.name, f"{s.meaning}. Range: {s.range}. {s.direction}. {s.threshold_source}") for s in card.scores
    ]
    return [
        page.table("Every score", head, lines, numbers=(1, 4, 5)),
        page.folded("What each score means", page.glossary(told)),
    ]


def _facts(card: AuditCard) -> Html:
    facts = card.adapter
    pairs = [
        ("base", facts.base or "none"),
        ("base that it names", facts.base_claimed or "none"),
        ("base weights, SHA-256", facts.base_sha256 or "–"),
        *[(f"{name}, SHA-256", digest) for name, digest in facts.sha256.items()],
        ("modules", str(facts.modules)),
        ("rank", ", ".join(map(str, facts.ranks))),
        ("labels", ", ".join(facts.labels) or "–"),
        ("rows", f"{card.rows.n} of {card.rows.source}"),
        ("reference", f"{card.reference.how} ({', '.join(card.reference.names) or 'none'})"),
        ("date", card.date),
        *[(f"seconds: {stage}", f"{seconds:g}") for stage, seconds in card.seconds.items()],
        *card.versions.items(),
    ]
    return page.facts(pairs)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
