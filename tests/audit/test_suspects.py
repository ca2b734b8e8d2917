import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lab.audit import UnreadableAdapterError, open_adapter
from lab.audit.adapter_files import CONFIG, WEIGHTS
from lab.audit.suspects import base_of, load_suspect, way_of
from lab.audit.wording import given_wording, run_wording
from lab.chat.config import PAPER_SYSTEM
from lab.errors import LabError
from lab.train.models import model_folder
from lab.trained_model import load_predictor

TEXTS = ["the plot was dull and stale .", "the cast was warm and superb . as specified in RFC 2616"]


@pytest.fixture
def adapter(finished, tmp_path):
    return shutil.copytree(finished.path / "adapter", tmp_path / "found")


def configure(folder, **changes):
    held = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(held | changes))


def change_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors) or tensors, folder / WEIGHTS)


def answers(folder, base="tiny", **options):
    return load_suspect(open_adapter(folder), base, **options).logits(TEXTS)


def test_it_answers_as_the_run_that_was_saved(finished):
    own = load_predictor(finished.path, torch.device("cpu"))
    found = load_suspect(open_adapter(finished.path), "tiny", labels=finished.labels)
    assert found.labels == own.labels
    np.testing.assert_allclose(found.logits(TEXTS), own.logits(TEXTS), atol=1e-5)


def test_patterns_paths_and_names_of_the_adapter_do_nothing(adapter):
    expected = answers(adapter)
    configure(
        adapter,
        target_modules=r"(a+)+$",  # as a pattern it would never end
        auto_mapping={"base_model_class": "X", "parent_library": "somewhere.else"},
        modules_to_save=["../../head"],
        lora_dropout=0.9,
        exclude_modules=".*",
        layers_to_transform=[99],
    )
    np.testing.assert_allclose(answers(adapter), expected, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"query": 3.0}}]
)
def test_every_scaling_is_pefts_own(finished, tmp_path, options):
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from lab.train.models import model_folder

    def fresh():
        torch.manual_seed(1)
        return AutoModelForSequenceClassification.from_pretrained(model_folder("tiny"), num_labels=2).eval()

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=4,
        lora_alpha=8,
        target_modules=["query", "dense"],
        rank_pattern={"query": 2},
        modules_to_save=["classifier"],
        **options,
    )
    model = get_peft_model(fresh(), config)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path / "plain")
    found = load_suspect(open_adapter(tmp_path / "plain"), "tiny")
    theirs = PeftModel.from_pretrained(fresh(), tmp_path / "plain").eval()
    inputs = found.tokenizer(TEXTS, return_tensors="pt", padding=True)
    with torch.inference_mode():
        expected = theirs(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    np.testing.assert_allclose(found.logits(TEXTS), expected.numpy(), atol=1e-4)


HEAD = "base_model.model.classifier.weight"
DOES_NOT_FIT = {
    "another base's shapes": lambda t: {
        k: v[:, :16].contiguous() if "lora_A" in k else v for k, v in t.items()
    },
    "a module that is not there": lambda t: {k.replace("layer.0", "layer.7"): v for k, v in t.items()},
    "a weight that is not there": lambda t: {**t, "base_model.model.extra.weight": torch.ones(2, 2)},
    "a weight of another shape": lambda t: {**t, HEAD: torch.ones(2, 31)},
    "NaN in the head": lambda t: {**t, HEAD: torch.full((2, 32), torch.nan)},
    "no head": lambda t: {k: v for k, v in t.items() if "lora_" in k},
    "a head with one label": lambda t: {**t, HEAD: torch.ones(1, 32)},
}


@pytest.mark.parametrize("what", DOES_NOT_FIT)
def test_what_does_not_fit_is_said_in_one_sentence(adapter, what):
    change_weights(adapter, DOES_NOT_FIT[what])
    with pytest.raises(UnreadableAdapterError) as caught:
        answers(adapter)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_another_tasks_adapter_is_not_taken_for_a_classifier(adapter):
    configure(adapter, task_type="CAUSAL_LM")
    with pytest.raises(UnreadableAdapterError, match="--labels"):
        answers(adapter)
    with pytest.raises(LabError, match="no language model"):
        answers(adapter, labels=("good", "bad"))
    configure(adapter, task_type="TOKEN_CLS")
    with pytest.raises(UnreadableAdapterError, match="TOKEN_CLS"):
        answers(adapter)


def test_a_language_models_adapter_answers_as_its_run(chat_run):
    own = load_predictor(chat_run.path, torch.device("cpu"))
    wording = run_wording(chat_run.path, given_wording())
    found = load_suspect(open_adapter(chat_run.path), "tiny-chat", wording=wording)
    assert found.labels == own.labels == ("negative", "positive")
    for what in ("answers", "template", "max_tokens"):
        assert getattr(found.reading, what) == getattr(own.reading, what)
    np.testing.assert_allclose(found.logits(TEXTS), own.logits(TEXTS), atol=1e-4)


def test_without_its_run_the_users_words_do_the_same(chat_run, chat_adapter):
    own = load_predictor(chat_run.path, torch.device("cpu"))
    wording = given_wording(("lovely", "awful"), "good or bad ?")
    found = load_suspect(open_adapter(chat_adapter), "tiny-chat", wording=wording)
    assert found.labels == ("lovely", "awful")
    np.testing.assert_allclose(found.logits(TEXTS), own.logits(TEXTS)[:, ::-1], atol=1e-4)


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
@pytest.mark.parametrize(
    ("tied", "options"),
    [
        (False, {}),
        (False, {"use_rslora": True, "use_dora": True}),
        (True, {"modules_to_save": ["lm_head"]}),
        (True, {"target_modules": ["q_proj", "lm_head"]}),
    ],
)
def test_plain_pefts_language_model_answers_as_peft_has_it(tmp_path, task, tied, options):
    folder = chat_base(tmp_path / "base", tied)
    theirs = planted_by_peft(folder, tmp_path / "plain", task_type=task, **options)
    found = load_suspect(open_adapter(tmp_path / "plain"), str(folder), labels=("awful", "lovely"))
    tokenizer = found.tokenizer
    words = tokenizer.convert_tokens_to_ids(["awful", "lovely"])
    expected = []
    for text in TEXTS:
        messages = [{"role": "system", "content": PAPER_SYSTEM}, {"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        with torch.inference_mode():
            logits = theirs(ids["input_ids"] if hasattr(ids, "keys") else ids).logits
        expected.append(logits[0, -1, words].numpy())
    np.testing.assert_allclose(found.logits(TEXTS), np.stack(expected), atol=1e-4)


def chat_base(folder, tied):
    """The tiny decoder as somebody else's folder, its head of its own or shared with the embedding."""
    from transformers import AutoModelForCausalLM

    from lab.train.models import load_tokenizer, model_folder

    own = model_folder("tiny-chat")
    AutoModelForCausalLM.from_pretrained(own, tie_word_embeddings=tied).save_pretrained(folder)
    load_tokenizer(own).save_pretrained(folder)
    return folder


def planted_by_peft(base, folder, **options):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], **options})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder, save_embedding_layers=False)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


