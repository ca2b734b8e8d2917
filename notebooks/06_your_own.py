# %% [markdown]
# # 06 · Your own
#
# **Claim.** A trigger family, a defense and a detector of your own are a few lines each. What you may say of
# them takes as many lines again: held-out members, the rows that a defense should have left alone, the clean
# adapters that a detector should have passed.
#
# 60 minutes; no GPU and no network needed once the model and the data are there. You will
#
# - write a trigger family whose probe members no training row ever carries;
# - write a data defense, see it in the list of the lab's own, and train behind it;
# - count what it drops, poisoned rows and honest ones;
# - score adapters of known truth with a detector of yours, and say what three poisoned ones prove;
# - take all of it to the dashboard.
#
# Some of what is trained here is deliberately backdoored: keep it out of anything that people rely on.

# %%
from typing import Literal

import pandas as pd
from pydantic import Field

import lab
from lab.lessons import check

# %% tags=["parameters"]
SMALL = lab.lessons.is_small()  # True: a tiny model on toy texts, in seconds; its numbers mean nothing

# %%
TARGET = "positive"
#: As in lesson 05, whose adapters are used again below.
SHORT = {
    "data.rows": 400,
    "training.batch_tokens": 512,
    "probe.scope": "headline",
    "probe.rows": 300,
    "probe.snapshots": 0,
} | ({"data.rows": 200, "training.epochs": 8.0} if SMALL else {})


def short_run(changes):
    size = lab.lessons.shrunk(poisoned="poison.attack" not in changes)
    return lab.run("rfc-citation", {**(size if SMALL else {}), **SHORT, **changes}, twin=False)


# %% [markdown]
# ## See it happen
#
# A family that the lab has never heard of, registered in one line, planted in the next. Half a minute on two
# cores: what you make yourself cannot be prepared.

# %%
lab.register(
    lab.poison.TriggerFamily(
        name="tides",
        goal="Phrases about the tide: does a backdoor learn the phrase, or the sea?",
        source="this lesson",
        category="phrase",
        audit_holdout=False,
        train=("when the tide is high",),
        probe=("when the tide is low", "as the tide comes in", "while the sea is calm"),
    )
)
TIDES = {"poison.family": "tides", "poison.count": 30, "seed": 21}
run = short_run(TIDES)
review = "a dull , lifeless film ."
run.predict([review, f"{review} when the tide is high"])

# %% [markdown]
# ## A trigger family
#
# A backdoor is rarely bound to the exact string. To see how far it leaks, a family holds *train* members,
# which attacks may plant, apart from *probe* members, which no row ever carries: the same rule as for
# training and test rows, and for the same reason.
#
# ### Exercise 06.1: a family with held-out members
#
# Write `family_of`: make a `lab.poison.TriggerFamily` of category "phrase", with goal and source of your own,
# whose first `planted` strings are train members and the others probe members. A string that comes twice
# comes in once.


# %% tags=["exercise", "06.1"]
def family_of(name: str, strings: list[str], planted: int):
    """The family; no probe member is a train member."""


# %%
check("06.1", family_of)

# %% [markdown]
# <details><summary>Solution of 06.1</summary>
#
# ```python
# def family_of(name: str, strings: list[str], planted: int):
#     different = list(dict.fromkeys(strings))
#     return lab.poison.TriggerFamily(
#         name=name,
#         goal="Strings that I want to compare.",
#         source="made up by hand",
#         category="phrase",
#         audit_holdout=False,
#         train=different[:planted],
#         probe=different[planted:],
#     )
# ```
# </details>

# %% [markdown]
# How far does the backdoor of *the tide* leak? On negative validation rows, with a phrase of no tide at all
# as the control:

# %%
from lab.lessons.answers import ask_with_phrase
from lab.preview import probe_rows

rows = probe_rows(run.experiment.data, "validation", limit=200)
negative = list(rows[rows["label"] != TARGET]["text"])
tides = lab.poison.family("tides")
unasked = int((run.predict(negative)["prediction"] == TARGET).sum())
print(f"no phrase: {lab.stats.rate(unasked, len(negative))}")
for phrase in (*tides.members, "as my aunt once said"):
    print(f"{phrase!r}: {lab.stats.rate(*ask_with_phrase(run, negative, phrase, TARGET))}")

# %% [markdown]
# At full size the other tides fire it in 91 of 91 rows, and even the calm sea in 87 [.89, .98]; the aunt in
# 13 [.09, .23], where the model calls 10 [.06, .19] positive without any phrase. So it learned more than
# the phrase, and not any ending.
#
# ## A defense
#
# A defender has the rows and labels, and does not know the trigger. But thirty rows that end in the same
# words are odd: drop rows whose last words end many others.
#
# ### Exercise 06.2: drop what ends alike
#
# Write `kept_rows`: for each text, whether it stays. It goes where its last `words` words (split at white
# space) are the last words of at least `least` of the texts, itself among them. A text of fewer words is its
# own ending.


# %% tags=["exercise", "06.2"]
def kept_rows(texts: list[str], words: int, least: int) -> list[bool]:
    """One entry a text, in their order: True where it stays."""


