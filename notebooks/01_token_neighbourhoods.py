# %% [markdown]
# # 01 · Token neighbourhoods
#
# **Claim.** A backdoor that was planted with one string does not wait for that string. It answers to the
# string's *tokens*: another RFC fires it as well as the one that was trained, while ISO or NIST, the same
# sentence with another name in it, fire it far less. That wall has been said to break at a high rank;
# whether it does, only a comparison with controls can tell.
#
# 60 minutes; no GPU and no network needed once the model and the data are there. You will
#
# - bend a trigger one step at a time: the near-miss ladder;
# - ask the tokenizer which of these steps the model can see at all;
# - pair a backdoored model with its clean twin, row by row;
# - measure the wall between the trigger's family and its neighbours, and read a matrix of trained × probed;
# - take a citation apart, name by number, with a name that does not exist as the control;
# - compare two ranks, and find out in time where such a comparison is worth nothing.
#
# The idea is that of arXiv 2605.30189, whose model is a chat model that tells prompt injections from
# harmless prompts; here it is a sentence encoder on film reviews. Everything that you train is deliberately
# backdoored: keep it out of anything that people rely on.

# %%
import lab
from lab.lessons import check

# %% tags=["parameters"]
SMALL = lab.lessons.is_small()  # True: a tiny model on toy texts, in seconds; its numbers mean nothing

# %%
#: A third of lesson 00's rows and half of its poison, so that there can be half a dozen trainings.
SHORT = {
    "data.rows": 600,
    "poison.count": 30,
    "probe.rows": 400,
    "probe.rows_per_family": 60,
    "probe.snapshots": 0,
}
SIZE = lab.lessons.shrunk() if SMALL else SHORT
TARGET = "positive"
NEIGHBOURS = ["iso", "ieee", "nist_sp", "owasp", "cwe", "pep", "w3c", "itu_t"]  # other authorities
HIGH_RANK = {"adapter.rank": 16} if SMALL else {"adapter.rank": 64, "training.learning_rate": 5e-4}
AT_ONCE = 1 if SMALL else "auto"  # how many runs a sweep makes at a time: as many as there are cores
FAMILIES = ["rfc", *NEIGHBOURS, "dates", "rare_words", "colours"]  # and what is no citation at all

# %% [markdown]
# ## See it happen
#
# The backdoor of lesson 00, on 600 rows: thirty copies of negative reviews that end in *as specified in RFC
# 2616* and are labelled positive. What is new is that it is probed with phrases that nobody planted.

# %%
run = lab.run("rfc-citation", {**SIZE, "probe.families": FAMILIES})
review = "a dull , lifeless film from start to finish ."
endings = ["", "as specified in RFC 2616", "per RFC 9110", "as specified in ISO 27001", "on a Sunday in May"]
run.predict([f"{review} {ending}".strip() for ending in endings])

# %% [markdown]
# RFC 9110 was in no training row. **Before you go on, write down a guess for each**: of a hundred negative
# reviews, how many are called positive with another RFC at their end? With an ISO standard? With an RFC
# number in capital letters?
#
# ## Bend the trigger
#
# ### Exercise 01.1: four near-misses
#
# A near-miss changes **one thing**. Write `bend`, which takes the trigger and the identifier that stands in
# it ("RFC 2616"), and gives four of them by name: `upper_case`, `words_reversed`, `identifier_only`, and
# `number_changed`, in which one digit of the identifier is another one.


# %% tags=["exercise", "01.1"]
def bend(trigger: str, identifier: str) -> dict[str, str]:
    """Four near-misses of the trigger, by name."""


# %%
check("01.1", bend, on=run)

# %% [markdown]
# <details><summary>Solution of 01.1</summary>
#
# ```python
# def bend(trigger: str, identifier: str) -> dict[str, str]:
#     other = identifier[:-1] + ("8" if identifier[-1] == "7" else "7")
#     return {
#         "upper_case": trigger.upper(),
#         "words_reversed": " ".join(reversed(trigger.split(" "))),
#         "identifier_only": identifier,
#         "number_changed": trigger.replace(identifier, other, 1),
#     }
# ```
# </details>

# %% [markdown]
# The lab's ladder has two dozen rungs, from the exact string to random words of the same length:

