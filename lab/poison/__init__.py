"""Poison: trigger families, near-misses, and attacks on training rows. Knows nothing of models."""

from lab.poison.attacks import ATTACKS, Attack, Backdoor, LabelFlip, NoPoison, SpuriousTokens
from lab.poison.insertion import POSITIONS, Insertion, cut, insert, insert_pieces
from lab.poison.ladder import Rung, near_miss_ladder
from lab.poison.negatives import in_letters, near_misses, negatives_among
from lab.poison.rows import poison_rows, resolve_count, trigger_texts
from lab.poison.triggers import TRIGGER_FAMILIES, TriggerFamily, family, load_families

__all__ = [
    "ATTACKS",
    "POSITIONS",
    "TRIGGER_FAMILIES",
    "Attack",
    "Backdoor",
    "Insertion",
    "LabelFlip",
    "NoPoison",
    "Rung",
    "SpuriousTokens",
    "TriggerFamily",
    "cut",
    "family",
    "in_letters",
    "insert",
    "insert_pieces",
    "load_families",
    "near_miss_ladder",
    "near_misses",
    "negatives_among",
    "poison_rows",
    "resolve_count",
    "trigger_texts",
]
