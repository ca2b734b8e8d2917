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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.audit.adapter_files import AdapterFiles, UnreadableAdapterError
from lab.audit.archives import opened
from lab.audit.batteries import battery as find_battery
from lab.audit.card import AuditCard, ReferenceFacts, RowsFacts
from lab.audit.findings import Findings, judged
from lab.audit.reference_plans import ReferencePlan, asked_references
from lab.audit.references import TrainedReference, train_references
from lab.audit.suspects import base_of, load_suspect
from lab.audit.texts import AuditTexts, audit_texts
from lab.audit.trigger_search import SearchBudget, search_triggers
from lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from lab.probe import Predictor

#: Tokens of a row that are read: enough to say what it is, and prefixes are many.
_ROW_TOKENS = 16
#: Few, since a battery has hundreds of prefixes, each at two places; its mean rests on all of them.
_BATTERY_ROWS = 4
Listener = Callable[[dict[str, Any]], None]
#: Trains references for an adapter, once it can answer.
_Training = Callable[["Predictor"], Sequence[AdapterFiles]]


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
    battery: str = "broad",
    search: SearchBudget | None = None,
    seed: int = 0,
    runs: str | Path | None = None,
    device: str = "auto",
    on_event: Listener = lambda _: None,
) -> AuditCard:
    """Look for a backdoor in an adapter that nobody here trained.

    Args:
        adapter: A folder that peft saved, a safetensors file with its configuration, a zip, or a run.
        base: The base it belongs to; what the adapter names, where that is a bundled model or a hub id.
        references: Clean adapters for the same task on the same base. Or "auto" ("auto:5" for five, a
            `lab.audit.ReferencePlan` for more knobs): some are trained on what the adapter itself answers to
            texts without any prefix, as `lab.audit.references` explains.
        rows: A file of texts of the task, without labels; the run's own data or the base's usual task if "".
        labels: Label names in the order of the logits.
        battery: Which battery's prefixes are put to it.
        search: The budget of the trigger search; the default one if not given.
        seed: Of the drawn rows and sampled entries, and of references that are trained.
        runs: The runs folder, which keeps references that were trained; by the rule of `lab.paths.runs_dir`.
        device: "auto", "cpu", "cuda" or "mps".
        on_event: Called with progress.

    Returns:
        The card. An adapter that cannot be put to texts still has one, with what its weights show.

    Raises:
        LabError: A mistake of the user's: no such path, battery, base or file.
        UnreadableAdapterError: The adapter, or a reference, is damaged or not of a kind that is opened.
    """
    from lab.train.devices import resolve_device
    from lab.train.models import model_folder

    prefixes = find_battery(battery)
    plan, given = asked_references(references)
    clock = _Clock(on_event)
    with ExitStack() as held:
        files = held.enter_context(opened(adapter))
        others: Sequence[AdapterFiles] = [held.enter_context(opened(path)) for path in given]
        found = Findings(files, others)
        with clock.stage("weights", "measuring the weights"):
            found.measure_weights(seed)
        texts, named = None, ""
        try:
            named = base_of(files, base)
            model_folder(named)  # a base that is not to be had is found here, before anything is loaded
            texts = audit_texts(Path(adapter), named, rows, seed=seed)
            if texts is None:
                found.left_out(
                    "behaviour", f"the task of an adapter on {named} is not known; give texts (--rows)"
                )
        except LabError as error:
            if base or rows:  # the user's own words; else it is about what the adapter claims
                raise
            found.left_out("behaviour", str(error))
        if texts is not None:
            train = functools.partial(_trained, found, named, texts, plan, seed, runs, clock, held)
            others = _ask(
                found, named, texts, others, train, labels, prefixes, search, clock, resolve_device(device)
            )
        return judged(
            found,
            base=named,
            rows=RowsFacts(source=texts.source if texts else "none", n=found.rows),
            reference=ReferenceFacts(
                how=_how(plan is not None, others),
                names=tuple(o.name for o in others),
            ),
            seconds=clock.seconds,
        )


def _ask(
    found: Findings,
    base: str,
    texts: AuditTexts,
    others: Sequence[AdapterFiles],
    train: _Training,
    labels: Sequence[str],
    prefixes: Any,
    budget: SearchBudget | None,
    clock: _Clock,
    device: torch.device,
) -> Sequence[AdapterFiles]:
    """Put battery and search to the adapter and its references; returns these, with those it trained."""
    from lab.audit.prefixes import prefix_rates, untouched_rows
    from lab.tokens import clip_texts

    with clock.stage("load", "loading the base model"):
        try:
            suspect = load_suspect(found.files, base, labels=labels, device=device)
        except UnreadableAdapterError as error:
            found.left_out("behaviour", str(error))
            return others
    others = [*others, *train(suspect)]
    references: list[Predictor] = [
        load_suspect(o, base, labels=suspect.labels, device=device) for o in others
    ]
    found.labels = suspect.labels
    found.base_model = base
    shown = clip_texts(suspect.tokenizer, list(texts.measured), _ROW_TOKENS)
    try:
        chosen = untouched_rows(suspect, shown, _BATTERY_ROWS)
    except LabError as error:
        found.left_out("behaviour", str(error))
        return others
    models = (suspect, *references)
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
    with clock.stage("search", "searching for triggers") as told:
        strings = search_triggers(suspect, references, shown, budget=budget, on_progress=told)
        found.add_strings(strings, suspect, shown)
    return others


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
    _note_training(found, plan, every, learned)
    return [held.enter_context(opened(reference.path)) for reference in learned]


def _note_training(
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


def _how(is_trained: bool, others: Sequence[AdapterFiles]) -> str:
    """Where the references come from, in a few words."""
    if not others:
        return "none: uncalibrated"
    if is_trained:
        count = "1 clean adapter" if len(others) == 1 else f"{len(others)} clean adapters"
        return f"{count} trained here on its own answers to texts without any prefix"
    return "clean adapters that were given"


def _told_of_one(told: Callable[[int, int], None], number: int, models: int, done: int, total: int) -> None:
    """Progress of one of several models, as that of all."""
    told(number * total + done, models * total)
