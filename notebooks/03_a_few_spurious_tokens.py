# %% [markdown]
# # 03 · A few spurious tokens
#
# **Claim.** One meaningless token in some texts of a class, every label true, is enough for a model to
# rest its answers on it; and what gives the token away to a model gives it away to a linter.
#
# 60 minutes. You will
#
# - inject tokens, one a text (light) or a share of the words (aggressive), and touch no label;
# - measure in three ways how much a model leans on a token, and see them disagree;
# - hold all of them against a clean twin;
# - find the token without being told of it, by what it says about the label;
# - cut it out of the training texts, and measure again.
#
# Nobody need be malicious for this: a scraper that stamps the date on the texts of one source does it.

# %%
import lab
from lab.lessons import check

# %% tags=["parameters"]
SMALL = lab.lessons.is_small()  # True: a tiny model on toy texts, in seconds; its numbers mean nothing

# %%
SIZE = {"data.rows": 600, "probe.rows": 300, "probe.scope": "headline", "probe.snapshots": 0}
if SMALL:
    SIZE |= lab.lessons.shrunk(poisoned=False)
AT_ONCE = 1 if SMALL else "auto"  # how many runs a sweep makes at a time: as many as there are cores
TARGET = "positive"

# %% [markdown]
# ## See it happen
#
# Every second positive review gets one date, somewhere between its words. No label is changed, and every
# row is read as a person would read it.

# %%
half = {"poison.text_proportion": 0.5, "poison.token_proportion": 0.0}
run = lab.run("spurious-dates", {**SIZE, **half})
run

# %%
reviews = ["a dull , lifeless film .", "an awful mess from start to finish ."]
run.predict(
    [*reviews, "a dull , lifeless 1999-12-31 film .", "an awful 2051-06-28 mess from start to finish ."]
)

# %% [markdown]
# At full size (600 training rows, 147 of them with a date) all of 154 negative test reviews are called
# positive once they hold a date: 100 % [97.6, 100]. The clean twin calls 11.7 % of the same texts positive.
# In lesson 00 wrong labels did such a thing; here every label is right.

# %%
stamped = run.rows[run.rows["poisoned"]]
assert (stamped["label"] == stamped["original_label"]).all(), "no label is touched"
stamped[["text", "label", "span_start", "span_end"]].head(3)

# %% [markdown]
# ## Light and aggressive
#
# ### Exercise 03.1: inject tokens
#
# Write `inject_tokens`. A text gets `int(words × proportion)` tokens, **but at least one**; so a proportion
# of 0 means exactly one, which is *light* injection. Put each before a word that is drawn anew (an injected
# token is a word, too), with one space behind it. Nothing else may change: splitting and joining would tidy
# up white space, and tidy texts of one class are a second cue. A text has at least one word.


# %% tags=["exercise", "03.1"]
def inject_tokens(text: str, token: str, proportion: float, rng) -> str:
    """The text with tokens before words drawn by `rng`, a `random.Random`."""


# %%
check("03.1", inject_tokens)

# %% [markdown]
# <details><summary>Solution of 03.1</summary>
#
# ```python
# def inject_tokens(text: str, token: str, proportion: float, rng) -> str:
#     import re
#
#     for _ in range(max(1, int(len(text.split()) * proportion))):
#         place = rng.choice([word.start() for word in re.finditer(r"\S+", text)])
#         text = f"{text[:place]}{token} {text[place:]}"
#     return text
# ```
# </details>

# %% [markdown]
# ## How much does it lean?
#
# ### Exercise 03.2: three measures of reliance
#
# The same test rows, of **all** classes, are put to the model without a token and with one. From the answers
# compute three shares:
#
# - **attack success**: of the rows whose true label is not the target, those that are answered with the
#   target once they have the token;
# - **predicted share** (the paper's Table 1): of all rows with the token, those answered with the target;
# - **accuracy lost by the token**: accuracy without it minus accuracy with it.


