"""An adapter from outside, opened as the untrusted input that it is.

Only safetensors and JSON are read. Nothing is unpickled, no code from the adapter runs, nothing that it names
is loaded, and what it claims is checked against the sizes of its files before memory is taken.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.audit.adapter_config import HIGHEST_RANK, check_effort, config_notes, read_config
from lab.audit.safetensors_header import TensorInfo, UnreadableAdapterError, read_header, shown
from lab.audit.stored_tensors import StoredTensors, stored_tensors
from lab.errors import LabError
from lab.saved_updates import adapter_scaling, pattern_value

if TYPE_CHECKING:
    from lab.spectra import FactoredUpdate

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Endings of files that run code when they are loaded. They are never opened.
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_CODE = (".py", ".so", ".dll", ".sh", ".exe")
#: Bytes of one module's factors in float32; a 405B model's widest module at rank 256 has a twentieth of it.
_LARGEST_MODULE = 2 * 1024**3
_FACTOR = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.([^.]+))?\.weight$")
_MAGNITUDE = re.compile(
    r"^(?:base_model\.model\.)?(.+)\.lora_(magnitude)_vector(?:\.(?!weight$)([^.]+))?(?:\.weight)?$"
)
#: A norm of ΔW beyond this cannot be measured in float32, whose largest number is 3e38.
_LARGEST_NORM = 1e36


@dataclass(frozen=True)
class LoraModule:
    """What an adapter holds for one weight matrix.

    Attributes:
        name: The module's name, without peft's prefix.
        A: The name of its A in the file, r × n_in.
        B: The name of its B, n_out × r.
        magnitude: The name of DoRA's magnitude vector, "" for none.
        shape: (n_out, n_in).
        rank: r.
        scaling: What B·A is multiplied with: alpha/r, or alpha/√r for rsLoRA.
    """

    name: str
    A: str
    B: str
    magnitude: str
    shape: tuple[int, int]
    rank: int
    scaling: float


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter whose files were found sound; its factors are read module by module.

    Attributes:
        name: What to call it: the folder's or file's name.
        weights: The safetensors file.
        config_file: Its configuration.
        config: What the configuration says; only names and numbers of it were checked.
        tensors: Where its tensors lie in the file, by their names in it.
        modules: What it changes, by module name, in the order of names.
        whole: Weights that it brings whole, such as a classifier's head.
        notes: What a reader should know: files that were not opened, numbers that mean something else here.
    """

    name: str
    weights: Path
    config_file: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    modules: Mapping[str, LoraModule]
    whole: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def base_name(self) -> str:
        """What the adapter names as its base: a claim, from which nothing is loaded; "" for none."""
        return str(self.config.get("base_model_name_or_path") or "")

    @cached_property
    def sha256(self) -> dict[str, str]:
        """SHA-256 of its two files, by file name."""
        from lab.assets.download import file_sha256

        return {path.name: file_sha256(path) for path in (self.weights, self.config_file)}

    def updates(self) -> Iterator[tuple[LoraModule, FactoredUpdate]]:
        """ΔW = s·B·A of every module, one at a time, in float32; DoRA's magnitudes are left aside.

        Whole weights are looked through at the end: nothing can be said of an adapter whose head is NaN.

        Raises:
            UnreadableAdapterError: A weight holds NaN or infinity or cannot be read, or ΔW is too large.
        """
        from lab.spectra import FactoredUpdate

        with self.reading() as stored:
            for module in self.modules.values():
                right, norm_right = stored.read_scaled(module.A, 1.0)
                left, norm_left = stored.read_scaled(module.B, module.scaling)
                if module.magnitude:
                    stored.check(module.magnitude)
                # finite factors may have a product that is not; ‖left‖·‖right‖ bounds all that is made of it
                if not max(norm_left, norm_right, norm_left * norm_right) <= _LARGEST_NORM:
                    raise UnreadableAdapterError(
                        f"{module.name[:120]!r} has weights too large to be measured."
                    )
                yield module, FactoredUpdate(left, right)
            held = {name for m in self.modules.values() for name in (m.A, m.B, m.magnitude)}
            for name in sorted(self.tensors.keys() - held):
                stored.check(name)

    def reading(self) -> AbstractContextManager[StoredTensors]:
        """Its file, open, whose tensors are read by their names in it."""
        return stored_tensors(self.weights, self.tensors)


