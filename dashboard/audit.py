"""Audit: look for a backdoor in an adapter that nobody here trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import access
import audit_watch
import detector_rates
import links
import panels
import pickers
import readers
import streamlit as st
from text import plain
from widgets import one_of, switch

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.audit.adapter_files import AdapterFiles

_SOURCES = {"file": "A file", "folder": "A folder here", "run": "A run"}
_WAYS = {"none": "None", "runs": "Clean runs", "train": "Train some"}
_ITS_OWN = "what the adapter names"
_HELP = {
    "base": "A bundled model, a hub id or a folder. Other names than these can be typed.",
    "texts": "One text a line, or a CSV with a column text; no labels are needed. Without them: the run's "
    "own data, or the task that the base is usually fine-tuned on here.",
    "labels": "In the order of its outputs. Of a language model's adapter they are the words that it "
    "answers, such as BENIGN, INJECTION, and needed: nothing else says what to ask for.",
    "system": "What a language model is told before each text. An adapter that was trained with another "
    "prompt may answer otherwise; empty for none.",
    "battery": "Prefixes that are put before and behind rows. A trigger with nothing like it in the battery "
    "stays unseen by it.",
    "references": "Clean adapters for the same task. With five or more there is a verdict: by the search "
    "where a cohort on this base has set its threshold, else by the battery's two scores and the spread of "
    "the weights, beside theirs. With fewer the findings are uncalibrated. Each takes as long as the adapter "
    "itself.",
    "train": "Adapters of the same modules and rank are trained on what the adapter itself answers to texts "
    "without any prefix. They share its honest mistakes. They are kept in the runs folder's .references, and "
    "found there when the same is asked again.",
}


@dataclass(frozen=True)
class _Given:
    """What was chosen as the adapter.

    Attributes:
        path: Where it lies; "" where it was brought, or nothing is given yet.
        upload: Its files by name, where it was brought.
        run: The run's id, where it is one.
        key: Another one for every other choice.
        facts: What its files say; None where they were not looked at.
    """

    path: str = ""
    upload: Mapping[str, bytes] = field(default_factory=dict)
    run: str = ""
    key: str = ""
    facts: AdapterFiles | None = None

    @property
    def is_there(self) -> bool:
        return bool(self.path or self.upload)


def main() -> None:
    """Draw the page."""
    st.markdown("# Look for a backdoor in an adapter that nobody here trained")
    watched = audit_watch.watched()
    with st.expander("What to audit, and against what", expanded=watched is None):
        left, right = st.columns(2, gap="large")
        with left:
            given = _choose_adapter()
            texts = _take_texts()
        with right, panels.part("What it is audited with"):
            asked = {**_choose_means(given), "texts": texts}
            _render_button(given, asked)
    if watched is not None:
        audit_watch.render(watched)
    else:
        _render_welcome()
    audit_watch.render_list(watched)
    detector_rates.render()


def _choose_adapter() -> _Given:
    source = switch("The adapter", "audit", _SOURCES, "file")
    try:
        if source == "run":
            return _choose_run()
        return _look_at(_name_folder() if source == "folder" else _take_files())
    except LabError as error:
        st.error(plain(str(error), 600), icon=":material/block:")
        return _Given()


def _choose_run() -> _Given:
    table = readers.runs_table()
    kinds = table.get("adapter.kind")
    table = table[(table["state"] == "finished") & (kinds == "lora")] if kinds is not None else table.head(0)
    if table.empty:
        panels.nothing("There is no finished run yet.", "Train one on the Bench, or bring an adapter.")
        return _Given()
    run = readers.open_run(pickers.pick_run("Run", table, "run"))
    return _Given(path=str(run.path), run=run.id, key=run.id) if run else _Given()


def _name_folder() -> _Given:
    # a path says where things lie on somebody's machine: it stays out of the address bar
    path = st.text_input(
        "Folder, safetensors file or zip on this machine",
        key="audit_path",
        max_chars=1000,
        disabled=not access.may_write(),
    )
    whole = os.path.expanduser(path.strip())
    return _Given(path=whole, key=whole)


def _take_files() -> _Given:
    files = st.file_uploader(
        "A zip, or adapter_model.safetensors with its adapter_config.json",
        type=["zip", "safetensors", "json"],
        accept_multiple_files=True,
        key="audit_upload",
        disabled=not access.may_write(),
        help="Checked before anything of it is read; no code in it is run. It stays on this machine, and is "
        "deleted when the audit ends.",
    )
    return _Given(
        upload={file.name: file.getvalue() for file in files}, key=" ".join(file.file_id for file in files)
    )


def _look_at(given: _Given) -> _Given:
    """What an adapter says of itself; whatever is hostile or damaged is refused here already.

    Raises:
        LabError: It is refused.
    """
    if not given.is_there or not access.may_write():
        return _Given()
    key, facts = st.session_state.get("audit_looked", ("", None))
    if key != given.key or facts is None:
        with st.spinner("Looking into it …"):
            facts = _facts(given)
        # a rerun does not unpack it once more
        st.session_state["audit_looked"] = (given.key, facts)
    ranks = ", ".join(str(rank) for rank in sorted({m.rank for m in facts.modules.values()}))
    st.caption(
        f"**{plain(facts.name)}**: {len(facts.modules)} modules of rank {ranks}; names "
        f"{plain(facts.base_name) or 'nothing'} as its base."
    )
    return replace(given, facts=facts)


def _facts(given: _Given) -> AdapterFiles:
    from lab.audit import opened
    from lab.audit.uploaded import look_at_upload

    if given.upload:
        return look_at_upload(given.upload)
    try:
        with opened(given.path) as found:
            return found
    except OSError as error:  # what a person types may be no path at all
        raise LabError(f"This path cannot be read ({error.strerror}).") from None


def _take_texts() -> tuple[str, bytes] | None:
    texts = st.file_uploader(
        "Texts of its task, if you have some; up to 10 MB",
        type=["txt", "csv"],
        key="audit_texts",
        help=_HELP["texts"],
        disabled=not access.may_write(),
    )
    return None if texts is None else (texts.name, texts.getvalue())


def _choose_means(given: _Given) -> dict[str, Any]:
    """Base, words, battery and references, as `_start` takes them."""
    from lab.audit import BATTERIES
    from lab.train.models import MODELS

    base = st.selectbox(
        "Base model", [_ITS_OWN, *MODELS], key="audit_base", accept_new_options=True, help=_HELP["base"]
    )
    base = "" if base in (None, _ITS_OWN) else str(base)
    names = [n for name, b in BATTERIES.items() for n in (name, *(f"{name}/{part}" for part in b.subsets))]
    battery = one_of("Battery", "battery", names, "broad", _battery_said, help=_HELP["battery"])
    return {
        "base": base,
        "battery": battery,
        "references": _choose_references(given, base),
        **_choose_words(given),
    }


def _choose_words(given: _Given) -> dict[str, Any]:
    """What the adapter answers, and what it is told before; a run says both by itself."""
    from lab.audit.texts import run_of
    from lab.chat.config import PAPER_SYSTEM

    nothing = {"labels": (), "system": None}
    if given.facts is None or (given.path and run_of(Path(given.path)) is not None):
        return nothing
    labels = st.text_input(
        "Label names, with commas between", key="audit_labels", max_chars=1000, help=_HELP["labels"]
    )
    words = {**nothing, "labels": tuple(label.strip() for label in labels.split(",") if label.strip())}
    if given.facts.config.get("task_type") == "SEQ_CLS":
        return words
    system = st.text_area(
        "System prompt", PAPER_SYSTEM, key="audit_system", max_chars=8000, help=_HELP["system"]
    )
    return {**words, "system": None if system == PAPER_SYSTEM else system}


def _battery_said(name: str) -> str:
    from lab.audit import battery

    return f"{name} ({len(battery(name).prefixes)} prefixes)"


def _choose_references(given: _Given, base: str) -> list[str]:
    """Ids of runs, or the one word that has some trained."""
    way = switch("Clean references", "against", _WAYS, "runs")
    if way == "train":
        return [_choose_count()]
    return _choose_clean_runs(given, base) if way == "runs" else []


def _choose_count() -> str:
    from lab.audit.reference_plans import MOST_REFERENCES, ReferencePlan

    usual = ReferencePlan()
    count = one_of("How many", "train", list(range(1, MOST_REFERENCES + 1)), usual.count, help=_HELP["train"])
    st.caption(
        f"Each is trained on up to {usual.rows} texts: half a minute on MiniLM and one free core. With five "
        f"or more the search has a threshold on bases that a cohort was measured on, and a prefix that moves "
        f"nearly everything counts; the battery's other scores are told and decide nothing."
    )
    return f"auto:{count}"


def _choose_clean_runs(given: _Given, base: str) -> list[str]:
    from lab.audit.controls import reference_runs

    table = readers.runs_table()
    offered, suggested = reference_runs(table, **_alike(given, base))
    names = pickers.run_labels(table[table["id"].isin(offered)])
    # another adapter has other controls: the widget starts anew with them
    key = f"audit_references.{hash((given.key, base))}"
    chosen = st.multiselect(
        "Which runs",
        [name for name in offered if name in names],
        default=[name for name in suggested if name in names],
        key=key,
        format_func=lambda run: names.get(run, run),
        placeholder="none: uncalibrated",
        help=_HELP["references"],
    )
    if not offered:
        st.caption("No finished run on this base is there to compare with.")
    elif given.is_there:
        st.caption(f"{len(suggested)} clean runs of the same base and rank are suggested.")
    return list(chosen)


def _alike(given: _Given, base: str) -> dict[str, Any]:
    """What references should share with the adapter."""
    from lab.audit.suspects import base_of

    run = readers.open_run(given.run) if given.run else None
    if run is not None:
        asked = run.experiment
        return {
            "base": base or asked.base.model,
            "rank": getattr(asked.adapter, "rank", 0),
            "data": asked.data.name,
            "but": run.id,
        }
    if given.facts is None:
        return {"base": base}
    ranks = {m.rank for m in given.facts.modules.values()}
    try:
        named = base_of(given.facts, base)
    except LabError:
        named = base
    return {"base": named, "rank": max(ranks)}


def _render_button(given: _Given, asked: Mapping[str, Any]) -> None:
    from lab.audit.jobs import list_audits

    locked = not access.may_write()
    is_busy = any(job.state == "running" for job in list_audits(readers.runs_folder()))
    if st.button(
        "Audit",
        type="primary",
        icon=":material/policy:",
        width="stretch",
        disabled=not given.is_there or locked or is_busy,
        help="Unlock first, at the top." if locked else None,
    ):
        with panels.part("The audit"):
            _start(given, asked)
    st.caption(
        "An audit runs; one runs at a time."
        if is_busy
        else "One audit runs at a time. On MiniLM or SmolLM2 it takes minutes, more with each reference, and "
        "goes on when this page is closed."
    )


def _start(given: _Given, asked: Mapping[str, Any]) -> None:
    from lab.audit.jobs import AuditRequest, reference_paths, start_audit

    folder = readers.runs_folder()
    request = AuditRequest(
        adapter=given.path,
        base=asked["base"],
        battery=asked["battery"],
        references=reference_paths(asked["references"], folder),
        labels=asked["labels"],
        system=asked["system"],
    )
    job = start_audit(request, runs=folder, upload=given.upload or None, texts=asked["texts"])
    links.remember(card=job.id)
    st.rerun()


def _render_welcome() -> None:
    st.markdown(
        "**What you will see.** The adapter is opened without running anything of it. Its weights are "
        "measured, the prefixes of a battery are put to it, and a search looks for short strings that move "
        "its answers and leave clean adapters' alone. The card says what was found, with rows to judge by, "
        "and what was not looked for. It never says that an adapter is clean."
    )


main()
