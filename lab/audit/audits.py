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
from lab.audit.kept_cards import find_card, keep_card, one_at_a_time
from lab.audit.loud_prefixes import loud_prefixes
from lab.audit.questions import Question, settle_question
from lab.audit.reference_notes import note_training, told_references
from lab.audit.reference_plans import ReferencePlan
from lab.audit.references import train_references
from lab.audit.suspects import load_suspect, way_of
from lab.audit.texts import AuditTexts
from lab.audit.trigger_search import SearchBudget, search_triggers
from lab.audit.wording import Wording
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
            (`lab.audit.kept_cards`); its date and times are those of the audit. Of an adapter that is not put
            to texts, or where a part of the audit failed, nothing is kept.
        on_event: Called with progress. By default a bar is drawn in a notebook and on a terminal
            (`lab.showing`).

    Returns:
        The card. An adapter that cannot be put to texts still has one, with what its weights show.

    Raises:
        LabError: A mistake of the user's: no such path, battery, base or file.
        UnreadableAdapterError: The adapter, or a reference, is damaged or not of a kind that is opened.
    """
    with ExitStack() as held:
        clock = _Clock(held.enter_context(showing(on_event)))
        question = settle_question(
            held,
            adapter,
            base=base,
            references=references,
            rows=rows,
            labels=labels,
            system=system,
            battery=battery,
            search=search,
            seed=seed,
            runs=runs,
        )
        key = question.key() if keep else ""
        if key:
            wait = functools.partial(_tell_of_card, clock)
            held.enter_context(one_at_a_time(key, runs, wait))
            if card := find_card(key, question.found.files, runs):
                wait(f"reading the card of {card.date}, which the runs folder keeps")
                return card
        card = _made(held, question, runs, device, clock)
        if key and question.found.is_whole:
            keep_card(card, key, runs)
        return card


def kept_card(adapter: str | Path, *, runs: str | Path | None = None, **asked: Any) -> AuditCard | None:
    """The card that `audit_adapter(adapter, keep=True, …)` would read; None where it would make one.

    Args:
        adapter: As there.
        runs: As there.
        **asked: Further arguments of it, but device, keep and on_event.

    Raises:
        LabError: As there.
    """
    with ExitStack() as held:
        question = settle_question(held, adapter, runs=runs, **asked)
        key = question.key()
        return find_card(key, question.found.files, runs) if key else None


def _tell_of_card(clock: _Clock, text: str) -> None:
    clock.listen({"kind": "status", "stage": "card", "text": text})


def _made(
    held: ExitStack, question: Question, runs: str | Path | None, device: str, clock: _Clock
) -> AuditCard:
    """Measure, ask and judge."""
    from lab.train.devices import resolve_device

    q, found = question, question.found
    with clock.stage("weights", "measuring the weights"):
        found.measure_weights(q.seed)
    others: Sequence[AdapterFiles] = q.references
    if q.texts is not None:
        train = functools.partial(_trained, found, q.base, q.texts, q.plan, q.seed, runs, clock, held)
        others = _ask(q, q.texts, train, clock, resolve_device(device))
    return judged(
        found,
        base=q.base,
        rows=RowsFacts(source=q.texts.source if q.texts else "none", n=found.rows),
        reference=ReferenceFacts(
            how=told_references(q.plan is not None, others),
            names=tuple(o.name for o in others),
        ),
        seconds=clock.seconds,
    )


def _ask(
    question: Question, texts: AuditTexts, train: _Training, clock: _Clock, device: torch.device
) -> Sequence[AdapterFiles]:
    """Put battery and search to the adapter and its references; returns these, with those it trained."""
    from lab.audit.prefixes import prefix_rates

    found, base, wording = question.found, question.base, question.wording
    others: Sequence[AdapterFiles] = question.references
    prefixes, budget = question.battery, question.budget
    with clock.stage("load", "loading the base model"):
        try:
            suspect = load_suspect(found.files, base, wording=wording, device=device)
        except (UnreadableAdapterError, NotTrainableError) as error:
            found.left_out("behaviour", str(error), failed=True)
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
            found.left_out("trained references", str(error), failed=True)
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
