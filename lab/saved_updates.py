"""What a finished run changed, read from its files: the adapter's factors, and W's spectra from the cache.

No model is built. W itself is read only where ΔW does not factor (full fine-tuning, DoRA), or where its
spectra are not in the cache yet. It is W as training started from it: rounded where the experiment loads the
base in bfloat16.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.bases import BaseSource, find_base
from lab.errors import LabError
from lab.files import read_json

if TYPE_CHECKING:
    import torch

    from lab.experiment import Experiment
    from lab.spectra import BaseSpectrum, Update

_PREFIX = "base_model.model."


def read_updates(run: Path, experiment: Experiment) -> dict[str, Update]:
    """ΔW of every module that a run changed, by module name; scaling included.

    Args:
        run: The run's folder.
        experiment: Its experiment, for the base that it starts from.

    Raises:
        LabError: Weights are missing or damaged, the base is no longer there, or ΔW depends on a W that was
            in 4-bit (DoRA).
    """
    base = find_base(experiment.base.model, run.parent)
    if (run / "model").is_dir():
        return _difference(run / "model", base, _precision(experiment))
    return _of_adapter(run / "adapter", base, _precision(experiment))


def read_base_spectra(
    experiment: Experiment, runs: Path, updates: Mapping[str, Update]
) -> dict[str, BaseSpectrum]:
    """Singular values and vectors of W under these updates, from the cache where they are known.

    Raises:
        LabError: They are not, and W cannot be read: it is not there, or was in 4-bit.
    """
    from lab.spectra import base_spectra

    base = find_base(experiment.base.model, runs)
    shapes = {name: update.shape for name, update in updates.items()}
    precision = _precision(experiment)
    return base_spectra(shapes, base.sha256, lambda: read_weights(base.folder, updates, precision), precision)


def read_weights(folder: Path, modules: Iterable[str], precision: str = "float32") -> dict[str, torch.Tensor]:
    """The weight matrices of some modules from a model folder.

    A checkpoint may name them with or without the model's own prefix ("bert.", "model.").

    Args:
        folder: The model's folder.
        modules: Whose matrices.
        precision: What a model is loaded in, "float32" or "bfloat16": what it rounds is rounded here too.

    Returns:
        Float32 matrices, n_out × n_in, by module name.

    Raises:
        LabError: A matrix is missing or damaged, or "4bit" is asked for.
    """
    import torch

    if precision == "4bit":
        raise LabError("The weights of a 4-bit base cannot be read from its files: quantising changes them.")
    dtype = getattr(torch, precision)
    with _tensors(sorted(folder.glob("*.safetensors"))) as (names, get):
        return {module: get(_stored_name(module, names)).to(dtype).float() for module in modules}


def _precision(experiment: Experiment) -> str:
    """What the base is loaded in, by the name that the cache of its spectra has for it."""
    if experiment.base.load_in_4bit:
        return "4bit"
    return "bfloat16" if experiment.base.dtype == "bfloat16" else "float32"


def _stored_name(module: str, names: Mapping[str, Any]) -> str:
    parts = module.split(".")
    for start in range(len(parts)):
        name = ".".join(parts[start:]) + ".weight"
        if name in names:
            return name
    fits = [name for name in names if name.endswith(f".{module}.weight")]
    if len(fits) == 1:
        return fits[0]
    raise LabError(f"The base's weights hold no matrix for the module {module!r}.")


def _of_adapter(folder: Path, base: BaseSource, precision: str) -> dict[str, Update]:
    from lab.spectra import DoraUpdate, FactoredUpdate

    config = read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or not isinstance(config.get("lora_alpha"), int | float):
        raise LabError(f"{folder.parent.name}: adapter_config.json is missing or damaged.")
    updates: dict[str, Update] = {}
    with _tensors([folder / "adapter_model.safetensors"]) as (names, get):
        modules = [n.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for n in names if "lora_A" in n]
        if not modules:
            raise LabError(f"{folder.parent.name}: its adapter holds no LoRA factors.")
        for module in modules:
            A = get(f"{_PREFIX}{module}.lora_A.weight").float()
            B = get(f"{_PREFIX}{module}.lora_B.weight").float() * adapter_scaling(config, module, A.shape[0])
            magnitude = f"{_PREFIX}{module}.lora_magnitude_vector"
            if magnitude in names:
                W = read_weights(base.folder, [module], precision)[module]
                updates[module] = DoraUpdate(W, B, A, get(magnitude).float())
            else:
                updates[module] = FactoredUpdate(B, A)
    return updates


def adapter_scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """What peft multiplies B·A of a module with: alpha/r, or alpha/√r for rsLoRA.

    Args:
        config: The adapter's configuration, as peft saves it.
        module: The module's name.
        rank: The module's own rank r.
    """
    alpha = float(pattern_value(config.get("alpha_pattern") or {}, module, config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def pattern_value(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """What peft's `rank_pattern` or `alpha_pattern` gives a module: the first pattern that fits its end."""
    return next((own for pattern, own in patterns.items() if _compiled(pattern).match(module)), default)


@functools.lru_cache(maxsize=4096)  # `re` remembers 512, and a large model may have a pattern for each module
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({pattern})$")


def _difference(folder: Path, base: BaseSource, precision: str) -> dict[str, Update]:
    """W − W₀ of every matrix inside the blocks, W₀ being what training started from."""
    from lab.spectra import DenseUpdate

    blocks = block_matrices(folder)
    new, old = read_weights(folder, blocks), read_weights(base.folder, blocks, precision)
    return {module: DenseUpdate(new[module] - old[module]) for module in blocks}


def block_matrices(folder: Path) -> list[str]:
    """The modules inside the blocks that a model folder holds a weight matrix of, as its files name them.

    Raises:
        LabError: There are no weights, or they are damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LabError(f"{folder.parent.name}: its model folder holds no weights.")
    with _tensors(files) as (names, _):
        return [
            name.removesuffix(".weight")
            for name, shape in names.items()
            if name.endswith(".weight") and re.search(r"\.\d+\.", name) and len(shape) == 2
        ]


@contextlib.contextmanager
def _tensors(files: list[Path]) -> Any:
    """The names with shapes in some safetensors files, and a function that reads one."""
    from safetensors import SafetensorError, safe_open

    try:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
            place = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in place.items()}

            def read(name: str) -> torch.Tensor:
                if name not in place:
                    raise LabError(f"Weights in {files[0].parent} lack {name!r}.")
                return place[name].get_tensor(name)

            yield shapes, read
    except (SafetensorError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        where = files[0].parent if files else "the model's folder"
        raise LabError(f"Weights in {where} cannot be read ({reason}).") from None
