"""STRIP: a triggered text keeps its answer whatever its words are swapped for; a clean one does not.

From each text come many blends, in which a share of its words is replaced by words of a clean row. The mean
entropy of the model's answers to them says how much the answer depends on the words: on a trigger that
survives the swap it is low, and a text below the threshold is rejected. A trigger of several words rarely
survives whole where many words are replaced.

Source: Gao et al. 2021, arXiv 1911.10312, for text; there the words that come in are those of highest
tf–idf, here they are drawn evenly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lab.defend._defense import Host, InputDetector
from lab.errors import LabError
from lab.registry import Knobs
from lab.seeds import stage_rng


class Strip(Knobs):
    """What can be set on STRIP."""

    name: Literal["strip"] = "strip"
    # the defender promises that one clean text in twenty is turned away
    false_rejections: float = Field(0.05, ge=0, lt=1, description="share of clean rows that may be rejected")
    blends: int = Field(16, ge=1, description="how many blends of each text the model is asked")
    replaced: float = Field(0.5, gt=0, le=1, description="share of a text's words that a blend replaces")
    # half of them to blend with, half for the threshold
    calibration_rows: int = Field(200, ge=4, description="clean validation rows that it learns from")
    # each is asked as often as it has blends
    rows: int = Field(200, ge=1, description="at most so many clean and so many triggered rows are scored")


def blend(text: str, others: Sequence[str], share: float, rng: np.random.Generator) -> str:
    """A text with a share of its words replaced by words of one other text, its white space as it was.

    Args:
        text: Any text; without words it stays as it is.
        others: At least one text with words; one is drawn.
        share: Of the words, in (0, 1]; at least one is replaced.
        rng: Draws the other text, the places, and the words that go there.
    """
    places, donors = list(re.finditer(r"\S+", text)), [o for o in others if o.split()]
    if not places or not donors:
        return text
    words = donors[int(rng.integers(len(donors)))].split()
    count = max(1, round(share * len(places)))
    out, done = [], 0
    for i in sorted(rng.choice(len(places), size=count, replace=False).tolist()):
        out += [text[done : places[i].start()], words[int(rng.integers(len(words)))]]
        done = places[i].end()
    return "".join((*out, text[done:]))


def blends(text: str, others: Sequence[str], knobs: Strip, seed: int) -> list[str]:
    """The blends of one text: a function of text, other texts, knobs and seed alone."""
    rng = stage_rng(seed, "probe", f"strip/{text}")
    return [blend(text, others, knobs.replaced, rng) for _ in range(knobs.blends)]


def mean_entropy(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The mean entropy of answers.

    Args:
        logits: texts × blends × labels.

    Returns:
        For each text, in nats: 0 (every blend is answered for sure) to ln(labels); low is suspicious.
    """
    from scipy.special import log_softmax

    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    entropy = -(np.exp(log_p) * log_p).sum(axis=-1)
    return np.asarray(entropy.mean(axis=-1))


def choose_entropy(clean: npt.NDArray[np.float64], share: float) -> float:
    """The highest threshold that rejects at most a share of clean texts.

    Args:
        clean: The mean entropies of clean texts.
        share: In [0, 1).

    Returns:
        An entropy: texts strictly below it are rejected.

    Raises:
        LabError: There is nothing to learn from.
    """
    if not len(clean):
        raise LabError("defense strip: there are too few clean validation rows to choose a threshold from.")
    return float(np.sort(clean)[int(share * len(clean))])


def _scores(knobs: Strip, host: Host, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    return _entropies(knobs, host, texts, _halves(knobs, host)[0])


def _entropies(
    knobs: Strip, host: Host, texts: Sequence[str], others: Sequence[str]
) -> npt.NDArray[np.float64]:
    if not texts:
        return np.empty(0)
    asked = [mixed for text in texts for mixed in blends(text, others, knobs, host.seed)]
    logits = host.logits(asked)
    return mean_entropy(logits.reshape(len(texts), knobs.blends, -1))


def _halves(knobs: Strip, host: Host) -> tuple[list[str], list[str]]:
    """Clean texts to blend with, and others for the threshold: none is blended with itself."""
    texts = host.clean_texts(knobs.calibration_rows)
    return texts[::2], texts[1::2]


def _calibrate(knobs: Strip, host: Host) -> dict[str, Any]:
    others, texts = _halves(knobs, host)
    entropies = _entropies(knobs, host, texts, others)
    threshold = choose_entropy(entropies, knobs.false_rejections)
    return {"threshold": threshold, "rows": len(texts), "rejected": int((entropies < threshold).sum())}


STRIP = InputDetector(
    name="strip",
    goal="Reject texts whose answer hardly changes when half of their words are replaced.",
    paper="Gao et al. 2021, arXiv 1911.10312 (words drawn evenly instead of by tf–idf)",
    stage="inference",
    knobs=Strip,
    changes="which texts are answered at all; no answer and no weight changes",
    calibrate=_calibrate,
    scores=_scores,
)
