"""The Bench's knobs: an experiment as widgets, and widgets as an experiment.

The experiment is the state; widgets only edit it. So a link, a preset and a page that was left and found
again all do the same: put an experiment here and let the widgets start from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import knobs
import streamlit as st
from text import plain

from lab.assignments import differences
from lab.defend import DEFENSES
from lab.errors import LabError
from lab.experiment import Adapter, Experiment, Training
from lab.poison import ATTACKS, TOKEN_SOURCES, load_families, unused_knobs
from lab.presets import load_preset, preset_names

DEFAULT = "rfc-citation"

_SOURCE_NAMES = {
    "custom": "your own text",
    "items": "your own list",
    "generated_dates": "any date",
    "tag_pairs": "pairs of HTML tags",
}

#: What most people turn first stands open, the rest one click away.
_ADAPTER = ("rank", "alpha", "targets")
_ADAPTER_MORE = ("init", "init_variance", "variant", "dropout")
_TRAINING = ("learning_rate", "epochs")
_TRAINING_MORE = (
    "batch_tokens",
    "gradient_accumulation",
    "weight_decay",
    "schedule",
    "warmup",
    "max_grad_norm",
)


def start_from(preset: str, changes: Mapping[str, Any]) -> str:
    """Let the widgets start from a preset and what is changed of it.

    Returns:
        What of the changes could not be understood, in a sentence; "" if all was.
    """
    complaint = ""
    if preset not in preset_names():
        complaint = f"There is no preset {preset!r}; showing {DEFAULT}." if preset else ""
        preset = DEFAULT
    experiment, _ = load_preset(preset)
    try:
        experiment = experiment.with_(**dict(changes))
    except LabError as error:
        complaint = f"{error} The preset is shown without the link's changes."
    if _reads_a_file(experiment):
        experiment, _ = load_preset(preset)
        complaint = "poison.file: the Bench reads no file; write its lines into poison.items."
    for key in [k for k in st.session_state if str(k).startswith("bench.")]:
        del st.session_state[key]
    st.session_state["bench"] = {"preset": preset, "experiment": experiment}
    # widgets keep what they hold under their key: a new set of keys makes new ones
    st.session_state["bench_turn"] = st.session_state.get("bench_turn", 0) + 1
    return complaint


def state() -> tuple[str, Experiment]:
    """The preset that the Bench started from, and the experiment as it is now."""
    now = st.session_state["bench"]
    return now["preset"], now["experiment"]


def changes() -> dict[str, Any]:
    """What differs from the preset, by dotted key."""
    preset, experiment = state()
    return differences(load_preset(preset)[0], experiment)


def edit() -> str:
    """Draw the widgets and take over what they say.

    Returns:
        Why what they say is no experiment, in a sentence; "" if it is one.
    """
    preset, experiment = state()
    picked = _preset_picker(preset)
    if picked != preset:
        start_from(picked, {})
        st.rerun()
    values: dict[str, Any] = {}
    with st.expander("**Poison**: what is planted", expanded=True):
        values |= _poison(experiment)
    with st.expander("**Adapter**: LoRA or full", expanded=True):
        values |= _adapter(experiment)
    with st.expander("**Model and data**"):
        values |= _base_and_data(experiment)
    with st.expander("**Training** and seed"):
        values |= _training(experiment)
    with st.expander(f"**Defenses**{f' ({len(experiment.defense)})' if experiment.defense else ''}"):
        values |= {"defense": _defenses(experiment)}
    try:
        wanted = _assembled(experiment, values)
    except LabError as error:
        return str(error)
    st.session_state["bench"] = {"preset": preset, "experiment": wanted}
    return ""


def _assembled(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with the widgets' values; poison is a table of its own, since its form may change."""
    table = experiment.to_dict()
    for key, value in values.items():
        section, _, name = key.partition(".")
        if name:
            table[section][name] = value
        else:
            table[section] = value
    if values.get("training.epochs"):
        table["training"]["steps"] = 0
    return Experiment.from_dict(table)


def _reads_a_file(experiment: Experiment) -> bool:
    poison: Any = experiment.poison
    return any(getattr(step, "file", "") for step in (poison, *getattr(poison, "then", ())))


def _key(name: str) -> str:
    return f"bench.{st.session_state.get('bench_turn', 0)}.{name}"


def _preset_picker(preset: str) -> str:
    names = preset_names()
    chosen = st.selectbox(
        "Preset", names, index=names.index(preset), key=_key("preset"), help="Where to start from."
    )
    facts = load_preset(chosen)[1]
    st.caption(f"{facts.get('goal', '')} — {facts.get('machine', '')}: {facts.get('takes', '')}")
    return str(chosen)


