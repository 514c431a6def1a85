"""Frame -> Prepared: background removed, largest part kept, one square window, network input sizes (lsfa 1.2, 1.3).

Pure. ``plane`` is the fast path: the station's plane, measured once, instead of RANSAC and DBSCAN in every frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asperity.runtime.errors import EngineError, FrameRefused
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, Prepared, Window
from asperity.runtime.manifest import Geometry, Network, Plane
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.border_plane import is_height_map
from asperity.runtime.vision.grid_descriptor import describe
from asperity.runtime.vision.height_residual import HeightModel, describe_heights, heights_of
from asperity.runtime.vision.missing_points import as_declared
from asperity.runtime.vision.ransac_dbscan import border_strips, published_foreground
from asperity.runtime.vision.regions import box, largest_part, measure_silhouette, outline
from asperity.runtime.vision.surface_grid import LEVEL_CELLS, SurfaceGrid, blocks, surface_of
from asperity.runtime.vision.surface_picture import picture
from asperity.runtime.vision.tiles import of_window
from asperity.runtime.vision.units import points_mm

FEWEST_BORDER_POINTS = 100
"""With fewer valid border points nothing can be said about the camera having moved."""


@dataclass(frozen=True, slots=True)
class Masks:
    """What part of the frame is judged: H x W, True where a recipe says inspect, or ignore. None: no such mask."""

    inspect: BoolArray | None = None
    ignore: BoolArray | None = None


@dataclass(frozen=True, slots=True)
class Foreground:
    """The part on the source frame's grid."""

    points: FloatArray  # H x W x 3, mm; meaningless where not part
    valid: BoolArray  # H x W, the camera measured a point
    part: BoolArray  # H x W, valid points of the part
    filled: BoolArray  # H x W, the part with its missing points


def prepare(
    frame: Frame, geometry: Geometry, network: Network, masks: Masks | None = None, heights: HeightModel | None = None
) -> Prepared:
    """The frame ready for the networks. Raises FrameRefused: REFUSED_DATA, CAMERA_MOVED or TOO_FEW_POINTS.

    ``heights``: the mean part, where heights are a modality; EngineError where it is not given.
    A part larger than the window is cut by it, but its silhouette is measured whole, and so is out of range.
    """
    refuse_size(frame, geometry)
    found = find_part(as_declared(frame, geometry), geometry)
    return prepare_part(frame.rgb, found, part_window(found.part, geometry), geometry, network, masks, heights)


def prepare_part(
    rgb: ByteArray, found: Foreground, window: Window, geometry: Geometry, network: Network,
    masks: Masks | None = None, heights: HeightModel | None = None,
) -> Prepared:  # fmt: skip
    """What is left of ``prepare`` once the part is found and its window chosen."""
    network = of_window(network)
    image = _crop(rgb, window)
    image = image * _crop(found.filled, window)[:, :, None]
    resized = Image.fromarray(image).resize((network.image_px, network.image_px), Image.Resampling.BICUBIC)
    shape = _surface_inputs(found, window, geometry, network, heights)
    return Prepared(
        image=np.asarray(resized),
        cloud=_cloud(found, window, geometry, network),
        inspect=_inspected(masks or Masks(), window, geometry, network.grid),
        window=window,
        silhouette=measure_silhouette(found.points, found.part, found.filled, geometry.plane, geometry.mm_per_px),
        geometry=shape.picture,
        height=shape.height,
        descriptor=shape.descriptor,
    )


def find_part(frame: Frame, geometry: Geometry) -> Foreground:
    """Background removal and clustering by the geometry's method. Raises FrameRefused as ``prepare``."""
    refuse_size(frame, geometry)
    points, valid = points_mm(frame, geometry.unit)
    if geometry.method == "plane":
        if geometry.plane is None:
            raise EngineError("geometry.method is plane but the bundle holds no plane; calibrate again")
        heights = plane_heights(points, geometry.plane)
        refuse_moved(off_plane_share(heights, valid, geometry.moved_mm), geometry)
        part = largest_part(valid & (heights > geometry.plane_cut_mm), geometry.cluster_gap_px)
    elif geometry.method == "published":
        part = published_foreground(points, valid)
    elif geometry.method == "none":
        part = valid
    else:
        raise EngineError(f"geometry.method {geometry.method!r} is not known; calibrate again with this version")
    refuse_few(int(part.sum()), geometry)
    return Foreground(points, valid, part, outline(part, valid, geometry.cluster_gap_px))


def refuse_size(frame: Frame, geometry: Geometry) -> None:
    """Raises FrameRefused REFUSED_DATA for a frame of another size than the recipe's."""
    if frame.shape_px != (geometry.height_px, geometry.width_px):
        raise FrameRefused(
            Reason.REFUSED_DATA,
            f"the frame is {frame.shape_px[1]} x {frame.shape_px[0]} pixels and the recipe was calibrated for "
            f"{geometry.width_px} x {geometry.height_px}; set the camera to that size or calibrate again",
        )


