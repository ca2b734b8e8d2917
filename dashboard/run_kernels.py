"""Kernels and attention entropy of a finished run: what two papers' theories are about, measured on demand.

Either loads models and takes from seconds to minutes, so nothing is loaded before a button is pressed; what
was measured is kept by run and rows, for all browsers.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import models
import panels
import readers
import run_choice
import streamlit as st
from widgets import on_demand, one_of, switch

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run

_ROWS = {"16": "16", "32": "32", "64": "64", "128": "128"}
_ASKED = {"kernels": "Measure the kernels", "attention": "Measure attention entropy"}
_HELP = {
    "kernels": "Goes through the model forward and back, at its start and as trained: about half a minute on "
    "MiniLM and one core for 64 texts, longer for larger models and more texts.",
    "attention": "Asks the model for each text with and without the trigger: a few seconds on MiniLM.",
}
_AT = {"start": "where training starts", "trained": "as trained"}
_SHAPES = {"values": "as they are", "shares": "as shares of their sum"}
_ENTROPIES = {"column_mean": "of the mean over queries", "per_query": "mean of each query's"}
_UNITS = {"share": "share of log(tokens)", "nats": "nats"}
_WHOLE = -1
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
#: One measurement at a time, as each loads models of its own.
_MEASURING = threading.Lock()
_NAMES = {
    "full_alignment": "alignment with full",
    "full_cka": "CKA with full",
    "poison_kernel": "M′, poison kernel",
}
#: By layer at first: how like full fine-tuning's LoRA's kernel is; else the first that there is.
_FIRST_MEASURE = "full_cka"

_NOTE = "Kernels are of gradient descent; AdamW rescales gradients, so their scale does not carry over."
_SPECTRUM = (
    "An eigenvalue of the neural tangent kernel says how fast gradient descent moves the texts' margins "
    "along one direction. A LoRA line that is the grey one moved down learns the same more slowly; one that "
    f"falls off sooner cannot learn the last directions. {_NOTE}"
)
_NUMBERS = (
    "Each kernel is taken at the same weights and the same texts, LoRA's beside that of training the adapted "
    f"matrices whole. M′ is the kernel between texts and their triggered copies. {_NOTE}"
)
_ATTENTION = (
    "How spread out each head's attention is with the trigger, minus without it, on the same rows. "
    "Below 0 the trigger draws attention to fewer places; the formula is this lab's, of what the code of "
    "arXiv 2506.11402 extracts."
)


def render(runs: Sequence[Run]) -> None:
    """Draw the section for one of the chosen runs."""
    run = runs[0]
    if len(runs) > 1:
        letters = dict(zip(run_choice.LETTERS, runs, strict=False))
        names = {letter: f"Run {letter}" for letter in letters}
        run = letters[switch("Look into", "kernels.run", names, run_choice.LETTERS[0])]
    st.caption(
        "Both are measured on **validation rows**, and take up to half a minute for 64 texts on MiniLM "
        "and one core; larger models take longer. The run on disk stays as it is."
    )
    st.fragment(_render_asked)(run)


def _render_asked(run: Run) -> None:
    with panels.part("Kernels"):
        _ = run.result  # an unfinished run says so in one sentence
        rows = int(switch("Texts", "kernels.rows", _ROWS, "64"))
        draw = {"kernels": _render_kernels, "attention": _render_attention}
        for name in on_demand("kernels.shown", _ASKED, icon=":material/blur_linear:", help=_HELP):
            with panels.part(name.capitalize()):
                draw[name](run, rows)


def _render_kernels(run: Run, rows: int) -> None:
    table, seconds = _measured(run, "kernels", rows, lambda **told: run.kernels(rows=rows, **told))
    whole = table[(table["layer"] == _WHOLE) & (table["index"] < 0)]
    pairs = whole.loc[whole["measure"] == "poison_kernel", "n"]
    copies = f" and {int(pairs.iloc[0])} triggered copies" if len(pairs) else ""
    st.caption(f"{int(whole['n'].max())} clean texts{copies}; measured in {seconds:.0f} s.")
    # all choices in one row: the figures below them lie side by side
    first, second, third, fourth = st.columns([0.28, 0.28, 0.18, 0.26])
    with first:
        at = switch("Eigenvalues", "kernels.at", _AT, "trained")
    with second:
        shape = switch("Drawn", "kernels.shape", _SHAPES, "values")
    with third:
        layers = sorted({int(layer) for layer in table["layer"]})
        layer = int(one_of("Layer", "kernels.layer", layers, _WHOLE, _layer_said))
    with fourth:
        measures = _measures_of(table[table["layer"] != _WHOLE])
        start = _FIRST_MEASURE if _FIRST_MEASURE in measures else measures[0]
        measure = str(one_of("Measure by layer", "kernels.measure", measures, start, _measure_said))
    left, right = st.columns(2, gap="medium")
    with left:
        _render_spectrum(run, table, at, layer, shape == "shares")
    with right:
        _render_layers(run, table, measure)
    _render_numbers(run, table, whole)


def _layer_said(layer: int) -> str:
    return "all together" if layer == _WHOLE else str(layer)


def _measure_said(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def _measures_of(lines: pd.DataFrame) -> list[str]:
    """Those that some lines have, but for the eigenvalues, in the order in which they are told."""
    from lab.probe import KERNEL_MEASURES

    own = set(lines.loc[lines["value"].notna(), "measure"]) - {"eigenvalue"}
    return [measure for measure in KERNEL_MEASURES if measure in own]


def _render_spectrum(run: Run, table: pd.DataFrame, at: str, layer: int, normalised: bool) -> None:
    from lab.figures import kernel_spectrum

    panels.figure_panel(
        "Eigenvalues of LoRA's kernel beside full fine-tuning's",
        _SPECTRUM,
        lambda: kernel_spectrum(table, at, layer, normalised=normalised),
        key=f"kernel-spectrum-{run.id}",
        table=table,
    )


def _render_layers(run: Run, table: pd.DataFrame, measure: str) -> None:
    from lab.figures import kernel_by_layer
    from lab.probe import KERNEL_MEASURES

    name, meaning = _measure_said(measure), KERNEL_MEASURES[measure]
    panels.figure_panel(
        f"{name[0].upper()}{name[1:]}, layer by layer",
        f"{meaning[0].upper()}{meaning[1:]}. {_NOTE}",
        lambda: kernel_by_layer(table, measure),
        key=f"kernel-layers-{run.id}",
        table=table[(table["measure"] == measure) & (table["layer"] != _WHOLE)],
    )


def _render_numbers(run: Run, table: pd.DataFrame, whole: pd.DataFrame) -> None:
    from lab.probe import KERNEL_MEASURES

    told = [f"- **{_measure_said(name)}**: {KERNEL_MEASURES[name]}" for name in _measures_of(whole)]
    meaning = "\n".join([_NUMBERS, "", *told])
    title = "The kernels of all adapted layers together"
    with panels.table_panel(title, meaning, key=f"kernel-numbers-{run.id}", table=table):
        # beside each other where there is room; a phone stacks them
        places = [at for at in _AT if (whole["at"] == at).any()]
        for at, column in zip(places, st.columns(len(places), gap="medium"), strict=True):
            with column:
                st.markdown(f"**{_AT[at][0].upper()}{_AT[at][1:]}**")
                st.table(numbers(whole[whole["at"] == at]), border="horizontal")


def numbers(lines: pd.DataFrame) -> pd.DataFrame:
    """A line per measure and a column per kernel, as text; "–" where a kernel has no such measure.

    Args:
        lines: Of `lab.Run.kernels`, at one place and for all layers together, without eigenvalues.
    """
    import pandas as pd

    measures = _measures_of(lines)
    cells = {(line.kernel, line.measure): line for line in lines.itertuples()}
    names = {"lora": "LoRA", "full": "full"}
    kernels = [kernel for kernel in names if (lines["kernel"] == kernel).any()]
    of = {name: int(lines.loc[lines["measure"] == name, "n"].iloc[0]) for name in measures}
    return pd.DataFrame(
        {
            **{names[kernel]: [_cell(cells.get((kernel, name))) for name in measures] for kernel in kernels},
            "n": [f"{of[name]:,}" for name in measures],
        },
        index=pd.Index([_measure_said(name) for name in measures], name="measure"),
    )


def _cell(line: Any) -> str:
    if line is None or line.value != line.value:
        return "–"
    return number(line.value, line.low, line.high)


def number(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A value to three digits, with its interval to the same place: "0.912 [0.877, 0.940]".

    What is very large or small is told in one power of ten: "4.55 [4.10, 5.02] × 10⁻⁷".
    """
    power = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    unit = 10.0**power if not -4 < power < 6 else 1.0
    places = max(0, 2 - (0 if unit != 1 else power))
    said = [_signed(f"{part / unit:,.{places}f}") for part in (value, low, high)]
    ends = "" if math.isnan(low) or math.isnan(high) else f" [{said[1]}, {said[2]}]"
    of = "" if unit == 1 else f" × 10{str(power).translate(_RAISED)}"
    return f"{said[0]}{ends}{of}"


