"""Which finished runs are the cells of a sweep: found in a listing, without data, model or torch.

A record holds what was trained with: steps for epochs, counts for rates, a run's id for a base that a preset
names. So settings are compared and not names or hashes, and three of them with a tolerance: a share of a
class that is not counted here, steps that are not known before rows are read, and bases by their own
settings. Runs of other numbers of rows, ranks or learning rates than asked for never count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from lab.experiment import Experiment

    Mask = npt.NDArray[np.bool_]

_SECTIONS = ("data", "poison", "adapter", "training", "base")
#: Told otherwise in a record, or by something else that is compared.
_APART = ("base.model", "poison.count", "poison.rate", "poison.text_proportion", "adapter.alpha",
          "training.epochs", "training.steps", "base.dtype")  # fmt: skip
#: How far a count may be from a share of half of the rows, as a share of it: classes are not quite equal.
_BALANCE = 0.15
#: How far a seed's steps may be from those of most, as a share: an epoch's batches hang on the rows' lengths.
_STEPS = 0.1
_DEPTH = 4


class Columns:
    """A listing whose columns are made comparable once, however many experiments are looked for in it.

    Attributes:
        table: Runs as `lab.list_runs` lists them.

    Args:
        table: The runs.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self._plain: dict[str, tuple[npt.NDArray[np.object_], Mask]] = {}

    def equal(self, key: str, value: Any) -> Mask:
        """Which lines have a value; one without any has the default that nobody wrote down."""
        import numpy as np

        if key not in self.table:
            return np.full(len(self.table), True)
        if key not in self._plain:
            held = self.table[key].to_numpy(dtype=object)
            plain = np.empty(len(held), dtype=object)
            plain[:] = [_plain(v) for v in held]
            self._plain[key] = plain, np.array([_is_blank(v) for v in held], dtype=bool)
        plain, blank = self._plain[key]
        return blank | (plain == _plain(value))


def matching_runs(runs: pd.DataFrame | Columns, asked: Experiment, free: Iterable[str] = ()) -> pd.DataFrame:
    """The finished runs that are what was asked for, whatever their seed.

    Args:
        runs: Runs as `lab.list_runs` lists them; as `Columns` where many are looked for.
        asked: The experiment, as a sweep asks for it.
        free: Dotted keys that may have any value, such as those that are tuned.

    Returns:
        The lines of the table. Where runs of different numbers of steps are among them, those with about the
        steps that most have.
    """
    columns = runs if isinstance(runs, Columns) else Columns(runs)
    table = columns.table
    if table.empty:
        return table
    found = table[_mask(columns, asked, set(free), _DEPTH) & (table["state"] == "finished").to_numpy()]
    if "training.steps" in found and found["training.steps"].nunique() > 1:
        steps = found["training.steps"]
        most = max(steps.unique(), key=lambda n: ((steps == n).sum(), n))
        found = found[(steps - most).abs() <= _STEPS * most]
    return found


def _mask(columns: Columns, asked: Experiment, free: set[str], depth: int) -> Mask:
    import numpy as np

    from lab.defend import settle
    from lab.poison import ATTACKS

    settled, table = settle(asked), columns.table
    # a record holds a list of tokens, where an experiment may name the file or the source that has it
    poison = ATTACKS[settled.attack].read(settled.poison)
    values = {**settled.to_dict(), "poison": poison.model_dump(mode="json")}
    keep = np.full(len(table), True)
    for key, value in _compared(values, settled, free):
        keep &= columns.equal(key, value)
        if not keep.any():
            return keep
    keep &= _counts(table, values) & _alphas(table, settled, free)
    return keep & _bases(table, keep, settled, depth)


