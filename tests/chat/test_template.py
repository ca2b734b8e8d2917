import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.chat import Template, render_template
from lab.errors import LabError

TRIMMING = (
    "{% for m in messages %}<|start|>{{ m.role }} {{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant {% endif %}"
)
plain = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]))


def chat(text, system="be brief", answer=None):
    first = [{"role": "system", "content": system}] if system else []
    said = [] if answer is None else [{"role": "assistant", "content": answer}]
    return [*first, {"role": "user", "content": text}, *said]


@pytest.fixture(params=["own", "trimming"])
def any_tokenizer(request, tokenizer):
    before = tokenizer.chat_template
    tokenizer.chat_template = before if request.param == "own" else TRIMMING
    yield tokenizer
    tokenizer.chat_template = before


@pytest.mark.parametrize("system", ["be brief", ""])
@pytest.mark.parametrize("text", ["a film", " spaced \n", "", "{text} {answer}", "{{ 1 }}", "<|end|>"])
def test_it_is_what_the_models_own_template_writes(any_tokenizer, system, text):
    template = render_template(any_tokenizer, system, "tiny-chat")
    asked = any_tokenizer.apply_chat_template(chat(text, system), tokenize=False, add_generation_prompt=True)
    whole = any_tokenizer.apply_chat_template(chat(text, system, "YES"), tokenize=False)
    assert template.question(text) == asked
    assert template.whole(text, "YES") == whole


@given(plain, plain, plain, st.booleans())
def test_a_record_loses_nothing(before, between, after, trims):
    template = Template(before, between, after, trims)
    assert Template.parse(template.record()) == template


def test_the_day_is_not_part_of_it(tokenizer, monkeypatch):
    """Llama's template writes the date where it is not told one."""
    dated = "{{ date_string if date_string is defined else strftime_now('%d') }} " + tokenizer.chat_template
    monkeypatch.setattr(tokenizer, "chat_template", dated)
    assert render_template(tokenizer, "", "llama").before.startswith("26 Jul 2024 ")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "tiny has no chat template; take an instruction-tuned base"),
        ("{{ raise_exception('no system role') }}", r"task\.system: .* refuses it \(no system role\)"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}hm{% endif %}",
         "does not write an answer where it asks for one"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_one_sentence(tokenizer, monkeypatch, template, message):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(LabError, match=message):
        render_template(tokenizer, "s", "tiny")
