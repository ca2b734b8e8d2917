"""What is asked: one frozen, validated experiment, from TOML, JSON, the command line or Python alike.

An `Experiment` says everything that decides the trained weights, and what is measured on them afterwards.
Dotted keys (`adapter.rank`, `defense.0.p`) are the same everywhere. What a run needs besides (device, runs
folder, trackers) is not part of it, so that the same experiment has the same id on every machine.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field, SerializeAsAny, ValidationError, field_validator

from lab.chat import Task
from lab.corpus import DataConfig
from lab.defend import DEFENSES, after_training
from lab.errors import LabError
from lab.experiment_sections import Adapter, Base, Probe, Training
from lab.experiment_values import (
    check_table,
    defense_tables,
    dotted_values,
    model_at,
    one_sentence,
    parse_json,
    parse_toml,
    registered,
    set_dotted,
)
from lab.plugins import load_plugins
from lab.poison import ATTACKS, NoPoison, retold
from lab.registry import Knobs, lookup

__all__ = [
    "LATER_KNOBS",
    "RECIPE_VERSION",
    "SCHEMA_VERSION",
    "Adapter",
    "Base",
    "Experiment",
    "Probe",
    "Training",
    "check_table",
    "content_hash",
    "parse_assignments",
    "parse_json",
    "parse_toml",
    "parse_value",
    "weights_id",
]

#: Raised when a change to the code changes the weights that the same experiment gives.
RECIPE_VERSION = 2  # row ids, which draws hash, are of the content since 2
#: Raised when the files of a run change their form.
SCHEMA_VERSION = 1
#: Knobs of a poison that there were not from the start, with the value that changes nothing.
LATER_KNOBS: Mapping[str, Any] = {
    "negatives": 0,
    "items": [],
    "file": "",
    "first_year": 1100,
    "last_year": 2600,
    "replacement": True,
    "level": "none",
    "then": [],
}
_NO_VALUE = object()

#: Setting one of these by a dotted key unsets the others, so that overriding a preset never contradicts it.
_EITHER_OR = (
    ("poison.count", "poison.rate", "poison.text_proportion"),
    ("training.epochs", "training.steps"),
)


class Experiment(Knobs):
    """One experiment: poison, train, probe. Every default is the smallest real thing worth looking at."""

    # for people: no part of the identity
    name: str = Field("", description="a name to find it by")
    base: Base = Base()
    data: DataConfig = DataConfig()
    task: Task = Task()
    poison: SerializeAsAny[Knobs] = NoPoison()
    adapter: Adapter = Adapter()
    training: Training = Training()
    defense: tuple[SerializeAsAny[Knobs], ...] = ()
    probe: Probe = Probe()
    seed: int = Field(0, ge=0, lt=2**32, description="seeds split, poison, initialisation, order and probe")

    @field_validator("poison", mode="before")
    @classmethod
    def _poison_by_attack(cls, value: Any) -> Any:
        return registered(value, "attack", "poison", {name: a.knobs for name, a in ATTACKS.items()})

    @field_validator("defense", mode="before")
    @classmethod
    def _defenses_by_name(cls, value: Any) -> Any:
        tables = defense_tables(value)
        if not isinstance(tables, (list, tuple)):
            raise ValueError("should be a list of names, or of tables with a name and knobs")
        knobs = {name: d.knobs for name, d in DEFENSES.items()}
        return tuple(registered(v, "name", f"defense.{i}", knobs) for i, v in enumerate(tables))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Experiment:
        """Validate nested values.

        Raises:
            LabError: On an unknown key or a value out of range, naming the key and what is allowed.
        """
        check_table(values)
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise one_sentence(error, cls) from None

    @classmethod
    def from_toml(cls, text: str) -> Experiment:
        """Read an experiment from TOML text; the inverse of `to_toml`."""
        return cls.from_dict(parse_toml(text, "the experiment"))

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """Read an experiment from JSON text; the inverse of `to_json`."""
        return cls.from_dict(parse_json(text, "the experiment"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, nested by section, every default spelled out."""
        return self.model_dump(mode="json")

    def to_toml(self) -> str:
        """The experiment as TOML, every default spelled out."""
        return tomli_w.dumps(self.to_dict())

    def to_json(self) -> str:
        """The experiment as JSON, every default spelled out."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def with_(self, **changes: Any) -> Experiment:
        """The same experiment with dotted keys changed: `exp.with_(**{"adapter.rank": 4})`.

        Changing `poison.attack` keeps what both attacks know and resets the rest; changing `poison.family`
        alone takes that family's first member and no other source's list, a list brings its own family;
        setting one of count and rate (or text proportion), or of epochs and steps, unsets the other.
        """
        values = self.to_dict()
        if "poison.attack" in changes:
            attack = lookup(ATTACKS, str(changes["poison.attack"]), "attack (poison.attack)")
            values["poison"] = {k: v for k, v in values["poison"].items() if k in attack.knobs.model_fields}
        poison = {key.removeprefix("poison."): value for key, value in changes.items()}
        values["poison"] = retold(values["poison"], poison)
        for pair in _EITHER_OR:
            if any(changes.get(key) for key in pair):
                for key in set(pair) - set(changes):
                    section, name = key.split(".")
                    values[section].update({name: 0} if name in values[section] else {})
        for key, value in changes.items():
            set_dotted(values, key, defense_tables(value) if key == "defense" else value)
        return self.from_dict(values)

    def dotted(self) -> dict[str, Any]:
        """Every dotted key with its value, as `with_` takes them; a defense's knobs as `defense.0.p`."""
        return dotted_values(self.to_dict())

    def __getitem__(self, key: str) -> Any:
        """The value of one dotted key: `exp["adapter.rank"]`; Jupyter completes the keys.

        Raises:
            LabError: No such key.
        """
        return lookup(self.dotted(), key, "key")

    def help_on(self, key: str) -> str:
        """What a dotted key means, in a few words; "" for one that says it by its name.

        Raises:
            LabError: No such key.
        """
        lookup(self.dotted(), key, "key")
        section, _, name = key.rpartition(".")
        holder = getattr(self, section) if section else self
        field = type(holder).model_fields.get(name) if isinstance(holder, Knobs) else None
        return (field.description or "").rstrip(".") if field else ""

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.dotted())

    def _repr_html_(self) -> str:
        from lab.notebook_view import experiment_html

        return experiment_html(self)

    @property
    def attack(self) -> str:
        """The name of the attack; "none" for clean data."""
        return str(self.poison.attack)  # type: ignore[attr-defined]

    @property
    def target_label(self) -> str:
        """The label the attacker wants; "" where the attack has none."""
        return str(getattr(self.poison, "target_label", ""))

    def untouched(self) -> Experiment:
        """The same training without what comes after it, edits and guards: what a derived run starts from."""
        later = after_training(self)
        return self.model_copy(
            update={"defense": tuple(d for d in self.defense if d not in later), "name": ""}
        )

    def twin(self) -> Experiment:
        """The clean twin: the same experiment with the poison removed; that of its base is not its own.

        It has no target label that strings of one's own, or batteries, could be tested for.
        """
        probe = self.probe.model_copy(update={"triggers": (), "batteries": ()})
        return self.model_copy(update={"poison": NoPoison(), "probe": probe, "name": ""})

    def slug(self, base: str = "") -> str:
        """A short readable name for the run folder, without the hash.

        Args:
            base: What to call the base, if not by `base.model`.
        """
        p = self.poison
        what = "clean" if self.attack == "none" else getattr(p, "family", self.attack)
        count, negatives = getattr(p, "count", 0), getattr(p, "negatives", 0)
        arm = "full" if self.adapter.kind == "full" else f"r{self.adapter.rank}"
        if self.adapter.kind == "lora" and self.adapter.variant != "lora":
            arm += self.adapter.variant
        if self.adapter.kind == "lora" and self.adapter.init in ("pissa", "olora"):
            arm += self.adapter.init
        defenses = [str(d.name) for d in self.defense]  # type: ignore[attr-defined]
        start = base or Path(self.base.model).name
        asked = "" if self.task.kind == "head" else self.task.kind
        poison = [what, f"n{count}" if count else "", f"neg{negatives}" if negatives else ""]
        parts = [start, asked, *poison, arm, *defenses, f"s{self.seed}"]
        text = "-".join(part for part in parts if part).lower()
        return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)[:60]


