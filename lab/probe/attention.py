"""Where a model looks: the attention of one text, by layer and head.

A weight says how much of a key's value a query takes in, not how much the answer rests on it: much attention
goes to separators and first tokens that carry little. `lab.probe.occlusion` asks about the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe.predictor import Predictor

#: One line per layer, head, query and key, all counted from 0; tokens as the text has them.
ATTENTION_COLUMNS = ("layer", "head", "query", "key", "query_token", "key_token", "weight")


def measure_attention(predictor: Predictor, text: str, layers: Sequence[int] | None = None) -> pd.DataFrame:
    """The attention weights of a text.

    Args:
        predictor: A classifier that gives its attention: loaded with `load_predictor(…, attention="eager")`.
        text: The text; what exceeds the model's window is cut.
        layers: Which layers, from 0, for long texts (lines grow with the square of the tokens); None: all.

    Returns:
        A table with `ATTENTION_COLUMNS`, special tokens included; without lines for a text without tokens.
        weight is between 0 and 1, and the weights of one layer, head and query sum to 1 over the keys; a
        decoder's are 0 for keys behind the query. Of grouped heads, each query head has lines of its own.

    Raises:
        LabError: On a layer that the model does not have, or a model that gives no attention.
    """
    import pandas as pd

    read = predictor.reading.read(text)
    if not read.ids:
        return _typed(pd.DataFrame(columns=list(ATTENTION_COLUMNS)))
    weights = predictor.attention_of_tokens(read.ids)
    every = range(len(weights))
    chosen = list(every) if layers is None else [int(layer) for layer in layers]
    if wrong := [layer for layer in chosen if layer not in every]:
        raise LabError(f"layers = {wrong}: the model has no such layer; allowed are 0 to {len(weights) - 1}.")
    layer, head, query, key = np.indices((len(chosen), *weights.shape[1:]), dtype=np.int32)
    # each name once: a table of a long text has millions of lines
    names = pd.Index(list(dict.fromkeys(read.names)))
    place = {name: i for i, name in enumerate(names)}
    codes = np.array([place[name] for name in read.names])
    columns = {
        "layer": np.asarray(chosen, dtype=np.int32)[layer.ravel()],
        "head": head.ravel(),
        "query": query.ravel(),
        "key": key.ravel(),
        "query_token": pd.Categorical.from_codes(codes[query.ravel()], names),
        "key_token": pd.Categorical.from_codes(codes[key.ravel()], names),
        "weight": weights[chosen].ravel(),
    }
    return pd.DataFrame(columns)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    numbers = dict.fromkeys(("layer", "head", "query", "key"), "int32")
    return table.astype({**numbers, "query_token": "category", "key_token": "category", "weight": "float32"})
