"""Files that are whole or not there: atomic writes, and the operating system's refusals in one sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: whole under its name, or not at all."""
    with writing_to(path.parent):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON, atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically."""
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            table.to_parquet(temporary, index=False)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any | None:
    """Read a JSON file; None where it is missing or not whole."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (OSError, ValueError, RecursionError):  # brackets without end are no whole file either
        return None


@contextlib.contextmanager
def writing_to(path: Path, choose: str = "another folder with --runs") -> Iterator[None]:
    """Turn the operating system's refusals into one sentence.

    Args:
        path: What is written to, for the sentence.
        choose: What else the user could choose, and how.

    Raises:
        LabError: On a full disk, a read-only place, missing rights, and whatever else the system refuses.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space and ask again, the run goes on where it was",
            errno.EDQUOT: "the disk quota is used up; free some space and ask again",
            errno.EACCES: f"no permission to write there; choose {choose}",
            errno.EPERM: f"no permission to write there; choose {choose}",
            errno.EROFS: f"it is read-only; choose {choose}",
            errno.ENOTDIR: f"a part of the path is a file; choose {choose}",
            errno.EEXIST: f"a file lies where the folder should be; choose {choose}",
        }
        # what nobody foresaw is told in the system's own words; libraries raise OSErrors without a number
        words = error.strerror or " ".join(str(error).split()) or type(error).__name__
        reason = reasons.get(error.errno or 0, f"{words}; choose {choose}")
        raise LabError(f"Cannot write to {path}: {reason}.") from error
    except Exception as error:
        if isinstance(error, LabError) or not _is_full_disk(error):
            raise
        reason = "the disk is full; free some space and ask again, the run goes on where it was"
        raise LabError(f"Cannot write to {path}: {reason}.") from error


def _is_full_disk(error: Exception) -> bool:
    """Whether a library's own exception says what the system would have said with ENOSPC."""
    # safetensors quotes the system; torch only finds that a stream broke or an archive is too short
    signs = ("No space left on device", "inline_container", "PytorchStreamWriter", "iostream error")
    return any(sign in str(error) for sign in signs)
