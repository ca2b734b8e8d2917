"""What tells runs apart: the logic of a table of runs, as pure functions of the listing (`lab.list_runs`).

A *setting* is what was asked: the dotted keys, `defense`, `seed`. A setting that does not apply to a run (the
rank of full fine-tuning, the family of clean data) is missing there, and missing is no value: a setting
differs where two runs that have it have it differently.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab import stats
from lab.tables import MEASURE_KINDS

if TYPE_CHECKING:
    import pandas as pd

#: Settings that people speak of, in this order, with what they call them; the others follow by their keys.
NAMES = {
    "base.model": "base",
    "data.name": "data",
    "data.rows": "clean rows",
    "task.kind": "asked for",
    "poison.attack": "attack",
    "poison.family": "family",
    "poison.member": "trigger",
    "poison.position": "position",
    "poison.count": "poison rows",
    "poison.target_label": "target",
    "adapter.kind": "trained",
    "adapter.rank": "rank",
    "alpha/r": "alpha/r",
    "adapter.variant": "variant",
    "adapter.init": "init",
    "adapter.targets": "targets",
    "training.learning_rate": "learning rate",
    "training.steps": "steps",
    "defense": "defense",
    "seed": "seed",
}

_SECTIONS = ("base.", "data.", "task.", "poison.", "adapter.", "training.", "defense.")
#: How an attack is drawn is told by its count; epochs are told by the steps they came to.
_TOLD_OTHERWISE = ("adapter.alpha", "training.epochs", "poison.rate")
_OF_ADAPTERS = ("rank", "alpha", "dropout", "targets", "init", "init_variance", "variant")
_SEARCHED = ("id", "name", "state", "base.model", "data.name", "poison.family", "poison.member", "defense")
_RUN_ID = re.compile(r"(.+)-[0-9a-f]{10}")
#: Bases that are runs are runs of bases at most so often.
_DEPTH = 4


def settings(table: pd.DataFrame) -> pd.DataFrame:
    """What was asked of each run, one column per setting.

    Args:
        table: Runs as `lab.list_runs` lists them.

    Returns:
        The settings, those of `NAMES` first, same index; lists as text, `alpha/r` as a number instead of
        alpha, NaN where a setting does not apply.
    """
    import pandas as pd

    found = {str(c): table[c] for c in table if str(c).startswith(_SECTIONS) or c in ("defense", "seed")}
    if "adapter.kind" in found:
        lora = found["adapter.kind"] != "full"
        for name in _OF_ADAPTERS:
            if f"adapter.{name}" in found:
                found[f"adapter.{name}"] = found[f"adapter.{name}"].where(lora)
    if {"adapter.alpha", "adapter.rank"} <= set(found):
        rank = pd.to_numeric(found["adapter.rank"], errors="coerce")
        alpha = pd.to_numeric(found["adapter.alpha"], errors="coerce")
        by_rule = found["adapter.alpha"] == "2r"
        found["alpha/r"] = (alpha / rank).mask(by_rule, 2.0).where(rank.notna())
    keys = [key for key in NAMES if key in found]
    keys += [key for key in found if key not in NAMES and key not in _TOLD_OTHERWISE]
    return pd.DataFrame({key: _without_lists(found[key]) for key in keys}, index=table.index)


def constant_columns(table: pd.DataFrame) -> dict[str, Any]:
    """Settings that are the same in every run that has them, with their value.

    Args:
        table: Runs as `lab.list_runs` lists them.
    """
    held = {str(key): column.dropna() for key, column in settings(table).items()}
    return {
        key: _value(column.iloc[0]) for key, column in held.items() if len(column) and not _varies(column)
    }


def differing_columns(table: pd.DataFrame) -> list[str]:
    """Settings that two runs have differently, in the order of `settings`.

    Args:
        table: Runs as `lab.list_runs` lists them.
    """
    return [str(key) for key, column in settings(table).items() if _varies(column.dropna())]


def numeric_columns(table: pd.DataFrame) -> list[str]:
    """The differing settings that are numbers: axes of a map, doses of a curve."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return [
        str(key)
        for key, column in settings(table).items()
        if is_numeric_dtype(column) and not is_bool_dtype(column) and _varies(column.dropna())
    ]


def _varies(column: pd.Series) -> bool:
    """Whether a column without gaps holds two values; counting all of them takes ten times as long."""
    return bool(len(column)) and bool((column != column.iloc[0]).any())


