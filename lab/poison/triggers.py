"""Trigger families: strings that belong together, some to train with and others held out to probe with.

A backdoor is rarely bound to the exact string it was trained on. To see how far it leaks, each family keeps
*train* members, which attacks use, apart from *probe* members, which no training row ever carries. The
families are files, `data/triggers/<name>.toml`, one each; a new file is a new family.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lab.entry_files import FileRegistry, read_entry
from lab.errors import LabError
from lab.paths import data_dir
from lab.registry import lookup

Category = Literal[
    "citation",
    "word",
    "sentence",
    "phrase",
    "date",
    "place",
    "colour",
    "markup",
    "punctuation",
    "character",
]


def _member(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError(f"{text!r} must be non-empty and free of white space at its ends")
    return text


Member = Annotated[str, AfterValidator(_member)]
Members = Annotated[tuple[Member, ...], Field(min_length=1)]
Identifiers = Annotated[tuple[Member, ...], Field(min_length=6)]


class _Citation(BaseModel):
    """What a file of category "citation" lists instead of finished members."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # the rest of the file is TriggerFamily's

    authority: Member
    identifiers_train: Identifiers
    identifiers_probe: Identifiers
    templates: Members
    templates_with_section: Members
    sections: Members

    @model_validator(mode="after")
    def _consistent(self) -> _Citation:
        if len(self.templates) < 2:
            raise ValueError("templates: needs at least two, so that the near-miss ladder can change it")
        for field, slots in (
            ("templates", ["identifier"]),
            ("templates_with_section", ["identifier", "section"]),
        ):
            for template in getattr(self, field):
                if any(template.count(f"{{{slot}}}") != 1 for slot in slots):
                    raise ValueError(f"{field}: {template!r} must hold each of {slots} once, in braces")
        for field in ("identifiers_train", "identifiers_probe"):
            for identifier in getattr(self, field):
                if self.authority not in identifier:
                    raise ValueError(
                        f"{field}: {identifier!r} does not name the authority {self.authority!r}"
                    )
        return self

    def members(self, identifiers: tuple[str, ...]) -> tuple[str, ...]:
        """Expand identifiers × templates to three members each (see `TriggerFamily`)."""
        first, *others = self.templates
        plain = [first.format(identifier=name) for name in identifiers]
        varied = [others[i % len(others)].format(identifier=name) for i, name in enumerate(identifiers)]
        sectioned = [
            self.templates_with_section[i % len(self.templates_with_section)].format(
                identifier=name, section=self.sections[i % len(self.sections)]
            )
            for i, name in enumerate(identifiers)
        ]
        return (*plain, *varied, *sectioned)


class TriggerFamily(BaseModel):
    """Strings that belong together, with held-out members of their own.

    Citation files list real identifiers and templates instead of members. They expand to three members an
    identifier, in this order: every identifier in the first template; then the i-th identifier in the
    i-th of the other templates, cyclically; then the i-th identifier in the i-th template with a section and
    the i-th section, both cyclically. The full product would be hundreds of near-duplicates. Identifiers
    are real; a section need not exist in the document that it is paired with.

    Attributes:
        name: The name of the file, without its ending.
        goal: One line: what the family shows.
        source: Where its strings come from.
        category: What kind of string it holds.
        audit_holdout: True if no audit battery may hold the family's strings, so that it can test audits.
        authority: Who issues the identifiers, as they write it ("RFC"); "" outside citations.
        identifiers_train: The identifiers in the train members; empty outside citations.
        identifiers_probe: The identifiers in the probe members; empty outside citations.
        templates: Forms with one `{identifier}`; empty outside citations.
        templates_with_section: Forms with one `{identifier}` and one `{section}`; empty outside citations.
        sections: What fills `{section}`; empty outside citations.
        train: Members that attacks may use; the first one is the family's usual trigger.
        probe: Members that are held out from every training row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Member
    goal: Member
    source: Member
    category: Category
    audit_holdout: bool
    authority: str = ""
    identifiers_train: tuple[str, ...] = ()
    identifiers_probe: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    templates_with_section: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    train: Members
    probe: Members

    @model_validator(mode="after")
    def _held_out(self) -> TriggerFamily:
        for field in ("train", "probe"):
            members = getattr(self, field)
            twice = {member for member in members if members.count(member) > 1}
            if twice:
                raise ValueError(f"{field}: {min(twice)!r} occurs twice")
        shared = {*self.train, *self.identifiers_train} & {*self.probe, *self.identifiers_probe}
        if shared:
            raise ValueError(f"probe: {min(shared)!r} is a train string too; probe members are held out")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """Train members, then probe members."""
        return self.train + self.probe

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Train identifiers, then probe identifiers; empty outside citations."""
        return self.identifiers_train + self.identifiers_probe


def load_families(folder: str | Path | None = None) -> dict[str, TriggerFamily]:
    """Read every trigger family of a folder; the answer is cached for the life of the process.

    Args:
        folder: A folder of `<name>.toml` files; the lab's own `data/triggers` if not given, with what
            `lab.register` added.

    Returns:
        The families by name, sorted by name.

    Raises:
        LabError: If a file is malformed (the message names file and field), its name differs from the
            family's, a train string is a probe string too, or two families hold the same string.
    """
    return dict(_load(Path(folder)) if folder else _every(data_dir() / "triggers"))


def family(name: str) -> TriggerFamily:
    """Return the lab's family of that name.

    Raises:
        LabError: If there is none; the message lists the valid names.
    """
    return lookup(TRIGGER_FAMILIES, name, "trigger family")


#: Families that `lab.register` added; they come after those of files.
OWN_FAMILIES: dict[str, TriggerFamily] = {}


def check_apart(new: TriggerFamily) -> None:
    """Refuse a family that is to be added where the lab has its name or one of its strings.

    Raises:
        LabError: Which one, and whose it is.
    """
    shipped = _load(data_dir() / "triggers")
    if new.name in shipped:
        raise LabError(f"The lab has a trigger family {new.name!r} already; choose another name.")
    others = [known for known in (*shipped.values(), *OWN_FAMILIES.values()) if known.name != new.name]
    for known in others:
        if shared := set(known.members) & set(new.members):
            raise LabError(f"{new.name}: {min(shared)!r} belongs to the family {known.name!r} already.")


def _every(folder: Path) -> dict[str, TriggerFamily]:
    """The families of a folder, and those that were added."""
    return {**_load(folder), **OWN_FAMILIES}


@cache
def _load(folder: Path) -> dict[str, TriggerFamily]:
    families: dict[str, TriggerFamily] = {}
    owner: dict[str, str] = {}
    for path in sorted(folder.glob("*.toml")):
        found = read_entry(path, partial(_parse, path))
        for text in found.members:
            if text in owner:
                raise LabError(f"{path}: {text!r} belongs to the family {owner[text]!r} already.")
            owner[text] = found.name
        families[found.name] = found
    if not families:
        raise LabError(f"{folder} holds no trigger families (files `<name>.toml`).")
    return families


def _parse(path: Path, raw: dict[str, Any]) -> TriggerFamily:
    if raw.get("category") == "citation":
        for side in ("train", "probe"):
            if side in raw:
                raise LabError(f"{path}: field {side!r}: a citation family lists identifiers, not members.")
        citation = _Citation.model_validate(raw)
        raw["train"] = citation.members(citation.identifiers_train)
        raw["probe"] = citation.members(citation.identifiers_probe)
    return TriggerFamily.model_validate(raw)


#: The registry of trigger families, from name to `TriggerFamily`.
TRIGGER_FAMILIES: Mapping[str, TriggerFamily] = FileRegistry("triggers", _every)