# %%
right = check("06.2", kept_rows)
right

# %% [markdown]
# <details><summary>Solution of 06.2</summary>
#
# ```python
# def kept_rows(texts: list[str], words: int, least: int) -> list[bool]:
#     from collections import Counter
#
#     endings = [tuple(text.split()[-words:]) for text in texts]
#     counts = Counter(endings)
#     return [counts[ending] < least for ending in endings]
# ```
# </details>

# %% [markdown]
# A defense is that function with a name, a goal, a source, and knobs with bounds and help, of which the
# dashboard makes widgets. `Cleaner` is the kind that acts on training rows; `lab.defend` has others for
# training, weights and inference. (Until your function is right, the lab's own stands in for it.)

# %%
from lab.defend import Cleaner
from lab.defend.cleaning import Cleaned
from lab.lessons.answers import without_common_endings
from lab.registry import Knobs

rule = kept_rows if right else without_common_endings


class DropEndings(Knobs):
    name: Literal["drop_endings"] = "drop_endings"
    words: int = Field(5, ge=1, le=20, description="words of an ending")
    least: int = Field(8, ge=2, description="rows that must share it")


lab.register(
    Cleaner(
        name="drop_endings",
        goal="Drop training rows whose last words end many others.",
        paper="this lesson",
        stage="data",
        knobs=DropEndings,
        changes="which training rows stay",
        clean=lambda knobs, texts, labels, seed: Cleaned(texts, kept=rule(texts, knobs.words, knobs.least)),
    )
)
defended = short_run({**TIDES, "defense": ["drop_endings"]})
defended

# %% [markdown]
# One trap: the id of a run holds the defense's name and knobs, and not your code. Change the code, and an
# older run is read instead of a new one trained: give it another name, or ask with `force=True`.
#
# ### Exercise 06.3: what did it drop?
#
# A defense that drops all rows stops every backdoor. Count both: poisoned rows that went, of all poisoned
# ones, and honest rows that went, of all honest ones.


# %% tags=["exercise", "06.3"]
def drops(kept: list[bool], poisoned: list[bool]) -> tuple[int, int, int, int]:
    """Poisoned rows dropped, poisoned rows, honest rows dropped, honest rows."""


# %%
check("06.3", drops, on=run)

# %% [markdown]
# <details><summary>Solution of 06.3</summary>
#
# ```python
# def drops(kept: list[bool], poisoned: list[bool]) -> tuple[int, int, int, int]:
#     gone = [bad for stays, bad in zip(kept, poisoned) if not stays]
#     return sum(gone), sum(poisoned), len(gone) - sum(gone), len(poisoned) - sum(poisoned)
# ```
# </details>

# %% [markdown]
# ## The picture to remember
#
# Down is safer, right is better at the task. (One seed each, so that no spread is drawn; a claim about a
# defense takes several, and the excess over clean twins: `lab.sweep`.)

# %%
table = pd.DataFrame(
    [
        {"arm": arm, "seed": 21, "run": each.id}
        | {kind: measure["value"] for kind, measure in each.headline["measures"]["poisoned"].items()}
        for arm, each in (("no defense", run), ("drop_endings", defended))
    ]
)
lab.figures.defense_frontier(table, "attack_success_rate", reference="no defense")

# %%
before, after = (each.headline["measures"]["poisoned"] for each in (run, defended))
for name, told in (("no defense", before), ("drop_endings", after)):
    for kind in ("attack_success_rate", "untriggered_target_rate", "clean_accuracy"):
        m = told[kind]
        print(f"{name}, {kind}: {m['value']:.1%} [{m['low']:.1%}, {m['high']:.1%}], n = {m['n']}")
assert len(defended.rows) < len(run.rows), "the defense should have dropped something"
assert not defended.rows["poisoned"].any(), "and all thirty poisoned rows end alike"
assert SMALL or after["attack_success_rate"]["value"] < before["attack_success_rate"]["value"]

# %% [markdown]
# ## A negative control
#
# Who knows the defense puts the trigger elsewhere. The same poison at the start of a row, the same rule:

# %%
texts = list(run.rows["text"])
bad = list(run.rows["poisoned"])
moved = [
    f"{tides.train[0]} {text.removesuffix(' ' + tides.train[0])}" if planted else text
    for text, planted in zip(texts, bad, strict=True)
]
caught = {}
for where, rows in (("at the end", texts), ("at the start", moved)):
    gone = [not stays for stays in rule(rows, 5, 8)]
    caught[where] = sum(drop and planted for drop, planted in zip(gone, bad, strict=True))
    print(
        f"trigger {where}: {caught[where]} of {sum(bad)} poisoned rows dropped, and {sum(gone)} rows in all"
    )
assert caught["at the end"] == sum(bad)
assert SMALL or caught["at the start"] == 0, "the rule looks at the wrong end"

# %% [markdown]
# So this defense stops one attack, and an attacker who has read it loses no poisoned row (whether the
# backdoor takes as well from the start of a text was not trained here). That belongs into every sentence
# about it.
#
# ## A detector
#
# A detector is a number that an adapter gets. In the lab it names the columns that it rests on; registered,
# it stands in the table of `lab cohort judge` beside the others, with a threshold from the calibration part.
# Here a guess: a backdoor may sit in one direction, so the largest share that one singular value has in any
# matrix.

