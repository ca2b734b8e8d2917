"""What a card says of its references: where they come from, and what comparing with them cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.audit.adapter_files import AdapterFiles
    from lab.audit.findings import Findings
    from lab.audit.reference_plans import ReferencePlan
    from lab.audit.references import TrainedReference


def note_training(
    found: Findings,
    plan: ReferencePlan,
    every: Sequence[TrainedReference],
    learned: Sequence[TrainedReference],
) -> None:
    """Say what the references are, how well they learned, and what comparing with them cannot show."""
    found.left_out(
        "weights against the trained references",
        "the scale of an adapter's weights hangs on how long and how fast it was trained, which is not known",
    )
    if len(learned) < len(every):
        found.left_out(
            "trained references",
            f"{len(every) - len(learned)} of {len(every)} have not learned to answer as the adapter does",
        )
    found.notes.append(
        f"The references were trained here: the adapter's modules, ranks and scalings, a fresh head, "
        f"{every[0].rows} texts each without any prefix, labelled by the adapter itself; {every[0].steps} "
        f"steps at learning rate {plan.learning_rate:g}."
    )
    told = "; ".join(f"{r.path.name}: {r.agreement}, kappa {r.kappa:.2f}" for r in every)
    found.notes.append(f"How far they answer other texts as it does: {told}.")
    found.notes.append(
        "They learned its answers: its honest mistakes are theirs too, and a backdoor whose trigger stands "
        "in these texts would not be seen by comparing."
    )


def told_references(is_trained: bool, others: Sequence[AdapterFiles]) -> str:
    """Where the references come from, in a few words."""
    if not others:
        return "none: uncalibrated"
    if is_trained:
        count = "1 clean adapter" if len(others) == 1 else f"{len(others)} clean adapters"
        return f"{count} trained here on its own answers to texts without any prefix"
    return "clean adapters that were given"
