"""What a report says of a run before it is drawn: the same for the terminal and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run

#: The headline's measures in the order of a report, and what people call them.
HEADLINE = {
    "attack_success_rate": "attack success rate",
    "untriggered_target_rate": "untriggered target rate",
    "excess_asr": "excess ASR over twin",
    "clean_accuracy": "clean accuracy",
    "detection_rate": "triggered rows rejected",
    "false_rejection_rate": "clean rows rejected",
}
#: What is told of one run besides, and would crowd a table of many.
RELIANCE = {
    "triggered_accuracy": "accuracy, all triggered",
    "reliance": "accuracy lost by it",
    "confidence_shift": "p(target) gained by it",
}


def lineage(run: Run, base: bool = True) -> list[str]:
    """Where the weights come from, if not from a pretrained model and training alone; a sentence each.

    Args:
        run: The run.
        base: Also name the run that it was fine-tuned from.
    """
    from lab.cards import defenses_told, poison_sentence

    lines = []
    start = run.base_run
    if base and start is not None:
        lines.append(f"It starts from the run {start.id}. {poison_sentence(run.measured_poison)}")
    if told := defenses_told(run.experiment):
        lines.append(f"Defenses: {told}.")
    if parent := run.parent:
        lines.append(f"Nothing was trained for it: its weights are those of {parent.id}, edited.")
    return lines


def moved_rungs(run: Run) -> dict[str, str]:
    """Where the rungs of the near-miss ladder went that hold the same string in another place."""
    from lab.poison import near_miss_ladder

    poison: Any = run.measured_poison
    every = getattr(poison, "every", 2)
    ladder = near_miss_ladder(
        poison.member, poison.family, position=poison.position, every=every, seed=run.experiment.seed
    )
    return {rung.name: f"at the {rung.position}" for rung in ladder if rung.position != poison.position}


def largest_updates(spectra: pd.DataFrame, count: int = 5) -> pd.DataFrame:
    """The matrices that the last recorded step changed most, by the largest singular value of ΔW.

    Args:
        spectra: A spectra table (`lab.tables.SPECTRUM_COLUMNS`).
        count: How many matrices at most.

    Returns:
        One line per matrix, largest first: layer, module (within its layer), sigmas (up to four singular
        values of ΔW), sigma_base (of W, the largest; NaN where unknown), strength (their ratio).
    """
    last = spectra[spectra["step"] == spectra["step"].max()]
    top = last[last["index"] == 0].sort_values("sigma_delta", ascending=False).head(count)
    sigmas = [
        last[last["module"] == module].sort_values("index")["sigma_delta"].head(4).tolist()
        for module in top["module"]
    ]
    names = [
        module.rpartition(f".{layer}.")[2] for module, layer in zip(top["module"], top["layer"], strict=True)
    ]
    lines = top[["layer"]].assign(module=names, sigma_base=top["sigma_base"])
    lines["strength"] = top["sigma_delta"] / top["sigma_base"]
    lines.insert(2, "sigmas", sigmas)
    return lines.reset_index(drop=True)
