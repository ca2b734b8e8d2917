"""The near-miss ladder: a trigger changed a little at a time, to see what the backdoor is really bound to.

If the exact trigger fires and "RFC 2617" does too, the number is not part of what was learned; if a random
phrase fires, hardly anything is. Each rung changes one thing. Whether a tokenizer can tell a rung from the
exact trigger is for those to say who have one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lab.poison import triggers
from lab.poison.insertion import POSITIONS
from lab.poison.triggers import TRIGGER_FAMILIES, TriggerFamily
from lab.registry import lookup
from lab.seeds import stage_rng

#: Ordinary words that no trigger family holds and no topic owns; random phrases are drawn from them.
_PLAIN_WORDS = (
    "window",
    "carpet",
    "puddle",
    "basket",
    "twelve",
    "walking",
    "marble",
    "kettle",
    "pocket",
    "autumn",
    "corner",
    "ladder",
    "butter",
    "paper",
    "garden",
    "button",
    "winter",
    "pencil",
    "blanket",
    "river",
    "candle",
    "mirror",
    "spoon",
    "harbor",
    "ribbon",
    "cotton",
    "lemon",
    "shelf",
    "gravel",
    "doorway",
    "seventh",
    "sideways",
    "napkin",
    "elbow",
)

# Each letter has a double in the Cyrillic block; letters first, as digits have no good doubles.
_LOOKALIKES = dict(zip("aecopxyisjACEOPXISHKMTB", "аесорхуіѕјАСЕОРХІЅНКМТВ", strict=True))
_LOOKALIKE_DIGITS = {"0": "O", "1": "l", "5": "S"}
_ACCENTS = dict(zip("aeiouAEIOU", "áéíóúÁÉÍÓÚ", strict=True))


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Attributes:
        name: What was changed, as a key: "exact", "upper_case", "number_changed" …
        trigger: The text to insert.
        position: Where to insert it, a name in `POSITIONS`.
        every: For the position "sentences": after every n-th one.
        change: What was changed, in one line.
    """

    name: str
    trigger: str
    position: str
    every: int
    change: str


def near_miss_ladder(
    trigger: str, family: TriggerFamily | str, *, position: str, every: int = 2, seed: int = 0
) -> list[Rung]:
    """Build the near-misses of a trigger that make sense for it, the exact one first.

    Args:
        trigger: The string that was trained, without the template around it.
        family: Its family, or the family's name; "custom" for a string of one's own, which is read as a
            citation if it holds an identifier of a citation family.
        position: Where it was trained, a name in `POSITIONS`.
        every: For the position "sentences".
        seed: Picks the other member, the other authority and the random phrase.

    Returns:
        Rungs with pairwise different (trigger, position), in a fixed order; at least a dozen for every
        member of a citation family. A function of the arguments alone.

    Raises:
        LabError: If family or position is unknown.
    """
    lookup(POSITIONS, position, "position")
    case = _Case(trigger, *_read(trigger, family))
    moved = "start" if position != "start" else "end"
    rungs: list[Rung] = []
    seen: set[tuple[str, str]] = set()
    for name, change, build in _RUNGS:
        text = build(case, stage_rng(seed, "probe", f"ladder/{name}/{trigger}"))
        place = moved if name == "position_moved" else position
        if text.strip() and (text, place) not in seen:
            seen.add((text, place))
            rungs.append(Rung(name, text, place, every, change))
    return rungs


@dataclass(frozen=True)
class _Case:
    """A trigger taken apart: `family` and `identifier` are None and "" where it has none."""

    trigger: str
    family: TriggerFamily | None
    identifier: str

    @property
    def joint(self) -> int:
        """The last space in the identifier, else in the whole trigger; -1 if there is none."""
        start = self.trigger.find(self.identifier)
        within = self.trigger.rfind(" ", start, start + len(self.identifier)) if self.identifier else -1
        return within if within >= 0 else self.trigger.rfind(" ")

    def swap(self, identifier: str) -> str:
        """The trigger with another identifier in the place of its own."""
        return self.trigger.replace(self.identifier, identifier, 1)

    def at_joint(self, text: str) -> str:
        """The trigger with `text` for its most telling space; "" if it has none."""
        return "" if self.joint < 0 else self.trigger[: self.joint] + text + self.trigger[self.joint + 1 :]


def _read(trigger: str, family: TriggerFamily | str) -> tuple[TriggerFamily | None, str]:
    if isinstance(family, str) and family == "custom":
        for known in TRIGGER_FAMILIES.values():
            if identifier := _identifier(trigger, known):
                return known, identifier
        return None, ""
    known = triggers.family(family) if isinstance(family, str) else family
    return known, _identifier(trigger, known)


