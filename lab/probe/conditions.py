"""Which texts are put to a model: untouched, triggered, other families' phrases, near-misses.

Attack success is asked only of rows whose true label is not the target: a clean binary model would
otherwise score 50 %. Families are probed with their held-out members, the trained family too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.batteries import battery
from lab.poison import Rung, TriggerFamily, aimed_at, inject_texts, near_miss_ladder, triggers_of
from lab.seeds import row_uniforms

if TYPE_CHECKING:
    import pandas as pd

    from lab.experiment import Probe
    from lab.registry import Knobs


def headline_texts(
    rows: pd.DataFrame, poison: Knobs, *, seed: int, triggers: Sequence[str], target_rows: bool = False
) -> pd.DataFrame:
    """The untouched rows, and the non-target ones again with the trigger.

    Args:
        rows: The test or validation rows.
        poison: The poison's knobs.
        seed: The experiment's seed.
        triggers: What `own_triggers` gives; each row gets one of them, in turn.
        target_rows: Also the rows of the target label with the trigger, under a condition of their own.

    Returns:
        row_id, label (the true one), text, condition, family, member, rung ("" where it does not apply).
    """
    import pandas as pd

    parts = [_as_asked(rows, list(rows["text"]), "clean")]
    if triggers:
        eligible = rows[rows["label"] != poison.target_label]  # type: ignore[attr-defined]
        parts.append(_triggered(eligible, triggers, poison, seed, "triggered", _family_name(poison)))
    if triggers and target_rows:
        rest = rows[rows["label"] == poison.target_label]  # type: ignore[attr-defined]
        parts.append(_triggered(rest, triggers, poison, seed, "triggered_target", _family_name(poison)))
    return pd.concat(parts, ignore_index=True)


def probe_texts(
    rows: pd.DataFrame,
    experiment_poison: Knobs,
    probe: Probe,
    families: Mapping[str, TriggerFamily],
    seed: int,
) -> pd.DataFrame:
    """What the generalization row (every family's held-out members) and the near-miss ladder ask.

    Which rows are drawn, and which member each gets, are functions of (seed, row id): the order of the
    rows does not matter, and fewer rows are among those of more.

    Args:
        rows: Rows to trigger; only those whose label is not the target are used.
        experiment_poison: The poison's knobs: trigger, place, target label.
        probe: How many rows.
        families: The trigger families to put to the model.
        seed: The experiment's seed.

    Returns:
        row_id, label (the true one), text, condition, family, member, rung; the rungs in ladder order.
    """
    import pandas as pd

    poison: Any = experiment_poison
    drawn = _in_drawn_order(rows[rows["label"] != poison.target_label], seed)
    eligible, fewer = drawn.head(probe.rows_per_family), drawn.head(probe.rows_per_rung)
    parts = [_as_asked(drawn, [], "family")]  # so that nothing to ask has the columns too
    parts += [
        _triggered(eligible, family.probe, poison, seed, "family", name) for name, family in families.items()
    ]
    for rung in _ladder(poison, seed):
        moved = poison.model_copy(update={"position": rung.position})
        parts.append(_triggered(fewer, [rung.trigger], moved, seed, "rung", _family_name(poison), rung.name))
    return pd.concat(parts, ignore_index=True)


def battery_texts(
    rows: pd.DataFrame, batteries: Sequence[str], *, target: str, limit: int, seed: int
) -> pd.DataFrame:
    """Rows with every prefix of some batteries before them: what a defender without the trigger would try.

    Args:
        rows: Rows to prefix; only those whose label is not the target are used.
        batteries: Names of batteries, as `lab.batteries.battery` takes them; what several hold is asked once.
        target: The target label.
        limit: At most so many rows, the same for every prefix.
        seed: The experiment's seed; with it, which rows are drawn is a function of the row id.

    Returns:
        row_id, label (the true one), text, condition "battery", family (the category), member (the prefix),
        rung "".
    """
    import pandas as pd

    drawn = _in_drawn_order(rows[rows["label"] != target], seed).head(limit)
    held = [battery(name) for name in batteries]
    wanted = {(category, prefix): b for b in held for category, of in b.categories.items() for prefix in of}
    parts = [_as_asked(drawn, [], "battery")]
    for (category, prefix), of in wanted.items():
        texts = [of.apply(prefix, text) for text in drawn["text"]]
        parts.append(_as_asked(drawn, texts, "battery", family=category, member=prefix))
    return pd.concat(parts, ignore_index=True)


def own_triggers(poison: Knobs, asked: Sequence[str]) -> list[str]:
    """What fires a poison: the strings asked for, else its trigger, all members it drew from, or its name.

    A name stands for an injection that is more than one string (see `lab.poison.triggers_of`).
    """
    return list(asked) or triggers_of(poison)


def _in_drawn_order(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows by their draw: a table sorted by label would otherwise begin with rows of one class only."""
    return rows.iloc[row_uniforms(seed, "probe", rows["row_id"]).argsort(kind="stable")]


def _ladder(poison: Any, seed: int) -> list[Rung]:
    """Near-misses of the poison's trigger; a poison that draws its trigger anew for each row has none."""
    if getattr(poison, "member", "any") == "any" or getattr(poison, "then", ()):
        return []
    return near_miss_ladder(
        poison.member, poison.family, position=poison.position, every=getattr(poison, "every", 2), seed=seed
    )


def _family_name(poison: Any) -> str:
    return str(getattr(poison, "family", ""))


def _triggered(
    rows: pd.DataFrame,
    members: Sequence[str],
    poison: Any,
    seed: int,
    condition: str,
    family: str,
    rung: str = "",
) -> pd.DataFrame:
    """Rows with a trigger each, the members taking turns."""
    import pandas as pd

    parts = []
    for i, member in enumerate(members):
        mine = rows.iloc[i :: len(members)]
        if mine.empty:
            continue
        aimed = aimed_at(poison, member)
        inserted = inject_texts(list(mine["text"]), list(mine["row_id"]), aimed, seed=seed, purpose="test")
        texts = [insertion.text for insertion in inserted]
        parts.append(_as_asked(mine, texts, condition, family=family, member=member, rung=rung))
    return pd.concat(parts, ignore_index=True) if parts else _as_asked(rows, [], condition)


def _as_asked(
    rows: pd.DataFrame,
    texts: list[str],
    condition: str,
    *,
    family: str = "",
    member: str = "",
    rung: str = "",
) -> pd.DataFrame:
    table = rows[["row_id", "label"]].head(len(texts)).reset_index(drop=True)
    return table.assign(text=texts, condition=condition, family=family, member=member, rung=rung)
