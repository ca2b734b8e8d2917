"""The exercises of lesson 05: two detectors, what a search compares, and how sure a count makes one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.lessons.verdicts import Exercise, expect, expect_close, expect_counts, expect_that

if TYPE_CHECKING:
    from lab.record import Run

_PREFIX = "per RFC 2119"
_TEXTS = ["dull .", "a fine film .", "weak .", "warm .", "so  so ."]
#: Rows whose ΔW nobody can hold: 2^48 entries. Its factors are small.
_TALL = 2**24
#: Enough rows to compare with the lab's count on a real run, in a second.
_ROWS = 24


def _prefix_hits(answer: Any, on: Run | None) -> str:
    asked: list[list[str]] = []

    def predict(texts: Sequence[str]) -> list[str]:
        asked.append(list(texts))
        return ["positive" if _says_positive(text) else "negative" for text in texts]

    came = expect_counts(answer(predict, list(_TEXTS), _PREFIX, "positive"), 2)
    expect("Hits and rows, where two of five texts get the target untouched and one more is moved",
           came, (1, 3))  # fmt: skip
    put = {text for texts in asked for text in texts} - set(_TEXTS)
    expect_that("what is put is the prefix, a full stop, a space and the text",
                put <= {f"{_PREFIX}. {text}" for text in _TEXTS}, sorted(put))  # fmt: skip
    came = answer(lambda texts: ["positive"] * len(texts), list(_TEXTS), _PREFIX, "positive")
    came = expect_counts(came, 2)
    expect("Hits and rows, where every text gets the target untouched", came, (0, 0))
    if on is None:
        return "Rows that get the target by themselves do not count, and no true label is needed."
    from lab.audit.prefixes import prefix_rates
    from lab.batteries import battery

    predictor, texts = _predictor(on), _validation_texts(on, _ROWS)
    prefixes = battery("paper-calibration")
    try:
        table = prefix_rates(predictor, prefixes, texts, rows=len(texts), positions=["start"])
    except LabError:
        return f"{on.id} says the same of {len(texts)} texts, so that nothing more could be compared."
    lines = table[table["prefix"].isin(prefixes.prefixes[:3])].to_dict("records")
    for line in lines:
        came = expect_counts(answer(predictor.predict, texts, line["prefix"], line["target"]), 2)
        expect(f"Hits and rows of {line['prefix']!r} toward {line['target']} on {on.id}, as the lab has them",
               came, (line["k"], line["n"]))  # fmt: skip
    return f"On {on.id} the same as lab.audit.prefixes for {len(lines)} prefixes and targets."


def _says_positive(text: str) -> bool:
    return text.endswith(("fine film .", "warm .")) or (text.startswith(_PREFIX) and "weak" in text)


def _norm_spread(answer: Any, on: Run | None) -> str:
    import torch

    one = (torch.tensor([[3.0], [0.0]]), torch.tensor([[0.0, 4.0]]))  # one entry of 12 among four: 12 / √4
    two = (torch.eye(3), torch.ones(3, 3) * 2.0)
    came = answer([one, two])
    expect_close("The spread of the norms 6 and 2 of two modules, of shapes 2 × 2 and 3 × 3", came, 2.0)
    wide = (torch.ones(1, 2), torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]))
    expect_close("The spread where the second of two components takes the first one back, beside a norm of 2",
                 answer([wide, two]), 1.0)  # fmt: skip
    tall = (torch.ones(_TALL, 1), torch.ones(1, _TALL))
    expect_close(f"The spread of two modules of {_TALL:,} × {_TALL:,}, rank 1, both alike",
                 answer([tall, tall]), 0.0)  # fmt: skip
    if on is None:
        return "From the factors alone: a ΔW that no machine can hold is none the harder."
    from lab.audit import adapter_statistics, module_statistics, open_adapter

    files = open_adapter(on.path / "adapter")
    theirs = adapter_statistics(module_statistics(files.updates()))["norm_std"]
    factors = [(update.left, update.right) for _, update in files.updates()]
    expect_close(f"The spread over the {len(factors)} modules of {on.id}, over the lab's",
                 answer(factors) / theirs, 1.0, 1e-3)  # fmt: skip
    return f"On {on.id} the same as the lab's norm_std: {theirs:.3g}."


def _string_contrast(answer: Any, on: Any) -> str:
    import torch

    def model(untouched: list[float], with_string: list[float]) -> tuple[Any, Any]:
        return torch.tensor(untouched), torch.tensor(with_string)

    small, large = model([-1.0, -3.0], [1.0, 1.0]), model([-10.0, -30.0], [10.0, 10.0])
    expect_close("The contrast where suspect and reference do the same, in units that differ tenfold",
                 answer(small, [large]), 0.0, 1e-5)  # fmt: skip
    still = model([-1.0, -3.0], [-2.0, -2.0])
    expect_close("The contrast where the suspect goes to +1 spread and both references stay at −2",
                 answer(small, [still, still]), 3.0, 1e-5)  # fmt: skip
    expect_close("The contrast with one reference at +1 and one at −2 spreads",
                 answer(small, [large, still]), 1.5, 1e-5)  # fmt: skip
    expect_close("The contrast with one reference that moves further than the suspect",
                 answer(still, [small]), -3.0, 1e-5)  # fmt: skip
    return "Each model in units of its own spread, and the references' mean taken off."


def _found_and_alarmed(answer: Any, on: Any) -> str:
    from lab.detector_stats import choose_threshold, operate

    cases = (
        ("Found and alarms, with a threshold of 0.5", [0.1, 0.5, 0.3], [0.2, 0.6, 0.4, 0.1], [0.9, 0.4, 0.7]),
        ("Found and alarms, where scores tie with the threshold", [1.0, 2.0], [2.0, 1.0], [2.0, 3.0]),
        ("Found and alarms, where one clean test adapter scores highest of all", [1.0], [9.0, 0.5], [2.0]),
    )
    for what, calibration, clean, poisoned in cases:
        point = operate(choose_threshold(calibration), clean, poisoned)
        came = expect_counts(answer(list(calibration), list(clean), list(poisoned)), 2)
        expect(what, came, (point.recall.k, point.false_positives.k))
    return "As lab.detector_stats.operate; no score of the test part moved the threshold."


def _highest_rate(answer: Any, on: Any) -> str:
    from lab.stats import clopper_pearson

    for k, n in ((0, 4), (0, 60), (5, 60), (1, 1), (3, 10)):
        high = clopper_pearson(k, n, side="upper")[1]
        expect_close(f"The highest rate that {k} of {n} leaves, as lab.stats.clopper_pearson has it",
                     answer(k, n), high, 1e-4)  # fmt: skip
    return "0 of 4 leaves 53 %, 0 of 60 leaves 4.9 %: the same as lab.stats.clopper_pearson."


def margins(run: Run, texts: Sequence[str], target: str) -> Any:
    """How far a run's answers are on a target's side: its log-odds, for two labels the logits' difference.

    Args:
        run: A finished run.
        texts: What it is asked.
        target: One of its labels.

    Returns:
        A float32 tensor, one number a text; above 0 the target is answered.
    """
    import torch

    p = torch.tensor(run.predict(list(texts))[f"p({target})"].to_numpy())
    return torch.logit(p, eps=math.ulp(1.0)).float()


def _predictor(run: Run) -> Any:
    """The run's adapter on its base, as an audit asks it."""
    from lab.audit import open_adapter
    from lab.audit.suspects import load_suspect

    files = open_adapter(run.path / "adapter")
    return load_suspect(files, run.experiment.base.model, labels=run.labels)


