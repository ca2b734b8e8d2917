"""Files that are whole or not there: atomic writes, and the operating system's refusals in one sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from lab.errors import LabError

if TYPE_CHECKING:
    import pandas as pd
    from filelock import AcquireReturnProxy

#: What a network disk says for a moment: a handle that another machine's write made stale, a file in use.
_PASSING = (errno.ESTALE, errno.EBUSY)
#: Seconds to wait before each further try: 0.75 in all, longer than a file server takes to sort itself out,
#: and short enough for who waits for an answer.
_PAUSES = (0.01, 0.04, 0.1, 0.2, 0.4)


def put_in_place(temporary: str | Path, path: str | Path) -> None:
    """Give a file or folder its name at once, in place of what had it; a network disk is asked again.

    Args:
        temporary: What is ready, on the same disk; nobody else may move or remove it.
        path: The name it shall have.

    Raises:
        OSError: The system refuses, and goes on refusing where the refusal is of the kind that passes.
    """
    for tried, pause in enumerate((*_PAUSES, None)):
        try:
            os.replace(temporary, path)
            return
        except FileNotFoundError:
            # what is the caller's alone and is gone after a refusal was moved, and the server's answer lost;
            # the target says nothing, since another process may have replaced or removed it by now
            if tried:
                return
            raise
        except OSError as error:
            if error.errno not in _PASSING or pause is None:
                raise
            time.sleep(pause)


def is_held(lock: str | Path) -> bool:
    """Whether a living process holds a lock; the file alone means nothing.

    Args:
        lock: The lock's file, which need not exist.
    """
    if not os.path.exists(lock):
        return False
    guard = filelock.FileLock(lock)
    try:
        guard.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return True
    guard.release()
    return False


def acquire_or_wait(guard: filelock.BaseFileLock, on_wait: Callable[[], None]) -> AcquireReturnProxy:
    """Take a lock; where another process holds it, wait for that one.

    Args:
        guard: The lock.
        on_wait: Called once, if there is someone to wait for.

    Returns:
        What releases the lock at the end of a with.
    """
    with contextlib.suppress(filelock.Timeout):
        return guard.acquire(timeout=0)
    on_wait()
    return guard.acquire()


def nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path.cwd())


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: whole under its name, or not at all."""
    with writing_to(path.parent):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, path)
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
        # not the process's number, which threads share, and machines with a common disk
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            table.to_parquet(temporary, index=False)
            put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any | None:
    """Read a JSON file; None where it is missing or not whole."""
    for pause in (*_PAUSES, None):
        try:
            with open(path, "rb") as file:
                return json.loads(file.read())
        except (ValueError, RecursionError):  # brackets without end are no whole file either
            return None
        except OSError as error:
            # a reader whose file was replaced on another machine must not take a whole run for a corrupt one
            if error.errno not in _PASSING or pause is None:
                return None
            time.sleep(pause)
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
