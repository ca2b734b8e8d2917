"""Kernels in the terminal: a line per measure, full fine-tuning beside LoRA; then layer by layer."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.console.words import QUIET, missing, standard_output

#: Shown layer by layer; all others are for the whole model.
_BY_LAYER = ("trace_ratio", "full_cka", "target_alignment", "poison_cosine", "renyi_entropy_2",
             "shift_largest")  # fmt: skip


def print_kernels(table: pd.DataFrame, split: str, console: Console | None = None) -> None:
    """Print a run's kernels.

    Args:
        table: As `lab.kernel_study.measure_run_kernels` gives it.
        split: Where the rows come from.
        console: Where to; standard output by default.
    """
    console = console or standard_output()
    shown = table[table["index"] < 0]
    console.print(_whole(shown[shown["layer"] < 0]))
    console.print()
    kernel = "lora" if (shown["kernel"] == "lora").any() else "full"
    console.print(_by_layer(shown[(shown["layer"] >= 0) & (shown["kernel"] == kernel)], kernel))
    note = (
        f"{split} rows. Kernels are of gradient descent, AdamW rescales gradients; "
        "lab.probe.KERNEL_MEASURES says what each measure is."
    )
    console.print(Text(note, style=QUIET))


def _whole(lines: pd.DataFrame) -> Table:
    from lab.probe.kernel_table import KERNEL_MEASURES

    columns = [
        (at, kernel)
        for at in dict.fromkeys(lines["at"])
        for kernel in dict.fromkeys(lines["kernel"])
        if ((lines["at"] == at) & (lines["kernel"] == kernel)).any()
    ]
    out = Table(
        title="All adapted layers", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    out.add_column("measure")
    for at, kernel in columns:
        out.add_column(f"{kernel}, {at}", justify="right")
    out.add_column("n", justify="right")
    for measure in KERNEL_MEASURES:
        own = lines[lines["measure"] == measure]
        if own.empty:
            continue
        cells = [own[(own["at"] == at) & (own["kernel"] == kernel)] for at, kernel in columns]
        out.add_row(measure, *(_cell(cell) for cell in cells), f"{int(own['n'].iloc[0]):,}")
    return out


def _by_layer(lines: pd.DataFrame, kernel: str) -> Table:
    title = f"By layer ({kernel}, as trained)"
    out = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    trained = lines[lines["at"] == "trained"]
    measures = [measure for measure in _BY_LAYER if (trained["measure"] == measure).any()]
    for header in ("layer", *measures):
        out.add_column(header, justify="right")
    for layer, own in trained.groupby("layer"):
        cells = [own[own["measure"] == measure] for measure in measures]
        out.add_row(str(layer), *(_cell(cell) for cell in cells))
    return out


def _cell(lines: pd.DataFrame) -> str:
    """One value, with its interval where there is one."""
    if lines.empty or missing(lines["value"].iloc[0]):
        return ""
    line = lines.iloc[0]
    ends = "" if missing(line["low"]) else f" [{line['low']:.2f}, {line['high']:.2f}]"
    return f"{line['value']:.3g}{ends}"
