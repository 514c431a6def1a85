"""The posed part's height residual on the device: the modality ``height``, up to its search.

The CPU counterpart is ``vision.height_residual``; kernels: ``heights.cu``. What the model alone determines is made
here, on the host, once a recipe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.cuda.launch import Argument, Buffer, Device, Launch
from asperity.runtime.cuda.surface import BLOCK, Surface
from asperity.runtime.errors import EngineError
from asperity.runtime.vision.height_residual import (
    BLURS,
    COARSE,
    DIMENSION,
    LARGEST,
    MOST_SHIFT_SHARE,
    MOST_TURN,
    PLANE_ROUNDS,
    SCALES,
    STEPS,
    HeightModel,
)

Array = NDArray[np.float64]

MOST_BLUR = 16
"""Radius of a blur that the kernels have room for, coarse cells."""
TRUNCATE = 4.0
"""Standard deviations at which scipy ends a blur."""
POSE_THREADS = 768
PLANE_BYTES = 64
DIGIT_BYTES = 4 * 3 * 2 * 2048
MOST_BLOCKS = 64
CELLS_A_THREAD = 8
"""Of the plane's kernels: their sums cost a block as much as some cells."""


@dataclass(frozen=True, slots=True)
class DeviceHeights:
    """The mean part on a device, for all lanes."""

    side: int
    heights: Buffer
    known: Buffer
    spread: Buffer
    blurred: Buffer
    """2 blurs x 2 layers x 48 x 48 f8: the model on coarse cells."""
    weights: Buffer
    radii: tuple[int, ...]
    scale: float
    """Coarse heights are divided by this, mm."""
    axis: float
    middle: tuple[float, float]
    """Of the model: its longer axis, and its middle from the grid's, coarse cells."""

    @classmethod
    def upload(cls, device: Device, model: HeightModel) -> DeviceHeights:
        """Onto a device."""
        side, known = model.known.shape[0], model.known
        scale = 3.0 * float(model.heights[known].std()) if known.any() else 0.0
        coarse = _coarse(model, scale)
        axis, middle = _axis_and_middle(coarse[0])
        radii = tuple(int(TRUNCATE * blur + 0.5) for blur in BLURS)
        weights = np.zeros((len(BLURS), 2 * MOST_BLUR + 1))
        for row, blur, radius in zip(weights, BLURS, radii, strict=True):
            bell = np.exp(-0.5 / (blur * blur) * np.arange(-radius, radius + 1) ** 2)
            row[MOST_BLUR - radius : MOST_BLUR + radius + 1] = bell / bell.sum()
        blurred = [[ndimage.gaussian_filter(one, blur, truncate=TRUNCATE) for one in coarse] for blur in BLURS]
        return cls(
            side, device.upload(model.heights.astype(np.float32)), device.upload(known.astype(np.uint8)),
            device.upload(model.spread.astype(np.float32)), device.upload(np.array(blurred)), device.upload(weights),
            radii, scale, axis, middle,
        )  # fmt: skip