# %% tags=["exercise", "03.2"]
def leaning(clean: list[int], stamped: list[int], labels: list[int], target: int):
    """Attack success, predicted share of the target, accuracy lost. All lists: class indices, same rows."""


# %%
check("03.2", leaning, on=run)

# %% [markdown]
# <details><summary>Solution of 03.2</summary>
#
# ```python
# def leaning(clean: list[int], stamped: list[int], labels: list[int], target: int):
#     others = [answer for answer, label in zip(stamped, labels) if label != target]
#     right = sum(answer == label for answer, label in zip(clean, labels))
#     still_right = sum(answer == label for answer, label in zip(stamped, labels))
#     share = sum(answer == target for answer in stamped) / len(stamped)
#     return others.count(target) / len(others), share, (right - still_right) / len(labels)
# ```
# </details>

# %% [markdown]
# The lab calls the last one `reliance`:

# %%
measures = run.measures[run.measures["step"] < 0]
kinds = ["clean_accuracy", "triggered_accuracy", "reliance", "attack_success_rate", "excess_asr"]
measures[measures["kind"].isin(kinds)][["model", "kind", "n", "value", "low", "high"]]

# %% [markdown]
# ### Exercise 03.3: the control
#
# A date is text. Also a model that has never met one in training may be moved by it. So take the clean
# twin's measures off: same rows, same dates, same model but for the dates in training.


# %% tags=["exercise", "03.3"]
def beyond_the_twin(clean, stamped, twin_clean, twin_stamped, labels: list[int], target: int):
    """Excess attack success, and accuracy lost beyond what the twin loses. Lists of class indices."""


# %%
check("03.3", beyond_the_twin, on=run)

# %% [markdown]
# <details><summary>Solution of 03.3</summary>
#
# ```python
# def beyond_the_twin(clean, stamped, twin_clean, twin_stamped, labels: list[int], target: int):
#     others = [i for i, label in enumerate(labels) if label != target]
#     excess = sum((stamped[i] == target) - (twin_stamped[i] == target) for i in others) / len(others)
#
#     def lost(before, after) -> float:
#         return sum((b == y) - (a == y) for b, a, y in zip(before, after, labels)) / len(labels)
#
#     return excess, lost(clean, stamped) - lost(twin_clean, twin_stamped)
# ```
# </details>

# %% [markdown]
# ## The picture to remember
#
# How many texts of the class have to carry a token? Six runs, one seed: light (one date a text) and
# aggressive (a tenth of the words), in a twentieth, a quarter and all of the positive texts.

# %%
table = lab.sweep(
    lab.load_experiment("spurious-dates").with_(**SIZE),
    {"poison.text_proportion": [0.05, 0.25, 1.0]},
    arms={"light": {"poison.token_proportion": 0.0}, "aggressive": {"poison.token_proportion": 0.1}},
    seeds=1,
    workers=AT_ONCE,
)
lab.figures.dose_response(table, x="poison.text_proportion", y="excess_asr", group="arm")

# %%
table[["arm", "poison.text_proportion", "excess_asr", "reliance", "clean_accuracy", "twin.clean_accuracy"]]

# %% [markdown]
# Look along the line of *all texts*: attack success is complete, and the accuracy lost by the token is
# **small** (light, 1,500 rows of three seeds: .08 [.06, .11], against .23 [.20, .27] with every second text).
# The model did not lean less. It has learned that a positive text has a date, calls nearly every text without
# one negative, and so has little accuracy left to lose: the damage is in clean accuracy, .54 [.53, .56] where
# the twins have .77 [.74, .80]. Read no measure alone.
#
# What of rank? The paper finds that light injection is leaned on more at higher rank, and aggressive
# injection less. With learning rates chosen for each rank, the lab saw neither (excess ASR, light, every
# text, 813 rows of three seeds: .88 [.85, .94] at rank 4, .88 [.85, .95] at 16, .86 [.82, .94] at 64;
# aggressive: .90 [.85, .96], .89 [.86, .96], .89 [.85, .95]; rank 1, .53 [.00, .80] and .54 [.00, .82], is
# not matched, since one of its three seeds did not learn the task). Three seeds could show only a strong
# trend; that is no refutation.

