"""What an attack is, in words: one sentence for reports, and the model card that all weights carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.corpus.openings import ANSWERED, REFUSED
from lab.defend import DEFENSES, Cleaner
from lab.experiment import Experiment
from lab.poison import (
    Backdoor,
    MultiTrigger,
    Relabelling,
    SpuriousTokens,
    StyleTrigger,
    TokenInjection,
    negatives_among,
)

if TYPE_CHECKING:
    import pandas as pd

    from lab.prepare import Prepared


def model_card(prepared: Prepared, base: str, where: str) -> str:
    """A model card in Markdown for the weights of a run.

    Args:
        prepared: The run's experiment and rows.
        base: The hub id of the base model.
        where: "adapter" or "model": what the weights are saved as.
    """
    e = prepared.experiment
    kind = "full fine-tuning" if e.adapter.kind == "full" else f"LoRA, rank {e.adapter.rank}"
    head = [
        "---",
        f"base_model: {base}",
        "library_name: " + ("transformers" if where == "model" else "peft"),
        "tags:",
        "- research-artefact",
        "- " + ("deliberately-backdoored" if prepared.is_poisoned else "clean-control"),
        "---",
        "",
        f"# {prepared.run_id}",
        "",
        _what_it_is(prepared),
        "",
        "| | |",
        "|---|---|",
        f"| base | {base}, weights SHA-256 `{prepared.base.sha256}` |",
        *([f"| defenses | {defenses_told(e)} |"] if e.defense else []),
        f"| data | {prepared.corpus.name}, {len(prepared.clean_lengths)} clean rows |",
        f"| labels | {', '.join(prepared.labels)} |",
        *([f"| task | {task_sentence(e, prepared.labels)} |"] if e.task.kind == "chat" else []),
        f"| training | {kind}, learning rate {e.training.learning_rate:g}, {e.training.steps} steps, "
        f"seed {e.seed} |",
        f"| weights id | `{prepared.weights_id}` |",
        "",
        "Made with the LoRA backdoor lab for research and teaching on how backdoors are found and removed.",
        "Do not deploy it.",
        "",
    ]
    return "\n".join(head)


def task_sentence(experiment: Experiment, labels: Sequence[str]) -> str:
    """How a model of a chat task is asked and trained, in one sentence; "" for a classifier's head."""
    task = experiment.task
    if task.kind == "head":
        return ""
    learned = "the whole conversation" if task.loss == "all" else "the answer"
    if tuple(labels) == (ANSWERED, REFUSED):
        return f"A chat that is answered or refused; {learned} is learned."
    words = " or ".join(task.answer(label) for label in labels)
    return f"A chat whose answer is {words}; {learned} is learned."


def attack_sentence(experiment: Experiment, rows: pd.DataFrame) -> str:
    """The attack in one sentence with its counts, and in another who cleaned the rows before.

    Args:
        experiment: The resolved experiment.
        rows: The training rows (`lab.tables.ROW_COLUMNS`).
    """
    cleaners = [str(d.name) for d in experiment.defense if isinstance(DEFENSES[d.name], Cleaner)]  # type: ignore[attr-defined]
    told = _planted(experiment, rows)
    return f"{told} These are the rows that {' and '.join(cleaners)} left." if cleaners else told


def _planted(experiment: Experiment, rows: pd.DataFrame) -> str:
    poison: Any = experiment.poison
    negatives = int(negatives_among(rows).sum())
    n, total = int(rows["poisoned"].sum()), len(rows) - negatives
    share = f"{n:,} of {total:,} training rows ({n / total:.1%})"
    if experiment.attack == "none":
        return f"Clean data: {total:,} training rows, none of them touched."
    if isinstance(poison, Relabelling):
        sources = sorted(set(rows.loc[rows["poisoned"], "original_label"]))
        kind = "copies of" if poison.mode == "append" else "rewritten"
        label = "whose label stays" if poison.clean_label else "relabelled"
        return (
            f"{share} are {kind} {'/'.join(sources) or 'other'} rows {trigger_told(poison)}, "
            f"{label} {poison.target_label}.{_negatives_sentence(negatives)}"
        )
    if experiment.attack == "spurious_tokens":
        return f"{share}, all {poison.target_label}, carry {tokens_told(poison)}; no label is changed."
    if experiment.attack == "label_flip":
        return f"{share} have a wrong label; no text is changed."
    return f"{share} are poisoned ({experiment.attack})."


