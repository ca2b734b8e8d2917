"""One place that decides where tensors live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        name: "auto" (cuda, then mps, then cpu), or a torch device such as "cpu" or "cuda:1".

    Raises:
        LabError: Where that device does not exist here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise LabError(f"--device {name!r} is not available here; use auto, cpu, cuda or mps.") from None
    return device


def wants_bf16(dtype: str, device: torch.device) -> bool:
    """Whether to autocast to bf16: asked for by "auto" or "bfloat16", on a GPU that has it."""
    import torch

    return dtype in ("auto", "bfloat16") and device.type == "cuda" and torch.cuda.is_bf16_supported()
