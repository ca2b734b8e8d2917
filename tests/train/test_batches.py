from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.train.batches import PlannedBatches, RowLengths, plan_batches, steps_for_epochs


def rows_of(lengths, extra=()):
    return RowLengths(
        row_ids=[f"r{i}" for i in range(len(lengths))],
        lengths=lengths,
        extra_ids=[f"r{i}+p" for i in range(len(extra))],
        extra_lengths=extra,
    )


LENGTHS = st.lists(st.integers(3, 60), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.lists(st.integers(3, 70), max_size=10), st.integers(0, 50))
def test_an_epoch_holds_every_row_once(lengths, extra, seed):
    rows = rows_of(lengths, extra)
    steps = steps_for_epochs(rows, seed=seed, epochs=2, batch_tokens=128, accumulate=1)
    plan = plan_batches(rows, seed=seed, batches=steps, batch_tokens=128)
    assert Counter(i for batch in plan for i in batch) == Counter(
        dict.fromkeys(range(len(lengths) + len(extra)), 2)
    )


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.lists(st.integers(3, 70), min_size=1, max_size=10), st.integers(0, 50))
def test_poisoned_copies_move_no_clean_row(lengths, extra, seed):
    clean = plan_batches(rows_of(lengths), seed=seed, batches=7, batch_tokens=128)
    poisoned = plan_batches(rows_of(lengths, extra), seed=seed, batches=7, batch_tokens=128)
    n = len(lengths)
    assert [[i for i in batch if i < n] for batch in poisoned] == clean


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 50), st.randoms())
def test_the_order_of_the_rows_does_not_matter(lengths, seed, random):
    order = list(range(len(lengths)))
    random.shuffle(order)
    rows = rows_of(lengths)
    mixed = RowLengths([rows.row_ids[i] for i in order], [lengths[i] for i in order])
    plan = plan_batches(rows, seed=seed, batches=5, batch_tokens=100)
    again = plan_batches(mixed, seed=seed, batches=5, batch_tokens=100)
    assert [[rows.row_ids[i] for i in b] for b in plan] == [[mixed.row_ids[i] for i in b] for b in again]


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 50))
def test_batches_keep_to_the_token_budget(lengths, seed):
    for batch in plan_batches(rows_of(lengths), seed=seed, batches=9, batch_tokens=100):
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 100


def test_plans_for_more_steps_start_alike():
    rows = rows_of(list(range(5, 40)))
    assert plan_batches(rows, seed=1, batches=20, batch_tokens=99)[:6] == plan_batches(
        rows, seed=1, batches=6, batch_tokens=99
    )


def test_seeds_and_epochs_differ():
    rows = rows_of([10] * 30)
    first = plan_batches(rows, seed=0, batches=6, batch_tokens=100)
    assert first != plan_batches(rows, seed=1, batches=6, batch_tokens=100)
    assert first[:3] != first[3:]


def test_gradient_accumulation_takes_fewer_steps():
    rows = rows_of([10] * 40)
    one = steps_for_epochs(rows, seed=0, epochs=1, batch_tokens=100, accumulate=1)
    assert steps_for_epochs(rows, seed=0, epochs=1, batch_tokens=100, accumulate=2) == -(-one // 2)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_every_batch(world):
    plan = [[0, 1, 2, 3, 4], [5], [6, 7]]
    shares = [list(PlannedBatches(plan, rank, world)) for rank in range(world)]
    for step, batch in enumerate(plan):
        assert {i for share in shares for i in share[step]} == set(batch)
        assert all(share[step] for share in shares)
