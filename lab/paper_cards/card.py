"""A paper's card: the table of its claims with verdicts, and the forms in which it is shown and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.paper_cards.cells import HERE, NOTHING
from lab.paper_cards.claims import PaperClaims, Quantity
from lab.paper_cards.evidence import RESULT_COLUMNS
from lab.paper_cards.verdicts import RULE, VERDICTS, Expected, reason, short, verdict

if TYPE_CHECKING:
    import pandas as pd

#: One line per claim. value, low and high are in the unit of `measured`; n is rows of all seeds together
#: (of a trend: cells); `held` says whether the number is this machine's or a committed one; runs has commas.
CARD_COLUMNS = (
    "claim", "says", "place", "paper", "paper_value", "tolerance", "measured", "expected", "value", "low",
    "high", "n", "seeds", "held", "machine", "verdict", "reason", "note", "own", "source", "tier", "runs",
)  # fmt: skip

_NAMES = {
    "attack_success_rate": "ASR",
    "excess_asr": "excess ASR",
    "reliance": "accuracy lost by the trigger",
    "triggered_accuracy": "accuracy with the trigger",
    "held_out_members": "ASR of the trigger family's other members",
    "other_families_of_its_category": "ASR of other families of its category",
    "auc": "AUC",
}


def evaluate(claims: PaperClaims, results: pd.DataFrame) -> pd.DataFrame:
    """Judge a paper's claims by what is known; nothing is read and nothing is run.

    Args:
        claims: The paper's.
        results: `lab.paper_cards.RESULT_COLUMNS`, one line per claim; a claim without a line is not run.

    Returns:
        `CARD_COLUMNS`, one line per claim in their order.
    """
    import pandas as pd

    found: dict[str, dict[Any, Any]] = {str(line["claim"]): line for line in results.to_dict("records")}
    lines = []
    for claim in claims.claims:
        known = found.get(claim.id, {})
        own = {name: known.get(name, getattr(NOTHING, name)) for name in RESULT_COLUMNS[1:]}
        expected = claim.quantity.expected if claim.quantity else Expected()
        number = (float(own["value"]), float(own["low"]), float(own["high"]))
        lines.append(
            {
                "claim": claim.id,
                "says": claim.says,
                "place": claim.place,
                "paper": claim.paper,
                "paper_value": expected.paper_value,
                "tolerance": expected.tolerance,
                "measured": told(claim.quantity),
                "expected": str(expected) if claim.quantity else "",
                **own,
                "verdict": verdict(*number, expected),
                "reason": reason(*number, expected),
                "note": claim.note,
                "own": claim.own,
                "source": claim.quantity.source if claim.quantity else "",
                "tier": claims.tier(claim),
            }
        )
    return pd.DataFrame(lines, columns=list(CARD_COLUMNS))


def told(quantity: Quantity | None) -> str:
    """A quantity in words: "excess ASR, full, count 8 minus lora, count 8"; "" for none."""
    if quantity is None:
        return ""
    measure = _named(quantity.measure)
    point = _point(quantity.of) or _stem(quantity, 0)
    at = f", {point}" if point else ""
    if quantity.trend:
        return f"rank correlation of {measure} with {_last(quantity.trend)}{at}"
    if quantity.minus_measure:
        return f"{measure} minus {_named(quantity.minus_measure)}{at}"
    if quantity.minus is not None:
        return f"{measure}{at} minus {_point(quantity.minus)}"
    return f"{measure}{at} minus {_stem(quantity, 1)}" if len(quantity.lines) == 2 else f"{measure}{at}"


def _named(measure: str) -> str:
    twin = measure.startswith("twin.")
    kind = measure.removeprefix("twin.")
    return ("the clean twin's " if twin else "") + _NAMES.get(kind, kind.replace("_", " "))


def _stem(quantity: Quantity, place: int) -> str:
    """What a committed line is of, without the measure at its end."""
    return quantity.lines[place].removesuffix(f".{quantity.measure}") if quantity.lines else ""


def _point(point: Mapping[str, Any]) -> str:
    bare = ("arm", "base.model")
    return ", ".join(str(v) if k in bare else f"{_last(k)} {v}" for k, v in point.items())


def _last(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")


@dataclass(frozen=True)
class Card:
    """A paper's claims with verdicts.

    Attributes:
        claims: What the paper claims, and where numbers come from.
        table: `CARD_COLUMNS`, one line per claim.
        facts: Further facts to be told: tier, runs folder, what failed.
    """

    claims: PaperClaims
    table: pd.DataFrame
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The table's lines, by column."""
        return [{str(name): value for name, value in line.items()} for line in self.table.to_dict("records")]

    @property
    def counts(self) -> dict[str, int]:
        """How many of the paper's claims have each verdict, in the order of `VERDICTS`, zeros too."""
        found = self.table.loc[~self.table["own"].astype(bool), "verdict"].tolist()
        return {name: found.count(name) for name in VERDICTS}

    @property
    def summary(self) -> str:
        """The counts as a sentence: "13 claims: agrees 5, …"."""
        told = ", ".join(f"{name} {count}" for name, count in self.counts.items() if count)
        own = int(self.table["own"].sum())
        beside = f", and {own} check{'s' if own > 1 else ''} of our own" if own else ""
        return f"{sum(self.counts.values())} claims: {told}{beside}."

    def __repr__(self) -> str:
        return f"<Card {self.claims.name}: {self.summary}>"

    def __rich__(self) -> Any:
        from lab.console.papers import card_view

        return card_view(self)

    def _repr_html_(self) -> str:
        from lab.paper_cards.card_page import card_parts

        return "\n".join(card_parts(self, level=3))

    def to_json(self) -> str:
        """The card as one JSON document; what is not known is null."""
        table = self.table.assign(n=self.table["n"].astype(int))
        document = {
            "paper": {"name": self.claims.name, **self.claims.paper.model_dump()},
            "rule": RULE,
            "counts": self.counts,
            "facts": self.facts,
            "claims": json.loads(table.to_json(orient="records")),
        }
        return json.dumps(document, ensure_ascii=False, indent=1)

    def to_markdown(self) -> str:
        """The card as a section with one table, for a README; nothing in it is read as markup but its own."""
        paper = self.claims.paper
        notes = [
            f"- {_plain(line['says'])} *{line['verdict']}*: {_plain(line['note'])}"
            for line in self.lines
            if line["note"]
        ]
        return "\n".join(
            [
                f"### {_plain(paper.title)} (arXiv {_plain(paper.arxiv)})",
                "",
                f"{_plain(paper.says)}",
                "",
                f"Theirs: {_plain(paper.theirs)}. Ours: {_plain(paper.ours)}. **{_plain(self.summary)}**",
                "",
                *self.markdown_table(),
                "",
                RULE,
                *(["", *notes] if notes else []),
                "",
            ]
        )

    def markdown_table(self) -> list[str]:
        """The lines of its table alone."""
        head = ["claim", "the paper's", "here [95 %], n", "where", "verdict"]
        lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|"]
        for line in self.lines:
            cells = [
                title(line),
                f"{line['paper']} ({line['place']})",
                f"{line['measured']}: {number(line)}" if has_number(line) else "–",
                held(line),
                str(line["verdict"]),
            ]
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
        return lines

    def to_html(self) -> str:
        """The card as one HTML document that makes no request."""
        from lab.paper_cards.card_page import card_html

        return card_html(self)


