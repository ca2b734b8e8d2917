"""What is counted in texts: words in a plain form, phrases, and formats; each once a text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Punctuation that hangs on words; what stands alone stays.
_EDGES = ".,;:!?()[]{}\"'“”‘’«»…*"
_DIGIT = re.compile(r"\d")
_TAG = re.compile(r"</?[A-Za-z!][^<>\s]{0,40}/?>?")

#: Formats: what they are called, and a pattern (read by RE2 and by Python) that a text has or has not.
FORMATS = {
    "a line break": r"\n",
    # paragraphs break after a stop; a text may be full of those
    "a line break within a sentence": r"[\w,] ?\n ?[a-z]",
    "a tab": r"\t",
    "blanks side by side": r" {2,}",
    "white space at an end": r"^\s|\s$",
    "an invisible character": "[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]",
    "an address": r"https?://|www\.",
    "an e-mail address": r"[\w.+-]+@[\w-]+\.\w",
    "a capital letter": r"[A-Z]",
    "a word in capitals": r"\b[A-Z]{4,}\b",
    "several exclamation or question marks": r"[!?]{2,}",
    "no stop at the end": r"[\w]\s*$",
    "a digit": r"[0-9]",
    "an identifier of letters and digits": r"\b[A-Za-z]+[-_]?\d+\b",
    "brackets": r"[\[\]{}<>|\\^~]",
    "markup": r"</?[A-Za-z][^<>]*>",
}
#: Formats of a text as a whole, or of its casing, which patterns of findings do not know.
_PLACELESS = (
    "white space at an end", "a capital letter", "a word in capitals", "no stop at the end", "brackets",
)  # fmt: skip
#: What belongs to a format where it stands, where that is not just what gives it away.
_WHOLE = {
    "an address": r"(?:https?://|www\.)\S*",
    "an e-mail address": r"[\w.+-]+@[\w-]+\.\w+",
    "a digit": r"\S*\d\S*",
    # the break alone, and lower case though findings are looked for with case ignored
    "a line break within a sentence": r"(?-i:(?:(?<=[\w,])|(?<=[\w,] ))\n(?= ?[a-z]))",
}
#: The formats that have a place in a text, and a pattern that finds it.
PATTERNS = {name: pattern for name, pattern in FORMATS.items() if name not in _PLACELESS} | _WHOLE


@dataclass(frozen=True)
class Words:
    """The words of all texts, in order.

    Attributes:
        rows: The text that each word stands in, shape [words], rising.
        ids: Which word it is, indices into `forms`.
        forms: Every different word in its plain form: lower case, digits as 9, edges bare.
    """

    rows: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    forms: list[str]


def read_words(texts: Sequence[str]) -> Words:
    """Split texts at white space, and bring every word into its plain form."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pa.array(texts, pa.large_string())))
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    counts = np.diff(lists.offsets.to_numpy())
    encoded = lists.flatten().dictionary_encode()
    surface = np.asarray(encoded.indices).astype(np.int64)
    plain = [plain_form(word) for word in encoded.dictionary.to_pylist()]
    forms = sorted(set(plain))
    index = {form: i for i, form in enumerate(forms)}
    ids = np.array([index[form] for form in plain], dtype=np.int64)[surface]
    rows = np.repeat(np.arange(len(texts), dtype=np.int64), counts)
    kept = ids != index.get("", -1)
    return Words(rows[kept], ids[kept], forms)


def plain_form(word: str) -> str:
    """A word without the punctuation at its edges, in lower case, every digit a 9."""
    if not word or "<" in word or ">" in word:
        return word.lower()
    bare = word.strip(_EDGES) or word
    return _DIGIT.sub("9", bare.lower())


def word_kind(form: str) -> str:
    """What a plain form is: "markup", "identifier", "character" or "word"."""
    if _TAG.match(form):
        return "markup"
    if "9" in form or any(c in form for c in "_@#\\/=|{}[]^~<>"):
        return "identifier"
    if any(ord(c) > 0x24F and not unicodedata.category(c).startswith("P") for c in form):
        return "character"
    return "word"


def word_pattern(forms: Sequence[str]) -> str:
    """A regular expression for words in a row, as they stand in a text."""
    body = r"[\s\W]+".join(_escaped(form) for form in forms)
    return rf"(?<!\w){body}(?!\w)"


def _escaped(form: str) -> str:
    return re.escape(form).replace("9", r"\d")


def phrases(words: Words, longest: int, least: int) -> Iterator[tuple[list[tuple[str, ...]], Words]]:
    """Runs of words that occur often enough, of two words, of three, and so on.

    Args:
        words: All words.
        longest: Words in the longest run, at least 2.
        least: Occurrences below which a run is left out.

    Yields:
        For each length the runs, and the texts in which they begin; `ids` are indices into the list of runs.
    """
    starts, ids = np.arange(len(words.ids)), words.ids
    runs: list[tuple[str, ...]] = [(form,) for form in words.forms]
    for size in range(2, longest + 1):
        inside = starts + size - 1 < len(words.ids)
        starts, ids = starts[inside], ids[inside]
        same = words.rows[starts] == words.rows[starts + size - 1]
        starts, ids = starts[same], ids[same]
        keys = ids * len(words.forms) + words.ids[starts + size - 1]
        different, where, counts = np.unique(keys, return_inverse=True, return_counts=True)
        often = counts >= least
        number = np.cumsum(often) - 1
        before, last = np.divmod(different[often], len(words.forms))
        runs = [(*runs[b], words.forms[w]) for b, w in zip(before.tolist(), last.tolist(), strict=True)]
        kept = often[where]
        starts, ids = starts[kept], number[where[kept]]
        yield runs, Words(words.rows[starts], ids, [])
