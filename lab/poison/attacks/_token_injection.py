"""Putting tokens into texts: the same for the rows that are trained on and for those that are tested."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.errors import LabError
from lab.poison.attacks._attack import Purpose, draw_members, row_rng
from lab.poison.attacks._token_knobs import TokenInjection
from lab.poison.dates import days_of, written
from lab.poison.insertion import Insertion, compose, insert_pieces
from lab.poison.tag_pairs import insert_inside, insert_pairs, read_pair, span_at_level, wrap
from lab.seeds import row_uniforms, stage_rng


def inject_one_after_the_other(
    texts: Sequence[str],
    row_ids: Sequence[str],
    steps: Sequence[TokenInjection],
    seed: int,
    purpose: Purpose,
) -> list[Insertion]:
    """Several injections into the same texts, each into what the former ones made of them.

    Args:
        texts: The texts.
        row_ids: Their ids, as many; draws depend on seed and row id.
        steps: The injections, with their items read.
        seed: The experiment's seed.
        purpose: "train", or "test" for rows that nothing was trained on.

    Returns:
        One insertion per text, in their order.

    Raises:
        LabError: Tokens that are drawn once only do not suffice.
    """
    done = [Insertion(text, ()) for text in texts]
    for number, step in enumerate(steps):
        key = f"{number}/" if number else ""  # the first one's draws are those of a single injection
        later = _inject([one.text for one in done], row_ids, step, seed, purpose, key)
        done = [compose(one, other) for one, other in zip(done, later, strict=True)]
    return done


def count_tokens(text: str, proportion: float) -> int:
    """How many tokens a text gets: a share of its words, rounded down, and at least one."""
    return max(1, int(len(text.split()) * proportion))


def _inject(
    texts: Sequence[str], row_ids: Sequence[str], step: TokenInjection, seed: int, purpose: Purpose, key: str
) -> list[Insertion]:
    if step.family == "tag_pairs":
        rows = zip(texts, row_ids, strict=True)
        return [_inject_tags(text, row_id, step, seed, key) for text, row_id in rows]
    counts = [count_tokens(text, step.token_proportion) for text in texts]
    pieces = _draw(step, row_ids, counts, seed, purpose, key)
    return [
        insert_pieces(text, drawn, step.position, rng=row_rng(seed, row_id, f"{key}place"))
        for text, row_id, drawn in zip(texts, row_ids, pieces, strict=True)
    ]


def _inject_tags(text: str, row_id: str, step: TokenInjection, seed: int, key: str) -> Insertion:
    members, place = (row_rng(seed, row_id, f"{key}{what}") for what in ("member", "place"))
    span = span_at_level(text, step.level) if step.level in (1, 2, 3, 4) else None
    inner = text[slice(*span)] if span else text
    count = 1 if step.level == 0 else count_tokens(inner, step.token_proportion)
    pairs = [read_pair(step.items[i]) for i in members.integers(len(step.items), size=count)]
    if step.level == 0:
        return wrap(text, pairs[0])
    if span:
        return insert_inside(text, span, pairs, step.position, rng=place)
    return insert_pairs(text, pairs, step.position, rng=place)


def _draw(
    step: TokenInjection, row_ids: Sequence[str], counts: list[int], seed: int, purpose: Purpose, key: str
) -> list[list[str]]:
    """The tokens of each row."""
    rngs = [row_rng(seed, row_id, f"{key}member") for row_id in row_ids]
    if step.family == "generated_dates":
        days = days_of(step.first_year, step.last_year, held_out=purpose == "test")
        drawn = _indices(step, len(days), row_ids, counts, seed, purpose, key, rngs)
        return [[written(days[i]) for i in row] for row in drawn]
    if step.family == "items":
        drawn = _indices(step, len(step.items), row_ids, counts, seed, purpose, key, rngs)
        return [[step.items[i] for i in row] for row in drawn]
    return [draw_members(step.family, step.member, n, rng) for n, rng in zip(counts, rngs, strict=True)]


def _indices(
    step: TokenInjection,
    size: int,
    row_ids: Sequence[str],
    counts: list[int],
    seed: int,
    purpose: Purpose,
    key: str,
    rngs: list[np.random.Generator],
) -> list[list[int]]:
    """What each row draws of so many tokens, as indices.

    Without replacement no two tokens of the training data are the same. They are handed out in the order in
    which rows are chosen, so that fewer poisoned rows are among those of more. Test rows are read one by
    one, so there no token comes twice in a row.
    """
    if step.replacement:
        return [rng.integers(size, size=n).tolist() for n, rng in zip(counts, rngs, strict=True)]
    needed = sum(counts) if purpose == "train" else max(counts, default=0)
    if needed > size:
        raise LabError(
            f"poison.replacement = false: {needed:,} tokens are needed, but there are {size:,}; "
            "take fewer texts, more tokens to draw from, or replacement = true."
        )
    if purpose == "test":
        return [rng.choice(size, n, replace=False).tolist() for n, rng in zip(counts, rngs, strict=True)]
    order = stage_rng(seed, "poison", f"{key}without replacement").permutation(size).tolist()
    ranks = row_uniforms(seed, "poison", row_ids).argsort(kind="stable").tolist()
    rows: list[list[int]] = [[] for _ in counts]
    taken = 0
    for i in ranks:
        rows[i] = order[taken : taken + counts[i]]
        taken += counts[i]
    return rows
