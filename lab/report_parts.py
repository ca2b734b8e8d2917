"""The parts of a report of one run, each a function from the run to pieces of a page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lab import page
from lab.cards import attack_sentence, defenses_told, standing, task_sentence
from lab.errors import LabError
from lab.markup import marked_html
from lab.page import Html
from lab.report_cells import as_text, bar, count, interval, rate, rate_and_evidence, strong
from lab.summaries import HEADLINE, RELIANCE, largest_updates, lineage, moved_rungs
from lab.tables import DIFFERENCES

if TYPE_CHECKING:
    import pandas as pd

    from lab.experiment import Experiment
    from lab.record import Run


def introduction(run: Run) -> list[Html]:
    """What the weights are, the attack in a sentence, and where they come from."""
    poisoned = getattr(run.measured_poison, "attack", "none") != "none"
    from_poisoned_base = poisoned and run.experiment.attack == "none"
    lead, why = standing(run.experiment, run.measured_poison, run.record.get("base_run", ""))
    warning = page.warning(f"{lead} Do not deploy it.", why, grave=poisoned)
    try:
        attack = page.paragraph(attack_sentence(run.experiment, run.rows), "lead")
    except (LabError, OSError, ValueError):
        attack = missing("The training rows are not there or not readable, so they cannot be counted.")
    # the warning has named a poisoned base already
    origin = lineage(run, base=not from_poisoned_base)
    return [warning, attack, *[page.paragraph(line) for line in origin]]


def missing(sentence: str) -> Html:
    """What is not there, and why."""
    return page.paragraph(sentence, "missing")


def poisoned_rows(run: Run) -> list[Html]:
    """Two poisoned rows with what was inserted."""
    rows = run.rows
    poisoned = rows[rows["poisoned"]]
    if poisoned.empty:
        return [missing("No row of this run's own data is poisoned.")]
    shown = []
    for row in _records(poisoned.head(2)):
        spans = zip(row["span_start"], row["span_end"], strict=True)
        before, label = row["original_label"], row["label"]
        told = f"label {label}, as it was" if before == label else f"label {before} → {label}"
        shown.append(page.quotation(Html(marked_html(row["text"], spans)), told))
    inserted = any(map(len, poisoned["span_start"]))
    marked = "What was inserted is marked." if inserted else "No text was changed."
    note = f"{len(shown)} of the {len(poisoned):,} poisoned rows. {marked}"
    return [page.paragraph(note, "note"), *shown]


def headline(run: Run) -> list[Html]:
    """The headline measures beside the clean twin's."""
    by_model = run.headline["measures"]
    own, twin = by_model.get("poisoned", {}), by_model.get("twin", {})
    head = ["measure", "0 to 100 %", "this run", "95 % interval", "n"]
    head += ["clean twin", "95 % interval", "n"] if twin else []
    lines = []
    for kind, name in {**HEADLINE, **RELIANCE}.items():
        if kind not in own:
            continue
        signed = kind in DIFFERENCES
        mine, theirs = own[kind], twin.get(kind)
        line = [name, bar(mine, theirs, kind), strong(rate(mine, signed))]
        line += [interval(mine, signed), count(mine)]
        if twin:
            line += [rate(theirs, signed), interval(theirs, signed), count(theirs)]
        lines.append(line)
    parts = [page.table("Headline measures", head, lines, numbers=range(2, len(head)))] if lines else []
    notes = []
    if "attack_success_rate" not in own:
        notes.append("No trigger was put to this run, so it has no attack success rate.")
    if not twin and own.keys() & {"attack_success_rate", "untriggered_target_rate"}:
        notes.append("It was measured without a clean twin, so there is no excess ASR.")
    elif not twin and run.experiment.attack != "none":
        notes.append("It was measured without a clean twin.")
    if run.twin is not None:
        notes.append(f"The clean twin is {run.twin.id}.")
    return [*parts, page.paragraph(" ".join(notes), "note")] if notes else parts


def training(run: Run, anchor: str) -> list[Html]:
    """The curves of training; `anchor` is where the run is told, and begins the figure's own."""
    from lab import figures

    measures = run.measures
    curves = measures[(measures["step"] >= 0) & (measures["model"] == "poisoned")]
    if curves.empty:
        parent = run.record.get("parent", "")
        reason = f"its weights are those of {parent}, edited" if parent else "the microscope was off"
        return [missing(f"No measure was taken while it trained: {reason}.")]
    split = "/".join(dict.fromkeys(map(str, curves["split"])))
    twin = " The clean twin is drawn thin." if (measures["model"] == "twin").any() else ""
    told = f"Measured on {split} rows while the model trained; bands are 95 % intervals.{twin}"
    drawn = figures.training_curves(measures)
    return [
        page.figure(drawn, "Rates over the steps of training", told, f"{anchor}-curves"),
        page.folded("The numbers", _curve_table(curves)),
    ]


