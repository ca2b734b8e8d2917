"""The exercises of lesson 04: wrong labels and their cost, two kernels, and a comparison that is matched."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from lab.lessons.lesson_00 import true_labels
from lab.lessons.verdicts import Exercise, MissedError, expect, expect_close, expect_parts, expect_that

if TYPE_CHECKING:
    from lab.record import Run

_NAMES = ("negative", "neutral", "positive")


def _flips(answer: Any, on: Any) -> str:
    labels = [_NAMES[i % 3] for i in range(60)]
    for rate in (0.0, 0.1, 0.3, 1.0):
        given = list(labels)
        came = answer(given, rate, random.Random(4))
        where = f"With rate {rate} of 60 labels"
        expect(f"{where}, the number of labels", came if came is None else len(came), 60)
        expect_that("the list that was given is left as it was", given == labels, given)
        changed = sum(one != other for one, other in zip(labels, came, strict=True))
        expect(f"{where}, the number of labels that are wrong now", changed, round(60 * rate))
        expect_that("only labels come that were there before", set(came) <= set(_NAMES), sorted(set(came)))
    new = {answer(["negative", *_NAMES], 0.25, random.Random(seed))[0] for seed in range(99)}
    expect("What became of a negative label in 99 draws", sorted(new), sorted(_NAMES))
    if on is None:
        return "Exactly so many labels are wrong, each other label is possible, and the list is left alone."
    rows = on.rows
    flipped = int((rows["label"] != rows["original_label"]).sum())
    return f"In {on.id} the lab did the same with {flipped} of {len(rows):,} labels."


def _cost(answer: Any, on: Run | None) -> str:
    came = expect_parts("Four rows", answer([0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]), 3)
    for name, value, expected in zip(_COSTS, came, (0.5, 1.0, 0.5), strict=True):
        expect_close(f"{name}, four rows", value, expected)
    if on is None or on.twin is None:
        return "Both models are held against the true labels of the same rows."
    own, twin, labels = clean_answers(on)
    came = answer(own, twin, labels)
    told = on.headline["measures"]
    for name, value, model in zip(_COSTS[:2], came[:2], ("poisoned", "twin"), strict=True):
        expect_close(f"{name} of {on.id}, as the lab has it", value,
                     told[model]["clean_accuracy"]["value"], 1e-4)  # fmt: skip
    return f"On {on.id} the same as the lab's: {came[0]:.3f}, the twin {came[1]:.3f}, lost {came[2]:.3f}."


_COSTS = ("accuracy", "the twin's accuracy", "accuracy lost")


def _kernels(answer: Any, on: Any) -> str:
    import torch

    from lab.probe.kernels import LoraFactors, full_kernel, lora_kernel
    from lab.probe.layer_traces import LayerTrace

    generator = torch.Generator().manual_seed(0)
    for rank, scaling in ((1, 1.0), (3, 2.0), (8, 0.5)):
        x, g, a = (torch.randn(*shape, generator=generator).double() for shape in ((5, 8), (5, 4), (rank, 8)))
        came = expect_parts(f"Five texts, rank {rank}", answer(x, g, a, scaling), 2)
        trace = LayerTrace("layer", x[:, None, :], g[None, :, None, :])
        factors = LoraFactors(a, torch.zeros(4, rank).double(), scaling)
        expected = (full_kernel(trace).values, lora_kernel(trace, factors).values)
        for name, value, wanted in zip(("full", "lora"), came, expected, strict=True):
            shape = getattr(value, "shape", None)
            expect_that(f"the kernel {name!r} is a tensor of 5 × 5", shape == (5, 5), shape)
            gap = float((value.double() - torch.from_numpy(wanted)).abs().max())
            if gap > 1e-6 * float(abs(wanted).max()):
                raise MissedError(
                    f"The kernel {name!r} of five texts, rank {rank}, scaling {scaling}: expected "
                    f"{wanted[0, 1]:.4g} between the first two, came {float(value[0, 1]):.4g}."
                )
    return "The same as the lab's full_kernel and lora_kernel, for three ranks and scalings."


def _matched(answer: Any, on: Any) -> str:
    cases = (
        ({"rank 1": [0.59, 0.76], "rank 8": [0.77, 0.78], "rank 64": [0.78, 0.785]}, {"rank 8", "rank 64"}),
        ({"lora": [0.80, 0.70], "full": [0.755, 0.755]}, {"lora", "full"}),
        ({"lora": [0.75, 0.75], "full": [0.77, 0.77]}, {"full"}),
    )
    for accuracies, expected in cases:
        came = answer({name: list(values) for name, values in accuracies.items()}, 0.01)
        expect(f"What may be compared of {accuracies}", came if came is None else set(came), expected)
    came = answer({"lora": [0.75], "full": [0.77]}, 0.05)
    expect("What may be compared within five points of lora .75 and full .77", set(came), {"lora", "full"})
    if on is None:
        return f"{len(cases)} comparisons, by means over seeds."
    return _matched_on(answer, on)


def _matched_on(answer: Any, on: Any) -> str:
    """A sweep's table, as the lab marks it."""
    points = on.groupby("adapter.rank")
    came = answer({str(rank): list(part["twin.clean_accuracy"]) for rank, part in points}, 0.01)
    expected = {str(rank) for rank, part in points if (part["matched"] == "matched").all()}
    expect("The ranks that the sweep's column `matched` names", set(came), expected)
    return f"The same as the sweep's column: {', '.join(sorted(expected)) or 'none'}."


