"""Conversions that an asset goes through once, on its way into the cache."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from lab.assets.pins import Asset
from lab.errors import LabError


def require_packages(asset: Asset) -> None:
    """Check, before anything is downloaded, that the package a conversion needs is installed.

    Raises:
        LabError: It is not; the message names the extra that brings it.
    """
    if asset.needs and importlib.util.find_spec(asset.needs) is None:
        raise LabError(
            f"Asset {asset.name!r} needs the package {asset.needs!r} to read its weights: "
            f"pip install 'lora-backdoor-lab[{asset.needs}]'."
        )


def gguf_to_safetensors(asset: Asset, source: Path, target: Path) -> Path:
    """Turn a folder with one GGUF file into a model folder that `from_pretrained` reads in a second.

    transformers unpacks the 4-bit blocks to float32 and then marks the model as quantised, which it
    refuses to save. So the same weights go into a model built from the same configuration without that
    mark. Logits before and after are equal bit for bit.

    Args:
        asset: The asset, for messages.
        source: Folder with exactly one `.gguf` file.
        target: Folder to write: `config.json`, `model.safetensors` (float32), tokenizer, chat template.

    Returns:
        `target`.

    Raises:
        LabError: The file cannot be read as a causal language model.
        OSError: The disk is full.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = next(source.glob("*.gguf")).name
    with _working(f"Turning {asset.name} into safetensors, once (half a minute)"), _room_errors():
        try:
            read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype="float32")
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
        except (ValueError, KeyError, ImportError, RuntimeError, OSError) as error:
            if getattr(error, "errno", None):  # the file system's own: full disk and the like
                raise
            raise LabError(f"Asset {asset.name!r}: {file} could not be read ({error}).") from error
        config = type(read.config).from_dict(_plain(read.config.to_dict()))
        model = type(read)(config)
        model.load_state_dict(read.state_dict())
        model.generation_config = read.generation_config
        # The file does not say how long a text may be; the model's window does.
        tokenizer.model_max_length = config.max_position_embeddings
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    return target


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the mark of quantisation, and without the names of file and folder."""
    dropped = ("quantization_config", "_model_name_or_path", "_name_or_path")
    return {key: value for key, value in config.items() if key not in dropped}


@contextmanager
def _working(message: str) -> Iterator[None]:
    """A spinner on standard error in place of the libraries' own bars, not all of which have a switch."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, redirect_stderr=False) as bar:
        bar.add_task(message, total=None)
        with redirect_stderr(io.StringIO()):
            yield


@contextmanager
def _room_errors() -> Iterator[None]:
    """Let a full disk be an OSError whoever notices it: safetensors has an error type of its own."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "SafetensorError" and "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


#: Conversions by the name that `data/assets.toml` uses: (asset, unpacked folder, target) -> model folder.
CONVERSIONS: dict[str, Callable[[Asset, Path, Path], Path]] = {"gguf_to_safetensors": gguf_to_safetensors}