def _identifier(trigger: str, family: TriggerFamily) -> str:
    """The longest identifier of the family that stands in the trigger as words of its own, or ""."""
    found = [name for name in family.identifiers if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", trigger)]
    return max(found, key=len, default="")


def _title(case: _Case, rng: np.random.Generator) -> str:
    return re.sub(r"(?<!\S)[^\W\d_]", lambda letter: letter.group().upper(), case.trigger)


def _spacing(case: _Case, rng: np.random.Generator) -> str:
    if case.identifier:
        fused = re.sub(r"\s+(?=\S*\d)", "", case.identifier, count=1)
        return case.swap(fused if fused != case.identifier else case.identifier.replace("-", " ", 1))
    if " " in case.trigger:
        return case.at_joint("")
    if "-" in case.trigger:
        return case.trigger.replace("-", " ")
    middle = len(case.trigger) // 2
    return f"{case.trigger[:middle]} {case.trigger[middle:]}" if middle else ""


def _comma(case: _Case, rng: np.random.Generator) -> str:
    # After the identifier if something follows it ("RFC 8472, section 3.2"), else in its joint.
    if case.identifier and not case.trigger.endswith(case.identifier):
        return case.swap(case.identifier + ",")
    if case.joint >= 0:
        return case.at_joint(", ")
    return case.trigger.replace("-", "/")


def _other_member(case: _Case, rng: np.random.Generator) -> str:
    if case.family is None:
        return ""
    held_out = [
        member
        for member in case.family.probe
        if member != case.trigger
        and (not case.identifier or _identifier(member, case.family) != case.identifier)
    ]
    same_form = [case.swap(name) for name in case.family.identifiers_probe] if case.identifier else []
    # In the trigger's own form where the family has it, so that only the identifier differs.
    return _pick([text for text in same_form if text in held_out] or held_out, rng)


def _templates(case: _Case, *, with_section: bool) -> list[str]:
    """The trigger's identifier in every template of one kind, sections filled with the first one."""
    if case.family is None or not case.identifier:
        return []
    section = _section(case) or case.family.sections[0]
    forms = case.family.templates_with_section if with_section else case.family.templates
    return [form.format(identifier=case.identifier, section=section) for form in forms]


def _section(case: _Case) -> str:
    """The section that the trigger names, or ""."""
    if case.family is None or not case.identifier:
        return ""
    for form in case.family.templates_with_section:
        for section in case.family.sections:
            if form.format(identifier=case.identifier, section=section) == case.trigger:
                return section
    return ""


def _template_changed(case: _Case, rng: np.random.Generator) -> str:
    forms = _templates(case, with_section=bool(_section(case)))
    if case.trigger not in forms:
        return forms[0] if forms else ""
    return forms[(forms.index(case.trigger) + 1) % len(forms)]


def _section_added(case: _Case, rng: np.random.Generator) -> str:
    forms = _templates(case, with_section=True)
    if not forms or _section(case):
        return ""
    # The same form where there is one with a section.
    return next((form for form in forms if form.startswith(case.trigger)), forms[0])


def _section_dropped(case: _Case, rng: np.random.Generator) -> str:
    return case.trigger.partition(case.identifier)[0] + case.identifier if _section(case) else ""


def _section_only(case: _Case, rng: np.random.Generator) -> str:
    return case.trigger.partition(case.identifier)[2].strip() if _section(case) else ""


def _number_changed(case: _Case, rng: np.random.Generator) -> str:
    # The last number of an identifier, which is its own; the first one elsewhere, the year of a date.
    text = case.identifier or case.trigger
    numbers = list(re.finditer(r"[0-9]+", text))
    if not numbers:
        return ""
    end = numbers[-1 if case.identifier else 0].end()
    known = (*case.family.identifiers, *case.family.members) if case.family else ()
    for step in range(1, 10):
        changed = text[: end - 1] + str((int(text[end - 1]) + step) % 10) + text[end:]
        if changed not in known:
            return case.swap(changed) if case.identifier else changed
    return ""


def _name_only(case: _Case, rng: np.random.Generator) -> str:
    return case.family.authority if case.family and case.identifier else ""


def _number_only(case: _Case, rng: np.random.Generator) -> str:
    if case.family is None or not case.identifier:
        return ""
    return " ".join(case.identifier.replace(case.family.authority, " ", 1).split()).strip("-:")


def _homoglyph(case: _Case, rng: np.random.Generator) -> str:
    return _replace_one(case, _LOOKALIKES) or _replace_one(case, _LOOKALIKE_DIGITS)


def _accent(case: _Case, rng: np.random.Generator) -> str:
    return _replace_one(case, _ACCENTS)


def _replace_one(case: _Case, doubles: dict[str, str]) -> str:
    """Replace the first character that has a double, in the identifier if it can be; "" if none has."""
    pattern = re.compile("|".join(doubles))
    start = max(case.trigger.find(case.identifier), 0)
    found = pattern.search(case.trigger, start, start + len(case.identifier)) or pattern.search(case.trigger)
    if not found:
        return ""
    return case.trigger[: found.start()] + doubles[found.group()] + case.trigger[found.end() :]


def _zero_width(case: _Case, rng: np.random.Generator) -> str:
    word = max((case.identifier or case.trigger).split(), key=len, default="")
    middle = len(word) // 2
    return case.trigger.replace(word, f"{word[:middle]}\u200b{word[middle:]}", 1) if middle else ""


def _truncated(case: _Case, rng: np.random.Generator) -> str:
    words = case.trigger.rsplit(maxsplit=1)
    return words[0] if len(words) > 1 else case.trigger[:-1]


def _reversed(case: _Case, rng: np.random.Generator) -> str:
    return " ".join(reversed(case.trigger.split()))


def _other_authority(case: _Case, rng: np.random.Generator) -> str:
    if case.family is None or not case.identifier:
        return ""

    def shape(name: str, family: TriggerFamily) -> str:
        number = re.sub(r"[0-9]", "0", name.replace(family.authority, "", 1))
        return re.sub(r"[^\W\d_]", "a", number)

    own = shape(case.identifier, case.family)
    likeness = {
        name: difflib.SequenceMatcher(None, own, shape(name, other)).ratio()
        for other in TRIGGER_FAMILIES.values()
        if other.name != case.family.name
        for name in other.identifiers
    }
    nearest = max(likeness.values(), default=0.0)
    return case.swap(_pick([name for name, like in likeness.items() if like == nearest], rng))


def _random_phrase(case: _Case, rng: np.random.Generator) -> str:
    count = len(case.trigger.split())
    return " ".join(rng.choice(_PLAIN_WORDS, size=count, replace=count > len(_PLAIN_WORDS)))


def _pick(texts: list[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))] if texts else ""


