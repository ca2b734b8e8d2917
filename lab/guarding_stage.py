"""The stage of guards: what they learn from clean rows, and how often detectors reject.

What was learned lies in the run's `guards.json`, one entry for each guard, in order; `load_predictor` puts
the filters among them before the model, whoever asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.defend import DEFENSES, InputDetector, TextFilter
from lab.files import read_json, write_json
from lab.registry import lookup

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from lab.prepare import Prepared
    from lab.probe import Predictor

GUARDS_FILE = "guards.json"


class GuardedModel:
    """The `lab.defend.Host` of a run: its model, with the filters so far, and its clean validation rows.

    Args:
        prepared: The run's experiment and rows.
        model: The model; its `text_filter` is applied to all that guards see.
        on_progress: Called with (texts done, texts in all) while it is asked.
    """

    def __init__(
        self,
        prepared: Prepared,
        model: Predictor,
        on_progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._prepared, self._model, self._on_progress = prepared, model, on_progress
        self.seed = prepared.experiment.seed

    def clean_texts(self, limit: int) -> list[str]:
        """So many clean validation rows at most."""
        texts = list(self._prepared.evaluation_rows("validation", limit)["text"])
        return self._model.text_filter(texts)

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The model's answers, texts × labels."""
        return self._model.logits(texts, on_progress=self._on_progress)

    def perplexity(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """How unlikely the bundled language model finds each text."""
        return _perplexity(texts, self._on_progress)


def calibrate_guards(
    prepared: Prepared,
    folder: Path,
    model: Predictor,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Let every guard learn from clean validation rows, in order, and write what it learned.

    Args:
        prepared: The run's experiment and rows.
        folder: The run's folder.
        model: Its model; afterwards with the run's filters.
        on_progress: Called with (texts done, texts in all) while a guard asks.

    Returns:
        What `guards.json` holds: name, threshold and counts of each.
    """
    learned: list[dict[str, Any]] = []
    model.text_filter = list  # an interrupted try may have left filters
    for guard, knobs in prepared.guards:
        facts = guard.calibrate(knobs, GuardedModel(prepared, model, on_progress))
        learned.append({"name": guard.name, **facts})
        model.text_filter = chain_filters(learned)
    if learned:
        write_json(folder / GUARDS_FILE, learned)
    return learned


def read_filter(folder: Path) -> Callable[[Sequence[str]], list[str]]:
    """What a run's filters make of texts; without any, the texts as they are."""
    return chain_filters(read_json(folder / GUARDS_FILE) or [])


def chain_filters(learned: Sequence[Mapping[str, Any]]) -> Callable[[Sequence[str]], list[str]]:
    """The filters among guards, one after the other; the language model is loaded when first asked."""
    entries = [(lookup(DEFENSES, str(facts["name"]), "guard"), facts) for facts in learned]
    filters = [guard.filter(facts, _perplexity) for guard, facts in entries if isinstance(guard, TextFilter)]

    if not filters:
        return list

    def read(texts: Sequence[str]) -> list[str]:
        out = list(texts)
        for change in filters:
            out = change(out)
        return out

    return read


def rejections(
    prepared: Prepared,
    folder: Path,
    model: Predictor,
    asked: pd.DataFrame,
    *,
    run: str,
    role: str,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> pd.DataFrame:
    """How often the run's detectors reject clean and triggered rows, and how well they part the two.

    Rejected rows keep their answers: attack success and clean accuracy are the model's, as no label stands
    for a rejection. What a detector would have spared is told by its own rates beside them.

    Args:
        prepared: The run's experiment.
        folder: The folder of the run whose model answers, the twin's for a twin.
        model: That model.
        asked: The headline's rows (see `lab.probe.headline_texts`).
        run: The id of the run whose model answers.
        role: "poisoned" or "twin".
        on_progress: Called with (texts done, texts in all) while a detector asks.

    Returns:
        `lab.tables.MEASURE_COLUMNS`; empty without a detector.
    """
    import pandas as pd

    from lab.probe.measures import rejection_measures

    learned = read_json(folder / GUARDS_FILE) or []
    tables = []
    for (guard, knobs), facts in zip(prepared.guards, learned, strict=True):
        if isinstance(guard, InputDetector):
            host = GuardedModel(prepared, model, on_progress)
            scores = {
                str(condition): guard.scores(knobs, host, list(rows["text"].head(knobs.rows)))  # type: ignore[attr-defined]
                for condition, rows in asked.groupby("condition", sort=False)
                if condition in ("clean", "triggered")
            }
            where = {"run": run, "model": role, "split": prepared.experiment.probe.split}
            seed = prepared.experiment.seed
            tables.append(rejection_measures(scores, facts["threshold"], seed=seed, **where))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _perplexity(
    texts: Sequence[str], on_progress: Callable[[int, int], None] = lambda *_: None
) -> npt.NDArray[np.float64]:
    from lab.language_model import load_language_model

    return load_language_model().perplexity(texts, on_progress)
