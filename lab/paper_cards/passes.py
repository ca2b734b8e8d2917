"""Passes: what `lab reproduce` measured somewhere, kept as numbers and read where nothing has been run.

One line per cell in `data/reference/passes/<arxiv>.csv`, with machine and versions, so that differences over
seeds and trends are those of the runs themselves. `benchmarks/keep_pass.py` writes these files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.files import read_json
from lab.paper_cards.cells import finished_cells
from lab.paper_cards.claims import PaperClaims
from lab.paths import data_dir

if TYPE_CHECKING:
    import pandas as pd

#: One line per cell; the measures that the paper's claims rest on follow, each with the number of its rows as
#: `<measure>.n`. point is what was swept, as JSON; finished is a day (UTC); seconds are the run's own,
#: without those of its twin and base.
PASS_COLUMNS = ("source", "point", "seed", "id", "finished", "seconds", "machine", "versions")
_POINT = "point."
_PACKAGES = ("lora-backdoor-lab", "python", "torch", "transformers", "peft")


def pass_path(arxiv: str) -> Path:
    """The file of a paper's pass."""
    return data_dir() / "reference" / "passes" / f"{arxiv}.csv"


def pass_table(claims: PaperClaims, listing: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """What finished runs measured for a paper's claims.

    Args:
        claims: The paper's.
        listing: Runs as `lab.list_runs` lists them.
        runs: The folder they lie in.

    Returns:
        `PASS_COLUMNS` and the measures, one line per finished cell of every source that can be run.
    """
    import pandas as pd

    lines: list[dict[str, Any]] = []
    for name, measures in claims.measures().items():
        if not claims.sources[name].runs:
            continue
        cells = finished_cells(claims.sources[name], listing, runs)
        kept = [c for m in measures for c in (m, f"{m}.n") if c in cells]
        lines += [
            {"source": name, **_told(cell, runs), **{key: cell[key] for key in kept}}
            for cell in cells.to_dict("records")
        ]
    return pd.DataFrame(lines) if lines else pd.DataFrame(columns=list(PASS_COLUMNS))


def read_pass(arxiv: str) -> dict[str, pd.DataFrame]:
    """The cells of a paper's committed pass by source, as `finished_cells` gives them; {} without a file."""
    import pandas as pd

    path = pass_path(arxiv)
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    points = pd.DataFrame([{f"{_POINT}{k}": v for k, v in json.loads(p).items()} for p in table["point"]])
    table = pd.concat([table, points.astype(object)], axis=1)
    # what one source sweeps, another has no value for
    return {str(name): own.dropna(axis=1, how="all") for name, own in table.groupby("source", sort=False)}


def _told(cell: Mapping[Any, Any], runs: Path) -> dict[str, Any]:
    """What a cell is, and where and with what it was run."""
    point = {k.removeprefix(_POINT): v for k, v in cell.items() if k.startswith(_POINT) and v == v}
    record = read_json(runs / str(cell["id"]) / "experiment.json") or {}
    result = read_json(runs / str(cell["id"]) / "result.json") or {}
    day = datetime.fromtimestamp(float(result.get("finished", 0.0)), UTC)
    return {
        "point": json.dumps(point),
        "seed": int(cell["seed"]),
        "id": cell["id"],
        "finished": day.strftime("%Y-%m-%d"),
        "seconds": result.get("timings", {}).get("total"),
        "machine": _machine(result.get("machine", {})),
        "versions": ", ".join(_versions(record.get("versions", {}))),
    }


def _machine(told: Mapping[str, Any]) -> str:
    """System and processor without the build of its kernel, device and threads."""
    platform = str(told.get("platform", ""))
    kind = next((p for p in ("x86_64", "arm64", "aarch64", "AMD64") if p in platform), "")
    threads = told.get("threads", "?")
    return f"{platform.partition('-')[0]} {kind}, {told.get('device', '?')}, threads {threads}"


def _versions(versions: Mapping[str, str]) -> Iterable[str]:
    return (f"{name} {versions[name]}" for name in _PACKAGES if name in versions)
