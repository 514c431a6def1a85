"""Defects made from normal frames, to choose hyper-parameters without having seen a real one (lsfa 11 row 11).

Geometry: points pushed along their ray by 0.3 to 2 mm within a round spot, colours untouched. Colour: a piece of the
part's own surface, turned and tinted, pasted elsewhere on it, points untouched. So each kind shows in one modality.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from asperity.runtime.errors import DataError
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Prepared
from asperity.runtime.vision.border_plane import is_height_map

Kind = Literal["geometry", "colour"]
KINDS: tuple[Kind, Kind] = ("geometry", "colour")

DISPLACEMENT_MM = (0.3, 2.0)
SPOT_SHARE = (0.03, 0.10)
"""Radius of a spot and half side of a pasted piece, as shares of the image's side."""
TINT = (0.01, 0.10)
"""Change of each channel of a pasted piece, as a share of full scale."""
DEFECT_SHARE = 0.5
"""A patch is defective when at least this share of its foreground is changed, and normal when none of it is."""
VISIBLE_MM = 0.15
VISIBLE_LEVELS = 12
"""Smaller changes of a point (mm) or pixel (of 255) do not count as changed."""


@dataclass(frozen=True, slots=True)
class PseudoDefect:
    """A spoiled frame and which of its patches are spoiled."""

    prepared: Prepared
    kind: Kind
    defective: BoolArray  # grid x grid


def make_pseudo_defect(prepared: Prepared, kind: Kind, rng: np.random.Generator) -> PseudoDefect:
    """One defect at a random place of the part. Raises DataError when no place on it takes one (part too small)."""
    grid = prepared.inspect.shape[0]
    foreground = (prepared.cloud != 0).any(axis=2)
    if not foreground.any():
        raise DataError("a frame without foreground points cannot be given a pseudo-defect; leave it out")
    for _ in range(20):
        if kind == "geometry":
            spoiled, changed = _displaced(prepared, foreground, rng)
        else:
            spoiled, changed = _pasted(prepared, foreground, rng)
        covered = _cells(foreground, grid)
        share = _cells(changed & foreground, grid) / np.maximum(covered, 1.0)
        defective = (share >= DEFECT_SHARE) & (covered > 0)
        if defective.any():
            return PseudoDefect(spoiled, kind, defective)
    raise DataError("no place on this part takes a pseudo-defect: too few foreground points")


def _displaced(prepared: Prepared, foreground: BoolArray, rng: np.random.Generator) -> tuple[Prepared, BoolArray]:
    """Points within a spot moved along their ray, up or down, flat on top with a soft edge."""
    side = foreground.shape[0]
    row, column = _place(foreground, rng)
    radius_px = rng.uniform(*SPOT_SHARE) * side
    rows, columns = np.ogrid[:side, :side]
    distance = np.hypot(rows - row, columns - column) / radius_px
    profile = np.clip(2.0 * (1.0 - distance), 0.0, 1.0)
    amount_mm = rng.uniform(*DISPLACEMENT_MM) * rng.choice((-1.0, 1.0))
    moved_mm = np.where(foreground, amount_mm * profile, 0.0)
    if is_height_map(prepared.cloud, foreground):  # no ray leads to a camera at the origin
        cloud: FloatArray = prepared.cloud + (moved_mm[:, :, None] * [0.0, 0.0, 1.0]).astype(np.float32)
    else:
        range_mm = np.linalg.norm(prepared.cloud, axis=2)
        factor = 1.0 + moved_mm / np.where(range_mm > 0, range_mm, 1.0)
        cloud = (prepared.cloud * factor[:, :, None]).astype(np.float32)
    return replace(prepared, cloud=cloud), np.abs(moved_mm) >= VISIBLE_MM


def _pasted(prepared: Prepared, foreground: BoolArray, rng: np.random.Generator) -> tuple[Prepared, BoolArray]:
    """A square of the part's surface, turned and tinted, over another place of the part."""
    image, side = prepared.image, prepared.image.shape[0]
    scale = side / foreground.shape[0]
    half = max(2, round(rng.uniform(*SPOT_SHARE) * side))
    source, target = (_square(_place(foreground, rng), scale, half, side) for _ in range(2))
    part = _enlarged(foreground, side)
    turns = int(rng.integers(4))
    piece = np.rot90(image[source].astype(np.float32), turns)
    tint = rng.choice((-1.0, 1.0), 3) * rng.uniform(*TINT, 3) * 255.0
    piece = np.clip(np.round(piece + tint), 0, 255)
    spoiled: ByteArray = image.copy()
    on_part = part[target] & np.rot90(part[source], turns)  # neither background over the part nor the part over it
    spoiled[target][on_part] = piece[on_part].astype(np.uint8)
    difference = np.abs(spoiled.astype(np.int16) - image).max(axis=2)
    return replace(prepared, image=spoiled), _enlarged(difference >= VISIBLE_LEVELS, foreground.shape[0])


def _place(foreground: BoolArray, rng: np.random.Generator) -> tuple[int, int]:
    rows, columns = np.nonzero(foreground)
    at = int(rng.integers(len(rows)))
    return int(rows[at]), int(columns[at])


def _square(place: tuple[int, int], scale: float, half: int, side: int) -> tuple[slice, slice]:
    """The square of half side ``half`` around a place, moved to lie within the image."""
    row, column = (min(max(int((value + 0.5) * scale), half), side - half) for value in place)
    return slice(row - half, row + half), slice(column - half, column + half)


def _enlarged(mask: BoolArray, side: int) -> BoolArray:
    """Nearest resize of a square mask."""
    index = (np.arange(side) + 0.5) * mask.shape[0] / side
    return np.asarray(mask[np.ix_(index.astype(int), index.astype(int))])


def _cells(mask: BoolArray, grid: int) -> FloatArray:
    """How many set pixels lie in each cell of the grid."""
    edges = np.arange(mask.shape[0]) * grid // mask.shape[0]
    cells = np.zeros((grid, grid), np.float32)
    np.add.at(cells, (edges[:, None], edges[None, :]), mask.astype(np.float32))
    return cells