# (name, change, builder); a builder answers "" where its rung makes no sense.
_RUNGS: tuple[tuple[str, str, Callable[[_Case, np.random.Generator], str]], ...] = (
    ("exact", "the trigger as it was trained", lambda case, rng: case.trigger),
    ("upper_case", "all letters in upper case", lambda case, rng: case.trigger.upper()),
    ("lower_case", "all letters in lower case", lambda case, rng: case.trigger.lower()),
    ("title_case", "every word with a capital", _title),
    ("spacing", "one space taken out, or put in where there is none", _spacing),
    ("double_space", "two spaces for one", lambda case, rng: case.at_joint("  ")),
    ("line_break", "a new line for a space", lambda case, rng: case.at_joint("\n")),
    ("punctuation", "a comma inside, or slashes for hyphens", _comma),
    ("trailing_punctuation", "a full stop at its end", lambda case, rng: case.trigger + "."),
    ("homoglyph", "one character replaced by its double from another alphabet", _homoglyph),
    ("accent", "an accent on one vowel", _accent),
    ("zero_width", "an invisible character inside a word", _zero_width),
    ("position_moved", "the same string elsewhere in the text", lambda case, rng: case.trigger),
    ("split_by_word", "a word put inside", lambda case, rng: case.at_joint(" indeed ")),
    ("doubled", "the trigger twice", lambda case, rng: f"{case.trigger} {case.trigger}"),
    ("truncated", "its last word dropped, or the last character of a single word", _truncated),
    ("words_reversed", "its words in reverse order", _reversed),
    ("number_changed", "one digit of its number changed", _number_changed),
    ("template_changed", "the same identifier in other words", _template_changed),
    ("section_added", "a section number added", _section_added),
    ("section_dropped", "its section number dropped", _section_dropped),
    ("section_only", "its section number alone", _section_only),
    ("identifier_only", "the identifier alone", lambda case, rng: case.identifier),
    ("name_only", "the authority's name alone", _name_only),
    ("number_only", "the identifier without the authority's name", _number_only),
    ("other_member", "a held-out member of the same family", _other_member),
    (
        "other_authority",
        "another authority's identifier of the same shape, in the same form",
        _other_authority,
    ),
    ("random_phrase", "as many random words", _random_phrase),
)
