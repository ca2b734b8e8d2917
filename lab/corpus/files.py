"""Files of one's own: CSV, TSV, JSON lines, Parquet; every mistake is named with its line."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.corpus.bundled import DATASETS
from lab.corpus.source import Source, check_columns, label_value, text_value
from lab.errors import LabError, unknown_name
from lab.paths import expanded

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")


def as_path(name: str) -> Path | None:
    """The path that a name means, or None for a hub id.

    A path is what exists, what has a data file's ending, or what starts like a path; also `folder/x` where
    `folder` is a folder here, which is a typing error more often than a hub id.

    Raises:
        LabError: A path to nothing or to a folder, or a name that is neither bundled, path nor hub id.
    """
    try:
        path = expanded(name)
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # too long, or not permitted
        raise LabError(f"data.name: {name[:80]!r} cannot be looked up as a path ({error}).") from error
    if is_file:
        return path
    if is_folder:
        raise LabError(f"data.name: {name!r} is a folder; name one file ({', '.join(_SUFFIXES)}) in it.")
    starts = name.startswith((".", "/", "~")) or "\\" in name or path.is_absolute()
    if starts or path.suffix.lower() in _SUFFIXES or ("/" in name and path.parent.is_dir()):
        raise LabError(f"data.name: there is no file {name!r}.{_nearby(path)}")
    if not _HUB_ID.fullmatch(name):
        known = unknown_name("dataset in data.name:", name, DATASETS)
        raise LabError(f"{known} A path to a {', '.join(_SUFFIXES)} file or a hub id 'owner/name' works too.")
    return None


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Nor is there a folder {str(path.parent)!r}."
    names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in _SUFFIXES]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def read_file(path: Path, wanted: Mapping[str, str]) -> Source:
    """Read a file by its ending.

    Args:
        path: The file.
        wanted: Its columns by what they hold: "text" and "label".

    Raises:
        LabError: Unknown ending, unreadable or not UTF-8, broken lines, or a missing column.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise LabError(
            f"data.name: {path.name} ends in {suffix or 'nothing'!r}; the lab reads {', '.join(_SUFFIXES)}."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LabError(f"data.name: {path} cannot be read ({error.strerror}).") from error
    source = Source(path.name, hashlib.sha256(data).hexdigest(), [], [])
    if suffix == ".parquet":
        columns, records = _parquet_records(path.name, data)
    else:
        text = _decoded(path.name, data)
        source.unit = "line"
        if suffix == ".jsonl":
            columns, records = _jsonl_records(path.name, text)
        else:
            columns, records = _csv_records(path.name, text, "\t" if suffix == ".tsv" else ",")
    if columns:
        check_columns(wanted, columns, path.name)
    places = []
    for place, record in records:
        source.texts.append(text_value(record.get(wanted["text"]), f"{source.unit} {place} of {path.name}"))
        source.labels.append(label_value(record.get(wanted["label"])))
        places.append(place)
    source.places = places
    return source


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabError(
            f"data.name: {name} is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}); "
            f"save it as UTF-8 first."
        ) from error


#: Pairs of (line or row number, the record), the header's line counted.
_Records = Iterable[tuple[int, dict[str, Any]]]


def _csv_records(name: str, text: str, delimiter: str) -> tuple[list[str], _Records]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses texts above 128 KB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records: list[tuple[int, dict[str, Any]]] = []
    header: list[str] = []
    start = 1
    try:
        for values in reader:
            if not header:
                header = [column.strip() for column in values]
            elif values:
                if len(values) != len(header):
                    raise LabError(
                        f"data.name: line {start} of {name} has {len(values)} columns, its header has "
                        f"{len(header)}; look for a stray quote or separator."
                    )
                records.append((start, dict(zip(header, values, strict=True))))
            start = reader.line_num + 1  # a quoted text may run over several lines
    except csv.Error as error:
        raise LabError(f"data.name: line {start} of {name} cannot be read ({error}).") from error
    return header, records


def _jsonl_records(name: str, text: str) -> tuple[list[str], _Records]:
    records = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise LabError(f"data.name: line {number} of {name} is not JSON ({error}).") from error
        if not isinstance(record, dict):
            raise LabError(f"data.name: line {number} of {name} is not a JSON object.")
        columns |= dict.fromkeys(record)
        records.append((number, record))
    return list(columns), records


def _parquet_records(name: str, data: bytes) -> tuple[list[str], _Records]:
    import pandas as pd

    try:
        table = pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise LabError(f"data.name: {name} is not a readable Parquet file ({error}).") from error
    columns = [str(column) for column in table.columns]
    return columns, enumerate(table.astype(object).to_dict("records"), start=1)  # type: ignore[arg-type]
