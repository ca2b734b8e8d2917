"""What the scripts share that write data/reference/<paper>.csv: columns, machine, and whose lines stay."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

COLUMNS = ["claim_id", "place", "paper_value", "value", "n", "low", "high", "seeds", "machine"]
MACHINE = f"{platform.machine()}, CPU"


def as_lines(lines: list[list[object]]) -> pd.DataFrame:
    """Lines in the order of `COLUMNS` as a table."""
    return pd.DataFrame(lines, columns=COLUMNS).round(4)


def replace_lines(paper: str, new: pd.DataFrame, is_stale: Callable[[str], bool]) -> None:
    """Write new lines into a paper's file, in place of those whose claim they make stale."""
    target = Path(__file__).parents[1] / "data" / "reference" / f"{paper}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        former = pd.read_csv(target, dtype={"seeds": str})
        kept = former[~former["claim_id"].astype(str).map(is_stale)]
        new = pd.concat([kept, new], ignore_index=True) if len(kept) else new
    new.to_csv(target, index=False)
    sys.stdout.write(f"wrote {target.name}: {len(new)} lines\n")
