"""What answers a paper's claims: its sweeps and presets, how long they take, and the way to the Bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import links
import streamlit as st
from text import plain, short

if TYPE_CHECKING:
    from lab.paper_cards import Card
    from lab.paper_cards.claims import Source

_CORES = 2


def render(card: Card) -> None:
    """Every source of a paper: what it is, which command runs it, and a button that opens it on the Bench."""
    st.markdown("## What answers these claims")
    st.markdown(
        "All of it that a laptop can run, in a terminal; what is finished is read and not trained again:"
    )
    st.code(f"lab reproduce {card.claims.name}", language="bash")
    for name, source in card.claims.sources.items():
        _render_source(card, name, source)


def _render_source(card: Card, name: str, source: Source) -> None:
    answered = [str(line["claim"]) for line in card.lines if line["source"] == name]
    if not answered:
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{plain(name)}**: {plain(_told(source, len(answered)), 200)}")
        if source.runs and st.button(
            f"{short(name, 40)} on the Bench",
            key=f"papers.open.{name}",
            icon=":material/science:",
            help="Opens the Bench with one cell of it: preset and what differs from it.",
        ):
            link = bench_link(source, first_point(card, name))
            st.switch_page("bench.py", query_params=links.to_params(link))


def _told(source: Source, count: int) -> str:
    claims = f"{count} claim{'s' if count != 1 else ''}"
    if not source.runs:
        return f"{claims}; {source.command}"
    kind = "sweep" if source.sweep else "preset"
    takes = f", about {source.core_minutes / _CORES:.0f} min on two cores" if source.core_minutes else ""
    where = ", on a CUDA card" if source.tier == "gpu" else ""
    return f"{claims}; a {kind}{where}{takes}"


def first_point(card: Card, name: str) -> dict[str, Any]:
    """The point of the first claim that a source answers: arm and swept keys."""
    quantities = (claim.quantity for claim in card.claims.claims)
    return next((dict(q.of) for q in quantities if q is not None and q.source == name), {})


def bench_link(source: Source, point: dict[str, Any]) -> links.Link:
    """The link that opens one cell of a source on the Bench.

    Args:
        source: A sweep or preset.
        point: Arm and swept keys; what it leaves open is the sweep's first.
    """
    from lab.assignments import differences
    from lab.presets import load_preset, preset_names

    plan = source.plan()
    arms = plan.arms or {}
    arm = point.get("arm", next(iter(arms), ""))
    swept = {key: point.get(key, values[0]) for key, values in plan.over.items()}
    cell = plan.experiment.with_(**{**arms.get(arm, {}), **swept})
    preset = plan.experiment.name
    if preset not in preset_names():
        return links.Link(preset="rfc-citation", changes=differences(load_preset("rfc-citation")[0], cell))
    return links.Link(preset=preset, changes=differences(load_preset(preset)[0], cell))