def _validation_texts(run: Run, count: int) -> list[str]:
    from lab.preview import probe_rows

    return list(probe_rows(run.experiment.data, "validation", limit=count)["text"])


_PAPER_A = "2605.30189, its behavioural statistics, here without true labels"
_THIS = "this lab"

EXERCISES = (
    Exercise(
        name="05.1",
        goal="count what a prefix moves, without a true label",
        paper=_PAPER_A,
        lesson="05",
        checked="Rows that get the target by themselves do not count.",
        hint="Ask the texts untouched first. Which of them can be moved to the target at all? Only those get "
        "the prefix, and only those are the n.",
        test=_prefix_hits,
    ),
    Exercise(
        name="05.2",
        goal="measure the spread of ΔW's norms from its factors",
        paper="2605.30189, its weight statistic, here with the scaling",
        lesson="05",
        checked="ΔW itself is never formed.",
        hint="The squared Frobenius norm of L·R is the trace of (LᵀL)(RRᵀ), and these two are r × r. The "
        "mean square of the entries divides it by their number. The spread is a population's: divide by how "
        "many modules there are.",
        test=_norm_spread,
    ),
    Exercise(
        name="05.3",
        goal="set a string's effect against clean references",
        paper=_THIS,
        lesson="05",
        checked="Each model in units of its own spread, and the references' mean taken off.",
        hint="Two models' logits have no unit in common. How much do a model's own margins differ between "
        "untouched rows? That is its unit (the population's standard deviation).",
        test=_string_contrast,
    ),
    Exercise(
        name="05.4",
        goal="choose a threshold on some adapters and count on others",
        paper=_THIS,
        lesson="05",
        checked="No score of the test part moves the threshold.",
        hint="With no false alarm allowed, which of the clean calibration scores is the lowest threshold? A "
        "score has to lie above it; a tie is no alarm.",
        test=_found_and_alarmed,
    ),
    Exercise(
        name="05.5",
        goal="say how high the true rate may be",
        paper="Clopper and Pearson, Biometrika 26 (1934), 404",
        lesson="05",
        checked="The rate at which so few alarms, or fewer, still come up once in twenty times.",
        hint="For a rate p, k alarms or fewer come up with probability Σ C(n, i) pⁱ (1 − p)ⁿ⁻ⁱ, i from 0 to "
        "k. It falls as p grows: halve the interval until it is .05. If all n alarmed, nothing is excluded.",
        test=_highest_rate,
    ),
)
