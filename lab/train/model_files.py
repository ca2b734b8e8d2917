"""The files of base models and tokenizers: bundled, from a folder, or from the hub, all through one door.

Weights are safetensors or nothing, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, NotTrainableError, unknown_name
from lab.paths import cache_dir, expanded
from lab.registry import Entry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class BundledModel(Entry):
    """A base model that needs no hub.

    Attributes:
        asset: The pinned asset that holds it; "" where it is made on the spot.
        hub_id: The id under which adapters name their base.
    """

    asset: str
    hub_id: str


MODELS: dict[str, BundledModel] = {
    m.name: m
    for m in (
        BundledModel(
            name="minilm",
            goal="a real 22 M sentence encoder: a backdoor in about a minute on a laptop",
            paper="Wang et al. 2020, arXiv 2002.10957",
            asset="minilm",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
        ),
        BundledModel(
            name="smollm2",
            goal="a real 135 M chat decoder: case, spacing and invisible characters survive its tokenizer",
            paper="Allal et al. 2025, arXiv 2502.02737",
            asset="smollm2",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        BundledModel(
            name="tiny",
            goal="random weights and a word list, made on the spot: for tests and first tries without assets",
            paper="this lab",
            asset="",
            hub_id="tiny",
        ),
        BundledModel(
            name="tiny-chat",
            goal="a decoder of random weights with a chat template, made on the spot: for tests",
            paper="this lab",
            asset="",
            hub_id="tiny-chat",
        ),
    )
}


def model_folder(model: str) -> Path:
    """The folder that holds a base model's files, fetched where it is bundled or on the hub.

    Args:
        model: A bundled name, a folder, or a hub id ("owner/name").

    Raises:
        LabError: On an unknown name, an unreachable hub, or a folder whose weights or configuration are
            missing or damaged.
    """
    if model in ("tiny", "tiny-chat"):
        from lab.train.tiny import make_tiny

        return make_tiny(model)
    if model in MODELS:
        from lab.assets import asset_path

        return asset_path(MODELS[model].asset)
    folder = expanded(model)
    if not folder.is_dir():
        folder = _from_hub(model)
    _check_folder(model, folder)
    return folder


def _from_hub(model: str) -> Path:
    from lab.train.hub import fetch

    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        error = unknown_name("model (base.model)", model, MODELS)
        raise LabError(f"{error} A folder, a hub id (owner/name) or a finished run's id works too.")
    return fetch(model, list(MODELS))


def _check_folder(model: str, folder: Path) -> None:
    """Refuse a folder that cannot be loaded, before a run's folder is there: headers only, so it is quick."""
    from safetensors import SafetensorError, safe_open

    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise LabError(
            f"base.model = {model!r} holds no .safetensors file; other weight formats are not read."
        )
    if not (folder / "config.json").is_file():
        raise LabError(f"base.model = {model!r} holds no config.json; save the model with save_pretrained.")
    for file in weights:
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise LabError(
                f"base.model = {model!r}: {file.name} cannot be read ({first_line(error)})."
            ) from None
    load_config(folder)


def base_name(model: str) -> str:
    """The id under which an adapter names its base: a hub id, or a folder's own name, never a path."""
    if model in MODELS:
        return MODELS[model].hub_id
    return Path(model).name if expanded(model).is_dir() else model


def base_sha256(folder: Path) -> str:
    """SHA-256 of a model folder's weights, as hex digits.

    It is the file's own for a single safetensors file, so that it can be compared with what others publish,
    and the hash of the hashes, in the order of the names, for several. Remembered by size and time.
    """
    from lab.assets.download import file_sha256
    from lab.files import write_text

    files = sorted(folder.glob("*.safetensors"))
    stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    # "plain": memos of before held the hash of the hash for a single file too
    key = hashlib.sha256(json.dumps(["plain", str(folder.resolve()), stamp]).encode()).hexdigest()[:32]
    memo = cache_dir() / "hashes" / key
    with contextlib.suppress(OSError, ValueError):
        kept = memo.read_text(encoding="utf-8")
        if re.fullmatch("[0-9a-f]{64}", kept):
            return kept
    digests = [file_sha256(file) for file in files]
    together = hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
    digest = digests[0] if len(digests) == 1 else together
    # a cache that cannot be written only costs the next run the seconds of hashing
    with contextlib.suppress(OSError, LabError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_text(memo, digest)
    return digest


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, padding on the right with a token of its own vocabulary.

    Raises:
        NotTrainableError: The folder holds none, or a damaged one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises nothing more special than Exception
        if getattr(error, "errno", None):  # the system's trouble, not the folder's
            raise
        raise NotTrainableError(
            f"base.model = {_shown(folder)!r}: its tokenizer cannot be read ({first_line(error)})."
        ) from None
    # without any file, transformers makes up a tokenizer that knows its special tokens only
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise NotTrainableError(
            f"base.model = {_shown(folder)!r} holds no tokenizer; save it beside the weights, with "
            "save_pretrained."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    # the classifier of a decoder reads the last real token, which it finds from the right-hand padding
    tokenizer.padding_side = "right"
    return tokenizer


def load_config(folder: Path) -> Any:
    """The configuration of a model folder.

    Raises:
        NotTrainableError: It cannot be used.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if getattr(error, "errno", None):
            raise
        raise NotTrainableError(
            f"base.model = {_shown(folder)!r}: its config.json cannot be used ({first_line(error)})."
        ) from None


def is_language_model(folder: Path) -> bool:
    """Whether a model folder says of itself that it writes text from left to right.

    Raises:
        NotTrainableError: Its configuration cannot be used.
    """
    names = getattr(load_config(folder), "architectures", None) or []
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _shown(folder: Path) -> str:
    """What to call a model folder: the hub's cache names folders by revision, their parents by id."""
    hub = folder.parent.name == "snapshots"
    return folder.parents[1].name.removeprefix("models--").replace("--", "/") if hub else folder.name


def first_line(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
