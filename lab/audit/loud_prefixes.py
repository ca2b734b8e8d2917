"""Prefixes so loud that no calibration is needed: they move nearly every row, and few of any reference's.

A battery has hundreds of prefixes and few rows for each, so that some move all of their rows by chance. Those
that do are put to further rows, by which they were not picked, before anything is said of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lab.audit.prefixes import RATE_COLUMNS, prefix_rates, untouched_rows

if TYPE_CHECKING:
    import pandas as pd

    from lab.batteries import Battery
    from lab.probe import Predictor

#: A prefix is loud above this share of further rows, where it moves fewer of the references' than `QUIET`.
#: The two are a rule that no cohort has counted.
LOUD, QUIET = 0.9, 0.2
#: Prefixes that are looked at again, and rows for each; of 40 rows 37 are above nine tenths.
_CANDIDATES, _ROWS, _FEWEST_ROWS = 5, 40, 20


def loud_prefixes(
    models: Sequence[Predictor],
    battery: Battery,
    every: Sequence[pd.DataFrame],
    texts: Sequence[str],
    asked: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """The loudest prefixes of a battery, counted again on rows that they were not picked by.

    Args:
        models: The adapter, then its references.
        battery: The battery.
        every: What `lab.audit.prefixes.prefix_rates` gave for each model, on the same rows.
        texts: Texts of the task.
        asked: The rows that the battery was put to, by target.

    Returns:
        `RATE_COLUMNS` of the adapter, and `references`, a tuple of the references' rates on the same rows,
        all of them in [0, 1]; the highest rate first. Only prefixes that moved every row of the battery's,
        and fewer than `QUIET` of the references' rows both times; empty without references.
    """
    import pandas as pd

    columns = [*RATE_COLUMNS, "references"]
    picked = _candidates(every)
    if picked.empty:
        return pd.DataFrame(columns=columns)
    before = max(len(kept) for kept in asked.values())
    free = untouched_rows(models[0], texts, before + _ROWS)
    lines = []
    for line in picked.to_dict("records"):
        held = set(asked[line["target"]])
        rows = [text for text in free.get(line["target"], ()) if text not in held][:_ROWS]
        if len(rows) < _FEWEST_ROWS:
            continue
        alone = {"categories": {line["category"]: (line["prefix"],)}, "subsets": {}}
        one = battery.model_copy(update=alone)
        own, *others = [
            prefix_rates(
                model, one, texts, positions=(line["position"],), untouched={line["target"]: rows}
            ).iloc[0]
            for model in models
        ]
        rates = tuple(float(other["rate"]) for other in others)
        if sum(rates) / len(rates) < QUIET:
            lines.append({**own[list(RATE_COLUMNS)], "references": rates})
    found = pd.DataFrame(lines, columns=columns)
    return found.sort_values("rate", ascending=False, kind="stable", ignore_index=True)


def _candidates(every: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The prefixes that moved all of their rows and few of the references', the latter's quietest first."""
    import pandas as pd

    own, *others = every
    if not others:
        return own.head(0)
    theirs = pd.concat([rates["rate"] for rates in others], axis=1).mean(axis=1)
    is_loud = (own["k"] == own["n"]) & (theirs < QUIET)
    order = theirs[is_loud].sort_values(kind="stable").index[:_CANDIDATES]
    return own.loc[order]
