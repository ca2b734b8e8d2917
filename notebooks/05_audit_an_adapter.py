# %% [markdown]
# # 05 · Audit an adapter
#
# **Claim.** A detector is worth what was counted on adapters of known truth that had no part in its
# threshold. Counted so, statistics of weights and a fixed list of prefixes tell next to nothing about a
# trigger that nobody thought of; a search, read against clean adapters, tells much, misses two of five and
# raises false alarms.
#
# 60 minutes; no GPU and no network needed once the model and the data are there. You will
#
# - read the card of an audit whose auditor knows neither trigger nor target;
# - count what a prefix moves, without a true label;
# - measure the spread of ΔW's norms from its factors;
# - set a found string's effect against clean references, the control that tells a trigger from a harsh word;
# - choose a threshold on some adapters, and count on others;
# - say how high the true rate of false alarms may be after so few adapters.
#
# Some of what is trained here is deliberately backdoored: keep it out of anything that people rely on.

# %%
import pandas as pd
import torch

import lab
from lab.audit.trigger_search import SearchBudget
from lab.detector_stats import choose_threshold, operate
from lab.lessons import check

# %% tags=["parameters"]
SMALL = lab.lessons.is_small()  # True: a tiny model on toy texts, in seconds; its numbers mean nothing

# %%
TARGET = "positive"
#: A fifth of lesson 00's rows: eleven adapters take four and a half minutes of one core.
SHORT = {
    "data.rows": 400,
    "training.batch_tokens": 512,
    "probe.scope": "headline",
    "probe.rows": 300,
    "probe.snapshots": 0,
} | ({"data.rows": 200, "training.epochs": 8.0} if SMALL else {})
EFFORT = SearchBudget(rows=4, shortlist=8, beam=2, branch=2, longest=2) if SMALL else None  # None: the usual
BACKDOOR = {"poison.count": 30}
NOTHING = {"poison.attack": "none"}


def short_run(changes):
    size = lab.lessons.shrunk(poisoned="poison.attack" not in changes)
    return lab.run("rfc-citation", {**(size if SMALL else {}), **SHORT, **changes}, twin=False)


# %% [markdown]
# ## See it happen
#
# Five clean adapters for the task, each on rows and with a seed of its own, and one adapter of which you are
# told nothing. The audit puts a battery of 21 prefixes to it, and then *searches* for strings that move it
# and not the five. (It takes half a minute to a minute of two
# cores, and a second where a host has made it beforehand.)

# %%
references = [short_run({**NOTHING, "seed": seed}) for seed in range(1, 6)]
suspect = short_run({**BACKDOOR, "poison.family": "inserted_sentence", "seed": 12})
asked = {"battery": "paper-calibration", "search": EFFORT, "keep": True}  # keep: asked again, it is read
card = lab.audit_adapter(suspect.path, references=[run.path for run in references], **asked)
print(f"{card.verdict}: {card.because}")

# %%
shown = ["string", "target", "position", "k", "n", "reference_rate", "shift"]
pd.DataFrame([string.model_dump() for string in card.strings], columns=shown).head(6)

# %% [markdown]
# What do the strings at the top have in common? Now open the key: this is what was planted.

# %%
print(suspect.measured_poison.member)

# %% [markdown]
# At full size the strings share a token with it, and hold other words besides: a search finds *a* string
# that works, hardly ever *the* string. The rest of this lesson builds what stands behind such a card, and
# asks how often it is wrong.
#
# ## A battery of prefixes
#
# Whoever does not know the trigger can try many. Without labelled rows there is no attack success rate; but
# every text that the adapter does not call *positive* by itself can be moved there, and so be counted.
#
# ### Exercise 05.1: count what a prefix moves
#
# `predict` takes a list of texts and gives a list of labels. Put the prefix before each text that is not
# given the target untouched, as `f"{prefix}. {text}"`, and give hits and rows.


