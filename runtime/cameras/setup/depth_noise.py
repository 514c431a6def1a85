"""Depth noise from repeated exposures of a scene that stands still, and whether it does. Pure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening

from asperity.runtime.frame import BoolArray, FloatArray

FEWEST_FRAMES = 3
"""With fewer frames in a row without motion there is no noise figure."""
MOVED_SHARE = 0.002
"""Patches of 3 x 3 pixels and more that change by more than noise between two frames, as a share of the picture: with
more than this, something moved. Edges flicker too, but in thin lines."""
SIGMAS = 6.0
COLOUR_LEVELS = 12.0
"""Colour that changes by less than this, of 255, may be light that flickers."""
SHIFT_SIGMAS = 2.0
"""A shift of the whole scene in depth by more than this many standard deviations is motion."""
ROUGH = 10.0
"""Noise in time this many times that from pixel to pixel of a frame is a scene of which every pixel changed."""
STEP_VALUES, FEWEST_VALUES = 0.25, 4
"""Depths with fewer different values than this share of them are rounded to steps, if they are more than a few levels
of a drawn scene."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What repeated exposures show. ``noise_mm`` is nan where the scene did not stand still for long enough."""

    noise_mm: float
    """Standard deviation of the depth of a pixel in time: half of the pixels have less."""
    noise_95_mm: float
    """95 % of the pixels have less."""
    step_mm: float
    """The camera rounds depths to this; 0: not that can be seen."""
    frames: int
    """Frames in a row without motion that were used."""
    moved: tuple[int, ...]
    """Numbers (from 0) of the frames that differ from the one before by motion."""
    most_moved_share: float
    """Largest share of pixels that changed between two frames."""


def measure(depths_mm: FloatArray, valid: BoolArray, grey: FloatArray) -> Noise:
    """Of N frames: depths (N x H x W, mm), where they are valid, and brightness (N x H x W, of 255)."""
    step = depth_step(depths_mm[0][valid[0]])
    pairs = [_Pair.of(depths_mm[k : k + 2], valid[k : k + 2]) for k in range(len(depths_mm) - 1)]
    usual = float(np.quantile([pair.sigma for pair in pairs], 0.25)) if pairs else 0.0
    rough = max(_roughness(depths_mm[0], valid[0]), step)
    shares = [
        _changed(pair, max(usual, step), grey[k], grey[k + 1], rough) for k, pair in enumerate(pairs)
    ]  # fmt: skip
    moved = tuple(k + 1 for k, share in enumerate(shares) if share > MOVED_SHARE)
    first, last = _longest_run(len(depths_mm), moved)
    most = max(shares, default=0.0)
    seen = valid[first:last].all(axis=0)
    if last - first < FEWEST_FRAMES or not seen.any():
        return Noise(math.nan, math.nan, step, last - first, moved, most)
    stack = depths_mm[first:last][:, seen].astype(np.float64)
    variance = stack.var(axis=0, ddof=1)
    freedom = last - first - 1
    # The median of a variance estimated from few frames lies below the variance (Wilson and Hilferty).
    typical = math.sqrt(float(np.median(variance)) / (1 - 2 / (9 * freedom)) ** 3)
    # Where the noise is far below the step most pixels never change; what was rounded away is noise too.
    least = step / math.sqrt(12)
    return Noise(
        max(typical, least), max(math.sqrt(float(np.quantile(variance, 0.95))), least), step, last - first, moved, most
    )


def depth_step(depths: NDArray[np.floating]) -> float:
    """What depths are rounded to; 0 where they are not."""
    if not len(depths):
        return 0.0
    values = np.unique(np.round(depths.astype(np.float64), 5))
    if len(values) < FEWEST_VALUES or len(values) > STEP_VALUES * len(depths):
        return 0.0
    steps = np.diff(values)
    smallest = float(np.quantile(steps, 0.1))
    whole = np.abs(steps / smallest - np.round(steps / smallest)) < 0.1
    return smallest if whole.mean() > 0.9 else 0.0


@dataclass(frozen=True, slots=True)
class _Pair:
    """How two frames differ where both have points."""

    change: FloatArray  # H x W, mm; 0 where one of them has no point
    shift: float
    sigma: float

    @classmethod
    def of(cls, depths: FloatArray, valid: BoolArray) -> _Pair:
        both = valid[0] & valid[1]
        change = np.where(both, depths[1] - depths[0], np.float32(0))
        if not both.any():
            return cls(change, 0.0, 0.0)
        seen = change[both].astype(np.float64)
        shift = float(np.median(seen))
        return cls(change, shift, 1.4826 * float(np.median(np.abs(seen - shift))) / math.sqrt(2))


def _changed(pair: _Pair, sigma: float, before: FloatArray, after: FloatArray, rough: float) -> float:
    """Share of pixels that changed by more than noise, in depth or colour."""
    if abs(pair.shift) > SHIFT_SIGMAS * sigma > 0 or (rough > 0 and pair.sigma > ROUGH * rough):
        return 1.0
    most = SIGMAS * math.sqrt(2) * sigma
    in_depth = np.abs(pair.change) > max(most, 1e-6)
    difference = after - before
    spread = 1.4826 * float(np.median(np.abs(difference - np.median(difference))))
    in_colour = np.abs(difference) > max(SIGMAS * spread, COLOUR_LEVELS)
    return max(float(binary_opening(one, np.ones((3, 3))).mean()) for one in (in_depth, in_colour))


def _roughness(depths: FloatArray, valid: BoolArray) -> float:
    """Noise from pixel to pixel of one frame: second differences, which a slope does not have."""
    along = valid[:, 2:] & valid[:, 1:-1] & valid[:, :-2]
    bends = (depths[:, 2:] - 2 * depths[:, 1:-1] + depths[:, :-2])[along]
    return 1.4826 * float(np.median(np.abs(bends))) / math.sqrt(6) if len(bends) else 0.0


def _longest_run(frames: int, moved: tuple[int, ...]) -> tuple[int, int]:
    """First and end of the longest run of frames without motion between them."""
    edges = [0, *moved, frames]
    return max(itertools.pairwise(edges), key=lambda run: run[1] - run[0])
