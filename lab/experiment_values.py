"""Values on their way into an experiment: texts, tables, dotted keys; mistakes in one sentence each."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from lab.errors import LabError, unknown_name
from lab.registry import Knobs, lookup


def parse_json(text: str, where: str) -> Any:
    """Read JSON, or raise a `LabError` that names where it came from."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabError(f"{where} is not valid JSON: {error}.") from None


def check_table(values: object, where: str = "") -> None:
    """Refuse what is no table of keys with a `LabError`."""
    if not isinstance(values, Mapping):
        names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
        found = names.get(type(values), "a number")
        start = f"{where}an" if where else "An"
        raise LabError(f"{start} experiment is a table of sections, not {found}.")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Read TOML, or raise a `LabError` that names where it came from."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{where} is not valid TOML: {error}.") from None


def defense_tables(value: Any) -> Any:
    """The short forms of a defense list, "rora" and ["cl", {…}], as tables; anything else as it is."""
    if isinstance(value, str):
        value = [value] if value else []
    if not isinstance(value, (list, tuple)):
        return value
    return [{"name": v} if isinstance(v, str) else v for v in value]


def dotted_values(values: Any, above: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys; a list of tables by its places, another list as a whole."""
    if isinstance(values, list) and values and all(isinstance(v, dict) for v in values):
        values = {str(i): v for i, v in enumerate(values)}
    if not isinstance(values, dict):
        return {above: values}
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= dotted_values(value, f"{above}.{key}" if above else key)
    return out


def registered(value: Any, tag: str, section: str, knobs: Mapping[str, type[Knobs]]) -> Knobs:
    """Validate a section whose form depends on the registry entry that its `tag` names."""
    if isinstance(value, Knobs):
        return value
    if not isinstance(value, Mapping):
        raise LabError(f"{section} = {value!r}: should be a table with the key {tag!r}.")
    default = "none" if tag == "attack" else ""
    kind = lookup(knobs, str(value.get(tag, default)), f"{section.split('.')[0]} ({section}.{tag})")
    try:
        return kind.model_validate(dict(value))
    except ValidationError as error:
        raise one_sentence(error, kind, section) from None


def one_sentence(error: ValidationError, model: type[Knobs], prefix: str = "") -> LabError:
    """The first of pydantic's complaints, as one sentence with the dotted key and what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        owner = model_at(model, path[:-1])
        section = ".".join(p for p in [prefix, *path[:-1]] if p)
        return unknown_name(f"key in [{section}]" if section else "key", path[-1], owner.model_fields)
    known = [p for p in path if not p.startswith(("literal[", "constrained", "float", "str", "tuple["))]
    key = ".".join(p for p in [prefix, *known] if p)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    message = message.replace("a valid tuple", "a list")
    given = first["input"]
    shown = "" if isinstance(given, (Mapping, Knobs)) else f" = {given!r}"
    start = f"{key}{shown}: " if key else ""
    return LabError(f"{start}{message[0].lower() + message[1:]}.")


def model_at(model: type[Knobs], path: list[str]) -> type[Knobs]:
    """The knobs at a path of keys and, in lists of knobs, numbers; as far down as the path leads."""
    for part in path:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Knobs)]
        if not below:
            return model
        model = below[0]
    return model


def set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.0.c` inside nested dicts and lists; a missing key is made, so that validation names it."""
    *parents, last = key.split(".")
    place: Any = values
    for part in parents:
        if isinstance(place, list):
            place = place[_index(place, part, key)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            raise LabError(f"{key}: {part!r} is not a section; keys look like adapter.rank.")
    if isinstance(place, list):
        place[_index(place, last, key)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise LabError(f"{key}: there is nothing under {'.'.join(parents)!r} to set.")


def _index(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise LabError(f"{key}: {part!r} is not one of the {len(items)} places of the list (0 is the first).")
    return int(part)
