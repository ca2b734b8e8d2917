"""An adapter or texts that somebody brings through a browser: hostile until read, refused as a whole."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lab.audit.adapter_files import CONFIG, WEIGHTS, AdapterFiles, open_adapter
from lab.audit.archives import unpack_adapter
from lab.audit.safetensors_header import UnreadableAdapterError
from lab.errors import LabError
from lab.files import writing_to
from lab.uploads import LARGEST

#: Bytes that are brought at once, as the dashboard's server has it too, and of what comes out of a zip.
LARGEST_UPLOAD, LARGEST_UNPACKED = 64 * 1024**2, 256 * 1024**2
TEXT_ENDINGS = (".txt", ".csv")
#: An upload by file name; of the names only letters, digits and endings are believed.
Upload = Mapping[str, bytes]


class _Named(io.BytesIO):
    """Bytes with the name of the file that they were."""

    name = ""


def look_at_upload(upload: Upload) -> AdapterFiles:
    """What an adapter that was brought says of itself; nothing is kept.

    Args:
        upload: One zip, or a safetensors file and its adapter_config.json.

    Raises:
        LabError: These are not the files of one adapter.
        UnreadableAdapterError: The adapter is damaged, hostile or too large.
    """
    size = sum(map(len, upload.values()))
    if size > LARGEST_UPLOAD:
        raise LabError(
            f"The upload has {size:,} bytes; up to {LARGEST_UPLOAD:,} are taken. Larger adapters can be "
            f"named by their folder."
        )
    name, is_zip = _kind(upload)
    with tempfile.TemporaryDirectory(prefix="lab-adapter-", ignore_cleanup_errors=True) as scratch:
        inside = Path(scratch) / "files"
        if not is_zip:
            return replace(open_adapter(_write_pair(upload, inside)), name=_stem(name))
        archive = _Named(upload[name])
        archive.name = name
        unpacked = unpack_adapter(archive, inside, LARGEST_UNPACKED)
        found = open_adapter(unpacked.weights)
        return replace(found, name=_stem(name), notes=(*unpacked.notes, *found.notes))


def keep_adapter(upload: Upload, folder: Path) -> Path:
    """Check an adapter that was brought, and keep it.

    Args:
        upload: As for `look_at_upload`.
        folder: A folder that is there.

    Returns:
        What `lab.audit.opened` takes: the zip, or the safetensors file of the two.

    Raises:
        LabError: As `look_at_upload`, or the folder cannot be written; nothing is kept then.
    """
    look_at_upload(upload)
    name, is_zip = _kind(upload)
    if not is_zip:
        with writing_to(folder):
            (folder / _stem(name)).mkdir()
        return _write_pair(upload, folder / _stem(name) / "adapter")
    path = folder / f"{_stem(name)}.zip"
    with writing_to(folder):
        path.write_bytes(upload[name])
    return path


def keep_texts(name: str, content: bytes, folder: Path) -> Path:
    """Keep a file of texts in a folder that is there; what it holds is checked by who reads it.

    Raises:
        LabError: It is of another kind, too large, or cannot be written.
    """
    ending = Path(name).suffix.lower()
    if ending not in TEXT_ENDINGS:
        raise LabError(f"The texts {Path(name).name[:60]!r} are no {' or '.join(TEXT_ENDINGS)} file.")
    if len(content) > LARGEST:
        raise LabError(f"The texts have {len(content):,} bytes; at most {LARGEST:,} are taken.")
    path = folder / f"{_stem(name)}{ending}"
    with writing_to(folder):
        path.write_bytes(content)
    return path


def _kind(upload: Upload) -> tuple[str, bool]:
    """The file that holds the weights, and whether it is a zip.

    Raises:
        UnreadableAdapterError: These are not the files of one adapter.
    """
    kinds = {Path(name).suffix.lower(): name for name in upload}
    if len(kinds) == len(upload):
        if set(kinds) == {".zip"}:
            return kinds[".zip"], True
        if set(kinds) == {".safetensors", ".json"}:
            return kinds[".safetensors"], False
    raise UnreadableAdapterError(
        f"These are not the files of one adapter: give one zip, or {WEIGHTS} and its {CONFIG}."
    )


def _write_pair(upload: Upload, folder: Path) -> Path:
    """The two files under their usual names in a new folder."""
    with writing_to(folder):
        folder.mkdir()
        for name, content in upload.items():
            (folder / (CONFIG if name.lower().endswith(".json") else WEIGHTS)).write_bytes(content)
    return folder / WEIGHTS


def _stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem)[:40].strip("-") or "upload"