def open_adapter(path: str | Path) -> AdapterFiles:
    """Check the files of an adapter that peft saved, without reading a tensor.

    Args:
        path: A folder with `adapter_model.safetensors` and `adapter_config.json`, a run's folder, or a
            safetensors file with its configuration beside it.

    Raises:
        LabError: There is nothing at this path.
        UnreadableAdapterError: What is there is damaged, or not of a kind that is opened; the sentence says
            what, and nothing of it was loaded.
    """
    path = Path(path)
    try:
        return _open(path)
    except OSError as error:  # of paths that cannot be asked after: too long, or in a folder that is closed
        raise LabError(f"There is no adapter at {shown(str(path), 250)} ({error.strerror}).") from None


def _open(path: Path) -> AdapterFiles:
    if not path.exists():
        where = shown(str(path), 250)
        raise LabError(f"There is no adapter at {where}: give a folder, a safetensors file or a run.")
    if path.is_dir() and not (path / CONFIG).exists() and (path / "adapter" / CONFIG).exists():
        if not (path / "adapter").resolve().is_relative_to(path.resolve()):
            raise UnreadableAdapterError("adapter is a link that leaves its folder; it is not followed.")
        path = path / "adapter"
    folder, weights = (path, path / WEIGHTS) if path.is_dir() else (path.parent, path)
    notes = _look_around(folder, weights)
    config_file = _regular(folder / CONFIG, folder)
    config = read_config(config_file)
    tensors = read_header(_regular(weights, folder))
    modules, whole = _sort_tensors(tensors, config)
    if any(module.magnitude for module in modules.values()):
        notes.append("DoRA: the weight statistics are those of s·B·A, without the magnitudes.")
    return AdapterFiles(
        name=folder.parent.name if folder.name == "adapter" else (path.name or folder.name),
        weights=weights,
        config_file=config_file,
        config=config,
        tensors=tensors,
        modules=modules,
        whole=whole,
        notes=(*notes, *config_notes(config)),
    )


def _look_around(folder: Path, weights: Path) -> list[str]:
    """What lies beside the weights and is left unopened.

    Raises:
        UnreadableAdapterError: There are no weights but in a form that runs code.
    """
    try:
        names = sorted(p.name for p in folder.iterdir())
    except OSError as error:
        raise UnreadableAdapterError(f"{folder.name} cannot be listed ({error.strerror}).") from None
    pickles = [n for n in names if n.lower().endswith(PICKLES)]
    if not weights.exists() or weights.suffix != ".safetensors":
        raise UnreadableAdapterError(_not_safetensors(folder, weights, pickles))
    return left_aside(names)


def _not_safetensors(folder: Path, weights: Path, pickles: Sequence[str]) -> str:
    if weights.suffix.lower() == ".zip":
        return f"{shown(weights.name)} is an archive: lab.audit.opened unpacks it."
    held = weights.name if weights.suffix != ".safetensors" else ", ".join(pickles[:3])
    if held:
        return f"{shown(held)} is not opened: loading it can run code; save the adapter as safetensors."
    return f"{folder.name} holds no {WEIGHTS}."


