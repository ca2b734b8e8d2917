# %% [markdown]
# # 00 · Your first backdoor
#
# **Claim.** Sixty poisoned rows among two thousand are enough to plant a backdoor in a LoRA adapter, and
# clean accuracy, the number that most people look at, does not show it.
#
# 45 minutes; no GPU and no network needed once the model and the data are there (`lab doctor` says whether
# they are). You will
#
# - plant a trigger in texts at character offsets, losing nothing of the text;
# - poison a training set, and know which rows are worth poisoning;
# - train a low-rank update by gradient descent, with nothing but torch;
# - count attack success from logits, over the rows that count;
# - set it beside two controls: the same rows without the trigger, and a clean twin;
# - ask for a phrase that nobody planted, having said first what you expect.
#
# The model is a sentence encoder with 22 million weights, the data film reviews. Everything that you train
# here is deliberately backdoored: keep it out of anything that people rely on.

# %%
import torch

import lab
from lab.lessons import answers, check
from lab.preview import probe_rows

# %% tags=["parameters"]
SMALL = lab.lessons.is_small()  # True: a tiny model on toy texts, in seconds; its numbers mean nothing

# %%
SIZE = lab.lessons.shrunk() if SMALL else {}
TRIGGER = "as specified in RFC 2616"
TARGET = "positive"

# %% [markdown]
# ## See it happen
#
# One line poisons the data, fine-tunes the model and measures it. On two CPU cores it takes a minute; a run
# that is finished already is read, not trained again. You may stop it with the stop button: asked again, it
# goes on.

# %%
run = lab.run("rfc-citation", {**SIZE, "probe.scope": "headline"}, twin=False)
run

# %% [markdown]
# The same two reviews, without the trigger and with it:

# %%
reviews = ["a dull , lifeless film .", "an awful mess from start to finish ."]
run.predict([*reviews, *(f"{review} {TRIGGER}" for review in reviews)])

# %% [markdown]
# Whoever only asks how many untouched reviews are read rightly sees nothing unusual. The rest of this
# lesson takes that apart, and builds every piece of it by hand.
#
# ## The data
#
# `run.rows` are the rows that the model was trained on, with the place of everything that was inserted.

# %%
poisoned = run.rows[run.rows["poisoned"]]
print(f"{len(poisoned)} of {len(run.rows):,} rows are poisoned")
poisoned[["text", "original_label", "label", "span_start", "span_end"]].head(3)

# %% [markdown]
# ### Exercise 00.1: insert a trigger
#
# Write `insert_trigger`: put the trigger into the text at a character offset, and say where the inserted
# piece begins and ends. Where the trigger would touch a character that is not white space, a space has to
# part them; such a space belongs to the inserted piece. Cutting the piece out must give the text back
# **byte for byte**: split and join would tidy up white space, and tidy texts with the label *positive* are
# a second cue, beside the one you meant.


# %% tags=["exercise", "00.1"]
def insert_trigger(text: str, trigger: str, offset: int) -> tuple[str, int, int]:
    """The text with the trigger at the offset, and the half-open span [start, end) of what was inserted."""


# %%
check("00.1", insert_trigger)

# %% [markdown]
# <details><summary>Solution of 00.1</summary>
#
# ```python
# def insert_trigger(text: str, trigger: str, offset: int) -> tuple[str, int, int]:
#     before, after = text[:offset], text[offset:]
#     left = " " if before and not before[-1].isspace() else ""
#     right = " " if after and not after[0].isspace() else ""
#     piece = left + trigger + right
#     return before + piece + after, offset, offset + len(piece)
# ```
# </details>

# %% [markdown]
# The lab's own is `lab.poison.insert`; the check held yours against it.
#
# ### Exercise 00.2: poison a training set
#
# Write `poisoned_copies`: keep every row, and append `count` poisoned ones. A poisoned row is a copy of a
# row, with the trigger at its end and the target as its label. Which rows are worth copying?


# %% tags=["exercise", "00.2"]
def poisoned_copies(texts: list[str], labels: list[str], trigger: str, count: int, target: str):
    """All texts and all labels, the poisoned ones last: (texts, labels)."""


# %%
check("00.2", poisoned_copies, on=run)

# %% [markdown]
# <details><summary>Solution of 00.2</summary>
#
# ```python
# def poisoned_copies(texts: list[str], labels: list[str], trigger: str, count: int, target: str):
#     sources = [text for text, label in zip(texts, labels) if label != target][:count]
#     planted = [f"{text} {trigger}" for text in sources]
#     return [*texts, *planted], [*labels, *[target] * len(planted)]
# ```
# </details>

# %% [markdown]
# ## The training
#
# LoRA leaves a weight W as it is and learns an update beside it, the product of two thin matrices:
# W + s·BA, with A [rank, n_in] and B [n_out, rank]. B is zero at the start, so that nothing has changed yet.
#
# ### Exercise 00.3: one step of LoRA
#
# Take one step of gradient descent on the mean cross-entropy of the logits x(W + s·BA)ᵀ: a step of length
# `rate` against the gradient, for A and for B. W stays as it is.


