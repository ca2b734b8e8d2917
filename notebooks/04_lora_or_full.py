# %% [markdown]
# # 04 · LoRA or full fine-tuning
#
# **Claim.** No attack rate tells a robust rank from one that has learned little. Match clean accuracy, and
# look at the same rows without the trigger, before you speak of rank.
#
# 60 minutes. You will
#
# - give a share of the rows wrong labels, and count what that costs;
# - compute the kernels by which theory compares LoRA and full fine-tuning, in two lines of torch;
# - draw the paper's picture, attack against rank, and see what is wrong with it;
# - say which points may be compared at all.
#
# The paper (arXiv 2505.12871): LoRA is *more* robust than full fine-tuning against backdoors, *less* against
# wrong labels; lower ranks more so. Its learning rates differ ten to one, and one rate serves all ranks.

# %%
import pandas as pd

import lab
from lab.lessons import check

# %% tags=["parameters"]
SMALL = lab.lessons.is_small()  # True: a tiny model on toy texts, in seconds; its numbers mean nothing

# %%
SIZE = {"data.rows": 600, "probe.rows": 400, "probe.scope": "headline", "probe.snapshots": 0}
if SMALL:
    SIZE |= lab.lessons.shrunk(poisoned=False)
AT_ONCE = 1 if SMALL else "auto"  # how many runs a sweep makes at a time: as many as there are cores
LORA_RATE, FULL_RATE = (0.01, 0.01) if SMALL else (1e-3, 3e-4)  # chosen on validation rows of clean twins
RANKS = [1, 2, 4] if SMALL else [1, 8, 64]
ONE_RATE, HIGHER_RATE = (0.003, 0.01) if SMALL else (1e-3, 3e-3)

# %% [markdown]
# ## See it happen
#
# Three labels in ten are wrong, and there is no trigger at all. LoRA:

# %%
flips = {**SIZE, "poison.rate": 0.3, "adapter.alpha": 16}
lora = lab.run("label-flip", {**flips, "adapter.kind": "lora", "training.learning_rate": LORA_RATE})
lora

# %% [markdown]
# and full fine-tuning, which changes every weight:

# %%
full = lab.run("label-flip", {**flips, "adapter.kind": "full", "training.learning_rate": FULL_RATE})
full

# %% [markdown]
# ## Wrong labels
#
# ### Exercise 04.1: flip labels
#
# Write `flip_labels`: a copy of the labels in which exactly `round(n × rate)` are wrong, at places drawn by
# `rng` (a `random.Random`). A wrong label is any other label that occurs, drawn evenly.


# %% tags=["exercise", "04.1"]
def flip_labels(labels: list[str], rate: float, rng) -> list[str]:
    """The labels, a share of them wrong."""


# %%
check("04.1", flip_labels, on=lora)

# %% [markdown]
# <details><summary>Solution of 04.1</summary>
#
# ```python
# def flip_labels(labels: list[str], rate: float, rng) -> list[str]:
#     names, flipped = sorted(set(labels)), list(labels)
#     for i in rng.sample(range(len(labels)), round(len(labels) * rate)):
#         flipped[i] = rng.choice([name for name in names if name != labels[i]])
#     return flipped
# ```
# </details>

# %% [markdown]
# ### Exercise 04.2: what they cost
#
# Accuracy against the **true** labels, beside the clean twin's on the same rows.


# %% tags=["exercise", "04.2"]
def cost(answers: list[int], twin: list[int], labels: list[int]) -> tuple[float, float, float]:
    """Accuracy, the twin's accuracy, and the accuracy that was lost. Lists of class indices, same rows."""


# %%
check("04.2", cost, on=lora)

# %% [markdown]
# <details><summary>Solution of 04.2</summary>
#
# ```python
# def cost(answers: list[int], twin: list[int], labels: list[int]) -> tuple[float, float, float]:
#     own, other = (sum(a == y for a, y in zip(given, labels)) / len(labels) for given in (answers, twin))
#     return own, other, other - own
# ```
# </details>

# %%
for name, run in {"LoRA": lora, "full": full}.items():
    told = run.headline["measures"]
    rates = [told[model]["clean_accuracy"] for model in ("poisoned", "twin")]
    print(name, *(f"{r['value']:.1%} [{r['low']:.1%}, {r['high']:.1%}] n = {r['n']};" for r in rates))
assert SMALL or lora.headline["measures"]["poisoned"]["clean_accuracy"]["value"] < 0.7

# %% [markdown]
# At full size, with this seed: LoRA 61.8 %, full 62.0 % (400 rows). No difference at all! Over three seeds
# (1,500 rows) LoRA has .54 [.44, .63], full .60 [.54, .64]; paired by seed, full is ahead by .05 [.00, .10].
# That is the paper's direction, on the edge of what three seeds can tell (for 30 % the README says *cannot
# say*, for 40 % *agrees*); **one seed would have told you nothing**: LoRA's lie as far apart as .44 and .63.
#
# ## A negative control
#
# How large a difference do you see where *nothing* was done? Hold the two clean twins against each other:
# no wrong label, no trigger.

