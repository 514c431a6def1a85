"""Result files: JSON with one row per line, and the raw values behind it in a compressed file next to it.

``latency.json`` holds what people read; every list of more than ``RAW`` plain values (latencies, scores of frames) is
moved to ``latency.raw.json.gz``, with a reference in its place. A path that ends in ``.gz`` is one compressed file.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from asperity.runtime.errors import DataError

RAW = 64
"""A longer list of plain values is not a row that people read."""
ROW = 2000
"""Characters of a row; a longer one takes a line for each of its entries."""
SCREEN = 120
"""Characters of a row on a terminal."""


def as_text(value: Any, row: int = SCREEN, depth: int = 0) -> str:
    """JSON. Any value but the outermost that fits into ``row`` characters is one line. Raises ValueError for NaN."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":") if row == ROW else None)
    tables = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    plain = not isinstance(value, dict) and not any(isinstance(entry, (dict, list, tuple)) for entry in tables)
    if not tables or plain or (depth and len(text) <= row):
        return text
    entries = [as_text(entry, row, depth + 1) for entry in tables]
    if isinstance(value, dict):
        entries = [f"{json.dumps(str(key))}: {entry}" for key, entry in zip(value, entries, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    return opening + inner + ("," + inner).join(entries) + outer + closing


def write_result(path: Path, report: dict[str, Any]) -> None:
    """Write a result file, creating its folder; equal reports give equal bytes. Raises OSError, ValueError for NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".gz":
        raw: dict[str, Any] = {}
        report = _without_raw(report, "", raw)
        if raw:  # first, and with every list of before: a reader finds what either version of the report names
            write_result(raw_of(path), raw)
    data = (as_text(report, ROW) + "\n").encode()
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    partial.replace(path)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file with its raw values. Raises DataError if one of the files is missing or damaged."""
    report = _read(path)
    if path.suffix == ".gz" or '"raw"' not in json.dumps(report):
        return report
    whole = _with_raw(report, _read(raw_of(path)), path)
    assert isinstance(whole, dict)
    return whole


def raw_of(path: Path) -> Path:
    """Path of the raw values of a result file."""
    return path.with_name(path.stem + ".raw.json.gz")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        report = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DataError(f"{path} is not a result file ({error}); give a JSON file that a benchmark wrote") from error
    if not isinstance(report, dict):
        raise DataError(f"{path} is not a result file; give a JSON file that a benchmark wrote")
    return report


def _without_raw(value: Any, at: str, raw: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _without_raw(entry, f"{at}/{key}", raw) for key, entry in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) <= RAW or any(isinstance(entry, (dict, list, tuple)) for entry in value):
        return [_without_raw(entry, f"{at}/{index}", raw) for index, entry in enumerate(value)]
    raw[at] = value
    return {"raw": at, "entries": len(value)}


def _with_raw(value: Any, raw: dict[str, Any], path: Path) -> Any:
    if isinstance(value, list):
        return [_with_raw(entry, raw, path) for entry in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {"raw", "entries"}:
        return {key: _with_raw(entry, raw, path) for key, entry in value.items()}
    found = raw.get(value["raw"])
    if not isinstance(found, list) or len(found) != value["entries"]:
        raise DataError(f"{raw_of(path)} does not hold the {value['entries']} values of {value['raw']}; measure again")
    return found
