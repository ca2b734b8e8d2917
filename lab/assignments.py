"""Experiments as differences: what to change of one to get another, and values as `--set` reads them.

The same short form serves the command line, an address bar and a message to a colleague.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lab.errors import LabError
from lab.experiment import Experiment, parse_value

#: Sections whose form depends on a tag: where that differs, every key of theirs is said.
_TAGGED = {"poison": ("attack", "family")}


def differences(start: Experiment, wanted: Experiment) -> dict[str, Any]:
    """The dotted keys that turn one experiment into another: `start.with_(**differences(…)) == wanted`.

    Args:
        start: What to start from, a preset for example.
        wanted: What to arrive at.

    Returns:
        Plain values by dotted key; {} for equal experiments. Names are told too.
    """
    before, after = start.to_dict(), wanted.to_dict()
    changes: dict[str, Any] = {}
    for section, value in after.items():
        if not isinstance(value, Mapping):
            changes |= {section: value} if value != before[section] else {}
            continue
        old = before[section]
        retold = any(old.get(tag) != value.get(tag) for tag in _TAGGED.get(section, ()))
        for name, new in value.items():
            if retold or old.get(name) != new:
                changes[f"{section}.{name}"] = new
    return changes


def format_value(value: Any, key: str = "") -> str:
    """One value as text that `lab.experiment.parse_value` reads back.

    Args:
        value: A plain value: text, number, true or false, a list, a table.
        key: The dotted key that it is for.
    """
    if isinstance(value, str) and parse_value(value, key) == value and value == value.strip():
        return value
    return _toml(value)


def format_assignments(changes: Mapping[str, Any]) -> list[str]:
    """`{"adapter.rank": 4}` as `["adapter.rank=4"]`; the inverse of `lab.experiment.parse_assignments`."""
    return [f"{key}={format_value(value, key)}" for key, value in changes.items()]


def _toml(value: Any) -> str:
    """A value as inline TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped, and for surrogates
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(str(k))} = {_toml(v)}' for k, v in value.items())}}}"
    raise LabError(f"{value!r} cannot be written as a value; text, numbers, lists and tables can.")
