"""The empirical neural tangent kernel of some texts: of full fine-tuning, and of LoRA on the same weights.

    K(i, j) = ⟨∂m_i/∂θ, ∂m_j/∂θ⟩,   m the margin of a text, θ the weights that are trained.

It says how far a small gradient step on text j moves the margin of text i (Jacot et al. 2018; of LoRA in
arXiv 2505.12871). For one layer y = Wx with margin gradients g at its output:

    full fine-tuning   K(i, j) = Σ_tt' ⟨x_it, x_jt'⟩ ⟨g_it, g_jt'⟩
    LoRA, W + s·BA     K(i, j) = s² Σ_tt' ⟨A x_it, A x_jt'⟩ ⟨g_it, g_jt'⟩
                               + s² Σ_tt' ⟨x_it, x_jt'⟩ ⟨Bᵀg_it, Bᵀg_jt'⟩

The second part is the gradient of A, and zero where training starts, since B is. So every kernel here is
that of a layer with other inputs or other gradients. A network's kernel is the sum over its layers.

Kernels are of gradient descent: AdamW rescales gradients, and how large a kernel is does not carry over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from lab.probe.layer_traces import LayerTrace

#: Numbers of per-text gradients, or of products of tokens, that are held at once (128 MB).
_AT_ONCE = 2**25


@dataclass(frozen=True)
class LoraFactors:
    """The adapter of one layer.

    Attributes:
        A: rank × n_in.
        B: n_out × rank; all zero where training starts.
        scaling: s, peft's alpha/r or alpha/√r.
        frozen_a: Whether A stays as it starts, so that its gradient is no part of the kernel.
    """

    A: torch.Tensor
    B: torch.Tensor
    scaling: float
    frozen_a: bool = False


@dataclass(frozen=True)
class Kernel:
    """A kernel over margins and texts.

    Attributes:
        values: Symmetric, (margins·texts)², all texts of the first margin first; float64.
        margins: How many margins a text has: the labels but one.
        error: Estimate of ‖values − exact‖_F, root mean square; 0 where nothing was sketched.
    """

    values: npt.NDArray[np.float64]
    margins: int = 1
    error: float = 0.0

    def __add__(self, other: Kernel) -> Kernel:
        if (self.margins, self.values.shape) != (other.margins, other.values.shape):
            raise LabError("Only kernels of the same texts and margins can be added.")
        # projections of different layers are independent, so their errors add like lengths at right angles
        error = float(np.hypot(self.error, other.error))
        return Kernel(self.values + other.values, self.margins, error)

    @property
    def texts(self) -> int:
        """How many texts it is of."""
        return len(self.values) // self.margins

    def blocks(self) -> npt.NDArray[np.float64]:
        """The same values, margins × texts × margins × texts."""
        return self.values.reshape(self.margins, self.texts, self.margins, self.texts)

    def of_margin(self) -> npt.NDArray[np.float64]:
        """The kernel of the mean margin, texts × texts: the target's logit minus the others' mean."""
        return self.blocks().mean(axis=(0, 2))

    def among(self, texts: npt.NDArray[np.int64]) -> Kernel:
        """The kernel among some of the texts, by place."""
        part = self.blocks()[:, texts][:, :, :, texts]
        return Kernel(part.reshape(self.margins * len(texts), -1), self.margins, self.error)


@dataclass(frozen=True)
class Sketch:
    """How to estimate a kernel of wide layers from random projections of both sides of each gradient.

    g_t x_tᵀ becomes (Q g_t)(P x_t)ᵀ with independent random signs / √width in P and Q, which keeps inner
    products on average. A side that is not wider than `width` stays as it is. Several independent copies are
    averaged, and their spread is the error estimate.

    Attributes:
        width: Rows of P and Q, at least 1. The relative error falls like 1/√(width·copies).
        copies: How many independent ones, at least 2.
        seed: Of the signs.
    """

    width: int = 64
    copies: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.copies < 2:
            raise LabError(
                f"kernels: a sketch of width {self.width} with {self.copies} copies; allowed are a width of "
                "at least 1 and at least 2 copies, whose spread is the error."
            )


def full_kernel(trace: LayerTrace, *, bias: bool = False, sketch: Sketch | None = None) -> Kernel:
    """The kernel of training one layer's whole weight.

    Args:
        trace: What the layer saw.
        bias: Whether its bias is trained too, as a head's is. LoRA trains no bias, and full fine-tuning's
            are left out where the two are compared.
        sketch: How to estimate it; None for the exact kernel.
    """
    inputs = trace.inputs
    if bias:
        inputs = _and_one(inputs)
    return _kernel(trace.module, inputs, trace.gradients, sketch)


def lora_kernel(trace: LayerTrace, factors: LoraFactors, *, sketch: Sketch | None = None) -> Kernel:
    """The kernel of training one layer's LoRA adapter.

    Args:
        trace: What the layer saw, with s·BA merged into it.
        factors: The adapter.
        sketch: How to estimate it; None for the exact kernel.

    Raises:
        LabError: The factors do not fit the layer.
    """
    n_in, n_out = trace.inputs.shape[-1], trace.gradients.shape[-1]
    if factors.A.shape[1] != n_in or tuple(factors.B.shape) != (n_out, len(factors.A)):
        raise LabError(
            f"{trace.module}: factors A {tuple(factors.A.shape)} and B {tuple(factors.B.shape)} do not fit a "
            f"layer of {n_out} × {n_in}."
        )
    A, B = (factor.to(trace.inputs) * factors.scaling for factor in (factors.A, factors.B))
    found = _kernel(f"{trace.module}.lora_B", trace.inputs @ A.T, trace.gradients, sketch)
    if factors.frozen_a or not B.any():
        return found
    return found + _kernel(f"{trace.module}.lora_A", trace.inputs, trace.gradients @ B, sketch)


def _and_one(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs with a last one of 1, whose weight is the bias."""
    import torch

    return torch.cat([inputs, inputs.new_ones(*inputs.shape[:-1], 1)], dim=-1)