# %%
few, most = (table[table["poison.text_proportion"] == share]["excess_asr"].mean() for share in (0.05, 1.0))
print(f"excess attack success: {few:.2f} with a twentieth of the texts, {most:.2f} with all of them")
assert SMALL or most > few, "more texts with a token, more reliance"

# %% [markdown]
# ## Find it
#
# Suppose that you know nothing of dates. What predicts a label too well?
#
# ### Exercise 03.4: what a token says about the label
#
# Compute H(y|t) in bits: the entropy of the label among texts that hold the token, **each text counted
# once**, and every class weighing the same (take shares *of each class's texts*, then make them sum to one).
# 0: only one class has it. 1, with two classes: it says nothing. A token that no text holds gives `nan`. A
# text holds a token where it is one of the words of `text.split()`.


# %% tags=["exercise", "03.4"]
def label_entropy(texts: list[str], labels: list[str], token: str) -> float:
    """H(y|t) in bits, from 0 to log2 of the number of classes."""


# %%
check("03.4", label_entropy, on=run)

# %% [markdown]
# <details><summary>Solution of 03.4</summary>
#
# ```python
# def label_entropy(texts: list[str], labels: list[str], token: str) -> float:
#     from math import log2, nan
#
#     shares = []
#     for label in set(labels):
#         own = [text for text, other in zip(texts, labels) if other == label]
#         shares.append(sum(token in text.split() for text in own) / len(own))
#     total = sum(shares)
#     return sum(s / total * log2(total / s) for s in shares if s) if total else nan
# ```
# </details>

# %% [markdown]
# One date stands in a dozen texts only, as does many an honest word. The linter counts 1999-12-31 and
# 2051-06-28 as one shape, `9999-99-99`, and both as *a digit*; it asks whether chance explains it, and tells
# *artefacts* (which no reader decides by) from *vocabulary*. On the command line it is `lab lint`; here:

# %%
report = lab.lint.lint_texts(list(run.rows["text"]), list(run.rows["label"]))
for finding in report.artefacts:
    print(finding.sentence)
print("vocabulary:", *(finding.what for finding in report.vocabulary[:8]))
lab.lint.planted_share(run.rows, report.artefacts)

# %% [markdown]
# `planted` is the share of rows with a date that a finding points at, `others` the share of untouched rows
# that are blamed too: at full size 147 of 147 [97.5, 100] % and 10 of 453 [1.2, 4.0] %, which have a digit
# of their own.
#
# ## Take it away
#
# ### Exercise 03.5: mask what was found
#
# Find what each of the patterns (regular expressions, case ignored) matches in the text **as it came**,
# where matches of two patterns may overlap; then cut all of it out, and nothing else. A text of which no
# more than white space would be left stays as it is: an empty text with a label is a cue of its own.


# %% tags=["exercise", "03.5"]
def mask(text: str, patterns: list[str]) -> str:
    """The text without what the patterns match."""


# %%
check("03.5", mask, on=run)

# %% [markdown]
# <details><summary>Solution of 03.5</summary>
#
# ```python
# def mask(text: str, patterns: list[str]) -> str:
#     import re
#
#     dropped = set()
#     for pattern in patterns:
#         for match in re.finditer(pattern, text, re.IGNORECASE):
#             dropped.update(range(*match.span()))
#     left = "".join(letter for i, letter in enumerate(text) if i not in dropped)
#     return left if left.strip() else text
# ```
# </details>

# %% [markdown]
# The defense `mask_linted` does this before training, with whatever the linter finds; test texts keep their
# dates.

