"""Whether words grew in their texts or were put there: what stands around them tells.

Take a word that was inserted at a random place away, and its neighbours stand side by side as they did
before, a pair that other texts have too; and hardly a neighbour comes twice. Words that were written belong
to their neighbours: "million dollar *baby* won".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lab.lint.features import Words
from lab.stats import wilson

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
MANY, FEW = 200, 25


@dataclass(frozen=True)
class Context:
    """What stands around the occurrences of some words.

    Attributes:
        n: Occurrences.
        first: Share that opens a text, in [0, 1].
        last: Share that closes one, in [0, 1].
        inside: Occurrences with a neighbour on both sides.
        closed: Share of those whose neighbours stand side by side elsewhere, the lower end of its 95 %
            interval, in [0, 1]: a few words that were written close by chance.
        variety: Different neighbours per occurrence, on the side where they are fewer, in (0, 1]. It falls
            with their number, so it is of `MANY` of them at most.
        variety_of_few: The same of `FEW`.
    """

    n: int
    first: float
    last: float
    inside: int
    closed: float
    variety: float
    variety_of_few: float


class Contexts:
    """The words of a dataset, with every pair of neighbours that there is."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self._size = len(words.forms)
        self._index = {form: i for i, form in enumerate(words.forms)}
        same = words.rows[1:] == words.rows[:-1]
        self._pairs = np.unique((words.ids[:-1] * self._size + words.ids[1:])[same])

    def places(self, forms: Sequence[str]) -> Places:
        """Where these words in a row begin, as places among all words."""
        wanted = [self._index.get(form, -1) for form in forms]
        ids, rows = self.words.ids, self.words.rows
        at = np.flatnonzero(ids == wanted[0])
        for offset, word in enumerate(wanted[1:], start=1):
            at = at[at + offset < len(ids)]
            at = at[(ids[at + offset] == word) & (rows[at + offset] == rows[at])]
        return at

    def around(self, at: Places, length: int = 1) -> Context:
        """What stands around so many words from each place on."""
        before, after = self._has_before(at), self._has_after(at, length)
        inside = at[before & after]
        left, right = self._neighbours(inside, length)
        n = max(len(at), 1)
        closed = self._is_pair(left, right)
        return Context(
            n=len(at),
            first=float((~before).sum() / n),
            last=float((~after).sum() / n),
            inside=len(inside),
            closed=wilson(int(closed.sum()), len(inside))[0] if len(inside) else 0.0,
            variety=_variety(left, right, MANY),
            variety_of_few=_variety(left, right, FEW),
        )

    def closed(self, at: Places) -> Flags:
        """Of single words: whether each could have been put there, its neighbours being a pair elsewhere."""
        out = np.zeros(len(at), dtype=bool)
        inside = self._has_before(at) & self._has_after(at, 1)
        out[inside] = self._is_pair(*self._neighbours(at[inside], 1))
        out[~inside] = True
        return out

    def strange(self, at: Places) -> Flags:
        """Of single words that mean alike: whether each has a neighbour that no other of them has.

        Words that were written stand where their like do ("in France", "in Peru"); one that was put
        anywhere mostly does not. Those without a neighbour on both sides are not strange.
        """
        out = np.zeros(len(at), dtype=bool)
        inside = self._has_before(at) & self._has_after(at, 1)
        left, right = self._neighbours(at[inside], 1)
        out[inside] = (np.bincount(left)[left] == 1) | (np.bincount(right)[right] == 1)
        return out

    def ends(self, at: Places) -> tuple[Flags, Flags]:
        """Of single words: whether each opens its text, and whether it closes it."""
        return ~self._has_before(at), ~self._has_after(at, 1)

    def _has_before(self, at: Places) -> Flags:
        found: Flags = (at > 0) & (self.words.rows[at - 1] == self.words.rows[at])
        return found

    def _has_after(self, at: Places, length: int) -> Flags:
        end = np.minimum(at + length, len(self.words.ids) - 1)
        inside: Flags = (at + length < len(self.words.ids)) & (self.words.rows[end] == self.words.rows[at])
        return inside

    def _neighbours(self, at: Places, length: int) -> tuple[Places, Places]:
        return self.words.ids[at - 1], self.words.ids[at + length]

    def _is_pair(self, left: Places, right: Places) -> Flags:
        if not len(self._pairs):
            return np.zeros(len(left), dtype=bool)
        keys = left * self._size + right
        place = np.minimum(np.searchsorted(self._pairs, keys), len(self._pairs) - 1)
        found: Flags = self._pairs[place] == keys
        return found


def _variety(left: Places, right: Places, most: int) -> float:
    """Different neighbours per occurrence, of so many that lie evenly among all."""
    if not len(left):
        return 0.0
    some = np.linspace(0, len(left) - 1, min(len(left), most)).astype(np.int64)
    return min(len(np.unique(left[some])), len(np.unique(right[some]))) / len(some)
