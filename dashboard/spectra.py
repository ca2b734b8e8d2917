"""Spectra: what training wrote into each matrix, how it lies to the old, and where the backdoor sits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import panels
import pickers
import run_choice
import streamlit as st
from beside import letter, render_beside, table_or_say
from widgets import one_of, several, switch

from lab.modules import projection

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from lab.record import Run

_SECTIONS = {
    "spectrum": "Spectrum",
    "alignment": "Strength and alignment",
    "surgery": "Surgery",
    "where": "Where it sits",
    "kernels": "Kernels and attention",
}
_TOPS = (4, 8, 16, 32, 64)
#: A running run is looked at again after so many seconds.
_EVERY = 2.0

_SPECTRUM = (
    "A singular value of ΔW is how strongly training changed one direction of a weight matrix, with scaling. "
    "A line that falls steeply is a change of few directions; the grey lines are those of W itself."
)
_STRENGTH = (
    "Spectral strength is σ_max(ΔW) / σ_max(W): the strongest new direction beside the strongest old "
    "one. Where it is near 1 or above, the update can overrule what the base knew."
)
_ALIGNMENT = (
    "How many times more of ΔW lies in W's k strongest directions than of a random update of the same shape. "
    "Near 1, training wrote beside what the base knows; far above 1, it strengthened what was in use."
)
_CURVE = (
    "The share of ΔW's squared norm that lies in the span of W's k strongest singular vectors, as k grows. "
    "The dashed line is what a random update would have."
)
_SUMMARY = (
    "Effective rank counts the directions that carry ΔW, stable rank those that are near the strongest. "
    "Intruders are strong directions of W + ΔW that resemble none of W's."
)


#: Panels of panels are drawn at a width that can be read, and are scrolled on a phone.
_NARROW = """
<style>
@media (max-width: 640px) {
 [class*="st-key-panel-spectrum-"], [class*="st-key-panel-alignment-curve-"] {overflow-x: auto;}
 .stElementContainer[class*="st-key-spectrum-"], .stElementContainer[class*="st-key-alignment-curve-"] {
  min-width: 600px;
 }
}
</style>
"""


def main() -> None:
    """Draw the page."""
    st.html(_NARROW)
    st.markdown("# What training wrote into the weights")
    with panels.part("The list of runs"):
        runs = run_choice.choose_runs("spectra")
        if runs:
            _render_section(runs)


def _render_section(runs: Sequence[Run]) -> None:
    """Only the chosen section runs: the others would read weights or load a model."""
    section = switch("What to look at", "spectra", _SECTIONS, "spectrum", hidden=True)
    if section == "spectrum":
        moving = any(run.state == "running" for run in runs)
        st.fragment(_render_spectra, run_every=_EVERY if moving else None)(runs)
    elif section == "alignment":
        _render_alignment(runs)
    elif section == "surgery":
        with panels.part("Surgery"):
            import operating_table

            operating_table.render(runs)
    elif section == "where":
        with panels.part("Where it sits"):
            import patching

            patching.render(runs)
    else:
        with panels.part("Kernels and attention"):
            import run_kernels

            run_kernels.render(runs)


def _render_spectra(runs: Sequence[Run]) -> None:
    tables = {run.id: table for run in runs if (table := table_or_say(run, "spectra")) is not None}
    shown = [run for run in runs if run.id in tables]
    if not shown:
        return
    tables, top = _filtered(tables)
    if any(table.empty for table in tables.values()):
        panels.nothing("No matrix of a run is left by this filter.", "Take other kinds or layers.")
    step = _choose_step(tables)

    def draw(run: Run) -> Figure:
        from lab.figures import spectrum

        return spectrum(tables[run.id], step=_nearest(tables[run.id], step), top=top)

    render_beside(
        shown,
        "Singular values of ΔW against W's",
        _SPECTRUM,
        "spectrum",
        draw,
        table=lambda run: tables[run.id],
        same="ranges",
        reading=lambda run: _step_said(tables[run.id], step),
        many=len(runs) > 1,
    )


def _filtered(tables: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], int]:
    """The widgets that choose what is shown; what they leave, and how many values of each matrix."""
    modules = list(dict.fromkeys(m for table in tables.values() for m in table["module"].unique()))
    layers = sorted({int(layer) for table in tables.values() for layer in table["layer"].unique()})
    left, middle, right = st.columns([0.46, 0.34, 0.2])
    kinds = list(dict.fromkeys(map(projection, modules)))
    with left:
        of_kind = several("Kinds of matrix", "spectra.kinds", kinds, str)
    with middle:
        of_layer = several(
            "Layers", "spectra.layers", [str(n) for n in layers], lambda n: "no layer" if n == "-1" else n
        )
    with right:
        top = one_of("Values per matrix", "spectra.top", _TOPS, _TOPS[2])
    wanted = [m for m in modules if not of_kind or projection(m) in of_kind]
    numbers = [int(n) for n in of_layer] or layers
    rest = {
        name: table[table["module"].isin(wanted) & table["layer"].isin(numbers)]
        for name, table in tables.items()
    }
    return rest, int(top)


def _choose_step(tables: dict[str, pd.DataFrame]) -> int | None:
    """The step to show, of all that any run has; None for the figure's own slider and its play button."""
    steps = sorted({int(step) for table in tables.values() for step in table["step"].unique()})
    if len(steps) < 2:
        return None
    left, right = st.columns([0.3, 0.7], vertical_alignment="bottom")
    modes = {"play": "Play all steps", "one": "One step"}
    # two figures that play would each be at another step
    name, default = ("spectra.steps", "play") if len(tables) == 1 else ("spectra.steps.of.two", "one")
    with left:
        mode = switch("Training steps", name, modes, default, hidden=True)
    if mode == "play":
        return None
    pickers.start_at("spectra.at", "spectra.step", steps[-1], steps)
    with right:
        step = st.select_slider("Training step", steps, key="spectra.at")
    pickers.keep("spectra.at", "spectra.step", step, steps[-1])
    return int(step)


