"""Registries: plain dicts from a name to an entry that says what it is for and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from lab.errors import unknown_name

#: Below it a docstring lists the keys.
KEYS_HEADING = "Keys:"


class Knobs(BaseModel):
    """Base of everything a user can set: frozen; an unknown key is an error, and so is inf or nan.

    What a key means stands in the docstring too, where `?` and Shift-Tab of a notebook find it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        told = [
            f"    {name}: {(field.description or '').rstrip('.')} (default {field.default!r})"
            for name, field in cls.model_fields.items()
            if field.description
        ]
        if told:
            cls.__doc__ = "\n".join([cls.__doc__ or "", "", KEYS_HEADING, *told])


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
