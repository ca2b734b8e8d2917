"""The configuration of an adapter from outside: what it claims, checked, and what it names, never loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.audit.safetensors_header import UnreadableAdapterError, parse_strict_json, quoted

LARGEST_CONFIG = 1024 * 1024
_LONGEST_BASE = 512
HIGHEST_RANK = 4096
#: A pattern of a configuration is a regular expression, and may be one that never ends: no repetitions.
_SAFE_PATTERN = re.compile(r"[\w.\\^$|-]{1,256}")
#: What `lab.saved_updates` keeps compiled: more would be compiled anew for every module.
_MOST_PATTERNS = 4096
#: Characters of patterns × places in names where they could begin; 900 modules with one each have 5e8.
_MOST_STEPS = 1_000_000_000
#: What beginning costs, in characters.
_BEGINNING = 32
#: "name" or "owner/name", as the hub has them.
_HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
#: What peft may import by the name that a configuration gives it.
_KNOWN_CODE = ("transformers.", "peft.", "torch.")


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a LoRA adapter; its rank, alpha, patterns and base were checked, nothing else was.

    Args:
        path: A regular file.

    Raises:
        UnreadableAdapterError: It is damaged, too large, or of another kind of adapter.
    """
    if path.stat().st_size > LARGEST_CONFIG:
        raise UnreadableAdapterError(f"{path.name} has more than {LARGEST_CONFIG:,} bytes; it is not read.")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UnreadableAdapterError(f"{path.name} cannot be read ({error.strerror}).") from None
    config = parse_strict_json(text, path.name)
    if config.get("peft_type") != "LORA":
        kind = quoted(config.get("peft_type"))
        raise UnreadableAdapterError(f"{path.name}: peft_type is {kind}; only LORA can be audited.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= HIGHEST_RANK:
        raise UnreadableAdapterError(f"{path.name}: r = {quoted(rank)}: should be 1 to {HIGHEST_RANK:,}.")
    if not _is_number(alpha):
        raise UnreadableAdapterError(f"{path.name}: lora_alpha = {quoted(alpha)}: should be a finite number.")
    base = config.get("base_model_name_or_path") or ""
    if not isinstance(base, str) or not base.isprintable() or len(base) > _LONGEST_BASE:
        raise UnreadableAdapterError(
            f"{path.name}: base_model_name_or_path = {quoted(base)}: should be a name of up to "
            f"{_LONGEST_BASE} characters."
        )
    for key in ("rank_pattern", "alpha_pattern"):
        _check_patterns(path.name, key, config.get(key) or {})
    return config


def _check_patterns(file: str, key: str, patterns: Any) -> None:
    if not isinstance(patterns, dict) or not all(_is_number(v) for v in patterns.values()):
        raise UnreadableAdapterError(f"{file}: {key} should be a table of numbers.")
    for pattern in patterns:
        if not _SAFE_PATTERN.fullmatch(pattern) or not _compiles(pattern):
            raise UnreadableAdapterError(
                f"{file}: {key} holds {quoted(pattern)}; only patterns without repetitions are followed."
            )


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def check_effort(config: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Refuse patterns that would take long to match; each may begin after every dot of a name.

    Args:
        config: The configuration.
        modules: The names that its patterns are for.

    Raises:
        UnreadableAdapterError: There are too many, or too long ones.
    """
    patterns = [p for key in ("rank_pattern", "alpha_pattern") for p in config.get(key) or {}]
    steps = sum(len(p) + _BEGINNING for p in patterns) * sum(name.count(".") + 1 for name in modules)
    if len(patterns) > _MOST_PATTERNS or steps > _MOST_STEPS:
        raise UnreadableAdapterError(
            f"The configuration has {len(patterns):,} patterns, too many for its modules."
        )


def config_notes(config: Mapping[str, Any]) -> list[str]:
    """What a reader should know of a configuration: numbers that mean something else, code that it names."""
    notes = []
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(("pissa", "olora", "corda")):
        notes.append(f"Its factors started at {init[:20]!r}, not at zero: B·A holds more than was learned.")
    base = config.get("base_model_name_or_path") or ""
    if not base:
        notes.append("It names no base model.")
    elif not _HUB_NAME.fullmatch(base):
        notes.append("It names a path or an address as its base: a claim, from which nothing is loaded.")
    notes += [
        f"Its configuration names code ({key}); nothing of it runs here." for key in _named_code(config)
    ]
    return notes


def _named_code(config: Mapping[str, Any]) -> list[str]:
    """The keys by which a configuration has peft or transformers import what it names."""
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    is_known = library is None or (isinstance(library, str) and f"{library}.".startswith(_KNOWN_CODE))
    megatron = config.get("megatron_config") is not None and config.get("megatron_core") != "megatron.core"
    return [
        key
        for key, is_there in (
            ("auto_mapping", not is_known),
            ("megatron_core", megatron),
            ("trust_remote_code", bool(config.get("trust_remote_code"))),
        )
        if is_there
    ]
