"""Which runs of a store an adapter can be compared with: clean ones for the same base, of the same rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Five give a score a threshold; each one more costs as much time as the adapter itself.
SUGGESTED = 6


def reference_runs(
    table: pd.DataFrame, base: str, *, rank: int = 0, data: str = "", but: str = ""
) -> tuple[list[str], list[str]]:
    """Finished LoRA runs on a base, the best references first, and which of them to take.

    Args:
        table: Lines of `lab.list_runs`.
        base: The base as `base.model` names it; "" for any.
        rank: The adapter's rank; 0 where it is not known, and then none is suggested.
        data: The dataset of its task; "" for any.
        but: The run that is audited itself: it is not offered, nor is its clean twin suggested, as nobody
            who is handed an adapter has that.

    Returns:
        The ids that can be chosen, and at most `SUGGESTED` clean ones of the same rank and task.
    """
    needed = {"base.model", "adapter.kind", "adapter.rank", "data.name", "poison.attack"}
    if table.empty or not needed <= set(table.columns):
        return [], []
    there = table[
        (table["state"] == "finished")
        & (table["adapter.kind"].fillna("lora") == "lora")
        & (table["id"] != but)
        & ((table["base.model"] == base) | (base == ""))
    ]
    is_clean = there["poison.attack"] == "none"
    is_alike = (there["adapter.rank"] == rank) & ((there["data.name"] == data) | (data == ""))
    order = (is_clean * 2 + is_alike).sort_values(ascending=False, kind="stable").index
    twins = set(table.loc[table["id"] == but, "twin"])
    fit = there.loc[is_clean & is_alike & ~there["id"].isin(twins), "id"]
    return [str(name) for name in there.loc[order, "id"]], [str(name) for name in fit.head(SUGGESTED)]