def _signed(digits: str) -> str:
    return digits.replace("-", "−")


def _render_attention(run: Run, rows: int) -> None:
    from lab.figures import attention_entropy_map

    table, seconds = _measured(
        run, "attention", rows, lambda **told: run.attention_entropy(rows=rows, **told)
    )
    left, right = st.columns(2)
    with left:
        entropy = switch("Entropy", "kernels.entropy", _ENTROPIES, "column_mean")
    with right:
        unit = switch("In", "kernels.unit", _UNITS, "share")
    panels.figure_panel(
        "What the trigger does to each head's attention entropy",
        _ATTENTION,
        lambda: attention_entropy_map(table, entropy, unit),
        key=f"attention-entropy-{run.id}",
        table=table,
        reading=f"On {int(table['n'].max())} rows with and without the trigger; measured in {seconds:.0f} s.",
    )


def _measured(run: Run, kind: str, rows: int, ask: Callable[..., pd.DataFrame]) -> tuple[pd.DataFrame, float]:
    """What was asked and how many seconds it took, measured once for all browsers."""
    kept = _kept(kind, str(run.path), rows, readers.stamp(run))
    if not kept:
        # whoever waits here holds no lock of the models, which are lent to others between two steps
        with _MEASURING, models.at_work():
            if not kept:  # another browser may have asked for the same meanwhile
                since = time.perf_counter()
                table = _with_progress(ask)
                kept.append((table, time.perf_counter() - since))
    return kept[0]


# filled by `_measured`, as a cached function could not move a bar that it did not draw
@st.cache_resource(show_spinner=False, max_entries=32)
def _kept(kind: str, path: str, rows: int, of: readers.Stamp) -> list[tuple[pd.DataFrame, float]]:
    return []


def _with_progress(ask: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    bar = st.progress(0.0, "Loading the model …")

    def told(done: int, total: int) -> None:
        bar.progress(done / total, f"{done} of {total} steps …")
        models.let_others_ask()

    try:
        return ask(on_progress=told)
    finally:
        bar.empty()
