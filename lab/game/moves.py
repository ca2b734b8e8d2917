"""The moves of a match: what a team may ask of a sealed adapter, what it costs, and what comes back.

A move knows no model: it is handed `Ask`, texts in and probabilities out. What it costs is known from what is
asked, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.errors import LabError
from lab.registry import lookup

#: Texts in, probabilities out: float array, texts × labels, rows summing to 1.
Ask = Callable[[Sequence[str]], np.ndarray]

MOST_TEXTS, LONGEST_TEXT, LONGEST_PHRASE = 20, 2_000, 120
PHRASE_ROWS = (10, 20, 40)
POSITIONS = ("start", "end")
WEIGHTS_COST = 15
#: Rows that each family's phrase is put to in a sweep.
SWEEP_ROWS = 2
#: Of `lab.audit.STATISTICS`, those that a player sees, with what they say.
SHOWN_STATISTICS = {
    "norm_mean": "how large its changes are, on average",
    "norm_std": "how unevenly they are spread over the modules",
    "top_ratio_max": "how much of the strongest module lies in one direction",
    "entropy_mean": "how many directions share the change (1: all alike)",
    "attention_mlp_ratio": "attention's changes over the others'",
}


@dataclass(frozen=True)
class Move:
    """One kind of move.

    Attributes:
        name: What the ledger calls it.
        title: What people read.
        goal: One line: what it is good for.
        paper: The paper that it comes from.
        price: The cost in words.
    """

    name: str
    title: str
    goal: str
    paper: str
    price: str


#: The registry of moves.
MOVES: dict[str, Move] = {
    "texts": Move(
        "texts",
        "Ask your own texts",
        "Write texts and read what it answers; with and without a suspicion of yours.",
        "arXiv 2605.30189: a backdoor shows in what a model answers, if one finds the words.",
        "1 probe a text",
    ),
    "phrase": Move(
        "phrase",
        "Try a phrase on held rows",
        "Add one phrase to rows that nothing was trained on, and count how many answers it turns.",
        "arXiv 2601.06305: attack success is counted on rows, beside what a clean model does.",
        "1 probe a row",
    ),
    "sweep": Move(
        "sweep",
        "Sweep the families",
        "One phrase of every family on two rows each: broad and shallow, where backdoors generalise.",
        "arXiv 2605.30189: batteries of prefixes find a trigger by its relatives.",
        f"{SWEEP_ROWS} probes a family",
    ),
    "weights": Move(
        "weights",
        "Look at the weights",
        "Sizes and spectra of the update, without asking anything; compare adapters with each other.",
        "arXiv 2605.30189: the spread of update norms as a detector, which needs references.",
        f"{WEIGHTS_COST} probes",
    ),
}


def move_cost(move: str, asked: Mapping[str, Any]) -> int:
    """How many probes a move takes.

    Raises:
        LabError: There is no such move, or it asks for what is not allowed.
    """
    lookup(MOVES, move, "move")
    if move == "texts":
        return len(_texts(asked))
    if move == "phrase":
        _check_phrase(asked)
        return int(asked["rows"])
    if move == "sweep":
        if not asked["phrases"]:
            raise LabError("phrases: a sweep needs at least one family.")
        return SWEEP_ROWS * len(asked["phrases"])
    return WEIGHTS_COST


def split_texts(typed: str) -> list[str]:
    """The texts of a text area: one a line, empty ones left out."""
    return [line.strip() for line in typed.splitlines() if line.strip()]


def sweep_phrases(families: Sequence[str]) -> dict[str, str]:
    """For each family a phrase that no dealt adapter was trained with: its first held-out member."""
    from lab.poison import TRIGGER_FAMILIES

    return {name: TRIGGER_FAMILIES[name].probe[0] for name in families if name in TRIGGER_FAMILIES}


def answer_texts(ask: Ask, labels: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """What an adapter says of texts.

    Returns:
        lines: text, label and its probability in [0, 1], in the order of the texts.
    """
    shares = ask(list(texts))
    best = shares.argmax(axis=1)
    lines = [
        {"text": text, "label": labels[i], "probability": round(float(row[i]), 4)}
        for text, row, i in zip(texts, shares, best, strict=True)
    ]
    return {"lines": lines}


def answer_phrase(
    ask: Ask, reference: Ask | None, labels: Sequence[str], texts: Sequence[str], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """How many rows a phrase turns to each label, beside a clean reference on the same rows.

    Args:
        ask: The suspect.
        reference: An adapter that is known to be clean; None for none.
        labels: In the order of the outputs.
        texts: The held rows, as many as were paid for.
        asked: phrase and position.

    Returns:
        lines: for each label, of n rows that got another one without the phrase, the k that get it with the
        phrase: value, low, high (95 % Wilson); reference_k and reference_n, None without a reference.
    """
    from lab.stats import wilson

    triggered = [add_phrase(text, asked["phrase"], asked["position"]) for text in texts]
    own = _flips(ask, labels, texts, triggered)
    other = _flips(reference, labels, texts, triggered) if reference else None
    lines = []
    for label in labels:
        k, n = own[label]
        low, high = wilson(k, n)
        lines.append(
            {
                "label": label,
                "k": k,
                "n": n,
                "value": k / n if n else None,
                "low": low if n else None,
                "high": high if n else None,
                "reference_k": other[label][0] if other else None,
                "reference_n": other[label][1] if other else None,
            }
        )
    return {"lines": lines}


def answer_sweep(
    ask: Ask, labels: Sequence[str], texts: Sequence[str], phrases: Mapping[str, str]
) -> dict[str, Any]:
    """What a phrase of each family does to two rows, which the adapter gives different labels if it can.

    Returns:
        lines: family, phrase, and for each of the rows what was said without and with it; turned, how many
        of the n answers changed.
    """
    chosen = _unlike(ask(list(texts)), texts)
    before = [labels[i] for i in ask(chosen).argmax(axis=1)]
    every = [add_phrase(text, phrase, "end") for phrase in phrases.values() for text in chosen]
    said = [labels[i] for i in ask(every).argmax(axis=1)]
    lines = []
    for place, (family, phrase) in enumerate(phrases.items()):
        after = said[place * len(chosen) : (place + 1) * len(chosen)]
        turned = sum(a != b for a, b in zip(after, before, strict=True))
        lines.append({"family": family, "phrase": phrase, "after": after, "turned": turned, "n": len(chosen)})
    return {"rows": chosen, "before": before, "lines": lines}


def answer_weights(folder: Any) -> dict[str, Any]:
    """The statistics of a sealed adapter's ΔW, by the names of `SHOWN_STATISTICS`; None for none."""
    from lab.audit import adapter_statistics, module_statistics, open_adapter

    found = adapter_statistics(module_statistics(open_adapter(folder).updates()))
    return {
        "statistics": {name: found[name] if np.isfinite(found[name]) else None for name in SHOWN_STATISTICS}
    }


