"""Several runs beside each other: only the settings that differ, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab import page
from lab.cards import defenses_told
from lab.page import Html
from lab.report_cells import as_text, stacked
from lab.summaries import HEADLINE
from lab.tables import DIFFERENCES

if TYPE_CHECKING:
    from lab.record import Run


#: With more runs than this each is a line of the table; up to it each is a column, which reads better.
_COLUMNS = 4


def compared(runs: Sequence[Run], anchors: Sequence[str]) -> list[Html]:
    """A table of the settings that differ and of the headline, and a sentence on what is the same.

    Args:
        runs: Finished runs, at least two.
        anchors: Where each is told in full, as anchors of the page.
    """
    asked = [_asked(run) for run in runs]
    keys = _differing(asked)
    own = [run.headline["measures"].get("poisoned", {}) for run in runs]
    kinds = [kind for kind in HEADLINE if any(kind in measures for measures in own)]
    names = [
        Html(f'<a href="#{anchor}">{as_text(run.id)}</a>') for run, anchor in zip(runs, anchors, strict=True)
    ]
    settings = [[as_text(values.get(key, "–")) for key in keys] for values in asked]
    rates = [[stacked(measures.get(kind), kind in DIFFERENCES) for kind in kinds] for measures in own]
    head = [*keys, *[HEADLINE[kind] for kind in kinds]]
    cells = [[*left, *right] for left, right in zip(settings, rates, strict=True)]
    caption = "What differs between the runs, and what came of it"
    if len(runs) <= min(_COLUMNS, len(head)):
        lines = [[name, *row] for name, *row in zip(head, *cells, strict=True)]
        table = page.table(caption, ["setting or measure", *names], lines, numbers=())
    else:
        lines = [[name, *row] for name, row in zip(names, cells, strict=True)]
        table = page.table(caption, ["run", *head], lines, numbers=range(1 + len(keys), 1 + len(head)))
    return [table, page.paragraph(_shared(asked, keys), "note")]


def _asked(run: Run) -> dict[str, str]:
    """A run's settings as dotted keys, what does not apply to it left out."""
    e = run.experiment
    values = e.to_dict()
    flat: dict[str, str] = {}
    for part in ("base", "data", "poison", "adapter", "training"):
        flat |= {f"{part}.{key}": _plain(value) for key, value in values[part].items()}
    del flat["training.epochs"], flat["adapter.alpha"]  # resolved to steps, told as alpha/r
    if e.adapter.kind == "full":
        flat = {key: v for key, v in flat.items() if not key.startswith("adapter.") or key == "adapter.kind"}
    else:
        flat["alpha/r"] = f"{e.adapter.alpha_value / e.adapter.rank:g}"
    flat["defense"] = defenses_told(e) or "none"
    probe = run.asked_probe.model_dump(mode="json", exclude={"snapshots", "snapshot_rows"})
    flat |= {f"probe.{key}": _plain(value) for key, value in probe.items()}
    flat["seed"] = str(e.seed)
    record = run.record
    flat["base weights"] = str(record.get("base_sha256", ""))[:10]
    flat["data version"] = str(record.get("dataset", {}).get("fingerprint", ""))[:10]
    return flat


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


#: A key that says nothing new where another one differs already.
_FOLLOWS = {"base weights": "base.model", "data version": "data.name", "poison.rate": "poison.count"}


def _differing(asked: Sequence[dict[str, str]]) -> list[str]:
    """The keys on which runs that have them disagree, in the order of an experiment."""
    values: dict[str, set[str]] = {}
    for settings in asked:
        for key, value in settings.items():
            values.setdefault(key, set()).add(value)
    apart = [key for key, found in values.items() if len(found) > 1]
    return [key for key in apart if _FOLLOWS.get(key) not in apart]


def _shared(asked: Sequence[dict[str, str]], keys: Sequence[str]) -> str:
    """What is easily confounded with what differs, and is the same in every run."""
    names = {
        "base.model": "base",
        "data.name": "data",
        "adapter.rank": "rank",
        "alpha/r": "alpha/r",
        "training.learning_rate": "learning rate",
        "training.steps": "steps",
        "seed": "seed",
    }
    same = [
        f"{name} {asked[0][key]}"
        for key, name in names.items()
        if key not in keys and all(key in settings for settings in asked)
    ]
    if not keys:
        return "The runs were asked for in the same words; only their ids differ."
    return (
        f"The same in every run: {', '.join(same)}." if same else "No main setting is the same in every run."
    )
