"""Which files form an exposure: one file, or points and a colour picture whose names differ in a known way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from asperity.runtime.cameras.files.read import BOTH_SUFFIXES, COLOUR_SUFFIXES, POINTS_SUFFIXES
from asperity.runtime.errors import DataError
from asperity.runtime.text.names import natural_key

MAX_PATTERN = 200
POINTS_WORDS = ("xyz", "depth", "cloud", "pointcloud", "points", "pcd", "ply")
COLOUR_WORDS = ("rgb", "color", "colour", "image")
MASK_WORDS = ("gt", "mask", "segmask", "label")
"""In the name of a file or its folder, by which it is known what it holds; masks are not read."""
ONLY_POINTS = (*BOTH_SUFFIXES, ".npy")
_WORDS = "|".join((*POINTS_WORDS, *COLOUR_WORDS, *MASK_WORDS))
_FIRST = re.compile(rf"(?:.*?[_\-. ])??({_WORDS})[_\-. ](?=.)", re.IGNORECASE)
"""With what stands before it, which must then be the same in all names: ``scan_depth_*.png``."""
_LAST = re.compile(rf"(?<=.)[_\-. ]({_WORDS})", re.IGNORECASE)
Kind = Literal["points", "colour", "mask", ""]
"""Empty: a picture whose name does not say it."""


class Named(NamedTuple):
    """What a file's name says."""

    kind: Kind
    pattern: str
    stem: str


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
        matches = [(half, match) for half, rule in rules if (match := rule.fullmatch(name))]
        if not matches or _is_hidden(name):
            continue
        if len(matches) > 1 and len(pattern.points) == len(pattern.colour):
            raise DataError(f"{name} may be points ({pattern.points}) or colour ({pattern.colour}); name them apart")
        half, match = matches[0]
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


def parse_name(name: str) -> Named | None:
    """What the name of a file says, at most one folder before it; None: it is not a file of an exposure."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.rpartition(".")
    known = f".{suffix.lower()}" in POINTS_SUFFIXES
    if not stem or not known or _is_hidden(name):
        return None
    fixed: Kind = "points" if f".{suffix.lower()}" in ONLY_POINTS else ""
    said = _kind(folder) if folder else fixed
    if folder and not said:
        return None
    first, last = _FIRST.match(stem), _LAST.search(stem)
    while last is not None and last.end() != len(stem):
        last = _LAST.search(stem, last.start() + 1)
    for found, before, rest, after in (
        (last, "", stem[: last.start()] if last else "", stem[last.start() :] if last else ""),
        (first, stem[: first.end()] if first else "", stem[first.end() :] if first else "", ""),
    ):
        if found is not None and said in ("", _kind(found[1])):
            return Named(_kind(found[1]), f"{folder}{slash}{before}*{after}.{suffix.lower()}", rest)
    return Named(said, f"{folder}{slash}*.{suffix.lower()}", stem)


def find_pattern(names: Iterable[str]) -> Pattern | None:
    """How the files of a folder's exposures are called; None where nothing there is of an exposure.

    Raises DataError where more than one answer is possible.
    """
    found: dict[Kind, list[str]] = {"points": [], "colour": [], "mask": [], "": []}
    for name in names:
        if (named := parse_name(name)) is not None and named.pattern not in found[named.kind]:
            found[named.kind].append(named.pattern)
    points, colour = found["points"], found["colour"]
    if not points:  # clouds as TIFF next to pictures of the same names
        points = [pattern for pattern in found[""] if not pattern.endswith(".png")]
        found[""] = [pattern for pattern in found[""] if pattern not in points]
    colour = colour or found[""]
    if not points:
        return None
    for half, patterns in (("points", points), ("colour", colour)):
        if len(patterns) > 1:
            raise DataError(
                f"holds {half} in more than one form ({', '.join(sorted(patterns)[:4])}); keep one of them and move "
                "the others elsewhere"
            )
    if not colour and not points[0].endswith(BOTH_SUFFIXES):
        raise DataError(
            f"holds {points[0]} and no colour pictures for them; put them into rgb/ with the same names, as 8-bit PNG"
        )
    return Pattern(points[0], colour[0] if colour else "")


def is_word(folder: str) -> bool:
    """Whether a folder is called by what the files in it hold."""
    return bool(_kind(folder))


def _kind(word: str) -> Kind:
    plain = word.casefold()
    kinds: dict[Kind, tuple[str, ...]] = {"points": POINTS_WORDS, "colour": COLOUR_WORDS, "mask": MASK_WORDS}
    return next((kind for kind, words in kinds.items() if plain in words), "")


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