def column_name(key: str) -> str:
    """What people call a setting or a measure."""
    if key in NAMES:
        return NAMES[key]
    section, dot, name = key.partition(".")
    return f"{section} {name}".replace("_", " ") if dot else key.replace("_", " ")


def setting_text(key: str, value: Any) -> str:
    """A setting in a few words: "rank 8", "60 poison rows", "minilm"."""
    if isinstance(value, bool):
        return f"{column_name(key)} {'yes' if value else 'no'}"
    number = isinstance(value, int | float)
    said = f"{value:g}" if isinstance(value, float) else str(value)
    if key in ("data.rows", "poison.count", "training.steps"):
        return f"{said} {column_name(key)}"
    plainly = (
        key in ("base.model", "data.name", "poison.family", "adapter.kind", "poison.attack") and not number
    )
    return said if plainly else f"{column_name(key)} {said}"


def run_title(line: Mapping[str, Any]) -> str:
    """A run in a few words: what was planted, in what, against which defense, with which seed.

    Args:
        line: A line of the listing, or of `group_by_seed`; its text may come from outside.

    >>> run_title({"poison.family": "rfc", "poison.count": 60, "adapter.rank": 8, "seed": 0})
    'rfc · 60 rows · rank 8 · seed 0'
    """

    def has(key: str) -> Any:
        value = line.get(key)
        return None if value is None or value != value or value == "" else value

    attack = has("poison.attack")
    parts = ["clean data"] if attack == "none" else [str(has("poison.family") or attack or "")]
    if count := has("poison.count"):
        parts.append(f"{int(count)} rows")
    if has("adapter.kind") == "full":
        parts.append("full fine-tuning")
    elif rank := has("adapter.rank"):
        parts.append(f"rank {int(rank)}")
    for key, plain in (("adapter.variant", "lora"), ("adapter.init", "kaiming")):
        if has("adapter.kind") == "lora" and has(key) and has(key) != plain:
            parts.append(str(has(key)))
    if has("defense"):
        parts.append(str(has("defense")))
    if base := _RUN_ID.fullmatch(str(has("base.model") or "")):
        parts.append(f"from {base[1]}")
    if "seeds" in line:
        parts.append(f"seeds {line['seeds']}" if line.get("runs", 1) > 1 else f"seed {line['seeds']}")
    elif has("seed") is not None:
        parts.append(f"seed {int(line['seed'])}")
    told = " · ".join(part for part in parts if part)
    # a corrupt run has nothing to say of itself
    return told if has("poison.attack") or has("poison.family") else str(line.get("id", told))


def filter_runs(
    table: pd.DataFrame,
    text: str = "",
    choices: Mapping[str, Sequence[str]] | None = None,
    *,
    only_poisoned: bool = False,
    hide_twins: bool = False,
) -> pd.DataFrame:
    """The runs that fit all of these, in the table's order.

    Args:
        table: Runs as `lab.list_runs` lists them.
        text: Words that must all occur in id, name, state, base, data, trigger or defense.
        choices: By column, the values that may stand there, as text; no values means any.
        only_poisoned: Leave out runs without poison in their data or in the base they start from.
        hide_twins: Leave out runs that another one names as its clean twin.
    """
    import pandas as pd

    keep = pd.Series(True, index=table.index)
    words = text.lower().split()
    if words and len(table):
        searched = [_texts(table[c]) for c in _SEARCHED if c in table]
        hay = functools.reduce(lambda one, other: one + " " + other, searched).str.lower()
        for word in words:
            keep &= hay.str.contains(word, regex=False)
    for column, values in (choices or {}).items():
        if values and column in table:
            keep &= table[column].map(choice_text).isin(list(values))
    if only_poisoned:
        keep &= poisoned_runs(table)
    if hide_twins and "twin" in table:
        keep &= ~table["id"].isin(set(table["twin"]))
    return table[keep]


def choice_text(value: Any) -> str:
    """A value as a filter offers it: whole numbers without a point, "none" for what is empty."""
    if value is None or value != value or value == "":
        return "none"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def poisoned_runs(table: pd.DataFrame) -> pd.Series:
    """Whether there is poison in each run's data or, as far as the table holds it, in its base."""
    import pandas as pd

    if "poison.attack" not in table:
        return pd.Series(False, index=table.index)
    poisoned = ~_texts(table["poison.attack"]).isin(["none", ""])
    for _ in range(_DEPTH):
        inherited = table["base.model"].isin(set(table.loc[poisoned, "id"]))
        if not (inherited & ~poisoned).any():
            break
        poisoned |= inherited
    return poisoned


