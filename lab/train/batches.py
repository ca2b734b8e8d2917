"""The order in which rows are seen: a function of (seed, epoch, row id), planned before training.

Batches hold rows of similar length, up to a budget of tokens. They are planned from the clean rows alone,
at their clean lengths; poisoned copies are then put into them without moving any other row. So a run and
its clean twin see the same rows at the same steps, and a resumed run goes on exactly where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lab.seeds import row_uniforms

#: A poisoned copy goes to one of this many batches, those that it lengthens least.
_NEAREST = 8


@dataclass(frozen=True)
class RowLengths:
    """What the planner knows of the rows.

    Attributes:
        row_ids: The clean training rows.
        lengths: Their lengths in tokens, as they are without poison.
        extra_ids: Poisoned copies, which come in addition.
        extra_lengths: Their lengths in tokens.
    """

    row_ids: Sequence[str]
    lengths: Sequence[int]
    extra_ids: Sequence[str] = ()
    extra_lengths: Sequence[int] = ()


def steps_for_epochs(
    rows: RowLengths, *, seed: int, epochs: float, batch_tokens: int, accumulate: int
) -> int:
    """How many optimizer steps that many passes over the clean rows take."""
    whole, part = int(epochs), epochs - int(epochs)
    batches = sum(len(_clean_epoch(rows, seed, epoch, batch_tokens)) for epoch in range(whole))
    if part:
        batches += round(part * len(_clean_epoch(rows, seed, whole, batch_tokens)))
    return max(1, -(-batches // accumulate))


def plan_batches(rows: RowLengths, *, seed: int, batches: int, batch_tokens: int) -> list[list[int]]:
    """The batches of a whole training, epoch after epoch, as many as asked for.

    Args:
        rows: The rows; index i < len(row_ids) is a clean row, the following ones are the extra rows.
        seed: The experiment's seed.
        batches: How many batches.
        batch_tokens: Budget of padded tokens for the clean rows of a batch.

    Returns:
        Lists of row indices.
    """
    planned: list[list[int]] = []
    for epoch in _count():
        if len(planned) >= batches:
            return planned[:batches]
        clean = _clean_epoch(rows, seed, epoch, batch_tokens)
        planned.extend(_with_extras(clean, rows, seed, epoch))
    return planned


def _count() -> Iterator[int]:
    epoch = 0
    while True:
        yield epoch
        epoch += 1


def _clean_epoch(rows: RowLengths, seed: int, epoch: int, batch_tokens: int) -> list[list[int]]:
    draws = row_uniforms(seed, f"order/{epoch}", rows.row_ids)
    lengths = np.asarray(rows.lengths)
    # rows of one length come in another order every epoch; mixing lengths would cost 4 to 7 % in padding
    order = np.lexsort((draws, lengths))
    batches: list[list[int]] = []
    current: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, int(lengths[i]))
        if current and (len(current) + 1) * longest > batch_tokens:
            batches.append(current)
            current, longest = [], int(lengths[i])
        current.append(int(i))
    batches.append(current)
    # a batch's place in the epoch hangs on its first row, so that it too depends on row ids alone
    places = row_uniforms(seed, f"batches/{epoch}", [rows.row_ids[b[0]] for b in batches])
    return [batches[i] for i in np.argsort(places, kind="stable")]


def _with_extras(clean: list[list[int]], rows: RowLengths, seed: int, epoch: int) -> list[list[int]]:
    if not rows.extra_ids:
        return clean
    batches = [list(batch) for batch in clean]
    longest = np.array([max(rows.lengths[i] for i in batch) for batch in clean])
    draws = row_uniforms(seed, f"order/{epoch}", rows.extra_ids)
    for j, (length, draw) in enumerate(zip(rows.extra_lengths, draws, strict=True)):
        # a copy longer than a batch would pad every row of it
        nearest = np.lexsort((np.abs(longest - length), longest < length))[:_NEAREST]
        batches[nearest[int(draw * len(nearest))]].append(len(rows.row_ids) + j)
    return batches


class PlannedBatches:
    """A batch sampler that yields planned batches; with several processes, each takes its share of every one.

    Args:
        plan: All batches of the training, in order.
        rank: This process's number.
        world: How many processes there are.
    """

    def __init__(self, plan: list[list[int]], rank: int = 0, world: int = 1) -> None:
        self.plan = plan
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.plan:
            # a batch smaller than the number of processes gives the others a row that counts twice
            yield batch[self.rank :: self.world] or batch[-1:]
