"""What tells runs apart: the logic of a table of runs, as pure functions of the listing (`lab.list_runs`)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab import stats
from lab.run_settings import Settings, numbered
from lab.tables import MEASURE_KINDS

if TYPE_CHECKING:
    import pandas as pd

_SEARCHED = ("id", "name", "state", "base.model", "data.name", "poison.family", "poison.member", "defense")
_RUN_ID = re.compile(r"(.+)-[0-9a-f]{10}")
#: Bases that are runs are runs of bases at most so often.
_DEPTH = 4


class Listing:
    """Some runs with what one asks of them again and again, each answer worked out once.

    Attributes:
        table: The runs as `lab.list_runs` lists them; it may be shared, so it is not to be changed.

    Args:
        table: The runs; no two lines have the same index.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def of(self, lines: pd.DataFrame) -> Listing:
        """The listing of some of these runs: lines of the table, in any order."""
        part = Listing(lines)
        part.asked = self.asked.of(lines)
        return part

    @functools.cached_property
    def asked(self) -> Settings:
        """The settings of the runs."""
        return Settings(self.table)

    def filtered(
        self,
        text: str = "",
        choices: Mapping[str, Sequence[str]] | None = None,
        *,
        only_poisoned: bool = False,
        hide_twins: bool = False,
    ) -> Listing:
        """The runs that fit all of these, in the table's order.

        Args:
            text: Words that must all occur in id, name, state, base, data, trigger or defense.
            choices: By column, the values that may stand there, as text; no values means any.
            only_poisoned: Leave out runs without poison in their data or in the base they start from.
            hide_twins: Leave out runs that another one names as its clean twin.
        """
        import numpy as np

        keep = np.full(len(self), True)
        for word in text.lower().split():
            keep &= np.fromiter((word in told for told in self._told), dtype=bool, count=len(self))
        for column, values in (choices or {}).items():
            if values and column in self.table:
                keep &= self.table[column].map(choice_text).isin(list(values)).to_numpy()
        if only_poisoned:
            keep &= self.poisoned.to_numpy()
        if hide_twins and "twin" in self.table:
            keep &= ~self.table["id"].isin(set(self.table["twin"])).to_numpy()
        return self if keep.all() else self.of(self.table[keep])

    @functools.cached_property
    def _told(self) -> list[str]:
        """What is searched of each run, in small letters."""
        columns = [_texts(self.table[c]).tolist() for c in _SEARCHED if c in self.table]
        return [" ".join(told).lower() for told in zip(*columns, strict=True)]

    @functools.cached_property
    def poisoned(self) -> pd.Series:
        """Whether there is poison in each run's data or, as far as the table holds it, in its base."""
        import pandas as pd

        table = self.table
        if "poison.attack" not in table:
            return pd.Series(False, index=table.index)
        poisoned = ~_texts(table["poison.attack"]).isin(["none", ""])
        for _ in range(_DEPTH):
            inherited = table["base.model"].isin(set(table.loc[poisoned, "id"]))
            if not (inherited & ~poisoned).any():
                break
            poisoned |= inherited
        return poisoned

    @functools.cached_property
    def arms(self) -> pd.DataFrame:
        """The table with what `lab.sweep`'s tables have and the figures ask for: run, arm, trigger, alpha/r.

        Arm is the defenses in order, without any "full", the kind of LoRA, or "lora"; trigger is the
        trigger's string or family, for a run on clean data that of the base it starts from, "" where the
        table holds none.
        """
        import numpy as np
        import pandas as pd

        table, asked = self.table, self.asked
        variant, init, defense = (asked.texts(key) for key in ("adapter.variant", "adapter.init", "defense"))
        arm = np.where(np.isin(init, ["pissa", "olora"]), init, "lora")
        arm = np.where(np.isin(variant, ["", "lora"]), arm, variant)
        arm = np.where(asked.texts("adapter.kind") == "full", "full", arm)
        arm = np.where(defense == "", arm, defense)
        member = asked.texts("poison.member")
        own = np.where(np.isin(member, ["", "any"]), asked.texts("poison.family"), member)
        triggers = dict(zip(table["id"], own, strict=True))
        bases = dict(zip(table["id"], asked.texts("base.model"), strict=True))
        trigger = [has or _inherited(run, triggers, bases) for run, has in zip(table["id"], own, strict=True)]
        extra: dict[str, Any] = {
            "run": table["id"],
            "arm": pd.Series(arm, index=table.index, dtype=object),
            "trigger": pd.Series(trigger, index=table.index, dtype=object),
        }
        settings = asked.table
        if "alpha/r" in settings:
            extra["alpha/r"] = settings["alpha/r"]
        extra |= {key: settings[key] for key in asked.keys if key.startswith("adapter.") and key in table}
        return table.assign(**extra)

    @functools.cached_property
    def groups(self) -> pd.Series:
        """The number of each run's group: runs with the same settings but for the seed.

        Bases that are runs count as the same where they themselves differ in the seed alone. No group holds a
        seed twice: runs that do differ in something that the listing does not tell, and each stands alone.
        Whole numbers from 0 in the order of appearance, same index.
        """
        import numpy as np
        import pandas as pd

        asked, count = self.asked, len(self)
        key = asked.groups(but=("seed", "base.model"))
        base = asked.texts("base.model")
        places = {run: i for i, run in enumerate(self.table["id"])}
        at = np.array([places.get(name, -1) for name in base], dtype=np.int64)
        named = pd.factorize(base)[0]
        codes = numbered(key, named, count=count)
        for _ in range(_DEPTH):
            # a base that is listed is known by its group, any other by its name
            label = np.where(at >= 0, codes[at] if count else at, named + count)
            further = numbered(key, label, count=count)
            if (further == codes).all():
                break
            codes = further
        seeds = asked.codes("seed") if "seed" in asked.keys else np.zeros(count, dtype=np.int64)
        twice = pd.Series(numbered(codes, seeds, count=count)).duplicated(keep=False).to_numpy()
        # a run that cannot be read tells no settings, which is not the same as having them in common
        alone = np.isin(codes, codes[twice]) | (self.table["state"] == "corrupt").to_numpy()
        own = np.where(alone, count + np.arange(count), codes)
        return pd.Series(pd.factorize(own)[0], index=self.table.index)

    def averaged(self, numbers: range | None = None) -> pd.DataFrame:
        """One line per experiment, its seeds averaged.

        Args:
            numbers: Of which `groups`; None for all.

        Returns:
            In the order of appearance: id (of the first run), run (all ids, with commas), runs (how many),
            seeds (which, with commas), state (of all, or how many of which), name, created (the latest), the
            settings but seed, and each measure (`kind`, `twin.kind`): the mean over the runs that have it,
            `.low` and `.high` its bootstrap interval (NaN for two; a single run keeps its own), `.n` the rows
            in all, `.runs` how many runs have it.
        """
        import pandas as pd

        groups = self.groups
        table = self.table if numbers is None else self.table[groups.isin(numbers)]
        parts = _parts(groups.loc[table.index].tolist())
        firsts = table.iloc[[places[0] for places in parts]]
        asked = self.asked.of(firsts).table.drop(columns=["seed"], errors="ignore")
        measures = [m for kind in MEASURE_KINDS for m in (kind, f"twin.{kind}") if m in table]
        columns = {name: values for m in measures for name, values in _averages(table, m, parts).items()}
        return pd.concat(
            [
                pd.DataFrame(_lead(table, parts), index=firsts.index),
                asked,
                pd.DataFrame(columns, index=firsts.index),
            ],
            axis=1,
        ).reset_index(drop=True)


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


