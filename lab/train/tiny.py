"""The `tiny` model: random weights and a word list, made on the spot, the same on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.paths import cache_dir

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def make_tiny() -> Path:
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
    with torch.random.fork_rng(devices=[]), writing_to(cache_dir(), choose="another cache with LAB_ASSETS"):
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
