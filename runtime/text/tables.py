"""Tables as spreadsheets save them (CSV): commas, semicolons or tabs, with a byte order mark or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from io import StringIO

from asperity.runtime.text.encoding import TextRefused, decode

SEPARATORS = (",", ";", "\t")
_CHOSEN = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)
_SHORTENED = re.compile(r"[+-]?[0-9]([.,][0-9]+)?E\+[0-9]{2,3}")
"""How a spreadsheet writes a long number, or an id such as 1E5, which then looks like other ids."""
_MONTH = "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DATED = re.compile(rf"[0-9]{{1,2}}-{_MONTH}(-[0-9]{{2,4}})?|{_MONTH}-[0-9]{{2}}")
"""How a spreadsheet writes an id such as 3-4 or MAR1."""
_FORMULA = re.compile(r"=.*|#[A-Z/0]+[!?]|#N/A|#NV", re.DOTALL)
"""A formula that was never calculated, or the error of one, which several rows share."""


def decode_table(data: bytes, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Each row's line and its values in ``columns``, which the header names in any order, case and company.

    The first of ``columns`` is the key. Empty rows are left out. Raises TextRefused, also for a row that is too long or
    lacks a value.
    """
    lines = decode(data).split("\n")
    chosen = _CHOSEN.fullmatch(lines[0])
    skipped = 1 if chosen else 0
    first = next((line for line in lines[skipped:] if line.strip()), "")
    headers = {separator: _header(first, separator) for separator in ([chosen[1]] if chosen else SEPARATORS)}
    found = [separator for separator, header in headers.items() if set(columns) <= set(header)]
    if len(found) != 1:
        raise TextRefused(
            f"is not a table with columns {' and '.join(columns)}: its first line is {first[:80]!r}; name them "
            "there, separated by commas"
        )
    header = headers[found[0]]
    for name in columns:
        if header.count(name) > 1:
            raise TextRefused(f"has the column {name} {header.count(name)} times; remove one")
    rows = _rows("\n".join(lines[skipped:]), found[0], skipped)
    return [(line, _values(line, cells, header, columns)) for line, cells in rows[1:]]


def _header(line: str, separator: str) -> list[str]:
    """The names in a header, ``Part ID`` as ``part_id``; none where the line cannot be read in this way."""
    try:
        cells = next(csv.reader([line], delimiter=separator), [])
    except (csv.Error, TypeError, ValueError):  # the latter two: what ``sep=`` names is no separator
        return []
    return [re.sub(r"[\s-]+", "_", cell.strip().casefold()) for cell in cells]


def _rows(text: str, separator: str, skipped: int) -> list[tuple[int, list[str]]]:
    """(line in the file, cells) of the rows that are not empty."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num + skipped, cells))
    except csv.Error as error:
        raise TextRefused(f"cannot be read as a table: line {reader.line_num + skipped}: {error}; correct it") from None
    return rows


def _values(line: int, cells: list[str], header: list[str], columns: Sequence[str]) -> dict[str, str]:
    if any(cell.strip() for cell in cells[len(header) :]):
        raise TextRefused(
            f"has {len(cells)} values in line {line}, but {len(header)} columns; put a value that holds the separator "
            "in quotation marks"
        )
    padded = cells + [""] * (len(header) - len(cells))
    values = {name: padded[header.index(name)].strip() for name in columns}
    for name, value in values.items():
        if not value:
            raise TextRefused(f"has no {name} in line {line}; complete or remove the row")
        if _SHORTENED.fullmatch(value):
            raise TextRefused(
                f"has the {name} {value} in line {line}, as a spreadsheet shortens a number; format the column as text "
                "and enter it again"
            )
        if name != columns[0] and _DATED.fullmatch(value):  # a wrong key is noticed when it is looked for
            raise TextRefused(
                f"has the {name} {value} in line {line}, a date that a spreadsheet may have made of it; format the "
                "column as text and enter it again"
            )
        if _FORMULA.fullmatch(value):
            raise TextRefused(f"has the {name} {value} in line {line}, a formula or its error; enter the value itself")
    return values