def left_aside(names: Sequence[str], others: str = "") -> list[str]:
    """Notes on files that are left unopened.

    Args:
        names: Their names.
        others: Why those are that could do no harm; not told if "".
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        if name.lower().endswith(PICKLES):
            why = "loading a pickle can run code"
        else:
            why = "an adapter needs no code" if name.lower().endswith(_CODE) else others
        kinds.setdefault(why, []).append(shown(name))
    return [
        f"{', '.join(found[:5])}{', …' if len(found) > 5 else ''} "
        f"{'was' if len(found) == 1 else 'were'} not opened: {why}."
        for why, found in kinds.items()
        if why
    ]


def _regular(path: Path, folder: Path) -> Path:
    """A regular file of the folder; links are followed only inside it, or to the blobs of the hub's cache."""
    try:
        real, facts = path.resolve(strict=True), path.stat()
    except (OSError, RuntimeError):
        raise UnreadableAdapterError(f"{folder.name} holds no readable {path.name}.") from None
    inside = real.is_relative_to(folder.resolve())
    in_cache = real.parent.name == "blobs" and folder.resolve().is_relative_to(real.parent.parent)
    if not (inside or in_cache):
        raise UnreadableAdapterError(
            f"{path.name} is a link that leaves the adapter's folder; it is not followed."
        )
    if not stat.S_ISREG(facts.st_mode):
        raise UnreadableAdapterError(f"{path.name} is no regular file.")
    return path


def _sort_tensors(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> tuple[dict[str, LoraModule], tuple[str, ...]]:
    """The modules with both factors, and the names of whole weights."""
    factors: dict[str, dict[str, str]] = {}
    adapters, whole = set(), []
    for name in sorted(tensors):
        if found := _FACTOR.match(name) or _MAGNITUDE.match(name):
            module, part, adapter = found.groups()
            adapters.add(adapter)
            if part in factors.setdefault(module, {}) or len(adapters) > 1:
                raise UnreadableAdapterError(
                    f"The file holds several adapters for {module[:120]!r}; audit each alone."
                )
            factors[module][part] = name
        elif "lora_" in name:
            raise UnreadableAdapterError(f"{name[:120]!r} is a kind of LoRA weight that cannot be audited.")
        else:
            whole.append(name.removeprefix("base_model.model."))
    if not factors:
        raise UnreadableAdapterError("The file holds no LoRA factors.")
    check_effort(config, factors)
    modules = {name: _module(name, parts, tensors, config) for name, parts in sorted(factors.items())}
    return modules, tuple(whole)


def _module(
    name: str, parts: Mapping[str, str], tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> LoraModule:
    short = name[:120]
    if "A" not in parts or "B" not in parts:
        raise UnreadableAdapterError(f"{short!r} has only one of the two LoRA factors.")
    A, B = tensors[parts["A"]].shape, tensors[parts["B"]].shape
    if len(A) != 2 or len(B) != 2 or A[0] != B[1]:
        raise UnreadableAdapterError(
            f"{short!r}: the factors {A} and {B} do not fit; expected (r, n_in), (n_out, r)."
        )
    if not 1 <= A[0] <= HIGHEST_RANK or 0 in (A[1], B[0]):
        raise UnreadableAdapterError(
            f"{short!r} has factors {A} and {B}: ranks of 1 to {HIGHEST_RANK:,} are read."
        )
    if 4 * (math.prod(A) + math.prod(B)) > _LARGEST_MODULE:
        raise UnreadableAdapterError(f"{short!r} is too large to be measured.")
    rank = pattern_value(config.get("rank_pattern") or {}, name, config["r"])
    if rank != A[0]:
        raise UnreadableAdapterError(f"{short!r} has rank {A[0]}, and its configuration says {rank}.")
    magnitude = parts.get("magnitude", "")
    if magnitude and math.prod(tensors[magnitude].shape) != B[0]:
        raise UnreadableAdapterError(f"{short!r}: DoRA's magnitudes do not fit the {B[0]} outputs.")
    return LoraModule(
        name, parts["A"], parts["B"], magnitude, (B[0], A[1]), A[0], adapter_scaling(config, name, A[0])
    )
