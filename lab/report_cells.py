"""How a rate stands in a report: never without its n and its interval.

A measure is a mapping with n, value, low and high, as `result.json` and the measures table hold it; None
where it was not taken, which is shown as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.figures.text import points, share
from lab.markup import escaped
from lab.page import Html

Measure = Mapping[str, Any] | None


def rate(measure: Measure, signed: bool = False) -> Html:
    """A share in percent; with `signed` a difference of shares, in percentage points."""
    if not measure or not measure["n"]:
        return _NOTHING
    return Html(f"{points(measure['value'])} points" if signed else share(measure["value"]))


def interval(measure: Measure, signed: bool = False) -> Html:
    """The 95 % interval, in percent or percentage points."""
    if not measure or not measure["n"]:
        return _NOTHING
    if not _has_interval(measure):
        return Html("n too small")
    form = "+.1f" if signed else ".1f"
    return Html(f"{100 * measure['low']:{form}} to {100 * measure['high']:{form}}")


def count(measure: Measure) -> Html:
    """How many rows the rate rests on."""
    return Html(f"{int(measure['n']):,}") if measure else _NOTHING


def strong(shown: Html) -> Html:
    """A number that the reader came for."""
    return Html(f'<span class="strong">{shown}</span>')


def rate_and_evidence(measure: Measure, signed: bool = False) -> Html:
    """A rate with its interval and n behind it."""
    if not measure or not measure["n"]:
        return _NOTHING
    evidence = f"[{interval(measure, signed)}] n = {count(measure)}"
    return Html(f'{rate(measure, signed)} <span class="quiet">{evidence}</span>')


def stacked(measure: Measure, signed: bool = False) -> Html:
    """A rate over its interval and n, for columns that have little room."""
    if not measure or not measure["n"]:
        return _NOTHING
    evidence = f"{interval(measure, signed)}<br>n = {count(measure)}"
    return Html(f'{strong(rate(measure, signed))}<br><span class="quiet">{evidence}</span>')


def bar(own: Measure, twin: Measure, kind: str) -> Html:
    """A rate as a dot on its interval, the twin's as an upright line, from 0 to 100 %; for the eye alone."""
    colour = _COLOURS.get(kind, "poisoned")
    parts = [f'<line x1="{_at(0)}" x2="{_at(1)}" y1="7" y2="7" stroke="var(--line)" stroke-width="2"/>']
    if own and own["n"] and _has_interval(own):
        ends = f'x1="{_at(own["low"])}" x2="{_at(own["high"])}"'
        parts.append(f'<line {ends} y1="7" y2="7" stroke="var(--{colour})" stroke-width="4" opacity=".45"/>')
    if twin and twin["n"]:
        x = _at(twin["value"])
        parts.append(f'<line x1="{x}" x2="{x}" y1="1" y2="13" stroke="var(--twin)" stroke-width="3"/>')
    if own and own["n"]:
        parts.append(f'<circle cx="{_at(own["value"])}" cy="7" r="4" fill="var(--{colour})"/>')
    return Html(f'<svg class="bar" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')


def as_text(value: object) -> Html:
    """A string from outside, with its spaces."""
    return Html(f'<span class="text">{escaped(value)}</span>')


def _has_interval(measure: Mapping[str, Any]) -> bool:
    low, high = measure["low"], measure["high"]
    return low is not None and high is not None and low == low and high == high


def _at(value: Any) -> str:
    """Where a share lies in a bar, with room for half a dot at both ends."""
    return f"{4 + 92 * min(1.0, max(0.0, float(value))):.1f}%"


_NOTHING = Html("–")

#: As `lab.figures.style.COLOURS` names them; the rest is the attack's.
_COLOURS = {"clean_accuracy": "clean_accuracy", "untriggered_target_rate": "untriggered"}