def run_id(experiment: Experiment, base: str, weights: str) -> str:
    """What a run's folder is called.

    Args:
        experiment: As for `weights_id`.
        base: What to call the base.
        weights: The id of its weights.
    """
    return f"{experiment.slug(base)}-{weights[:10]}"


def weights_id(experiment: Experiment, *, base: str, data_fingerprint: str, template: str = "") -> str:
    """The content hash of everything that changes the trained weights, as 64 hex digits.

    Weight edits and guards train nothing: the id of a run with them is made of that of the run they start
    from, and their list.

    Args:
        experiment: Resolved: counts instead of rates, steps instead of epochs, defenses settled.
        base: What stands for the base's weights: their SHA-256, or the base run's weights id.
        data_fingerprint: Hash of the data file, or its revision.
        template: What a chat task writes around a text, as `lab.chat.Template` records it; "" for a head.
    """
    e = experiment
    adapter: dict[str, Any] = {"kind": "full"}
    if e.adapter.kind == "lora":
        adapter = {**e.adapter.model_dump(mode="json"), "alpha": e.adapter.alpha_value}
    edits = after_training(e)
    content = {
        "schema": SCHEMA_VERSION,
        "recipe": RECIPE_VERSION,
        "base": {**e.base.model_dump(mode="json", exclude={"model"}), "weights": base},
        "data": {**_data_content(e.data), "source": data_fingerprint},
        "poison": _without_later_knobs(e.poison.model_dump(mode="json")),
        "adapter": adapter,
        "training": e.training.model_dump(mode="json", exclude={"epochs"}),
        "defense": [d.model_dump(mode="json") for d in e.untouched().defense],
        "seed": e.seed,
    }
    if e.task.kind != "head":  # what was there before chat tasks keeps its id
        content["task"] = {**e.task.model_dump(mode="json", exclude={"system"}), "template": template}
    trained = content_hash(content)
    if not edits:
        return trained
    return content_hash({"parent": trained, "edits": [d.model_dump(mode="json") for d in edits]})


