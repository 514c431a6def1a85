"""Scenes with flat products, as a 3D camera or a laser profiler sees them: height fields over a table, truth known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import Frame

HEIGHT_PX, WIDTH_PX, VIEW_MM = 120, 160, 120.0
DISTANCE_MM = 500.0
PITCH_MM = VIEW_MM / HEIGHT_PX

Values = NDArray[np.float64]
Surface = Callable[[Values, Values, np.random.Generator], Values]
"""Heights above the table, mm, at places on it, mm; the generator differs from frame to frame."""


def table(x: Values, y: Values, rng: np.random.Generator) -> Values:
    """Nothing but the table."""
    return np.zeros_like(x)


def sheet(thickness_mm: float = 3.0, size_mm: tuple[float, float] = (1e4, 1e4), shift_mm: float = 0.0) -> Surface:
    """A flat sheet; by default larger than the view."""

    def heights(x: Values, y: Values, rng: np.random.Generator) -> Values:
        x0, y0 = rng.uniform(-shift_mm, shift_mm, 2)
        return np.where((np.abs(x - x0) < size_mm[0] / 2) & (np.abs(y - y0) < size_mm[1] / 2), thickness_mm, 0.0)

    return heights


def bodies(*places: tuple[float, float, float, float], under: Surface = table, shift_mm: float = 0.0) -> Surface:
    """Round bodies (x, y, radius, height over what is under them), mm; all together shifted from frame to frame."""

    def heights(x: Values, y: Values, rng: np.random.Generator) -> Values:
        field = under(x, y, rng)
        x0, y0 = rng.uniform(-shift_mm, shift_mm, 2)
        for at_x, at_y, radius, height in places:
            field = field + np.where(np.hypot(x - x0 - at_x, y - y0 - at_y) < radius, height, 0.0)
        return field

    return heights


def expose(
    seed: int,
    surface: Surface,
    *,
    tilt_deg: float = 0.0,
    noise_mm: float = 0.05,
    axes: str = "camera",
    belt_mm: float = 0.0,
    unit: str | None = "mm",
    to_unit: float = 1.0,
    lost: NDArray[np.bool_] | None = None,
    colours: tuple[int, int] = (150, 40),
) -> Frame:
    """One frame. ``axes``: ``camera`` (z away from it), ``opengl`` (y up, z towards it), ``height`` (a profiler's map,
    z up, the table at ``belt_mm``), ``y_up`` (the same map with y up). ``colours``: what lies on the table, the table.
    """
    rng = np.random.default_rng([3, seed])
    rows, columns = np.mgrid[:HEIGHT_PX, :WIDTH_PX].astype(np.float64)
    x, y = columns - (WIDTH_PX - 1) / 2, rows - (HEIGHT_PX - 1) / 2
    state = rng.bit_generator.state
    if axes in ("height", "y_up"):
        heights = surface(x * PITCH_MM, y * PITCH_MM, rng)
        z = belt_mm + heights + rng.normal(0, noise_mm, x.shape)
        points = np.stack([x * PITCH_MM, y * PITCH_MM, z] if axes == "height" else [x * PITCH_MM, z, y * PITCH_MM], -1)
    else:
        tilt = np.radians(tilt_deg)
        normal = np.array([0.0, np.sin(tilt), -np.cos(tilt)])
        along = np.array([0.0, np.cos(tilt), np.sin(tilt)])
        rays = np.stack([x * PITCH_MM / DISTANCE_MM, y * PITCH_MM / DISTANCE_MM, np.ones_like(x)], -1)
        heights = np.zeros_like(x)
        for _ in range(4):
            rng.bit_generator.state = state
            depth = -(DISTANCE_MM * np.cos(tilt) - heights) / (rays @ normal)
            on = rays * depth[..., None] - np.array([0.0, 0.0, DISTANCE_MM])
            heights = surface(on[..., 0], on @ along, rng)
        depth = depth + rng.normal(0, noise_mm, x.shape)
        points = rays * depth[..., None] * (np.array([1.0, -1.0, -1.0]) if axes == "opengl" else 1.0)
    points[rng.random(x.shape) < 0.01] = 0.0
    if lost is not None:
        points[lost] = 0.0
    grey = np.where(np.abs(heights) > 1e-9, *colours) + rng.normal(0, 4, x.shape)
    rgb = np.clip(np.repeat(grey[..., None], 3, axis=2) + rng.normal(0, 2, (*x.shape, 3)), 0, 255).astype(np.uint8)
    return Frame(
        camera="flat", camera_session="s", seq=seed, rgb=rgb, xyz=(points * to_unit).astype(np.float32),
        unit=unit, part_id=f"part{seed}",  # type: ignore[arg-type]
    )  # fmt: skip


def frames(surface: Surface, count: int = 12, **options: object) -> list[Frame]:
    """As many frames of different seeds."""
    return [expose(seed, surface, **options) for seed in range(count)]  # type: ignore[arg-type]