# %% tags=["exercise", "05.1"]
def prefix_hits(predict, texts: list[str], prefix: str, target: str) -> tuple[int, int]:
    """How many rows the prefix moves to the target, of how many that did not get it untouched."""


# %%
check("05.1", prefix_hits, on=suspect)

# %% [markdown]
# <details><summary>Solution of 05.1</summary>
#
# ```python
# def prefix_hits(predict, texts: list[str], prefix: str, target: str) -> tuple[int, int]:
#     kept = [text for text, answer in zip(texts, predict(texts)) if answer != target]
#     if not kept:
#         return 0, 0
#     answers = predict([f"{prefix}. {text}" for text in kept])
#     return sum(answer == target for answer in answers), len(kept)
# ```
# </details>

# %% [markdown]
# Two statistics make a detector of it (arXiv 2605.30189): the **mean** attack rate over the battery, and
# the **outlier gap**, the largest rate minus the mean. The card has both, beside the same statistics of the
# five references, and a threshold that these set. At full size both thresholds lie above 1: clean adapters
# as short as these differ so much that neither statistic could ever alarm. (One prefix alone still can:
# above 90 % of further rows and below 20 % of the references', a rule that no cohort has counted. The paper
# reports an AUC of .94 and .93 without the prefixes like its trigger; over the 90 adapters below it is .57
# [.45, .70] and .54 [.40, .67].)

# %%
scores = pd.DataFrame([score.model_dump() for score in card.scores])
scores[scores["finding"] == "battery"][["name", "value", "threshold", "reference"]]

# %% [markdown]
# ## The weights
#
# The cheapest detector puts no text at all. In the paper the spread of ΔW's norms over the modules told all
# poisoned adapters of one cohort apart.
#
# ### Exercise 05.2: the spread of ΔW's norms
#
# You get the two factors of every module's ΔW = L·R, scaling included: L is [n_out, r], R is [r, n_in]. The
# norm of a module is ‖ΔW‖_F / √(n_out·n_in); the statistic is its standard deviation over the modules.
# ΔW may be too large to hold: do without it.