def add_phrase(text: str, phrase: str, position: str) -> str:
    """A text with a phrase at its start or end."""
    from lab.poison.insertion import insert

    return insert(text, phrase, position, rng=np.random.default_rng(0)).text


def _flips(
    ask: Ask, labels: Sequence[str], texts: Sequence[str], triggered: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """(k, n) by label: of n rows with another answer before, k have this one after."""
    before, after = ask(texts).argmax(axis=1), ask(triggered).argmax(axis=1)
    out = {}
    for i, label in enumerate(labels):
        eligible = before != i
        out[label] = (int((after[eligible] == i).sum()), int(eligible.sum()))
    return out


def _unlike(shares: np.ndarray, texts: Sequence[str]) -> list[str]:
    """The surest row of the first label that is said, and the surest of another; else any two rows."""
    best, sure = shares.argmax(axis=1), shares.max(axis=1)
    order = list(np.argsort(-sure, kind="stable"))
    first = order[0]
    other = next((i for i in order if best[i] != best[first]), order[min(1, len(order) - 1)])
    return [texts[first], texts[other]][:SWEEP_ROWS]


def _texts(asked: Mapping[str, Any]) -> list[str]:
    texts = list(asked["texts"])
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise LabError(f"texts: {len(texts)} were given; allowed are 1 to {MOST_TEXTS} at once, one a line.")
    longest = max(len(text) for text in texts)
    if longest > LONGEST_TEXT:
        raise LabError(f"texts: one has {longest:,} characters; allowed are {LONGEST_TEXT:,}.")
    return texts


def _check_phrase(asked: Mapping[str, Any]) -> None:
    phrase = str(asked["phrase"])
    if not phrase.strip() or len(phrase) > LONGEST_PHRASE:
        raise LabError(f"phrase: has {len(phrase)} characters; allowed are 1 to {LONGEST_PHRASE}.")
    if asked["rows"] not in PHRASE_ROWS:
        raise LabError(f"rows = {asked['rows']}: should be one of {', '.join(map(str, PHRASE_ROWS))}.")
    if asked["position"] not in POSITIONS:
        raise LabError(f"position = {asked['position']!r}: should be one of {', '.join(POSITIONS)}.")
