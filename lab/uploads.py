"""Files that people bring to the dashboard: hostile until read, in a folder of their own, deleted with it."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from lab.errors import LabError
from lab.files import writing_to

#: What `lab.corpus` reads, and nothing that runs code when it is read.
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
LARGEST = 10 * 1024 * 1024


def keep_upload(
    runs: Path, name: str, content: bytes, *, text: str = "text", label: str = "label"
) -> tuple[Path, tuple[str, ...], int]:
    """Check a file and keep it as a dataset.

    Args:
        runs: The runs folder; the file goes to `.uploads/<hash>/` in it.
        name: What the browser calls the file; only its letters, digits and ending are believed.
        content: The file.
        text: The column that holds the text.
        label: The column that holds the label.

    Returns:
        Where it lies, its labels, and how many rows one can train on (its smaller pool).

    Raises:
        LabError: Too large, another kind of file, or no dataset; nothing of it is kept then.
    """
    ending = Path(name).suffix.lower()
    if ending not in ENDINGS:
        raise LabError(f"The upload {Path(name).name[:60]!r} is no {', '.join(ENDINGS)} file.")
    if len(content) > LARGEST:
        raise LabError(f"The upload has {len(content):,} bytes; at most {LARGEST:,} are taken.")
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem)[:40].strip("-") or "upload"
    folder = runs / ".uploads" / hashlib.sha256(content).hexdigest()[:16]
    is_new = not folder.exists()
    path = folder / f"{stem}{ending}"
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        return path, *_look_into(path, text, label)
    except Exception as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, LabError):
            raise
        raise LabError(f"The upload {path.name!r} cannot be read ({type(error).__name__}).") from None


def uploads(runs: Path) -> list[Path]:
    """Every file that was kept, by name."""
    found = (path for ending in ENDINGS for path in (runs / ".uploads").glob(f"*/*{ending}"))
    return sorted(found, key=lambda path: path.name)


def remove_upload(runs: Path, path: Path) -> None:
    """Delete a kept file; anything outside the folder of uploads is left alone."""
    folder = path.resolve().parent
    if folder.parent == (runs / ".uploads").resolve():
        shutil.rmtree(folder, ignore_errors=True)


def _look_into(path: Path, text: str, label: str) -> tuple[tuple[str, ...], int]:
    from lab.corpus import DataConfig, load_corpus

    corpus = load_corpus(DataConfig(name=str(path), text=text, label=label))
    pools = corpus.rows["split"].value_counts()
    return corpus.labels, int(min(pools.get("pool_a", 0), pools.get("pool_b", 0)))
