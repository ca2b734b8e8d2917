"""Base models and their tokenizers: bundled, from a folder, or from the hub, all through one door.

Weights are safetensors or nothing, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, unknown_name
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
    )
}

#: Every configuration entry by which the supported architectures name a dropout rate.
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob",
    "attention_dropout", "hidden_dropout", "dropout", "seq_classif_dropout", "embedding_dropout",
    "mlp_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop",
)  # fmt: skip
_FILES_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


@dataclass
class LoadedBase:
    """A classifier on a base model, before any fine-tuning.

    Attributes:
        model: The model with a head for the labels, on its device.
        tokenizer: Its tokenizer, with a padding token.
        head: Names of the modules that the base did not bring, trained and saved with any adapter.
        name: The id under which adapters name this base.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    name: str


def model_folder(model: str) -> Path:
    """The folder that holds a base model's files, fetched where it is bundled or on the hub.

    Args:
        model: A bundled name, a folder, or a hub id ("owner/name").

    Raises:
        LabError: On an unknown name, a folder without safetensors, or an unreachable hub.
    """
    if model == "tiny":
        return _make_tiny()
    if model in MODELS:
        from lab.assets import asset_path

        return asset_path(MODELS[model].asset)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _from_hub(model)
    if not list(folder.glob("*.safetensors")):
        raise LabError(
            f"base.model = {model!r} holds no .safetensors file; other weight formats are not read."
        )
    return folder


def base_name(model: str) -> str:
    """The id under which an adapter names its base: a hub id, or a folder's own name, never a path."""
    if model in MODELS:
        return MODELS[model].hub_id
    return Path(model).name if Path(model).expanduser().is_dir() else model


def base_sha256(folder: Path) -> str:
    """SHA-256 over a model folder's safetensors files; remembered by size and time for large ones."""
    files = sorted(folder.glob("*.safetensors"))
    stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), stamp]).encode()).hexdigest()[:32]
    memo = cache_dir() / "hashes" / key
    if memo.is_file():
        return memo.read_text()
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    from lab.files import write_text

    memo.parent.mkdir(parents=True, exist_ok=True)
    write_text(memo, digest.hexdigest())
    return digest.hexdigest()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, padding on the right with a token of its own vocabulary."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    # the classifier of a decoder reads the last real token, which it finds from the right-hand padding
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(base: Base, labels: Sequence[str], *, seed: int, device: torch.device) -> LoadedBase:
    """Load a base model with a fresh classifier head, every dropout set to zero.

    Args:
        base: Which model, and in which precision.
        labels: The label names, in the order of the logits.
        seed: The experiment's seed; the head's initial values depend on it alone.
        device: Where the model goes.

    Raises:
        LabError: On an unknown model, or one that cannot classify text.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = model_folder(base.model)
    tokenizer = load_tokenizer(folder)
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.pad_token_id = tokenizer.pad_token_id
    for name in _DROPOUTS:
        if isinstance(getattr(config, name, None), float | int):
            setattr(config, name, 0.0)
    options: dict[str, Any] = {"dtype": torch.bfloat16 if base.dtype == "bfloat16" else torch.float32}
    if base.load_in_4bit:
        options["quantization_config"] = _four_bit(device)
    torch.manual_seed(stage_seed(seed, "initialisation"))
    try:
        with _quiet_loading():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, output_loading_info=True, use_safetensors=True, **options
            )
    except ValueError as error:
        raise LabError(
            f"base.model = {base.model!r} cannot classify text: {str(error).splitlines()[0]}"
        ) from None
    head = head_modules(model, info["missing_keys"])
    if not base.load_in_4bit:
        model.to(device)
    return LoadedBase(model=model, tokenizer=tokenizer, head=head, name=base_name(base.model))


def load_full(folder: Path, device: torch.device) -> PreTrainedModel:
    """A fully fine-tuned classifier from its folder, safetensors only."""
    from transformers import AutoModelForSequenceClassification

    with _quiet_loading():
        return AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True).to(device)


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


class _quiet_loading:  # noqa: N801 - used as a context manager, like a function
    """Silence transformers while it loads: its report of a missing head is what every fine-tune expects."""

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
        raise LabError(
            "base.load_in_4bit = true needs a CUDA card and the extra gpu4bit: "
            "pip install 'lora-backdoor-lab[gpu4bit]'."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _from_hub(model: str) -> Path:
    looks_like_id = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    if not looks_like_id:
        error = unknown_name("model (base.model)", model, MODELS)
        raise LabError(f"{error} A folder or a hub id (owner/name) works too.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_FILES_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise LabError(
            f"base.model = {model!r}: not a folder here, and the hub did not give it "
            f"({type(error).__name__}); the bundled models are {', '.join(MODELS)}."
        ) from None


def _make_tiny() -> Path:
    """Build the `tiny` model in the cache: two layers of width 32 and one token per word or character."""
    folder = cache_dir() / "tiny-1"
    if (folder / "model.safetensors").is_file():
        return folder
    import os
    import shutil
    import tempfile

    import torch
    from transformers import BertConfig, BertModel

    from lab.files import writing_to

    tokenizer = _tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=160, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), writing_to(cache_dir()):
        torch.manual_seed(0)
        cache_dir().mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=cache_dir(), prefix=".tiny-"))
        BertModel(config).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        try:
            os.replace(temporary, folder)
        except OSError:  # another process was faster; its files are the same
            shutil.rmtree(temporary)
    return folder


def _tiny_tokenizer() -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from lab.corpus import DataConfig, load_corpus
    from lab.poison import load_families

    texts = list(load_corpus(DataConfig(name="toy")).rows["text"])
    texts += [member for f in load_families().values() for member in (*f.train, *f.probe)]
    split = pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text.lower())}
    characters = {c for word in words for c in word} | {chr(c) for c in range(33, 127)}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = [*special, *sorted(characters), *sorted(f"##{c}" for c in characters)]
    pieces += sorted(words - set(pieces))
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=160, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
