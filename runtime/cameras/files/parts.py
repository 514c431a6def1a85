"""Which part each frame shows: ``parts.csv`` next to the frames (columns ``name`` and ``part_id``)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from asperity.runtime.cameras.files.read import POINTS_SUFFIXES
from asperity.runtime.cameras.files.samples import Sample
from asperity.runtime.errors import DataError
from asperity.runtime.files import read_file
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.names import natural_key
from asperity.runtime.text.part_identity import part_id_fault
from asperity.runtime.text.tables import decode_table

PARTS_FILE = "parts.csv"
MISNAMED_PARTS = ("Parts.csv", "PARTS.CSV", "PARTS.csv", "parts.CSV", "parts.csv.txt", "Parts.csv.txt")
MAX_PARTS_NBYTES = 64 * 2**20
NAMES_SHOWN = 5
"""At most this many names are listed in an error."""


def read_parts(folder: Path, samples: Iterable[Sample]) -> dict[str, str]:
    """Part ids by the samples' names, from ``parts.csv`` in the folder or up to two levels above; empty without one.

    The file names frames by their path below itself (``train/good/003``; also ``train\\good\\003.png``). Rows of frames
    that are not there have no effect. Raises DataError for a file that is not such a table, names a frame twice or does
    not name every sample's part.
    """
    here = folder.resolve()
    places = (here, *here.parents[:2])
    if misnamed := [place / name for place in places for name in MISNAMED_PARTS if os.path.lexists(place / name)]:
        raise DataError(f"{misnamed[0]} is not called {PARTS_FILE}; rename or remove it")
    home = next((place for place in places if os.path.lexists(place / PARTS_FILE)), None)
    if home is None:
        return {}
    path = home / PARTS_FILE
    known = _known_parts(path)
    parts, missing, named = dict[str, str](), [], set()
    for sample in samples:
        below = here.relative_to(home) / sample.name
        name = _frame_name(below.as_posix())
        named.add(name)
        if name in known:
            parts[sample.name] = known[name]
        else:
            missing.append(sample.name)
    if missing:
        other = sorted(set(known) - named, key=natural_key)
        hint = f" (no frame found for its rows {some(other)})" if other else ""
        raise DataError(f"{path} names no part for {some(missing)}{hint}; complete it or remove it")
    return parts


def _known_parts(path: Path) -> dict[str, str]:
    """Part ids by the frames' names in ``parts.csv``. Raises DataError."""
    try:
        rows = decode_table(read_file(path, MAX_PARTS_NBYTES, follow=True), ("name", "part_id"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except TextRefused as error:
        raise DataError(f"{path} {error}") from error
    known, lines = dict[str, str](), dict[str, int]()
    for line, row in rows:
        name, part = _frame_name(row["name"]), row["part_id"]
        if name in known:
            raise DataError(f"{path} names {name} twice, in lines {lines[name]} and {line}; remove one of them")
        if fault := part_id_fault(part):
            raise DataError(f"{path}, line {line}: part_id is {part!r}: {fault}")
        known[name], lines[name] = part, line
    return known


def _frame_name(text: str) -> str:
    """How ``parts.csv`` and a frame's path are compared: without ``./``, ``rgb/`` and suffix, ``/`` between folders."""
    pieces = [piece for piece in unicodedata.normalize("NFC", text).replace("\\", "/").split("/") if piece != "."]
    stem, dot, suffix = pieces[-1].rpartition(".")
    if stem and dot + suffix.lower() in POINTS_SUFFIXES:
        pieces[-1] = stem
    return "/".join(piece for at, piece in enumerate(pieces) if at != len(pieces) - 2 or piece not in ("rgb", "xyz"))


def some(names: list[str]) -> str:
    """The first names of a list, as an error shows them."""
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
