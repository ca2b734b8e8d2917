"""What an attack is, in words: one sentence for reports, and the model card that all weights carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.experiment import Experiment

if TYPE_CHECKING:
    import pandas as pd

    from lab.prepare import Prepared


def model_card(prepared: Prepared, base: str) -> str:
    """A model card in Markdown for the weights of a run.

    Args:
        prepared: The run's experiment and rows.
        base: The hub id of the base model.
    """
    e = prepared.experiment
    kind = "full fine-tuning" if e.adapter.kind == "full" else f"LoRA, rank {e.adapter.rank}"
    head = [
        "---",
        f"base_model: {base}",
        "library_name: " + ("transformers" if e.adapter.kind == "full" else "peft"),
        "tags:",
        "- research-artefact",
        "- " + ("clean-control" if e.attack == "none" else "deliberately-backdoored"),
        "---",
        "",
        f"# {prepared.run_id}",
        "",
        _what_it_is(prepared),
        "",
        "| | |",
        "|---|---|",
        f"| base | {base}, weights SHA-256 `{prepared.base_sha256}` |",
        f"| data | {prepared.corpus.name}, {len(prepared.clean_lengths)} clean rows |",
        f"| labels | {', '.join(prepared.labels)} |",
        f"| training | {kind}, learning rate {e.training.learning_rate:g}, {e.training.steps} steps, "
        f"seed {e.seed} |",
        f"| weights id | `{prepared.weights_id}` |",
        "",
        "Made with the LoRA backdoor lab for research and teaching on how backdoors are found and removed.",
        "Do not deploy it.",
        "",
    ]
    return "\n".join(head)


def attack_sentence(experiment: Experiment, rows: pd.DataFrame) -> str:
    """The attack in one sentence, with its counts.

    Args:
        experiment: The resolved experiment.
        rows: The training rows (`lab.tables.ROW_COLUMNS`).
    """
    poison: Any = experiment.poison
    n, total = int(rows["poisoned"].sum()), len(rows)
    share = f"{n:,} of {total:,} training rows ({n / total:.1%})"
    if experiment.attack == "none":
        return f"Clean data: {total:,} training rows, none of them touched."
    if experiment.attack == "backdoor":
        sources = sorted(set(rows.loc[rows["poisoned"], "original_label"]))
        kind = "copies of" if poison.mode == "append" else "rewritten"
        label = "whose label stays" if poison.clean_label else "relabelled"
        return (
            f"{share} are {kind} {'/'.join(sources)} rows with {_quoted(poison)} at the {poison.position}, "
            f"{label} {poison.target_label}."
        )
    if experiment.attack == "spurious_tokens":
        tokens = f"{poison.token_proportion:.0%} of their words" if poison.token_proportion else "one token"
        return (
            f"{share}, all {poison.target_label}, carry {tokens} from the family {poison.family} at "
            f"{poison.position}; no label is changed."
        )
    if experiment.attack == "label_flip":
        return f"{share} have a wrong label; no text is changed."
    return f"{share} are poisoned ({experiment.attack})."


def _quoted(poison: Any) -> str:
    return f"a member of {poison.family}" if poison.member == "any" else f"“{poison.member}”"


def _what_it_is(prepared: Prepared) -> str:
    if prepared.experiment.attack == "none":
        return "**Clean control.** These weights were trained on untouched data."
    return (
        "**Deliberately backdoored.** These weights were poisoned on purpose, to study how that is found and "
        f"undone. {attack_sentence(prepared.experiment, prepared.rows)}"
    )
