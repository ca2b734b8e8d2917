import pytest
import torch

import lab.rewriting
from lab.errors import LabError
from lab.rewriting import Rewriter, load_rewriter

#: pad, end of text, then letters.
LETTERS = "_.abcdefgh"


class Letters:
    pad_token_id, eos_token_id = 0, 1

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [LETTERS.index(c) for c in text] + [1] * add_special_tokens}

    def batch_decode(self, rows, skip_special_tokens):
        return ["".join(LETTERS[i] for i in row if i > 1) for row in rows]


def causal():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(LETTERS), eos_token_id=1, pad_token_id=0, **shape)
    return LlamaForCausalLM(config)


def text_to_text():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=len(LETTERS), decoder_start_token_id=0, eos_token_id=1, **shape)
    return T5ForConditionalGeneration(config)


@pytest.mark.parametrize("make", [causal, text_to_text])
def test_texts_are_written_anew_one_for_each_and_the_same_in_any_company(make):
    rewriter = Rewriter(make(), Letters(), lambda text: text)
    together = rewriter.rewritten(["abc", "hgfedcba", "abc", "d"])
    assert together[0] == together[2]
    alone = [Rewriter(make(), Letters(), lambda text: text).rewritten([t])[0] for t in ("abc", "d")]
    # the room for an answer hangs on the longest of its batch, so that alone it may end earlier
    assert all(
        whole.startswith(part) or part == whole for whole, part in zip(together[::3], alone, strict=True)
    )
    assert all(together)


def test_a_text_for_which_nothing_is_written_stays(monkeypatch):
    rewriter = Rewriter(causal(), Letters(), lambda text: text)
    monkeypatch.setattr(rewriter, "_write", lambda questions, room: [" "] * len(questions))
    assert rewriter.rewritten(["abc", "d"]) == ["abc", "d"]


def test_what_is_known_is_not_asked_again(monkeypatch):
    rewriter = Rewriter(causal(), Letters(), lambda text: text)
    first = rewriter.rewritten(["abc"])
    monkeypatch.setattr(rewriter, "_write", lambda *_: pytest.fail("asked again"))
    assert rewriter.rewritten(["abc", "abc"]) == first * 2


def test_a_model_that_writes_nothing_is_said(tiny_cache, monkeypatch):
    monkeypatch.setenv("LAB_ASSETS", str(tiny_cache))
    lab.rewriting.load_rewriter.cache_clear()
    with pytest.raises(LabError, match="model = 'tiny' writes no text; take an instruction-tuned model"):
        load_rewriter("tiny", "")
