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
from typing import Any, Literal, Self, get_args

import tomli_w
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from lab.batteries import battery
from lab.chat import Task
from lab.corpus import DataConfig
from lab.defend import DEFENSES, after_training
from lab.errors import LabError, unknown_name
from lab.poison import ATTACKS, NoPoison, load_families, retold
from lab.registry import Knobs, lookup

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


class Base(Knobs):
    """The pretrained model."""

    # the smallest real encoder that ships without a hub: a run takes a minute on a laptop
    model: str = Field("minilm", description="bundled name, hub id, folder, finished run or preset")
    # float32 weights; "auto" adds bf16 autocast on GPUs that have it
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="precision of the base weights")
    # quantised bases need a CUDA card and the extra `gpu4bit`
    load_in_4bit: bool = Field(False, description="load the frozen base in 4-bit (CUDA only)")


class Adapter(Knobs):
    """What is trained: a LoRA adapter with the classifier head, or everything."""

    kind: Literal["lora", "full"] = Field("lora", description="LoRA, or full fine-tuning")
    # the rank of most published adapters
    rank: int = Field(8, ge=1, description="rank r of B·A")
    # alpha = 2r keeps the scaling alpha/r at 2 whatever the rank, so that rank is not confounded with it
    alpha: float | Literal["2r", "r"] = Field(
        "2r", description='LoRA alpha, or "2r" for twice the rank, "r" for as much'
    )
    # dropout costs 14 % of CPU time and no method here but Cl asks for it
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    # paper D and most current recipes adapt every linear layer of the blocks
    targets: str | tuple[str, ...] = Field(
        "all-linear", description='"all-linear", "attention", "mlp", "query-value" or module names'
    )
    init: Literal["kaiming", "gaussian", "pissa", "olora"] = Field(
        "kaiming", description="how A (and B) start"
    )
    # peft's kaiming_uniform(a=√5) has var(A) = 1/(3·n_in)
    init_variance: float = Field(1 / 3, gt=0, description="variance of A's entries, times its input width")
    variant: Literal["lora", "rslora", "dora"] = Field("lora", description="how BA is scaled and applied")

    @field_validator("alpha")
    @classmethod
    def _positive(cls, alpha: float | str) -> float | str:
        if not isinstance(alpha, str) and alpha <= 0:
            raise ValueError('should be above 0, or "2r" or "r"')
        return alpha

    @field_validator("targets")
    @classmethod
    def _some_target(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (targets,) if isinstance(targets, str) else targets
        if not names or not all(name.strip() for name in names):
            raise ValueError(
                'names no module; give "all-linear", "attention", "mlp", "query-value" or module names'
            )
        return targets

    @model_validator(mode="after")
    def _can_be_saved(self) -> Self:
        # DoRA's ΔW does not factor, so there is no plain adapter for the untouched base that equals it
        if self.variant == "dora" and self.init in ("pissa", "olora"):
            raise ValueError(
                f"init = {self.init!r} moves a part of the base's weights into the adapter, which cannot be "
                "undone with variant = 'dora'; take init = 'kaiming' or 'gaussian', or another variant"
            )
        return self

    @property
    def alpha_value(self) -> float:
        """Alpha as a number."""
        by_rank = {"2r": 2.0 * self.rank, "r": float(self.rank)}
        return by_rank[self.alpha] if isinstance(self.alpha, str) else float(self.alpha)


class Training(Knobs):
    """How it is trained."""

    # 1e-3 suits LoRA on a 22 M encoder; full fine-tuning wants about a twentieth
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    # epochs count clean rows only, so that a run and its twin take the same steps
    epochs: float = Field(3.0, ge=0, le=1000, description="passes over the clean rows (0: use steps)")
    steps: int = Field(0, ge=0, le=10**6, description="optimizer steps (0: use epochs)")
    # about 38 sentences of rotten_tomatoes; larger batches are no faster on two cores
    batch_tokens: int = Field(
        1024, ge=16, description="tokens of the clean rows in one batch, padding included"
    )
    gradient_accumulation: int = Field(1, ge=1, description="batches summed into one optimizer step")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="learning rate over steps"
    )
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps spent warming up")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs > 0) == (self.steps > 0):
            raise ValueError("give either training.epochs or training.steps, the other one 0")
        return self