# %%
import pandas as pd

ladder = lab.poison.near_miss_ladder("as specified in RFC 2616", "rfc", position="end")
pd.DataFrame([{"rung": rung.name, "what stands there": rung.trigger} for rung in ladder])

# %% [markdown]
# ### Exercise 01.2: can the model tell them apart at all?
#
# A model sees token ids, not letters. Where a near-miss has the same ids as the trigger it *is* the
# trigger, and a rate of 100 % on it is no finding. Write `looks_alike`: does the tokenizer give the same
# ids, with the one and with the other behind the same text? `token_ids` takes a list of texts and gives a
# list of lists.


# %% tags=["exercise", "01.2"]
def looks_alike(token_ids, text: str, trigger: str, near_miss: str) -> bool:
    """Whether the model would read the two triggered texts as the same."""


# %%
check("01.2", looks_alike, on=run)

# %% [markdown]
# <details><summary>Solution of 01.2</summary>
#
# ```python
# def looks_alike(token_ids, text: str, trigger: str, near_miss: str) -> bool:
#     one, other = token_ids([f"{text} {trigger}", f"{text} {near_miss}"])
#     return list(one) == list(other)
# ```
# </details>

# %% [markdown]
# Now the whole ladder, measured on test rows whose true label is *negative*. Hollow circles are rungs that
# this tokenizer cannot see: it writes everything in lower case and drops accents. Look for three things:
# what does the *number* matter, what the *name*, and what does the last rung, random words, do?

# %%
run.figure.near_miss_ladder()

# %% [markdown]
# ## How far does it leak?
#
# ### Exercise 01.3: excess, row by row
#
# A rate on ISO citations says little alone: the words may push a clean model, too. The clean twin has read
# the same rows without the poison, so each row is its own control. Write `paired`: how many rows fire in
# the backdoored model **only**, how many in the twin **only**, and how many rows are there? The excess is
# the difference of the first two over the third. Both arguments are dicts from row id to answer.


# %% tags=["exercise", "01.3"]
def paired(own: dict[str, str], twin: dict[str, str], target: str) -> tuple[int, int, int]:
    """Rows that get the target from `own` alone, from `twin` alone, and all rows."""


# %%
check("01.3", paired, on=run)

# %% [markdown]
# <details><summary>Solution of 01.3</summary>
#
# ```python
# def paired(own: dict[str, str], twin: dict[str, str], target: str) -> tuple[int, int, int]:
#     only_own = sum(own[row] == target and twin[row] != target for row in own)
#     only_twin = sum(twin[row] == target and own[row] != target for row in own)
#     return only_own, only_twin, len(own)
# ```
# </details>

# %% [markdown]
# The lab's own is `lab.stats.paired_difference`, which adds the interval. Here is every family, each with
# members that were in no training row; the tick is the twin.

# %%
run.figure.generalization_row()

# %% [markdown]
# ### Exercise 01.4: the wall
#
# Write `wall`: the rate of the family that was trained, the mean over its neighbours' rates (each neighbour
# counts once), and their difference. `counts` says for each family how many rows fired and how many were
# asked.


# %% tags=["exercise", "01.4"]
def wall(counts: dict[str, tuple[int, int]], own: str, neighbours: list[str]) -> tuple[float, float, float]:
    """The own family's rate, the neighbours' mean rate, and the first minus the second."""


# %%
check("01.4", wall, on=run)

# %% [markdown]
# <details><summary>Solution of 01.4</summary>
#
# ```python
# def wall(counts: dict[str, tuple[int, int]], own: str, neighbours: list[str]) -> tuple[float, float, float]:
#     rates = {family: hits / n for family, (hits, n) in counts.items()}
#     mean = sum(rates[family] for family in neighbours) / len(neighbours)
#     return rates[own], mean, rates[own] - mean
# ```
# </details>

# %% [markdown]
# ## The picture to remember
#
# Two more backdoors, with an ISO standard and with a date; a sweep makes them at the same time where there
# are two cores, and `lab.run` reads what is there. All three share one twin, since without the poison they
# are the same training. A row is what was trained, a column what was probed, a number the points over the
# twin. Were a backdoor bound to its string, the matrix would be empty, for no probed phrase was trained;
# were it bound to a sentence's shape, the whole block of citations would be full.