def _nearest(table: pd.DataFrame, step: int | None) -> int | None:
    """The last step that a run was looked at by then, else its first: runs are seen at their own steps."""
    if step is None or table.empty:
        return None
    steps = sorted(int(s) for s in table["step"].unique())
    return max((s for s in steps if s <= step), default=steps[0])


def _step_said(table: pd.DataFrame, step: int | None) -> str:
    nearest = _nearest(table, step)
    if nearest is None:
        return "" if table["step"].nunique() > 1 else "As it is after training."
    return f"Training step {nearest} of {int(table['step'].max())}."


def _render_alignment(runs: Sequence[Run]) -> None:
    from lab import figures

    spectra = {run.id: table for run in runs if (table := table_or_say(run, "spectra")) is not None}
    shown = [run for run in runs if run.id in spectra]
    many = len(runs) > 1
    render_beside(
        shown,
        "Strength of ΔW against W",
        _STRENGTH,
        "strength",
        lambda run: figures.spectral_strength(spectra[run.id]),
        table=lambda run: spectra[run.id],
        same="colours",
        many=many,
    )
    with st.spinner("Reading the weights …", show_time=True):
        # what has no result yet says so once
        aligned = {run.id: table for run in shown if (table := table_or_say(run, "alignment")) is not None}
        shown = [run for run in shown if run.id in aligned]
        summaries = {
            run.id: table for run in shown if (table := table_or_say(run, "spectral_summary")) is not None
        }
    for tables in (aligned, summaries):
        tables |= {name: _in_order(table, spectra[name]) for name, table in tables.items()}
    _render_maps(shown, aligned, many)
    _render_summaries([run for run in shown if run.id in summaries], summaries, many)


def _in_order(table: pd.DataFrame, spectra: pd.DataFrame) -> pd.DataFrame:
    """The same lines with the matrices in the order of the spectra, so that all maps show one order."""
    places = {module: place for place, module in enumerate(spectra["module"].unique())}
    return table.sort_values(
        "module", key=lambda modules: modules.map(places), kind="stable", ignore_index=True
    )


def _render_maps(runs: Sequence[Run], aligned: dict[str, pd.DataFrame], many: bool) -> None:
    from lab import figures

    if not runs:
        return
    counts = sorted({int(k) for table in aligned.values() for k in table["k"].unique()})
    modules = list(dict.fromkeys(m for table in aligned.values() for m in table["module"].unique()))
    left, middle, right = st.columns([0.3, 0.2, 0.5])
    sides = {"left": "left: W's outputs", "right": "right: W's inputs"}
    with left:
        side = switch("Singular vectors", "spectra.side", sides, "left")
    with middle:
        k = int(one_of("k, how many", "spectra.k", counts, 8 if 8 in counts else counts[-1]))
    with right:
        means = "every kind of matrix, mean over its layers"
        module = one_of("The curve is of", "spectra.module", ["", *modules], "", lambda name: name or means)
    render_beside(
        runs,
        f"Alignment of ΔW with W's {k} strongest directions",
        _ALIGNMENT,
        "alignment",
        lambda run: figures.alignment_map(aligned[run.id], side=side, k=k),
        table=lambda run: aligned[run.id],
        same="colours",
        many=many,
    )
    render_beside(
        runs,
        "Share of ΔW in W's strongest directions",
        _CURVE,
        "alignment-curve",
        lambda run: _curve(aligned[run.id], module, many),
        table=lambda run: aligned[run.id],
        same="ranges",
        many=many,
    )


def _curve(table: pd.DataFrame, module: str, many: bool) -> Figure:
    from lab.figures import alignment_curve
    from lab.figures.axes import legend_below

    figure = alignment_curve(table, module=module or None)
    return legend_below(figure) if many else figure


def _render_summaries(runs: Sequence[Run], summaries: dict[str, pd.DataFrame], many: bool) -> None:
    for column, run in zip(st.columns(max(1, len(runs))), runs, strict=False):
        table = summaries[run.id].assign(matrix=summaries[run.id]["module"].map(projection))
        with column, st.container(border=True, key=f"panel-summary-{run.id}"):
            with st.container(
                horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
            ):
                st.markdown(f"## {letter(run, runs, many)}Ranks and intruders, matrix by matrix")
                st.popover("", icon=":material/more_horiz:", help="What it means").markdown(_SUMMARY)
            st.dataframe(
                table,
                hide_index=True,
                height=320,
                column_order=(
                    "layer",
                    "matrix",
                    "strength",
                    "effective_rank",
                    "stable_rank",
                    "intruders",
                    "norm",
                ),
                column_config={
                    "strength": st.column_config.NumberColumn("strength", format="%.3f"),
                    "effective_rank": st.column_config.NumberColumn("effective rank", format="%.2f"),
                    "stable_rank": st.column_config.NumberColumn("stable rank", format="%.2f"),
                    "intruders": st.column_config.NumberColumn(
                        "intruders", format="%d", help="of the 10 strongest"
                    ),
                    "norm": st.column_config.NumberColumn("‖ΔW‖", format="%.3f"),
                },
                key=f"summary-{run.id}",
            )


main()
