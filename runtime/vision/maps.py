"""Patch maps to pixels: upsampling, blur, the way back to the source frame, and its worst spot (lsfa 7.4).

The published chain quantises the map to 8 bits before the blur and uses Pillow's box approximation of the Gaussian.
Both are dropped knowingly: they only coarsen the map, and without them upsampling and blur are one linear map, so the
modalities can be fused before it.

Numpy only: every engine's verdict passes through here, the simulated one's too; scipy would double a station's start.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import BoolArray, FloatArray, Region, Window

MAP_PX = 224
BLUR_SIGMA_PX = 4.0


def pixel_map(patch_map: FloatArray, blur_px: float = BLUR_SIGMA_PX) -> FloatArray:
    """grid x grid -> 224 x 224 float32: bilinear (align_corners False), then Gaussian blur of sigma ``blur_px``."""
    spread = _spread(patch_map.shape[0], blur_px)
    return np.asarray(spread @ patch_map @ spread.T, dtype=np.float32)


def source_map(pixels: FloatArray, window: Window, height_px: int, width_px: int, outside: float) -> FloatArray:
    """A map of the window (P x P) laid on the source frame (H x W), bilinear; ``outside`` where the window is not."""
    size = pixels.shape[0]
    rows = (np.arange(height_px) - window.y_px + 0.5) * size / window.side_px - 0.5
    columns = (np.arange(width_px) - window.x_px + 0.5) * size / window.side_px - 0.5
    placed = _linear_rows(rows, size) @ pixels @ _linear_rows(columns, size).T
    inside = _inside(rows, size)[:, None] & _inside(columns, size)[None, :]
    return np.where(inside, placed, outside).astype(np.float32)


def worst_region(pixels: FloatArray, scored: BoolArray, window: Window, height_px: int, width_px: int) -> Region | None:
    """The spot around the map's maximum, in source pixels.

    It is the 8-connected area above half-way from the part's median to its peak. ``pixels`` 224 x 224, ``scored`` the
    patches that were scored (grid x grid). None where the part is flat or the spot lies outside the frame.
    """
    size = pixels.shape[0]
    part = pixels[pixel_map(scored.astype(np.float32)) > 0.5]
    peak = float(pixels.max())
    level = 0.5 * (peak + float(np.median(part if part.size else pixels)))
    if not peak > level:
        return None
    above, peak_at = pixels > level, int(pixels.argmax())
    above.flat[peak_at] = True  # even where the level, as float32, is the peak itself
    rows, columns, area = _area_around(peak_at, above)
    return region_of(rows, columns, area, size, window, height_px, width_px)


def region_of(
    rows: tuple[int, int],
    columns: tuple[int, int],
    area: int,
    size: int,
    window: Window,
    height_px: int,
    width_px: int,
) -> Region | None:
    """A spot of ``area`` pixels between these first and last rows and columns of a size x size map, in source pixels.

    None where it lies outside of the frame.
    """
    scale = window.side_px / size
    x0, x1 = _clipped(columns, scale, window.x_px, width_px)
    y0, y1 = _clipped(rows, scale, window.y_px, height_px)
    if x0 >= x1 or y0 >= y1:
        return None
    area_px = min(round(area * scale**2), (x1 - x0) * (y1 - y0))
    return Region(x=x0, y=y0, w=x1 - x0, h=y1 - y0, area_px=max(1, area_px))


def _clipped(cells: tuple[int, int], scale: float, start_px: int, size_px: int) -> tuple[int, int]:
    first = start_px + int(np.floor(cells[0] * scale))
    last = start_px + int(np.ceil((cells[1] + 1) * scale))
    return max(first, 0), min(last, size_px)


def _inside(positions: NDArray[np.float64], size: int) -> BoolArray:
    return (positions >= -0.5) & (positions <= size - 0.5)


def _linear_rows(positions: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Bilinear interpolation along one axis as a matrix (len(positions) x size), edges repeated."""
    clipped = np.clip(positions, 0, size - 1)
    low = np.minimum(clipped.astype(np.int64), size - 2) if size > 1 else np.zeros(len(positions), dtype=np.int64)
    share = clipped - low
    matrix = np.zeros((len(positions), size))
    every = np.arange(len(positions))
    matrix[every, low] = 1.0 - share
    if size > 1:
        matrix[every, low + 1] += share
    return matrix


def _area_around(peak: int, above: BoolArray) -> tuple[tuple[int, int], tuple[int, int], int]:
    """The 8-connected area of True pixels that holds this one: first and last row, and column, and number of pixels.

    Rows are cut into runs of True pixels, and from the peak's run on each run takes in those it touches.
    """
    height, width = above.shape[0], above.shape[1] + 2
    padded = np.zeros((height, width), dtype=np.bool_)  # False at both ends of a row: no run goes on in the next one
    padded[:, 1:-1] = above
    flat = padded.ravel()
    flips = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = flips[::2], flips[1::2]
    below, below_end = _touched(starts, ends, width)
    over, over_end = _touched(starts, ends, -width)
    row, column = divmod(peak, above.shape[1])
    begun = int(np.searchsorted(starts, row * width + column + 1, "right")) - 1
    taken, waiting = {begun}, [begun]
    while waiting:
        run = waiting.pop()
        touched = {*range(below[run], below_end[run]), *range(over[run], over_end[run])} - taken
        taken |= touched
        waiting += touched
    runs = np.fromiter(taken, dtype=np.int64)
    rows, columns = starts[runs] // width, starts[runs] % width - 1
    lengths = ends[runs] - starts[runs]
    lasts = columns + lengths - 1
    return (int(rows.min()), int(rows.max())), (int(columns.min()), int(lasts.max())), int(lengths.sum())


def _touched(starts: NDArray[np.intp], ends: NDArray[np.intp], step: int) -> tuple[list[int], list[int]]:
    """For each run, the first that it touches in the row ``step`` further on, and the first after those."""
    firsts = np.searchsorted(ends, starts + step)
    return firsts.tolist(), np.searchsorted(starts, ends + step, "right").tolist()


def own_blur_px(grid: int) -> float:
    """The blur of local distances: half a patch where there are more than 28 in a row, so that a small spot stays."""
    return min(BLUR_SIGMA_PX, 0.5 * MAP_PX / grid)


def _blurred(values: NDArray[np.float64], sigma_px: float = BLUR_SIGMA_PX) -> NDArray[np.float64]:
    """Gaussian blur along the first axis, edges repeated, up to 4 sigma; sums in the order of scipy.ndimage."""
    reach, count = int(4 * sigma_px + 0.5), len(values)
    weights = np.exp(-0.5 / sigma_px**2 * np.arange(-reach, reach + 1) ** 2)
    weights /= weights.sum()
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    blurred: NDArray[np.float64] = values * weights[reach]
    for at in range(reach):
        blurred += (padded[at : at + count] + padded[2 * reach - at : 2 * reach - at + count]) * weights[at]
    return blurred


@lru_cache(maxsize=4)
def _spread(grid: int, blur_px: float = BLUR_SIGMA_PX) -> NDArray[np.float64]:
    """Bilinear upsampling and blur along one axis, MAP_PX x grid."""
    upsampled = _linear_rows((np.arange(MAP_PX) + 0.5) * grid / MAP_PX - 0.5, grid)
    return _blurred(upsampled, blur_px)
