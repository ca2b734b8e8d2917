"""Paraphrase: another model writes every training text anew, and what carries no meaning may get lost.

Source: arXiv 2506.11402 and its workshop paper count which injected tokens survive it (of dates 10 %, of
colours 40 %); they had a model of 8 B parameters rewrite. A small one rewrites badly, and the texts with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from lab.defend._defense import Cleaner
from lab.defend.cleaning import Cleaned
from lab.registry import Knobs


class Paraphrase(Knobs):
    """What can be set on paraphrasing."""

    name: Literal["paraphrase"] = "paraphrase"
    # the one language model that is there without a hub; larger ones rewrite better
    model: str = Field("smollm2", min_length=1, description="bundled name, hub id or folder of the rewriter")
    instruction: str = Field(
        "Rewrite the sentence in other words. Keep its meaning. Answer with the new sentence alone.",
        description='what the rewriter is told; text-to-text models want their own, such as "paraphrase:"',
    )


def _clean(knobs: Paraphrase, texts: Sequence[str], labels: Sequence[str], seed: int) -> Cleaned:
    from lab.rewriting import load_rewriter

    return Cleaned(load_rewriter(knobs.model, knobs.instruction).rewritten(texts))


PARAPHRASE = Cleaner(
    name="paraphrase",
    goal="Have another model write every training text anew, so that meaningless tokens get lost.",
    paper="arXiv 2506.11402, its paraphrase study",
    stage="data",
    knobs=Paraphrase,
    changes="the training texts",
    clean=_clean,
    # a sentence by the bundled rewriter
    row_seconds=0.3,
)
