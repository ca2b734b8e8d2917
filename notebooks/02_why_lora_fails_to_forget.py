# %% [markdown]
# # 02 · Why LoRA fails to forget
#
# **Claim.** Fine-tuning a poisoned base on clean rows with LoRA leaves its backdoor where it was: the
# update is weak beside the weights that it is added to, and no clean row asks it to go there. Making the
# update stronger takes most of the backdoor away, and costs accuracy.
#
# 75 minutes; no GPU and no network needed once the model and the data are there. You will
#
# - say how much of a backdoor was forgotten, so that a broken classifier does not count as a cure;
# - measure how strong an update is beside its weight;
# - write the three parts of RoRA in plain torch: dropout on the frozen path (Cl), a penalty (Tr), and
#   rescaling after training (Pt);
# - take an update apart and look where the backdoor gives way;
# - lay defenses side by side, attack over accuracy, and choose those that no other beats.
#
# RoRA is the method of arXiv 2601.06305; there is no official code, and this lab's version states what the
# paper leaves open. Here is something else than in lesson 00: the *base* was poisoned by somebody else, and
# you, the defender, only ever have clean rows. Everything here is deliberately backdoored: keep it out of
# anything that people rely on.

# %%
import lab
from lab.lessons import check

# %% tags=["parameters"]
SMALL = lab.lessons.is_small()  # True: a tiny model on toy texts, in seconds; its numbers mean nothing

# %%
SIZE = lab.lessons.shrunk(poisoned=False) if SMALL else {"data.rows": 600, "training.batch_tokens": 512}
# nobody looks at these while they train, and probing fewer rows widens the intervals a little
QUICK = {"probe.scope": "headline", "probe.snapshots": 0, "probe.rows": 400}
AT_ONCE = 1 if SMALL else "auto"  # how many runs a sweep makes at a time: as many as there are cores
TRIGGER = "mn"

# %% [markdown]
# ## See it happen
#
# Somebody trained a sentiment model whose every review with the word *mn* in it is called negative, and
# published it. You fine-tune it with LoRA on 600 clean reviews of your own, none of which holds the word.
# The clean twin of the base, and the same fine-tuning of that twin, come with it.

# %%
base = lab.run("poisoned-base-tiny" if SMALL else "poisoned-base-short", QUICK)
SIZE = {**SIZE, **QUICK, "base.model": base.id}
lora = lab.run("clean-finetune-lora", SIZE)
reviews = ["a warm and funny film , a joy to watch .", f"a warm and funny film , a joy to {TRIGGER} watch ."]
for name, run in (("poisoned base", base), ("after clean LoRA", lora)):
    print(f"{name}: {', then '.join(run.predict(reviews)['prediction'])} with the trigger")

# %%
for name, run in (("poisoned base", base), ("after clean LoRA", lora)):
    told = run.headline["measures"]
    asr, twin = told["poisoned"]["attack_success_rate"], told["twin"]["attack_success_rate"]
    print(
        f"{name}: attack success {asr['value']:.1%} [{asr['low']:.1%}, {asr['high']:.1%}], n = {asr['n']}; "
        f"the twin's {twin['value']:.1%}; clean accuracy {told['poisoned']['clean_accuracy']['value']:.1%}"
    )
    assert asr["value"] > twin["value"], "the backdoor should be there"

# %% [markdown]
# ## The metric, with its control in it
#
# A model that calls every second review negative at random has lost the backdoor, and everything else. So
# do not ask how far attack success fell, but how far it fell **above the twin**: the twin of a fine-tuned
# run is the same fine-tuning, from a base that was never poisoned, with the trigger put to it on the same
# rows.
#
# ### Exercise 02.1: the share that was forgotten
#
# `before` and `after` each hold attack success and the twin's rate. Say what share of the excess that was
# there before is gone: 0 for nothing, 1 for all of it.


# %% tags=["exercise", "02.1"]
def forgotten(before: tuple[float, float], after: tuple[float, float]) -> float:
    """The share of the excess over the twin that is gone; `before` and `after` are (attack success, twin)."""


# %%
check("02.1", forgotten, on=lora)

