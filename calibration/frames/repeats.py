"""Which normal frames show one and the same part? Frames of one part are alike, and count as one witness, not several.

Every frame is looked at on a small grid, colour and height, and laid upon the others (shift, turn). Two frames of one
part then differ by the sensor's noise, which is as large between neighbouring cells as between any; two parts differ
by more over a few cells, because every part has a surface of its own. Two figures of a pair say which, for colour and
for height, each 1 where the difference is noise:

``apart``   energy of the smoothed difference in units of what noise alone leaves of it. Position, scale, brightness and
            the direction of the light are fitted first; edges, where a rest of the shift shows, hardly count.
``surface`` the same after taking away the few directions in which the frames of this set vary most (light, pose, a
            common tolerance): what only a surface of its own explains.

The noise is that between each frame and the one most like it, at the scale of single cells. No constant here was
fitted to frames that anything is tested on; error rates: ``docs/method.md``, "Frames of one part".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from PIL import Image
from PIL.Image import Resampling
from scipy import ndimage

from asperity.calibration.frames.alignment import UNMOVED_CELLS, Look, laid_upon_each_other, round_part
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Prepared
from asperity.runtime.manifest import Geometry
from asperity.runtime.vision.preprocess import plane_heights

GRID = 96
"""Cells of the grid along a side, about: each is one source pixel or the mean of a few whole ones."""
SURFACE_MOST, SURFACE_MOST_NEARER = 1.4, 2.0
APART_MOST = 6.0
"""Two frames up to these figures, in colour and in height, differ by noise alone. ``apart`` also holds what is left of
position and light, which ``surface`` should not. Of a pair much nearer than most of the set, it may hold some."""
NEARER = 0.3
"""Share of the median ``apart``."""
SUSPECT = 1.25
"""Up to these figures times this, two frames are suspected."""
SPREAD_MOST = 12.0
"""The median ``apart`` within a group. A group farther apart hangs together by a chain only: a suspicion."""
TELLING = 4.0
"""From this median ``surface`` on the parts of a set have surfaces to tell them by; figures are then relative too."""
SURFACE_SHARE = 0.25
APART_SHARE = 0.3
EQUAL_MOST = 1.5
"""Up to this ``apart`` a pair that has not moved is equal but for noise, whatever part ids say."""
DIRECTIONS = 6
FRAMES_PER_DIRECTION = 6
BAND_CELLS = (2.0, 8.0)
"""Differences between these scales are compared: above the noise of single cells, below shading."""
EDGE_CELLS = 0.08
"""Positions fit each other to about this much, so that a slope of the picture counts as so much more noise."""
CLIP = 6.0
"""A cell's difference is cut at this many standard deviations of its noise: dust and lost points are few and large."""
LEAST_OVERLAP = 0.8
"""A frame that covers less of the usual one was not laid upon it: nothing can be said of it."""
FEWEST_CELLS = 1500
"""Fewer level cells have too few independent differences to say anything beyond what is fitted."""
TRIM, TRIMMED = 0.9, 0.623
"""Noise is the mean square of the smaller 90 %, which is this share of a normal distribution's variance."""
NOISE_CELLS = 1200
NOISES = 4
LEAST_NOISE = (0.05, 0.0005)
"""Of the colour (of 255) and of the height (mm): rounding."""
ROUNDS = 3

