"""What a structured-light sensor makes of a surface: depth with noise, steps and dropouts, and the colour picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from asperity.runtime.frame import BoolArray, ByteArray, FloatArray


@dataclass(frozen=True, slots=True)
class Sensor:
    """Figures of the sensor. ``PERFECT`` has none of its faults."""

    noise_mm: float = 0.035
    """Standard deviation of the depth on a surface seen head-on; it grows with 1 / cos(incidence)."""
    noise_limit: float = 6.0
    """The noise grows at most by this factor."""
    step_mm: float = 0.02
    """Depths are multiples of this; 0: not quantised."""
    lost: float = 0.001
    """Share of points lost on a surface seen head-on."""
    lost_from: float = 0.30
    """Below this cosine of the incidence points begin to be lost..."""
    lost_at: float = 0.12
    """... and below this one all are."""
    shadows: bool = True
    """Whether points the projector does not reach are lost."""
    colour_noise: float = 1.6
    """Standard deviation of the colour, of 255."""
    blur_px: float = 0.6
    """Standard deviation of the lens' blur."""


PERFECT = Sensor(
    noise_mm=0.0, step_mm=0.0, lost=0.0, lost_from=-1.0, lost_at=-2.0, shadows=False, colour_noise=0.0, blur_px=0.0
)


@dataclass(frozen=True, slots=True)
class Light:
    """A dome that lights almost evenly, and a weaker lamp: relief shows, but faintly."""

    direction: FloatArray
    """Unit vector towards the lamp, station coordinates, (3,)."""
    tint: FloatArray
    """Brightness of each colour channel, (3,), near 1."""
    dome: float = 0.78
    lamp: float = 0.26


def measure_depth(
    sensor: Sensor, depth_mm: FloatArray, cos_incidence: FloatArray, lit: BoolArray, rng: np.random.Generator
) -> FloatArray:
    """Depth as measured (any shape, mm): noise, then steps; 0 where the point is lost.

    Draws the same random numbers whatever the surface, so that a part and its spoiled twin share their noise.
    """
    noise = rng.standard_normal(depth_mm.shape, dtype=np.float32)
    luck = rng.random(depth_mm.shape, dtype=np.float32)
    growth = 1 / np.maximum(cos_incidence, 1 / sensor.noise_limit)
    measured = depth_mm + sensor.noise_mm * growth * noise
    if sensor.step_mm:
        measured = np.round(measured / sensor.step_mm) * sensor.step_mm
    grazing = np.clip((sensor.lost_from - cos_incidence) / (sensor.lost_from - sensor.lost_at), 0, 1)
    seen = luck >= np.maximum(grazing, sensor.lost)
    if sensor.shadows:
        seen &= lit
    return np.where(seen & (measured > 0), measured, 0).astype(np.float32)


def shade(
    light: Light, albedo: FloatArray, gloss: float, normal: FloatArray, to_camera: FloatArray, to_lamp: FloatArray
) -> FloatArray:
    """Colour of points (N, 3), 0..1: Lambert under dome and lamp, and a broad highlight (Blinn-Phong).

    ``normal`` and ``to_camera`` (N, 3) and ``to_lamp`` (3,) are unit vectors in one coordinate system.
    """
    facing = np.clip(normal @ to_lamp, 0, 1)
    half = to_camera + to_lamp
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    highlight = gloss * np.clip((normal * half).sum(axis=1), 0, 1) ** 24
    even = light.dome * (0.8 + 0.2 * normal[:, 2]) + light.lamp * facing
    return np.asarray((albedo * even[:, None] + highlight[:, None] * light.lamp) * light.tint, dtype=np.float32)


def expose(sensor: Sensor, colour: FloatArray, rng: np.random.Generator) -> ByteArray:
    """The colour picture, H x W x 3 u8, from H x W x 3, 0..1."""
    if sensor.blur_px:
        colour = gaussian_filter(colour, (sensor.blur_px, sensor.blur_px, 0), truncate=3.0)
    grain = rng.standard_normal(colour.shape, dtype=np.float32) * sensor.colour_noise
    return np.clip(np.round(colour * 255 + grain), 0, 255).astype(np.uint8)
