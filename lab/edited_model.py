"""A run's model whose weights can be edited and put back: what weight edits and surgery work on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.defend import Weights
from lab.errors import LabError, NotTrainableError

if TYPE_CHECKING:
    import torch

    from lab.experiment import Experiment
    from lab.prepare import Prepared
    from lab.probe import Predictor
    from lab.spectra import BaseSpectrum, Update
    from lab.train.models import LoadedBase


class EditedModel:
    """The model of a finished run, with ΔW and head as they were trained until they are replaced.

    It is the `lab.defend.Patient` of weight edits. The run on disk is never changed.

    Args:
        folder: The run's folder.
        prepared: The run's rows, for edits that look at clean ones.
        device: Where to put the model.

    Raises:
        LabError: An adapter on a 4-bit base, whose weights cannot be replaced one by one.
    """

    def __init__(self, folder: Path, prepared: Prepared, device: torch.device) -> None:
        from lab.train.devices import wants_bf16
        from lab.trained_model import load_own_base, read_asked, read_reading

        experiment, self.labels = read_asked(folder)
        if experiment.base.load_in_4bit:
            raise LabError(f"{folder.name}: weights on a 4-bit base cannot be edited.")
        self._folder, self._prepared, self._device = folder, prepared, device
        self._bf16 = wants_bf16(experiment.base.dtype, device)
        base = load_own_base(folder, device)
        self.base_name, self.tokenizer, self._head_modules = base.name, base.tokenizer, base.head
        if (folder / "model").is_dir():
            self.model, self._base, updates = _whole(base.model, folder / "model", device, experiment)
            self._shown: Mapping[str, Update] = updates
        else:
            self.model, self._base, updates = _adapted(base, folder, experiment)
            self._shown = {}
        self.model.eval()
        self._reading = read_reading(folder, self.tokenizer, self.model.config)
        head = {n: p.detach().cpu().clone() for n, p in self.model.named_parameters() if self._in_head(n)}
        self.weights = Weights(updates, head)
        self._linears: dict[str, Any] = {n: m for n, m in self.model.named_modules() if n in self._base}
        self.show(self.weights)

    def show(self, weights: Weights) -> EditedModel:
        """Make the model answer with these weights; only what differs from those before is written."""
        import torch

        with torch.no_grad():
            for name in {**self._shown, **weights.updates}:
                update = weights.updates.get(name)
                if update is not self._shown.get(name):
                    self._write(name, update)
            parameters = dict(self.model.named_parameters())
            for name, value in weights.head.items():
                parameters[name].copy_(value)
        self._shown = weights.updates
        return self

    def _write(self, name: str, update: Update | None) -> None:
        W = self._base[name]
        self._linears[name].weight.copy_(W if update is None else update.merge_into(W))

    @cached_property
    def predictor(self) -> Predictor:
        """The model as it is shown, ready to answer."""
        from lab.probe import Predictor

        return Predictor(
            self.model, self.tokenizer, self.labels, self._device, bf16=self._bf16, reading=self._reading
        )

    def linears(self) -> list[str]:
        """Every linear layer of the blocks, by module name."""
        return list(self._base)

    def base_weight(self, module: str) -> torch.Tensor:
        """W of the base, n_out × n_in; on the CPU in float32, as updates are."""
        return self._base[module].cpu().float()

    def base_sigma(self, module: str) -> float:
        """σ_max(W) of the base."""
        return float(self.base_spectra([module])[module].sigma[0])

    def base_spectra(self, modules: list[str]) -> dict[str, BaseSpectrum]:
        """Singular values and vectors of W of these modules, from the cache where they are known."""
        from lab.spectra import base_spectra

        shapes = {name: (self._base[name].shape[0], self._base[name].shape[1]) for name in modules}
        precision = str(next(iter(self._base.values())).dtype).removeprefix("torch.")
        return base_spectra(shapes, self._prepared.base.sha256, lambda: self._base, precision)

    def activity(self, weights: Weights, modules: list[str]) -> dict[str, torch.Tensor]:
        """The mean absolute value of every input of these modules, over the tokens of clean training rows."""
        sums: dict[str, Any] = dict.fromkeys(modules, 0.0)
        count = 0

        def watch(name: str) -> Any:
            def hook(_: Any, inputs: Any) -> None:
                mask = batch["attention_mask"].bool()
                sums[name] = sums[name] + inputs[0][mask].float().abs().sum(0)

            return hook

        hooks = [self._linears[name].register_forward_pre_hook(watch(name)) for name in modules]
        try:
            for batch, _ in self._clean_batches(weights):
                count += int(batch["attention_mask"].sum())
                self._answer(batch)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: total.cpu() / count for name, total in sums.items()}

    def features(self, weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
        """What the head's last linear layer gets for each clean training row, and the labels."""
        import torch

        seen: list[torch.Tensor] = []
        labels: list[int] = []

        def watch(_: Any, inputs: Any) -> None:
            X = inputs[0]
            if X.ndim == 3:  # decoders score every token; the last real one is the answer
                last = batch["attention_mask"].sum(dim=1) - 1
                X = X[torch.arange(len(X), device=X.device), last]
            seen.append(X.detach().float().cpu())

        hook = self.model.get_submodule(self.output_layer).register_forward_pre_hook(watch)
        try:
            for batch, truth in self._clean_batches(weights):
                labels += truth
                self._answer(batch)
        finally:
            hook.remove()
        return torch.cat(seen), torch.tensor(labels)

    @cached_property
    def output_layer(self) -> str:
        """The name of the head's last linear layer.

        Raises:
            NotTrainableError: The head ends in something else than a linear layer with an output per label.
        """
        from torch import nn

        heads = [n for n, m in self.model.named_modules() if isinstance(m, nn.Linear) and self._in_head(n)]
        fitting = [n for n in heads if self.model.get_submodule(n).out_features == len(self.labels)]
        if not fitting:
            raise NotTrainableError(
                f"defense refit_head: the head of {type(self.model).__name__} has no linear layer with an "
                f"output for each of the {len(self.labels)} labels."
            )
        return fitting[-1]

    def _clean_batches(self, weights: Weights) -> Iterator[tuple[dict[str, torch.Tensor], list[int]]]:
        """Batches of clean training rows for these weights: the model's inputs, and the labels."""
        from lab.poison import negatives_among
        from lab.tokens import EVALUATION_TOKENS, by_length, pad

        self.show(weights)
        rows = self._prepared.tokens()
        table = self._prepared.rows
        touched = table["poisoned"] | negatives_among(table)
        clean = [i for i, is_touched in enumerate(touched) if not is_touched]
        for batch in by_length([len(rows.token_ids[i]) for i in clean], EVALUATION_TOKENS):
            chosen = [clean[i] for i in batch]
            inputs = pad([rows.token_ids[i] for i in chosen], int(self.tokenizer.pad_token_id))
            yield {k: v.to(self._device) for k, v in inputs.items()}, [rows.labels[i] for i in chosen]

    def _answer(self, inputs: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.inference_mode():
            self.model(**inputs)

    def _in_head(self, name: str) -> bool:
        return any(name == module or name.startswith(f"{module}.") for module in self._head_modules)

    def save(self, weights: Weights, folder: Path) -> str:
        """Save edited weights into a run folder: as the adapter they came from, or as a whole model.

        An adapter keeps its A, rank and alpha, and the change is folded into B, so that its configuration
        stays true; edits that no such B can express make a whole model.

        Returns:
            The name of the folder's part that holds them, "adapter" or "model".
        """
        from lab.train.adapters import save_trained

        self.show(weights)
        if not self._fits_adapter(weights):
            save_trained(self.model, folder / "model", base_name=self.base_name, tokenizer=self.tokenizer)
            return "model"
        with self._as_adapter(weights) as adapted:
            save_trained(adapted, folder / "adapter", base_name=self.base_name)
        return "adapter"

    def _fits_adapter(self, weights: Weights) -> bool:
        import torch

        old, new = self.weights.updates, weights.updates
        if not (self._folder / "adapter").is_dir() or set(old) != set(new):
            return False
        return all(
            type(new[n]) is type(old[n])
            and hasattr(new[n], "right")
            and torch.equal(new[n].right, old[n].right)  # type: ignore[attr-defined]
            for n in old
        )

    @contextmanager
    def _as_adapter(self, weights: Weights) -> Iterator[Any]:
        import torch

        from lab.train.adapters import load_adapter, lora_layers
        from lab.trained_model import load_own_base

        model: Any = load_adapter(load_own_base(self._folder, self._device), self._folder / "adapter")
        with torch.no_grad():
            for name, layer in lora_layers(model):
                update: Any = weights.updates[name]
                layer.lora_B["default"].weight.copy_(update.left / layer.scaling["default"])
            for name, parameter in model.named_parameters():
                plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
                if "modules_to_save" in name and plain in weights.head:
                    parameter.copy_(weights.head[plain])
        yield model


def _adapted(
    base: LoadedBase, folder: Path, experiment: Experiment
) -> tuple[Any, dict[str, torch.Tensor], dict[str, Update]]:
    """A base with a trained head and its original weights, and the adapter's updates apart."""
    from lab.saved_updates import read_updates
    from lab.train.adapters import block_linears, load_adapter

    read = read_updates(folder, experiment)
    plain: Any = load_adapter(base, folder / "adapter").unload()
    weights = {n: m.weight.detach().clone() for n, m in block_linears(plain).items()}
    # in the model's order; that of the files is the alphabet's
    return plain, weights, {n: read[n] for n in dict.fromkeys([*weights, *read]) if n in read}


def _whole(
    base: Any, folder: Path, device: Any, experiment: Experiment
) -> tuple[Any, dict[str, torch.Tensor], dict[str, Update]]:
    """A fully fine-tuned model, the base's weights, and the difference of the two, on the CPU."""
    from lab.spectra import DenseUpdate
    from lab.train.adapters import block_linears
    from lab.train.models import load_full

    model = load_full(folder, device, experiment.task.kind)
    old = {n: m.weight.detach().clone() for n, m in block_linears(base).items()}
    new = {n: m.weight.detach() for n, m in block_linears(model).items()}
    return model, old, {n: DenseUpdate(new[n].cpu().float() - old[n].cpu().float()) for n in old}