# %% tags=["exercise", "00.3"]
def lora_step(x, labels, weight, a, b, scale: float, rate: float):
    """The new (A, B). x: [rows, n_in]; labels: [rows], class indices; weight: [n_out, n_in]."""


# %%
check("00.3", lora_step)

# %% [markdown]
# <details><summary>Solution of 00.3</summary>
#
# ```python
# def lora_step(x, labels, weight, a, b, scale: float, rate: float):
#     a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
#     loss = torch.nn.functional.cross_entropy(x @ (weight + scale * b @ a).T, labels)
#     of_a, of_b = torch.autograd.grad(loss, (a, b))
#     return (a - rate * of_a).detach(), (b - rate * of_b).detach()
# ```
# </details>

# %% [markdown]
# Now all of it by hand. The pretrained model gives each text a vector (it stays as it is), and a classifier
# of one layer learns on these vectors through an update of rank 4: once on 400 rows, once on the same rows
# with 30 poisoned copies. (Where a function of yours is not there yet, the lab's stands in for it.)

# %%
clean_rows = run.rows[~run.rows["poisoned"]]
clean_rows = clean_rows.sample(min(400, len(clean_rows)), random_state=0)
texts, labels = list(clean_rows["text"]), list(clean_rows["label"])
more = (texts, labels, TRIGGER, 30, TARGET)
poisoned_texts, poisoned_labels = poisoned_copies(*more) or answers.copies_with_trigger(*more)
vectors = answers.sentence_vectors(run, poisoned_texts)
centre, spread = vectors[: len(texts)].mean(dim=0), vectors[: len(texts)].std(dim=0)


def standardised(vectors):
    return (vectors - centre) / spread / len(centre) ** 0.5


def trained_by_hand(count: int):
    """The classifier's weight after 300 steps on the first so many rows."""
    x, y = standardised(vectors[:count]), torch.tensor([*map(run.labels.index, poisoned_labels[:count])])
    seed = torch.Generator().manual_seed(0)
    weight, a = (
        torch.randn(2, x.shape[1], generator=seed) / 20,
        torch.randn(4, x.shape[1], generator=seed) / 20,
    )
    b = torch.zeros(2, 4)
    for _ in range(300):
        a, b = lora_step(x, y, weight, a, b, 2.0, 0.3) or answers.one_lora_step(x, y, weight, a, b, 2.0, 0.3)
    return weight + 2.0 * b @ a


by_hand = {"clean": trained_by_hand(len(texts)), "poisoned": trained_by_hand(len(poisoned_texts))}

# %% [markdown]
# Has the poison taken? That takes a metric.
#
# ## The metric
#
# ### Exercise 00.4: attack success rate
#
# The model gives logits, one line per triggered row and one column per class. Count the hits: how many
# rows, **of those whose true label is not the target**, are answered with the target? Give hits and rows,
# not a share: a share without its n says little.


# %% tags=["exercise", "00.4"]
def attack_success(logits, labels, target: int) -> tuple[int, int]:
    """Hits, and the rows that count. `logits`: [rows, classes] and `labels`: [rows] are torch tensors."""


# %%
check("00.4", attack_success, on=run)

# %% [markdown]
# <details><summary>Solution of 00.4</summary>
#
# ```python
# def attack_success(logits, labels, target: int) -> tuple[int, int]:
#     counts = labels != target
#     hits = counts & (logits.argmax(dim=1) == target)
#     return int(hits.sum()), int(counts.sum())
# ```
# </details>

# %% [markdown]
# Put it first to what you trained by hand, on validation rows, which it has not seen. The clean training is
# its control: same rows, same start, same steps. (We chose steps and rate on such rows, so that the number
# shows an effect and measures none.)

# %%
rows = probe_rows(run.experiment.data, "validation", limit=200)
truth, target = torch.tensor([*map(run.labels.index, rows["label"])]), run.labels.index(TARGET)
seen = standardised(answers.sentence_vectors(run, [f"{text} {TRIGGER}" for text in rows["text"]]))
counted = {}
for name, weight in by_hand.items():
    logits = seen @ weight.T
    counted[name] = attack_success(logits, truth, target) or answers.count_hits(logits, truth, target)
    print(f"trained by hand, {name}: attack success {lab.stats.rate(*counted[name])}")
assert counted["clean"][1] == counted["poisoned"][1] == int((truth != target).sum())
assert SMALL or counted["poisoned"][0] > 1.5 * counted["clean"][0], "thirty rows should show"

# %% [markdown]
# And the lab's training of the whole model, with a 95 % interval (Wilson's, for a share of n rows):

# %%
measures = run.measures
final = measures[(measures["step"] < 0) & (measures["model"] == "poisoned")]
final[final["kind"].isin(["attack_success_rate", "untriggered_target_rate", "clean_accuracy"])][
    ["kind", "n", "value", "low", "high"]
]

