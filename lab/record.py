"""A run, as one holds it in Jupyter: its tables, its figures, its model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.experiment import Experiment, Probe
from lab.files import read_json
from lab.paths import runs_dir
from lab.store import RunFolder, find_run

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe import Predictor
    from lab.probe.occlusion import Hiding, Score
    from lab.probe.patching import Method
    from lab.registry import Knobs
    from lab.run_figures import Figures
    from lab.spectra import BaseSpectrum, Update
    from lab.surgery import Surgery


class Run:
    """A run on disk. Nothing is read before it is asked for.

    Args:
        path: The run's folder.
        probe: Which way of probing the measures are of; by default the last one on test rows.
    """

    def __init__(self, path: Path, probe: Probe | None = None) -> None:
        self.path = path
        self._folder = RunFolder(path)
        self._probe = probe

    def __repr__(self) -> str:
        return f"<Run {self.id}: {self.state}>"

    def _repr_html_(self) -> str:
        from lab.notebook_view import run_html

        return run_html(self)

    @property
    def id(self) -> str:
        """The folder's name."""
        return self._folder.id

    @property
    def state(self) -> str:
        """One of `lab.store.STATES`."""
        return self._folder.state()

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """What `experiment.json` holds: the resolved experiment, versions, hashes."""
        record = read_json(self.path / "experiment.json")
        if record is None:
            raise LabError(f"{self.path / 'experiment.json'} is missing or torn: the run cannot be read.")
        return record

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        return Experiment.from_dict(self.record["experiment"])

    @functools.cached_property
    def measured_poison(self) -> Knobs:
        """The poison whose trigger the run was measured with: its own, or that of the base it starts from."""
        poison = self.record.get("measured_poison", self.record["experiment"]["poison"])
        return Experiment.from_dict({"poison": poison}).poison

    @property
    def base_run(self) -> Run | None:
        """The run that this one was fine-tuned from; None where it starts from a pretrained model."""
        name = self.record.get("base_run", "")
        return Run(self.path.parent / name) if name else None

    @property
    def parent(self) -> Run | None:
        """The run whose trained weights this derived run edits; None where it was trained itself."""
        name = self.record.get("parent", "")
        return Run(self.path.parent / name) if name else None

    def surgery(self, *, rows: int = 400, split: str = "validation", device: str = "auto") -> Surgery:
        """Lay the trained weights open: edit them and get both rates back, without touching the run.

        Args:
            rows: How many rows to ask; half untouched, half with the trigger, where there is one.
            split: "validation", so that nothing is chosen on test rows, or "test".
            device: "auto", "cpu", "cuda" or "mps".
        """
        from lab.surgery import open_surgery

        return open_surgery(self, rows=rows, split=split, device=device)

    @property
    def asked_probe(self) -> Probe:
        """The way of probing that the measures and predictions are of."""
        return self._probe or Probe.model_validate(self.headline["probe"])

    @property
    def headline(self) -> dict[str, Any]:
        """The headline of one way of probing: split, measures by model and kind, families, twin."""
        from lab.probing_stage import probe_id

        result = self.result
        wanted = probe_id(self._probe) if self._probe else result["shown"]
        if wanted not in result["probes"]:
            raise LabError(f"{self.id} has not been probed in that way; `lab.run` measures what is missing.")
        return result["probes"][wanted]

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of the logits."""
        return tuple(self.record["labels"])

    @property
    def result(self) -> dict[str, Any]:
        """What `result.json` holds: headline measures with intervals, timings, memory."""
        result = read_json(self.path / "result.json")
        if result is None:
            raise LabError(f"{self.id} is {self.state}, it has no result yet; ask `lab run` for it again.")
        return result

    @property
    def twin(self) -> Run | None:
        """The clean twin; None where there is none."""
        name = self.headline["twin"]
        return Run(self.path.parent / name) if name else None

    @property
    def events(self) -> pd.DataFrame:
        """The events of training, one line each: step, kind, loss, learning rate."""
        import pandas as pd

        return pd.DataFrame(self._folder.read_events()).reindex(
            columns=["time", "step", "kind", "loss", "learning_rate", "stage", "measures", "sigma"]
        )

    @property
    def rows(self) -> pd.DataFrame:
        """The training rows (`lab.tables.ROW_COLUMNS`)."""
        return self._table("rows.parquet")

    @property
    def predictions(self) -> pd.DataFrame:
        """One line per probe example and model (`lab.tables.PREDICTION_COLUMNS`)."""
        from lab.probing_stage import probe_id

        table = self._table("predictions.parquet")
        return table[table["probe"] == probe_id(self.asked_probe)].reset_index(drop=True)

    @property
    def spectra(self) -> pd.DataFrame:
        """One line per singular value (`lab.tables.SPECTRUM_COLUMNS`).

        While the run is in training, what the microscope has seen so far, without W's.
        """
        if not (self.path / "spectra.parquet").is_file():
            from lab.training_stage import sigma_table

            looks = {e["step"]: e["sigma"] for e in self._folder.read_events() if e["kind"] == "spectrum"}
            if looks:
                return sigma_table(looks, {}, last=-1)
        return self._table("spectra.parquet")

    @functools.cached_property
    def updates(self) -> dict[str, Update]:
        """ΔW of every module, by name, scaling included; factored where the method factors it."""
        from lab.saved_updates import read_updates

        _ = self.result  # an unfinished run says so in one sentence
        return read_updates(self.path, self.experiment)

    @property
    def spectral_summary(self) -> pd.DataFrame:
        """One line per module: strength, effective and stable rank, intruders (`lab.spectra.describe`)."""
        from lab.modules import layer_index
        from lab.spectra import describe

        table = describe(self.updates, self._base_spectra)
        table.insert(1, "layer", [layer_index(module) for module in table["module"]])
        return table

    @property
    def alignment(self) -> pd.DataFrame:
        """How much of ΔW lies in W's top-k singular subspaces, k by k (`lab.spectra.alignment`)."""
        from lab.modules import layer_index
        from lab.spectra import alignment

        table = alignment(self.updates, self._base_spectra)
        table.insert(1, "layer", [layer_index(module) for module in table["module"]])
        return table

    @functools.cached_property
    def _base_spectra(self) -> dict[str, BaseSpectrum]:
        from lab.saved_updates import read_base_spectra

        return read_base_spectra(self.experiment, self.path.parent, self.updates)

    @property
    def measures(self) -> pd.DataFrame:
        """Every number in long form (`lab.tables.MEASURE_COLUMNS`), the microscope's included."""
        import pandas as pd

        from lab.probing_stage import measures_path

        curves = self.training_measures(self.headline["twin"])
        parts = [curves, pd.read_parquet(measures_path(self._folder, self.asked_probe))]
        return pd.concat([p for p in parts if len(p)], ignore_index=True)

    @property
    def battery_categories(self) -> pd.DataFrame:
        """The attack rate of each category of `probe.batteries`, beside the twin's; empty without any.

        `lab.battery_stage.battery_categories` says which columns it has.
        """
        from lab.battery_stage import battery_categories

        return battery_categories(self.measures)

    @property
    def curves(self) -> pd.DataFrame:
        """What the microscope saw of this run so far, as measures; also while it trains."""
        return self.training_measures()

    def training_measures(self, twin: str = "") -> pd.DataFrame:
        """The microscope's rates of this run so far, and of a twin beside it.

        Args:
            twin: The twin's run id, which an unfinished run does not know yet; "" for none.
        """
        import pandas as pd

        parts = [_curve(self, "poisoned")]
        if twin and (self.path.parent / twin).is_dir():
            parts.append(_curve(Run(self.path.parent / twin), "twin"))
        return pd.concat(parts, ignore_index=True)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.path / name
        if not path.is_file():
            raise LabError(f"{self.id} is {self.state}, it has no {name} yet; ask `lab run` for it again.")
        return pd.read_parquet(path)

    def predict(self, texts: str | Sequence[str]) -> pd.DataFrame:
        """Put texts to the trained model.

        Args:
            texts: One text, or any number of them.

        Returns:
            A table: text, prediction, and the probability of each label as `p(label)`.
        """
        import pandas as pd
        from scipy.special import softmax

        texts = [texts] if isinstance(texts, str) else list(texts)
        logits = self._predictor.logits(texts)
        table = pd.DataFrame({"text": texts})
        table["prediction"] = [self.labels[i] for i in logits.argmax(axis=1)] if len(texts) else []
        probabilities = softmax(logits.astype(float), axis=1)
        for i, label in enumerate(self.labels):
            table[f"p({label})"] = probabilities[:, i]
        return table

    def occlusion(
        self, text: str, label: str = "", *, hide: Hiding = "auto", score: Score = "probability"
    ) -> pd.DataFrame:
        """How far each word of a text carries a label, "" for the predicted one (`lab.probe.occlusion`)."""
        from lab.probe import measure_occlusion

        return measure_occlusion(self._predictor, text, label, hide=hide, score=score)

    def attention(self, text: str, layers: Sequence[int] | None = None) -> pd.DataFrame:
        """Where the trained model looks, by layer and head (`lab.probe.attention`)."""
        from lab.probe import measure_attention

        return measure_attention(self._attentive_predictor, text, layers)

    def attention_entropy(self, *, rows: int = 64, split: str = "validation", **options: Any) -> pd.DataFrame:
        """How spread out attention is with the trigger and without, by layer and head, on the same rows.

        Args:
            rows: How many rows, at most; their true label is not the target.
            split: "validation" or "test".
            **options: on_progress and seed of `lab.probe.attention_entropy_shift`, whose table it is.

        Raises:
            LabError: The run knows no trigger, or its model gives no attention.
        """
        from lab.paired_texts import triggered_pairs
        from lab.prepare import prepare
        from lab.probe import attention_entropy_shift

        clean, injected = triggered_pairs(prepare(self.experiment, self.path.parent), rows, split)
        if not clean:
            raise LabError(
                f"{self.id} knows no trigger, or no {split} row has another label than the target."
            )
        return attention_entropy_shift(self._attentive_predictor, clean, injected, **options)

    def patching(
        self,
        method: Method = "activations",
        *,
        rows: int = 60,
        split: str = "validation",
        device: str = "auto",
        **window: Any,
    ) -> pd.DataFrame:
        """Where the backdoor sits: attack success with parts of the clean twin in this model, and back.

        Args:
            method: "activations", or "weights" to exchange ΔW.
            rows: How many triggered rows to ask.
            split: "validation", so that nothing is chosen on test rows, or "test".
            device: "auto", "cpu", "cuda" or "mps".
            **window: projections, width, stride, directions and on_progress of
                `lab.probe.PatchedPair.table`, which says what it returns.
        """
        from lab.patched_pair import open_patched_pair

        return open_patched_pair(self, rows=rows, split=split, device=device).table(method, **window)

    def kernels(self, **options: Any) -> pd.DataFrame:
        """The neural tangent kernels of LoRA and of full fine-tuning, where the run started and as trained.

        Args:
            **options: Those of `lab.kernel_study.KernelOptions`: rows, split, head, sketch, device and
                on_progress. `lab.kernel_study.measure_run_kernels` says what is returned.
        """
        from lab.kernel_study import measure_run_kernels

        return measure_run_kernels(self, **options)

    @functools.cached_property
    def _predictor(self) -> Predictor:
        from lab.train.devices import resolve_device
        from lab.trained_model import load_predictor

        return load_predictor(self.path, resolve_device())

    @functools.cached_property
    def _attentive_predictor(self) -> Predictor:
        """The same model, loaded so that it gives its attention; slower, so for nothing else."""
        from lab.train.devices import resolve_device
        from lab.trained_model import load_predictor

        return load_predictor(self.path, resolve_device(), attention="eager")

    @property
    def figure(self) -> Figures:
        """The run's figures: `run.figure.training_curves()` and so on."""
        from lab.run_figures import Figures

        return Figures(self)


def load_run(name: str, runs: str | Path | None = None) -> Run:
    """Open a run by its id, the beginning of its id or hash, or its folder.

    Raises:
        LabError: Where no run or more than one fits.
    """
    return Run(find_run(name, runs_dir(runs)).path)


def _curve(run: Run, model: str) -> pd.DataFrame:
    import pandas as pd

    from lab.tables import MEASURE_COLUMNS

    blank: dict[str, Any] = dict.fromkeys(MEASURE_COLUMNS, "") | {"layer": -1, "split": "validation"}
    lines = []
    for event in RunFolder(run.path).read_events():
        if event["kind"] != "probe":
            continue
        for kind, m in event["measures"].items():
            condition = "triggered" if kind == "attack_success_rate" else "clean"
            where = {
                "run": run.id,
                "model": model,
                "kind": kind,
                "condition": condition,
                "step": event["step"],
            }
            lines.append({**blank, **where, **m})
    return pd.DataFrame(lines, columns=list(MEASURE_COLUMNS))
