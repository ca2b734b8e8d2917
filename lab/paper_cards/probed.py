"""What runs say when they were probed as a card's cell is: other probings of the same weights do not count.

A run's id is that of its weights. Whoever asks it with another trigger, on fewer rows or without its clean
twin changes what a listing shows of it, and not what the cell of a sweep has measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.files import read_json
from lab.paper_cards.claims import FAMILY_MEASURES

if TYPE_CHECKING:
    import pandas as pd

    from lab.experiment import Experiment

#: Means over other strings than the trained one, and on how many texts each rests.
_FAMILIES = tuple(name for kind in FAMILY_MEASURES for name in (kind, f"{kind}.n"))


def as_probed(found: pd.DataFrame, asked: Experiment, runs: Path, *, twin: bool) -> pd.DataFrame:
    """The lines of those runs that were probed as asked, with what that probing measured.

    Args:
        found: Finished runs of one cell, as `lab.list_runs` lists them.
        asked: The cell's experiment, with any seed.
        runs: The folder that the runs lie in.
        twin: Whether a clean twin has to stand beside the run, where it or its base is poisoned.

    Returns:
        The lines with the measures of that probing in place of those that the listing shows, and with
        `FAMILY_MEASURES`. A run that kept no probings apart has one, which the listing shows.
    """
    import pandas as pd

    from lab.defend import settle
    from lab.probing_stage import probe_id

    wanted = probe_id(settle(asked).probe)
    lines = []
    for told in found.to_dict("records"):
        line: dict[str, Any] = {str(name): value for name, value in told.items()}
        run = runs / line["id"]
        probes = (read_json(run / "result.json") or {}).get("probes")
        if probes is None:
            lines.append(line)
        elif (probing := probes.get(wanted)) and (not twin or probing["twin"] or _is_clean(run)):
            lines.append(line | _measures(found, probing))
    return pd.DataFrame(lines) if lines else found.iloc[:0]


def _is_clean(run: Path) -> bool:
    """Whether neither the run nor its base has poison, so that there is no twin of it."""
    record = read_json(run / "experiment.json") or {}
    return str(record.get("measured_poison", {}).get("attack", "none")) == "none"


def _measures(found: pd.DataFrame, probing: Mapping[str, Any]) -> dict[str, float]:
    """A probing's measures; NaN for what the listing shows and this probing has not measured."""
    from lab.store import headline_columns
    from lab.tables import MEASURE_KINDS

    shown = [c for c in found.columns if c.removeprefix("twin.").partition(".")[0] in MEASURE_KINDS]
    families = {k: float(v) for k, v in probing.get("families", {}).items()}
    rows = {f"{k}.n": float(n) for k, n in probing.get("family_rows", {}).items()}
    told = headline_columns(probing.get("measures", {})) | families | rows
    return {name: told.get(name, math.nan) for name in (*shown, *_FAMILIES, *told)}
