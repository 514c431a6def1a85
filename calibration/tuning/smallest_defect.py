"""The smallest defect that a calibrated station sees: size in mm, found in half and in 95 of 100 cases.

Held-out normal frames are given one defect each, as steep as usual for its kind, and its size is halved between found
and not found until it is known to 15 %. Found is what the station rejects, at its own threshold, by score or shape. So
each place has the size from which a defect there is found, and the places have a median and a 95 % quantile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from asperity.calibration.tuning.frame_defects import FrameDefect, Kind, spoil_frame
from asperity.runtime.errors import FrameRefused
from asperity.runtime.files import write_whole
from asperity.runtime.frame import Frame
from asperity.runtime.manifest import Geometry, SmallestDefect
from asperity.runtime.vision.preprocess import Foreground, find_part

KINDS: tuple[Kind, ...] = ("bump", "dent", "scratch", "hole", "stain")
STRENGTH_SHARE: dict[Kind, float] = {"bump": 0.1, "dent": 0.1, "scratch": 0.035, "hole": 0.8}
"""Height or depth as a share of the size (a diameter, the length of a scratch)."""
STAIN_OPACITY = 0.4
PLACES = 24
"""Of each kind, each on another frame as far as there are frames."""
SPAN = (0.003, 0.2)
"""Sizes tried, as shares of the window's side; below ``LEAST_PX`` source pixels none is."""
LEAST_PX = 1.5
RESOLUTION = 1.15
"""Found and not found lie no farther apart than this factor in the end."""
ROOM_SHARE = 0.045
"""A place has so much of the window's side of surface around it: what lies at an edge is harder to see."""
OFTEN = 0.95

Rejects = Callable[[Frame], bool]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Place:
    """One defect's place on one normal frame; ``seed`` decides where, and its outline."""

    frame: Frame
    found: Foreground
    kind: Kind
    seed: tuple[int, ...]


def smallest_defects(
    frames: Sequence[Frame], geometry: Geometry, rejects: Rejects, seed: int, progress: Progress,
    kept: Path | None = None, places: int = PLACES,
) -> tuple[SmallestDefect, ...]:  # fmt: skip
    """The smallest defect of each kind. ``frames``: held-out normal ones that the station accepts as they are, may
    load lazily; ``rejects``: the station. Without frames the answer is empty.

    ``kept``: a file from which a killed run resumes. ``progress(done, total)`` after each place.
    """
    if not len(frames):
        return ()
    done: list[list[float | None]] = msgspec.json.decode(kept.read_bytes()) if kept and kept.exists() else []
    for number in range(len(done), places):
        # Spread over all frames where there are more of them than places.
        frame = frames[number * len(frames) // places if len(frames) > places else number % len(frames)]
        found = find_part(frame, geometry)
        each = [_Place(frame, found, kind, (seed, order, number)) for order, kind in enumerate(KINDS)]
        sizes = [_size_found(place, geometry, rejects) for place in each]
        done.append([size if math.isfinite(size) else None for size in sizes])
        if kept:
            write_whole(kept, msgspec.json.encode(done))
        progress(number + 1, places)
    by_kind = zip(KINDS, zip(*done, strict=True), strict=True)
    return tuple(
        summary(kind, [math.inf if size is None else size for size in sizes], geometry) for kind, sizes in by_kind
    )


def strength(kind: Kind, size_mm: float) -> float:
    """What goes with a size: height or depth in mm, of a stain its opacity."""
    return STAIN_OPACITY if kind == "stain" else STRENGTH_SHARE[kind] * size_mm


def sizes_tried_mm(geometry: Geometry) -> tuple[float, float]:
    """Smallest and largest."""
    side_mm = geometry.side_px * geometry.mm_per_px
    return max(SPAN[0] * side_mm, LEAST_PX * geometry.mm_per_px), SPAN[1] * side_mm


def bisected(found: Callable[[float], bool], low: float, high: float) -> float:
    """The size from which something is found, about ``low`` where all are; infinity where the largest is not."""
    largest = high
    while high > low * RESOLUTION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if found(middle) else (middle, high)
    return math.sqrt(low * high) if high < largest or found(largest) else math.inf


def quantile(sizes: Sequence[float], share: float) -> float | None:
    """The size from which this share of the places is found; None where so many never are."""
    ascending = sorted(sizes)
    size = ascending[math.ceil(share * len(ascending) - 1e-9) - 1]
    return size if math.isfinite(size) else None


def _size_found(place: _Place, geometry: Geometry, rejects: Rejects) -> float:
    room_mm = ROOM_SHARE * geometry.side_px * geometry.mm_per_px

    def found(size_mm: float) -> bool:
        defect = FrameDefect(place.kind, size_mm, strength(place.kind, size_mm))
        rng = np.random.default_rng(place.seed)
        spoiled = spoil_frame(place.frame, geometry, defect, rng, place.found, room_mm)
        try:
            return rejects(spoiled.frame)
        except FrameRefused:  # no frame that is refused is passed
            return True

    return bisected(found, *sizes_tried_mm(geometry))


def summary(kind: Kind, sizes: Sequence[float], geometry: Geometry) -> SmallestDefect:
    """What the places' sizes say together."""
    half, often = quantile(sizes, 0.5), quantile(sizes, OFTEN)
    return SmallestDefect(
        kind=kind, half_mm=half, often_mm=often,
        half_strength=strength(kind, half) if half else None, often_strength=strength(kind, often) if often else None,
        largest_mm=sizes_tried_mm(geometry)[1],
        sizes_mm=tuple(round(size, 3) for size in sorted(sizes) if math.isfinite(size)), places=len(sizes),
    )  # fmt: skip
