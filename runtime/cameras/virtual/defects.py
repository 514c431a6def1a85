"""Defects put into a virtual part. Geometry defects do not change its colour, colour defects not its geometry.

Each draws its size, strength and place from its own random generator. ``Amount`` scales what lies on the surface, in
the same place. The exact mask is not made here: the camera compares what its rays hit with and without the defect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.cameras.virtual.part import BELOW_MM, SPACING_MM, Part, grid_mm, normals
from asperity.runtime.errors import UsageError
from asperity.runtime.frame import BoolArray, FloatArray

EDGE_MM = 1.0
"""Defects on the surface keep this far from the part's outline and holes."""
ROOM_MM = 3.0
"""And a defect of a given size has at least so much surface around its middle."""
FLAT = 0.75
"""Surface defects are centred where the upward component of the normal is at least this."""
STAINS = ((0.20, 0.15, 0.10), (0.10, 0.16, 0.30), (0.12, 0.26, 0.14), (0.42, 0.10, 0.12), (0.95, 0.95, 0.93))
"""Colours: oil, ink, mould, paint, chalk."""


@dataclass(frozen=True, slots=True)
class Defect:
    """What was done to a part, for tables of results: the ground truth in addition to the mask."""

    kind: str
    strength_mm: float
    """Height or depth; 0 for a stain."""
    size_mm: float
    """Largest extent on the surface."""
    x_mm: float
    """Where, in the part's own coordinates."""
    y_mm: float


@dataclass(frozen=True, slots=True)
class Amount:
    """How large and how strong defects on the surface are."""

    severity: float = 1.0
    """Heights, depths and how much a stain covers, as a multiple of what is drawn."""
    scale: float = 1.0
    """Lengths on the surface, as a multiple of what is drawn."""
    size_mm: float | None = None
    """Exactly this largest extent, with the strength of the kind's ``PROPORTIONS``. None: as drawn."""

    def room_mm(self, radius_mm: float) -> float:
        """How much surface a place has around it: it must not depend on the scale, nor on a small size."""
        return radius_mm / self.scale if self.size_mm is None else max(radius_mm, ROOM_MM)


USUAL = Amount()


@dataclass(frozen=True, slots=True)
class Proportion:
    """A defect's other measures as shares of its largest extent."""

    strength: float
    """Height or depth; of a stain the share of its colour, whatever its size."""
    width: float = 1.0


PROPORTIONS = {
    "bump": Proportion(0.1),
    "dent": Proportion(0.1),
    "scratch": Proportion(0.035, 0.1),
    "hole": Proportion(0.8),
    "stain": Proportion(0.4),
}
"""The middle of what is drawn: a defect of a given size is as steep as the usual one of its kind."""

Spoiled = tuple[Part, Defect]


