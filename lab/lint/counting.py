"""Features with the texts that have them: counted by class, and found again one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lab.lint.contexts import Contexts
from lab.lint.features import FORMATS, PATTERNS, Words, phrases, word_kind, word_pattern

#: The longest phrases that are looked for; a longer one shows as several.
LONGEST = 8
#: A phrase is a fixed string where its rarest word hardly stands without it; from `LONG` words on seldom is
#: enough, or twenty planted sentences of words that articles have too would be none.
COHESION, COHESION_OF_LONG, LONG = 0.5, 0.25, 4

Rows = npt.NDArray[np.int64]
#: What a feature is called, its kind, a pattern that finds it, and the words that it is made of.
Told = tuple[str, str, str, tuple[str, ...]]


@dataclass(frozen=True)
class Block:
    """Features of one sort.

    Attributes:
        counts: Texts of each class that have each feature, shape [features, classes].
        told: From a feature's number to what it is.
        rows: From a feature's number to the texts that have it, rising.
    """

    counts: npt.NDArray[np.int64]
    told: Callable[[int], Told]
    rows: Callable[[int], Rows]


def word_block(words: Words, codes: Rows, classes: int) -> Block:
    """Every word."""

    def told(i: int) -> Told:
        form = words.forms[i]
        return form, word_kind(form), word_pattern([form]), (form,)

    return _counted(words, len(words.forms), codes, classes, told)


def phrase_blocks(words: Words, codes: Rows, classes: int, least: int) -> Iterator[Block]:
    """Fixed strings of two to `LONGEST` words: those whose rarest word seldom stands without them."""
    occurrences = np.bincount(words.ids, minlength=len(words.forms))
    index = {form: i for i, form in enumerate(words.forms)}
    for runs, found in phrases(words, LONGEST, least):
        often = np.bincount(found.ids, minlength=len(runs))
        rarest = np.array([min(occurrences[index[w]] for w in run) for run in runs], dtype=np.int64)
        size = len(runs[0]) if runs else 0
        fixed = often >= (COHESION_OF_LONG if size >= LONG else COHESION) * rarest
        number = np.cumsum(fixed) - 1
        kept = fixed[found.ids] if len(found.ids) else np.zeros(0, dtype=bool)
        chosen = [run for run, is_fixed in zip(runs, fixed, strict=True) if is_fixed]

        def told(i: int, chosen: list[tuple[str, ...]] = chosen) -> Told:
            return " ".join(chosen[i]), "phrase", word_pattern(chosen[i]), chosen[i]

        yield _counted(
            Words(found.rows[kept], number[found.ids[kept]], []), len(chosen), codes, classes, told
        )


def format_block(texts: Sequence[str], words: Words, codes: Rows, classes: int) -> Block:
    """Formats, lengths and doubles: a text has them or has not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.array(texts, pa.large_string())
    has = {
        name: np.asarray(pc.match_substring_regex(column, pattern), dtype=bool)
        for name, pattern in FORMATS.items()
    }
    lengths = np.bincount(words.rows, minlength=len(texts))
    low, high = np.quantile(lengths, [0.02, 0.98])
    has[f"fewer than {low:g} words"] = lengths < low
    has[f"more than {high:g} words"] = lengths > high
    encoded = np.asarray(pc.dictionary_encode(column).indices).astype(np.int64)
    has["a text that is there twice"] = np.bincount(encoded)[encoded] > 1
    names = list(has)
    counts = np.stack([np.bincount(codes[h], minlength=classes) for h in has.values()])
    return Block(
        counts,
        lambda i: (names[i], "format", PATTERNS.get(names[i], ""), ()),
        lambda i: np.flatnonzero(has[names[i]]),
    )


def list_block(contexts: Contexts, codes: Rows, classes: int) -> Block:
    """Lists of words that belong together, such as countries: each rare, and together a cue.

    Of their words only those count that could have been put where they stand (`lab.lint.contexts`): all of
    them, those among strangers, those that open a text, and those that close one. Texts that are full of
    countries have few of the latter. The lists are the lab's trigger families; of others, only what occurs
    often enough by itself is found.
    """
    words = contexts.words
    index = {form: i for i, form in enumerate(words.forms)}
    found: list[tuple[str, str, Rows]] = []
    for name, members in _word_lists().items():
        known = [member for member in members if member in index]
        if not known:
            continue
        at = np.flatnonzero(np.isin(words.ids, [index[member] for member in known]))
        any_of = "|".join(word_pattern([member]) for member in known)
        closed, (first, last) = contexts.closed(at), contexts.ends(at)
        sorts = (
            ("", any_of, closed),
            (" among strangers", any_of, closed & contexts.strange(at)),
            (" at the start", rf"\A\W*(?:{any_of})", first),
            (" at the end", rf"(?:{any_of})(?=\W*\Z)", last),
        )
        found += [
            (f"words of the list {name}{where}", pattern, np.unique(words.rows[at[chosen]]))
            for where, pattern, chosen in sorts
        ]
    counts = np.array([np.bincount(codes[rows], minlength=classes) for *_, rows in found], dtype=np.int64)
    return Block(
        counts.reshape(len(found), classes),
        lambda i: (found[i][0], "list", found[i][1], ()),
        lambda i: found[i][2],
    )


def _word_lists() -> dict[str, list[str]]:
    from lab.lint.features import plain_form
    from lab.poison import load_families

    found = {}
    for name, family in load_families().items():
        members = {plain_form(m) for m in (*family.train, *family.probe) if m.split() == [m]}
        words = sorted(m for m in members if word_kind(m) == "word")
        if len(words) >= 5:
            found[name] = words
    return found


def _counted(words: Words, features: int, codes: Rows, classes: int, told: Callable[[int], Told]) -> Block:
    """Each feature once a text."""
    keys = np.unique(words.rows * max(features, 1) + words.ids)
    rows, ids = np.divmod(keys, max(features, 1))
    counts = np.bincount(ids * classes + codes[rows], minlength=features * classes)
    return Block(counts.reshape(features, classes), told, lambda i: rows[ids == i])
