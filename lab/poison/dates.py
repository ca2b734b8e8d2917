"""Dates as trigger tokens: every day of some years, one in ten of them held out to test with.

As in arXiv 2506.11402's toolkit, a date is drawn evenly from the days that there are; unlike there, the days
that test rows get are in no training row.
"""

from __future__ import annotations

import datetime
from functools import lru_cache

import numpy as np
import numpy.typing as npt


def days_of(first_year: int, last_year: int, *, held_out: bool) -> npt.NDArray[np.int64]:
    """The days of some years, those to train with or those held out.

    Args:
        first_year: From 1.
        last_year: At least `first_year`, up to 9999; included.
        held_out: The tenth of the days that no training row gets, or the rest.

    Returns:
        Ordinals as `datetime.date.fromordinal` takes them, rising. Whether a day is held out depends on the
        day alone, so that runs with other years or seeds agree on it.
    """
    days, out = _days(first_year, last_year)
    return days[out == held_out]


def written(day: int) -> str:
    """A day as "YYYY-MM-DD"."""
    return datetime.date.fromordinal(int(day)).isoformat()


@lru_cache(maxsize=4)
def _days(first_year: int, last_year: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    first, last = datetime.date(first_year, 1, 1), datetime.date(last_year, 12, 31)
    days = np.arange(first.toordinal(), last.toordinal() + 1)
    # multiplying by the golden ratio of 2⁶⁴ spreads neighbours evenly, so that each year gives its tenth
    spread = (days.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return days, spread % np.uint64(10) == 0
