from collections.abc import Callable

import pandas as pd
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
