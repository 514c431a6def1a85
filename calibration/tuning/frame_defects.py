"""Defects of a stated size and strength on a normal source frame, before preprocessing (lsfa 11 row 11).

What is chosen by them is chosen on the data that a station delivers: at the camera's resolution, with its own noise.
Geometry: points moved along their view ray (along z where z is a height), colours untouched. Colour: paint, points
untouched. Each defect lies at a random place of the part; nothing but ``rng`` decides which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.errors import DataError
from asperity.runtime.frame import MM_PER_UNIT, BoolArray, ByteArray, Frame, Window
from asperity.runtime.manifest import Geometry
from asperity.runtime.vision.border_plane import is_height_map
from asperity.runtime.vision.preprocess import Foreground, find_part
from asperity.runtime.vision.units import points_in, points_mm

GeometryKind = Literal["bump", "dent", "scratch", "hole"]
ColourKind = Literal["stain", "tint"]
Kind = GeometryKind | ColourKind
GEOMETRY_KINDS: tuple[GeometryKind, ...] = ("bump", "dent", "scratch", "hole")
COLOUR_KINDS: tuple[ColourKind, ...] = ("stain", "tint")

SIZES: dict[Kind, tuple[float, float]] = {
    "bump": (0.02, 0.15), "dent": (0.02, 0.15), "scratch": (0.06, 0.30), "hole": (0.01, 0.05),
    "stain": (0.02, 0.15), "tint": (0.04, 0.25),
}  # fmt: skip
"""Largest extent drawn, as shares of the window's side."""
STRENGTHS: dict[Kind, tuple[float, float]] = {
    "bump": (0.2, 10.0), "dent": (0.2, 10.0), "scratch": (0.5, 15.0), "hole": (2.0, 40.0),
    "stain": (0.03, 0.4), "tint": (0.006, 0.06),
}  # fmt: skip
"""Strength drawn: multiples of the depth noise; opacity of a stain; change of a tint as a share of full scale."""
SCRATCH_WIDTH_SHARE = 0.1
"""A scratch's width as a share of its length..."""
SCRATCH_LEAST_PX = 2.0
"""... but at least this many source pixels."""
RAGGED = 0.08
"""How far outlines are from round."""
STAINS = ((52, 38, 26), (26, 41, 77), (31, 66, 36), (107, 26, 31), (242, 242, 237))
"""Colours of stains: oil, ink, mould, paint, chalk."""
VISIBLE_SHARE = 0.25
"""Where a defect has at least this share of its full strength the frame counts as changed."""
PATCH_SHARE = 0.5
"""A patch is defective where at least this share of its part is changed."""
LEAST_NOISE_PX = 0.01
"""Depth noise below this share of a source pixel's size is taken for it: a station without noise has no scale."""


@dataclass(frozen=True, slots=True)
class FrameDefect:
    """What is done to a frame."""

    kind: Kind
    size_mm: float
    """Largest extent: a diameter, the length of a scratch."""
    strength: float
    """Geometry: height or depth in mm. Stain: opacity, tint: change as a share of full scale; both 0..1."""


@dataclass(frozen=True, slots=True)
class SpoiledFrame:
    """A spoiled frame and the truth about it."""

    frame: Frame
    defect: FrameDefect
    changed: BoolArray  # H x W source pixels


def draw_defect(kind: Kind, geometry: Geometry, noise_mm: float, rng: np.random.Generator) -> FrameDefect:
    """Size and strength at random, both evenly in their logarithm."""
    size, strength = (float(np.exp(rng.uniform(*np.log(span)))) for span in (SIZES[kind], STRENGTHS[kind]))
    scale = noise_mm if kind in GEOMETRY_KINDS else 1.0
    return FrameDefect(kind, size * geometry.side_px * geometry.mm_per_px, strength * scale)


def depth_noise_mm(frames: Sequence[Frame], geometry: Geometry) -> float:
    """Standard deviation of single points' depths on the part, from second differences along rows; robust.

    Raises FrameRefused as ``find_part``.
    """
    seen = []
    for frame in frames:
        found = find_part(frame, geometry)
        depth = _depths(found.points, found.part)
        inside = found.part[:, :-2] & found.part[:, 1:-1] & found.part[:, 2:]
        seen.append(np.abs(depth[:, :-2] - 2.0 * depth[:, 1:-1] + depth[:, 2:])[inside])
    differences = np.concatenate(seen)
    noise = 1.4826 * float(np.median(differences)) / np.sqrt(6.0) if differences.size else 0.0
    return float(max(noise, LEAST_NOISE_PX * geometry.mm_per_px))


def spoil_frame(
    frame: Frame, geometry: Geometry, defect: FrameDefect, rng: np.random.Generator, found: Foreground | None = None,
    room_mm: float | None = None,
) -> SpoiledFrame:  # fmt: skip
    """The frame with one defect at a random place. ``found``: its part, where known; made by ``find_part`` otherwise.

    ``room_mm``: how much surface the place has around it, for defects of several sizes in one place; None: as much as
    the defect covers.
    Raises DataError where the part is too small for anything, FrameRefused as ``find_part``.
    """
    found = found or find_part(frame, geometry)
    profile = _profile(found, defect, geometry, rng, room_mm)
    if defect.kind in GEOMETRY_KINDS:
        towards = 1.0 if defect.kind == "bump" else -1.0
        spoiled = move_points(frame, geometry, towards * defect.strength * profile)
        changed = found.part & (profile >= VISIBLE_SHARE)
    else:
        spoiled = _coloured(frame, defect, profile, rng)
        changed = found.filled & (profile >= VISIBLE_SHARE)
    return SpoiledFrame(spoiled, defect, changed)


