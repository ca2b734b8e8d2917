"""What an audit asks: all that is settled before a model is loaded, and what a kept card is found by."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.audit.archives import opened
from lab.audit.findings import Findings
from lab.audit.kept_cards import card_key
from lab.audit.reference_plans import ReferencePlan, asked_references
from lab.audit.suspects import base_of
from lab.audit.texts import AuditTexts, audit_texts, is_own_run, run_of, unknown_task
from lab.audit.wording import Wording, given_wording, run_wording
from lab.batteries import Battery
from lab.batteries import battery as find_battery
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.audit.adapter_files import AdapterFiles
    from lab.audit.trigger_search import SearchBudget


@dataclass(frozen=True)
class Question:
    """An adapter, and what is put to it.

    Attributes:
        found: What is known of it; at first its files, and what was not to be had.
        references: Clean adapters that were given.
        plan: References that are to be trained; None for none.
        base: What it is put on, as `base.model` names it; "" where nothing says.
        texts: What is put to it; None where the task is not known.
        wording: How it is asked.
        battery: Prefixes.
        budget: Of the search; None for the usual one.
        seed: Of draws.
    """

    found: Findings
    references: tuple[AdapterFiles, ...]
    plan: ReferencePlan | None
    base: str
    texts: AuditTexts | None
    wording: Wording
    battery: Battery
    budget: SearchBudget | None
    seed: int

    def key(self) -> str:
        """What its card is kept under; "" for an adapter that is not put to texts: its card takes no time."""
        if self.texts is None:
            return ""
        asked = {
            "battery": self.battery.model_dump(mode="json"),
            "search": self.budget.model_dump(mode="json") if self.budget else None,
            "plan": self.plan.model_dump(mode="json") if self.plan else None,
            "seed": self.seed,
        }
        files, notes = self.found.files, self.found.notes
        return card_key(files, self.references, self.base, self.texts, self.wording, asked, notes)


def settle_question(
    held: ExitStack,
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
) -> Question:
    """Find what an audit asks; arguments are those of `lab.audit_adapter`, and held closes what is unpacked.

    Raises:
        LabError: A mistake of the user's: no such path, battery, base or file.
        UnreadableAdapterError: The adapter, or a reference, is damaged or not of a kind that is opened.
    """
    from lab.train.models import model_folder

    prefixes = find_battery(battery)
    wording = given_wording(labels, system)
    plan, given = asked_references(references)
    files = held.enter_context(opened(adapter))
    others = tuple(held.enter_context(opened(path)) for path in given)
    found = Findings(files, others)
    texts, named = None, ""
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
    return Question(found, others, plan, named, texts, wording, prefixes, search, seed)


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
