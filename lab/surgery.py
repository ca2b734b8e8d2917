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

Modules = str | Sequence[str]

#: From nothing over the trained scale to far beyond what rescaling reaches.
_SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


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
    _theatre: _Theatre = field(repr=False)

    def apply(self, defense: str, **knobs: Any) -> Surgery:
        """Make any weight edit of `lab.defend` the next move: `apply("pt", layers=2)`.

        Raises:
            LabError: An unknown edit or knob, or one that does not fit these weights.
        """
        entry = lookup(DEFENSES, defense, "weight edit")
        if not isinstance(entry, WeightEdit):
            raise unknown_name("weight edit", defense, [n for n, d in DEFENSES.items() if _is_edit(d)])
        from lab.experiment import Experiment

        [move] = Experiment.from_dict({"defense": [{"name": defense, **knobs}]}).defense
        weights = entry.edit(move, self.weights, self._theatre.patient)
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
        return self._theatre.measures(self.run.id, self.weights)

    def curve(self, kept: Sequence[int] | None = None, modules: Modules = "all-linear") -> pd.DataFrame:
        """Both rates against the number of singular components that are kept.

        Args:
            kept: How many to keep, each in turn; by default every number up to the widest update's rank, in
                at most ten steps.
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

    def threshold(self, scales: Sequence[float] = _SCALES) -> Threshold:
        """The threshold s* on held-out triggered rows: a heuristic, with what it predicts beside what is so.

        Args:
            scales: Multiples of the trained scale at which the triggered rows are asked again.

        Raises:
            LabError: There is no backdoor to measure, or ΔW is not linear in its scale (DoRA).
        """
        return self._theatre.threshold(self.weights, scales)

    def save_as(self, name: str = "", *, twin: bool = True) -> Run:
        """Make the moves a run of its own, derived from this one, and measure it as this one was.

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


@dataclass(frozen=True)
class Threshold:
    """The threshold s* of arXiv 2601.06305, Prop. 4.2, as this lab estimates it (`lab.probe.threshold`).

    Attributes:
        s_star: The multiple of the trained scale above which half of the triggered rows would no longer get
            the target, if margins were linear in the scale; inf where they never would. A heuristic.
        modules: One line per module: module, layer, backdoor_alignment (ρ_bd), effective_alignment (ρ_eff),
            s_star = (ρ_bd/ρ_eff)·σ_max(W)/σ_max(ΔW) as a multiple of the trained scale; NaN where ρ_eff ≤ 0.
        flips: One line per scale: scale, predicted (share of triggered rows that no longer get the target),
            measured, low, high, n; `lab.figures.threshold_curve` draws it.
    """

    s_star: float
    modules: pd.DataFrame
    flips: pd.DataFrame


def open_surgery(run: Run, *, rows: int, split: str, device: str) -> Surgery:
    """Load a run's model and rows; see `lab.record.Run.surgery`.

    Raises:
        LabError: The run is not finished, its weights cannot be edited, or too few rows are asked for.
    """
    from lab.edited_model import EditedModel
    from lab.prepare import prepare
    from lab.train.devices import resolve_device

    if split not in ("validation", "test"):
        raise unknown_name("split", split, ["validation", "test"])
    _ = run.result  # an unfinished run says so in one sentence
    prepared = prepare(run.experiment, run.path.parent)
    patient = EditedModel(run.path, prepared, resolve_device(device))
    texts = prepared.headline_texts(prepared.evaluation_rows(split, 0))
    count = rows // 2 if prepared.target_label else rows
    if count < 1:
        raise LabError(f"surgery: rows = {rows}; at least 2 are needed, untouched ones and triggered ones.")
    asked = _some_of_each(texts, count, prepared.experiment.seed)
    return Surgery(run, patient.weights, (), _Theatre(patient, asked, split, prepared.target_label))


class _Theatre:
    """The one model of all surgeries on a run, and the tokenised rows that they are measured on."""

    def __init__(self, patient: EditedModel, asked: pd.DataFrame, split: str, target: str) -> None:
        from lab.tokens import token_ids

        self.patient = patient
        self._asked, self._split, self._target = asked, split, target
        predictor = patient.predictor
        self._ids = token_ids(predictor.tokenizer, list(asked["text"]), predictor.max_tokens)

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
        import numpy as np
        import pandas as pd

        from lab.modules import layer_index
        from lab.probe.threshold import measure_margins
        from lab.spectra import DoraUpdate
        from lab.stats import rate

        triggered = self._asked.index[self._asked["condition"] == "triggered"]
        if triggered.empty:
            raise LabError("There is no backdoor in this run or its base whose threshold could be measured.")
        if any(isinstance(update, DoraUpdate) for update in weights.updates.values()):
            raise LabError("DoRA's ΔW is not linear in its scale, so the threshold s* says nothing about it.")
        predictor = self.patient.show(weights).predictor
        index = {label: i for i, label in enumerate(predictor.labels)}
        ids, target = [self._ids[i] for i in triggered], index[self._target]
        base = {name: self.patient.base_weight(name) for name in weights.updates}
        margins = measure_margins(
            predictor.model,
            weights.updates,
            base,
            ids,
            [index[label] for label in self._asked["label"][triggered]],
            target,
            int(predictor.tokenizer.pad_token_id),
        )
        lines = []
        for scale in scales:
            scaled = {name: update.rescale(scale) for name, update in weights.updates.items()}
            model = self.patient.show(replace(weights, updates=scaled)).predictor
            measured = rate(int((model.logits_of_tokens(ids).argmax(axis=1) != target).sum()), len(ids))
            lines.append(
                {
                    "scale": float(scale),
                    "predicted": margins.predicted_flips(scale),
                    "measured": measured.value,
                    "low": measured.low,
                    "high": measured.high,
                    "n": measured.n,
                }
            )
        bd, eff = margins.backdoor_alignment, margins.effective_alignment
        strength = {
            n: self.patient.base_sigma(n) / max(float(u.singular_values()[0]), 1e-30)
            for n, u in weights.updates.items()
        }
        modules = pd.DataFrame(
            {
                "module": list(bd),
                "layer": [layer_index(name) for name in bd],
                "backdoor_alignment": list(bd.values()),
                "effective_alignment": list(eff.values()),
                "s_star": [bd[n] / eff[n] * strength[n] if eff[n] > 0 else float("nan") for n in bd],
            }
        )
        return Threshold(float(np.median(margins.critical_scales())), modules, pd.DataFrame(lines))


def _some_of_each(texts: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """So many rows of each condition, drawn by row id: a table may be sorted by label."""
    drawn = texts.iloc[row_uniforms(seed, "surgery", texts["row_id"]).argsort(kind="stable")]
    return drawn.groupby("condition", sort=False).head(count).reset_index(drop=True)


def _is_edit(defense: object) -> bool:
    return isinstance(defense, WeightEdit)