def changed_patches(changed: BoolArray, part: BoolArray, window: Window, grid: int) -> BoolArray:
    """Patches (grid x grid) of which at least ``PATCH_SHARE`` of the part's pixels are changed; H x W masks."""
    cells = []
    for mask in (changed & part, part):
        rows, columns = np.nonzero(mask)
        rows, columns = rows - window.y_px, columns - window.x_px
        inside = (rows >= 0) & (rows < window.side_px) & (columns >= 0) & (columns < window.side_px)
        flat = (rows[inside] * grid // window.side_px) * grid + columns[inside] * grid // window.side_px
        cells.append(np.bincount(flat, minlength=grid * grid).reshape(grid, grid))
    hit, covered = cells
    return np.asarray((covered > 0) & (hit >= PATCH_SHARE * covered))


def move_points(frame: Frame, geometry: Geometry, towards_mm: NDArray[np.float64]) -> Frame:
    """Every measured point moved by H x W mm towards the camera along its view ray: up, where z is a height."""
    unit = frame.unit or geometry.unit
    points, measured = points_mm(frame, geometry.unit)
    moving = measured & (towards_mm != 0)
    amount = towards_mm[moving] / MM_PER_UNIT[unit]
    stored = points_in(frame, unit)
    moved = stored.copy()
    if is_height_map(points, measured):
        moved[moving, 2] = stored[moving, 2] + amount
    else:
        here = stored[moving].astype(np.float64)
        moved[moving] = here * (1.0 - amount / np.linalg.norm(here, axis=1))[:, None]
    return replace(frame, xyz=moved, depth=None, unit=unit, scale=1.0, offset=0.0, invalid=None)


def _depths(points: NDArray[np.floating], part: BoolArray) -> NDArray[np.float64]:
    """H x W: what a sensor measured, along rays or along z."""
    double = points.astype(np.float64)
    return double[:, :, 2] if is_height_map(points, part) else np.asarray(np.linalg.norm(double, axis=2))


def _profile(
    found: Foreground, defect: FrameDefect, geometry: Geometry, rng: np.random.Generator, room_mm: float | None
) -> NDArray[np.float64]:
    """H x W, 0 to 1: the defect's shape at a random place, 0 off the part."""
    size_px = defect.size_mm / geometry.mm_per_px
    radius_px = max(0.5 * size_px, 1.0)
    width_px = max(SCRATCH_WIDTH_SHARE * size_px, SCRATCH_LEAST_PX)
    covered_px = 0.5 * width_px if defect.kind == "scratch" else radius_px
    row, column = _place(found.filled, covered_px if room_mm is None else room_mm / geometry.mm_per_px, rng)
    rows, columns = np.indices(found.filled.shape, dtype=np.float64)
    rows, columns = rows - row, columns - column
    if defect.kind == "scratch":
        heading, bend = rng.uniform(0.0, 2 * np.pi), rng.normal(0.0, 0.5) / max(size_px, 1.0)
        along = rows * np.sin(heading) + columns * np.cos(heading)
        across = columns * np.sin(heading) - rows * np.cos(heading) - bend * along**2
        shape = np.where(np.abs(along) <= 0.5 * size_px, np.clip(1.0 - 2.0 * np.abs(across) / width_px, 0.0, 1.0), 0.0)
    else:
        angle = np.arctan2(rows, columns)
        waves = [rng.normal(0.0, RAGGED / k) * np.cos(k * angle + rng.uniform(0.0, 2 * np.pi)) for k in (1, 2, 3, 5)]
        reach = np.hypot(rows, columns) / (radius_px * np.clip(1.0 + sum(waves), 0.6, 1.5))
        if defect.kind in ("bump", "dent"):
            shape = np.clip(1.0 - reach**2, 0.0, 1.0)
        elif defect.kind == "hole":
            shape = np.clip((1.0 - reach) * radius_px + 0.5, 0.0, 1.0)
        else:
            shape = np.clip((1.0 - reach) / (0.15 if defect.kind == "stain" else 0.5), 0.0, 1.0)
    return np.asarray(np.where(found.filled, shape, 0.0))


def _place(part: BoolArray, room_px: float, rng: np.random.Generator) -> tuple[float, float]:
    """A random place with so much room around it on the part, or among its widest places."""
    room = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(part & (room >= min(room_px, 0.8 * float(room.max()))))
    if not len(rows):
        raise DataError("a frame without foreground points cannot be given a pseudo-defect; leave it out")
    at = int(rng.integers(len(rows)))
    return float(rows[at] + rng.uniform(-0.5, 0.5)), float(columns[at] + rng.uniform(-0.5, 0.5))


def _coloured(frame: Frame, defect: FrameDefect, profile: NDArray[np.float64], rng: np.random.Generator) -> Frame:
    picture = frame.rgb.astype(np.float64)
    if defect.kind == "stain":
        # Of two colours drawn the one farther from the surface's own: white on white is not a defect.
        here = picture[profile > 0].mean(axis=0)
        drawn = [np.asarray(STAINS[i], np.float64) for i in rng.choice(len(STAINS), 2, replace=False)]
        paint = max(drawn, key=lambda colour: float(np.abs(colour - here).sum()))
        share = defect.strength * profile[:, :, None]
        picture = picture * (1.0 - share) + paint * share
    else:
        change = rng.choice((-1.0, 1.0), 3) * rng.uniform(0.3, 1.0, 3)
        picture = picture + 255.0 * defect.strength * profile[:, :, None] * change / np.abs(change).max()
    # Rounding by chance: a change below one level stays a change on average.
    coloured: ByteArray = np.clip(np.floor(picture + rng.random(picture.shape)), 0, 255).astype(np.uint8)
    return replace(frame, rgb=np.where(profile[:, :, None] > 0, coloured, frame.rgb))