def spoil(kind: str, part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """The part with one defect. Raises UsageError for an unknown kind (``wrong_part`` is made, not spoiled)."""
    try:
        defect = SPOILERS[kind]
    except KeyError:
        raise UsageError(f"the defect {kind!r} is not known; choose from {', '.join(DEFECTS)}") from None
    return defect(part, rng, amount)


def bump(part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """Material that should not be there: a low cap."""
    return _cap("bump", part, rng, amount, 1.0)


def dent(part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """The print of a blow: a shallow cap pressed in."""
    return _cap("dent", part, rng, amount, -1.0)


def scratch(part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """A curved V-shaped groove."""
    depth, width, length = rng.uniform(0.35, 1.0), rng.uniform(1.2, 2.4), rng.uniform(12, 28)
    depth, width, length = amount.severity * depth, amount.scale * width, amount.scale * length
    if amount.size_mm is not None:
        usual = PROPORTIONS["scratch"]
        depth, width, length = usual.strength * amount.size_mm, usual.width * amount.size_mm, amount.size_mm
    at_x, at_y = _place(part, rng, 4.0)
    heading, curve = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.02)
    along, across = _turned(at_x, at_y, heading)
    across = across - curve * along**2
    profile = np.where(np.abs(along) < length / 2, np.clip(1 - np.abs(across) / (width / 2), 0, 1), 0)
    return _pressed(part, -depth * profile), Defect("scratch", depth, length, at_x, at_y)


def hole(part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """A blind hole with steep walls: its floor has the part's own colour."""
    radius, depth = amount.scale * rng.uniform(1.1, 2.3), amount.severity * rng.uniform(1.5, 4.0)
    if amount.size_mm is not None:
        radius, depth = amount.size_mm / 2, PROPORTIONS["hole"].strength * amount.size_mm
    at_x, at_y = _place(part, rng, amount.room_mm(radius))
    x, y = grid_mm()
    share = np.clip((radius - np.hypot(x - at_x, y - at_y)) / SPACING_MM, 0, 1)
    return _pressed(part, -depth * share), Defect("hole", depth, 2 * radius, at_x, at_y)


def stain(part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """Colour only."""
    radius = amount.scale * rng.uniform(2.0, 5.5)
    if amount.size_mm is not None:
        radius = amount.size_mm / 2
    at_x, at_y = _place(part, rng, amount.room_mm(radius))
    return _stained(part, rng, at_x, at_y, radius, amount), Defect("stain", 0.0, 2 * radius, at_x, at_y)


def combined(part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """A bump or dent with a stain on it."""
    spoiled, mark = _cap("combined", part, rng, amount, float(rng.choice((-1.0, 1.0))))
    return _stained(spoiled, rng, mark.x_mm, mark.y_mm, mark.size_mm / 2, amount), mark


def missing_material(part: Part, rng: np.random.Generator, amount: Amount = USUAL) -> Spoiled:
    """A piece broken off the outline, with a rough edge."""
    radius = rng.uniform(4.0, 8.0)
    x, y = grid_mm()
    # The outline only: the background that touches the grid's border, not the part's own holes.
    labels, _ = ndimage.label(~part.material)
    outside = labels == labels[0, 0]
    rim = np.argwhere(ndimage.binary_dilation(outside) & part.material)
    row, column = rim[rng.integers(len(rim))]
    at_x, at_y = float(x[row, column]), float(y[row, column])
    distance = np.hypot(x - at_x, y - at_y) - _ragged(rng, at_x, at_y, radius, 0.10)
    height = np.where(distance < 0, np.minimum(part.height_mm, BELOW_MM), part.height_mm)
    gone = float((part.height_mm - height).max()) + BELOW_MM
    broken = replace(part, height_mm=height.astype(np.float32))
    return broken, Defect("missing_material", gone, 2 * radius, at_x, at_y)


SPOILERS: dict[str, Callable[[Part, np.random.Generator, Amount], Spoiled]] = {
    "bump": bump,
    "dent": dent,
    "scratch": scratch,
    "hole": hole,
    "stain": stain,
    "combined": combined,
    "missing_material": missing_material,
}
WRONG_PART = "wrong_part"
DEFECTS = (*SPOILERS, WRONG_PART)


def _cap(kind: str, part: Part, rng: np.random.Generator, amount: Amount, sign: float) -> Spoiled:
    """A spherical cap with an irregular outline: its edge is a kink, so its extent is exact."""
    strength = amount.severity * float(np.exp(rng.uniform(np.log(0.3), np.log(1.5))))
    radius = amount.scale * float(rng.uniform(2.2, 5.0))
    if amount.size_mm is not None:
        strength, radius = PROPORTIONS["bump"].strength * amount.size_mm, amount.size_mm / 2
    at_x, at_y = _place(part, rng, amount.room_mm(radius))
    x, y = grid_mm()
    reach = np.hypot(x - at_x, y - at_y) / _ragged(rng, at_x, at_y, radius, 0.07)
    shape = np.clip(1 - reach**2, 0, 1)
    return _pressed(part, sign * strength * shape), Defect(kind, strength, 2 * radius, at_x, at_y)


def _stained(part: Part, rng: np.random.Generator, at_x: float, at_y: float, radius: float, amount: Amount) -> Part:
    x, y = grid_mm()
    reach = np.hypot(x - at_x, y - at_y) / _ragged(rng, at_x, at_y, radius, 0.15)
    cover = amount.severity * rng.uniform(0.2, 0.6)
    if amount.size_mm is not None:
        cover = PROPORTIONS["stain"].strength
    share = cover * np.clip((1 - reach) / 0.15, 0, 1) * part.material
    here = part.albedo[_nearest(at_x, at_y)]
    # Of two colours drawn the one that differs more from the surface: nobody stains white with white.
    drawn = [np.asarray(STAINS[i], np.float32) for i in rng.choice(len(STAINS), 2, replace=False)]
    colour = max(drawn, key=lambda c: float(np.abs(c - here).sum()))
    albedo = part.albedo + (colour - part.albedo) * share[..., None]
    return replace(part, albedo=albedo.astype(np.float32))


def _pressed(part: Part, change_mm: NDArray[np.floating]) -> Part:
    """The surface raised or lowered, without opening or closing the outline and the part's own holes."""
    height = np.where(part.material, np.maximum(part.height_mm + change_mm, 0.3), part.height_mm)
    # A point that the floor would have raised (a thin edge) stays as it was.
    height = np.where((change_mm < 0) & (height > part.height_mm), part.height_mm, height)
    return replace(part, height_mm=np.where(change_mm == 0, part.height_mm, height).astype(np.float32))


def _place(part: Part, rng: np.random.Generator, radius_mm: float) -> tuple[float, float]:
    """A random place on the surface: flat enough, and its whole neighbourhood is material."""
    x, y = grid_mm()
    room = ndimage.distance_transform_edt(part.material) * SPACING_MM
    flat = normals(part.height_mm)[..., 2] >= FLAT
    wanted: BoolArray = flat & (room >= radius_mm + EDGE_MM)
    places = np.argwhere(wanted if wanted.any() else room >= room.max() * 0.9)
    row, column = places[rng.integers(len(places))]
    return float(x[row, column]), float(y[row, column])


def _ragged(rng: np.random.Generator, at_x: float, at_y: float, radius: float, share: float) -> FloatArray:
    """A radius that wavers with the direction seen from a place, on the grid."""
    x, y = grid_mm()
    angle = np.arctan2(y - at_y, x - at_x)
    wave = sum(rng.normal(0, share / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 5))
    return np.asarray(radius * np.clip(1 + wave, 0.6, 1.6), dtype=np.float32)


def _turned(at_x: float, at_y: float, heading: float) -> tuple[FloatArray, FloatArray]:
    """Coordinates along and across a heading through a place."""
    x, y = grid_mm()
    dx, dy = x - at_x, y - at_y
    return dx * np.cos(heading) + dy * np.sin(heading), -dx * np.sin(heading) + dy * np.cos(heading)


def _nearest(at_x: float, at_y: float) -> tuple[int, int]:
    x, y = grid_mm()
    return int(np.abs(y[:, 0] - at_y).argmin()), int(np.abs(x[0] - at_x).argmin())