Unseen = Literal["", "turned", "any"]
"""Repeats that may be there and not found: none; of a part that was turned, which is round; any, as too few level cells
of the part are in view."""
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Frames by index; groups have two frames or more, ascending."""

    equal: Groups
    """Unmoved and equal but for noise, or told apart from others of the set by a surface they share: proven."""
    alike: Groups
    """Differing by noise, position and light alone; contains ``equal``. No other frame shows what parts differ by."""
    suspected: Groups
    """As alike as frames of one part may be, and as parts that hardly vary may be."""
    unseen: Unseen = ""


@dataclass(frozen=True, slots=True)
class _Grid:
    """What is the same for all frames."""

    side: int
    cell_mm: float
    noises: tuple[FloatArray, FloatArray]
    """White noise of the source's pixels after its way to the grid, in colour and in height: m x n x n of standard
    deviation 1. It is not white there: a window is resized on the way."""

    @classmethod
    def of(cls, one: Prepared, geometry: Geometry) -> _Grid:
        window, image_px, cloud_px = geometry.side_px, len(one.image), len(one.cloud)
        side = min(round(window / max(1, round(window / GRID))), image_px, cloud_px)
        means, random = _means(image_px, side), np.random.default_rng(0)
        cells = np.arange(window) * cloud_px // window
        members = (cells == np.arange(cloud_px)[:, None]).astype(np.float32)
        path = _means(cloud_px, side) @ (members / np.maximum(members.sum(axis=1, keepdims=True), 1))
        path /= path.sum(axis=1, keepdims=True)
        colour, height = np.empty((2, NOISES, side, side), dtype=np.float32)
        for index in range(NOISES):
            pixels = random.standard_normal((window, window), dtype=np.float32)
            image = np.asarray(Image.fromarray(pixels).resize((image_px, image_px), Resampling.BICUBIC))
            colour[index], height[index] = means @ image @ means.T, path @ pixels @ path.T
        colour, height = colour / colour.std(), height / height.std()
        return cls(side, geometry.mm_per_px * window / side, (colour, height))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """All pairs of a set, n x n."""

    one_part: BoolArray
    """No more than noise between them."""
    proven: BoolArray
    """That, and it cannot be chance."""
    near: BoolArray
    """Little more than noise between them."""
    apart: FloatArray


def find_repeats(prepared: Sequence[Prepared], geometry: Geometry) -> Repeats:
    """Groups of frames that show one part, as far as the frames themselves say."""
    proven, alike, suspected = (_Groups(len(prepared)) for _ in range(3))
    unseen: Unseen = ""
    if len(prepared) > 1:
        grid = _Grid.of(prepared[0], geometry)
        looks = _looks(prepared, geometry, grid.side)
        if round_part(looks[0]):
            unseen = "turned"
        heads = list(range(len(looks)))
        # What repeats makes itself the measure of all else, so one frame of each group is compared again.
        for _ in range(ROUNDS):
            pairs = _compare([looks[i] for i in heads], grid)
            if not np.isfinite(pairs.apart[np.triu_indices(len(heads), 1)]).any():
                unseen = "any"
            _join(pairs, heads, proven, alike, suspected)
            left = [i for i in heads if alike.head(i) == i]
            if len(left) in (1, len(heads)):
                break
            heads = left
    left_over = tuple(group for group in suspected.members() if not alike.holds(group))
    return Repeats(proven.members(), alike.members(), left_over, unseen)


def _join(pairs: _Pairs, heads: Sequence[int], proven: _Groups, alike: _Groups, suspected: _Groups) -> None:
    chains = _Groups(len(heads))
    chains.join_all(pairs.one_part)
    for chain in chains.members():
        inside = pairs.apart[np.ix_(chain, chain)][np.triu_indices(len(chain), 1)]
        whole = float(np.median(inside)) <= SPREAD_MOST or bool(pairs.proven[np.ix_(chain, chain)].any())
        for one, other in pairwise(chain):
            (alike if whole else suspected).join(heads[one], heads[other])
    for groups, which in ((proven, pairs.proven), (suspected, pairs.near)):
        for one, other in np.argwhere(np.triu(which, 1)):
            groups.join(heads[int(one)], heads[int(other)])


def _compare(looks: Sequence[Look], grid: _Grid) -> _Pairs:
    """Every frame with every other."""
    colours, heights, parts, moved = laid_upon_each_other(looks)
    height = np.median(heights, axis=0)
    inside = ndimage.binary_erosion(parts.mean(axis=0) > 0.9, iterations=3)
    rise, run = np.gradient(ndimage.gaussian_filter(height, 1.0), grid.cell_mm)
    upright = 1 / np.sqrt(1 + rise**2 + run**2)
    figures = []
    for fields, least, normal, pure in (
        (colours, LEAST_NOISE[0], (rise * upright, run * upright, upright), grid.noises[0]),
        (heights, LEAST_NOISE[1], (), grid.noises[1]),
    ):
        figures.append(_pair_figures(fields, parts, inside, least, normal, pure))
    return _judge(figures, moved)


def _judge(figures: Sequence[tuple[FloatArray, FloatArray]], moved: FloatArray) -> _Pairs:
    some = np.triu_indices(len(moved), 1)
    apart = np.maximum(figures[0][0], figures[1][0])
    # Of what could be laid upon each other: other frames are infinitely far.
    middles = [tuple(_middle(one[some]) for one in pair) for pair in figures]
    telling = any(surface >= TELLING for _, surface in middles)
    nearer = telling | (apart <= NEARER * _middle(apart[some]))
    one_part, near = np.ones((2, *apart.shape), dtype=bool)
    for (aparts, surfaces), (usual_apart, usual_surface) in zip(figures, middles, strict=True):
        most, surface_most = APART_MOST, np.where(nearer, SURFACE_MOST_NEARER, SURFACE_MOST)
        if telling:
            most = max(most, APART_SHARE * usual_apart)
            surface_most = np.maximum(surface_most, SURFACE_SHARE * usual_surface)
        known = np.isfinite(aparts) & np.isfinite(surfaces)
        one_part &= known & (aparts <= most) & (surfaces <= surface_most)
        near &= known & (aparts <= SUSPECT * most) & (surfaces <= SUSPECT * surface_most)
    rest = (moved[:, None] <= UNMOVED_CELLS) & (moved <= UNMOVED_CELLS) & (apart <= EQUAL_MOST)
    return _Pairs(one_part, one_part & (rest | telling), near, apart)


def _middle(figures: FloatArray) -> float:
    known = figures[np.isfinite(figures)]
    return float(np.median(known)) if len(known) else 0.0


def _pair_figures(
    fields: FloatArray, parts: BoolArray, inside: BoolArray, least: float, normal: Sequence[FloatArray],
    pure: FloatArray,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """``apart`` and ``surface`` of all pairs, n x n each. ``fields``: n x grid x grid, laid upon each other."""
    count, side = fields.shape[:2]
    unknown = np.full((count, count), np.inf, dtype=np.float32)
    if inside.sum() < FEWEST_CELLS:
        return unknown, unknown
    usual = np.median(fields, axis=0)
    down, across = np.gradient(ndimage.gaussian_filter(usual, 0.7))
    slope = ndimage.gaussian_filter(np.hypot(down, across), 1.0)
    noise = max(_noise(fields, inside, pure), least)
    weight = np.where(inside, 1 / np.sqrt(1 + (EDGE_CELLS * slope / noise) ** 2), 0.0).astype(np.float32)
    used = inside & (weight > 0.05)
    if used.sum() < FEWEST_CELLS:
        return unknown, unknown
    limit = CLIP * noise / np.maximum(weight, 1e-3)
    scales, squares = (*BAND_CELLS, 1.0), weight * weight
    below = [np.maximum(ndimage.gaussian_filter(squares, scale), 1e-3) for scale in scales]

    def band(field: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Between the two scales, and finer than both; a cell counts by the square of its weight."""
        field = field.astype(np.float32)
        small, large, single = (
            ndimage.gaussian_filter(field * squares, scale) / weights
            for scale, weights in zip(scales, below, strict=True)
        )
        return ((small - large) * weight)[used], ((field - single) * weight)[used]

    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / side
    lit = [usual * one for one in normal]
    known = [usual, usual * x, usual * y, down, across, across * y - down * x, across * x + down * y, x, y, *lit]
    plain = np.stack([*known, np.ones_like(usual)])
    fit = np.linalg.pinv((plain * weight)[:, used].T)
    basis = np.stack([band(one)[0] for one in known], axis=1).astype(np.float64)
    lengths = np.linalg.norm(basis, axis=0)
    basis = np.linalg.qr(basis[:, lengths > 1e-9 * lengths.max()])[0].astype(np.float32)
    bands = [band(one) for one in pure]
    coarse_share = float(np.mean([np.square(one - basis @ (one @ basis)).mean() for one, _ in bands]))
    fine_share = float(np.mean([np.square(one).mean() for _, one in bands]))

    coarse, fine = np.empty((2, count, int(used.sum())), dtype=np.float32)
    astray = parts[:, used].mean(axis=1) < LEAST_OVERLAP
    for index, (field, there) in enumerate(zip(fields, parts, strict=True)):
        rest = field - usual
        # What is known is fitted before the rest is clipped: two frames in another light must not both be all limit.
        rest = rest - np.tensordot(fit @ (rest * weight)[used], plain, axes=1)
        one, fine[index] = band(np.where(there, np.clip(rest, -limit, limit), 0.0))
        coarse[index] = one - basis @ (one @ basis)
    directions = min(DIRECTIONS, count // FRAMES_PER_DIRECTION)
    bare, left = _without_directions(coarse, directions), _without_directions(fine, directions)
    own = max(float(np.square(left).mean()) * count / max(count - 1 - directions, 1) / fine_share, least**2)
    apart = _distances(coarse) / (2 * noise**2 * coarse_share)
    surface = _distances(bare) * (count / max(count - 1 - directions, 1)) / (2 * own * coarse_share)
    for one in (apart, surface):
        one[astray] = one[:, astray] = np.inf
    return apart, surface


def _noise(fields: FloatArray, inside: BoolArray, pure: FloatArray) -> float:
    """Standard deviation of a cell's noise: between frames most like each other, the median over frames.

    Which is most like is asked of one half of the cells and measured on the other, or the noise would come out small.
    """
    cells = np.flatnonzero(inside)
    cells = cells[:: max(1, len(cells) // NOISE_CELLS)]
    fine, alone = (np.stack([_fine(one).ravel()[cells] for one in many]) for many in (fields, pure))
    measured = np.empty(len(fine))
    for index, one in enumerate(fine):
        squares = np.square(np.delete(fine, index, axis=0) - one)
        chosen = squares[_trimmed(squares[:, ::2]).argmin(), 1::2]
        measured[index] = _trimmed(chosen[None])[0]
    return math.sqrt(float(np.median(measured)) / 2 / float(np.square(alone).mean()))


def _fine(field: FloatArray) -> FloatArray:
    return np.asarray(field - ndimage.gaussian_filter(field, 1.0), dtype=np.float32)


def _trimmed(squares: FloatArray) -> FloatArray:
    """Variance by each row's smaller squares."""
    keep = max(1, int(TRIM * squares.shape[1]))
    return np.asarray(np.partition(squares, keep - 1, axis=1)[:, :keep].mean(axis=1) / TRIMMED, dtype=np.float32)


def _distances(rows: FloatArray) -> FloatArray:
    """Mean squared difference of all pairs of rows."""
    rows = rows - rows.mean(axis=0)
    squares = (rows * rows).sum(axis=1)
    distances = squares[:, None] + squares - 2 * (rows @ rows.T)
    return np.asarray(np.maximum(distances, 0) / rows.shape[1], dtype=np.float32)


def _without_directions(rows: FloatArray, directions: int) -> FloatArray:
    """Rows about their mean, without what lies in the directions in which they vary most."""
    rows = rows - rows.mean(axis=0)
    if not directions:
        return rows
    vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))[1][:, -directions:].astype(np.float32)
    return np.asarray(rows - vectors @ (vectors.T @ rows), dtype=np.float32)


def _looks(prepared: Sequence[Prepared], geometry: Geometry, side: int) -> list[Look]:
    image, cloud = (_means(size, side) for size in (prepared[0].image.shape[0], prepared[0].cloud.shape[0]))
    return [_look(one.image, one.cloud, image, cloud, geometry) for one in prepared]


def _look(
    image: ByteArray, cloud: FloatArray, image_means: FloatArray, cloud_means: FloatArray, geometry: Geometry
) -> Look:
    there = (cloud != 0).any(axis=-1)
    heights = -cloud[..., 2] if geometry.plane is None else plane_heights(cloud, geometry.plane)
    seen = cloud_means @ there.astype(np.float32) @ cloud_means.T
    sums = cloud_means @ np.where(there, heights, 0).astype(np.float32) @ cloud_means.T
    part = ndimage.binary_fill_holes(ndimage.binary_closing(seen > 0.25))
    known = (seen > 0.01) & part
    height = np.where(known, sums / np.maximum(seen, 1e-6), 0.0)
    around = ndimage.gaussian_filter(height, 1.5) / np.maximum(ndimage.gaussian_filter(known.astype(float), 1.5), 1e-3)
    colour = image_means @ image.mean(axis=-1, dtype=np.float32) @ image_means.T
    heights = np.where(known, height, around * part).astype(np.float32)
    return Look((colour * part).astype(np.float32), heights, part, known)


def _means(size: int, side: int) -> FloatArray:
    """side x size: the mean of the ``size`` pixels that each of ``side`` cells covers, whole or in part."""
    edges = np.arange(side + 1) * (size / side)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(overlap, 0) * (side / size), dtype=np.float32)


class _Groups:
    """Indices joined to groups; a group is named by its lowest index."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def head(self, index: int) -> int:
        while self._above[index] != index:
            index = self._above[index]
        return index

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.head(one), self.head(other)))
        self._above[high] = low

    def join_all(self, pairs: BoolArray) -> None:
        for one, other in np.argwhere(np.triu(pairs, 1)):
            self.join(int(one), int(other))

    def holds(self, group: Sequence[int]) -> bool:
        """Is all of it in one group?"""
        return len({self.head(index) for index in group}) == 1

    def members(self) -> Groups:
        """Groups of two or more."""
        found: dict[int, list[int]] = {}
        for index in range(len(self._above)):
            found.setdefault(self.head(index), []).append(index)
        return tuple(tuple(group) for group in found.values() if len(group) > 1)
