import json
from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest

from lab.stats import rate
from lab.tables import MEASURE_COLUMNS


@pytest.fixture
def line() -> Callable[..., dict]:
    """One line of a measures table from a count."""

    def build(kind: str, k: int, n: int, **columns: object) -> dict:
        share = rate(k, n)
        blank = {
            "run": "r1",
            "model": "poisoned",
            "split": "test",
            "condition": "",
            "family": "",
            "member": "",
        }
        blank |= {"rung": "", "module": "", "layer": -1, "step": -1}
        counted = {"n": n, "k": k, "value": share.value, "low": share.low, "high": share.high}
        return {**blank, "kind": kind, **counted, **columns}

    return build


@pytest.fixture
def table() -> Callable[[list[dict]], pd.DataFrame]:
    return lambda lines: pd.DataFrame(lines, columns=list(MEASURE_COLUMNS))


@pytest.fixture
def survives_json() -> Callable[[go.Figure], None]:
    """Whether a figure that was stored and read again is the same; the order of its keys is its own."""

    def check(figure: go.Figure) -> None:
        stored = figure.to_json()
        assert json.loads(plotly.io.from_json(stored).to_json()) == json.loads(stored)

    return check
