"""Result files: JSON whose lists of numbers stay on one line, so that raw latencies can be kept and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asperity.runtime.errors import DataError


def as_text(value: Any, depth: int = 0) -> str:
    """JSON, one key a line; a list without a list or table in it on one line. Raises ValueError for NaN."""
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict) and value:
        rows = (f"{json.dumps(str(key))}: {as_text(entry, depth + 1)}" for key, entry in value.items())
        return "{" + inner + ("," + inner).join(rows) + outer + "}"
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (dict, list, tuple)) for entry in value):
        return "[" + inner + ("," + inner).join(as_text(entry, depth + 1) for entry in value) + outer + "]"
    separators = (",", ":") if isinstance(value, (list, tuple)) and len(value) > 16 else None
    return json.dumps(value, allow_nan=False, separators=separators)


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a result file, and its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_text(report) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A result file. Raises DataError when it is none."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no result file ({error}); give a JSON that `asperity bench` wrote") from error
    if not isinstance(report, dict) or "benchmark" not in report:
        raise DataError(f"{path} does not say which benchmark it is of; measure again with this version")
    return report