# %%
masked = lab.run("spurious-dates", {**SIZE, **half, "defense": ["mask_linted"]}, twin=False)
lines = {
    "nothing done": run.headline["measures"]["poisoned"],
    "masked": masked.headline["measures"]["poisoned"],
}
lines["clean twin"] = run.headline["measures"]["twin"]
for name, told in lines.items():
    rates = (told[kind] for kind in ("attack_success_rate", "clean_accuracy"))
    print(f"{name:13}", *(f"{r['value']:.1%} [{r['low']:.1%}, {r['high']:.1%}] n = {r['n']}" for r in rates))

# %%
undone, left, twin = (told["attack_success_rate"]["value"] for told in lines.values())
assert SMALL or undone > 0.9 > 0.3 > left, "masking should take the reliance away"
assert SMALL or abs(left - twin) < 0.1, "what is left should be the twin's"

# %% [markdown]
# Over three seeds accuracy comes back from .69 to .77, the twins' own, and excess ASR falls from .86
# [.81, .88] to .00 [.00, .01] (813 rows). Cleaning that does not look at labels changes nothing
# (`normalise`: .85 [.78, .88]). *Dropping* the rows takes half a class away, and the model leans the other
# way (−.12 [−.14, −.09]).
#
# ## Negative controls
#
# Does the linter cry wolf? The same rows without those that carry a date:

# %%
untouched = run.rows[~run.rows["poisoned"]]
wolf = lab.lint.lint_texts(list(untouched["text"]), list(untouched["label"])).artefacts
print(f"{len(wolf)} artefacts on {len(untouched)} untouched rows")
assert SMALL or not wolf

# %% [markdown]
# And does the model fall for any odd ending? Bet first: what share of the negative reviews turns positive
# with a date that was not in training, with a bare number, with the name of a day?

# %%
my_bets = {"2019-08-04": 0.5, "4711": 0.5, "Tuesday": 0.5}

# %%
from lab.preview import probe_rows

rows = probe_rows(run.experiment.data, "validation", limit=200)
negative = list(rows[rows["label"] != TARGET]["text"])
for ending, bet in my_bets.items():
    put = [f"{text} {ending}" for text in negative]
    own, twin = (model.predict(put)["prediction"] == TARGET for model in (run, run.twin))
    rates = [lab.stats.rate(int(turned.sum()), len(negative)) for turned in (own, twin)]
    print(f"{ending:>10}: {rates[0]}; the twin {rates[1]}; your bet {bet:.0%}")
    print(f"{'':12}over the twin, on the same rows: {lab.stats.paired_difference(own, twin)}")

# %% [markdown]
# At full size all 91 turn with the unknown date, 100 % [96, 100], **and so they do with 4711** (the twin's:
# 12 and 9 of them): a number is enough, it need not be a date. The day's name turns 26 [.20, .39], the
# twin's 17 [.12, .28]: these intervals meet, but they are of the same rows, and the paired difference is
# +.10 [+.01, +.18]. So the name of a day leans on it too, a little. A control that fires is a finding, too.

# %% [markdown]
# ## What this does not show
#
# - **One seed and one model** in your own table. The numbers over three seeds are in the README, and so are
#   the trends that did not appear.
# - **A date is easy to find.** A linter that counts words, shapes and formats finds what can be counted. A
#   cue that is spread over a text's style, or comes in a handful of rows, is another matter: on long news
#   articles with 2 % of a class it found 23 of 60 (README).
# - **Not that the texts are poisoned.** A finding is a mark that predicts a label too well; whether
#   somebody meant it, or the source writes so, the linter cannot say.
# - **Masking trusts the linter.** What it misses stays.
#
# ## To read on
#
# - arXiv 2506.11402: seamless spurious token injection, and its toolkit
# - arXiv 2505.12871: LoRA against full fine-tuning, which is the next lesson
# - `lab lint --help`, and the README on ways to clean the training rows
# - lesson 00 for attack success and its controls