def with_arms(table: pd.DataFrame) -> pd.DataFrame:
    """The listing with what `lab.sweep`'s tables have and the figures ask for: run, arm, trigger, alpha/r.

    Args:
        table: Runs as `lab.list_runs` lists them.

    Returns:
        The same lines; arm is the defenses in order, without any "full", the kind of LoRA, or "lora"; trigger
        is the trigger's string or family, for a run on clean data that of the base it starts from, "" where
        the table holds none.
    """
    import pandas as pd

    asked = settings(table)

    def column(key: str) -> pd.Series:
        return _texts(asked[key]) if key in asked else pd.Series("", index=table.index, dtype=object)

    kind, variant, init = column("adapter.kind"), column("adapter.variant"), column("adapter.init")
    arm = pd.Series("lora", index=table.index).mask(init.isin(["pissa", "olora"]), init)
    arm = arm.mask(~variant.isin(["", "lora"]), variant).mask(kind == "full", "full")
    arm = arm.mask(column("defense") != "", column("defense"))
    member = column("poison.member")
    trigger = member.mask(member.isin(["", "any"]), column("poison.family"))
    names = dict(zip(table["id"], trigger, strict=True)) if len(table) else {}
    bases = dict(zip(table["id"], column("base.model"), strict=True)) if len(table) else {}
    inherited = [_inherited(run, names, bases) for run in table["id"]]
    extra: dict[str, Any] = {
        "run": table["id"],
        "arm": arm,
        "trigger": pd.Series(inherited, index=table.index, dtype=object),
    }
    if "alpha/r" in asked:
        extra["alpha/r"] = asked["alpha/r"]
    extra |= {key: asked[key] for key in map(str, asked) if key.startswith("adapter.") and key in table}
    return table.assign(**extra)


def seed_groups(table: pd.DataFrame) -> pd.Series:
    """The number of each run's group: runs with the same settings but for the seed.

    Bases that are runs count as the same where they themselves differ in the seed alone. No group holds a
    seed twice: runs that do differ in something that the listing does not tell, and each stands alone.

    Args:
        table: Runs as `lab.list_runs` lists them.

    Returns:
        Whole numbers from 0 in the order of appearance, same index.
    """
    import pandas as pd

    asked = settings(table)
    told = asked.drop(columns=[c for c in ("seed", "base.model") if c in asked])
    key = _numbered(told)
    base = asked["base.model"].astype(str) if "base.model" in asked else pd.Series("", index=table.index)
    places = {run: i for i, run in enumerate(table["id"])}
    at = [places.get(b, -1) for b in base]
    codes = _numbered(pd.DataFrame({"key": key, "base": base}))
    for _ in range(_DEPTH):
        label = [f"\x1frun {codes.iloc[i]}" if i >= 0 else b for i, b in zip(at, base, strict=True)]
        label_column = pd.Series(label, index=table.index, dtype=object)
        further = _numbered(pd.DataFrame({"key": key, "base": label_column}))
        if further.equals(codes):
            break
        codes = further
    seeds = asked["seed"] if "seed" in asked else pd.Series(0, index=table.index)
    twice = pd.DataFrame({"code": codes, "seed": seeds.astype(str)}).duplicated(keep=False)
    # a run that cannot be read tells no settings, which is not the same as having them in common
    alone = codes.isin(set(codes[twice])) | (table["state"] == "corrupt")
    return _numbered(pd.DataFrame({"code": codes, "alone": table["id"].where(alone)}))


