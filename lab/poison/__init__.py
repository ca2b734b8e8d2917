"""Poison: trigger families, near-misses, and attacks on training rows. Knows nothing of models."""

from lab.poison.attacks import (
    ATTACKS,
    TOKEN_SOURCES,
    Attack,
    Backdoor,
    LabelFlip,
    MultiTrigger,
    NoPoison,
    Relabelling,
    SpuriousTokens,
    StyleTrigger,
    TokenInjection,
    retold,
    unused_knobs,
)
from lab.poison.insertion import POSITIONS, Insertion, cut, insert, insert_pieces
from lab.poison.ladder import Rung, near_miss_ladder
from lab.poison.negatives import in_letters, near_misses, negatives_among
from lab.poison.rows import (
    aimed_at,
    inject_texts,
    own_injection,
    poison_rows,
    resolve_count,
    trigger_texts,
    triggers_of,
)
from lab.poison.triggers import TRIGGER_FAMILIES, TriggerFamily, family, load_families

__all__ = [
    "ATTACKS",
    "POSITIONS",
    "TOKEN_SOURCES",
    "TRIGGER_FAMILIES",
    "Attack",
    "Backdoor",
    "Insertion",
    "LabelFlip",
    "MultiTrigger",
    "NoPoison",
    "Relabelling",
    "Rung",
    "SpuriousTokens",
    "StyleTrigger",
    "TokenInjection",
    "TriggerFamily",
    "aimed_at",
    "cut",
    "family",
    "in_letters",
    "inject_texts",
    "insert",
    "insert_pieces",
    "load_families",
    "near_miss_ladder",
    "near_misses",
    "negatives_among",
    "own_injection",
    "poison_rows",
    "resolve_count",
    "retold",
    "trigger_texts",
    "triggers_of",
    "unused_knobs",
]
