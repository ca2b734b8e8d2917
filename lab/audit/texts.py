"""The texts that are put to an adapter: of a file, of the run's own data, or of the base's usual task.

A record `experiment.json` beside an adapter is the lab's own only where the folder is one of the runs
folder: its data may be a file then. Anywhere else whoever made the adapter has written it, and it can name
nothing but a bundled dataset.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lab.audit.safetensors_header import shown
from lab.errors import LabError
from lab.files import read_json
from lab.paths import expanded, runs_dir

#: The bundled dataset on which the lab itself fine-tunes a base.
_USUAL = {
    "minilm": "rotten_tomatoes",
    "smollm2": "injections_wide",
    "tiny": "toy",
    "tiny-chat": "toy",
}
_FEWEST = 8


@dataclass(frozen=True)
class AuditTexts:
    """Texts without labels.

    Attributes:
        source: Where they come from, in words.
        measured: Those that prefixes and found strings are put into.
        spare: Others of the same source, for training reference adapters; may be empty.
    """

    source: str
    measured: tuple[str, ...]
    spare: tuple[str, ...] = ()


def audit_texts(
    adapter: Path, base: str, rows: str = "", *, seed: int = 0, runs: str | Path | None = None
) -> AuditTexts | None:
    """The texts for an audit; None where the task is not known and no file is given.

    Args:
        adapter: The adapter's path; a run's own data are found through it.
        base: What the adapter is put on, as `base.model` names it.
        rows: A file with one text a line, or a table with a column "text"; "" for none.
        seed: Of the draw.
        runs: The runs folder, by the rule of `lab.paths.runs_dir`; other records are no run's.

    Raises:
        LabError: The file cannot be read or holds too few texts.
    """
    if rows:
        texts = _read(expanded(rows))
        if len(texts) < _FEWEST:
            raise LabError(
                f"--rows {Path(rows).name}: it holds {len(texts)} texts, at least {_FEWEST} are needed."
            )
        half = max(_FEWEST, len(texts) // 3)
        return AuditTexts(f"the file {Path(rows).name}", tuple(texts[:half]), tuple(texts[half:]))
    run = run_of(adapter)
    if run is not None:
        return _of_run(run, seed) if is_own_run(run, runs) else _of_claim(run, seed)
    if base in _USUAL:
        return _of_dataset(_USUAL[base], seed)
    return None


def run_of(adapter: Path) -> Path | None:
    """The folder with a run's record that an adapter's path is, or lies in; None where there is no record.

    Anybody can write a record: `is_own_run` says whether the lab has written it.
    """
    return next((p for p in (adapter, adapter.parent) if (p / "experiment.json").is_file()), None)


def is_own_run(run: Path, runs: str | Path | None = None) -> bool:
    """Whether a folder with a record is a run of the runs folder, and no link to somewhere else."""
    return run.resolve().parent == runs_dir(runs).resolve() and not run.resolve().name.startswith(".")


def unknown_task(adapter: Path, base: str) -> str:
    """Why `audit_texts` has no texts for an adapter, in a sentence without its end."""
    if run_of(adapter) is None:
        return f"the task of an adapter on {base} is not known; give texts (--rows)"
    return (
        "the record beside it is no run's of this runs folder and names no bundled dataset, and what else it "
        "names is not followed; give texts (--rows)"
    )


def _of_claim(run: Path, seed: int) -> AuditTexts | None:
    from lab.corpus import DATASETS

    try:
        name = (read_json(run / "experiment.json") or {})["experiment"]["data"]["name"]
    except (KeyError, TypeError):
        return None
    return _of_dataset(name, seed) if isinstance(name, str) and name in DATASETS else None


def _of_run(run: Path, seed: int) -> AuditTexts:
    from lab.trained_model import read_asked

    data = read_asked(run)[0].data
    return _of_dataset(data.name, seed, text=data.text, label=data.label, answer=data.answer)


def _of_dataset(name: str, seed: int, **columns: str) -> AuditTexts:
    from lab.corpus import DataConfig, load_corpus, split_rows

    corpus = load_corpus(DataConfig(name=name, **columns))
    measured = split_rows(corpus, "validation", limit=400, seed=seed)["text"]
    try:
        spare = tuple(split_rows(corpus, "pool_b", limit=1200, seed=seed)["text"])
    except LabError:  # a dataset too small for pools
        spare = ()
    return AuditTexts(f"{corpus.name}, validation rows", tuple(measured), spare)


def _read(path: Path) -> list[str]:
    from lab.corpus.files import read_file

    if not os.path.isfile(path):  # no OSError where a path is too long for a file
        raise LabError(f"--rows {shown(str(path), 250)}: there is no such file.")
    if path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(f"--rows {path.name}: it cannot be read as UTF-8 text ({error}).") from None
        return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    # a table's label is not needed, and the reader wants some column for it
    return list(dict.fromkeys(read_file(path, {"text": "text", "label": "text"}).texts))