# %%
from lab.lessons.lesson_04 import clean_answers

(_, lora_twin, truth), (_, full_twin, _) = clean_answers(lora), clean_answers(full)
right = [[a == y for a, y in zip(answers, truth, strict=True)] for answers in (lora_twin, full_twin)]
nothing_done = lab.stats.paired_difference(*right)
nothing_done

# %% [markdown]
# At full size LoRA's twin is five points *ahead* with this seed (79.0 % against 73.8 %, paired over 400 rows
# 5.2 [1.1, 9.4]), though over three seeds the two are level (.770 and .773). The interval leaves 0 out, and
# there is still nothing to explain: it says what other *rows* would do, and not what another *seed* would.
#
# ## What theory says
#
# For small steps, how far a step on one text moves the answer to another is the **tangent kernel**: the inner
# product of the two gradients. LoRA trains W + s·BA, with B = 0 at its start.
#
# ### Exercise 04.3: two kernels
#
# For one linear layer with one token a text: `x` [texts, n_in] are its inputs, `g` [texts, n_out] the
# gradients of the margin at its output. Compute the kernel of training W itself, and that of training A and B
# where training starts. Both are [texts, texts].


# %% tags=["exercise", "04.3"]
def kernels(x, g, A, scaling: float):
    """Full fine-tuning's kernel and LoRA's, where B = 0. All torch tensors; A is [rank, n_in]."""


# %%
check("04.3", kernels)

# %% [markdown]
# <details><summary>Solution of 04.3</summary>
#
# ```python
# def kernels(x, g, A, scaling: float):
#     seen = scaling * x @ A.T
#     return (x @ x.T) * (g @ g.T), (seen @ seen.T) * (g @ g.T)
# ```
# </details>

# %% [markdown]
# LoRA's kernel sees the inputs through a random projection to `rank` dimensions. The lab computes it for all
# layers, before any training, here with alpha = rank; (rank, variance of A's entries times the width):

# %%
asked = lab.load_experiment("rfc-citation").with_(**SIZE, **{"adapter.alpha": "r"})
cells = [*((rank, 1 / 3) for rank in RANKS), (RANKS[1], 2.0)]
theory = lab.kernel_table(asked, cells, rows=16 if SMALL else 32)
whole = theory[(theory["layer"] == -1) & (theory["kernel"] == "lora")]
kinds = ["trace_ratio", "expected_trace_ratio", "full_cka", "renyi_entropy_2", "shift_largest"]
whole[whole["measure"].isin(kinds)].pivot_table("value", ["rank", "init_variance"], "measure")

# %%
ratio = whole[(whole["measure"] == "trace_ratio") & (whole["init_variance"] < 1)].set_index("rank")["value"]
assert ratio.loc[RANKS[0]] < ratio.loc[RANKS[-1]], "the kernel grows with the rank"

# %% [markdown]
# So at alpha = rank a small rank is a *small* kernel (`trace_ratio`; at a fixed alpha it would be the other
# way round, since s = alpha/r), and at any alpha a crude copy of full fine-tuning's (`full_cka`, 1: the same
# but for scale); more variance is more scale. The paper's condition is that M_Δ = s²AᵀA − I has no eigenvalue
# above 0 (`shift_largest`), so that LoRA's kernel is nowhere above the other: it holds at PEFT's variance of
# 1/3, and not at 2. A small kernel moves all answers slowly: to the trigger, **and to the task**. And Adam
# rescales gradients, so that scale alone decides little. Whether any of this says who is robust was measured
# over ranks and variances: every rank correlation with excess attack success (from −.09 to .71, six cells)
# has an interval that holds 0 (README).
#
# ## Rank, the wrong way
#
# Twelve of 600 rows get `[.*?]` in front and the target as their label. One learning rate for both ranks,
# alpha = rank.
#
# **Bet first.** Which of the ranks 1 and 64 has more of the backdoor?

# %%
backdoor = {
    **SIZE,
    "poison.family": "custom",
    "poison.member": "[.*?]",
    "poison.position": "start",
    "poison.mode": "replace",
    "poison.count": 24 if SMALL else 12,
    "adapter.alpha": "r",
}
start = lab.load_experiment("rfc-citation").with_(**backdoor)
one_rate = start.with_(**{"training.learning_rate": ONE_RATE})
ends = {"adapter.rank": [RANKS[0], RANKS[-1]]}
naive = lab.sweep(one_rate, ends, seeds=1, workers=AT_ONCE).assign(learning_rate="one for both")
naive[["adapter.rank", "alpha/r", "training.learning_rate", "attack_success_rate", "excess_asr"]]

# %% [markdown]
# At full size (211 rows, one seed) excess is .95 [.90, .97] at rank 1 and .66 [.59, .72] at rank 64. So
# rank 1 is wide open? Look at what each has learned of the task, and at the negative rows **without** the
# trigger:

