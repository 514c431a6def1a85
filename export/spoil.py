"""Spoil a normal frame in one modality only, a little more each time, until the networks see it.

A bundle carries one frame spoiled in geometry and one in colour; both must be ng wherever it opens
(``engines.parity_gate``). Geometry: points of a round spot pushed along their view ray into a bump, a dent, at last
ripples; colours untouched. Colour: a stain, at last a chequered patch; points untouched. Everything is
bounded, and nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import MM_PER_UNIT, BoolArray, ByteArray, Frame
from asperity.runtime.manifest import Geometry
from asperity.runtime.vision.border_plane import is_height_map
from asperity.runtime.vision.preprocess import Masks, find_part

Kind = Literal["spoiled_geometry", "spoiled_colour"]

SPOTS = 3
"""Places on the part that are tried, the widest first."""
HEIGHT_SHARES = (0.005, 0.01, 0.02, 0.035, 0.06, 0.1)
"""How far points are pushed, as shares of the window's side; towards the camera first, then away."""
BUMP_RADIUS_SHARE = 0.07
RIPPLES = ((0.02, 0.12), (0.05, 0.12), (0.1, 0.18))
"""Height and radius (shares of the window's side) of a rippled patch: what any point network must see."""
RIPPLE_PX_SHARE = 0.03
STAINS = ((0.03, 0.35), (0.045, 0.5), (0.06, 0.7), (0.08, 0.85), (0.1, 1.0))
"""Radius (share of the window's side) and opacity of a stain."""
CHEQUERS = (0.06, 0.1)
"""Radius (share of the window's side) of a patch of black and white squares: what any colour network must see."""
CHEQUER_PX_SHARE = 0.02
MIN_RADIUS_PX = 3.0


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A spoiled frame and a description of what was done to it."""

    frame: Frame
    kind: Kind
    what: str


@dataclass(frozen=True, slots=True)
class Spot:
    """A place on the part: centre and the radius of the largest circle around it that lies on the part, pixels."""

    row: int
    column: int
    radius_px: float


def spots(part: BoolArray, count: int = SPOTS) -> list[Spot]:
    """The widest places of a mask (H x W), each outside the circles of those before it. Empty for an empty mask."""
    inside = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    found: list[Spot] = []
    while len(found) < count and inside.max() > 0:
        row, column = (int(v) for v in np.unravel_index(int(inside.argmax()), inside.shape))
        radius_px = float(inside[row, column])
        found.append(Spot(row, column, radius_px))
        inside[np.hypot(rows - row, columns - column) < max(radius_px, MIN_RADIUS_PX)] = 0
    return found


def attempts(kind: Kind, frame: Frame, geometry: Geometry, masks: Masks) -> Iterator[Spoiled]:
    """Spoiled forms of a normal frame, the faintest first. Raises CalibrationError when it shows no part to spoil."""
    part = find_part(frame, geometry).part
    if masks.inspect is not None:
        part = part & masks.inspect
    if masks.ignore is not None:
        part = part & ~masks.ignore
    places = spots(part)
    if not places:
        raise CalibrationError("a golden frame shows no inspected part to spoil; check the masks and calibrate again")
    yield from (_geometry_attempts if kind == "spoiled_geometry" else _colour_attempts)(frame, geometry, part, places)


def _geometry_attempts(frame: Frame, geometry: Geometry, part: BoolArray, places: list[Spot]) -> Iterator[Spoiled]:
    side_mm = geometry.side_px * geometry.mm_per_px
    for share in HEIGHT_SHARES:
        for spot in places:
            for direction in (1.0, -1.0):
                yield push(frame, geometry, spot, direction * share * side_mm)
    for height_share, radius_share in RIPPLES:
        for spot in places:
            yield ripple(frame, geometry, part, spot, height_share * side_mm, radius_share)


def _colour_attempts(frame: Frame, geometry: Geometry, _part: BoolArray, places: list[Spot]) -> Iterator[Spoiled]:
    for share, opacity in STAINS:
        for spot in places:
            yield stain(frame, geometry, spot, share, opacity)
    for share in CHEQUERS:
        for spot in places:
            yield chequer(frame, geometry, spot, share)


def push(frame: Frame, geometry: Geometry, spot: Spot, height_mm: float) -> Spoiled:
    """Points around a spot moved along their view ray, ``height_mm`` towards the camera at its centre (or away)."""
    radius_px = min(max(BUMP_RADIUS_SHARE * geometry.side_px, MIN_RADIUS_PX), max(spot.radius_px, MIN_RADIUS_PX))
    moved = _pushed(frame, height_mm * _profile(frame.shape_px, spot, radius_px))
    name = "bump" if height_mm > 0 else "dent"
    wide_mm = 2 * radius_px * geometry.mm_per_px
    return Spoiled(moved, "spoiled_geometry", f"{name} of {abs(height_mm):.2g} mm, {wide_mm:.2g} mm wide")


def ripple(
    frame: Frame, geometry: Geometry, part: BoolArray, spot: Spot, height_mm: float, radius_share: float
) -> Spoiled:
    """Points of the part around a spot raised towards the camera in rings, ``height_mm`` high; colours untouched."""
    radius_px = max(radius_share * geometry.side_px, MIN_RADIUS_PX)
    rows, columns = np.ogrid[: frame.shape_px[0], : frame.shape_px[1]]
    ring_px = max(2.0, RIPPLE_PX_SHARE * geometry.side_px)
    rings = (np.hypot(rows - spot.row, columns - spot.column) // ring_px) % 2 == 0
    moved = _pushed(frame, height_mm * (rings & part) * _profile(frame.shape_px, spot, radius_px))
    wide_mm = 2 * radius_px * geometry.mm_per_px
    return Spoiled(moved, "spoiled_geometry", f"rippled patch, {height_mm:.2g} mm high, {wide_mm:.2g} mm wide")


def _pushed(frame: Frame, towards_mm: NDArray[np.float64]) -> Frame:
    """Every measured point moved along its view ray, by H x W mm towards the camera: up, where z is a height."""
    if frame.xyz is None or frame.unit is None:
        raise CalibrationError("a golden frame must hold points with a unit; calibrate again")
    points = frame.xyz.astype(np.float64)
    measured = np.isfinite(points).all(axis=2) & (points != 0).any(axis=2)
    moving = measured & (towards_mm != 0)
    amount = towards_mm[moving] / MM_PER_UNIT[frame.unit] / frame.scale
    moved = frame.xyz.copy()
    if is_height_map(points, measured):
        moved[moving, 2] += amount.astype(np.float32)
    else:
        moved[moving] = points[moving] * (1.0 - amount / np.linalg.norm(points[moving], axis=1))[:, None]
    return replace(frame, xyz=moved)


def stain(frame: Frame, geometry: Geometry, spot: Spot, radius_share: float, opacity: float) -> Spoiled:
    """A round stain in the colour farthest from the surface's own; points untouched."""
    radius_px = max(radius_share * geometry.side_px, MIN_RADIUS_PX)
    profile = opacity * _profile(frame.shape_px, spot, radius_px)
    around = frame.rgb[profile > 0].mean(axis=0)
    paint = np.where(around > 127.5, 0.0, 255.0)
    return Spoiled(
        frame=replace(frame, rgb=_painted(frame.rgb, profile, paint)),
        kind="spoiled_colour",
        what=f"stain of {opacity:.0%} opacity, {2 * radius_px * geometry.mm_per_px:.2g} mm wide",
    )


