"""Names of weight matrices: which block they lie in, what they do there, and how people name several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lab.errors import NotTrainableError

#: What query and value projections are called: BERT and RoBERTa; DeBERTa; Llama and Mistral; DistilBERT; T5.
_QUERY_VALUE = (
    "query", "value", "query_proj", "value_proj", "q_proj", "v_proj", "q_lin", "v_lin", "q", "v",
)  # fmt: skip


def projection(module: str) -> str:
    """A module's name within its block: "attention.self.query", without the number of the layer."""
    return re.split(r"\.\d+\.", module, maxsplit=1)[-1]


def layer_index(module: str) -> int:
    """The number of the block that a module belongs to, -1 for none."""
    found = re.search(r"\.(\d+)\.", module)
    return int(found.group(1)) if found else -1


def module_groups(projections: Iterable[str]) -> dict[str, set[str]]:
    """The groups of projections that have a name of their own; a group may be empty."""
    every = set(projections)
    attention = {p for p in every if re.search(r"att(entio)?n", p, re.IGNORECASE)}  # T5: "SelfAttention"
    return {
        "all-linear": every,
        "attention": attention,
        "mlp": every - attention,
        "query-value": {p for p in every if p.rpartition(".")[2] in _QUERY_VALUE},
    }


def choose_modules(
    modules: Sequence[str], wanted: str | Sequence[str], *, where: str, last_layers: int = 0
) -> list[str]:
    """The modules that a name or several stand for, in their order.

    Args:
        modules: Full names to choose from.
        wanted: A group ("all-linear", "attention", "mlp", "query-value"), or any run of whole parts of the
            full names: "query", "self.query", "layer.3", "layer.3.attention.self.query".
        where: Whose knob the names are, for the error: "defense pt".
        last_layers: Only modules of that many last layers; 0 for every layer.

    Raises:
        NotTrainableError: A name fits none of them, there are fewer layers, or nothing is left to choose;
            lists what there is.
    """
    groups = module_groups(projection(m) for m in modules)
    valid = ", ".join([*(n for n in groups if groups[n]), *sorted(groups["all-linear"])])
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise NotTrainableError(f"{where}: modules is an empty list. Valid: {valid}.")
    chosen: set[str] = set()
    for name in names:
        fits = {m for m in modules if projection(m) in groups.get(name, ()) or f".{name}." in f".{m}."}
        if not fits:
            raise NotTrainableError(f"{where}: modules = {name!r} fits no module here. Valid: {valid}.")
        chosen |= fits
    layers = sorted({layer_index(m) for m in modules})
    if last_layers > len(layers):
        raise NotTrainableError(
            f"{where}: layers = {last_layers}, but only {len(layers)} layers are there; 0 takes all."
        )
    kept = set(layers[-last_layers:] if last_layers else layers)
    found = [m for m in modules if m in chosen and layer_index(m) in kept]
    if not found:
        raise NotTrainableError(
            f"{where}: none of modules = {wanted!r} lies in the last layers = {last_layers}; 0 takes all."
        )
    return found