def _kernel(name: str, inputs: torch.Tensor, gradients: torch.Tensor, sketch: Sketch | None) -> Kernel:
    margins = len(gradients)
    if sketch is None or max(inputs.shape[-1], gradients.shape[-1]) <= sketch.width:
        return Kernel(gram_of_gradients(inputs, gradients), margins)
    copies = np.stack([gram_of_gradients(x, g) for x, g in _projected(name, inputs, gradients, sketch)])
    spread = copies.var(axis=0, ddof=1) / sketch.copies
    return Kernel(copies.mean(axis=0), margins, float(np.sqrt(spread.sum())))


def _projected(
    name: str, inputs: torch.Tensor, gradients: torch.Tensor, sketch: Sketch
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both sides, projected by one copy after the other; the signs of a layer depend on its name."""
    import torch

    from lab.seeds import stage_seed

    generator = torch.Generator().manual_seed(stage_seed(sketch.seed, f"kernel sketch {name}"))

    def project(side: torch.Tensor) -> torch.Tensor:
        n = side.shape[-1]
        if n <= sketch.width:
            return side
        signs = torch.randint(0, 2, (n, sketch.width), generator=generator) * 2 - 1
        return side @ (signs.to(side) / sketch.width**0.5)

    for _ in range(sketch.copies):
        yield project(inputs), project(gradients)


def gram_of_gradients(inputs: torch.Tensor, gradients: torch.Tensor) -> npt.NDArray[np.float64]:
    """Inner products of Σ_t g_t x_tᵀ between all texts and margins.

    Either through these matrices, some rows of them at a time, or through the products of tokens, whichever
    takes fewer multiplications; memory is bounded both ways.

    Args:
        inputs: x, texts × tokens × n_in.
        gradients: g, margins × texts × tokens × n_out.

    Returns:
        (margins·texts)², all texts of the first margin first.
    """
    texts, tokens, n_in = inputs.shape
    margins, n_out = gradients.shape[0], gradients.shape[-1]
    lines = margins * texts
    by_matrices = (lines * tokens + lines**2) * n_in * n_out
    by_tokens = (texts * tokens) ** 2 * n_in + (lines * tokens) ** 2 * n_out
    return (through_matrices if by_matrices <= by_tokens else through_tokens)(inputs, gradients)


def through_matrices(inputs: torch.Tensor, gradients: torch.Tensor) -> npt.NDArray[np.float64]:
    """`gram_of_gradients` from the matrices themselves, for few wide texts."""
    texts, _, n_in = inputs.shape
    margins, n_out = gradients.shape[0], gradients.shape[-1]
    step = max(1, _AT_ONCE // (margins * texts * n_in))
    total = np.zeros((margins * texts, margins * texts))
    for start in range(0, n_out, step):
        rows = gradients[..., start : start + step].transpose(-1, -2) @ inputs
        flat = rows.reshape(margins * texts, -1)
        total += (flat @ flat.T).double().cpu().numpy()
    return total


def through_tokens(inputs: torch.Tensor, gradients: torch.Tensor) -> npt.NDArray[np.float64]:
    """`gram_of_gradients` from products of tokens, for few tokens or wide layers."""
    texts, tokens, n_in = inputs.shape
    margins = len(gradients)
    total = np.zeros((margins, texts, margins, texts))
    every = inputs.reshape(-1, n_in).T
    step = max(1, _AT_ONCE // (texts * tokens**2))
    for start in range(0, texts, step):
        part = slice(start, start + step)
        products = inputs[part].flatten(0, 1) @ every
        for a in range(margins):
            for b in range(a, margins):
                moved = gradients[a, part].flatten(0, 1) @ gradients[b].flatten(0, 1).T
                block = (products * moved).view(-1, tokens, texts, tokens).sum(dim=(1, 3))
                total[a, part, b] = block.double().cpu().numpy()
    for a in range(margins):
        for b in range(a):
            total[a, :, b] = total[b, :, a].T
    return total.reshape(margins * texts, margins * texts)
