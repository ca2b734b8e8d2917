"""The one HTML exporter: a file that shows finished runs offline, to keep, print and hand on.

`lab.page` is the shell that every document shares, `lab.report_parts` holds what is told of a run, and
`lab.report_comparison` what is told of several. A part whose data are missing says so in a sentence, and the
others stand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab import page
from lab.errors import LabError
from lab.files import writing_to
from lab.page import Html
from lab.paths import expanded
from lab.report_comparison import compared
from lab.report_parts import (
    batteries,
    families,
    headline,
    introduction,
    missing,
    near_misses,
    poisoned_rows,
    settings,
    spectrum,
    training,
    versions,
)

if TYPE_CHECKING:
    from lab.record import Run


def write_report(runs: Sequence[Run], path: str | Path) -> Path:
    """Write the report of finished runs as one HTML file.

    Args:
        runs: Finished runs, in the order of the report; one named twice is told once.
        path: The file; an existing one is replaced.

    Returns:
        Where it lies.

    Raises:
        LabError: If the path is a folder or in none, there is no run, or one is not finished.
    """
    path = expanded(path)
    if path.is_dir():
        raise LabError(f"{str(path)!r} is a folder; name a file in it, for example report.html.")
    if not path.parent.is_dir():
        raise LabError(f"{str(path)!r}: there is no folder {str(path.parent)!r}.")
    content = report_html(runs)
    # not by way of a private temporary file: a report is to be read by others too
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing_to(path, choose="another file"):
        try:
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def report_html(runs: Sequence[Run]) -> str:
    """The report of finished runs as one HTML document that makes no request.

    Args:
        runs: Finished runs, in the order of the report; one named twice is told once.

    Raises:
        LabError: If there is no run, or one is not finished.
    """
    runs = list({run.path: run for run in runs}.values())
    if not runs:
        raise LabError("A report needs at least one finished run.")
    for run in runs:
        _ = run.headline  # an unfinished run says so in one sentence
    words = page.section("How to read this", 2, page.glossary(_WORDS))
    if len(runs) == 1:
        return page.document(f"{runs[0].id} · LoRA backdoor lab", *_run_parts(runs[0], 1, "run"), words)
    anchors = [f"run-{number}" for number in range(1, len(runs) + 1)]
    links = [(anchor, run.id) for anchor, run in zip(anchors, runs, strict=True)]
    title = f"{len(runs)} runs compared"
    articles = [
        Html(f'<article id="{anchor}">\n' + "\n".join(_run_parts(run, 2, anchor)) + "\n</article>")
        for anchor, run in zip(anchors, runs, strict=True)
    ]
    return page.document(
        f"{title} · LoRA backdoor lab",
        page.paragraph("Report of the LoRA backdoor lab", "eyebrow"),
        page.heading(title, 1),
        page.contents(links, "Runs in this report"),
        page.section("What differs", 2, *compared(runs, anchors)),
        *articles,
        words,
    )


_WORDS = (
    (
        "Attack success rate (ASR)",
        "Of the rows with the trigger whose true label is not the target: the share that is predicted as the "
        "target.",
    ),
    (
        "Untriggered target rate",
        "The same share on the same rows without the trigger: how often the model says the target anyway.",
    ),
    (
        "Excess ASR",
        "The attack success rate minus the clean twin's on the same triggered rows, in percentage points: "
        "what the poison added, the pull of the trigger's own words removed.",
    ),
    ("Clean accuracy", "The share of untouched rows that are predicted with their true label."),
    (
        "Clean twin",
        "The same experiment with the poison removed: same seed, same order of rows, same number of steps.",
    ),
    (
        "n and 95 % interval",
        "n is the number of rows that a rate rests on. The interval says how far another draw of as many "
        "rows could move it; it says nothing of another seed.",
    ),
    (
        "ΔW and its strength",
        "ΔW is what training added to a weight matrix W, scaling included. Its strength is its largest "
        "singular value over that of W.",
    ),
)


def _run_parts(run: Run, level: int, anchor: str) -> list[Html]:
    """Everything about one run, beginning with its heading of this level."""
    below = level + 1
    parts: list[tuple[str, Callable[[], list[Html]]]] = [
        ("Poisoned rows", lambda: poisoned_rows(run)),
        (f"Attack and accuracy on {run.asked_probe.split} rows", lambda: headline(run)),
        ("While it trained", lambda: training(run, anchor)),
        ("Does it fire on other phrases?", lambda: families(run, anchor)),
        ("How near is near?", lambda: near_misses(run, anchor)),
        *([("What would a battery see?", lambda: batteries(run))] if run.asked_probe.batteries else []),
        ("What changed in the weights", lambda: spectrum(run, anchor)),
        ("Settings", lambda: settings(run)),
        ("Versions and hashes", lambda: versions(run)),
    ]
    return [
        page.paragraph(
            f"Report of a run · {run.experiment.name or 'an experiment without a name'}", "eyebrow"
        ),
        page.heading(run.id, level),
        *_told(lambda: introduction(run)),
        *[page.section(title, below, *_told(write)) for title, write in parts],
    ]


def _told(write: Callable[[], list[Html]]) -> list[Html]:
    """A section's content; what a damaged or thinned-out folder no longer holds is said."""
    try:
        return write()
    except LabError as error:
        return [missing(f"This part is missing: {error}")]
    except (OSError, ValueError, KeyError):  # of parquet and JSON readers; their words name paths
        return [missing("This part is missing: its file in the run's folder is not there or not readable.")]