def chequer(frame: Frame, geometry: Geometry, spot: Spot, radius_share: float) -> Spoiled:
    """A round patch of black and white squares; points untouched."""
    radius_px = max(radius_share * geometry.side_px, MIN_RADIUS_PX)
    square_px = max(2, round(CHEQUER_PX_SHARE * geometry.side_px))
    height_px, width_px = frame.shape_px
    squares = (np.arange(height_px)[:, None] // square_px + np.arange(width_px)[None, :] // square_px) % 2
    paint = np.repeat(255.0 * squares[:, :, None], 3, axis=2)
    profile = (_profile(frame.shape_px, spot, radius_px) > 0).astype(np.float64)
    return Spoiled(
        frame=replace(frame, rgb=_painted(frame.rgb, profile, paint)),
        kind="spoiled_colour",
        what=f"chequered patch, {2 * radius_px * geometry.mm_per_px:.2g} mm wide",
    )


def spoil(
    kind: Kind, frame: Frame, geometry: Geometry, masks: Masks, judge: Callable[[Frame], tuple[bool, str]]
) -> Spoiled:
    """The faintest spoiled form that ``judge`` sees; ``judge`` returns whether it does, and what it says as text.

    Raises CalibrationError when none is seen: such networks must not inspect.
    """
    last = told = ""
    for spoiled in attempts(kind, frame, geometry, masks):
        seen, told = judge(spoiled.frame)
        if seen:
            return spoiled
        last = spoiled.what
    modality = "geometry" if kind == "spoiled_geometry" else "colour"
    raise CalibrationError(
        f"these networks cannot detect gross defects of {modality}: even a {last} stays unseen ({told}), so a bundle "
        "of them would pass bad parts; calibrate with more frames or another profile, without frames that are not "
        "normal (--timing-only exports them for benchmarks, without verdicts)"
    )


def _profile(shape_px: tuple[int, int], spot: Spot, radius_px: float) -> NDArray[np.float64]:
    """H x W: 1 on the inner half of a disc, falling to 0 at its edge."""
    rows, columns = np.ogrid[: shape_px[0], : shape_px[1]]
    distance = np.hypot(rows - spot.row, columns - spot.column) / radius_px
    profile: NDArray[np.float64] = np.clip(2.0 * (1.0 - distance), 0.0, 1.0)
    return profile


def _painted(rgb: ByteArray, profile: NDArray[np.float64], paint: NDArray[np.float64]) -> ByteArray:
    share = profile[:, :, None]
    mixed: ByteArray = np.round(rgb * (1.0 - share) + paint * share).astype(np.uint8)
    return mixed
