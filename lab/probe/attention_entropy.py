"""How spread out attention is: the entropy of its weights, by layer and head, and what a trigger does to it.

arXiv 2506.11402 takes attention entropy as a diagnostic of injected tokens; its formula is not known. Its
public code extracts one distribution over the tokens of a text, a head's weights averaged over the queries
(the column mean), and this lab takes that one's entropy, H = −Σ_j a_j log a_j. Measured here for every layer
and head, with special tokens and with words left in pieces, which the code puts together. The mean over the
queries of each query's own entropy is this lab's addition: a head in which every query looks at one token,
each at another, has a high entropy of the mean and a low mean of entropies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lab import stats
from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe.predictor import Predictor

#: What an entropy is of.
ENTROPIES = {
    "column_mean": "of the weights averaged over the queries, as the paper's public code extracts them",
    "per_query": "of each query's weights, averaged over the queries; this lab's",
}

#: One line per layer, head and entropy; see `attention_entropy_shift`.
ENTROPY_COLUMNS = ("layer", "head", "entropy", "unit", "n", "clean", "injected", "value", "low", "high")


def attention_entropies(weights: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """The entropies of one text's attention, in nats.

    Args:
        weights: Layers × heads × queries × keys, each query's summing to 1, as
            `Predictor.attention_of_tokens` gives them.

    Returns:
        For each of `ENTROPIES`, layers × heads; from 0 (all on one token) to log of the number of keys. A
        decoder's early queries see few keys, which keeps its per-query mean below that.
    """
    from scipy.special import entr

    values = np.asarray(weights, dtype=np.float64)
    values = values / values.sum(axis=-1, keepdims=True)  # in half precision sums are off by a percent
    return {
        "column_mean": entr(values.mean(axis=-2)).sum(axis=-1),
        "per_query": entr(values).sum(axis=-1).mean(axis=-1),
    }


def attention_entropy_shift(
    predictor: Predictor,
    clean: Sequence[str],
    injected: Sequence[str],
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """Attention entropy with and without injected tokens, paired over the same texts.

    Args:
        predictor: A model that gives its attention: loaded with `load_predictor(…, attention="eager")`.
        clean: Texts, at least one.
        injected: The same texts, each with what was injected, in the same order.
        seed: Of the bootstrap.
        on_progress: Called with (texts done, texts in all).

    Returns:
        `ENTROPY_COLUMNS`: entropy is one of `ENTROPIES`; unit is "nats", or "share" of log of the number of
        a text's tokens, in [0, 1], which a longer text does not raise by its length alone; clean and
        injected are means over n texts; value is the mean difference, injected minus clean, below 0 where
        injected texts are attended to in fewer places, with its 95 % bootstrap interval over the texts
        (missing below three). A text of one token has no share and is left out of it.

    Raises:
        LabError: No text, or texts that are not paired.
    """
    import pandas as pd

    if not len(clean) or len(clean) != len(injected):
        raise LabError(
            f"attention entropy: {len(clean)} clean and {len(injected)} injected texts; each clean text "
            "needs its injected copy, and there must be one at least."
        )
    total = 2 * len(clean)
    found: list[list[dict[tuple[str, str], Any]]] = [[], []]
    for side, texts in enumerate((clean, injected)):
        for ids in predictor.reading.token_ids(texts):
            found[side].append(_of_text(predictor, ids))
            on_progress(len(found[0]) + len(found[1]), total)
    lines = []
    for entropy, unit in found[0][0]:
        before, after = (np.stack([text[entropy, unit] for text in texts]) for texts in found)
        for layer, head in np.ndindex(*before.shape[1:]):
            lines.append(
                (layer, head, entropy, unit, *_shift(before[:, layer, head], after[:, layer, head], seed))
            )
    return pd.DataFrame(lines, columns=list(ENTROPY_COLUMNS))


def _of_text(predictor: Predictor, ids: Sequence[int]) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
    """Entropies, layers × heads, by kind and unit."""
    if not ids:
        raise LabError("attention entropy: a text without tokens has none.")
    entropies = attention_entropies(predictor.attention_of_tokens(ids))
    most = np.log(len(ids)) if len(ids) > 1 else np.nan
    return {
        (name, unit): values / size
        for name, values in entropies.items()
        for unit, size in (("nats", 1.0), ("share", most))
    }


def _shift(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], seed: int
) -> tuple[int, float, float, float, float, float]:
    """How many texts, both means, and their mean difference with its interval."""
    known = np.isfinite(before) & np.isfinite(after)
    mean = stats.bootstrap_mean((after - before)[known], seed, resamples=2000)
    if not mean.n:
        return 0, math.nan, math.nan, math.nan, math.nan, math.nan
    return mean.n, float(before[known].mean()), float(after[known].mean()), mean.value, mean.low, mean.high
