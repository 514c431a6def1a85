"""A whole frame's preprocessing against ``runtime.vision.preprocess``."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.checks.clouds import EMPTY, clear_fault, fault_problems
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.frame import FloatArray, Frame, Intrinsics, Prepared
from asperity.runtime.manifest import Geometry, Network, Plane, silhouette_figures
from asperity.runtime.vision.features import normalised_image
from asperity.runtime.vision.preprocess import Masks, find_part, off_plane_share, plane_heights, prepare
from asperity.runtime.vision.units import points_mm

KINDS = ("random", "pieces", "holes", "off_frame", "nan", "no_plane", "depth", "masked", "empty")

LENGTH_MM = 2e-3
"""Of heights and sides: float32 products of coordinates of some 500 mm."""


def frame_of(kind: str, height: int, width: int, rng: np.random.Generator) -> Frame:
    """A part on a slanted table 500 mm below the camera. Lengths in mm, intrinsics for the depth kind."""
    rows, columns = np.mgrid[0:height, 0:width]
    y, x = (rows - height / 2) * 0.5, (columns - width / 2) * 0.5
    z = 500.0 + 0.01 * x + rng.normal(scale=0.05, size=x.shape)
    centre = (0.0, 0.0) if kind != "off_frame" else (-0.27 * height, -0.3 * width)
    away = np.hypot(y - centre[0], x - centre[1])
    part = away < 0.16 * min(height, width)
    if kind == "pieces":
        small = np.hypot(y + 0.16 * height, x + 0.16 * width) < 0.05 * min(height, width)
        # Two pieces a gap apart that belong together, and dust.
        part = (part & (np.abs(x - 3) > 1.2)) | small | (rng.random(x.shape) < 0.004)
    z = np.where(part, z - 12.0 - 0.05 * x, z)
    z[part & (y > 2.0)] -= 9.0  # a step, so that cells see two depths
    xyz = np.stack([x, y, z], axis=2).astype(np.float32)
    missing = rng.random(x.shape) < 0.02
    if kind == "holes":
        missing |= np.hypot(y, x) < 0.05 * min(height, width)
        xyz[np.hypot(y - 4, x - 4) < 2] = (1.0, 2.0, 505.0)  # seen through: background inside the part
    if kind == "empty":
        missing[:] = True
    xyz[missing] = 0.0
    if kind == "nan":
        xyz[rng.random(x.shape) < 0.03] = (1.0, np.nan, 480.0)
        xyz[rng.random(x.shape) < 0.01] = (np.inf, 1.0, 480.0)
        xyz[rng.random(x.shape) < 0.01] = (1.0, 1.0, 9e8)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "depth":
        depth = np.where(missing, 0, np.round(z * 8)).astype(np.uint16)
        depth[rng.random(x.shape) < 0.01] = 65535
        lens = Intrinsics(
            1000.0, 1001.0, width / 2 - 0.3, height / 2 + 0.2, "brown_conrady", (0.01, -0.002, 1e-4, 2e-4)
        )
        return Frame("c", "s", 1, rgb, depth=depth, intrinsics=lens, unit="mm", scale=0.125, invalid=65535.0)
    if kind == "random":
        return Frame("c", "s", 1, rgb, xyz=(xyz / np.float32(1000)).astype(np.float32), unit="m")
    return Frame("c", "s", 1, rgb, xyz=xyz, unit="mm")


def geometry_of(kind: str, height: int, width: int, side: int) -> Geometry:
    """The recipe that belongs to ``frame_of``."""
    normal = np.array([0.01, 0.0, -1.0]) / math.hypot(0.01, 1.0)
    plane = Plane((float(normal[0]), 0.0, float(normal[2])), float(500.0 / math.hypot(0.01, 1.0)))
    method: Literal["plane", "none"] = "none" if kind == "no_plane" else "plane"
    return Geometry(
        method=method, why="", unit="mm", height_px=height, width_px=width,
        plane=plane if method == "plane" else None, plane_cut_mm=3.0, point_spacing_mm=0.5, plane_noise_mm=0.05,
        cluster_gap_px=0 if kind == "masked" else 6, side_px=side, mm_per_px=0.5, min_points=1, moved_share=0.9,
        moved_mm=0.08,
    )  # fmt: skip


def network_of(shape: Shape) -> Network:
    """Sizes from the shape; constants of the profiles."""
    return Network(
        profile="check", image_px=shape["image"], grid=shape["grid"], rgb_grid=shape["grid"], rgb_channels=8,
        rgb_mean=(0.485, 0.456, 0.406), rgb_std=(0.229, 0.224, 0.225), cloud_px=shape["cloud"],
        cloud_resize="nearest" if shape["nearest"] else "mean", groups=8, group_size=4, points_channels=8,
        group_scale_mm=1.0, position_scale_mm=1.0, centre_positions=False, pooling="published", adaptor="none",
    )  # fmt: skip


class CheckedPreprocess:
    """One frame through all of preprocessing."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        height, width = shape["height"], shape["width"]
        self.device, self.kind = device, kind
        self.frame = frame_of(kind, height, width, rng)
        self.geometry, self.network = geometry_of(kind, height, width, shape["side"]), network_of(shape)
        self.masks = Masks(ignore=rng.random((height, width)) < 0.5) if kind == "masked" else Masks()
        self.stage = Preprocess(device, self.geometry, self.network, self.masks.ignore)
        self.rgb, self.fault = device.upload(self.frame.rgb), clear_fault(device)
        stored = self.frame.xyz if self.frame.xyz is not None else self.frame.depth
        assert stored is not None
        self.stored = device.upload(stored)
        self.rays = self.stage.upload_rays(self.frame) if self.frame.intrinsics is not None else None
        pixels, outputs = height * width, 15 * shape["image"] ** 2 + 12 * shape["cloud"] ** 2
        self.work = Cost(flop=20 * pixels, bytes=self.frame.rgb.nbytes + stored.nbytes + 20 * pixels + outputs)

    def enqueue(self) -> None:
        """Launches only."""
        if self.rays is None:
            self.stage.enqueue_xyz(self.frame, self.rgb, self.stored, self.fault)
        else:
            self.stage.enqueue_depth(self.frame, self.rgb, self.stored, self.rays, self.fault)

    def problems(self) -> list[str]:
        """Against the CPU's own functions, bit for bit where those are not a BLAS product."""
        told = fault_problems(self.device, self.fault, EMPTY if self.kind == "empty" else 0)
        points, valid = points_mm(self.frame, "mm")
        if not np.array_equal(self._pixels(self.stage.valid), valid):
            told.append("other pixels are valid")
        if not np.array_equal(self._get(self.stage.points, (*valid.shape, 3), np.float32)[valid], points[valid]):
            told.append("points differ")
        figures = self.stage.download_figures()
        if self.kind == "empty":
            return told + ([f"{figures.part} pixels of a part that is not there"] if figures.part else [])
        found = find_part(self.frame, self.geometry)
        edge = self._uncertain(points, valid)
        if (self._pixels(self.stage.part) != found.part)[~edge].any():
            return [*told, f"{int((self._pixels(self.stage.part) != found.part).sum())} pixels of the part differ"]
        if edge.any():
            return told  # a point on the cut itself may fall to either side, and everything after it with it
        if not np.array_equal(self._pixels(self.stage.filled), found.filled):
            told.append("the outline differs")
        prepared = prepare(self.frame, self.geometry, self.network, self.masks)
        told += self._output_problems(prepared)
        if figures.window != prepared.window:
            told.append(f"the window is {figures.window} and must be {prepared.window}")
        if figures.part != found.part.sum() or figures.valid != valid.sum():
            told.append(f"{figures.part} of {figures.valid} pixels are counted")
        for name in silhouette_figures(self.geometry):
            seen, wanted = getattr(figures.silhouette, name), getattr(prepared.silhouette, name)
            if not abs(seen - wanted) <= LENGTH_MM:
                told.append(f"{name} is {seen} and must be {wanted}")
        if self.geometry.plane is not None:
            share = off_plane_share(plane_heights(points, self.geometry.plane), valid, self.geometry.moved_mm)
            seen_share = figures.off_plane_share
            # The same count up to points that lie at the limit itself.
            if (share is None) != (seen_share is None) or abs((share or 0.0) - (seen_share or 0.0)) > 2e-3:
                told.append(f"{seen_share} of the border is off the plane where it is {share}")
        return told

    def _uncertain(self, points: FloatArray, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if self.geometry.plane is None:
            return np.zeros_like(valid)
        heights = plane_heights(points, self.geometry.plane)
        return np.asarray(valid & (np.abs(heights - self.geometry.plane_cut_mm) < 1e-4))

    def _output_problems(self, prepared: Prepared) -> list[str]:
        told, size, cloud_px = [], self.network.image_px, self.network.cloud_px
        if not np.array_equal(self._get(self.stage.image, (size, size, 3), np.uint8), prepared.image):
            told.append("the image differs")
        wanted = normalised_image(prepared, self.network)[0]
        if not np.array_equal(self._get(self.stage.network_image, (3, size, size), np.float32), wanted):
            told.append("the normalised image differs")
        if not np.array_equal(self._get(self.stage.cloud, (cloud_px, cloud_px, 3), np.float32), prepared.cloud):
            told.append("the cloud differs")
        grid = self.network.grid
        if not np.array_equal(self._get(self.stage.inspect, (grid, grid), np.uint8).astype(bool), prepared.inspect):
            told.append("other patches are inspected")
        return told

    def _pixels(self, buffer: object) -> NDArray[np.bool_]:
        return self._get(buffer, (self.geometry.height_px, self.geometry.width_px), np.uint8).astype(bool)

    def _get(self, buffer: object, shape: tuple[int, ...], dtype: type) -> NDArray[np.generic]:
        return self.device.download(buffer, shape, dtype)  # type: ignore[arg-type]

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


_LITE: Shape = {"height": 480, "width": 640, "side": 400, "image": 224, "grid": 28, "cloud": 112, "nearest": 0}
_PAPER: Shape = {"height": 800, "width": 800, "side": 700, "image": 224, "grid": 56, "cloud": 224, "nearest": 1}
_ODD: Shape = {"height": 333, "width": 517, "side": 301, "image": 196, "grid": 21, "cloud": 101, "nearest": 0}

ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="preprocess",
        source="preprocess",
        prepare=CheckedPreprocess,
        shapes=(_LITE, _PAPER, _ODD),
        small=(
            {"height": 60, "width": 83, "side": 47, "image": 28, "grid": 7, "cloud": 14, "nearest": 0},
            {"height": 64, "width": 64, "side": 40, "image": 48, "grid": 5, "cloud": 21, "nearest": 1},
        ),
        kinds=KINDS,
        timed=(_LITE, _PAPER),
    ),
)