# %%
untriggered = ["untriggered_target_rate", "untriggered_target_rate.n"]
naive[["adapter.rank", "clean_accuracy", "twin.clean_accuracy", "matched", *untriggered]]

# %% [markdown]
# Rank 1 is no backdoor: its poisoned model calls 90 % of the negative rows positive *without* the trigger,
# and its twin next to none, being right in 55 % of 400 rows. Neither has learned the task; one happens to
# say *positive*, the other *negative*, and the excess is the difference of the two. What the **trigger**
# moves is attack success minus the untriggered rate of the same model: .08 and .74.
#
# ### Exercise 04.4: what may be compared
#
# Write `comparable`: of several ways to train, with the clean twins' accuracies over seeds, the names of
# those whose **mean** lies at most `within` below the best mean. What has not learned the task cannot be
# called robust, or weak, for its rank.


# %% tags=["exercise", "04.4"]
def comparable(accuracies: dict[str, list[float]], within: float) -> set[str]:
    """The names that may be compared with the best."""


# %%
check("04.4", comparable, on=naive)

# %% [markdown]
# <details><summary>Solution of 04.4</summary>
#
# ```python
# def comparable(accuracies: dict[str, list[float]], within: float) -> set[str]:
#     means = {name: sum(values) / len(values) for name, values in accuracies.items()}
#     return {name for name, mean in means.items() if mean >= max(means.values()) - within - 1e-9}
# ```
# </details>

# %% [markdown]
# ## The picture to remember
#
# Now rank 1 with a higher rate, which the clean twin's validation rows choose for it (so that no attack has a
# say in it); rank 64 keeps its own.

# %%
higher = start.with_(**{"training.learning_rate": HIGHER_RATE})
low = lab.sweep(higher, {"adapter.rank": RANKS[:1]}, seeds=1)
chosen = pd.concat([low, naive[naive["adapter.rank"] > RANKS[0]]]).assign(learning_rate="chosen for each")
table = pd.concat([naive, chosen], ignore_index=True)
table["moved by the trigger"] = table["attack_success_rate"] - table["untriggered_target_rate"]
lab.figures.dose_response(table, x="adapter.rank", y="moved by the trigger", group="learning_rate")

# %%
table[["learning_rate", "adapter.rank", "twin.clean_accuracy", "excess_asr", "moved by the trigger"]].round(3)

# %%
first, suited = naive.iloc[0], low.iloc[0]
collapse = min(first["excess_asr"], first["untriggered_target_rate"])
assert SMALL or collapse > 0.5, "a large excess, and as many hits without the trigger"
assert SMALL or suited["twin.clean_accuracy"] > first["twin.clean_accuracy"], "it had learned less"

# %% [markdown]
# With the chosen rates the twins match with this seed (.732 both), and the trigger moves .19 and .74 of the
# 211 rows. So at equal clean accuracy rank 1 has less of the backdoor *here*: that is what the paper says,
# and it is what is left once the collapse is taken out.
#
# Over three seeds and more ranks, with rates chosen for each and 500 rows to probe, the trigger moves .20,
# .05 and .03 at rank 1; .63, .82 and .81 at rank 8; .74, .68 and .90 at rank 64; .75, .75 and .91 at 384,
# the full width (266 to 278 rows each). From rank 8 up, rank says next to nothing. The twins of rank 1 are
# right in .75, .76 and .59 of the rows: in two seeds about as often as the others, in the third it did not
# learn. *On average* it is “not matched” (.70 against .76 and more), and the lab says so. “Low rank is
# robust” fits two seeds, “low rank has learned less” the third: two seeds are a reason to train more of
# them, and no result.
#
# ## What this does not show
#
# - **Not that the paper is wrong.** Its finding that LoRA needs more poison appears here too: with 8 poisoned
#   rows of 800, excess .13 [.10, .19] for LoRA, .68 [.58, .75] for full fine-tuning (459 rows, three seeds),
#   though LoRA's twin is two points less accurate, so not matched.
# - **One seed, one model, few rows.** Seeds differ here by more than many effects. Rank 1 at the low rate was
#   trained once, with one seed: it shows that a collapse *can* pass for a backdoor, not how often.
# - **Nothing chosen beforehand.** That the trigger's own effect is the better number was seen after the
#   excess had misled; a fresh comparison would have to say so first.
# - **Theory at its start only.** The kernel is that of small steps of plain gradient descent; `run.kernels()`
#   shows how far it moves in training.
# - **Matching is not everything.** Two models may be equally accurate and have learned different things.
#
# ## To read on
#
# - arXiv 2505.12871: LoRA's robustness against attacks at training time
# - `lab sweep rank-sweep`, `lora-vs-full-labelflip`, `init-variance-sweep`: the full comparisons
# - `lab kernels RUN`, and `lab.compare_with_theory`: theory held against what a sweep measured
# - arXiv 2506.11402 and lesson 03, where rank was asked for as well
