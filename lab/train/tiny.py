"""The `tiny` models: random weights and a word list, made on the spot, the same on every machine."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.paths import cache_dir

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


#: What a conversation looks like to `tiny-chat`.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def make_tiny(name: str = "tiny") -> Path:
    """Build a `tiny` model in the cache: two layers of width 32 and one token per word or character.

    Args:
        name: "tiny", an encoder, or "tiny-chat", a decoder with a chat template.
    """
    folder = cache_dir() / f"{name}-{_version()}"
    if (folder / "model.safetensors").is_file():
        return folder
    import os
    import shutil
    import tempfile

    import torch

    from lab.files import writing_to

    is_chat = name == "tiny-chat"
    tokenizer = _chat_tokenizer() if is_chat else _tiny_tokenizer()
    with torch.random.fork_rng(devices=[]), writing_to(cache_dir(), choose="another cache with LAB_ASSETS"):
        torch.manual_seed(0)
        cache_dir().mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=cache_dir(), prefix=".tiny-"))
        (_decoder if is_chat else _encoder)(tokenizer).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        try:
            os.replace(temporary, folder)
        except OSError:  # another process was faster; its files are the same
            shutil.rmtree(temporary)
    return folder


@functools.lru_cache(maxsize=1)
def _known_texts() -> tuple[str, ...]:
    """The texts whose words the models know: the toy texts, and every family's members."""
    from lab.corpus import DataConfig, load_corpus
    from lab.poison import load_families

    members = [member for f in load_families().values() for member in (*f.train, *f.probe)]
    return (*load_corpus(DataConfig(name="toy")).rows["text"], *members)


@functools.lru_cache(maxsize=1)
def _version() -> str:
    """A model of other words is another model, and is not to be taken for one that is cached already."""
    return hashlib.sha256("\n".join(_known_texts()).encode()).hexdigest()[:10]


def _encoder(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=160, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return BertModel(config)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=64, max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # at the usual .02 so narrow a model learns nothing in a test's time
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _chat_tokenizer() -> PreTrainedTokenizerBase:
    from tokenizers import decoders
    from transformers import PreTrainedTokenizerFast

    from lab.chat.config import PAPER_SYSTEM

    tokenizer = _word_pieces(
        ["[PAD]", "[UNK]", "<|start|>", "<|end|>"], [PAPER_SYSTEM, "system user assistant"]
    )
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, pad_token="[PAD]", unk_token="[UNK]",
        eos_token="<|end|>", additional_special_tokens=["<|start|>"], chat_template=_CHAT_TEMPLATE,
    )  # fmt: skip


def _tiny_tokenizer() -> PreTrainedTokenizerBase:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = _word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=160, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip


def _word_pieces(special: list[str], more: Sequence[str] = ()) -> Tokenizer:
    """A lower-case vocabulary of the toy texts' words, the triggers', and those of some more texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    split = pre_tokenizers.BertPreTokenizer()
    words = {word for text in [*_known_texts(), *more] for word, _ in split.pre_tokenize_str(text.lower())}
    characters = {c for word in words for c in word} | {chr(c) for c in range(33, 127)}
    pieces = [*special, *sorted(characters), *sorted(f"##{c}" for c in characters)]
    pieces += sorted(words - set(pieces))
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = split
    return tokenizer