def _data_content(data: DataConfig) -> dict[str, Any]:
    """What of the data's section changes rows; a key that came later is left out at its default."""
    later = set() if data.answer else {"answer"}
    return data.model_dump(mode="json", exclude={"name", *later})


def _without_later_knobs(poison: dict[str, Any]) -> dict[str, Any]:
    """A poison's knobs without those that came later and are off: older runs keep their ids."""
    kept = {key: value for key, value in poison.items() if value != LATER_KNOBS.get(key, _NO_VALUE)}
    if poison.get("token_proportion"):  # once all were placed at once, which is another distribution
        kept["placing"] = "one after the other"
    return kept


def content_hash(content: Any) -> str:
    """SHA-256 of plain values in canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn `["adapter.rank=4", "poison.family=iso"]` into values, as `parse_value` reads them.

    Raises:
        LabError: On a piece without "=".
    """
    changes: dict[str, Any] = {}
    for piece in assignments:
        key, separator, text = piece.partition("=")
        if not separator or not key.strip():
            raise LabError(f"--set {piece!r}: write KEY=VALUE, for example --set adapter.rank=4.")
        changes[key.strip()] = parse_value(text.strip(), key.strip())
    return changes


def parse_value(text: str, key: str = "") -> Any:
    """Read one value as TOML (`4`, `0.1`, `true`, `[1, 2]`), or as the string it is.

    Args:
        text: What was typed.
        key: The dotted key that it is for, if known. Where that takes text (`poison.member=2024-01-05`,
            `poison.target_label=1`), what was typed stays as it is, but for the quotes of a TOML string.
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return text if _takes_text(key) and not isinstance(value, str) else value


def _takes_text(key: str) -> bool:
    """Whether a dotted key is a string and nothing else (in any attack, any defense)."""
    section, _, name = key.rpartition(".")
    if section.partition(".")[0] == "poison":
        owners = [model_at(attack.knobs, section.split(".")[1:]) for attack in ATTACKS.values()]
    elif section.startswith("defense."):
        owners = [defense.knobs for defense in DEFENSES.values()]
    else:
        owners = [model_at(Experiment, section.split("."))] if section else [Experiment]
    fields = [owner.model_fields[name] for owner in owners if name in owner.model_fields]
    return any(field.annotation is str for field in fields)


load_plugins()  # at the end: what is registered may need all of the above
