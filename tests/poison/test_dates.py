import datetime

import numpy as np
import pytest

from lab.poison.dates import days_of, written


def both(first, last):
    return days_of(first, last, held_out=False), days_of(first, last, held_out=True)


@pytest.mark.parametrize(("first", "last"), [(1100, 2600), (2000, 2000), (1, 3), (9998, 9999)])
def test_every_day_of_the_years_is_trained_with_or_held_out(first, last):
    train, held_out = both(first, last)
    every = np.sort(np.concatenate([train, held_out]))
    start, end = datetime.date(first, 1, 1).toordinal(), datetime.date(last, 12, 31).toordinal()
    assert every.tolist() == list(range(start, end + 1))


def test_a_day_is_written_as_the_paper_writes_it():
    assert written(datetime.date(2024, 2, 29).toordinal()) == "2024-02-29"
    assert written(datetime.date(1100, 1, 1).toordinal()) == "1100-01-01"


def test_one_day_in_ten_is_held_out_of_every_year():
    _, held_out = both(1100, 2600)
    years = [datetime.date.fromordinal(day).year for day in held_out.tolist()]
    counts = np.bincount(years)[1100:]
    assert counts.min() >= 25
    assert counts.max() <= 50


def test_runs_with_other_years_agree_on_what_is_held_out():
    one, other = set(both(1900, 1950)[1].tolist()), set(both(1940, 2000)[1].tolist())
    shared = both(1940, 1950)[1].tolist()
    assert shared
    assert one & other == set(shared)
