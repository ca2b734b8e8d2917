"""An adapter or texts that somebody brings through a browser: hostile until read, refused as a whole."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.audit.adapter_files import CONFIG, WEIGHTS, AdapterFiles, open_adapter
from lab.audit.archives import unpack_adapter
from lab.audit.safetensors_header import UnreadableAdapterError
from lab.errors import LabError
from lab.files import writing_to
from lab.uploads import LARGEST

#: Bytes that are brought at once, as the dashboard's server has it too, and of what comes out of a zip.
LARGEST_UPLOAD, LARGEST_UNPACKED = 64 * 1024**2, 256 * 1024**2
#: Endings of an adapter's files and of texts.
ADAPTER_ENDINGS, TEXT_ENDINGS = (".zip", ".safetensors", ".json"), (".txt", ".csv")
#: An upload by file name; of the names only letters, digits and endings are believed.
Upload = Mapping[str, bytes]


class _Named(io.BytesIO):
    """Bytes with the name of the file that they were."""

    name = ""


def keep_adapter(upload: Upload, folder: Path) -> Path:
    """Check an adapter that was brought, and keep its two files.

    Args:
        upload: One zip, or a safetensors file and its adapter_config.json.
        folder: A folder that is not there yet, in one that is; the files go to `<name>/adapter/` in it.

    Returns:
        The safetensors file.

    Raises:
        LabError: These are not the files of one adapter, or the folder cannot be written.
        UnreadableAdapterError: The adapter is damaged, hostile or too large. The folder is not there then.
    """
    size = sum(map(len, upload.values()))
    if size > LARGEST_UPLOAD:
        raise LabError(
            f"The upload has {size:,} bytes; up to {LARGEST_UPLOAD:,} are taken. Larger adapters can be "
            f"named by their folder."
        )
    name = next((n for n in upload if not n.lower().endswith(".json")), "")
    ending = Path(name).suffix.lower()
    inside = folder / _stem(name) / "adapter"
    try:
        with writing_to(folder):
            inside.parent.mkdir(parents=True)
        if ending == ".zip" and len(upload) == 1:
            archive = _Named(upload[name])
            archive.name = name
            weights = unpack_adapter(archive, inside, LARGEST_UNPACKED).weights
        else:
            weights = _keep_pair(upload, name, inside)
        open_adapter(weights)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return weights


def look_at_upload(upload: Upload) -> AdapterFiles:
    """What an adapter that was brought says of itself; nothing is kept.

    Raises:
        LabError: As `keep_adapter`.
    """
    with tempfile.TemporaryDirectory(prefix="lab-adapter-", ignore_cleanup_errors=True) as scratch:
        return open_adapter(keep_adapter(upload, Path(scratch) / "files"))


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


def _keep_pair(upload: Upload, name: str, inside: Path) -> Path:
    configs = [n for n in upload if n.lower().endswith(".json")]
    if Path(name).suffix.lower() != ".safetensors" or len(configs) != 1 or len(upload) != 2:
        raise UnreadableAdapterError(
            f"These are not the files of one adapter: give one zip, or {WEIGHTS} and its {CONFIG}."
        )
    weights = inside / WEIGHTS
    with writing_to(inside):
        inside.mkdir()
        (inside / CONFIG).write_bytes(upload[configs[0]])
        weights.write_bytes(upload[name])
    return weights


def _stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem)[:40].strip("-") or "upload"
