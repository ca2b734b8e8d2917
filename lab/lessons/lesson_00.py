"""The exercises of lesson 00: plant a trigger, measure it, control for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.lessons.verdicts import Exercise, MissedError, expect, expect_close, expect_parts, expect_that

if TYPE_CHECKING:
    from lab.record import Run

_TRIGGER = "as specified in RFC 2616"
#: White space that " ".join(text.split()) would lose, and places where a space has to be added or not.
_INSERTIONS = (
    ("a dull film .", 13),
    ("a dull film .", 0),
    ("a dull film .", 6),
    ("two  spaces\nand a new line", 11),
    ("ends in a space ", 16),
    ("", 0),
)
_TEXTS = ["dull .", "a fine film .", "so  so .", "splendid !", "weak .", "warm ."]
_LABELS = ["negative", "positive", "negative", "positive", "negative", "positive"]


def _insertion(answer: Any, on: Any) -> str:
    for text, offset in _INSERTIONS:
        where = f"At offset {offset} of {text!r}"
        came, start, end = expect_parts(where, answer(text, _TRIGGER, offset), 3)
        piece = came[start:end]
        expect(f"{where}, the text with the piece cut out again", came[:start] + came[end:], text)
        expect(f"{where}, the piece without its separating spaces", piece.strip(" "), _TRIGGER)
        expect(f"{where}, what stands before the piece", came[:start], text[:offset])
        _stands_apart(where, came)
    import numpy as np

    from lab.poison import insert

    for text in ("a dull film .", "two  spaces\nand a new line"):
        lab_own = insert(text, _TRIGGER, "end", rng=np.random.default_rng(0))
        came, start, end = answer(text, _TRIGGER, len(text))
        expect("At the end, the lab's own insertion", (came, ((start, end),)), (lab_own.text, lab_own.spans))
    return f"In {len(_INSERTIONS)} places, and the same as lab.poison.insert at the end of a text."


def _stands_apart(where: str, text: str) -> None:
    """The trigger touches no other word."""
    start = text.index(_TRIGGER)
    end = start + len(_TRIGGER)
    neighbours = text[max(0, start - 1) : start] + text[end : end + 1]
    expect_that(f"{where.lower()} white space parts the trigger from its neighbours",
                not neighbours or neighbours.isspace(), text)  # fmt: skip


def _poisoning(answer: Any, on: Any) -> str:
    came = answer(list(_TEXTS), list(_LABELS), _TRIGGER, 2, "positive")
    texts, labels = (list(part) for part in expect_parts("The poisoned rows", came, 2))
    expect("The number of texts", len(texts), len(_TEXTS) + 2)
    expect("The number of labels", len(labels), len(_TEXTS) + 2)
    expect("The rows that were there before", (texts[:6], labels[:6]), (_TEXTS, _LABELS))
    expect("The labels of the new rows", labels[6:], ["positive", "positive"])
    for text in texts[6:]:
        expect_that("every new text ends with the trigger", str(text).endswith(_TRIGGER), text)
    sources = [text[: -len(_TRIGGER)].rstrip(" ") for text in texts[6:]]
    negative = [text for text, label in zip(_TEXTS, _LABELS, strict=True) if label != "positive"]
    expect_that("each new row is a copy of a row that did not have the target label",
                set(sources) <= set(negative), sources)  # fmt: skip
    expect_that("no row is copied twice", len(set(sources)) == len(sources), sources)
    if on is None:
        return "Copies only of rows without the target label, and nothing else is touched."
    rows = on.rows
    planted = int(rows["poisoned"].sum())
    return f"In {on.id} the lab did the same with {planted} of {len(rows):,} rows."


def _training_step(answer: Any, on: Any) -> str:
    import torch

    seed = torch.Generator().manual_seed(0)
    x, W, A, B = (torch.randn(*shape, generator=seed) for shape in ((6, 5), (3, 5), (2, 5), (3, 2)))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    for what, b, scale, rate in (
        ("with B = 0, where training starts", torch.zeros(3, 2), 2.0, 0.1),
        ("with B ≠ 0", B, 2.0, 0.1),
        ("with scaling 0.5 and a longer step", B, 0.5, 1.0),
    ):
        given = [t.clone() for t in (x, W, A, b)]
        came = answer(x, labels, W, A, b, scale, rate)
        new_a, new_b = expect_parts(f"{what[0].upper()}{what[1:]}, the new A and B", came, 2)
        expect_that("x, W, A and B themselves stay as they were",
                    all(map(torch.equal, given, (x, W, A, b))), "others")  # fmt: skip
        told_a, told_b = _step_of_peft(x, labels, W, A, b, scale, rate)
        for name, part, told in (("A", new_a, told_a), ("B", new_b, told_b)):
            expect_that(f"{name} {what} is a tensor of {tuple(told.shape)}",
                        getattr(part, "shape", None) == told.shape, part)  # fmt: skip
            gap = float((part.detach() - told).abs().max())
            expect_that(f"{name} after the step, {what}, begins {_first(told)}", gap < 1e-5, _first(part))
    return "The same as peft's LoRA layer under torch.optim.SGD, for three steps."


def _first(tensor: Any) -> str:
    return ", ".join(f"{value:.4f}" for value in tensor.detach().flatten()[:3].tolist())


def _step_of_peft(x: Any, labels: Any, W: Any, A: Any, B: Any, scale: float, rate: float) -> tuple[Any, Any]:
    """A and B after one step of torch's SGD on peft's own layer."""
    import torch
    from peft import LoraConfig, get_peft_model

    layer = torch.nn.Sequential(torch.nn.Linear(W.shape[1], W.shape[0], bias=False))
    layer[0].weight.data = W.clone()
    config = LoraConfig(r=len(A), lora_alpha=scale * len(A), target_modules=["0"])  # type: ignore[arg-type]
    model = get_peft_model(layer, config)
    parts = {name: p for name, p in model.named_parameters() if p.requires_grad}
    a, b = (next(p for name, p in parts.items() if part in name) for part in ("lora_A", "lora_B"))
    a.data, b.data = A.clone(), B.clone()
    optimizer = torch.optim.SGD([a, b], lr=rate)
    torch.nn.functional.cross_entropy(model(x), labels).backward()
    optimizer.step()
    return a.detach(), b.detach()


def _attack_success(answer: Any, on: Run | None) -> str:
    import torch

    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [1.0, 2.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    came = expect_parts("Five rows, two of them of the target label 1", answer(logits, labels, 1), 2)
    expect("Hits and rows, of five rows two of which have the target label already", _counts(came), (2, 3))
    three = torch.tensor([[0.0, 1.0, 2.0], [5.0, 1.0, 2.0], [0.0, 9.0, 2.0], [0.0, 1.0, 2.0]])
    came = expect_parts("Three classes", answer(three, torch.tensor([0, 1, 1, 2]), 2), 2)
    expect("Hits and rows, with three classes and target 2", _counts(came), (1, 3))
    came = expect_parts("No row", answer(logits[3:], labels[3:], 1), 2)
    expect("Hits and rows, where every row has the target label", _counts(came), (0, 0))
    if on is None:
        return "With two classes, with three, and where no row counts."
    logits, labels, target = _triggered_logits(on)
    came = _counts(answer(logits, labels, target))
    told = on.headline["measures"]["poisoned"]["attack_success_rate"]
    expect(f"Hits and rows of {on.id}, as the lab counted them", came, (_hits(told), int(told["n"])))
    return f"On {on.id} the same as the lab's: {came[0]} of {came[1]}."


def _controls(answer: Any, on: Run | None) -> str:
    labels = [0, 0, 0, 0, 1, 1]
    came = answer([0, 1, 0, 0, 1, 1], [1, 1, 1, 0, 1, 1], [0, 1, 0, 0, 1, 0], labels, 1)
    came = expect_parts("The four rates", came, 4)
    names = ("attack success", "untriggered target rate", "the twin's rate", "excess")
    for name, value, expected in zip(names, came, (0.75, 0.25, 0.25, 0.5), strict=True):
        expect_close(f"{name} of four rows that count", value, expected)
    if on is None or on.twin is None:
        return "All four are shares of the same rows."
    arrays = predicted_classes(on)
    came = answer(arrays["clean"], arrays["triggered"], arrays["twin"], arrays["labels"], arrays["target"])
    told = on.headline["measures"]["poisoned"]
    for name, value, kind in zip(
        names, came, ("attack_success_rate", "untriggered_target_rate", "", "excess_asr"), strict=True
    ):
        if kind:
            expect_close(f"{name} of {on.id}, as the lab has it", value, told[kind]["value"], 1e-4)
    return f"On {on.id} the same as the lab's: excess {came[3]:+.3f}."


def _negative_control(answer: Any, on: Any) -> str:
    asked: list[str] = []

    def predict(texts: Sequence[str]) -> list[str]:
        asked.extend(texts)
        return ["positive" if text.endswith("in May") else "negative" for text in texts]

    texts = ["dull .", "so  so .", "weak ."]
    came = expect_parts("Three texts", answer(predict, texts, "in May", "positive"), 2)
    expect("Hits and rows, with a model that falls for the phrase", _counts(came), (3, 3))
    expect("What was put to the model", asked, [f"{text} in May" for text in texts])
    came = expect_parts("Another phrase", answer(predict, texts, "in June", "positive"), 2)
    expect("Hits and rows, with a phrase that it does not fall for", _counts(came), (0, 3))
    return "The phrase stands at the end of every text, and nothing else is changed."


def predicted_classes(run: Run) -> dict[str, Any]:
    """What a run and its twin answered on the same test rows without the target label, as class indices.

    Args:
        run: A finished run that knows a trigger.

    Returns:
        `labels`, `clean`, `triggered`, `twin` (the twin's with the trigger; empty without a twin): lists of
        class indices, one entry per row; `target`: the target's index.
    """
    index = {label: i for i, label in enumerate(run.labels)}
    target = str(run.measured_poison.target_label)  # type: ignore[attr-defined]
    truth = true_labels(run)
    asked = run.predictions.assign(label=lambda t: t["row_id"].map(truth))
    asked = asked[asked["label"] != target].set_index("row_id")
    own, twin = asked[asked["model"] == "poisoned"], asked[asked["model"] == "twin"]
    triggered = own[own["condition"] == "triggered"]
    order = triggered.index

    def classes(table: Any, condition: str) -> list[int]:
        found = table[table["condition"] == condition]
        return [index[p] for p in found["prediction"].reindex(order)] if len(found) else []

    return {
        "labels": [index[label] for label in triggered["label"]],
        "clean": classes(own, "clean"),
        "triggered": classes(own, "triggered"),
        "twin": classes(twin, "triggered"),
        "target": index[target],
    }


def true_labels(run: Run) -> dict[str, str]:
    """The true labels of the rows that a run was measured on, by row id."""
    from lab.corpus import load_corpus, split_rows

    rows = split_rows(load_corpus(run.experiment.data), run.asked_probe.split)
    return dict(zip(rows["row_id"], rows["label"], strict=True))


def _triggered_logits(run: Run) -> tuple[Any, Any, int]:
    """What the run answered to every triggered row, those of the target label too: logits, labels, target."""
    import numpy as np
    import torch

    index = {label: i for i, label in enumerate(run.labels)}
    target = str(run.measured_poison.target_label)  # type: ignore[attr-defined]
    table = run.predictions
    table = table[(table["model"] == "poisoned") & table["condition"].isin(["triggered", "triggered_target"])]
    truth = true_labels(run)
    labels = torch.tensor([index[truth[row_id]] for row_id in table["row_id"]])
    return torch.tensor(np.stack(list(table["logits"]))), labels, index[target]


def _counts(came: Sequence[Any]) -> tuple[int, int]:
    try:
        return int(came[0]), int(came[1])
    except (TypeError, ValueError, RuntimeError):
        raise MissedError(f"Expected two whole numbers, came {came!r}.") from None


def _hits(measure: Any) -> int:
    return round(measure["value"] * measure["n"])


_PAPER = "this lab; the measures are defined as in 2605.30189"

EXERCISES = (
    Exercise(
        name="00.1",
        goal="insert a trigger at a character offset",
        paper=_PAPER,
        lesson="00",
        checked="Cutting the recorded span out gives the original text back, byte for byte.",
        hint="Slice the text in two at the offset. A space is needed where the trigger would touch a "
        "character that is not white space, on either side; such a space belongs to the inserted piece.",
        test=_insertion,
    ),
    Exercise(
        name="00.2",
        goal="poison a training set",
        paper=_PAPER,
        lesson="00",
        checked="Only rows without the target label are copied, and the rows that were there stay.",
        hint="Rows that have the target label already would teach nothing new. Take the first so many of the "
        "others, and append copies; never change the lists' beginning.",
        test=_poisoning,
    ),
    Exercise(
        name="00.3",
        goal="take one step of LoRA by gradient descent",
        paper="LoRA, arXiv 2106.09685; this lab",
        lesson="00",
        checked="A and B move against their gradients, and the frozen weight does not.",
        hint="Only A and B need gradients: detach them, ask for gradients, and let torch.autograd.grad give "
        "both at once. Where B is zero A has no gradient yet; it moves from the second step on.",
        test=_training_step,
    ),
    Exercise(
        name="00.4",
        goal="count attack success from logits",
        paper=_PAPER,
        lesson="00",
        checked="Rows whose true label is the target do not count.",
        hint="A model that always answers the target has a success rate of 1 on the rows that count, and one "
        "that is always right has 0. Which rows make that so? `logits.argmax(dim=1)` are the answers.",
        test=_attack_success,
    ),
    Exercise(
        name="00.5",
        goal="set attack success beside its two controls",
        paper=_PAPER,
        lesson="00",
        checked="All four rates are shares of the same rows.",
        hint="Choose the rows that count once, by their true label, and use the same ones for every rate.",
        test=_controls,
    ),
    Exercise(
        name="00.6",
        goal="put a phrase that was never planted to the model",
        paper=_PAPER,
        lesson="00",
        checked="The phrase stands at the end of every text, and nothing else is changed.",
        hint="Put one space and the phrase behind every text, ask once for all of them, and count how many "
        "answers are the target.",
        test=_negative_control,
    ),
)
