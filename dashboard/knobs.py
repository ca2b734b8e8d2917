"""Widgets from pydantic knobs: bounds, choices and help are the fields', so that a new knob needs no page."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st
from pydantic.fields import FieldInfo

from lab.registry import Knobs


def knob_widgets(
    knobs: type[Knobs], values: Mapping[str, Any], key: str, skip: Sequence[str] = ("name",)
) -> dict[str, Any]:
    """One widget per field.

    Args:
        knobs: The class whose fields are set.
        values: Where each widget starts; a field that is not among them starts at its default.
        key: Prefix of the widgets' keys.
        skip: Fields without a widget.

    Returns:
        The values as they are set now, by field.
    """
    return {
        name: knob_widget(name, field, values.get(name, field.default), f"{key}.{name}")
        for name, field in knobs.model_fields.items()
        if name not in skip
    }


def knob_widget(name: str, field: FieldInfo, value: Any, key: str, label: str = "") -> Any:
    """The widget that suits a field's type.

    Args:
        name: The field's name; its label, with spaces, unless `label` is given.
        field: The field.
        value: Where it starts, unless the widget has a value already.
        key: The widget's key.
        label: What to call it.
    """
    label = label or name.replace("_", " ")
    said = field.description
    start: dict[str, Any] = {} if key in st.session_state else {"value": value}
    choices = _choices(field.annotation)
    if choices:
        index = choices.index(value) if value in choices else 0
        chosen: dict[str, Any] = {} if key in st.session_state else {"index": index}
        return st.selectbox(label, choices, key=key, help=said, **chosen)
    if field.annotation == tuple[str, ...]:
        lines = {"value": "\n".join(value)} if start else {}
        typed = st.text_area(label, key=key, help=f"{said} One a line.", **lines)
        return [line for line in typed.split("\n") if line.strip()]
    kinds = _kinds(field.annotation)
    if kinds == {bool}:
        return st.toggle(label, key=key, help=said, **start)
    if kinds == {int}:
        return st.number_input(label, step=1, key=key, help=said, **_bounds(field, int), **start)
    if kinds == {float}:
        step = _step(float(value or 0))
        return st.number_input(
            label, step=step, format="%g", key=key, help=said, **_bounds(field, float), **start
        )
    return _from_text(
        st.text_input(label, key=key, help=said, **({"value": _to_text(value)} if start else {})), kinds
    )


def _choices(annotation: Any) -> list[Any]:
    """The values of a Literal; [] for anything else."""
    return list(typing.get_args(annotation)) if typing.get_origin(annotation) is Literal else []


def _kinds(annotation: Any) -> set[Any]:
    """The plain types of an annotation: {int}, {float}, {str, tuple} and so on."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return {kind for part in typing.get_args(annotation) for kind in _kinds(part)}
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    return {typing.get_origin(annotation) or annotation}


def _bounds(field: FieldInfo, kind: type) -> dict[str, Any]:
    """min_value and max_value as far as the field has them; open bounds of floats stay open by a hair."""
    found: dict[str, Any] = {}
    for rule in field.metadata:
        for name, bound in (("ge", "min_value"), ("le", "max_value")):
            if getattr(rule, name, None) is not None:
                found[bound] = kind(getattr(rule, name))
        if getattr(rule, "gt", None) is not None:
            found["min_value"] = kind(rule.gt) + (1 if kind is int else 1e-9)
        if getattr(rule, "lt", None) is not None:
            found["max_value"] = kind(rule.lt) - (1 if kind is int else 1e-9)
    return found


def _step(value: float) -> float:
    """A step that suits a value's size: a tenth of its leading digit's place, .05 for shares."""
    if value == 0 or value >= 0.1:
        return 0.05 if value < 1 else 1.0
    from math import floor, log10

    return float(10 ** floor(log10(value)))


def _to_text(value: Any) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, tuple | list) else str(value)


def _from_text(text: str, kinds: set[Any]) -> Any:
    """Typed text as the field's type: a list with commas where it takes several, a number where it may."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if tuple in kinds:
        numbers = [int(p) for p in parts if p.lstrip("-").isdigit()]
        if str not in kinds:
            return numbers or parts
        return parts if len(parts) > 1 else text.strip()
    if float in kinds:
        try:
            return float(text)
        except ValueError:
            return text.strip()
    return text
