"""The whole audit of one adapter, from its files to its card; `lab.audit_adapter`.

Three kinds of findings: what the weights show by themselves, which prefixes of a battery move the answers,
and which strings a search finds that move them. All of them are read against clean reference adapters where
there are any; a number without a reference stands on the card as uncalibrated.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.audit.adapter_files import AdapterFiles, UnreadableAdapterError
from lab.audit.archives import opened
from lab.audit.card import AuditCard, ReferenceFacts, RowsFacts
from lab.audit.findings import FEWEST_REFERENCES, Findings, judged
from lab.audit.kept_cards import card_key, keep_card, read_card
from lab.audit.loud_prefixes import loud_prefixes
from lab.audit.reference_notes import note_training, told_references
from lab.audit.reference_plans import ReferencePlan, asked_references
from lab.audit.references import train_references
from lab.audit.suspects import base_of, load_suspect, way_of
from lab.audit.texts import AuditTexts, audit_texts, is_own_run, run_of, unknown_task
from lab.audit.trigger_search import SearchBudget, search_triggers
from lab.audit.wording import Wording, given_wording, run_wording
from lab.batteries import battery as find_battery
from lab.errors import LabError, NotTrainableError
from lab.showing import showing

if TYPE_CHECKING:
    import torch

    from lab.probe import Predictor

#: Tokens of a row that a battery is put to: the first of these at which not all rows get one label. Prefixes
#: are many, and rows of a few tokens mostly say what they are.
_ROW_TOKENS = (8, 16, 48)
#: Parameters without embeddings from which on a base is large: MiniLM has 11 million, SmolLM2 106.
_LARGE = 50_000_000
#: Texts in which examples of a string's flips are looked for.
_EXAMPLE_TEXTS = 48
Listener = Callable[[dict[str, Any]], None]
#: Trains references for an adapter, once it can answer.
_Training = Callable[["Predictor"], Sequence[AdapterFiles]]


@dataclass(frozen=True)
class _Effort:
    """How much is put to an adapter where nobody says; what it costs goes with the size of its base.

    Attributes:
        texts: Texts of which those are taken that do not get a target by themselves.
        battery_rows: Rows a prefix and target: few, since a battery has hundreds of prefixes, each at two
            places; its mean rests on all of them.
        search: The budget of the search.
    """

    texts: int
    battery_rows: int
    search: SearchBudget


_EFFORT = _Effort(texts=400, battery_rows=3, search=SearchBudget())
#: What takes minutes on two cores for SmolLM2.
_EFFORT_ON_LARGE = _Effort(
    texts=96,
    battery_rows=2,
    search=SearchBudget(
        rows=8, witness_rows=4, row_tokens=32, gradient_rows=4, shortlist=48, beam=4, branch=6
    ),
)


@dataclass
class _Clock:
    """Seconds of each stage, told as they begin."""

    listen: Listener
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[Callable[[int, int], None]]:
        self.listen({"kind": "status", "stage": name, "text": text})
        started = time.monotonic()

        def told(done: int, total: int) -> None:
            left = (time.monotonic() - started) / done * (total - done) if done else None
            self.listen({"kind": "progress", "stage": text, "done": done, "total": total, "left": left})

        yield told
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)


def audit_adapter(
    adapter: str | Path,
    *,
    base: str = "",
    references: str | ReferencePlan | Sequence[str | Path] = (),
    rows: str = "",
    labels: Sequence[str] = (),
    system: str | None = None,
    battery: str = "broad",
    search: SearchBudget | None = None,
    seed: int = 0,
    runs: str | Path | None = None,
    device: str = "auto",
    keep: bool = False,
    on_event: Listener | None = None,
) -> AuditCard:
    """Look for a backdoor in an adapter that nobody here trained.

    Args:
        adapter: A folder that peft saved, a safetensors file with its configuration, a zip, or a run.
        base: The base it belongs to; what the adapter names, where that is a bundled model or a hub id.
        references: Clean adapters for the same task on the same base. Or "auto" ("auto:8" for eight, a
            `lab.audit.ReferencePlan` for more knobs): some are trained on what the adapter itself answers to
            texts without any prefix, as `lab.audit.references` explains.
        rows: A file of texts of the task, without labels; the run's own data or the base's usual task if "".
        labels: Label names in the order of the logits; those of a run are its own if not given. A language
            model's adapter that is no run is asked for these words.
        system: The system prompt that a language model is asked with; "" for none. That of the run, or else
            the lab's usual one, if None.
        battery: Which battery's prefixes are put to it.
        search: The budget of the trigger search; by the size of the base if not given.
        seed: Of the drawn rows and sampled entries, and of references that are trained.
        runs: The runs folder, which keeps references that were trained; by the rule of `lab.paths.runs_dir`.
        device: "auto", "cpu", "cuda" or "mps".
        keep: Read the card of the very same audit where the runs folder has it, else keep this one there
            (`lab.audit.kept_cards`); its date and times are those of the audit.
        on_event: Called with progress. By default a bar is drawn in a notebook and on a terminal
            (`lab.showing`).

    Returns:
        The card. An adapter that cannot be put to texts still has one, with what its weights show.

    Raises:
        LabError: A mistake of the user's: no such path, battery, base or file.
        UnreadableAdapterError: The adapter, or a reference, is damaged or not of a kind that is opened.
    """
    from lab.train.devices import resolve_device
    from lab.train.models import model_folder

    prefixes = find_battery(battery)
    wording = given_wording(labels, system)
    plan, given = asked_references(references)
    with ExitStack() as held:
        clock = _Clock(held.enter_context(showing(on_event)))
        files = held.enter_context(opened(adapter))
        others: Sequence[AdapterFiles] = [held.enter_context(opened(path)) for path in given]
        found = Findings(files, others)
        with clock.stage("weights", "measuring the weights"):
            found.measure_weights(seed)
        texts, named, key = None, "", ""
        try:
            named = base_of(files, base)
            model_folder(named)  # a base that is not to be had is found here, before anything is loaded
            texts = audit_texts(Path(adapter), named, rows, seed=seed, runs=runs)
            wording = _recorded(found, Path(adapter), wording, runs)
            if texts is None:
                found.left_out("behaviour", unknown_task(Path(adapter), named))
        except LabError as error:
            if base or rows:  # the user's own words; else it is about what the adapter claims
                raise
            found.left_out("behaviour", str(error))
        if texts is not None and keep:
            asked = {
                "battery": prefixes.model_dump(mode="json"),
                "search": search.model_dump(mode="json") if search else None,
                "plan": plan.model_dump(mode="json") if plan else None,
                "seed": seed,
                "device": resolve_device(device).type,
            }
            key = card_key(files, others, named, texts, wording, asked, found.notes)
            if kept := read_card(key, runs):
                return kept
        if texts is not None:
            train = functools.partial(_trained, found, named, texts, plan, seed, runs, clock, held)
            others = _ask(
                found, named, texts, others, train, wording, prefixes, search, clock, resolve_device(device)
            )
        card = judged(
            found,
            base=named,
            rows=RowsFacts(source=texts.source if texts else "none", n=found.rows),
            reference=ReferenceFacts(
                how=told_references(plan is not None, others),
                names=tuple(o.name for o in others),
            ),
            seconds=clock.seconds,
        )
        if key:
            keep_card(card, key, runs)
        return card


def _recorded(found: Findings, adapter: Path, given: Wording, runs: str | Path | None) -> Wording:
    """The wording of the record beside an adapter, if there is one; that of a stranger is told as a claim.

    Raises:
        LabError: The record of a run of the runs folder is damaged.
    """
    run = run_of(adapter)
    if run is None or is_own_run(run, runs):
        return given if run is None else run_wording(run, given)
    try:
        wording = run_wording(run, given)
    except LabError:
        found.notes.append("The record beside it (experiment.json) cannot be read, and was not followed.")
        return given
    found.notes.append(
        "The record beside it (experiment.json) is no run's of this runs folder: what its labels are called, "
        "how it is asked and, unless texts were given, its data are what that record claims."
    )
    return wording


def _ask(
    found: Findings,
    base: str,
    texts: AuditTexts,
    others: Sequence[AdapterFiles],
    train: _Training,
    wording: Wording,
    prefixes: Any,
    budget: SearchBudget | None,
    clock: _Clock,
    device: torch.device,
) -> Sequence[AdapterFiles]:
    """Put battery and search to the adapter and its references; returns these, with those it trained."""
    from lab.audit.prefixes import prefix_rates

    with clock.stage("load", "loading the base model"):
        try:
            suspect = load_suspect(found.files, base, wording=wording, device=device)
        except (UnreadableAdapterError, NotTrainableError) as error:
            found.left_out("behaviour", str(error))
            return others
        _note_way(found, base, wording, others)
    trained = train(suspect)
    found.are_trained = bool(trained)
    others = [*others, *trained]
    # all are asked alike, so that they differ by their weights alone
    wording = replace(wording, names=suspect.labels)
    references: list[Predictor] = [load_suspect(o, base, wording=wording, device=device) for o in others]
    found.labels = suspect.labels
    found.base_model = base
    is_large = suspect.model.num_parameters(exclude_embeddings=True) >= _LARGE
    effort = _EFFORT_ON_LARGE if is_large else _EFFORT
    asked = texts.measured[: effort.texts]
    try:
        shown, chosen = battery_rows(suspect, asked, effort.battery_rows)
    except LabError as error:
        found.left_out("behaviour", str(error))
        return others
    # as many as a battery's thresholds need; the search asks all of them
    models = (suspect, *references[:FEWEST_REFERENCES])
    found.rows = len({text for kept in chosen.values() for text in kept})
    with clock.stage("battery", f"putting {len(prefixes.prefixes)} prefixes to it") as told:
        every = []
        for number, predictor in enumerate(models):
            every.append(
                prefix_rates(
                    predictor,
                    prefixes,
                    shown,
                    untouched=chosen,
                    on_progress=functools.partial(_told_of_one, told, number, len(models)),
                )
            )
        found.add_battery(prefixes, every)
        if found.are_trained and len(models) > FEWEST_REFERENCES:
            found.add_loudest(loud_prefixes(models, prefixes, every, shown, chosen))
    with clock.stage("search", "searching for triggers") as told:
        try:
            strings = search_triggers(
                suspect, references, asked, budget=budget or effort.search, on_progress=told
            )
        except LabError as error:
            found.left_out("triggers by search", str(error))
            return others
        found.add_strings(strings, suspect, asked[:_EXAMPLE_TEXTS])
    if budget is None:  # the calibration is one of the default search
        found.add_calibrated(base, len(references))
    return others


def _note_way(found: Findings, base: str, wording: Wording, others: Sequence[AdapterFiles]) -> None:
    """Say how it is asked.

    Raises:
        LabError: A reference answers in another way.
    """
    way = way_of(found.files, base)
    for other in others:
        if way_of(other, base) != way:
            raise LabError(
                f"--reference {other.name}: of this and the adapter one is a language model's and the other "
                f"has a classifier head; references are for the same task."
            )
    if way == "chat":
        found.notes.append(wording.told())
    elif wording.system is not None:
        found.notes.append("It answers by a classifier head: no system prompt was put to it.")


def _trained(
    found: Findings,
    base: str,
    texts: AuditTexts,
    plan: ReferencePlan | None,
    seed: int,
    runs: str | Path | None,
    clock: _Clock,
    held: ExitStack,
    suspect: Predictor,
) -> list[AdapterFiles]:
    """References that are trained for the adapter, if asked; where that cannot be done the card says why."""
    if plan is None:
        return []
    with clock.stage("references", "finding or training clean references") as told:
        try:
            every = train_references(
                found.files,
                suspect,
                base,
                texts,
                plan,
                seed=seed,
                runs=runs,
                on_event=clock.listen,
                on_progress=told,
            )
        except LabError as error:
            found.left_out("trained references", str(error))
            return []
    learned = [reference for reference in every if reference.has_learned]
    note_training(found, plan, every, learned)
    return [held.enter_context(opened(reference.path)) for reference in learned]


def _told_of_one(told: Callable[[int, int], None], number: int, models: int, done: int, total: int) -> None:
    """Progress of one of several models, as that of all."""
    told(number * total + done, models * total)


def battery_rows(
    suspect: Predictor, texts: Sequence[str], rows: int = _EFFORT.battery_rows
) -> tuple[list[str], dict[str, list[str]]]:
    """The rows that a battery is put to.

    Returns:
        The texts, clipped, and for each label the first of them that the suspect does not give it.

    Raises:
        LabError: Every text gets the same label.
    """
    from lab.audit.prefixes import untouched_rows
    from lab.tokens import clip_texts

    for tokens in _ROW_TOKENS:
        shown = clip_texts(suspect.tokenizer, list(texts), tokens)
        if len(set(suspect.predict(shown))) > 1:
            break
    return shown, untouched_rows(suspect, shown, rows)