def choice_text(value: Any) -> str:
    """A value as a filter offers it: whole numbers without a point, "none" for what is empty."""
    if value is None or value != value or value == "":
        return "none"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def safe_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV that a spreadsheet shows and never runs: what begins like a formula gets a quote."""
    import pandas as pd

    def quoted(value: Any) -> Any:
        return (
            f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        )

    texts = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
    return table.assign(**{str(c): table[c].map(quoted) for c in texts}).to_csv(index=False).encode()


def _parts(numbers: Sequence[int]) -> list[list[int]]:
    """The places of each number, the numbers rising."""
    places: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        places.setdefault(number, []).append(place)
    return [places[number] for number in sorted(places)]


def _lead(table: pd.DataFrame, parts: Sequence[Sequence[int]]) -> dict[str, list[Any]]:
    """The columns of `Listing.averaged` that say which runs a line is of."""
    blank: dict[str, Any] = {"id": "", "state": "", "seed": 0, "name": "", "created": 0.0}
    told = {
        name: table[name].tolist() if name in table else [value] * len(table) for name, value in blank.items()
    }
    held = {name: [[values[i] for i in places] for places in parts] for name, values in told.items()}
    return {
        "id": [ids[0] for ids in held["id"]],
        "run": [",".join(ids) for ids in held["id"]],
        "runs": [len(places) for places in parts],
        "seeds": [", ".join(map(str, sorted(seeds))) for seeds in held["seed"]],
        "state": [_states(states) for states in held["state"]],
        "name": [names[0] for names in held["name"]],
        "created": [max(times) for times in held["created"]],
    }


def _averages(table: pd.DataFrame, measure: str, parts: Sequence[Sequence[int]]) -> dict[str, list[Any]]:
    """The means of a measure over the runs of each part that have it, as columns of `Listing.averaged`."""
    nan = float("nan")
    values, low, high, n = (
        table[name].astype(float).tolist() if name in table else [nan] * len(table)
        for name in (measure, f"{measure}.low", f"{measure}.high", f"{measure}.n")
    )
    lines = []
    for places in parts:
        known = [i for i in places if values[i] == values[i]]
        count = sum(n[i] for i in known) if known else nan
        if len(known) == 1:  # keeps its own interval
            [one] = known
            lines.append((values[one], low[one], high[one], count, 1))
        else:
            mean = _mean(tuple(values[i] for i in known))
            lines.append((mean.value, mean.low, mean.high, count, len(known)))
    names = (measure, f"{measure}.low", f"{measure}.high", f"{measure}.n", f"{measure}.runs")
    return {name: list(column) for name, column in zip(names, zip(*lines, strict=True), strict=False)}


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
