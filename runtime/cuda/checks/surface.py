"""A frame's surface as a picture against ``runtime.vision.surface_grid`` and ``surface_picture``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asperity.runtime.cuda.checks.clouds import EMPTY, clear_fault, fault_problems
from asperity.runtime.cuda.checks.preprocess import frame_of, geometry_of, network_of
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Buffer, Device
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.cuda.surface import SurfaceImage
from asperity.runtime.manifest import SurfacePicture
from asperity.runtime.vision.features import normalised
from asperity.runtime.vision.preprocess import find_part, prepare, surface_grid
from asperity.runtime.vision.surface_grid import surface_of
from asperity.runtime.vision.surface_picture import around_width, picture

POINT_MM = 6.2e-5
"""Of a mean: float32 sums of coordinates of some 500 mm, relative to their centre, then two float32 steps there."""
NORMAL = 1e-3
"""Of a unit normal's component: a point's rounding over a tangent of a millimetre."""
LEVELS = 1
"""Of 255: where either side rounds another way."""

KINDS = ("random", "pieces", "holes", "off_frame", "nan", "depth", "empty")


class CheckedSurface:
    """One frame through preprocessing and the surface's kernels; ``shape["relief"]`` 0: its normals."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        height, width = shape["height"], shape["width"]
        self.device, self.kind, self.frame = device, kind, frame_of(kind, height, width, rng)
        self.geometry = geometry_of(kind, height, width, shape["side"])
        scale = (0.4, 0.4, 0.3) if shape["relief"] else (0.8, 0.8, 0.5)
        self.chosen = SurfacePicture(
            "relief" if shape["relief"] else "normals", shape["box"], (0.05, -0.02, 0.1), scale
        )
        modalities: tuple[Literal["rgb", "points", "geometry"], ...] = ("rgb", "points", "geometry")
        self.network = msgspec.structs.replace(network_of(shape), picture=self.chosen, modalities=modalities)
        self.pre = Preprocess(device, self.geometry, self.network, None)
        self.stage, self.fault = SurfaceImage(self.pre), clear_fault(device)
        stored = self.frame.xyz if self.frame.xyz is not None else self.frame.depth
        assert stored is not None
        self.rgb, self.stored = device.upload(self.frame.rgb), device.upload(stored)
        self.rays = self.pre.upload_rays(self.frame) if self.frame.intrinsics is not None else None
        self._made = False
        cells, around = self.stage.size**2, around_width(self.stage.size)
        self.work = Cost(flop=cells * (20 * around * shape["relief"] + 12 * shape["box"] + 60), bytes=120 * cells)

    def enqueue(self) -> None:
        """Launches only; what comes before the picture is done once."""
        if not self._made:
            if self.rays is None:
                self.pre.enqueue_xyz(self.frame, self.rgb, self.stored, self.fault)
            else:
                self.pre.enqueue_depth(self.frame, self.rgb, self.stored, self.rays, self.fault)
            self._made = True
        self.stage.enqueue(self.fault)

    def problems(self) -> list[str]:
        """Points and normals to float32's rounding, levels to one, and what follows them bit for bit."""
        told = fault_problems(self.device, self.fault, EMPTY if self.kind == "empty" else 0)
        size, image_px = self.stage.size, self.network.image_px
        levels = self._get(self.stage.levels, (size, size, 3), np.uint8)
        image = self._get(self.stage.image, (image_px, image_px, 3), np.uint8)
        resized = Image.fromarray(levels).resize((image_px, image_px), Image.Resampling.BICUBIC)
        if not np.array_equal(image, np.asarray(resized)):
            told.append("the picture is not its levels'")
        network_image = self._get(self.stage.network_image, (1, 3, image_px, image_px), np.float32)
        if not np.array_equal(network_image, normalised(image, self.network)):
            told.append("the normalised picture differs")
        if self.kind == "empty":
            return told + (["a picture of nothing"] if levels.any() else [])
        grid = surface_grid(
            find_part(self.frame, self.geometry), prepare(self.frame, self.geometry, self.network).window, self.geometry
        )
        surface = surface_of(grid, self.chosen.width)
        means = self._get(self.stage.means, (size, size, 4), np.float32)
        normals = self._get(self.stage.normals, (size, size, 4), np.float32)
        present, sloped = means[:, :, 3] > 0, normals[:, :, 3] > 0
        wanted_sloped = surface.placed(surface.sloped)
        if not (np.array_equal(present, surface.placed(surface.present)) and np.array_equal(sloped, wanted_sloped)):
            return [*told, f"{int((sloped != wanted_sloped).sum())} cells have a normal on one side only"]
        off_mm = np.abs(means[:, :, :3] - surface.placed(surface.points.transpose(1, 2, 0))).max()
        if off_mm > POINT_MM:
            told.append(f"a point is off by {off_mm} mm")
        unsigned = np.abs(surface.placed(surface.normals.transpose(1, 2, 0)))
        if np.abs(np.abs(normals[:, :, :3]) - unsigned).max() > NORMAL:
            told.append("a normal differs")
        wanted = picture(grid, surface, self.chosen, size)  # of its own size: the levels themselves
        off = np.abs(levels.astype(int) - wanted.astype(int))
        if off.max() > LEVELS or np.mean(off > 0) > 0.02:
            told.append(f"levels differ by up to {off.max()}, {np.mean(off > 0):.1%} of them")
        if len(np.unique(wanted)) < 5:
            told.append("there is nothing to see in the picture")
        return told

    def _get(self, buffer: Buffer, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        return self.device.download(buffer, shape, dtype)

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


_SIZES = {"grid": 7, "cloud": 14, "nearest": 0}
_LITE: Shape = {
    "height": 480, "width": 640, "side": 400, "image": 224, "grid": 28, "cloud": 112, "nearest": 0, "box": 5,
    "relief": 1,
}  # fmt: skip
_LARGE: Shape = {**_LITE, "height": 900, "width": 1000, "side": 801}
_NORMALS: Shape = {**_LITE, "relief": 0, "box": 9}

ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="surface",
        source="surface",
        prepare=CheckedSurface,
        shapes=(_LITE, _LARGE, _NORMALS),
        small=(
            {"height": 60, "width": 83, "side": 47, "image": 28, **_SIZES, "box": 3, "relief": 1},
            {"height": 64, "width": 64, "side": 40, "image": 48, **_SIZES, "box": 5, "relief": 0},
        ),
        kinds=KINDS,
        timed=(_LITE, _LARGE),
    ),
)