def refuse_moved(share: float | None, geometry: Geometry) -> None:
    """Raises FrameRefused CAMERA_MOVED; ``share`` as ``off_plane_share`` tells it."""
    if share is not None and share > geometry.moved_share:
        raise FrameRefused(
            Reason.CAMERA_MOVED,
            f"{share:.0%} of the border lies more than {geometry.moved_mm:.3g} mm off the background plane, "
            f"at most {geometry.moved_share:.0%} is normal; restore the camera position or calibrate again",
        )


def refuse_few(count: int, geometry: Geometry) -> None:
    """Raises FrameRefused TOO_FEW_POINTS for a part of ``count`` valid points."""
    if count < max(geometry.min_points, 1):
        raise FrameRefused(
            Reason.TOO_FEW_POINTS,
            f"{count} valid points on the part where at least {geometry.min_points} are needed; "
            "check the projector, the exposure and whether a part is present",
        )


def plane_heights(points: FloatArray, plane: Plane) -> FloatArray:
    """Signed distance (mm) of every point from the plane, positive towards the camera, same leading shape."""
    heights: FloatArray = points @ np.asarray(plane.normal, dtype=np.float32) + np.float32(plane.offset_mm)
    return heights


def off_plane_share(heights: FloatArray, valid: BoolArray, moved_mm: float) -> float | None:
    """Share of the valid border points farther than ``moved_mm`` from the plane; None with too few of them to tell."""
    seen = np.concatenate([heights[strip][valid[strip]] for strip in border_strips()])
    if seen.size < FEWEST_BORDER_POINTS:
        return None
    return float(np.mean(np.abs(seen) > moved_mm))


