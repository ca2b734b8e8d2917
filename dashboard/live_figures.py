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
    return any(e.get("kind") in _LOOKS for e in readers.events(run))


def looks(run: Run, twin: str) -> tuple[Any, ...]:
    """What the figures of a run and its twin depend on; other events change nothing in them.

    Args:
        run: The run.
        twin: Its clean twin's id, "" while there is none.
    """
    pair = [found for found in (run, readers.open_run(twin)) if found is not None]
    events = [e for r in pair for e in readers.events(r) if e.get("kind") in _LOOKS]
    files = [s for r in pair for s in readers.stamp(r) if s[0] != "events.jsonl"]
    return (run.id, twin, *((e["kind"], e.get("step")) for e in events), *files)


def render(run: Run, twin: str, wide: bool) -> None:
    """The rates over steps and ΔW's singular values; nothing while there are none.

    Args:
        run: The run.
        twin: Its clean twin's id, "" while there is none.
        wide: Whether the run has the page for itself.
    """
    if not has_looks(run):
        return
    of = looks(run, twin)
    with st.container(key=f"pair-{'live' if wide else run.id}"):
        _render_curves(run, twin, of)
        _render_spectrum(run, of, narrow=not wide)


def _render_curves(run: Run, twin: str, of: tuple[Any, ...]) -> None:
    from lab.figures.style import narrowed

    reading = "Thin blue-grey lines: the clean twin." if twin else ""
    run_figures.curves(run, lambda: narrowed(_curves(run, twin)), key="live", reading=reading, of=of)


def _curves(run: Run, twin: str) -> Figure:
    import pandas as pd

    from lab import figures

    parts = [run.training_measures(twin)]
    final = readers.try_table(run, "measures")
    if final is not None:
        parts.append(final[final["step"] < 0])
    return figures.training_curves(pd.concat([p for p in parts if len(p)], ignore_index=True))


def _render_spectrum(run: Run, of: tuple[Any, ...], narrow: bool) -> None:
    spectra = readers.try_table(run, "spectra")
    if spectra is None or spectra.empty:
        return
    last = int(spectra["step"].max())
    live = not (run.path / "spectra.parquet").is_file()
    if live and spectra["step"].nunique() > 2:
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
        table=spectra,
        of=(of, last if live else None, narrow),
    )


def _spectrum(run: Run, step: int | None, narrow: bool) -> Figure:
    from lab import figures
    from lab.figures.style import narrowed

    spectra = readers.table(run, "spectra")
    if narrow:
        return narrowed(figures.spectrum(spectra, step=step, columns=2))
    return figures.spectrum(spectra, step=step)
