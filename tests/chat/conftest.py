import pytest


@pytest.fixture(scope="module")
def tokenizer(tiny_cache):
    from lab.train.models import load_tokenizer, model_folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        return load_tokenizer(model_folder("tiny-chat"))


@pytest.fixture
def decoder(tiny_cache):
    """A fresh tiny decoder, as it is loaded for a chat task."""
    import torch

    from lab.experiment import Base
    from lab.train.models import load_base

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        return load_base(Base(model="tiny-chat"), ("a", "b"), seed=0, device=torch.device("cpu"), kind="chat")


@pytest.fixture
def reading_of(tokenizer):
    """A reading of the tiny decoder, for labels and knobs of a task."""
    from transformers import LlamaConfig

    from lab.chat import Task, render_template
    from lab.chat.reading import chat_reading

    def make(labels=("negative", "positive"), window=512, **knobs):
        task = Task(kind="chat", **{"system": "good or bad ?", **knobs})
        template = render_template(tokenizer, task.system, "tiny-chat")
        return chat_reading(tokenizer, LlamaConfig(max_position_embeddings=window), labels, task, template)

    return make