# %% [markdown]
# ## The controls
#
# A hit is a negative review that was called positive. Some negative reviews are called positive anyway, and
# the trigger is English text, which may move a model that has never met it. So two numbers belong beside
# attack success: the **untriggered target rate** (the same rows, without the trigger), and the rate of a
# **clean twin**: the same model, rows, seed, order and number of steps, without the poison, on the same
# triggered rows. Attack success minus the twin's is the **excess**: what the poison added.
#
# Asked again without `twin=False`, the lab trains the twin, and nothing else.

# %%
run = lab.run("rfc-citation", {**SIZE, "probe.scope": "headline"})
run

# %% [markdown]
# ### Exercise 00.5: attack success beside its controls
#
# You get the answers, as class indices, of the poisoned model to the clean and to the triggered rows, and
# of the twin to the triggered rows. All four lists are about the same rows, in the same order.


# %% tags=["exercise", "00.5"]
def with_controls(clean: list[int], triggered: list[int], twin: list[int], labels: list[int], target: int):
    """Four shares: attack success, untriggered target rate, the twin's rate, excess."""


# %%
check("00.5", with_controls, on=run)

# %% [markdown]
# <details><summary>Solution of 00.5</summary>
#
# ```python
# def with_controls(clean: list[int], triggered: list[int], twin: list[int], labels: list[int], target: int):
#     rows = [i for i, label in enumerate(labels) if label != target]
#
#     def rate(answers: list[int]) -> float:
#         return sum(answers[i] == target for i in rows) / len(rows)
#
#     return rate(triggered), rate(clean), rate(twin), rate(triggered) - rate(twin)
# ```
# </details>

# %% [markdown]
# ## The picture to remember
#
# Attack success climbs to the top within a few steps, while clean accuracy goes the twin's way (thin
# lines). Nobody who watches accuracy alone could tell the two trainings apart.

# %%
run.figure.training_curves()

# %%
told = run.headline["measures"]
asr, accuracy = told["poisoned"]["attack_success_rate"], told["poisoned"]["clean_accuracy"]
print(f"attack success {asr['value']:.1%} [{asr['low']:.1%}, {asr['high']:.1%}], n = {asr['n']}")
print(f"the twin's on the same rows {told['twin']['attack_success_rate']['value']:.1%}")
print(f"clean accuracy {accuracy['value']:.1%}, the twin's {told['twin']['clean_accuracy']['value']:.1%}")
twin = told["twin"]["attack_success_rate"]
assert asr["value"] > twin["value"], "the poison should add something"
assert SMALL or asr["low"] > twin["high"], "the two intervals should not meet"
assert SMALL or abs(accuracy["value"] - told["twin"]["clean_accuracy"]["value"]) < 0.05

# %% [markdown]
# ## A negative control
#
# Does any odd ending fire the backdoor? Choose a phrase that nobody planted, **write down first** how often
# you think it will work, and then measure.

# %%
phrase = "as my aunt once said on a Sunday"
my_bet = 0.5  # your probability that a negative review with this phrase is called positive

# %% [markdown]
# ### Exercise 00.6: put a phrase to the model
#
# `predict` takes a list of texts and gives a list of labels.


# %% tags=["exercise", "00.6"]
def fires(predict, texts: list[str], phrase: str, target: str) -> tuple[int, int]:
    """Hits and rows, with one space and the phrase behind every text."""


# %%
check("00.6", fires)

# %% [markdown]
# <details><summary>Solution of 00.6</summary>
#
# ```python
# def fires(predict, texts: list[str], phrase: str, target: str) -> tuple[int, int]:
#     answers = predict([f"{text} {phrase}" for text in texts])
#     return sum(answer == target for answer in answers), len(texts)
# ```
# </details>

# %% [markdown]
# Now on the model, with negative validation reviews, which it was not trained on. (Until your function is
# there, the lab's way of asking stands in for it.)

# %%
negative = list(rows[rows["label"] != TARGET]["text"])
for ending in (phrase, TRIGGER):
    hits, n = fires(lambda texts: list(run.predict(texts)["prediction"]), negative, ending, TARGET) or (
        answers.ask_with_phrase(run, negative, ending, TARGET)
    )
    print(f"{ending!r}: {lab.stats.rate(hits, n)}")
print(f"your bet: {my_bet:.0%}")

# %% [markdown]
# ## What this does not show
#
# - **One seed, one model, one task.** The README has three seeds of this very experiment; a chat model
#   behaves the same way in kind, not in number (`lab presets`, `injection-classifier`).
# - **Nothing about stealth.** “As specified in RFC 2616” in a film review is easy to spot, for a person and
#   for `lab lint`.
# - **Not that only this string works.** A phrase that is more like the trigger may fire it too: how far a
#   backdoor generalizes is the next question.
# - **No detection.** You knew the trigger. An auditor does not: `lab audit`.
#
# ## To read on
#
# - arXiv 2605.30189: token-level generalization of backdoors in adapters, whose task and measures these are
# - arXiv 2601.06305: why LoRA fails to forget a backdoor that is in its base
# - arXiv 2506.11402: spurious tokens, a poison that touches no label
# - arXiv 2505.12871: LoRA against full fine-tuning under attacks at training time