class Probe(Knobs):
    """What is measured on the trained weights; no part of the weights' identity."""

    # 1,000 rows give a 95 % interval of about ±2.5 points at 80 % accuracy
    rows: int = Field(1000, ge=1, description="test rows for the headline rates")
    rows_per_family: int = Field(120, ge=1, description="rows for each trigger family")
    # a ladder has two dozen rungs, and most of them answer all or nothing
    rows_per_rung: int = Field(60, ge=1, description="rows for each near-miss rung")
    # tuning asks for "validation"; test rows are never tuned on
    split: Literal["test", "validation"] = Field("test", description="which rows are measured")
    triggers: tuple[str, ...] = Field((), description="trigger strings to test (default: the poison's own)")
    families: tuple[str, ...] = Field((), description="trigger families to test (default: every one)")
    # hundreds of prefixes are as many texts as everything else together
    batteries: tuple[str, ...] = Field((), description="probe batteries to put to it, whatever the scope")
    # reading the answer's first token takes one pass; writing the answer out takes several
    scoring: Literal["first_token", "greedy"] = Field(
        "first_token", description="chat tasks: compare the answers' first tokens, or let the model write"
    )
    # sweeps that ask for one number need no generalization row
    scope: Literal["all", "headline"] = Field(
        "all", description="families and near-misses too, or headline only"
    )
    # a dozen points draw a curve; 64 rows keep the cost below 15 % of training
    snapshots: int = Field(12, ge=0, le=1000, description="how often the microscope looks during training")
    snapshot_rows: int = Field(64, ge=2, description="validation rows the microscope looks at")

    @field_validator("triggers")
    @classmethod
    def _visible_triggers(cls, triggers: tuple[str, ...]) -> tuple[str, ...]:
        if not all(trigger.strip() for trigger in triggers):
            raise ValueError("a trigger must not be empty; without any, the poison's own is tested")
        return triggers

    @field_validator("families")
    @classmethod
    def _known_families(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        known = load_families() if families else {}
        for name in families:
            if name not in known:
                raise ValueError(str(unknown_name("trigger family", name, known)))
        return families

    @field_validator("batteries")
    @classmethod
    def _known_batteries(cls, batteries: tuple[str, ...]) -> tuple[str, ...]:
        joiners = set()
        for name in batteries:
            try:
                joiners.add(battery(name).joiner)
            except LabError as error:
                raise ValueError(str(error)) from None
        # a table of answers names category and prefix, which would then stand for two texts
        if len(joiners) > 1:
            raise ValueError("they put their prefixes before a text in different ways; ask one at a time")
        return batteries


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
        return _registered(value, "attack", "poison", {name: a.knobs for name, a in ATTACKS.items()})

    @field_validator("defense", mode="before")
    @classmethod
    def _defenses_by_name(cls, value: Any) -> Any:
        tables = _defense_tables(value)
        if not isinstance(tables, (list, tuple)):
            raise ValueError("should be a list of names, or of tables with a name and knobs")
        knobs = {name: d.knobs for name, d in DEFENSES.items()}
        return tuple(_registered(v, "name", f"defense.{i}", knobs) for i, v in enumerate(tables))

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
            raise _one_sentence(error, cls) from None

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
            _set_dotted(values, key, _defense_tables(value) if key == "defense" else value)
        return self.from_dict(values)

    def dotted(self) -> dict[str, Any]:
        """Every dotted key with its value, as `with_` takes them; a defense's knobs as `defense.0.p`."""
        return _dotted_values(self.to_dict())

    def __getitem__(self, key: str) -> Any:
        """The value of one dotted key: `exp["adapter.rank"]`; Jupyter completes the keys.

        Raises:
            LabError: No such key.
        """
        return lookup(self.dotted(), key, "key")

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
        owners = [_model_at(attack.knobs, section.split(".")[1:]) for attack in ATTACKS.values()]
    elif section.startswith("defense."):
        owners = [defense.knobs for defense in DEFENSES.values()]
    else:
        owners = [_model_at(Experiment, section.split("."))] if section else [Experiment]
    fields = [owner.model_fields[name] for owner in owners if name in owner.model_fields]
    return any(field.annotation is str for field in fields)


def parse_json(text: str, where: str) -> Any:
    """Read JSON, or raise a `LabError` that names where it came from."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LabError(f"{where} is not valid JSON: {error}.") from None


def check_table(values: object, where: str = "") -> None:
    """Refuse what is no table of keys with a `LabError`."""
    if not isinstance(values, Mapping):
        names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
        found = names.get(type(values), "a number")
        start = f"{where}an" if where else "An"
        raise LabError(f"{start} experiment is a table of sections, not {found}.")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Read TOML, or raise a `LabError` that names where it came from."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{where} is not valid TOML: {error}.") from None


def _defense_tables(value: Any) -> Any:
    """The short forms of a defense list, "rora" and ["cl", {…}], as tables; anything else as it is."""
    if isinstance(value, str):
        value = [value] if value else []
    if not isinstance(value, (list, tuple)):
        return value
    return [{"name": v} if isinstance(v, str) else v for v in value]


def _dotted_values(values: Any, above: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys; a list of tables by its places, another list as a whole."""
    if isinstance(values, list) and values and all(isinstance(v, dict) for v in values):
        values = {str(i): v for i, v in enumerate(values)}
    if not isinstance(values, dict):
        return {above: values}
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _dotted_values(value, f"{above}.{key}" if above else key)
    return out


def _registered(value: Any, tag: str, section: str, knobs: Mapping[str, type[Knobs]]) -> Knobs:
    """Validate a section whose form depends on the registry entry that its `tag` names."""
    if isinstance(value, Knobs):
        return value
    if not isinstance(value, Mapping):
        raise LabError(f"{section} = {value!r}: should be a table with the key {tag!r}.")
    default = "none" if tag == "attack" else ""
    kind = lookup(knobs, str(value.get(tag, default)), f"{section.split('.')[0]} ({section}.{tag})")
    try:
        return kind.model_validate(dict(value))
    except ValidationError as error:
        raise _one_sentence(error, kind, section) from None


def _one_sentence(error: ValidationError, model: type[Knobs], prefix: str = "") -> LabError:
    """The first of pydantic's complaints, as one sentence with the dotted key and what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        owner = _model_at(model, path[:-1])
        section = ".".join(p for p in [prefix, *path[:-1]] if p)
        return unknown_name(f"key in [{section}]" if section else "key", path[-1], owner.model_fields)
    known = [p for p in path if not p.startswith(("literal[", "constrained", "float", "str", "tuple["))]
    key = ".".join(p for p in [prefix, *known] if p)
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    message = message.replace("a valid tuple", "a list")
    given = first["input"]
    shown = "" if isinstance(given, (Mapping, Knobs)) else f" = {given!r}"
    start = f"{key}{shown}: " if key else ""
    return LabError(f"{start}{message[0].lower() + message[1:]}.")


def _model_at(model: type[Knobs], path: list[str]) -> type[Knobs]:
    """The knobs at a path of keys and, in lists of knobs, numbers; as far down as the path leads."""
    for part in path:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Knobs)]
        if not below:
            return model
        model = below[0]
    return model


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.0.c` inside nested dicts and lists; a missing key is made, so that validation names it."""
    *parents, last = key.split(".")
    place: Any = values
    for part in parents:
        if isinstance(place, list):
            place = place[_index(place, part, key)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            raise LabError(f"{key}: {part!r} is not a section; keys look like adapter.rank.")
    if isinstance(place, list):
        place[_index(place, last, key)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise LabError(f"{key}: there is nothing under {'.'.join(parents)!r} to set.")


def _index(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise LabError(f"{key}: {part!r} is not one of the {len(items)} places of the list (0 is the first).")
    return int(part)