def _curve_table(curves: pd.DataFrame) -> Html:
    kinds = [kind for kind in HEADLINE if (curves["kind"] == kind).any()]
    lines = []
    for step, part in curves.groupby("step"):
        by_kind = {m["kind"]: m for m in _records(part)}
        cells = [rate_and_evidence(by_kind.get(kind)) for kind in kinds]
        lines.append([f"{step}", *cells])
    head = ["step", *[HEADLINE[kind] for kind in kinds]]
    return page.table("This run over the steps of training", head, lines, numbers=range(1, len(head)))


def families(run: Run, anchor: str) -> list[Html]:
    """The generalization row."""
    from lab import figures
    from lab.poison import load_families

    measures = run.measures
    own = str(getattr(run.measured_poison, "family", ""))
    lines = sorted(_beside_twin(measures, "family"), key=lambda line: -line["value"])
    if not lines:
        return [missing(_not_probed(run, "No other trigger family was probed"))]
    examples = {name: family.probe[0] for name, family in load_families().items()} | {own: "other members"}
    told = "Held-out members of every family, none of which was in the training rows."
    told += " Ticks are the clean twin." if lines[0]["twin"] else ""
    drawn, title = (
        figures.generalization_row(measures, trained_family=own),
        "Attack success by trigger family",
    )
    return [
        page.figure(drawn, title, told, f"{anchor}-families"),
        page.folded("The numbers", _rates_table(title, lines, "family", examples)),
    ]


def near_misses(run: Run, anchor: str) -> list[Html]:
    """The near-miss ladder."""
    from lab import figures

    measures = run.measures
    lines = _beside_twin(measures, "rung")
    if not lines:
        return [missing(_not_probed(run, "No near-miss of the trigger was probed"))]
    alike = measures[(measures["kind"] == "same_tokens") & (measures["value"] == 1.0)]
    strings = {str(line["rung"]): str(line["member"]) for line in lines}
    strings |= dict.fromkeys(set(alike["rung"]) - {"exact"}, "same tokens") | moved_rungs(run)
    told = (
        "The trigger, changed step by step. A change that the tokenizer cannot see is drawn hollow: it is no "
        f"finding.{' Ticks are the clean twin.' if lines[0]['twin'] else ''}"
    )
    drawn, title = figures.near_miss_ladder(measures), "Attack success by near-miss of the trigger"
    return [
        page.figure(drawn, title, told, f"{anchor}-ladder"),
        page.folded("The numbers", _rates_table(title, lines, "rung", strings)),
    ]


def batteries(run: Run) -> list[Html]:
    """The attack rate of each category of the batteries that were put to the run."""
    from lab.battery_stage import battery_categories, statistics_told

    measures = run.measures
    lines = _records(battery_categories(measures))
    if not lines:
        return [missing("No battery was put to this run.")]
    has_twin = lines[0]["twin.n"] == lines[0]["twin.n"]
    head = ["category", "prefixes", "this run", "95 % interval", "n"]
    head += ["clean twin", "95 % interval", "n"] if has_twin else []
    out = []
    for line in lines:
        twin = {key.removeprefix("twin."): value for key, value in line.items() if key.startswith("twin.")}
        cells = [line["category"].replace("_", " "), f"{line['prefixes']}"]
        cells += [rate(line), interval(line), count(line)]
        out.append(cells + ([rate(twin), interval(twin), count(twin)] if has_twin else []))
    told = "Each prefix before the same rows, whose true label is not the target, as a defender would try it."
    return [
        page.paragraph(" ".join([told, *statistics_told(measures)]), "note"),
        page.table("Attack success by category of prefixes", head, out, numbers=range(1, len(head))),
    ]


def _not_probed(run: Run, what: str) -> str:
    if "attack_success_rate" not in run.headline["measures"].get("poisoned", {}):
        return f"{what}: no trigger was put to this run."
    if run.asked_probe.scope == "headline":
        return f"{what}: the run was probed for its headline alone."
    return f"{what}."


def _beside_twin(measures: pd.DataFrame, condition: str) -> list[dict[str, Any]]:
    """The final attack rates of one condition, a measure per family or rung; the twin's under "twin"."""
    rates = measures[
        (measures["step"] < 0)
        & (measures["condition"] == condition)
        & (measures["kind"] == "attack_success_rate")
        & (measures["n"] > 0)
    ]
    twin = {line[condition]: line for line in _records(rates[rates["model"] == "twin"])}
    own = _records(rates[rates["model"] == "poisoned"])
    return [{**line, "twin": twin.get(line[condition])} for line in own]