def _compared(values: Mapping[str, Any], settled: Experiment, free: set[str]) -> Iterator[tuple[str, Any]]:
    """The keys whose values have to be equal; those first that most runs differ in."""
    yield "poison.attack", values["poison"]["attack"]
    for section in _SECTIONS:
        for name, value in values[section].items():
            key = f"{section}.{name}"
            if (
                key not in free
                and key not in _APART
                and not (section == "adapter" and _is_idle(name, settled))
            ):
                yield key, value
    if values["task"]["kind"] != "head":
        for name in ("kind", "system", "loss"):
            yield f"task.{name}", values["task"][name]
    yield "defense", "+".join(d["name"] for d in values["defense"])
    for defense in values["defense"]:
        yield from ((f"defense.{defense['name']}.{k}", v) for k, v in defense.items() if k != "name")
    if values["training"]["steps"] and "training.steps" not in free:
        yield "training.steps", values["training"]["steps"]


def _is_idle(name: str, asked: Experiment) -> bool:
    """Whether a key of the adapter says nothing: full fine-tuning has none."""
    return name != "kind" and asked.adapter.kind == "full"


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    """Numbers as numbers, lists as the text that a listing makes of them."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, list | tuple):
        return ", ".join(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in value)
    return str(value)


def _numbers(table: pd.DataFrame, key: str) -> npt.NDArray[np.float64]:
    import numpy as np
    import pandas as pd

    if key not in table:
        return np.full(len(table), math.nan)
    return pd.to_numeric(table[key], errors="coerce").to_numpy(dtype=float)


def _counts(table: pd.DataFrame, values: Mapping[str, Any]) -> Mask:
    """Lines with as many poisoned rows as were asked for: a count, or a share of all rows or of a class.

    A share of a whole dataset, whose size is not known here, may have come to any count.
    """
    import numpy as np

    poison, rows = values["poison"], values["data"]["rows"]
    count = poison.get("count", 0)
    share, half = poison.get("rate", 0.0), poison.get("text_proportion", 0.0)
    found = _numbers(table, "poison.count")
    if count:
        return found == count
    if share and rows:
        # copies come on top of the rows of which the poisoned ones are to be a share
        whole = rows / (1 - share) if poison.get("mode") == "append" else rows
        return np.abs(found - share * whole) <= 1
    if half and rows:
        return np.abs(found - half * rows / 2) <= max(1.0, _BALANCE * half * rows / 2)
    return np.full(len(table), True)


def _alphas(table: pd.DataFrame, asked: Experiment, free: set[str]) -> Mask:
    """Lines with the same alpha: "r", "2r" and numbers are told apart by what they come to."""
    import numpy as np

    if asked.adapter.kind == "full" or "adapter.alpha" in free or "adapter.alpha" not in table:
        return np.full(len(table), True)
    ranks = _numbers(table, "adapter.rank")
    alphas = table["adapter.alpha"].astype(object).tolist()
    come_to = [_alpha(a, r) for a, r in zip(alphas, ranks, strict=True)]
    return np.isclose(come_to, asked.adapter.alpha_value, equal_nan=False)


def _alpha(said: Any, rank: float) -> float:
    text = str(said)
    try:
        return float(text.rstrip("r") or 1) * (rank if text.endswith("r") else 1.0)
    except ValueError:
        return math.nan


def _bases(table: pd.DataFrame, keep: Mask, asked: Experiment, depth: int) -> Mask:
    """Lines that start from the asked model, or from a run of the preset that is asked for as a base."""
    import numpy as np

    from lab.bases import is_preset
    from lab.presets import load_experiment

    if "base.model" not in table:
        return np.full(len(table), False)
    names = table["base.model"].astype(str).to_numpy()
    model = asked.base.model
    if not is_preset(model):
        return names == model
    if depth == 0 or not keep.any():
        return np.full(len(table), False)
    bases = table[table["id"].isin(set(names[keep]))]
    if bases.empty:
        return np.full(len(table), False)
    good = bases[_mask(Columns(bases), load_experiment(model), set(), depth - 1)]
    seeds = dict(zip(good["id"], good["seed"], strict=True))
    own = table["seed"].tolist() if "seed" in table else [None] * len(table)
    # a base preset is trained with the seed of what starts from it
    return np.array([n in seeds and seeds[n] == s for n, s in zip(names, own, strict=True)], dtype=bool)
