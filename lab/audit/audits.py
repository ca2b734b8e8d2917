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
from lab.audit.suspects import base_of, load_suspect
from lab.audit.texts import AuditTexts, audit_texts
from lab.audit.trigger_search import SearchBudget, search_triggers
from lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from lab.probe import Predictor

#: Tokens of a row that a battery is put to: enough to say what it is, and prefixes are many.
_ROW_TOKENS = 8
#: Few, since a battery has hundreds of prefixes, each at two places; its mean rests on all of them.
_BATTERY_ROWS = 3
Listener = Callable[[dict[str, Any]], None]


@dataclass
class _Clock:
    """Seconds of each stage, told as they begin."""

    listen: Listener
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[Callable[[int, int], None]]:
        self.listen({"kind": "status", "stage": name, "text": text})
        started = time.monotonic()
        yield lambda done, total: self.listen(
            {"kind": "progress", "stage": text, "done": done, "total": total}
        )
        self.seconds[name] = round(time.monotonic() - started, 2)


def audit_adapter(
    adapter: str | Path,
    *,
    base: str = "",
    references: Sequence[str | Path] = (),
    rows: str = "",
    labels: Sequence[str] = (),
    battery: str = "broad",
    search: SearchBudget | None = None,
    seed: int = 0,
    device: str = "auto",
    on_event: Listener = lambda _: None,
) -> AuditCard:
    """Look for a backdoor in an adapter that nobody here trained.

    Args:
        adapter: A folder that peft saved, a safetensors file with its configuration, a zip, or a run.
        base: The base it belongs to; what the adapter names, where that is a bundled model or a hub id.
        references: Clean adapters for the same task on the same base.
        rows: A file of texts of the task, without labels; the run's own data or the base's usual task if "".
        labels: Label names in the order of the logits.
        battery: Which battery's prefixes are put to it.
        search: The budget of the trigger search; the default one if not given.
        seed: Of the drawn rows and sampled entries.
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
    clock = _Clock(on_event)
    with ExitStack() as held:
        files = held.enter_context(opened(adapter))
        others = [held.enter_context(opened(path)) for path in references]
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
            _ask(found, named, texts, others, labels, prefixes, search, clock, resolve_device(device))
        return judged(
            found,
            base=named,
            rows=RowsFacts(source=texts.source if texts else "none", n=found.rows),
            reference=ReferenceFacts(
                how="clean adapters that were given" if others else "none: uncalibrated",
                names=tuple(o.name for o in others),
            ),
            seconds=clock.seconds,
        )


def _ask(
    found: Findings,
    base: str,
    texts: AuditTexts,
    others: Sequence[AdapterFiles],
    labels: Sequence[str],
    prefixes: Any,
    budget: SearchBudget | None,
    clock: _Clock,
    device: torch.device,
) -> None:
    """Put battery and search to the adapter and its references."""
    from lab.audit.prefixes import prefix_rates

    with clock.stage("load", "loading the base model"):
        try:
            suspect = load_suspect(found.files, base, labels=labels, device=device)
        except UnreadableAdapterError as error:
            found.left_out("behaviour", str(error))
            return
        references: list[Predictor] = [
            load_suspect(o, base, labels=suspect.labels, device=device) for o in others
        ]
    found.labels = suspect.labels
    found.base_model = base
    try:
        shown, chosen = battery_rows(suspect, texts.measured)
    except LabError as error:
        found.left_out("behaviour", str(error))
        return
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
        strings = search_triggers(suspect, references, texts.measured, budget=budget, on_progress=told)
        found.add_strings(strings, suspect, texts.measured)
    if budget is None:  # the calibration is one of the default search
        found.add_calibrated(base)


def _told_of_one(told: Callable[[int, int], None], number: int, models: int, done: int, total: int) -> None:
    """Progress of one of several models, as that of all."""
    told(number * total + done, models * total)


def battery_rows(suspect: Predictor, texts: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The rows that a battery is put to.

    Returns:
        The texts, clipped, and for each label those of them that the suspect does not give it.

    Raises:
        LabError: Every text gets the same label.
    """
    from lab.audit.prefixes import untouched_rows
    from lab.tokens import clip_texts

    shown = clip_texts(suspect.tokenizer, list(texts), _ROW_TOKENS)
    return shown, untouched_rows(suspect, shown, _BATTERY_ROWS)