class SurfaceHeights:
    """``features`` grid^2 x 6 f4; ``pose`` 3 f8: radians, and cells of the surface's grid."""

    def __init__(self, surface: Surface, model: DeviceHeights, grid: int) -> None:
        """Raises EngineError for a mean part of another grid."""
        size, device = surface.size, surface.grid.pre.device
        if model.side != size:
            raise EngineError(
                f"the mean part has {model.side} x {model.side} cells and the window {size} x {size}; export the "
                "bundle again"
            )
        self.surface, self.model, self.grid = surface, model, grid
        self._blocks = min(MOST_BLOCKS, -(size**2 // -(BLOCK * CELLS_A_THREAD)))
        self._level, self._plane, self.pose = device.alloc(4), device.alloc(PLANE_BYTES), device.alloc(24)
        self._coarse, self._work = device.alloc(16 * COARSE**2), device.alloc(64 * COARSE**2)
        self._left, self._both = device.alloc(4 * size**2), device.alloc(size**2)
        self._partial, self._digits = device.alloc(72 * self._blocks), device.alloc(DIGIT_BYTES)
        self.features = device.alloc(4 * DIMENSION * grid**2)

    def enqueue(self, fault: Buffer) -> None:
        """Of whatever the surface holds."""
        surface, model, size = self.surface, self.model, np.int32(self.surface.size)
        means, up, cells = surface.means, surface.grid.up, surface.size**2
        self._launch("height_level", 1, 1024, means, size, *up, self._level, self._plane)
        self._launch(
            "height_coarse", -(32 * COARSE**2 // -BLOCK), BLOCK, means, self._level, size, *up,
            np.float32(model.scale), self._coarse,
        )  # fmt: skip
        self._launch(
            "height_pose", 1, POSE_THREADS, self._coarse, self._work, model.blurred, model.weights,
            *(np.int32(radius) for radius in model.radii),
            *(np.float64(value) for value in (model.axis, *model.middle, MOST_TURN)), np.int32(STEPS),
            np.float64(surface.size / COARSE), self.pose,
        )  # fmt: skip
        each = (-(cells // -BLOCK), BLOCK)
        self._launch(
            "height_residual", *each, means, self._level, size, *up, self.pose, np.float64(MOST_TURN),
            np.float64(MOST_SHIFT_SHARE * surface.size), model.heights, model.known, self._left, self._both,
            self._plane,
        )  # fmt: skip
        self._enqueue_plane(fault)
        self._launch("height_flat", *each, self._left, self._both, size, self._plane)
        self._launch(
            "height_features", self.grid**2, 128, means, self._left, self._both, size, np.int32(self.grid), self.pose,
            model.spread, *(np.int32(width) for width in SCALES), np.float32(LARGEST), self.features, fault,
        )  # fmt: skip

    def _enqueue_plane(self, fault: Buffer) -> None:
        residual, done = (self._left, self._both, np.int32(self.surface.size)), 0
        for number in range(PLANE_ROUNDS):
            self._launch(
                "plane_fit", self._blocks, BLOCK, *residual, np.int32(number), self._partial, self._digits,
                np.int32(done), self._plane,
            )  # fmt: skip
            done += self._blocks
            for step in range(3 if number < PLANE_ROUNDS - 1 else 0):
                self._launch(
                    "plane_median", self._blocks, BLOCK, *residual, np.int32(step), self._digits, np.int32(done),
                    self._plane, fault,
                )  # fmt: skip
                done += self._blocks

    def _launch(self, kernel: str, blocks: int, threads: int, *arguments: Argument) -> None:
        self.surface.grid.pre.device.launch(Launch(kernel, (blocks, 1, 1), (threads, 1, 1)), *arguments)


def _coarse(model: HeightModel, scale: float) -> Array:
    """Share of the part and its heights by ``scale`` on coarse cells, 2 x 48 x 48."""
    cells = np.arange(len(model.known)) * COARSE // len(model.known)
    member = (cells == np.arange(COARSE)[:, None]).astype(np.float64)
    pixels = np.maximum(np.outer(member.sum(axis=1), member.sum(axis=1)), 1.0)
    share = member @ model.known @ member.T / pixels
    heights = member @ np.where(model.known, model.heights, 0.0) @ member.T / pixels
    return np.stack([share, heights / scale if scale > 0 else np.zeros_like(heights)])


def _axis_and_middle(share: Array) -> tuple[float, tuple[float, float]]:
    """Direction of the part's longer axis, 0 without one, and its middle from the grid's."""
    rows, columns = np.indices(share.shape, dtype=np.float64)
    total = max(float(share.sum()), 1e-9)
    row, column = float((share * rows).sum()) / total, float((share * columns).sum()) / total
    rows, columns = rows - row, columns - column
    rr, cc, rc = (float((share * one).sum()) for one in (rows * rows, columns * columns, rows * columns))
    middle = 0.5 * (COARSE - 1)
    return 0.5 * math.atan2(2.0 * rc, rr - cc), (row - middle, column - middle)
