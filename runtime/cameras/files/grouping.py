"""Which files form an exposure: one file, or points and a colour picture whose names differ in a known way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from asperity.runtime.cameras.files.read import COLOUR_SUFFIXES, POINTS_SUFFIXES
from asperity.runtime.errors import DataError
from asperity.runtime.text.names import natural_key

MAX_PATTERN = 200


class Group(NamedTuple):
    """The files of one exposure that are there."""

    stem: str
    """What ``*`` stands for."""
    points: str
    """Name of the file with points or depth; empty: not there yet."""
    colour: str
    """Name of the colour picture; empty: not there yet, or the colour is in the file of the points."""
    lacking: str
    """Name of the file that is not there, as the pattern writes it; empty: the exposure is complete."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """How the files of an exposure are called, ``*`` for what they have in common: ``depth/*.png``, ``*_depth.png``."""

    points: str
    colour: str = ""
    """Empty: the file of the points holds the colour too."""

    def __post_init__(self) -> None:
        """Raises DataError for a pattern that no name can match as it should."""
        _check_pattern(self.points, POINTS_SUFFIXES)
        if self.colour:
            _check_pattern(self.colour, COLOUR_SUFFIXES)
        if self.points == self.colour:
            raise DataError(
                f"the pattern {self.points!r} is given for both points and colour; leave colour empty where one file "
                "holds both"
            )


def group_files(names: Iterable[str], pattern: Pattern) -> list[Group]:
    """The exposures of these file names (``/`` between folders), in natural order; other names are left out.

    Raises DataError where two files are the same half of an exposure.
    """
    halves = [("points", pattern.points), ("colour", pattern.colour)]
    # A name that both patterns match belongs to the one that says more of it.
    rules = [(half, _expression(text)) for half, text in sorted(halves, key=lambda one: -len(one[1])) if text]
    found: dict[str, dict[str, str]] = {}
    for name in names:
        half, match = next(((half, match) for half, rule in rules if (match := rule.fullmatch(name))), ("", None))
        if match is None or _is_hidden(name):
            continue
        halves_there = found.setdefault(match[1], {})
        if half in halves_there:
            first, second = sorted((halves_there[half], name))
            raise DataError(f"{first} and {second} are both the {half} of {match[1]}; remove one of them")
        halves_there[half] = name
    groups = []
    for stem in sorted(found, key=natural_key):
        there = found[stem]
        lacking = next((text.replace("*", stem) for half, text in halves if text and half not in there), "")
        groups.append(Group(stem, there.get("points", ""), there.get("colour", ""), lacking))
    return groups


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _expression(pattern: str) -> re.Pattern[str]:
    before, _, after = pattern.partition("*")
    stem, dot, suffix = after.rpartition(".")
    return re.compile(f"{re.escape(before)}([^/]+){re.escape(stem + dot)}(?i:{re.escape(suffix)})", re.DOTALL)


def _check_pattern(pattern: str, suffixes: tuple[str, ...]) -> None:
    folder, _, name = pattern.rpartition("/")
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    if pattern.count("*") != 1 or "*" in folder or len(pattern) > MAX_PATTERN or not pattern.isprintable():
        raise DataError(f"the pattern {pattern!r} must have one * in the name of the file, such as *_depth.png")
    if pattern.startswith("/") or ".." in folder.split("/") or "\\" in pattern or name.startswith("."):
        raise DataError(f"the pattern {pattern!r} must lie below the folder; write it such as depth/*.png")
    if suffix not in suffixes:
        raise DataError(f"the pattern {pattern!r} must end in one of {', '.join(suffixes)}")