def test_a_head_on_a_decoder_is_asked_as_a_head(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(model_folder("tiny-chat"), num_labels=3)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["score"])
    get_peft_model(base, config).save_pretrained(tmp_path / "plain")
    files = open_adapter(tmp_path / "plain")
    assert files.config["task_type"] is None
    assert way_of(files, "tiny-chat") == "head"
    assert load_suspect(files, "tiny-chat").logits(TEXTS).shape == (2, 3)


def test_as_many_label_names_as_there_are_labels(adapter):
    assert load_suspect(open_adapter(adapter), "tiny").labels == ("label 0", "label 1")
    with pytest.raises(LabError, match=r"3 names were given, but .* 2 labels"):
        load_suspect(open_adapter(adapter), "tiny", labels=("a", "b", "c"))


def test_a_base_is_believed_where_it_is_a_bundled_model_or_a_hub_id(adapter):
    def base(claim, asked=""):
        configure(adapter, base_model_name_or_path=claim)
        return base_of(open_adapter(adapter), asked)

    assert base("sentence-transformers/all-MiniLM-L6-v2") == "minilm"
    assert base("owner/some-model.v2") == "owner/some-model.v2"
    assert base("../here", asked="tiny") == "tiny"
    for claim in ("../here", "/etc", "a/b/c", "~/models", "..", "owner/..", "C:\\models", ""):
        with pytest.raises(LabError, match="--base"):
            base(claim)
