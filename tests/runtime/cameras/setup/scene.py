"""A source for tests: a box on a plane with known noise, as one frame after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asperity.runtime.cameras.source import Shot
from asperity.runtime.frame import Frame, Intrinsics, Unit

ROWS, COLUMNS = 60, 80
LENS = Intrinsics(100.0, 100.0, 39.5, 29.5)


@dataclass
class Scene:
    """A flat mat 500 mm away, tilted a little, and a box of 100 x 60 mm, 20 mm high."""

    noise_mm: float = 0.05
    box_mm: float = 20.0
    step_mm: float = 0.0
    shift_px: Callable[[int], int] = lambda _: 0
    rgb_level: int = 120
    holes: float = 0.0
    steady_hole: bool = False
    seed: int = 1
    fields: dict[str, Any] = field(default_factory=dict)

    def depth(self, index: int) -> np.ndarray:
        """True depth, float64 mm."""
        z = np.full((ROWS, COLUMNS), 500.0) + 0.05 * np.arange(COLUMNS)
        if self.box_mm:
            z[self.box(index)] -= self.box_mm
        return z

    def box(self, index: int) -> tuple[slice, slice]:
        at = 30 + self.shift_px(index)
        return slice(24, 36), slice(at, at + 20)

    def frame(self, index: int) -> Frame:
        rng = np.random.default_rng([self.seed, index])
        z = self.depth(index) + rng.normal(0, self.noise_mm, (ROWS, COLUMNS)) if self.noise_mm else self.depth(index)
        if self.step_mm:
            z = np.round(z / self.step_mm) * self.step_mm
        z[rng.random(z.shape) < self.holes] = 0
        if self.steady_hole:
            z[26:30, 40:44] = 0
        colour = np.full((ROWS, COLUMNS, 3), 60.0)
        colour[self.box(index)] = self.rgb_level
        rgb = np.clip(np.round(colour + rng.normal(0, 1.0, colour.shape)), 0, 255).astype(np.uint8)
        frame = Frame("scene", "", index, rgb, depth=z.astype(np.float32), intrinsics=LENS, unit="mm", sensor="scene 1",
                      t_exposure_us=1_000_000 + 100_000 * index)  # fmt: skip
        return replace(frame, **self.fields)


def as_xyz(frame: Frame, unit: Unit = "mm") -> Frame:
    """The same as points."""
    from asperity.runtime.vision.units import points_mm

    points, valid = points_mm(frame, unit)
    return replace(frame, xyz=np.where(valid[..., None], points, 0).astype(np.float32), depth=None, intrinsics=None)


class SceneSource:
    """Gives the scene's frames; ``lost`` are left out, and after ``count`` none comes any more."""

    sensor = "scene 1"

    def __init__(self, scene: Scene, count: int = 1000, *, lost: tuple[int, ...] = (), repeat: bool = False) -> None:
        self.scene, self.count, self.lost, self.repeat = scene, count, lost, repeat
        self.next = self.asked = 0
        self.closed = False

    def shot(self, timeout_ms: int) -> Shot | None:
        while self.next in self.lost:
            self.next += 1
        if self.next >= self.count:
            return None
        index, self.next = self.next, self.next + 1
        frame = self.scene.frame(index)
        if self.repeat:
            frame = replace(self.scene.frame(0), t_exposure_us=frame.t_exposure_us)
        return Shot(frame, index)

    def trigger(self) -> None:
        self.asked += 1

    def close(self) -> None:
        self.closed = True