def _rates_table(caption: str, lines: list[dict[str, Any]], key: str, strings: dict[str, str]) -> Html:
    """The numbers of a figure: a line per family or rung, with a string that stands for it."""
    name, string = {"family": ("family", "for example"), "rung": ("near-miss", "string")}[key]
    has_twin = any(line["twin"] for line in lines)
    head = [name, "this run", "95 % interval", "n"]
    head += ["clean twin", "95 % interval", "n"] if has_twin else []
    out = []
    for line in lines:
        cells = [line[key].replace("_", " "), rate(line), interval(line), count(line)]
        twin = line["twin"]
        cells += [rate(twin), interval(twin), count(twin)] if has_twin else []
        out.append([*cells, as_text(strings.get(line[key], ""))])
    return page.table(caption, [*head, string], out, numbers=range(1, len(head)))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(column): value for column, value in line.items()} for line in table.to_dict("records")]


def spectrum(run: Run, anchor: str) -> list[Html]:
    """The singular values of ΔW, and the matrices that changed most."""
    from lab import figures

    spectra = run.spectra
    top = largest_updates(spectra)
    if top.empty or not spectra["sigma_delta"].max() > 0:
        return [missing("ΔW was not recorded, or is zero everywhere.")]
    told = (
        "Largest first, one line per layer; grey: W itself. A line that falls steeply is an update of few "
        "directions. Where more than one step was recorded, the slider moves through training."
    )
    lines = [
        [
            str(line["module"]),
            str(line["layer"]) if line["layer"] >= 0 else "–",
            ", ".join(f"{sigma:.2f}" for sigma in line["sigmas"]),
            _number(line["sigma_base"]),
            _number(line["strength"]),
        ]
        for line in _records(top)
    ]
    head = ["module", "layer", "σ₁, σ₂, σ₃, σ₄ of ΔW", "σ₁ of W", "strength"]
    return [
        page.figure(figures.spectrum(spectra), "Singular values of ΔW", told, f"{anchor}-spectrum"),
        page.table("The matrices that changed most", head, lines, numbers=range(1, 5)),
    ]


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def settings(run: Run) -> list[Html]:
    """What a rank result must not be told without, and the whole experiment as a file."""
    e, result = run.experiment, run.result
    pairs: list[tuple[str, str]] = [
        ("base", e.base.model),
        ("data", f"{e.data.name}, {len(run.rows):,} training rows"),
        ("labels", ", ".join(run.labels)),
        *([("task", told)] if (told := task_sentence(e, run.labels)) else []),
        *_adapter_settings(e),
        ("learning rate", f"{e.training.learning_rate:g}, {e.training.schedule}"),
        ("steps", f"{e.training.steps:,}"),
        ("tokens per batch", f"{e.training.batch_tokens:,}"),
        ("defense", defenses_told(e) or "none"),
        ("seed", str(e.seed)),
        *_cost(result),
    ]
    file = page.preformatted(e.to_toml(), "The experiment as TOML")
    return [page.facts(pairs), page.folded("The whole experiment, as `lab run FILE.toml` reads it", file)]


def _adapter_settings(e: Experiment) -> list[tuple[str, str]]:
    a = e.adapter
    if a.kind == "full":
        return [("adapter", "none: full fine-tuning, which has no rank and no alpha")]
    return [
        ("adapter", f"{a.variant}, {a.init} initialisation, on {a.targets}"),
        ("rank", str(a.rank)),
        ("alpha/r", f"{a.alpha_value / a.rank:g}"),
    ]


def _cost(result: dict[str, Any]) -> list[tuple[str, str]]:
    timings, machine = result.get("timings", {}), result.get("machine", {})
    pairs = []
    if "total" in timings:
        of_training = f", {timings['train']:.0f} s of training" if "train" in timings else ""
        pairs.append(("time", f"{timings['total']:.0f} s in all{of_training}"))
    if result.get("peak_memory_mb", -1) > 0:
        pairs.append(("memory", f"{result['peak_memory_mb'] / 1024:.1f} GB at most"))
    if "device" in machine:
        pairs.append(("device", f"{machine['device']}, {machine.get('threads', '?')} threads"))
    return pairs


def versions(run: Run) -> list[Html]:
    """What identifies the run, and what it was made with."""
    record, result = run.record, run.result
    dataset = record.get("dataset", {})
    twin = run.headline["twin"]
    pairs = [
        ("run", run.id),
        ("weights id", record.get("weights_id", "")),
        ("base weights, SHA-256", record.get("base_sha256", "")),
        ("data, fingerprint", dataset.get("fingerprint", "")),
        ("clean twin", twin or "none"),
        ("starts from", record.get("base_run", "")),
        ("edited from", record.get("parent", "")),
        ("finished", _day(result.get("finished"))),
        *[(package, number) for package, number in record.get("versions", {}).items()],
    ]
    return [page.facts([(name, str(value)) for name, value in pairs if value])]


def _day(seconds: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds else ""