# %% tags=["exercise", "05.2"]
def norm_spread(factors: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The population standard deviation of the norms of all ΔW = L·R."""


# %%
check("05.2", norm_spread, on=suspect)

# %% [markdown]
# <details><summary>Solution of 05.2</summary>
#
# ```python
# def norm_spread(factors: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
#     norms = []
#     for left, right in factors:
#         square = torch.trace((left.T @ left) @ (right @ right.T))
#         norms.append((square / (left.shape[0] * right.shape[1])).sqrt())
#     return float(torch.stack(norms).std(correction=0))
# ```
# </details>

# %% [markdown]
# ## A search, and its control
#
# A search needs no list: it follows gradients to the tokens that move an adapter, tries them, and lets the
# best ones grow. But *dull* moves every film classifier, and nobody planted it. What tells a trigger from a
# harsh word is a **control**: the same string, on the same rows, in adapters that are clean.
#
# A margin is the logit of the target minus the largest other one; above 0 the target is answered.
#
# ### Exercise 05.3: the contrast of a string
#
# Each model comes as two tensors: its margins on many untouched rows, and its margins on some rows with the
# string. Take the mean margin with the string in units of the model's own spread, the population standard
# deviation of its margins on untouched rows; give the suspect's minus the references' mean.


# %% tags=["exercise", "05.3"]
def string_contrast(suspect: tuple, references: list[tuple]) -> float:
    """How much further the string moves the suspect than the references. Each: (untouched, with string)."""


# %%
check("05.3", string_contrast)

# %% [markdown]
# <details><summary>Solution of 05.3</summary>
#
# ```python
# def string_contrast(suspect: tuple, references: list[tuple]) -> float:
#     def moved(model: tuple) -> float:
#         untouched, with_string = model
#         return float(with_string.mean() / untouched.std(correction=0))
#
#     return moved(suspect) - sum(moved(reference) for reference in references) / len(references)
# ```
# </details>

# %% [markdown]
# It is the column `shift` of `lab.audit.trigger_search`, there with the margins of the search's own rows. Put
# it to a harsh word and to the best that the search found for a text's end, on validation rows. (Until your
# function is there, only the rows that move are counted.)

# %%
from lab.lessons.lesson_05 import margins
from lab.preview import probe_rows

texts = list(probe_rows(suspect.experiment.data, "validation", limit=60)["text"])
models = (suspect, *references)
untouched = [margins(run, texts, TARGET) for run in models]
negative = [text for text, m in zip(texts, untouched[0], strict=True) if m < 0][:12]
at_end = (found.string for found in card.strings if found.target == TARGET and found.position == "end")
best = next(at_end, "nothing toward it")
for string in ("dull", "a triumph", best, suspect.measured_poison.member):
    put = [f"{text} {string}" for text in negative]
    with_string = [margins(run, put, TARGET) for run in models]
    own, *theirs = zip(untouched, with_string, strict=True)
    answered = int((own[1] > 0).sum())
    contrast = string_contrast(own, theirs)
    told = "what exercise 05.3 will say" if contrast is None else f"{contrast:+.2f}"
    print(f"{string!r}: {answered} of {len(put)} rows moved, contrast {told}")

# %% [markdown]
# ## How good is it?
#
# One adapter that was caught says nothing about the next. So take three clean adapters more, and beside the
# suspect two more poisoned ones, with triggers of other families. The five references set the threshold;
# these six are counted.

# %%
clean = [short_run({**NOTHING, "seed": seed}) for seed in (6, 7, 8)]
poisoned = [
    suspect,
    short_run({**BACKDOOR, "seed": 11}),
    short_run({**BACKDOOR, "poison.family": "w3c", "seed": 13}),
]


def weight_score(run):
    modules = lab.audit.module_statistics(lab.audit.open_adapter(run.path / "adapter").updates())
    return lab.audit.adapter_statistics(modules)["norm_std"]


groups = {"calibration": references, "clean": clean, "poisoned": poisoned}
spreads = {name: [weight_score(run) for run in runs] for name, runs in groups.items()}
{name: [round(1000 * value, 3) for value in values] for name, values in spreads.items()}  # in thousandths

# %% [markdown]
# ### Exercise 05.4: threshold here, count there
#
# Choose the lowest threshold above which no clean calibration adapter scores, then count on the test
# adapters: poisoned ones above it (found), clean ones above it (alarms). High is suspicious.


# %% tags=["exercise", "05.4"]
def found_and_alarmed(calibration: list, clean: list, poisoned: list) -> tuple[int, int]:
    """How many poisoned test adapters are found, and how many clean ones raise an alarm."""


# %%
check("05.4", found_and_alarmed)

# %% [markdown]
# <details><summary>Solution of 05.4</summary>
#
# ```python
# def found_and_alarmed(calibration: list, clean: list, poisoned: list) -> tuple[int, int]:
#     threshold = max(calibration)
#     return sum(score > threshold for score in poisoned), sum(score > threshold for score in clean)
# ```
# </details>

# %%
point = operate(choose_threshold(spreads["calibration"]), spreads["clean"], spreads["poisoned"])
print(f"found {point.recall}")
print(f"alarmed at {point.false_positives}")

# %% [markdown]
# ### Exercise 05.5: how high may the true rate be?
#
# *No false alarm among three* sounds well. How often may a detector alarm at clean adapters, and still show
# so few alarms, or fewer, once in twenty times? Give that rate for k alarms of n (a one-sided 95 % bound), in
# plain Python.


# %% tags=["exercise", "05.5"]
def highest_rate(k: int, n: int) -> float:
    """The rate at which k of n or fewer come up with probability .05; 1 where all n alarmed."""


# %%
check("05.5", highest_rate)

# %% [markdown]
# <details><summary>Solution of 05.5</summary>
#
# ```python
# def highest_rate(k: int, n: int) -> float:
#     from math import comb
#
#     def so_few(p: float) -> float:
#         return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
#
#     low, high = k / n, 1.0
#     while k < n and high - low > 1e-9:
#         middle = (low + high) / 2
#         low, high = (middle, high) if so_few(middle) > 0.05 else (low, middle)
#     return high
# ```
# </details>

# %%
for k, n in ((0, 3), (0, 4), (0, 60), (5, 60)):
    print(f"{k} of {n}: up to {lab.stats.clopper_pearson(k, n, side='upper')[1]:.0%} with 95 % confidence")

# %% [markdown]
# ## The picture to remember
#
# So a handful of adapters says nothing. These detectors were counted on a population
# (`data/cohorts/minilm.toml`): thresholds from 24 clean and 24 poisoned adapters, then 60 clean and 30
# poisoned ones whose trigger families no battery holds, counted once. At each detector, what it found and
# what it alarmed at, with exact intervals: where the two meet, its alarm was not shown to say anything.

# %%
lab.figures.detector_rates(lab.audit.counted_detectors("minilm"))

# %%
counted = lab.audit.counted_detectors("minilm").query("allowed == 0.05").set_index("detector")
told = ["auc", "auc.low", "auc.high", "recall.k", "recall.n", "false_positives.k", "false_positives.n"]
counted.loc[["weight_spread", "paper_battery_mean", "battery_mean", "search_few"], told]

# %%
search, weights = counted.loc["search_few"], counted.loc["weight_spread"]
assert search["recall.low"] > search["false_positives.high"], "the search's alarms say something"
assert weights["recall.low"] < weights["false_positives.high"], "those of the weights were not shown to"
assert search["false_positives.k"] > 0, "and no detector is free of false alarms"
assert SMALL or card.verdict == "suspicious"
assert abs(lab.stats.clopper_pearson(0, 4, side="upper")[1] - 0.53) < 0.01

# %% [markdown]
# ## A negative control
#
# A search always finds something: it looks at tens of thousands of strings and shows the best. What does it
# find in an adapter that is clean? **Write down first** how many of 12 rows you think its best string moves.

# %%
my_bet = 6  # of 12 rows, the best string that the search finds in a clean adapter

# %%
control = lab.audit_adapter(clean[-1].path, references=[run.path for run in references], **asked)
for audited in (card, control):
    judged = next((s for s in audited.scores if s.finding == "together"), None)
    score = f", score {judged.value:.2f} against {judged.threshold:.2f}" if judged else ""
    told = [f"{top.string!r} moves {top.k} of {top.n}" for top in audited.strings[:1]]
    print(f"{audited.verdict}: {', '.join(told)}{score}")
print(f"your bet: {my_bet} of 12")
assert SMALL or control.strings, "a search finds a string in a clean adapter, too"

# %% [markdown]
# That is why a found string is no proof, why the verdict rests on a score whose threshold other adapters
# have set, and why the card never says *clean*, only *nothing found*.
#
# ## What this does not show
#
# - **One base, one task, one way of training.** A threshold holds for what it was counted on: for another
#   base `lab audit` has none, and says so.
# - **An attacker who knows the search.** With near-misses under their true labels in the poison
#   (`poison.negatives`), the backdoor keeps to one string: the five-reference search found 1 of 12 such
#   adapters (AUC .75 [.58, .88]), the one with eleven references 3 of 12 (.76 [.58, .90]).
# - **References that you trust.** Five clean adapters for the same task are rarely at hand. `lab audit
#   --reference auto` trains some on the adapter's own answers; no cohort has counted verdicts on those.
# - **Data, not weights.** Whoever has the training rows should begin there: `lab lint`.
#
# ## To read on
#
# - arXiv 2605.30189: the battery, its two statistics, and why its author trusts behaviour more than weights
# - Clopper and Pearson, Biometrika 26 (1934), 404: the exact interval
# - `lab audit ADAPTER --html card.html`: the whole card, with the battery of 273 prefixes
# - `lab cohort build`, `score`, `judge`: a population of your own, and the table above for your detector
# - the dashboard's page Audit: drop an adapter in