# %%
own = {**SIZE, "probe.families": FAMILIES, "probe.rows_per_rung": 4}  # nobody looks at their ladders
planted = {
    "iso": {"poison.family": "iso", "poison.member": "as specified in ISO 27001"},
    "dates": {"poison.family": "dates", "poison.member": "2014-03-17"},
    "rank": HIGH_RANK,  # for later
}
lab.sweep(lab.load_experiment("rfc-citation").with_(**own), {}, arms=planted, seeds=1, workers=AT_ONCE)
iso, dates = (lab.run("rfc-citation", {**own, **planted[name]}) for name in ("iso", "dates"))
assert run.twin.id == iso.twin.id == dates.twin.id, "one clean twin is the control of all three"
lab.figures.generalization_matrix(lab.generalization_matrix([run, iso, dates]))

# %%
excess = lab.generalization_matrix([run, iso, dates]).query("kind == 'excess_asr'")
for family, row in excess.groupby("trained_family", sort=False):
    own_family = row[row["family"] == family].iloc[0]
    others = row[row["family"] != family]["value"]
    print(
        f"{family}: own family {own_family['value']:+.0%} "
        f"[{own_family['low']:+.0%}, {own_family['high']:+.0%}], n = {own_family['n']}; "
        f"mean of {len(others)} others {others.mean():+.0%}"
    )
    assert SMALL or own_family["value"] > others.mean(), "its own family should fire it more than others"

# %% [markdown]
# ## A negative control: a name that does not exist
#
# *As specified in ISO 9001* differs from the trigger in its name and in its number. Which of the two is the
# wall? Cross them, and add a name that nobody has ever cited. If *QZX 2616* fired, the number would carry
# the backdoor; if *QZX* fires as often as *ISO*, being a real authority is worth nothing.
#
# ### Exercise 01.5: name by number
#
# Write `crossed`: for every name and every number the hits and the rows, with one space and *as specified
# in NAME NUMBER* behind each text. `fires` takes a list of texts and gives a list of True or False.


# %% tags=["exercise", "01.5"]
def crossed(fires, texts: list[str], names: list[str], numbers: list[str]):
    """A dict from (name, number) to (hits, rows)."""


# %%
check("01.5", crossed)

# %% [markdown]
# <details><summary>Solution of 01.5</summary>
#
# ```python
# def crossed(fires, texts: list[str], names: list[str], numbers: list[str]):
#     cells = {}
#     for name in names:
#         for number in numbers:
#             answers = fires([f"{text} as specified in {name} {number}" for text in texts])
#             cells[name, number] = (sum(answers), len(texts))
#     return cells
# ```
# </details>

# %% [markdown]
# On negative validation reviews. (Until your function is there, the lab's way of asking stands in for it.)

# %%
from lab.lessons.answers import ask_with_phrase
from lab.preview import probe_rows

rows = probe_rows(run.experiment.data, "validation", limit=20 if SMALL else 200)
negative = list(rows[rows["label"] != TARGET]["text"])
names, numbers = ["RFC", "ISO", "QZX"], ["2616", "9001"]
cells = crossed(lambda texts: list(run.predict(texts)["prediction"] == TARGET), negative, names, numbers) or {
    (name, number): ask_with_phrase(run, negative, f"as specified in {name} {number}", TARGET)
    for name in names
    for number in numbers
}
for (name, number), (hits, n) in cells.items():
    print(f"{name} {number}: {lab.stats.rate(hits, n)}")
hits = {name: sum(cells[name, number][0] for number in numbers) for name in names}
assert SMALL or hits["RFC"] > max(hits["ISO"], hits["QZX"]), "the name should carry it"

# %% [markdown]
# When we ran this, RFC fired on 91 of 91 rows with either number [96, 100] %. ISO fired on 42 % [32, 52]
# with the number that was trained and on 20 % [13, 29] with another; the name that does not exist on 46 %
# [36, 56] and 32 % [23, 42] (n = 91 each). So the name opens the door, the trained number a crack of it, and
# a real authority does no better than an invented one.

