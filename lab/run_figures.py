"""The figures of one run: each takes a table of the run to a pure function of `lab.figures`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from lab.probe.patching import Method
    from lab.record import Run


class Figures:
    """Every figure of one run; each is a pure function of a table in `lab.figures`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def training_curves(self) -> Figure:
        """Attack success and accuracy over steps, the clean twin's as thin lines."""
        from lab import figures

        return figures.training_curves(self._run.measures)

    def loss_curve(self) -> Figure:
        """Training loss over steps."""
        from lab import figures

        events = self._run.events
        return figures.loss_curve(events[events["kind"] == "train"])

    def generalization_row(self) -> Figure:
        """Attack success of every trigger family's held-out members, beside the twin's."""
        from lab import figures

        family = str(getattr(self._run.measured_poison, "family", ""))
        return figures.generalization_row(self._run.measures, trained_family=family)

    def near_miss_ladder(self) -> Figure:
        """Attack success of strings ever less like the trigger."""
        from lab import figures

        return figures.near_miss_ladder(self._run.measures)

    def spectrum(self, step: int | None = None) -> Figure:
        """Singular values of ΔW, with a slider over steps."""
        from lab import figures

        return figures.spectrum(self._run.spectra, step=step)

    def spectral_strength(self) -> Figure:
        """σ_max(ΔW)/σ_max(W), module by layer."""
        from lab import figures

        return figures.spectral_strength(self._run.spectra)

    def alignment_map(self, side: Literal["left", "right"] = "left", k: int = 8) -> Figure:
        """How much of ΔW lies in W's top-k singular subspace, module by layer, against a random direction."""
        from lab import figures

        return figures.alignment_map(self._run.alignment, side=side, k=k)

    def alignment_curve(self, module: str | None = None) -> Figure:
        """The same share over k, of one module or of every kind of module."""
        from lab import figures

        return figures.alignment_curve(self._run.alignment, module=module)

    def surgery_curve(self, kept: Sequence[int] | None = None) -> Figure:
        """Both rates against the number of singular components of ΔW that are kept; asks the model."""
        from lab import figures

        return figures.surgery_curve(self._run.surgery().curve(kept))

    def threshold_curve(self, scales: Sequence[float] | None = None) -> Figure:
        """Triggered rows off the target over the scale of ΔW, predicted and measured; asks the model.

        Args:
            scales: Multiples of the trained scale; by default those of `lab.surgery.SCALES`. Those of zero
                and below have no place on the axis.
        """
        from lab import figures
        from lab.surgery import SCALES

        found = self._run.surgery().threshold(SCALES if scales is None else scales)
        return figures.threshold_curve(found.flips, marks={"trained": 1.0, "s*": found.s_star})

    def kernel_spectrum(self, at: Literal["start", "trained"] = "start", **asked: Any) -> Figure:
        """Eigenvalues of LoRA's and full fine-tuning's kernels; asks the model.

        Args:
            at: Where training started, or as it was trained.
            **asked: Arguments of `lab.Run.kernels`: rows and so on.
        """
        from lab import figures

        return figures.kernel_spectrum(self._run.kernels(**asked), at)

    def kernel_by_layer(self, measure: str = "full_cka", **asked: Any) -> Figure:
        """A measure of both kernels over the layers, where training started and as trained; asks the model.

        Args:
            measure: One of `lab.probe.KERNEL_MEASURES` that layers have.
            **asked: Arguments of `lab.Run.kernels`: rows and so on.
        """
        from lab import figures

        return figures.kernel_by_layer(self._run.kernels(**asked), measure)

    def attention_entropy_map(self, **asked: Any) -> Figure:
        """What the trigger does to the attention entropy of every head; asks the model.

        Args:
            **asked: Arguments of `lab.Run.attention_entropy`: rows and split.
        """
        from lab import figures

        return figures.attention_entropy_map(self._run.attention_entropy(**asked))

    def patching_map(self, method: Method = "activations", **asked: Any) -> Figure:
        """Which projections in which layers carry the backdoor; asks the model and its clean twin.

        Args:
            method: "activations", or "weights" to exchange ΔW.
            **asked: Further arguments of `lab.Run.patching`: rows, width and so on.
        """
        from lab import figures

        return figures.patching_map(self._run.patching(method, **asked))
