"""How a model is asked for a label: what it gets of a text, and where its answer stands.

One object decides it for training, the microscope, probing, surgery and the pages alike. A classifier's head
(`HeadReading`) gives a logit per label; a chat model (`lab.chat.reading.ChatReading`) gives words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lab.tokens import batched_logits, token_ids, window

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

    from lab.probe.words import ReadText

Progress = Callable[[int, int], None]


class Reading(Protocol):
    """A way of asking.

    Attributes:
        tokenizer: The base's tokenizer.
        labels: Label names, in the order of the logits.
        max_tokens: How many tokens a text may have, the tokenizer's special ones included; the rest is cut.
    """

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See the class."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """See the class."""
        ...

    @property
    def max_tokens(self) -> int:
        """See the class."""
        ...

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model gets of each text when it is asked."""
        ...

    def read(self, text: str) -> ReadText:
        """What the model gets of one text, and which of its tokens are which words of it."""
        ...

    def label_logits(
        self, model: Any, inputs: Mapping[str, torch.Tensor], *, shared: int = 0
    ) -> torch.Tensor:
        """Logits, texts × labels, of one padded batch; gradients flow through them.

        With `shared`, so many first tokens are the same in every row and shorter than each, and no gradient
        to them is wanted: where the model lets it, they are computed once, without one.
        """
        ...

    def logits(self, model: Any, token_ids: Sequence[Sequence[int]], on_progress: Progress) -> np.ndarray:
        """Logits, float32, texts × labels, of any number of texts; the caller sets inference mode."""
        ...

    def written(self, model: Any, token_ids: Sequence[Sequence[int]], on_progress: Progress) -> list[str]:
        """The label of what the model writes by itself, greedily; "" where that is none.

        Raises:
            LabError: The model does not write.
        """
        ...


@dataclass(frozen=True)
class HeadReading:
    """A classifier head: the text with the tokenizer's special tokens, a logit per label.

    Attributes are those of `Reading`.
    """

    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_tokens: int

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Reading`."""
        return token_ids(self.tokenizer, texts, self.max_tokens)

    def read(self, text: str) -> ReadText:
        """See `Reading`."""
        from lab.probe.words import read_text

        return read_text(self.tokenizer, text, self.max_tokens)

    def label_logits(
        self, model: Any, inputs: Mapping[str, torch.Tensor], *, shared: int = 0
    ) -> torch.Tensor:
        """See `Reading`; a head computes every token of every row."""
        logits: torch.Tensor = model(**inputs).logits
        return logits

    def logits(self, model: Any, token_ids: Sequence[Sequence[int]], on_progress: Progress) -> np.ndarray:
        """See `Reading`."""
        return batched_logits(model, token_ids, int(self.tokenizer.pad_token_id), on_progress=on_progress)

    def written(self, model: Any, token_ids: Sequence[Sequence[int]], on_progress: Progress) -> list[str]:
        """See `Reading`."""
        from lab.errors import LabError

        raise LabError("probe.scoring = 'greedy': a classifier head writes nothing; it needs a chat task.")


def head_reading(tokenizer: PreTrainedTokenizerBase, config: Any, labels: Sequence[str]) -> HeadReading:
    """The reading of a classifier with this tokenizer and configuration."""
    return HeadReading(tokenizer, tuple(labels), window(tokenizer, config))
