"""The attacks: each says what can be set, how many rows it means, and what it does to them."""

from __future__ import annotations

from lab.poison.attacks._attack import Attack
from lab.poison.attacks._relabelling import Relabelling
from lab.poison.attacks._token_knobs import TOKEN_SOURCES, TokenInjection, retold, unused_knobs
from lab.poison.attacks.backdoor import BACKDOOR, Backdoor
from lab.poison.attacks.label_flip import LABEL_FLIP, LabelFlip
from lab.poison.attacks.multi_trigger import MULTI_TRIGGER, MultiTrigger
from lab.poison.attacks.none import NONE, NoPoison
from lab.poison.attacks.spurious_tokens import SPURIOUS_TOKENS, SpuriousTokens
from lab.poison.attacks.style import STYLE, StyleTrigger

__all__ = [
    "ATTACKS",
    "TOKEN_SOURCES",
    "Attack",
    "Backdoor",
    "LabelFlip",
    "MultiTrigger",
    "NoPoison",
    "Relabelling",
    "SpuriousTokens",
    "StyleTrigger",
    "TokenInjection",
    "retold",
    "unused_knobs",
]

#: The registry of attacks, from the name in `poison.attack` to the attack.
ATTACKS: dict[str, Attack] = {
    attack.name: attack for attack in (NONE, BACKDOOR, MULTI_TRIGGER, STYLE, SPURIOUS_TOKENS, LABEL_FLIP)
}
