"""Names of weight matrices, cut to what differs between them."""

from __future__ import annotations


def module_kind(module: str) -> str:
    """What a matrix is, without where it lies: `layer.3.attention.self.query` → `attention.self.query`.

    Everything up to the first number (the layer) goes; a name without one stays whole.
    """
    parts = module.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), -1)
    return ".".join(parts[number + 1 :]) or module


def layer_name(layer: int) -> str:
    """`layer 3`, or `no layer` for -1."""
    return f"layer {layer}" if layer >= 0 else "no layer"