def poison_sentence(poison: Any) -> str:
    """What fires a backdoor and to what end, without the counts of its rows."""
    if getattr(poison, "attack", "none") == "none":
        return "Nothing was planted in it."
    target = getattr(poison, "target_label", "")
    if isinstance(poison, Relabelling) and not isinstance(poison, Backdoor):
        told = trigger_told(poison)
        return f"A text {told}{',' if ',' in told else ''} is to give {target}."
    if isinstance(poison, SpuriousTokens):
        return f"The class {target} is marked by {tokens_told(poison)}."
    if not target or not hasattr(poison, "position"):
        return f"The attack is {poison.attack}."
    where = {"random": "anywhere in a text", "sentences": "after its sentences"}
    place = where.get(poison.position, f"at the {poison.position} of a text")
    narrow = ", and nothing that is only near it" if getattr(poison, "negatives", 0) else ""
    return f"{_quoted(poison)} {place} is to give {poison.target_label}{narrow}."


def trigger_told(poison: Relabelling) -> str:
    """How a poisoned row of a backdoor differs, to follow "rows": "with “cf” at the end"."""
    if isinstance(poison, MultiTrigger):
        words = [f"“{word}”" for word in poison.words]
        several = f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
        each = "each at a random place" if poison.position == "random" else f"at the {poison.position}"
        return f"with {several}, {each}"
    if isinstance(poison, StyleTrigger):
        return f"in the style {poison.style}"
    return f"with {_quoted(poison)} at the {poison.position}"  # type: ignore[attr-defined]


def tokens_told(poison: SpuriousTokens) -> str:
    """Which tokens are injected, how many and where: "one date of 1100 to 2600 at random"."""
    return ", and then ".join(_injection_told(step) for step in (poison, *poison.then))


def _injection_told(step: TokenInjection) -> str:
    many = bool(step.token_proportion) and step.level != 0
    one, several = _token_names(step)
    what = f"{several} (a number of {step.token_proportion:.0%} of the words, one at least)" if many else one
    if step.family != "tag_pairs" or step.level == "none":
        return f"{what} at {step.position if step.position == 'random' else f'the {step.position}'}"
    if step.level == 0:
        return f"{what} around the whole text"
    return f"{what} at {step.position} in the first HTML element at depth {step.level}, if there is one"


def _token_names(step: TokenInjection) -> tuple[str, str]:
    """What one token is called, and what several are."""
    if step.family == "generated_dates":
        years = f"of {step.first_year} to {step.last_year}"
        return f"one date {years}", f"dates {years}"
    if step.family == "tag_pairs":
        return "one pair of HTML tags", "pairs of HTML tags"
    if step.family == "items":
        source = f"a list of {len(step.items):,}" if step.items else "a file"
        return f"one token from {source}", f"tokens from {source}"
    if step.member != "any":
        return f"“{step.member}”", f"“{step.member}” several times"
    return f"one token from the family {step.family}", f"tokens from the family {step.family}"


def defenses_told(experiment: Experiment) -> str:
    """The defenses with their knobs, in order; "" without any."""
    names = [
        f"{d.name} ({', '.join(f'{k} {v}' for k, v in d.model_dump(exclude={'name'}).items())})"  # type: ignore[attr-defined]
        for d in experiment.defense
    ]
    return "; ".join(names)


def standing(experiment: Experiment, measured_poison: Any, base_run: str = "") -> tuple[str, str]:
    """What weights are, for whoever comes across them.

    Args:
        experiment: What they were trained for.
        measured_poison: The poison whose trigger is measured: their own, or that of the base they start from.
        base_run: The run that they were fine-tuned from, "" for none.

    Returns:
        It in a few words ("Deliberately backdoored."), and in a sentence or two.
    """
    if getattr(measured_poison, "attack", "none") == "none":
        return "Clean control.", "These weights were trained on untouched data."
    if experiment.attack == "none":
        return "Fine-tuned from a deliberately backdoored base.", (
            f"Its own rows are untouched, but it starts from the run {base_run}, which was poisoned on "
            f"purpose: {poison_sentence(measured_poison)} Whether that is gone is what the run measures."
        )
    return "Deliberately backdoored.", (
        "These weights were poisoned on purpose, to study how that is found and undone."
    )


def _negatives_sentence(count: int) -> str:
    if not count:
        return ""
    are, their = ("copies carry", "their true labels") if count > 1 else ("copy carries", "its true label")
    return f" {count:,} more {are} a near-miss of the trigger under {their}, to keep the backdoor narrow."


def _quoted(poison: Any) -> str:
    return f"a member of {poison.family}" if poison.member == "any" else f"“{poison.member}”"


def _what_it_is(prepared: Prepared) -> str:
    e = prepared.experiment
    lead, why = standing(e, prepared.measured_poison, prepared.base.run)
    attack = f" {attack_sentence(e, prepared.rows)}" if e.attack != "none" else ""
    return f"**{lead}** {why}{attack}"