def clean_answers(run: Run) -> tuple[list[int], list[int], list[int]]:
    """What a run and its twin answered on the untouched test rows, and the true labels.

    Args:
        run: A finished run with its twin.

    Returns:
        The run's answers, the twin's, and the labels: class indices, one entry per row.
    """
    index = {label: i for i, label in enumerate(run.labels)}
    truth = true_labels(run)
    table = run.predictions
    table = table[table["condition"] == "clean"].set_index("row_id")
    own, twin = (table[table["model"] == model]["prediction"] for model in ("poisoned", "twin"))
    order = sorted(own.index)
    return (
        [index[answer] for answer in own.reindex(order)],
        [index[answer] for answer in twin.reindex(order)],
        [index[truth[row]] for row in order],
    )


_PAPER = "2505.12871; the matched comparison is this lab's"

EXERCISES = (
    Exercise(
        name="04.1",
        goal="flip a share of the labels",
        paper=_PAPER,
        lesson="04",
        checked="Exactly so many labels are wrong, each other label is possible, and the list is left alone.",
        hint="Draw places without putting back (`rng.sample`), and at each place draw from the labels that "
        "are not the one that stands there. Change a copy.",
        test=_flips,
    ),
    Exercise(
        name="04.2",
        goal="say what wrong labels cost",
        paper=_PAPER,
        lesson="04",
        checked="Both models are held against the true labels of the same rows.",
        hint="Three shares of the same rows; the last is the second minus the first, positive where the "
        "wrong labels cost something.",
        test=_cost,
    ),
    Exercise(
        name="04.3",
        goal="compute the two tangent kernels of a layer",
        paper=_PAPER,
        lesson="04",
        checked="LoRA's kernel at its start sees the inputs through s·A alone.",
        hint="The gradient for W is the outer product of g and x, and the inner product of two of these "
        "is a product of two inner products. With B = 0 only B has a gradient; it sees s·Ax instead of x.",
        test=_kernels,
    ),
    Exercise(
        name="04.4",
        goal="name what may be compared",
        paper=_PAPER,
        lesson="04",
        checked="Means over seeds count, and the best one is the yardstick.",
        hint="Take each way's mean, find the largest, and keep the names that are at most so far below it. "
        "A difference of shares may miss a border by a rounding error: allow 1e-9.",
        test=_matched,
    ),
)
