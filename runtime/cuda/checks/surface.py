"""A frame's surface as a picture against ``runtime.vision.surface_grid`` and ``surface_picture``."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asperity.runtime.cuda.checks.clouds import EMPTY, clear_fault, fault_problems
from asperity.runtime.cuda.checks.preprocess import frame_of, geometry_of, network_of
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Buffer, Device
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.cuda.surface import Surface, SurfaceImage, SurfacePoints
from asperity.runtime.frame import BoolArray, FloatArray, Frame, ModalityName
from asperity.runtime.manifest import Geometry, SurfacePicture
from asperity.runtime.vision import surface_grid as vision
from asperity.runtime.vision.features import normalised
from asperity.runtime.vision.height_residual import heights_of
from asperity.runtime.vision.preprocess import find_part, part_window, surface_grid
from asperity.runtime.vision.surface_grid import SurfaceGrid
from asperity.runtime.vision.surface_picture import around_width, picture

POINT_MM = 6.2e-5
"""Of a mean: float32 sums of coordinates of some 500 mm, relative to their centre, then two float32 steps there."""
NORMAL = 1e-3
"""Of a unit normal's component: a point's rounding over a tangent of a millimetre."""
LEVELS = 1
"""Of 255: where either side rounds another way."""

KINDS = ("random", "pieces", "holes", "off_frame", "nan", "depth", "empty")


class SeenSurface:
    """One frame through preprocessing and the kernels that average its surface."""

    def __init__(
        self, device: Device, shape: Shape, kind: str, rng: np.random.Generator, name: ModalityName, **constants: Any
    ) -> None:
        """``constants``: those of the modality ``name``, of its network."""
        height, width = shape["height"], shape["width"]
        self.device, self.kind, self.frame = device, kind, frame_of(kind, height, width, rng)
        self.geometry = geometry_of(kind, height, width, shape["side"])
        self.network = msgspec.structs.replace(network_of(shape), modalities=("rgb", name), **constants)
        self.pre, self.fault = Preprocess(device, self.geometry, self.network, None), clear_fault(device)
        self.points = SurfacePoints(self.pre)
        self.surface = Surface(self.points, shape["box"])
        stored = self.frame.xyz if self.frame.xyz is not None else self.frame.depth
        assert stored is not None
        self.rgb, self.stored = device.upload(self.frame.rgb), device.upload(stored)
        self.rays = self.pre.upload_rays(self.frame) if self.frame.intrinsics is not None else None
        self._made = False

    def enqueue(self) -> None:
        """Launches only; what comes before the surface is done once."""
        if not self._made:
            if self.rays is None:
                self.pre.enqueue_xyz(self.frame, self.rgb, self.stored, self.fault)
            else:
                self.pre.enqueue_depth(self.frame, self.rgb, self.stored, self.rays, self.fault)
            self._made = True
        self.points.enqueue()
        self.surface.enqueue(self.fault)

    def wanted(self) -> tuple[SurfaceGrid, vision.Surface]:
        """The CPU's surface of the frame."""
        return cpu_surface(self.frame, self.geometry, self.surface.width)

    def get(self, buffer: Buffer, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        """A buffer's content."""
        return self.device.download(buffer, shape, dtype)

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


def cpu_surface(frame: Frame, geometry: Geometry, width: int) -> tuple[SurfaceGrid, vision.Surface]:
    """The CPU's surface of a frame."""
    found = find_part(frame, geometry)
    grid = surface_grid(found, part_window(found.part, geometry), geometry)
    return grid, vision.surface_of(grid, width)


def cpu_heights(frame: Frame, geometry: Geometry, width: int) -> tuple[FloatArray, BoolArray]:
    """The CPU's heights of a frame, S x S mm, and where there are any."""
    grid, surface = cpu_surface(frame, geometry, width)
    return heights_of(surface, grid.up)


class CheckedSurface(SeenSurface):
    """The surface's picture; ``shape["relief"]`` 0: its normals."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        scale = (0.4, 0.4, 0.3) if shape["relief"] else (0.8, 0.8, 0.5)
        self.chosen = SurfacePicture(
            "relief" if shape["relief"] else "normals", shape["box"], (0.05, -0.02, 0.1), scale
        )
        super().__init__(device, shape, kind, rng, "geometry", picture=self.chosen)
        self.stage = SurfaceImage(self.surface, self.chosen)
        cells, around = self.stage.size**2, around_width(self.stage.size)
        self.work = Cost(flop=cells * (20 * around * shape["relief"] + 12 * shape["box"] + 60), bytes=120 * cells)

    def enqueue(self) -> None:
        """Launches only."""
        super().enqueue()
        self.stage.enqueue(self.fault)

    def problems(self) -> list[str]:
        """Points and normals to float32's rounding, levels to one, and what follows them bit for bit."""
        told = fault_problems(self.device, self.fault, EMPTY if self.kind == "empty" else 0)
        size, image_px = self.stage.size, self.network.image_px
        levels = self.get(self.stage.levels, (size, size, 3), np.uint8)
        image = self.get(self.stage.image, (image_px, image_px, 3), np.uint8)
        resized = Image.fromarray(levels).resize((image_px, image_px), Image.Resampling.BICUBIC)
        if not np.array_equal(image, np.asarray(resized)):
            told.append("the picture is not its levels'")
        network_image = self.get(self.stage.network_image, (1, 3, image_px, image_px), np.float32)
        if not np.array_equal(network_image, normalised(image, self.network)):
            told.append("the normalised picture differs")
        if self.kind == "empty":
            return told + (["a picture of nothing"] if levels.any() else [])
        grid, surface = self.wanted()
        means = self.get(self.surface.means, (size, size, 4), np.float32)
        normals = self.get(self.surface.normals, (size, size, 4), np.float32)
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
