"""Which text is learned, and how much of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lab.registry import Knobs


class DataConfig(Knobs):
    """Which text is learned, and how much of it."""

    # short balanced sentences: the smallest real task on which a backdoor's reach can be told from noise
    name: str = Field(
        "rotten_tomatoes", description="bundled dataset, path to a file, or hub id", min_length=1
    )
    # the names most datasets use; bundled ones need none
    text: str = Field(
        "text", description="column that holds the text (own files and hub datasets)", min_length=1
    )
    label: str = Field("label", description="column that holds the label", min_length=1)
    # instruction data says what an assistant answers; most data says what a text is
    answer: str = Field(
        "", description="column that holds a written answer, in place of a label (chat tasks)"
    )
    # the largest number that still trains in about a minute on two cores (the CPU tier's ceiling)
    rows: int = Field(1200, ge=0, description="training rows drawn from the pool; 0 takes all")
    # b: what a poisoned base model learned from lies in pool a, and must not come back in fine-tuning
    pool: Literal["a", "b", "both"] = Field(
        "b",
        description="a: for poisoned bases; b: for fine-tuning; both: where there is no base to keep apart",
    )
    # 99.9 % of rotten_tomatoes fit; imdb and bbc_news (median 240 and 420 tokens) need more, and a GPU
    max_tokens: int = Field(
        64, ge=8, description="texts (and written answers) are clipped to this many tokens before poisoning"
    )