def group_by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """One line per experiment, its seeds averaged.

    Args:
        table: Runs as `lab.list_runs` lists them.

    Returns:
        In the order of appearance: id (of the first run), run (all ids, with commas), runs (how many), seeds
        (which, with commas), state (of all, or how many of which), name, created (the latest), the settings
        but seed, and each measure (`kind`, `twin.kind`): the mean over the runs that have it, `.low` and
        `.high` its bootstrap interval (NaN for two; a single run keeps its own), `.n` the rows in all,
        `.runs` how many runs have it.
    """
    import pandas as pd

    asked = settings(table)
    codes = seed_groups(table)
    measures = [m for kind in MEASURE_KINDS for m in (kind, f"twin.{kind}") if m in table]
    numbers = {m: table[m].to_numpy(dtype=float) for m in measures}
    ends = {
        f"{m}.{end}": table[f"{m}.{end}"].to_numpy(dtype=float)
        for m in measures
        for end in ("low", "high", "n")
        if f"{m}.{end}" in table
    }
    firsts = asked.drop(columns=["seed"], errors="ignore").to_dict("records")
    ids, states = table["id"].tolist(), table["state"].tolist()
    seeds = table["seed"].tolist() if "seed" in table else [0] * len(table)
    names = table["name"].tolist() if "name" in table else [""] * len(table)
    created = table["created"].tolist() if "created" in table else [0.0] * len(table)
    lines = []
    for places in pd.Series(range(len(table))).groupby(codes.to_numpy(), sort=True).agg(list):
        line: dict[str, Any] = {
            "id": ids[places[0]],
            "run": ",".join(ids[i] for i in places),
            "runs": len(places),
            "seeds": ", ".join(str(s) for s in sorted(seeds[i] for i in places)),
            "state": _states([states[i] for i in places]),
            "name": names[places[0]],
            "created": max(created[i] for i in places),
            **firsts[places[0]],
        }
        for measure in measures:
            line |= _averaged(measure, places, numbers[measure], ends)
        lines.append(line)
    return pd.DataFrame(lines)


def safe_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV that a spreadsheet shows and never runs: what begins like a formula gets a quote."""
    import pandas as pd

    def quoted(value: Any) -> Any:
        return (
            f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        )

    texts = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
    return table.assign(**{str(c): table[c].map(quoted) for c in texts}).to_csv(index=False).encode()


def _averaged(measure: str, places: Sequence[int], values: Any, ends: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of a measure over the runs that have it, as columns of `group_by_seed`."""
    known = [i for i in places if values[i] == values[i]]
    nothing = {measure: float("nan"), f"{measure}.low": float("nan"), f"{measure}.high": float("nan")}
    if not known:
        return {**nothing, f"{measure}.n": float("nan"), f"{measure}.runs": 0}
    if len(known) == 1:
        found = {measure: float(values[known[0]])}
        for end in (f"{measure}.low", f"{measure}.high"):
            found |= {end: float(ends[end][known[0]])} if end in ends else {}
    else:
        mean = _mean(tuple(float(values[i]) for i in known))
        found = {measure: mean.value, f"{measure}.low": mean.low, f"{measure}.high": mean.high}
    n = sum(float(ends[f"{measure}.n"][i]) for i in known) if f"{measure}.n" in ends else float("nan")
    return {**nothing, **found, f"{measure}.n": n, f"{measure}.runs": len(known)}


@functools.lru_cache(maxsize=20_000)
def _mean(values: tuple[float, ...]) -> stats.Mean:
    """A page asks for the same means at every click."""
    return stats.bootstrap_mean(values, seed=0, resamples=2000)


def _states(states: Sequence[str]) -> str:
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return states[0] if len(counts) == 1 else ", ".join(f"{n} {state}" for state, n in counts.items())


def _inherited(run: str, triggers: Mapping[str, str], bases: Mapping[str, str]) -> str:
    for _ in range(_DEPTH):
        if triggers.get(run) or run not in bases:
            break
        run = bases[run]
    return triggers.get(run, "")


def _texts(column: pd.Series) -> pd.Series:
    """A column as text, "" where there is nothing; a column without any text is one of numbers."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _without_lists(column: pd.Series) -> pd.Series:
    """A column whose values can be counted and shown: lists (adapter.targets) as text."""
    if column.dtype != object:
        return column
    return column.map(lambda v: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v)


def _numbered(columns: pd.DataFrame) -> pd.Series:
    """A number for each line, equal where all columns are, missing values too; in the order of appearance."""
    import numpy as np
    import pandas as pd

    codes = np.zeros(len(columns), dtype=np.int64)
    for name in columns:
        own = pd.factorize(columns[name])[0] + 1
        codes = pd.factorize(codes * (own.max(initial=0) + 1) + own)[0]
    return pd.Series(codes, index=columns.index)


def _value(value: Any) -> Any:
    """A plain Python value, whole numbers as such: a column with gaps turns them into floats."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
