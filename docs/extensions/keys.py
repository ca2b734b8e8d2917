"""Pydantic models as what they are for a user: keys with type, default, bounds and help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from sphinx.util.typing import stringify_annotation

from lab.registry import KEYS_HEADING

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from sphinx.application import Sphinx

_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def key_lines(model: type[BaseModel], without: str = "") -> list[str]:
    """One item of a reStructuredText list for each key of a model, but for one."""
    return [f"- {_told(name, field)}" for name, field in model.model_fields.items() if name != without]


def _told(name: str, field: FieldInfo) -> str:
    """`**rank** (int, default 8): rank r of B·A; ≥ 1`."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        model = type(default)
        link = f":py:obj:`{model.__name__} <{model.__module__}.{model.__name__}>`"
        is_only = field.annotation is model
        return f"**{name}**: the keys of {link}" + ("" if is_only else " or of another kind")
    help_ = _literal((field.description or "").rstrip("."))
    told = "; ".join(filter(None, (help_, _bounds(field))))
    value = "required" if field.is_required() else f"default ``{default!r}``"
    return f"**{name}** (``{_kind(field)}``, {value})" + (f": {told}" if told else "")


def _bounds(field: FieldInfo) -> str:
    found = [(sign, getattr(rule, name)) for rule in field.metadata for name, sign in _BOUNDS.items()
             if getattr(rule, name, None) is not None]  # fmt: skip
    return ", ".join(sign.format(bound) for sign, bound in found)


def _kind(field: FieldInfo) -> str:
    """The type in short: `Adapter` for `lab.experiment_sections.Adapter`, without pydantic's notes."""
    whole = stringify_annotation(field.annotation, "smart").replace("~", "")
    plain = re.sub(r"[\w.]*Annotated\[([^,\[\]]+), [^\[\]]*\]", r"\1", whole)
    return re.sub(r"\b(?:typing|lab\.[\w.]*)\.(\w+)", r"\1", plain)


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", r"\*").replace("|", r"\|")


def _list_keys(_app: Sphinx, what: str, _name: str, it: Any, _options: Any, lines: list[str]) -> None:
    if what == "class" and _is_model(it):
        if KEYS_HEADING in lines:  # what a notebook shows of them, without bounds and links
            del lines[lines.index(KEYS_HEADING) :]
        lines += ["", *key_lines(it), ""]


def _drop_signature(_app: Sphinx, what: str, _name: str, it: Any, *_: Any) -> tuple[str, str] | None:
    return ("", "") if what == "class" and _is_model(it) else None


def _is_model(it: Any) -> bool:
    return isinstance(it, type) and issubclass(it, BaseModel)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _list_keys)
    app.connect("autodoc-process-signature", _drop_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
