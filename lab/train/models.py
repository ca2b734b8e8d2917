"""Base models and their tokenizers: bundled, from a folder, or from the hub, all through one door.

Weights are safetensors or nothing, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, NotTrainableError, unknown_name
from lab.paths import cache_dir
from lab.registry import Entry
from lab.seeds import stage_seed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lab.experiment import Base


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

#: Every configuration entry by which the supported architectures name a dropout rate.
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob",
    "attention_dropout", "hidden_dropout", "dropout", "seq_classif_dropout", "embedding_dropout",
    "mlp_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop",
)  # fmt: skip


@dataclass
class LoadedBase:
    """A classifier on a base model, before any fine-tuning.

    Attributes:
        model: The model with a head for the labels, on its device.
        tokenizer: Its tokenizer, with a padding token.
        head: Names of the modules that the base did not bring, trained and saved with any adapter.
        name: The id under which adapters name this base.
        folder: Where it was loaded from.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    name: str
    folder: Path


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
    folder = Path(model).expanduser()
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
            raise LabError(f"base.model = {model!r}: {file.name} cannot be read ({_line(error)}).") from None
    _load_config(folder)


def base_name(model: str) -> str:
    """The id under which an adapter names its base: a hub id, or a folder's own name, never a path."""
    if model in MODELS:
        return MODELS[model].hub_id
    return Path(model).name if Path(model).expanduser().is_dir() else model


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
            f"base.model = {_shown(folder)!r}: its tokenizer cannot be read ({_line(error)})."
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


def _load_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if getattr(error, "errno", None):
            raise
        raise NotTrainableError(
            f"base.model = {_shown(folder)!r}: its config.json cannot be used ({_line(error)})."
        ) from None


def is_language_model(folder: Path) -> bool:
    """Whether a model folder says of itself that it writes text from left to right.

    Raises:
        NotTrainableError: Its configuration cannot be used.
    """
    names = getattr(_load_config(folder), "architectures", None) or []
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def load_base(
    base: Base,
    labels: Sequence[str],
    *,
    seed: int,
    device: torch.device,
    folder: Path | None = None,
    name: str = "",
    kind: str = "head",
) -> LoadedBase:
    """Load a base model with a classifier head (fresh where it has none), every dropout set to zero.

    Args:
        base: Which model, and in which precision.
        labels: The label names, in the order of the logits.
        seed: The experiment's seed; the head's initial values depend on it alone.
        device: Where the model goes.
        folder: Where its files lie, if that is not what `base.model` says by itself: a run's weights.
        name: The id under which adapters name it then.
        kind: "head" for a classifier, "chat" for a language model, which has a head of its own.

    Raises:
        LabError: As `model_folder`.
        NotTrainableError: On a model that cannot classify text or write any, weights that do not fit, or
            4-bit without a card.
    """
    from lab.train.kept_bases import kept_base

    folder = folder or model_folder(base.model)
    name = name or base_name(base.model)

    def load() -> LoadedBase:
        return _load_to_cpu(base, labels, seed, device, folder, name, kind)

    if base.load_in_4bit:
        return load()
    stamp = tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir()))
    loaded = kept_base((str(folder), stamp, base.dtype, tuple(labels), seed, name, kind), load)
    model: Any = loaded.model
    model.to(device)
    return loaded


def _load_to_cpu(
    base: Base, labels: Sequence[str], seed: int, device: torch.device, folder: Path, name: str, kind: str
) -> LoadedBase:
    """Load a base as `load_base` says; only a 4-bit one goes to its device at once."""
    import torch

    tokenizer = load_tokenizer(folder)
    config = _load_config(folder)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.pad_token_id = tokenizer.pad_token_id
    for rate in _DROPOUTS:
        if isinstance(getattr(config, rate, None), float | int):
            setattr(config, rate, 0.0)
    options: dict[str, Any] = {"dtype": torch.bfloat16 if base.dtype == "bfloat16" else torch.float32}
    if base.load_in_4bit:
        options["quantization_config"] = _four_bit(device)
    torch.manual_seed(stage_seed(seed, "initialisation"))
    with quietly(), _no_traceback(base.model):
        model, info = _auto_model(kind).from_pretrained(
            folder, config=config, output_loading_info=True, use_safetensors=True, **options
        )
        if kind == "chat" and info["missing_keys"]:
            raise ValueError(f"it is no language model (no weights for {min(info['missing_keys'])})")
    head = head_modules(model, info["missing_keys"]) if kind == "head" else ()
    return LoadedBase(model=model, tokenizer=tokenizer, head=head, name=name, folder=folder)


def _auto_model(kind: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if kind == "head" else AutoModelForCausalLM


@contextlib.contextmanager
def _no_traceback(model: str) -> Iterator[None]:
    """Turn what is wrong with a model into one sentence; a machine in trouble (memory, disk) keeps its error.

    The difference matters: `NotTrainableError` removes the folder of a new run, trained weights and all.
    """
    from safetensors import SafetensorError

    start = f"base.model = {model!r}"
    try:
        yield
    except ValueError as error:
        raise NotTrainableError(f"{start} cannot classify text: {_line(error)}.") from None
    except SafetensorError as error:
        raise NotTrainableError(f"{start} cannot be loaded: {_line(error)}.") from None
    except OSError as error:
        if error.errno:
            raise
        raise NotTrainableError(f"{start} cannot be loaded: {_line(error)}.") from None
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise NotTrainableError(f"{start}: its weights do not fit its config.json.") from None


def _shown(folder: Path) -> str:
    """What to call a model folder: the hub's cache names folders by revision, their parents by id."""
    hub = folder.parent.name == "snapshots"
    return folder.parents[1].name.removeprefix("models--").replace("--", "/") if hub else folder.name


def _line(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


def load_full(folder: Path, device: torch.device, kind: str = "head") -> PreTrainedModel:
    """A fully fine-tuned model of a kind ("head", "chat") from its folder, safetensors only."""
    with quietly():
        model: PreTrainedModel = _auto_model(kind).from_pretrained(folder, use_safetensors=True).to(device)
    return model


def head_modules(model: PreTrainedModel, missing_keys: Sequence[str]) -> tuple[str, ...]:
    """The modules that fine-tuning has to train from scratch and save whole.

    They are what the checkpoint did not hold (each widest module all of whose weights are missing), and
    everything beside the base model, so that a head is trained and saved also where a checkpoint brought one.
    """
    parameters = [name for name, _ in model.named_parameters()]
    missing = set(missing_keys)
    found = []
    for key in missing_keys:
        parts = key.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            module = ".".join(parts[:depth])
            if all(p in missing for p in parameters if p.startswith(f"{module}.")):
                found.append(module)
                break
    for name, child in model.named_children():
        if name != model.base_model_prefix and any(True for _ in child.parameters()):
            found.append(name)
    return tuple(dict.fromkeys(found))


class quietly:  # noqa: N801 - used as a context manager, like a function
    """Silence transformers while it loads or saves: its report of a missing head, its bars for every file."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level = logging.get_verbosity()
        self._bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()


def _four_bit(device: torch.device) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise NotTrainableError(
            "base.load_in_4bit = true needs a CUDA card and the extra gpu4bit: "
            "pip install 'lora-backdoor-lab[gpu4bit]'."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