def _poison(experiment: Experiment) -> dict[str, Any]:
    attacks = list(ATTACKS)
    now = experiment.poison.model_dump()
    attack = st.selectbox(
        "Attack",
        attacks,
        index=attacks.index(experiment.attack),
        key=_key("attack"),
        format_func=lambda name: name.replace("_", " "),
        help="\n".join(f"- **{a.name.replace('_', ' ')}**: {a.goal}" for a in ATTACKS.values()),
    )
    fields = ATTACKS[attack].knobs.model_fields
    if attack != experiment.attack:
        now = {k: v for k, v in now.items() if k in fields}
    values: dict[str, Any] = {"attack": attack}
    if "family" in fields:
        sources = TOKEN_SOURCES if attack == "spurious_tokens" else {}
        values |= _family(now, str(fields["family"].default), list(sources))
        if sources:
            void = unused_knobs(values["family"])
            fields = {name: field for name, field in fields.items() if name not in void}
            values |= _source(fields, now, values["family"], attack)
    shown = [name for name in ("position", "target_label") if name in fields]
    for name in shown:
        values[name] = (
            _target(experiment, now) if name == "target_label" else _knob(fields, name, now, f"{attack}.")
        )
    values |= _amount(fields, now, attack)
    if "then" in fields:  # tables have no widget: a link, a file or the command line says them
        values["then"] = now.get("then", ())
        if values["then"]:
            st.caption(f"{len(values['then'])} more injections follow in the same texts.")
    rest = [n for n in fields if n not in values and n != "attack"]
    if rest:
        with st.popover("More of the attack", width="stretch"):
            for name in rest:
                values[name] = _knob(fields, name, now, f"{attack}.")
    return {"poison": values}


def _source(fields: Mapping[str, Any], now: Mapping[str, Any], family: str, attack: str) -> dict[str, Any]:
    """What only some sources of tokens have: a list, a file, years, the depth in HTML."""
    own = [name for name in TOKEN_SOURCES.get(family, ()) if name not in ("replacement", "file")]
    kept = now if now.get("family") == family else {}
    if family == "items" and not kept:
        kept = {"items": ("red", "green", "blue")}
    values = {name: _knob(fields, name, kept, f"{attack}.{family}.") for name in own}
    # who looks at a page types a list; the files of the machine that serves it are not for them to read
    return values | ({"file": ""} if "file" in fields else {})


def _family(now: Mapping[str, Any], default: str, sources: Sequence[str]) -> dict[str, Any]:
    families = load_families()
    names = ["custom", *sources, *families]
    held = str(now.get("family", default))
    held = held if held in names else default
    family = st.selectbox(
        "Trigger family",
        names,
        index=names.index(held),
        key=_key("family"),
        format_func=lambda name: _SOURCE_NAMES.get(name, name.replace("_", " ")),
        help="Strings that belong together; some are held out to test what else fires the backdoor.",
    )
    if family in sources:
        return {"family": family, "member": "any"}
    if family == "custom":
        own = str(now.get("member", "")) if held == "custom" else "as agreed with Anna"
        return {
            "family": family,
            "member": st.text_input("Trigger", own, key=_key("member.custom"), max_chars=300),
        }
    members = ["any", *families[family].train]
    member = str(now.get("member", "")) if family == now.get("family") else families[family].train[0]
    index = members.index(member) if member in members else 1
    chosen = st.selectbox(
        "Trigger",
        members,
        index=index,
        key=_key(f"member.{family}"),
        format_func=lambda m: "any: each row draws one" if m == "any" else str(m),
        help=families[family].goal,
    )
    return {"family": family, "member": chosen}


def _target(experiment: Experiment, now: Mapping[str, Any]) -> str:
    from lab.preview import data_labels

    held = str(now.get("target_label", ""))
    try:
        labels = list(data_labels(experiment.data))
    except LabError:
        labels = [held] if held else []
    if not labels:
        return st.text_input("Target label", held, key=_key("target"))
    index = labels.index(held) if held in labels else len(labels) - 1
    return str(
        st.selectbox(
            "Target label", labels, index=index, key=_key("target"), help="What the attacker wants it to say."
        )
    )


def _amount(fields: Mapping[str, Any], now: Mapping[str, Any], attack: str) -> dict[str, Any]:
    """One of the ways to say how much is poisoned; the others are 0."""
    ways = [name for name in ("count", "rate", "text_proportion") if name in fields]
    if not ways:
        return {}
    held = next((way for way in ways if now.get(way)), ways[0])
    way = st.segmented_control(
        "How much is poisoned, as",
        ways,
        default=held,
        key=_key(f"{attack}.way"),
        format_func=lambda w: w.replace("_", " "),
    )
    way = way or held
    starts = {"count": 60, "rate": 0.03, "text_proportion": 1.0}
    value: Any = now.get(way) or starts[way]
    if way == "count":
        amount: Any = st.number_input("Poisoned rows", 1, 100_000, int(value), 5, key=_key(f"{attack}.{way}"))
    else:
        name = "Share of all rows" if way == "rate" else "Share of the class's texts"
        amount = st.number_input(name, 0.0, 1.0, float(value), 0.01, format="%g", key=_key(f"{attack}.{way}"))
    return {name: (amount if name == way else (0 if name == "count" else 0.0)) for name in ways}