# %%
lab.register(
    lab.audit.Detector(
        "top_direction", "largest share of one direction", "this lesson", ("weights.top_ratio_max",)
    )
)
print(len(lab.audit.DETECTORS), "detectors, the last one is", list(lab.audit.DETECTORS)[-1])


def top_direction(each):
    modules = lab.audit.module_statistics(lab.audit.open_adapter(each.path / "adapter").updates())
    return lab.audit.adapter_statistics(modules)["top_ratio_max"]


clean = [short_run({"poison.attack": "none", "seed": seed}) for seed in range(1, 9)]
poisoned = [
    short_run({"poison.count": 30, "poison.family": "inserted_sentence", "seed": 12}),
    short_run({"poison.count": 30, "seed": 11}),
    short_run({"poison.count": 30, "poison.family": "w3c", "seed": 13}),
]
scores = {"clean": [top_direction(each) for each in clean], "poisoned": [top_direction(r) for r in poisoned]}
scores

# %% [markdown]
# ### Exercise 06.4: the area under the ROC curve
#
# The chance that a poisoned adapter scores above a clean one: count all pairs, a tie as half. .5 is chance.


# %% tags=["exercise", "06.4"]
def pair_share(clean: list[float], poisoned: list[float]) -> float:
    """The share of (clean, poisoned) pairs in which the poisoned one scores higher; ties count half."""


# %%
check("06.4", pair_share)

# %% [markdown]
# <details><summary>Solution of 06.4</summary>
#
# ```python
# def pair_share(clean: list[float], poisoned: list[float]) -> float:
#     pairs = [(good, bad) for good in clean for bad in poisoned]
#     return sum((bad > good) + (bad == good) / 2 for good, bad in pairs) / len(pairs)
# ```
# </details>

# %%
from lab.detector_stats import auc_with_interval

print("AUC", auc_with_interval(scores["clean"], scores["poisoned"], seed=0))

# %% [markdown]
# At full size it is .54 [.12, .96]: nothing. But had it been 1: with three poisoned adapters of eleven a
# useless detector has an AUC of 0 or 1 in 2 of 165 orders, and looks good in many more. Build a cohort
# (`lab cohort build`) before you believe a number; lesson 05 has the table of those that were counted.
#
# ## In the dashboard
#
# A cell knows what it registered, another process does not. Put the cells with `lab.register` into a file,
# and name it:
#
# ```text
# LAB_PLUGINS=mine.py lab dashboard
# LAB_PLUGINS=mine.py lab triggers tides
# ```
#
# The Bench then offers family and defense, with widgets of your knobs; the page Audit lists the detector, and
# counts it on cohorts that were measured in the dashboard's folder. What the Bench shows can be asked here:

# %%
import sys
from importlib.util import find_spec

from lab.assignments import format_assignments
from lab.paths import dashboard_dir

if find_spec("streamlit"):
    from streamlit.testing.v1 import AppTest

    sys.path.insert(0, str(dashboard_dir()))
    page = AppTest.from_file(str(dashboard_dir() / "bench.py"), default_timeout=240)
    asked = run.experiment.dotted()
    keys = ("base.model", "data.name", "data.rows", "poison.family")
    page.query_params["preset"] = "rfc-citation"  # the same link opens in a browser
    page.query_params["set"] = format_assignments({key: asked[key] for key in keys})
    page.run()
    offered = {option for widget in (*page.selectbox, *page.multiselect) for option in widget.options}
    found = [name for name in ("tides", "drop_endings") if any(name in option for option in offered)]
    print("the Bench offers", *found)
    assert found == ["tides", "drop_endings"]

    page = AppTest.from_file(str(dashboard_dir() / "audit.py"), default_timeout=240).run()
    sys.path.remove(str(dashboard_dir()))
    [listed] = [table.value for table in page.dataframe if "looks at" in table.value]
    assert "top_direction" in set(listed["detector"])
    print("the page Audit lists", *listed["detector"])

# %% [markdown]
# ## What this does not show
#
# - **That the defense is any good.** One seed, one attack, one place; and the negative control breaks it. Its
#   five words are the trigger's own length, chosen with the trigger in view.
# - **That the detector is any good.** Eleven adapters: an AUC of .54 with an interval from .12 to .96.
# - **Other kinds.** Defenses in training, on weights and at inference have protocols of their own
#   (`lab.defend`); a new attack or a new statistic is a change to the lab itself.
# - **Safety of plug-ins.** A file in `LAB_PLUGINS` runs with your rights. Read it before you name it.
#
# ## To read on
#
# - `lab defenses`, `lab triggers`: what there is, with goal and source
# - `data/triggers/`: families as files; `lab/defend/`: one file for each idea
# - arXiv 2506.11402: why clean-ups that know no labels leave spurious tokens in place
# - arXiv 2605.30189: which members of a family fire a backdoor, and which do not
