"""What was asked of each run, and in what runs differ.

A *setting* is what was asked: the dotted keys, `defense`, `seed`. A setting that does not apply to a run (the
rank of full fine-tuning, the family of clean data) is missing there, and missing is no value: a setting
differs where two runs that have it have it differently.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    Codes = npt.NDArray[np.int64]

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


class Settings:
    """The settings of some runs: which of them differ, which are the same.

    Every value is numbered once; what fewer runs differ in (`of`) is then a question to numbers, which a page
    that filters thousands of runs may ask at every key stroke.

    Args:
        table: Runs as `lab.list_runs` lists them; no two lines have the same index.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        import numpy as np
        import pandas as pd

        self._all = settings_table(table)
        found = [pd.factorize(self._all[key]) for key in self._all]
        self._values = [values for _, values in found]
        self._codes: Codes = np.full((len(table), len(found)), -1, dtype=np.int64)
        for i, (codes, _) in enumerate(found):
            self._codes[:, i] = codes
        self._lines = self._all.index

    def of(self, lines: pd.DataFrame) -> Settings:
        """The settings of some of these runs.

        Args:
            lines: Lines of the table that these settings are of, in any order, under the same index.
        """
        part = object.__new__(Settings)
        part._all, part._values, part._lines = self._all, self._values, lines.index
        part._codes = self._codes[self._lines.get_indexer(lines.index)]
        return part

    @property
    def keys(self) -> list[str]:
        """Every setting that the listing has, those of `NAMES` first."""
        return [str(key) for key in self._all]

    @property
    def table(self) -> pd.DataFrame:
        """One column per setting, one line per run; NaN where a setting does not apply."""
        return self._all.loc[self._lines]

    @functools.cached_property
    def constant(self) -> dict[str, Any]:
        """Settings that are the same in every run that has them, with their value."""
        low, high = self._ends
        return {
            key: _value(self._values[i][high[i]])
            for i, key in enumerate(self.keys)
            if low[i] == high[i] and high[i] >= 0
        }

    @functools.cached_property
    def differing(self) -> list[str]:
        """Settings that two runs have differently, in the order of `keys`."""
        low, high = self._ends
        return [key for i, key in enumerate(self.keys) if low[i] < high[i]]

    @property
    def numeric(self) -> list[str]:
        """The differing settings that are numbers: axes of a map, doses of a curve."""
        from pandas.api.types import is_bool_dtype, is_numeric_dtype

        def counts(column: pd.Series) -> bool:
            return is_numeric_dtype(column) and not is_bool_dtype(column)

        return [key for key in self.differing if counts(self._all[key])]

    def codes(self, key: str) -> Codes:
        """A number for each run, equal where the values are; -1 where the setting does not apply."""
        return self._codes[:, self.keys.index(key)]

    def texts(self, key: str) -> npt.NDArray[np.object_]:
        """The values of one setting as text, "" where it does not apply or the listing does not have it."""
        import numpy as np

        if key not in self.keys:
            return np.full(len(self._codes), "", dtype=object)
        told = np.array([*map(str, self._values[self.keys.index(key)]), ""], dtype=object)
        return told[self.codes(key)]

    def groups(self, but: tuple[str, ...] = ()) -> Codes:
        """A number for each run, equal where all settings are, missing ones too; in the order of appearance.

        Args:
            but: Settings that are not looked at.
        """
        told = [i for i, key in enumerate(self.keys) if key not in but]
        columns = self._codes[:, told]
        return numbered(*columns[:, (columns != columns[:1]).any(axis=0)].T, count=len(columns))

    @functools.cached_property
    def _ends(self) -> tuple[Codes, Codes]:
        """The smallest and the largest number of each setting; the largest is -1 where no run has it."""
        import numpy as np

        most = np.iinfo(np.int64).max
        low = np.where(self._codes < 0, most, self._codes).min(axis=0, initial=most)
        return low, self._codes.max(axis=0, initial=-1)


def settings_table(table: pd.DataFrame) -> pd.DataFrame:
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
        by_rule = found["adapter.alpha"].map({"2r": 2.0, "r": 1.0})
        found["alpha/r"] = (alpha / rank).fillna(by_rule).where(rank.notna())
    keys = [key for key in NAMES if key in found]
    keys += [key for key in found if key not in NAMES and key not in _TOLD_OTHERWISE]
    return pd.DataFrame({key: _without_lists(found[key]) for key in keys}, index=table.index)


def numbered(*columns: Codes, count: int) -> Codes:
    """A number for each line, equal where all columns are; in the order of appearance.

    Args:
        *columns: Whole numbers from -1 up, each of shape [count].
        count: How many lines.
    """
    import numpy as np
    import pandas as pd

    codes: Codes = np.zeros(count, dtype=np.int64)
    for own in columns:
        codes = pd.factorize(codes * (own.max(initial=0) + 2) + own)[0]
    return codes


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


def _without_lists(column: pd.Series) -> pd.Series:
    """A column whose values can be counted and shown: lists (adapter.targets) as text."""
    if column.dtype != object:
        return column
    return column.map(lambda v: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v)


def _value(value: Any) -> Any:
    """A plain Python value, whole numbers as such: a column with gaps turns them into floats."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