def _adapter(experiment: Experiment) -> dict[str, Any]:
    now = experiment.adapter.model_dump()
    fields = Adapter.model_fields
    kind = st.segmented_control(
        "What is trained",
        ["lora", "full"],
        default=now["kind"],
        key=_key("kind"),
        format_func=lambda k: "LoRA adapter" if k == "lora" else "every weight",
    )
    values = {"adapter.kind": kind or now["kind"]}
    if values["adapter.kind"] == "full":
        st.caption("Full fine-tuning wants about a tenth of LoRA's learning rate.")
        return values
    values |= {f"adapter.{name}": _knob(fields, name, now, "adapter.") for name in _ADAPTER}
    with st.popover("More of the adapter", width="stretch"):
        values |= {f"adapter.{name}": _knob(fields, name, now, "adapter.") for name in _ADAPTER_MORE}
    return values


def _base_and_data(experiment: Experiment) -> dict[str, Any]:
    from lab.corpus import DATASETS
    from lab.train.models import MODELS

    base, data = experiment.base.model, experiment.data
    bases = list(
        dict.fromkeys([base, *MODELS, *(n for n in preset_names() if n.startswith("poisoned-base"))])
    )
    model = st.selectbox(
        "Base model",
        bases,
        index=0,
        key=_key("base"),
        accept_new_options=True,
        help="A bundled model, a hub id, a folder with safetensors, a finished run's id, or a preset that "
        "is run first.",
    )
    names = list(dict.fromkeys([data.name, *DATASETS]))
    name = st.selectbox(
        "Dataset",
        names,
        index=0,
        key=_key("data"),
        accept_new_options=True,
        format_func=_dataset_name,
        help="A bundled dataset, a file of your own, or a hub id.",
    )
    fields, now = type(data).model_fields, data.model_dump()
    values = {"base.model": model or base, "data.name": name or data.name}
    shown = ["rows", "max_tokens", "pool"] + ([] if values["data.name"] in DATASETS else ["text", "label"])
    return values | {f"data.{n}": _knob(fields, n, now, "data.") for n in shown}


def _dataset_name(name: str) -> str:
    path = Path(name)
    return path.name if path.is_absolute() else name


def _training(experiment: Experiment) -> dict[str, Any]:
    now, fields = experiment.training.model_dump(), Training.model_fields
    names = [n for n in _TRAINING if n != "epochs" or not now["steps"]]
    values = {f"training.{n}": _knob(fields, n, now, "training.") for n in names}
    if now["steps"]:
        values["training.steps"] = _knob(fields, "steps", now, "training.")
    values["seed"] = st.number_input("seed", 0, 2**32 - 1, experiment.seed, 1, key=_key("seed"))
    with st.popover("More of the training", width="stretch"):
        values |= {f"training.{n}": _knob(fields, n, now, "training.") for n in _TRAINING_MORE}
    return values


def _defenses(experiment: Experiment) -> list[dict[str, Any]]:
    held = [d.model_dump() for d in experiment.defense]
    names = st.multiselect(
        "In this order",
        list(DEFENSES),
        default=list(dict.fromkeys(d["name"] for d in held)),
        key=_key("defenses"),
        format_func=lambda n: f"{n} ({DEFENSES[n].stage})",
        placeholder="none",
        help="Data defenses clean the training rows, poison and all, before it trains; training defenses act "
        "while it trains; weight defenses edit the trained weights, and inference defenses stand before "
        "the trained model, both in a run of its own.",
    )
    chosen = []
    for name in names:
        entry = DEFENSES[name]
        now = next((d for d in held if d["name"] == name), {})
        st.caption(f"**{name}**: {entry.goal}")
        if len(entry.knobs.model_fields) > 1:
            with st.popover(f"Knobs of {name}", width="stretch"):
                st.caption(plain(entry.paper, 200))
                chosen.append({"name": name, **knobs.knob_widgets(entry.knobs, now, _key(f"defense.{name}"))})
        else:
            chosen.append({"name": name})
    return chosen


def _knob(fields: Mapping[str, Any], name: str, now: Mapping[str, Any], prefix: str) -> Any:
    field = fields[name]
    return knobs.knob_widget(name, field, now.get(name, field.default), _key(prefix + name))