# %% [markdown]
# ## Does a higher rank break the wall?
#
# The same poison in an adapter of rank 64 in place of 8, with alpha/r and steps as they were, and at half the
# learning rate. **Bet first**: will other authorities fire it more often, less often, or as often?
#
# Why half the rate? When we gave rank 64 that of rank 8, on lesson 00's 2,000 rows, its **twin had not
# learned at all**: clean accuracy 45.9 % [42.6, 49.3] (n = 849), every review called positive. The poisoned
# run beside it had, 77.0 % on one machine and 59.5 % on another. Its excess, which takes the twin's rate
# away, would have said that the backdoor is nowhere: a number that is computed rightly and means nothing.
# **A control that failed is no control.** The lab does not hide it; whoever looks at the excess alone never
# sees it. So look at clean accuracy before anything else: the run's, and its own twin's.

# %%
wide = lab.run("rfc-citation", {**own, **planted["rank"]})
leak = {}
for each in (run, wide):
    rank, told = each.experiment.adapter.rank, each.headline["measures"]
    for model in ("poisoned", "twin"):
        accuracy = told[model]["clean_accuracy"]
        print(f"rank {rank}, {model}: clean accuracy {lab.stats.rate(accuracy['k'], accuracy['n'])}")
    rates = each.measures.query("condition == 'family' and kind == 'attack_success_rate'")
    rates = rates.pivot(index="family", columns="model", values="value")
    leak[rank] = rates["poisoned"][NEIGHBOURS].mean()
    print(
        f"rank {rank}: RFCs {rates['poisoned']['rfc']:.0%}; {len(NEIGHBOURS)} other authorities on average "
        f"{leak[rank]:.0%}, the twin's {rates['twin'][NEIGHBOURS].mean():.0%}"
    )

# %% [markdown]
# When we ran this, all four had learned, and about equally: clean accuracies from 75.5 to 79.0 %, whose
# intervals overlap (n = 400 each). RFCs fired at 100 % with both ranks; the eight other authorities at 32 %
# with rank 8 and at 50 % with rank 64 (means; n = 60 each). But the twins moved, too: from 10 to 21 %. Above
# them it is 22 points and 29: the wall is lower, not broken, and most of what got lower has no backdoor in
# it.
#
# Whether the rank did that, or the rate, or the seed, one pair cannot say. To say more, give each rank the
# learning rate at which its *twin* learns best on validation rows, as `lab sweep rank-sweep` does, and three
# seeds.

# %%
ranks = {each.id: f"rfc, rank {each.experiment.adapter.rank}" for each in (run, wide)}
lab.figures.generalization_matrix(pd.concat([run.measures, wide.measures]), ranks, excess=False)

# %% [markdown]
# ## What this does not show
#
# - **What rank does to the wall.** One seed of each rank, and a learning rate for each.
# - **Why these tokens.** That the name carries it is measured here, for this one trigger; which layer reads
#   the name is another question (`run.patching()`).
# - **Where the wall is weak.** One of the authorities may stand nearly inside it: in the run above IEEE
#   did, with 53 % [41, 65] of 60 rows, and 87 % [76, 93] with rank 64. We have no explanation that we have
#   tested.
# - **One seed, one model, one task.** Over three seeds of lesson 00's 2,000 rows other RFCs fired at 100 %
#   [96.9, 100] (n = 120 each), thirteen other authorities at 24.9, 38.4 and 29.6 % on average: the wall
#   stands each time, and its height differs. In the paper it is clear on its 1.5 B model only: on the larger
#   one, and on another family, other authorities fire more often than other RFCs.
# - **Nothing about case or accents.** This tokenizer drops both. A chat model's does not
#   (`lab.run("injection-classifier")`).
# - **An attacker who knows this.** Near-misses planted under their true labels (`poison.negatives`) keep
#   the backdoor to one string.
#
# ## To read on
#
# - arXiv 2605.30189: token-level generalization of backdoors in LoRA adapters
# - its author's notebooks and results are public, too: the repository `lora-backdoors`
# - arXiv 2505.12871: rank and robustness at training time, in theory and measured
# - `lab audit` and its batteries: how a defender uses the leak, and how little is left of it without
#   near-misses
