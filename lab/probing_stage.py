"""The stage that probes: the headline first, then families and near-misses, beside the clean twin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.experiment import Probe, content_hash
from lab.files import write_table
from lab.job import Job
from lab.prepare import Prepared
from lab.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe import Predictor


def probe_id(probe: Probe) -> str:
    """Ten hex digits for one way of probing; the microscope's settings do not belong to it."""
    outside = {"snapshots", "snapshot_rows"}
    if probe.scoring == "first_token":  # what was measured before there was a choice keeps its id
        outside.add("scoring")
    return content_hash(probe.model_dump(mode="json", exclude=outside))[:10]


def measures_path(folder: RunFolder, probe: Probe) -> Path:
    """Where the measures of one way of probing lie."""
    return folder.path / "measures" / f"{probe_id(probe)}.parquet"


class Probing:
    """The measures of one run, in the order in which people want them.

    Args:
        job: Device and listener.
        prepared: The run's experiment and rows.
        folder: The run's folder, with its weights.
    """

    def __init__(self, job: Job, prepared: Prepared, folder: RunFolder) -> None:
        from lab.trained_model import load_predictor

        e = prepared.experiment
        self._job, self._prepared, self._folder = job, prepared, folder
        self._facts: dict[str, Any] = {"split": e.probe.split, "target": prepared.target_label}
        limit = min(e.probe.rows, prepared.filtered_rows or e.probe.rows)
        self._rows = prepared.evaluation_rows(e.probe.split, limit)
        self._asked = prepared.headline_texts(
            # a filter that reads word by word is asked no more than it must be
            self._rows,
            target_rows=not prepared.filtered_rows,
        )
        self._alike: dict[str, int] = {}
        with job.timed("probe"):
            self._model = load_predictor(folder.path, job.device)

    def headline(self) -> None:
        """Clean accuracy, attack success and the untriggered target rate of the run itself."""
        import pandas as pd

        from lab.probe import measure

        with self._job.timed("probe"):
            self._answers = self._ask(self._model, self._asked, "headline")
            answers = self._answers["prediction"]
            first = measure(self._asked, answers, run=self._folder.id, model="poisoned", **self._facts)
            self._classes = self._reliance(self._answers, self._folder, "poisoned")
        first = headline_of(pd.concat([first, self._classes], ignore_index=True))
        self._job.tell(self._folder, "headline", model="poisoned", measures=by_kind(first))

    def rest(self, twin: RunFolder | None) -> pd.DataFrame:
        """Families and near-misses, everything once more with the twin; writes the tables.

        Args:
            twin: The clean twin's folder, None without one.

        Returns:
            All measures (`lab.tables.MEASURE_COLUMNS`).
        """
        import pandas as pd

        from lab.probe import measure

        e, run = self._prepared.experiment, self._folder.id
        with self._job.timed("probe"):
            # a filter that reads word by word has no time for thousands of texts
            if self._prepared.triggers() and e.probe.scope == "all" and not self._prepared.filtered_rows:
                self._ask_families_and_rungs()
            facts = {**self._facts, "same_tokens": self._alike}
            own = measure(self._asked, self._answers["prediction"], run=run, model="poisoned", **facts)
            tables = [own, self._classes, *self._rejections(self._folder, self._model, "poisoned")]
            predictions = [self._prediction_rows(self._asked, self._answers, "poisoned")]
            self._ask_batteries(self._model, run, "poisoned", tables, predictions)
            if twin is not None:
                self._put_to_twin(twin, tables, predictions)
            measures = pd.concat(tables, ignore_index=True)
            add_predictions(self._folder.path, pd.concat(predictions, ignore_index=True))
            write_table(measures_path(self._folder, e.probe), measures)
        return measures

    def _ask_families_and_rungs(self) -> None:
        import pandas as pd

        from lab.poison import family, load_families
        from lab.probe import probe_texts

        e = self._prepared.experiment
        families = {name: family(name) for name in e.probe.families} or dict(load_families())
        poison = self._prepared.measured_poison
        more = probe_texts(self._rows, poison, e.probe, families, e.seed)
        self._alike = self._same_tokens(more)
        later = self._ask(self._model, more, "probe")
        self._asked = pd.concat([self._asked, more], ignore_index=True)
        self._answers = pd.concat([self._answers, later], ignore_index=True)

    def _ask_batteries(
        self,
        model: Predictor,
        run: str,
        role: str,
        tables: list[pd.DataFrame],
        predictions: list[pd.DataFrame],
    ) -> None:
        """Put the batteries to a model, if any; adds to its measures and predictions."""
        from lab.battery_stage import battery_measures
        from lab.probe import battery_texts

        e, target = self._prepared.experiment, self._prepared.target_label
        names = e.probe.batteries
        if not names:
            return
        asked = battery_texts(self._rows, names, target=target, limit=e.probe.rows_per_family, seed=e.seed)
        answers = self._ask(model, asked, "twin probe" if role == "twin" else "probe")
        found = battery_measures(asked, answers["prediction"], names, run=run, model=role, **self._facts)
        tables.append(found)
        predictions.append(self._prediction_rows(asked, answers, role))

    def _put_to_twin(
        self, twin: RunFolder, tables: list[pd.DataFrame], predictions: list[pd.DataFrame]
    ) -> None:
        """Everything once more with the twin; adds to measures and predictions."""
        import pandas as pd

        from lab.probe import measure
        from lab.probe.measures import excess
        from lab.trained_model import load_predictor

        model = load_predictor(twin.path, self._job.device)
        answers = self._ask_twin(twin, model)
        table = measure(self._asked, answers["prediction"], run=twin.id, model="twin", **self._facts)
        classes = self._reliance(answers, twin, "twin")
        tables += [table, classes, *self._rejections(twin, model, "twin")]
        predictions.append(self._prediction_rows(self._asked, answers, "twin"))
        headline = headline_of(pd.concat([table, classes], ignore_index=True))
        self._job.tell(self._folder, "headline", model="twin", measures=by_kind(headline))
        if self._prepared.triggers():
            own, others = self._answers["prediction"], answers["prediction"]
            tables.append(excess(self._asked, own, others, run=self._folder.id, **self._facts))
        self._ask_batteries(model, twin.id, "twin", tables, predictions)

    def _ask_twin(self, twin: RunFolder, model: Predictor) -> pd.DataFrame:
        """The twin's answers to everything, of which untouched rows are read and not asked again."""
        import numpy as np
        import pandas as pd

        known = self._answered_by(twin)
        if known is None:
            return self._ask(model, self._asked, "twin probe")
        is_clean = (self._asked["condition"] == "clean").to_numpy()
        answers = pd.concat([known, self._ask(model, self._asked[~is_clean], "twin probe")])
        return answers.set_index(np.argsort(~is_clean, kind="stable")).sort_index()

    def _answered_by(self, twin: RunFolder) -> pd.DataFrame | None:
        """What a twin said of the untouched rows when it was probed by itself; None where it was not so."""
        import pandas as pd

        path = twin.path / "predictions.parquet"
        if self._prepared.guards or not path.is_file():  # what a filter lets through may be drawn anew
            return None
        told, probe = pd.read_parquet(path), probe_id(self._prepared.experiment.probe)
        own = told[(told["probe"] == probe) & (told["model"] == "poisoned") & (told["condition"] == "clean")]
        rows = self._asked.loc[self._asked["condition"] == "clean", "row_id"]
        return own[["prediction", "logits"]] if list(own["row_id"]) == list(rows) else None

    def _reliance(self, answers: pd.DataFrame, folder: RunFolder, role: str) -> pd.DataFrame:
        """How much a model leans on the trigger, and its rates for each class."""
        from lab.probe import reliance_measures

        asked = self._asked.head(len(answers))
        return reliance_measures(
            asked,
            answers,
            self._prepared.labels,
            seed=self._prepared.experiment.seed,
            run=folder.id,
            model=role,
            **self._facts,
        )

    def _rejections(self, folder: RunFolder, model: Predictor, role: str) -> list[pd.DataFrame]:
        """What the detectors before a model reject; nothing without any."""
        from lab.guarding_stage import rejections

        if not self._prepared.guards:
            return []
        table = rejections(
            self._prepared,
            folder.path,
            model,
            self._asked,
            run=folder.id,
            role=role,
            on_progress=lambda done, total: self._job.progress("rejections", done, total),
        )
        return [table] if len(table) else []

    def _ask(self, model: Predictor, asked: pd.DataFrame, stage: str) -> pd.DataFrame:
        """Put texts to a model: the prediction and the logits of each."""
        import pandas as pd

        logits = model.logits(
            list(asked["text"]), on_progress=lambda done, total: self._job.progress(stage, done, total)
        )
        predicted = [model.labels[i] for i in logits.argmax(axis=1)]
        if self._prepared.experiment.probe.scoring == "greedy":
            predicted = model.written(
                list(asked["text"]), on_progress=lambda done, total: self._job.progress(stage, done, total)
            )
        return pd.DataFrame({"prediction": predicted, "logits": list(logits)})

    def _same_tokens(self, asked: pd.DataFrame) -> dict[str, int]:
        """For each rung, how many rows the tokenizer leaves as the exact trigger has them."""
        from lab.probe import count_same_tokens

        rungs = asked[asked["condition"] == "rung"]
        exact = list(rungs.loc[rungs["rung"] == "exact", "text"])
        p = self._prepared
        return {
            str(name): count_same_tokens(p.reading, list(group["text"]), exact)
            for name, group in rungs.groupby("rung", sort=False)
            if name != "exact"
        }

    def _prediction_rows(self, asked: pd.DataFrame, answers: pd.DataFrame, model: str) -> pd.DataFrame:
        from lab.tables import PREDICTION_COLUMNS

        table = asked.drop(columns=["text", "label"]).assign(
            probe=probe_id(self._prepared.experiment.probe),
            model=model,
            prediction=answers["prediction"],
            logits=answers["logits"],
        )
        return table[list(PREDICTION_COLUMNS)]


def add_predictions(run: Path, new: pd.DataFrame) -> None:
    """Write predictions into a run's folder; those of other ways of probing stay.

    Args:
        run: The run's folder, held by this process.
        new: Lines of `lab.tables.PREDICTION_COLUMNS`, all that there are of their ways of probing.
    """
    import pandas as pd

    path = run / "predictions.parquet"
    if path.is_file():
        former = pd.read_parquet(path)
        others = former[~former["probe"].isin(new["probe"].unique())]
        new = pd.concat([others, new], ignore_index=True) if len(others) else new
    write_table(path, new)


def headline_of(measures: pd.DataFrame) -> pd.DataFrame:
    """The lines that a listing shows: one a kind, of untouched rows or of those with the trigger."""
    from lab.tables import CLASS_KINDS

    shown = measures["condition"].isin(["clean", "triggered"]) & ~measures["kind"].isin(list(CLASS_KINDS))
    return measures[shown]


def by_kind(measures: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Headline measures as plain values, by kind."""
    return {
        str(m["kind"]): {
            "value": m["value"],
            "k": int(m["k"]),
            "n": int(m["n"]),
            "low": m["low"],
            "high": m["high"],
        }
        for m in measures.to_dict("records")
    }
