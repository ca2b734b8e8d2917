"""The figures of a run that is being trained, drawn anew only when there is something new to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import panels
import readers
import run_figures
import streamlit as st

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from lab.record import Run

#: The kinds of events that the figures show.
_LOOKS = ("probe", "spectrum")


def has_looks(run: Run) -> bool:
    """Whether there is anything to draw yet."""
    return bool(readers.events(run, *_LOOKS))


def _looks(run: Run, twin: str) -> tuple[Any, ...]:
    """What the figures of a run and its twin depend on; other events change nothing in them."""
    pair = [found for found in (run, readers.open_run(twin)) if found is not None]
    events = [(e["kind"], e.get("step")) for r in pair for e in readers.events(r, *_LOOKS)]
    files = [s for r in pair for s in readers.stamp(r) if s[0] != "events.jsonl"]
    return (run.id, twin, *events, *files)


def render(run: Run, twin: str, wide: bool) -> None:
    """The rates over steps and ΔW's singular values; nothing while there are none.

    Args:
        run: The run.
        twin: Its clean twin's id, "" while there is none.
        wide: Whether the run has the page for itself.
    """
    if not has_looks(run):
        return
    of = _looks(run, twin)
    with st.container(key=f"pair-{'live' if wide else run.id}"):
        _render_curves(run, twin, of)
        _render_spectrum(run, of, narrow=not wide)


def _render_curves(run: Run, twin: str, of: tuple[Any, ...]) -> None:
    from lab.figures.style import narrowed

    reading = "Thin blue-grey lines: the clean twin." if twin else ""
    run_figures.curves(
        run,
        lambda: narrowed(_curves(run, twin)),
        key="live",
        table=lambda: readers.table(run, "curves"),
        reading=reading,
        of=of,
    )


def _curves(run: Run, twin: str) -> Figure:
    import pandas as pd

    from lab import figures

    parts = [run.training_measures(twin)]
    final = readers.try_table(run, "measures")
    if final is not None:
        parts.append(final[final["step"] < 0])
    return figures.training_curves(pd.concat([p for p in parts if len(p)], ignore_index=True))


def _render_spectrum(run: Run, of: tuple[Any, ...], narrow: bool) -> None:
    live = not (run.path / "spectra.parquet").is_file()
    steps = {int(e["step"]) for e in readers.events(run, "spectrum")} if live else _steps(run)
    if not steps:
        return
    last = max(steps)
    if live and len(steps) > 2:
        live = not st.toggle(
            "Replay the steps so far",
            key=f"replay-{run.id}",
            help="A slider and a play button over the steps.",
        )
    panels.figure_panel(
        f"What the weights gain: singular values of ΔW{f', step {last}' if live else ''}",
        "ΔW is what training added to one weight matrix; its singular values say how strongly, and along how "
        "many directions. A steep line is an update of few directions: where a backdoor likes to be.",
        lambda: _spectrum(run, last if live else None, narrow),
        key=f"spectrum-{run.id}",
        table=lambda: readers.table(run, "spectra"),
        of=(of, last if live else None, narrow),
    )


def _steps(run: Run) -> set[int]:
    """The steps at which a finished run's weights were looked at; none where that cannot be read."""
    spectra = readers.try_table(run, "spectra")
    return set() if spectra is None else set(map(int, spectra["step"].unique()))


def _spectrum(run: Run, step: int | None, narrow: bool) -> Figure:
    from lab import figures
    from lab.figures.style import narrowed

    spectra = readers.table(run, "spectra")
    if narrow:
        return narrowed(figures.spectrum(spectra, step=step, columns=2))
    return figures.spectrum(spectra, step=step)