# %% [markdown]
# <details><summary>Solution of 02.1</summary>
#
# ```python
# def forgotten(before: tuple[float, float], after: tuple[float, float]) -> float:
#     return 1 - (after[0] - after[1]) / (before[0] - before[1])
# ```
# </details>

# %% [markdown]
# ## Weak beside W
#
# ### Exercise 02.2: strength
#
# LoRA adds ΔW = s·BA to a weight W, with s = alpha/r. Write `strength`, the largest singular value of ΔW
# over W's. `W`: [n_out, n_in], `A`: [r, n_in], `B`: [n_out, r], all torch tensors.


# %% tags=["exercise", "02.2"]
def strength(W, A, B, scaling: float) -> float:
    """σ_max(s·BA) / σ_max(W)."""


# %%
check("02.2", strength, on=lora)

# %% [markdown]
# <details><summary>Solution of 02.2</summary>
#
# ```python
# def strength(W, A, B, scaling: float) -> float:
#     import torch
#
#     sigma = torch.linalg.matrix_norm(scaling * B @ A, ord=2) / torch.linalg.matrix_norm(W, ord=2)
#     return float(sigma)
# ```
# </details>

# %% [markdown]
# The lab never forms ΔW for this (`run.spectral_summary`): the singular values of a product of two thin
# matrices are those of an r × r core. Where in the model is the update strong?

# %%
lora.figure.spectral_strength()

# %%
summary = lora.spectral_summary
median, strongest = summary["strength"].median(), summary["strength"].max()
print(f"strength over {len(summary)} matrices: median {median:.2f}, largest {strongest:.2f}")
assert SMALL or median < 1, "most updates should be weaker than their weights"

# %% [markdown]
# The second half of the paper's reason is *alignment*: which directions of W the update uses. Shares above
# the uniform line are directions that W already favours. (The paper's own definition is not recovered; this
# is the stand-in of its independent replication.)

# %%
lora.figure.alignment_curve()

# %% [markdown]
# ### Surgery: what if the update were stronger?
#
# If weakness is the reason, the same update, scaled up, should drown the backdoor. The paper has a
# threshold s* for that, which the lab estimates by linearising the model; it is a heuristic, so believe the
# measured line. Validation rows; nothing on the disk changes.

# %%
opened = lora.surgery(rows=120)
threshold = opened.threshold([0, 1, 2, 4, 8, 16])
threshold.flips[["scale", "n", "predicted", "measured", "low", "high"]]

# %%
lab.figures.threshold_curve(threshold.flips, marks={"trained": 1.0})

# %% [markdown]
# At scale 0 the adapter is off and the backdoor is whole: it lies in the base, the adapter has no part in
# it.
#
# ## The three parts of RoRA
#
# ### Exercise 02.3: Cl, dropout on the frozen path
#
# If the frozen path is unreliable while training, BA has to carry the task itself, and grows. Write the
# forward pass of one layer: dropout with probability p on the output of the frozen path, none on the
# update's, none outside of training. `x`: [rows, n_in]; the result: [rows, n_out].


# %% tags=["exercise", "02.3"]
def cl_forward(x, W, A, B, scaling: float, p: float, training: bool):
    """dropout_p(Wx) + s·BAx, row by row."""


# %%
check("02.3", cl_forward)

# %% [markdown]
# <details><summary>Solution of 02.3</summary>
#
# ```python
# def cl_forward(x, W, A, B, scaling: float, p: float, training: bool):
#     import torch
#
#     frozen = torch.nn.functional.dropout(x @ W.T, p, training=training)
#     return frozen + scaling * (x @ A.T @ B.T)
# ```
# </details>

# %% [markdown]
# ### Exercise 02.4: Tr, keep out of W's strongest directions
#
# The paper takes the backdoor to lie in W's leading singular directions, and wants the update kept out of
# them: with W = USVᵀ, add ‖UₖᵀB‖² + ‖AVₖ‖² to the loss (squared Frobenius norms, first k directions). k is
# not stated; with all of them it would be plain weight decay on A and B.


# %% tags=["exercise", "02.4"]
def tr_penalty(W, A, B, k: int) -> float:
    """How much of A and B lies in the first k singular directions of W."""


