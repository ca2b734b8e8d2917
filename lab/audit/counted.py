"""What came out when detectors were counted on cohorts, as the lab ships it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lab.errors import unknown_name
from lab.paths import data_dir

if TYPE_CHECKING:
    import pandas as pd

#: The paper that detectors come from; its file of numbers holds those of cohorts too.
_FILE = "2605.30189.csv"
_LINE = re.compile(
    r"(?P<cohort>[\w-]+)\.(?P<detector>\w+)\.(?P<kind>recall|false_positives)\.at(?P<at>[\d.]+)"
)


def counted_detectors(cohort: str = "minilm") -> pd.DataFrame:
    """How well each detector told a cohort's test part apart when this lab counted it.

    Args:
        cohort: "minilm", or another whose numbers are in `data/reference/`.

    Returns:
        As `judge_cohort`, without direction, threshold and left_out: a line a detector and allowed share of
        false alarms; detector, auc with low and high, allowed, recall and false_positives as `k`, `n`, value,
        low, high (95 % Clopper–Pearson).

    Raises:
        LabError: No numbers of such a cohort are shipped; the message lists those that are.
    """
    import pandas as pd

    table = pd.read_csv(data_dir() / "reference" / _FILE)
    by_claim = table.set_index("claim_id")
    found = [match for match in map(_LINE.fullmatch, table["claim_id"]) if match]
    if cohort not in {match["cohort"] for match in found}:
        raise unknown_name("counted cohort", cohort, sorted({match["cohort"] for match in found}))
    lines: dict[tuple[str, float], dict[str, Any]] = {}
    for match in found:
        if match["cohort"] != cohort:
            continue
        detector, kind = match["detector"], match["kind"]
        area = by_claim.loc[f"{cohort}.{detector}.auc"]
        line = lines.setdefault(
            (detector, float(match["at"])),
            {
                "detector": detector,
                "auc": area["value"],
                "auc.low": area["low"],
                "auc.high": area["high"],
                "allowed": float(match["at"]),
            },
        )
        counted = by_claim.loc[match[0]]
        # the file keeps four digits of a share, of which whole counts follow
        line |= {kind: counted["value"], f"{kind}.k": round(counted["value"] * counted["n"])}
        line |= {f"{kind}.{part}": counted[part] for part in ("n", "low", "high")}
    return pd.DataFrame(list(lines.values()))
