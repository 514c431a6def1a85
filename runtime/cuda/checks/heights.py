"""A frame's height residual against ``runtime.vision.height_residual``."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from asperity.runtime.cuda.checks.clouds import EMPTY, fault_problems
from asperity.runtime.cuda.checks.preprocess import frame_of, geometry_of
from asperity.runtime.cuda.checks.surface import KINDS, POINT_MM, SeenSurface, cpu_heights
from asperity.runtime.cuda.heights import DeviceHeights, SurfaceHeights
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.manifest import HeightResidual
from asperity.runtime.vision.height_residual import (
    COARSE,
    DIMENSION,
    LARGEST,
    HeightModel,
    describe_heights,
    find_pose,
)

SPREAD_MM = 0.05
"""Least spread of the checks' mean part."""
POSE = 1e-5
"""Of a pose, radians and cells: coarse sums in float32 on the CPU, in float64 rounded to it here."""
RATIO = 3 * POINT_MM / SPREAD_MM
"""Of a residual in spreads: two points' rounding, and the pose's on a step of the part."""

MODELS = {"turned": (6.0, 1.5, -2.0), "lost": (0.0, 16.0, 0.0)}
"""By kind: degrees, and shift as a share of 47 cells, by which the mean part lies elsewhere than the frame's."""


class CheckedHeights(SeenSurface):
    """The modality ``height`` of one frame over a mean part that lies elsewhere."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        scene = kind if kind in KINDS else "holes"
        self.chosen = HeightResidual(shape["box"], 0)
        super().__init__(device, shape, scene, rng, "height", height=self.chosen)
        self.model = self._model_of(kind, shape, rng)
        shared = DeviceHeights.upload(device, self.model)
        self.stage = SurfaceHeights(self.surface, shared, self.network.grid)
        cells = self.surface.size**2
        self.work = Cost(flop=cells * 500 + 16 * 2 * COARSE**2 * 130, bytes=120 * cells, precision="float64")

    def _model_of(self, kind: str, shape: Shape, rng: np.random.Generator) -> HeightModel:
        """The frame's part as another exposure shows it, turned and shifted."""
        clean = "random" if self.kind in ("empty", "nan") else self.kind
        frame = frame_of(clean, shape["height"], shape["width"], rng)
        geometry = geometry_of(clean, shape["height"], shape["width"], shape["side"])
        own, present = cpu_heights(frame, geometry, shape["box"])
        degrees, down, right = MODELS.get(kind, (0.0, 1.0, 0.5))
        by, size = self.surface.size / 47, self.surface.size

        def moved(values: np.ndarray, order: int) -> np.ndarray:
            turned = ndimage.rotate(values, degrees, reshape=False, order=order)
            return np.asarray(ndimage.shift(turned, (by * down, by * right), order=order))

        known = moved(present.astype(np.float32), 1) > 0.9
        heights = np.where(known, moved(own, 0), 0.0).astype(np.float32)
        spread = SPREAD_MM * (1.0 + rng.random((3, size, size)))
        return HeightModel(heights, known, spread.astype(np.float32))

    def enqueue(self) -> None:
        """Launches only."""
        super().enqueue()
        self.stage.enqueue(self.fault)

    def problems(self) -> list[str]:
        """The pose, then the features."""
        told = fault_problems(self.device, self.fault, EMPTY if self.kind == "empty" else 0)
        grid = self.network.grid
        features = self.get(self.stage.features, (grid**2, DIMENSION), np.float32)
        if self.kind == "empty":
            return told + (["residuals of nothing"] if features.any() else [])
        heights, present = cpu_heights(self.frame, self.geometry, self.surface.width)
        wanted = find_pose(heights, present, self.model)
        pose = self.get(self.stage.pose, (3,), np.float64)
        off = np.abs(pose - (wanted.turn, wanted.down, wanted.right))
        if not off.max() <= POSE * max(1.0, float(np.abs(pose).max())):
            told.append(f"the pose is {pose} and must be {wanted}")
        expected = describe_heights(heights, present, self.model, grid)
        if not np.abs(features - expected).max() <= RATIO * max(1.0, float(np.abs(expected).max()) / 10):
            told.append(f"a residual is off by {np.abs(features - expected).max()} spreads")
        if not np.array_equal(np.abs(features) == LARGEST, np.abs(expected) == LARGEST):
            told.append("what is as strange as can be differs")
        if not expected.any():
            told.append("there is nothing to see in the residuals")
        return told


_SIZES = {"image": 28, "cloud": 14, "nearest": 0}
_LITE: Shape = {"height": 480, "width": 640, "side": 400, "grid": 28, "box": 3, **_SIZES}

ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="heights",
        source="heights",
        prepare=CheckedHeights,
        shapes=(_LITE, {**_LITE, "height": 900, "width": 1000, "side": 801}, {**_LITE, "grid": 52}),
        small=({"height": 60, "width": 83, "side": 47, "grid": 7, "box": 3, **_SIZES},),
        kinds=(*KINDS, *MODELS),
        timed=(_LITE,),
    ),
)