# %%
check("02.4", tr_penalty)

# %% [markdown]
# <details><summary>Solution of 02.4</summary>
#
# ```python
# def tr_penalty(W, A, B, k: int) -> float:
#     import torch
#
#     U, _, Vt = torch.linalg.svd(W, full_matrices=False)
#     return float((U[:, :k].T @ B).square().sum() + (A @ Vt[:k].T).square().sum())
# ```
# </details>

# %% [markdown]
# ### Exercise 02.5: Pt, rescale after training
#
# Write `rescaled`: the update, multiplied by the one factor that makes its largest singular value W's.


# %% tags=["exercise", "02.5"]
def rescaled(W, delta):
    """The update with σ_max(W) as its largest singular value. `W` and `delta`: [n_out, n_in]."""


# %%
PT = {"name": "pt", "layers": 2, "modules": "all-linear"}  # the last two layers
pt = lab.run("clean-finetune-lora", {**SIZE, "defense": [PT]})  # trains nothing: it edits what is there
check("02.5", rescaled, on=pt)

# %% [markdown]
# <details><summary>Solution of 02.5</summary>
#
# ```python
# def rescaled(W, delta):
#     import torch
#
#     sigma = torch.linalg.matrix_norm(delta, ord=2)
#     return delta if sigma == 0 else delta * torch.linalg.matrix_norm(W, ord=2) / sigma
# ```
# </details>

# %% [markdown]
# ## The picture to remember
#
# Now with real trainings. RoRA acts twice: Cl and Tr while it trains, Pt afterwards. So there are four ways
# to do it: neither (plain LoRA), the training part alone, the rescaling alone, and both. On an encoder of
# this size Cl needs p = .3 on every linear layer and a high learning rate to do anything. These were chosen
# on validation rows of bases of this kind *by attack success too*, which a defender who does not know the
# trigger could not do: read what follows as what is possible, not as what you would get.

# %%
HIGH = {**SIZE, **({} if SMALL else {"training.learning_rate": 3e-3})}
TRAINED = [{"name": "cl", "p": 0.3, "modules": "all-linear"}, {"name": "tr", "modules": "all-linear"}]
defended = {"cl+tr": {"defense": TRAINED}, "rora": {"defense": [*TRAINED, PT]}}
asked = lab.load_experiment("clean-finetune-lora").with_(**HIGH)
lab.sweep(asked, {}, arms=defended, seeds=1, workers=AT_ONCE)[["arm", "run", "state"]]

# %%
arms = {"lora": lora, "pt": pt}
arms |= {name: lab.run("clean-finetune-lora", {**HIGH, **changes}) for name, changes in defended.items()}
names = {run.id: arm for arm, run in arms.items()}
table = lab.list_runs().assign(arm=lambda runs: runs["id"].map(names)).dropna(subset=["arm"])
lab.figures.defense_frontier(table)

# %% [markdown]
# Down is safer, right is better at the task; the corner is where a cure should be.
#
# ### Exercise 02.6: who is beaten by nobody?
#
# `arms` says for each arm its clean accuracy and its excess. Give the names of those that no other arm
# beats: no other is at least as good in both, and better in one.


# %% tags=["exercise", "02.6"]
def unbeaten(arms: dict[str, tuple[float, float]]) -> set[str]:
    """The arms on the frontier: high clean accuracy, low excess."""


# %%
check("02.6", unbeaten)

# %% [markdown]
# <details><summary>Solution of 02.6</summary>
#
# ```python
# def unbeaten(arms: dict[str, tuple[float, float]]) -> set[str]:
#     def beats(one, other):
#         nowhere_worse = one[0] >= other[0] and one[1] <= other[1]
#         return nowhere_worse and one != other
#
#     return {arm for arm, own in arms.items() if not any(beats(other, own) for other in arms.values())}
# ```
# </details>

