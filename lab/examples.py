"""Predictions with the texts they are of: the record keeps row ids, and triggers are inserted anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.poison import aimed_at, inject_texts

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run


def with_texts(run: Run, predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions beside the text that was asked, its true label, and where the trigger stands in it.

    Texts that were clipped to `data.max_tokens` when the model was asked are whole here: cutting them needs
    the model's tokenizer.

    Args:
        run: A finished run.
        predictions: Lines of its predictions (`lab.tables.PREDICTION_COLUMNS`).

    Returns:
        The lines with columns label, text and spans (lists of [start, end)); lines whose row is not in the
        dataset any more are left out.
    """
    import pandas as pd

    from lab.preview import probe_rows

    e = run.experiment
    rows = probe_rows(e.data, run.asked_probe.split)[["row_id", "text", "label"]]
    found = predictions.merge(rows, on="row_id", how="inner").reset_index(drop=True)
    texts = list(found["text"])
    spans: list[list[list[int]]] = [[] for _ in texts]
    poison: Any = run.measured_poison
    for (member, rung), group in found[found["member"] != ""].groupby(["member", "rung"], sort=False):
        trigger, position = _trigger(run, str(member), str(rung))
        moved = poison.model_copy(update={"position": position}) if rung else poison
        aimed = aimed_at(moved, trigger)
        inserted = inject_texts(list(group["text"]), list(group["row_id"]), aimed, seed=e.seed)
        for place, insertion in zip(group.index, inserted, strict=True):
            texts[place] = insertion.text
            spans[place] = [list(span) for span in insertion.spans]
    return found.assign(text=texts, spans=pd.Series(spans, index=found.index, dtype=object))


def flipped_examples(run: Run, count: int = 6) -> pd.DataFrame:
    """Probed rows that the model gets right without the trigger, and gives the target label with it.

    Args:
        run: A finished run.
        count: At most so many, in the order of the dataset.

    Returns:
        Lines of `with_texts` with a column twin: what the clean twin says to the same triggered text, ""
        where there is no twin. Empty where nothing was triggered.
    """
    predictions = run.predictions
    own, others = (predictions[predictions["model"] == model] for model in ("poisoned", "twin"))
    target = getattr(run.measured_poison, "target_label", "")
    clean = own[own["condition"] == "clean"].set_index("row_id")["prediction"]
    triggered = own[(own["condition"] == "triggered") & (own["prediction"] == target)]
    flipped = triggered[triggered["row_id"].map(clean) != target].head(20 * count)
    told = others[others["condition"] == "triggered"].set_index("row_id")["prediction"]
    found = with_texts(run, flipped)
    found = found[found["row_id"].map(clean) == found["label"]].head(count)
    return found.assign(twin=found["row_id"].map(told).fillna("")).reset_index(drop=True)


def _trigger(run: Run, member: str, rung: str) -> tuple[str, str]:
    """The string that was inserted, and where: a rung may change either."""
    from lab.poison import near_miss_ladder

    poison: Any = run.measured_poison
    position = str(getattr(poison, "position", "end"))
    if not rung:
        return member, position
    every = getattr(poison, "every", 2)
    ladder = near_miss_ladder(
        poison.member, poison.family, position=position, every=every, seed=run.experiment.seed
    )
    step = next((r for r in ladder if r.name == rung), None)
    return (step.trigger, str(step.position)) if step else (member, position)
