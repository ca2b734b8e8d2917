"""Surgery on a finished run: keep or drop singular components, rescale, ablate, and see both rates at once.

    opened = lab.load_run("minilm-rfc").surgery()
    opened.keep([0, 1]).measures()              # the two strongest components of every ΔW
    opened.ablate("layer.3").scale(2.0).measures()
    opened.keep([0, 1]).save_as("two components")   # a run of its own, derived from this one

Moves are weight edits of `lab.defend`. A surgery never changes: every move gives a new one on one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lab.defend import DEFENSES, WeightEdit, Weights
from lab.errors import LabError, unknown_name
from lab.modules import choose_modules
from lab.registry import Knobs, lookup
from lab.seeds import row_uniforms

if TYPE_CHECKING:
    import pandas as pd

    from lab.edited_model import EditedModel
    from lab.record import Run
    from lab.threshold import Threshold

Modules = str | Sequence[str]

#: From nothing over the trained scale to far beyond what rescaling reaches.
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


@dataclass(frozen=True)
class Surgery:
    """A run's weights after some moves.

    Attributes:
        run: The run that was opened; what lies on disk stays as it is.
        weights: ΔW and head as the moves leave them.
        moves: The moves so far, as weight edits.
    """

    run: Run
    weights: Weights
    moves: tuple[Knobs, ...]
    _rows: _AskedRows = field(repr=False)

    def apply(self, defense: str, **knobs: Any) -> Surgery:
        """Make any weight edit of `lab.defend` the next move: `apply("pt", layers=2)`.

        Raises:
            LabError: An unknown edit or knob, or one that does not fit these weights.
        """
        entry = lookup(DEFENSES, defense, "weight edit")
        if not isinstance(entry, WeightEdit):
            raise unknown_name("weight edit", defense, [n for n, d in DEFENSES.items() if _is_edit(d)])
        from lab.experiment import Experiment

        try:
            [move] = Experiment.from_dict({"defense": [{"name": defense, **knobs}]}).defense
        except LabError as error:
            # nobody who makes a move has a list of defenses with a first place
            said = str(error).replace("defense.0.", "").replace("[defense.0]", f"[{defense}]")
            raise LabError(f"surgery: {defense}: {said}") from None
        weights = entry.edit(move, self.weights, self._rows.patient)
        return replace(self, weights=weights, moves=(*self.moves, move))

    def keep(self, components: Sequence[int], modules: Modules = "all-linear", layers: int = 0) -> Surgery:
        """Keep only these singular components of ΔW, 0 being the largest."""
        return self.apply("keep", components=list(components), modules=modules, layers=layers)

    def drop(self, components: Sequence[int], modules: Modules = "all-linear", layers: int = 0) -> Surgery:
        """Drop these singular components of ΔW, 0 being the largest."""
        return self.apply("drop", components=list(components), modules=modules, layers=layers)

    def truncate(self, rank: int, modules: Modules = "all-linear", layers: int = 0) -> Surgery:
        """Keep the largest components of ΔW."""
        return self.apply("truncate", rank=rank, modules=modules, layers=layers)

    def scale(self, factor: float, modules: Modules = "all-linear", layers: int = 0) -> Surgery:
        """Multiply ΔW by a factor."""
        return self.apply("scale", factor=factor, modules=modules, layers=layers)

    def ablate(self, modules: Modules) -> Surgery:
        """Take the update of some modules ("query"), or of a whole layer ("layer.3"), away."""
        return self.apply("scale", factor=0.0, modules=modules)

    def measures(self) -> pd.DataFrame:
        """Clean accuracy, untriggered target rate and attack success of these weights, on the cached rows.

        Returns:
            Measures (`lab.tables.MEASURE_COLUMNS`).
        """
        return self._rows.measures(self.run.id, self.weights)

    def curve(self, kept: Sequence[int] | None = None, modules: Modules = "all-linear") -> pd.DataFrame:
        """Both rates against the number of singular components that are kept.

        Args:
            kept: How many to keep, each in turn, 0 for none of them; by default every number up to the widest
                update's rank, in at most ten steps. A number below 0 is refused before anything is measured.
            modules: Which modules' updates are cut.

        Returns:
            Measures with a column `kept` in front; `lab.figures.surgery_curve` draws it.

        Raises:
            LabError: A negative number of components, or no number at all.
        """
        import pandas as pd

        counts = list(kept) if kept is not None else self._counts(modules)
        if not counts:
            raise LabError("The surgery curve needs at least one number of components to keep.")
        if min(counts) < 0:
            raise LabError(f"surgery: kept = {min(counts)}: should be 0 (no component) or more.")
        parts = []
        for count in counts:
            cut = self.truncate(count, modules) if count else self.scale(0.0, modules)
            parts.append(cut.measures().assign(kept=count))
        table = pd.concat(parts, ignore_index=True)
        return table[["kept", *[c for c in table.columns if c != "kept"]]]

    def _counts(self, modules: Modules) -> list[int]:
        chosen = choose_modules(list(self.weights.updates), modules, where="surgery curve")
        # the components that can be cut: DoRA's are those of the part that factors
        updates = [self.weights.updates[name] for name in chosen]
        widest = max(getattr(u, "inner", u).rank_bound for u in updates)
        return sorted({round(i * widest / min(widest, 10)) for i in range(min(widest, 10) + 1)})

    def threshold(self, scales: Sequence[float] = SCALES) -> Threshold:
        """The threshold s* on held-out triggered rows: a heuristic, with what it predicts beside what is so.

        Args:
            scales: Multiples of the trained scale at which the triggered rows are asked again.

        Raises:
            LabError: There is no backdoor to measure, no scale, or ΔW is not linear in its scale (DoRA).
        """
        return self._rows.threshold(self.weights, scales)

    def save_as(self, name: str = "", *, twin: bool = True) -> Run:
        """Make the moves a run of its own, derived from this one, and measure it as this one was.

        A name is no part of a run's identity: moves that were saved before are that run, under the name that
        it got then.

        Args:
            name: A name to find it by.
            twin: Also measure the clean twin after the same moves.

        Raises:
            LabError: Without a move, the run would be this one.
        """
        from lab.pipeline import run

        if not self.moves:
            raise LabError("There is no move to save yet: keep, drop, scale or ablate something first.")
        e = self.run.experiment
        asked = e.model_copy(
            update={"defense": (*e.defense, *self.moves), "name": name, "probe": self.run.asked_probe}
        )
        return run(asked, runs=self.run.path.parent, twin=twin)


def open_surgery(run: Run, *, rows: int, split: str, device: str) -> Surgery:
    """Load a run's model and rows; see `lab.record.Run.surgery`.

    A derived run is opened from its parent's weights with its own edits made again, where the parent is
    there: edits that made a whole model of an adapter leave no factors, and what is saved replays every move
    on the parent's.

    Raises:
        LabError: The run is not finished, its weights cannot be edited, or too few rows are asked for.
    """
    from lab.edited_model import EditedModel
    from lab.editing_stage import apply_edits
    from lab.prepare import prepare
    from lab.train.devices import resolve_device

    if split not in ("validation", "test"):
        raise unknown_name("split", split, ["validation", "test"])
    _ = run.result  # an unfinished run says so in one sentence
    prepared = prepare(run.experiment, run.path.parent)
    parent = _parent_with_weights(run)
    patient = EditedModel(parent.path if parent else run.path, prepared, resolve_device(device))
    weights = apply_edits(prepared, patient) if parent else patient.weights
    texts = prepared.headline_texts(prepared.evaluation_rows(split, 0))
    count = rows // 2 if prepared.target_label else rows
    if count < 1:
        raise LabError(f"surgery: rows = {rows}; at least 2 are needed, untouched ones and triggered ones.")
    asked = _some_of_each(texts, count, prepared.experiment.seed)
    return Surgery(run, weights, (), _AskedRows(patient, asked, split, prepared.target_label))


def _parent_with_weights(run: Run) -> Run | None:
    """The run that a derived run edits, if it still holds what it trained."""
    parent = run.parent
    if parent and any((parent.path / part).is_dir() for part in ("adapter", "model")):
        return parent
    return None


class _AskedRows:
    """The one model of all surgeries on a run, and the tokenised rows that they are measured on."""

    def __init__(self, patient: EditedModel, asked: pd.DataFrame, split: str, target: str) -> None:
        self.patient = patient
        self._asked, self._split, self._target = asked, split, target
        self._ids = patient.predictor.reading.token_ids(list(asked["text"]))

    def measures(self, run: str, weights: Weights) -> pd.DataFrame:
        import pandas as pd

        from lab.probe import measure

        predictor = self.patient.show(weights).predictor
        answers = predictor.logits_of_tokens(self._ids).argmax(axis=1)
        predicted = pd.Series([predictor.labels[i] for i in answers])
        return measure(
            self._asked, predicted, run=run, model="poisoned", split=self._split, target=self._target
        )

    def threshold(self, weights: Weights, scales: Sequence[float]) -> Threshold:
        from lab.threshold import estimate_threshold

        triggered = self._asked.index[self._asked["condition"] == "triggered"]
        if triggered.empty:
            raise LabError("There is no backdoor in this run or its base whose threshold could be measured.")
        target = self.patient.predictor.labels.index(self._target)
        return estimate_threshold(self.patient, weights, [self._ids[i] for i in triggered], target, scales)


def _some_of_each(texts: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """So many rows of each condition, drawn by row id: a table may be sorted by label."""
    drawn = texts.iloc[row_uniforms(seed, "surgery", texts["row_id"]).argsort(kind="stable")]
    return drawn.groupby("condition", sort=False).head(count).reset_index(drop=True)


def _is_edit(defense: object) -> bool:
    return isinstance(defense, WeightEdit)
