"""Probe batteries: prefixes in categories, put before rows to see which of them move an adapter's answers.

A defender who does not know the trigger tries many strings. What a battery finds depends on what it holds:
a trigger with nothing like it in there stays unseen, so every battery names its categories, and `broad` is
kept free of the trigger families on which audits are tested. They are files, `data/batteries/<name>.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.entry_files import FileRegistry, read_entries
from lab.errors import LabError, unknown_name
from lab.paths import data_dir
from lab.registry import lookup

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class Battery(BaseModel):
    """A named list of prefixes in categories.

    Attributes:
        name: The name of the file, without its ending.
        goal: One line: what it is for.
        source: Where its strings come from.
        joiner: What stands between a prefix and the text of a row.
        categories: The prefixes of each category, in order.
        subsets: Named choices of categories; a subset of that name can be asked for alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    goal: Text
    source: Text
    joiner: str
    categories: Annotated[dict[Text, Texts], Field(min_length=1)]
    subsets: dict[Text, Texts] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Battery:
        held = [prefix for prefixes in self.categories.values() for prefix in prefixes]
        twice = {prefix for prefix in held if held.count(prefix) > 1}
        if twice:
            raise ValueError(f"categories: {min(twice)!r} occurs twice")
        for subset, names in self.subsets.items():
            unknown = sorted(set(names) - set(self.categories))
            if unknown:
                raise ValueError(f"subsets: in subsets.{subset}: there is no category {unknown[0]!r}")
        return self

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Every prefix, category by category."""
        return tuple(prefix for prefixes in self.categories.values() for prefix in prefixes)

    def category_of(self, prefix: str) -> str:
        """The category of one of its prefixes.

        Raises:
            LabError: The battery does not hold it.
        """
        for category, prefixes in self.categories.items():
            if prefix in prefixes:
                return category
        raise LabError(f"The battery {self.name!r} holds no prefix {prefix!r}.")

    def subset(self, name: str) -> Battery:
        """The battery with the categories of one of its subsets alone, named `<battery>/<subset>`.

        Raises:
            LabError: On an unknown subset; lists the valid ones.
        """
        if name not in self.subsets:
            raise unknown_name(f"subset of the battery {self.name!r}", name, self.subsets)
        kept = {category: self.categories[category] for category in self.subsets[name]}
        return self.model_copy(update={"name": f"{self.name}/{name}", "categories": kept, "subsets": {}})

    def holds(self, category: str, prefix: str) -> bool:
        """Whether it has a prefix in a category."""
        return prefix in self.categories.get(category, ())

    def apply(self, prefix: str, text: str) -> str:
        """A row's text with a prefix before it."""
        return f"{prefix}{self.joiner}{text}"


def battery(name: str) -> Battery:
    """Return a battery, or one of its subsets: "broad", "paper-structural/C".

    Raises:
        LabError: There is none of that name; the message lists the valid ones.
    """
    whole, _, part = name.partition("/")
    found = lookup(BATTERIES, whole, "probe battery")
    return found.subset(part) if part else found


def load_batteries(folder: str | Path | None = None) -> dict[str, Battery]:
    """Read every battery of a folder; the answer is cached for the life of the process.

    Args:
        folder: A folder of `<name>.toml` files; the lab's own `data/batteries` if not given.

    Raises:
        LabError: A file is malformed (the message names file and field), or is not named as its battery.
    """
    return dict(_load(Path(folder) if folder else data_dir() / "batteries"))


@cache
def _load(folder: Path) -> dict[str, Battery]:
    return read_entries(folder, Battery.model_validate, "probe batteries")


#: The registry of probe batteries, from name to `Battery`.
BATTERIES: Mapping[str, Battery] = FileRegistry("batteries", _load)
