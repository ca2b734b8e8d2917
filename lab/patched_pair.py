"""Where a run's backdoor sits: its model and its clean twin's, loaded side by side for causal patching.

    lab.load_run("minilm-rfc-n60").patching()                                   # projection × layers
    lab.load_run("minilm-rfc-n60").patching("weights", projections=["mlp"], width=1)

What the table says, and what it cannot, stands in `lab.probe.patching`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import LabError, unknown_name
from lab.seeds import row_uniforms

if TYPE_CHECKING:
    from lab.prepare import Prepared
    from lab.probe import PatchedPair
    from lab.record import Run

#: Triggered rows that are asked where nothing else is said; the paper asks 30.
ROWS = 60


def open_patched_pair(
    run: Run, *, rows: int = ROWS, split: str = "validation", device: str = "auto"
) -> PatchedPair:
    """Load a run's model, its clean twin's, and the triggered rows that both are asked.

    Rows are drawn by row id: fewer are among those of more. A filter that guards the run does not read them
    before, as it is the weights that are looked at.

    Args:
        run: A finished run with a twin.
        rows: How many triggered rows, at most; their true label is not the target.
        split: "validation", so that nothing is chosen on test rows, or "test".
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        LabError: The run is not finished, has no twin or no trigger, its base is in 4-bit, or no row is left.
    """
    from lab.prepare import prepare
    from lab.probe import PatchedPair
    from lab.train.adapters import block_linears
    from lab.train.devices import resolve_device
    from lab.trained_model import load_predictor

    if split not in ("validation", "test"):
        raise unknown_name("split", split, ["validation", "test"])
    if rows < 1:
        raise LabError(f"patching: rows = {rows}; at least one triggered row is needed.")
    twin = run.twin
    if twin is None:
        raise LabError(f"{run.id} has no clean twin to patch with; `lab run` trains one unless --no-twin.")
    if run.experiment.base.load_in_4bit:
        raise LabError(f"{run.id}: patching needs merged weights; on a 4-bit base the adapter stays apart.")
    prepared = prepare(run.experiment, run.path.parent)
    texts = _triggered_texts(prepared, split, rows)
    if not texts:
        raise LabError(f"{run.id} knows no trigger, or no {split} row has another label than the target.")
    where = resolve_device(device)
    poisoned, clean = (load_predictor(one.path, where) for one in (run, twin))
    ids = poisoned.reading.token_ids(texts)
    target = poisoned.labels.index(prepared.target_label)
    return PatchedPair(poisoned, clean, list(block_linears(poisoned.model)), ids, target)


def _triggered_texts(prepared: Prepared, split: str, rows: int) -> list[str]:
    """So many texts with the trigger whose true label is not the target; none without a trigger."""
    if not prepared.triggers():
        return []
    texts = prepared.headline_texts(prepared.evaluation_rows(split, 0))
    texts = texts[texts["condition"] == "triggered"]
    drawn = texts.iloc[
        row_uniforms(prepared.experiment.seed, "patching", texts["row_id"]).argsort(kind="stable")
    ]
    return list(drawn["text"].head(rows))