def title(line: Mapping[str, Any]) -> str:
    """A line's claim; what the paper does not claim is called a check."""
    return f"Own check: {line['says']}" if line["own"] else str(line["says"])


def has_number(line: Mapping[str, Any]) -> bool:
    """Whether anything was measured for a line of a card."""
    return not math.isnan(float(line["value"]))


def number(line: Mapping[str, Any]) -> str:
    """The measured number of a card's line: ".53 [.41, .62], n = 1,377"; "–" for none."""
    if not has_number(line):
        return "–"
    value, low, high = (float(line[name]) for name in ("value", "low", "high"))
    ends = "" if math.isnan(low) or math.isnan(high) else f" [{short(low)}, {short(high)}]"
    n = f", n = {int(line['n']):,}" if line["n"] else ""
    return f"{short(value)}{ends}{n}"


def held(line: Mapping[str, Any]) -> str:
    """Where a line's number was measured, and on which seeds."""
    if not has_number(line):
        return "–"
    where = HERE if line["held"] == HERE else f"{line['held']} ({line['machine']})"
    seeds = str(line["seeds"]).split()
    return f"{where}, seed{'s' if len(seeds) != 1 else ''} {' '.join(seeds)}" if seeds else where


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: object) -> str:
    """Text for Markdown: one line; what would begin markup or HTML is escaped."""
    from lab.figures.text import safe_text

    said = " ".join(safe_text(str(text)).split())
    for sign in "\\`*_[]":
        said = said.replace(sign, f"\\{sign}")
    return said
