"""From a frame on the device to the networks' inputs and the silhouette's figures: buffers, launches, their order.

The CPU counterpart is ``vision.preprocess`` with the methods ``plane`` and ``none``; ``published`` stays on the CPU.
Kernels: ``preprocess.cu``, ``window.cu``. What refuses a frame (too few points, camera moved) is decided by the host
from ``figures``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.launch import Argument, Buffer, Device, Launch
from asperity.runtime.cuda.tables import resize_table
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import MM_PER_UNIT, FloatArray, Frame, Silhouette, Window
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.preprocess import FEWEST_BORDER_POINTS, refuse_few, refuse_moved
from asperity.runtime.vision.regions import HEIGHT_PERCENTILE, _smallest_rectangle, plane_axes
from asperity.runtime.vision.surface_grid import LEVEL_CELLS
from asperity.runtime.vision.units import FARTHEST_MM, pixel_rays

BLOCK = 256
FIGURES = 16
PART, FILLED, BORDER_SEEN, BORDER_OFF, VALID = 0, 1, 6, 7, 8
"""Which of the figures is what, as in ``frame.cuh``."""
DIGIT_BYTES = 3 * 4 * 2048 * 4
DIGIT_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class FrameFigures:
    """What the kernels counted in one frame."""

    part: int
    filled: int
    valid: int
    border_seen: int
    border_off: int
    window: Window
    silhouette: Silhouette

    @property
    def off_plane_share(self) -> float | None:
        """As ``runtime.vision.preprocess.off_plane_share``."""
        return _off_plane_share(self.border_seen, self.border_off)


def _off_plane_share(seen: int, off: int) -> float | None:
    return off / seen if seen >= FEWEST_BORDER_POINTS else None


def refuse(counts: NDArray[np.int32], geometry: Geometry) -> None:
    """Raises FrameRefused as ``runtime.vision.preprocess.find_part``, from the counts in ``figures``."""
    if geometry.method == "plane":
        refuse_moved(_off_plane_share(int(counts[BORDER_SEEN]), int(counts[BORDER_OFF])), geometry)
    refuse_few(int(counts[PART]), geometry)


class Preprocess:
    """Buffers: ``points`` H x W x 3 f4 mm, ``valid``, ``part``, ``filled`` H x W u1; ``image`` I x I x 3 u1,
    ``network_image`` 3 x I x I f4; ``cloud`` P x P x 3 f4; ``inspect`` grid^2 u1; ``figures``, ``window``, ``heights``.
    """

    def __init__(self, device: Device, geometry: Geometry, network: Network, covered: NDArray[np.bool_] | None) -> None:
        """``covered``: H x W, pixels that the recipe's masks hide. Raises EngineError where the method is the CPU's."""
        if geometry.method not in ("plane", "none") or (geometry.method == "plane") != (geometry.plane is not None):
            raise EngineError(
                f"geometry.method {geometry.method!r} with plane {geometry.plane} has no kernels; set [engine] name to "
                "cpu, or calibrate again with a plane (--geometry plane)"
            )
        if network.cloud_resize not in ("nearest", "mean"):
            raise EngineError(f"network.cloud_resize {network.cloud_resize!r} is not known; calibrate again")
        self.device, self.geometry, self.network = device, geometry, network
        self.height, self.width = geometry.height_px, geometry.width_px
        pixels = self.pixels = self.height * self.width
        self.radius = geometry.cluster_gap_px // 2
        padded = (self.height + 2 * self.radius) * (self.width + 2 * self.radius)
        size, cloud_px, side = network.image_px, network.cloud_px, geometry.side_px
        self.points = device.alloc(12 * pixels)
        self.valid, self.foreground, self.part, self.filled = (device.alloc(pixels) for _ in range(4))
        self._masks = [device.alloc(padded) for _ in range(2)]
        self._inside = device.alloc(pixels)
        self._parent, self._sizes, self._best = device.alloc(4 * pixels), device.alloc(4 * pixels), device.alloc(8)
        self.figures, self.window = device.alloc(4 * FIGURES), device.alloc(8)
        self._digits, self._ranks, self.heights = device.alloc(DIGIT_BYTES), device.alloc(32), device.alloc(16)
        self.ends = device.alloc(12 * 2 * (self.height + self.width))
        self._rows, self.image = device.alloc(3 * side * size), device.alloc(3 * size * size)
        self.network_image, self.cloud = device.alloc(12 * size * size), device.alloc(12 * cloud_px**2)
        self.inspect = device.alloc(network.grid**2)
        first, weights = resize_table(side, size)
        self.span = weights.shape[1]
        self._first, self._weights = device.upload(first), device.upload(weights)
        mean, std = np.asarray(network.rgb_mean, np.float32), np.asarray(network.rgb_std, np.float32)
        self.normalisation = device.upload((1 / (255 * std)).astype(np.float32)), device.upload(mean / std)
        self._covered: Argument = np.uint64(0) if covered is None else device.upload(covered.astype(np.uint8))
        normal = self.towards_camera = geometry.plane.normal if geometry.plane else (0.0, 0.0, -1.0)
        offset = geometry.plane.offset_mm if geometry.plane else 0.0
        self._normal = tuple(np.float32(axis) for axis in normal)
        self._plane = (*self._normal, np.float32(offset))

    def enqueue_xyz(self, frame: Frame, rgb: Buffer, xyz: Buffer, fault: Buffer) -> None:
        """``rgb`` H x W x 3 u1 and ``xyz`` H x W x 3 f4 as the frame stores them; the frame gives scale and unit."""
        self.enqueue_points(frame, xyz, None, fault)
        self.enqueue_part(rgb, fault)
        self.enqueue_silhouette(fault)

    def enqueue_depth(self, frame: Frame, rgb: Buffer, depth: Buffer, rays: Buffer, fault: Buffer) -> None:
        """``depth`` H x W u2 or f4 as the frame stores it, ``rays`` as ``upload_rays`` makes them."""
        self.enqueue_points(frame, depth, rays, fault)
        self.enqueue_part(rgb, fault)
        self.enqueue_silhouette(fault)

    def enqueue_points(self, frame: Frame, stored: Buffer, rays: Buffer | None, fault: Buffer) -> None:
        """The stored 3D data as points: all that depends on what the frame says of itself (scale, unit, invalid).

        ``rays`` where ``stored`` is depth.
        """
        to_mm = MM_PER_UNIT[frame.unit or self.geometry.unit]
        scale, offset = frame.scale * to_mm, frame.offset * to_mm
        size = (np.int32(self.height), np.int32(self.width))
        self.enqueue_begin()
        if rays is None:
            farthest = np.float32(FARTHEST_MM / scale)
            told = self._stored(frame, scale, offset)
            self._launch("points_from_xyz", self.pixels, stored, *size, farthest, *told, fault)
            return
        assert frame.depth is not None
        kernel = "points_from_depth_u16" if frame.depth.dtype == np.uint16 else "points_from_depth_f32"
        self._launch(kernel, self.pixels, stored, rays, *size, *self._stored(frame, scale, offset), fault)

    def enqueue_part(self, rgb: Buffer, fault: Buffer) -> None:
        """The part, its outline and window, and the networks' inputs, of whatever points are there."""
        self._largest()
        self._outline()
        self._window(rgb, fault)

    def enqueue_silhouette(self, fault: Buffer) -> None:
        """Figures of the part's outline."""
        size = (np.int32(self.height), np.int32(self.width))
        self._launch("part_ends", 32 * (self.height + self.width), self.part, self.points, *size, self.ends)
        blocks = min(DIGIT_BLOCKS, -(self.pixels // -BLOCK))
        high = HEIGHT_PERCENTILE / 100.0
        for step in range(3):
            self.device.launch(
                Launch("height_digits", (blocks, 1, 1), (BLOCK, 1, 1)),
                self.part, self.points, np.int32(self.pixels), *self._normal, np.int32(step), np.float64(1.0 - high),
                np.float64(high), self._digits, self._ranks, self.figures, self.heights, fault,
            )  # fmt: skip

    def upload_rays(self, frame: Frame) -> Buffer:
        """The camera's rays (H x W x 3 f4), once a camera. Raises FrameRefused as ``pixel_rays``."""
        assert frame.intrinsics is not None
        return self.device.upload(pixel_rays(frame.intrinsics, self.height, self.width))

    def download_figures(self) -> FrameFigures:
        """The frame's figures, when everything enqueued is done."""
        get = self.device.download
        return self.read_figures(
            get(self.figures, (FIGURES,), np.int32),
            get(self.window, (2,), np.int32),
            get(self.heights, (2,), np.float64),
            get(self.ends, (2 * (self.height + self.width), 3), np.float32),
        )

    def read_figures(
        self,
        counts: NDArray[np.int32],
        window: NDArray[np.int32],
        heights: NDArray[np.float64],
        ends: FloatArray,
    ) -> FrameFigures:
        """The frame's figures out of what the buffers of these names held.

        The smallest rectangle is taken here, of the few thousand points that can span it.
        """
        flat = ends[~np.isnan(ends[:, 0])].astype(np.float64) @ plane_axes(np.array(self.towards_camera)).T
        length, width = _smallest_rectangle(flat) if len(flat) else (np.nan, np.nan)
        low, high = heights.tolist()
        base = -self.geometry.plane.offset_mm if self.geometry.plane else low
        part, filled = int(counts[PART]), int(counts[FILLED])
        return FrameFigures(
            part=part, filled=filled, valid=int(counts[VALID]), border_seen=int(counts[BORDER_SEEN]),
            border_off=int(counts[BORDER_OFF]),
            window=Window(int(window[0]), int(window[1]), self.geometry.side_px),
            silhouette=Silhouette(
                area_mm2=filled * self.geometry.mm_per_px**2,
                length_mm=length,
                width_mm=width,
                height_mm=high - base,
                missing_share=1.0 - part / filled if filled else np.nan,
                level_mm=np.nan if self.geometry.plane else -0.5 * (low + high),
            ),
        )  # fmt: skip

    def _stored(self, frame: Frame, scale: float, offset: float) -> tuple[Argument, ...]:
        invalid = np.float32(0.0 if frame.invalid is None else frame.invalid)
        return (
            np.float32(scale), np.float32(offset), invalid, np.int32(frame.invalid is not None), *self._plane,
            np.int32(self.geometry.method == "plane"), np.float32(self.geometry.plane_cut_mm),
            np.float32(self.geometry.moved_mm), self.points, self.valid, self.foreground, self.figures,
        )  # fmt: skip

    def enqueue_begin(self) -> None:
        """Clear what a frame counts up. Part of ``enqueue_points``."""
        self.device.launch(
            Launch("begin_frame", (16, 1, 1), (BLOCK, 1, 1)),
            np.int32(self.height), np.int32(self.width), self.figures, self._best, self._digits,
        )  # fmt: skip

    def _largest(self) -> None:
        nowhere: Argument = np.uint64(0)
        labels = nowhere
        if self.geometry.method == "plane":
            near, frame = self._masks[0], (self.height, self.width)
            if self.radius:
                self._filter(self.foreground, frame, self._masks[1], frame, (0, 0), vertical=False, every=False)
                self._filter(self._masks[1], frame, near, frame, (0, 0), vertical=True, every=False)
            self._label(
                near if self.radius else self.foreground, inverted=False, diagonal=True, counted=self.foreground
            )
            blocks = min(DIGIT_BLOCKS, -(self.pixels // -BLOCK))
            grid, block = (blocks, 1, 1), (BLOCK, 1, 1)
            self.device.launch(Launch("largest_label", grid, block), self._sizes, np.int32(self.pixels), self._best)
            labels = self._parent
        self._launch(
            "keep_part", self.pixels, self.foreground, labels, self._best, np.int32(self.height), np.int32(self.width),
            self.part, self.figures,
        )  # fmt: skip

    def _outline(self) -> None:
        r, inside = self.radius, self.part
        if r:
            frame, wide = (self.height, self.width), (self.height, self.width + 2 * r)
            padded = (self.height + 2 * r, self.width + 2 * r)
            first, second = self._masks
            self._filter(self.part, frame, first, wide, (0, -r), vertical=False, every=False)
            self._filter(first, wide, second, padded, (-r, 0), vertical=True, every=False)
            self._filter(second, padded, first, (padded[0], self.width), (0, r), vertical=False, every=True)
            self._filter(first, (padded[0], self.width), self._inside, frame, (r, 0), vertical=True, every=True)
            inside = self._inside
        self._label(inside, inverted=True, diagonal=False, counted=None)
        size = (np.int32(self.height), np.int32(self.width))
        self._launch("mark_open", 2 * (self.height + self.width), self._parent, *size, self._sizes)
        self._launch(
            "fill_outline", self.pixels, self.part, self.valid, inside, self._parent, self._sizes,
            np.int32(self.pixels), self.filled, self.figures,
        )  # fmt: skip

    def _window(self, rgb: Buffer, fault: Buffer) -> None:
        side, size, cloud_px = self.geometry.side_px, self.network.image_px, self.network.cloud_px
        frame = (np.int32(self.height), np.int32(self.width), self.figures, np.int32(side))
        table = (np.int32(size), self._first, self._weights, np.int32(self.span))
        self._launch("resize_rows", side * size, rgb, self.filled, *frame, *table, self._rows, self.window, fault)
        self._launch(
            "resize_columns", size * size, self._rows, np.int32(side), *table, *self.normalisation, self.image,
            self.network_image,
        )  # fmt: skip
        if self.network.cloud_resize == "nearest":
            self._launch("cloud_nearest", cloud_px**2, self.points, self.part, *frame, np.int32(cloud_px), self.cloud)
        else:
            level_mm = LEVEL_CELLS * self.geometry.mm_per_px * side / cloud_px
            self._launch(
                "cloud_means", cloud_px**2, self.points, self.part, *frame, np.int32(cloud_px), np.int32(side),
                np.float64(level_mm), self.cloud, threads=128,
            )  # fmt: skip
        grid = self.network.grid
        self._launch("inspect_patches", 32 * grid * grid, self._covered, *frame, np.int32(grid), self.inspect)

    def _filter(
        self,
        source: Buffer,
        source_shape: tuple[int, int],
        out: Buffer,
        shape: tuple[int, int],
        shift: tuple[int, int],
        *,
        vertical: bool,
        every: bool,
    ) -> None:
        numbers = (*shape, *shift, self.radius, int(vertical), int(every))
        self._launch(
            "window_filter", shape[0] * shape[1], source, *(np.int32(n) for n in source_shape), out,
            *(np.int32(n) for n in numbers),
        )  # fmt: skip

    def _label(self, mask: Buffer, *, inverted: bool, diagonal: bool, counted: Buffer | None) -> None:
        pixels, width = np.int32(self.pixels), np.int32(self.width)
        self._launch("label_start", self.pixels, mask, np.int32(inverted), pixels, width, self._parent, self._sizes)
        self._launch("label_join", self.pixels, pixels, width, np.int32(diagonal), self._parent)
        nothing: Argument = np.uint64(0)
        self._launch("label_settle", self.pixels, counted or nothing, pixels, self._parent, self._sizes)

    def _launch(self, kernel: str, count: int, *arguments: Argument, threads: int = BLOCK) -> None:
        self.device.launch(Launch(kernel, (-(count // -threads), 1, 1), (threads, 1, 1)), *arguments)
