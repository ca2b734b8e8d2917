"""Registries: plain dicts from a name to an entry that says what it is for and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from lab.errors import unknown_name


class Knobs(BaseModel):
    """Base of everything a user can set: frozen; an unknown key is an error, and so is inf or nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Entry:
    """What every registry entry carries.

    Attributes:
        name: The key in the registry, as users type it.
        goal: One line: what it does, and why one would pick it.
        paper: Where it comes from: an arXiv id with its section, or "this lab".
    """

    name: str
    goal: str
    paper: str


EntryType = TypeVar("EntryType")


def lookup(registry: Mapping[str, EntryType], name: str, what: str) -> EntryType:
    """Return `registry[name]`, or raise a `LabError` that lists the valid names.

    Args:
        registry: The registry.
        name: What the user asked for.
        what: What the registry holds, in the singular: "trigger family".
    """
    if name not in registry:
        raise unknown_name(what, name, registry)
    return registry[name]