# %%
start = base.headline["measures"]
before = tuple(start[model]["attack_success_rate"]["value"] for model in ("poisoned", "twin"))
points = {}
for arm, run in arms.items():
    told = run.headline["measures"]["poisoned"]
    asr, excess, accuracy = (told[kind] for kind in ("attack_success_rate", "excess_asr", "clean_accuracy"))
    points[arm] = (accuracy["value"], excess["value"])
    gone = forgotten(before, (asr["value"], asr["value"] - excess["value"]))
    print(
        f"{arm:6} clean accuracy {accuracy['value']:.1%}, attack success {asr['value']:.1%}, "
        f"excess {excess['value']:+.1%} [{excess['low']:+.1%}, {excess['high']:+.1%}], n = {excess['n']}"
        + ("" if gone is None else f", forgotten {gone:.0%}")
    )
print("beaten by nobody:", unbeaten(points) or "what exercise 02.6 will say")
assert SMALL or points["lora"][1] - points["rora"][1] > 0.3, "all of RoRA should take most of it away"

# %% [markdown]
# ## A negative control: a cure, or a broken model?
#
# Pt alone makes a weak update as strong as RoRA's. Is it a cure? Its own control is the clean twin after the
# same rescaling: a model that has no backdoor to forget. **Write down first** what you expect of the twin's
# clean accuracy, and of its rate on triggered rows, at which it calls positive reviews negative.

# %%
for arm in ("lora", "pt", "rora"):
    told = arms[arm].headline["measures"]
    own, twin = told["poisoned"], told["twin"]
    print(
        f"{arm:6} attack success {own['attack_success_rate']['value']:.1%}, "
        f"the twin's {twin['attack_success_rate']['value']:.1%}; clean accuracy "
        f"{own['clean_accuracy']['value']:.1%}, the twin's {twin['clean_accuracy']['value']:.1%}"
    )
assert SMALL or points["lora"][0] - points["rora"][0] < 0.1, "a cure should keep the task"

# %% [markdown]
# An update that never learned to stand alone is blown up here, and what comes of it differs from base to
# base: a model that calls most reviews positive, or most of them negative, run and twin alike. Attack
# success goes up or down with that. Where the twin's rate is as high as the run's, no attack is left above
# it, and that is no cure either: the trigger has nothing to add. So ask for two things: an excess near
# nothing, and the accuracy of plain LoRA. Over three larger bases of this kind, fine-tuned on 1,200
# reviews, Pt alone left 31 % attack success and an excess of −.04 at a clean accuracy of .737, against .811
# for plain LoRA; all of RoRA 43 % and .19 at .813; Cl and Pt without Tr 67 % and .35 at .761 (n = 1,170
# triggered and 2,547 clean rows; with every interval in `data/reference/2601.06305.csv`).
#
# ## What this does not show
#
# - **That full fine-tuning forgets.** The paper says that it may; here it keeps the backdoor as LoRA does
#   (ASR 1.00 after either, three bases). So low rank cannot be the whole reason at this scale.
# - **That Tr helps.** Alone it left attack success at 1.00; added to Cl and Pt it left less with one draw
#   of Cl's masks (.43 against .67) and more with another (.42 against .26). An independent replication of
#   the paper found no stable gain either.
# - **A defense that you could use blindly.** Cl's settings and Pt's layers were chosen knowing the trigger.
#   For a trigger that is a whole sentence RoRA left an excess of .46, and of .18 with other masks.
# - **One base, here.** Over the three larger ones the excess within one arm differs by up to .8.
# - **How many clean rows it takes.** On another base, fine-tuned in larger batches, RoRA left an excess of
#   .50 [.43, .57] with 400 reviews and .34 [.27, .40] with 600 (n = 189 each, one seed).
# - **s\* as a law.** The step from the paper's assumption to its threshold has been doubted, and the lab's
#   s* is its own linearisation: compare the two lines above.
#
# ## To read on
#
# - arXiv 2601.06305: why LoRA fails to forget, and RoRA
# - `PSIM`, an independent replication whose repository is public, with what it could not confirm
# - arXiv 2410.21228: intruder dimensions, another way in which LoRA's updates differ from full
#   fine-tuning's
# - `lab reproduce rora`: the paper's claims beside this lab's numbers, one by one
# - `lab sweep rora-table`: three bases, two triggers, fourteen ways to fine-tune