def part_window(part: BoolArray, geometry: Geometry) -> Window:
    """The square of fixed side centred on the part's box; ``published`` pads the whole frame instead (lsfa 1.2)."""
    side = geometry.side_px
    if geometry.method == "published":
        return Window(-((side - geometry.width_px) // 2), -((side - geometry.height_px) // 2), side)
    row0, row1, column0, column1 = box(part)
    return Window((column0 + column1 - side) // 2, (row0 + row1 - side) // 2, side)


@dataclass(frozen=True, slots=True)
class SurfaceInputs:
    """What modalities of the surface are judged by; None where they are none."""

    picture: ByteArray | None = None
    height: FloatArray | None = None
    descriptor: FloatArray | None = None


def _surface_inputs(
    found: Foreground, window: Window, geometry: Geometry, network: Network, model: HeightModel | None
) -> SurfaceInputs:
    chosen, residual, histograms = network.picture, network.height, network.descriptor
    widths = {one.width for one in (chosen, residual, histograms) if one is not None}
    if not widths:
        return SurfaceInputs()
    if residual is not None and model is None:
        raise EngineError("the bundle judges by heights and the mean part is not at hand; export the bundle again")
    grid = surface_grid(found, window, geometry)
    surfaces = {width: surface_of(grid, width) for width in widths}
    height = None
    if residual is not None and model is not None:
        height = describe_heights(*heights_of(surfaces[residual.width], grid.up), model, network.grid)
    return SurfaceInputs(
        None if chosen is None else picture(grid, surfaces[chosen.width], chosen, network.image_px),
        height,
        None if histograms is None else describe(surfaces[histograms.width], histograms.usual, network.grid),
    )


def surface_grid(found: Foreground, window: Window, geometry: Geometry) -> SurfaceGrid:
    """The window's part on its own pixels; in blocks of them where the window is larger than ``MOST_PX``."""
    valid, filled = _crop(found.part, window), _crop(found.filled, window)
    points = _crop(found.points, window)
    block, size = blocks(window.side_px)
    if block > 1:
        rows, columns = np.nonzero(valid)
        cells = (rows // block) * size + columns // block
        points = cell_means(points[valid], cells, size, LEVEL_CELLS * block * geometry.mm_per_px)
        valid = (points != 0).any(axis=2)
        filled = filled[::block, ::block] | valid
    if geometry.plane is not None:
        up = geometry.plane.normal
    else:
        up = (0.0, 0.0, 1.0 if is_height_map(found.points, found.part) else -1.0)
    return SurfaceGrid(points, valid, filled, block * geometry.mm_per_px, np.asarray(up, np.float32))


def _crop(array: NDArray[Any], window: Window) -> NDArray[Any]:
    """The window of an array H x W [x C], zeros where it reaches beyond the frame."""
    height, width = array.shape[:2]
    top, left = max(window.y_px, 0), max(window.x_px, 0)
    bottom, right = min(window.y_px + window.side_px, height), min(window.x_px + window.side_px, width)
    inside = array[top:bottom, left:right]
    if inside.shape[:2] == (window.side_px, window.side_px):
        return inside
    square = np.zeros((window.side_px, window.side_px, *array.shape[2:]), dtype=array.dtype)
    square[top - window.y_px : bottom - window.y_px, left - window.x_px : right - window.x_px] = inside
    return square


def _cloud(found: Foreground, window: Window, geometry: Geometry, network: Network) -> FloatArray:
    size = network.cloud_px
    if network.cloud_resize == "nearest":
        source = np.arange(size) * window.side_px // size
        return _nearest(found, source + window.y_px, source + window.x_px)
    if network.cloud_resize == "mean":
        pixels = np.flatnonzero(found.part)
        rows, columns = np.divmod(pixels, geometry.width_px)
        rows, columns = rows - window.y_px, columns - window.x_px
        inside = (rows >= 0) & (rows < window.side_px) & (columns >= 0) & (columns < window.side_px)
        cells = (rows * size // window.side_px) * size + columns * size // window.side_px
        members = np.take(found.points.reshape(-1, 3), pixels[inside], axis=0)
        level_mm = LEVEL_CELLS * geometry.mm_per_px * window.side_px / size
        return cell_means(members, cells[inside], size, level_mm)
    raise EngineError(f"network.cloud_resize {network.cloud_resize!r} is not known; calibrate again with this version")


def _nearest(found: Foreground, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> FloatArray:
    """The part's points at these rows and columns, (0, 0, 0) off the part or the frame."""
    height, width = found.part.shape
    within = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    picked = np.ix_(np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1))
    cloud: FloatArray = np.where((found.part[picked] & within)[:, :, None], found.points[picked], np.float32(0.0))
    return cloud


def cell_means(points: FloatArray, cells: NDArray[np.int64], size: int, level_mm: float) -> FloatArray:
    """Points (N, 3) mm, each in a cell (flat index, N) -> size x size x 3: each cell's mean, (0, 0, 0) where empty.

    A mean across a depth edge would be a point in mid-air. In a cell whose depths differ by more than ``level_mm``
    only the points within half of that of the cell's (upper) median depth are averaged.
    """
    members = points.astype(np.float64)
    kept = _one_level(cells, members[:, 2], size * size, level_mm)
    if kept is not None:
        cells, members = cells[kept], members[kept]
    counts = np.bincount(cells, minlength=size * size)
    sums = np.stack([np.bincount(cells, weights=members[:, axis], minlength=size * size) for axis in range(3)], axis=1)
    means = sums / np.maximum(counts, 1)[:, None]
    return means.reshape(size, size, 3).astype(np.float32)


def _one_level(cells: NDArray[np.int64], depths: NDArray[np.float64], count: int, level_mm: float) -> BoolArray | None:
    """Which points to average: in cells that span levels, those near the upper median depth. None: all of them."""
    members = np.bincount(cells, minlength=count)
    centred = depths - depths.mean()
    sums = np.bincount(cells, weights=centred, minlength=count)
    squares = np.bincount(cells, weights=centred * centred, minlength=count)
    # A range R of n values makes n times their variance at least R^2 / 2: a cheap bound that no mixed cell escapes.
    suspect = squares - sums * sums / np.maximum(members, 1) >= 0.49 * level_mm**2
    chosen = np.flatnonzero(suspect[cells])
    if chosen.size == 0:
        return None
    order = chosen[np.lexsort((depths[chosen], cells[chosen]))]
    _, start, group, size = np.unique(cells[order], return_index=True, return_inverse=True, return_counts=True)
    ascending = depths[order]
    mixed = (ascending[start + size - 1] - ascending[start] > level_mm)[group]
    medians = ascending[start + size // 2][group]
    kept = np.ones(len(cells), dtype=bool)
    kept[order] = ~mixed | (np.abs(ascending - medians) <= 0.5 * level_mm)
    return kept


def covered_pixels(masks: Masks, geometry: Geometry) -> BoolArray:
    """H x W, True where the recipe's masks hide the source frame. Raises EngineError for a mask of another size."""
    covered = np.zeros((geometry.height_px, geometry.width_px), dtype=bool)
    for name, mask, meaning in (("inspect", masks.inspect, False), ("ignore", masks.ignore, True)):
        if mask is None:
            continue
        if mask.shape != covered.shape:
            raise EngineError(f"the {name} mask is {mask.shape}, the frame {covered.shape}; draw it on a source frame")
        covered |= mask if meaning else ~mask
    return covered


def _inspected(masks: Masks, window: Window, geometry: Geometry, grid: int) -> BoolArray:
    """Patches (grid x grid) that the masks leave to be judged: all but those more than half covered.

    Raises EngineError when a mask has another size than the frame.
    """
    covered = covered_pixels(masks, geometry)
    if not covered.any():
        return np.ones((grid, grid), dtype=bool)
    cells = np.arange(window.side_px) * grid // window.side_px
    member = (cells == np.arange(grid)[:, None]).astype(np.float32)
    pixels = member.sum(axis=1)
    share = member @ _crop(covered, window).astype(np.float32) @ member.T / np.outer(pixels, pixels)
    return np.asarray(share <= 0.5)
