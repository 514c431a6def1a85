"""Further products of the virtual camera, of another nature: a cast wheel, a moulded cap, a stamped gasket.

Methods are judged on them beside those of ``products``: what holds on a bracket need not hold on a part that lies at
any angle, on glossy plastic, or on a sheet as thin as its own texture is coarse.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asperity.runtime.cameras.virtual.part import BELOW_MM, Part, grid_mm, noise
from asperity.runtime.cameras.virtual.shapes import Floats, blend, disc, rounded_box
from asperity.runtime.frame import FloatArray


def wheel(rng: np.random.Generator, wrong: bool) -> Part:
    """A cast hand wheel at any angle: rim, spokes, hub with a bore; a rough skin with pores, uneven dark grey."""
    x, y, radius, angle = _turned(rng)
    spokes = 6 if wrong else 5
    step = 2 * np.pi / spokes
    off = (angle + step / 2) % step - step / 2  # from the nearest spoke's axis
    spoke = np.maximum(np.abs(radius * np.sin(off)) - (4.6 + rng.normal(0, 0.08) - radius / 18), radius - 23)
    rim_mm, hub_mm = 7.0 + rng.normal(0, 0.06), 9.0 + rng.normal(0, 0.06)
    height = blend(np.full_like(x, BELOW_MM), 5.0 + rng.normal(0, 0.05) - (radius / 20) ** 2, spoke)
    rim = np.abs(radius - 22.6) - 4.6 + rng.normal(0, 0.04)
    height = blend(height, rim_mm - 0.09 * (radius - 22.6) ** 2, rim)
    height = blend(height, hub_mm, disc(x, y, 9.0 + rng.normal(0, 0.05)))
    height = blend(height, BELOW_MM, disc(x, y, 3.4))
    height = height + noise(rng, (0.045, 1.6), (0.05, 6.0), (0.05, 30.0))
    pores = noise(rng, (1.0, 1.3))
    tone = 0.34 + rng.normal(0, 0.012) + noise(rng, (0.018, 1.4), (0.02, 7.0)) - 0.10 * np.clip(pores - 1.8, 0, 1)
    return _part(height, tone[..., None] * np.array([1.0, 0.99, 0.97], np.float32), gloss=0.06)


def cap(rng: np.random.Generator, wrong: bool) -> Part:
    """A moulded screw cap: ribbed side, domed top with a ring and raised arrows; one glossy colour, with flow lines."""
    x, y, radius, angle = _turned(rng)
    ribs, arrows = (30, 2) if wrong else (40, 3)
    edge = 25.0 + rng.normal(0, 0.05) + 0.45 * np.cos(ribs * angle)
    side = np.clip((edge - radius) / 4.0, 0, 1)
    height = (9.0 + rng.normal(0, 0.06)) * side**0.6 + 2.0 * np.clip(1 - (radius / 21) ** 2, 0, 1)
    height = height + 0.6 * np.clip(1.2 - np.abs(radius - 17.5), 0, 0.7)
    third = 2 * np.pi / arrows
    off = (angle + third / 2) % third - third / 2
    arrow = np.abs(radius * np.sin(off)) - np.clip((radius - 5.0) * 0.42, 0, 3.4)
    height = height + 0.45 * np.clip(0.5 - np.maximum(arrow, radius - 13.5) / 0.8, 0, 1)
    height = height - 0.5 * np.clip(1 - disc(x, y, 1.6) / 0.6, 0, 1)  # where the injection point was
    height = np.where(radius < edge, height + noise(rng, (0.03, 22.0), (0.008, 3.0)), BELOW_MM)
    flow = noise(rng, (0.010, 9.0), (0.006, 2.0), stretch=5.0)
    tone = 1 + rng.normal(0, 0.012) + flow
    return _part(height, tone[..., None] * np.array([0.12, 0.30, 0.58], np.float32), gloss=0.55)


def gasket(rng: np.random.Generator, wrong: bool) -> Part:
    """A stamped gasket of woven fibre, 1.6 mm thin: two bores, bolt holes with embossed beads, a weave at any angle."""
    x, y = grid_mm()
    body = rounded_box(x, y, 38 + rng.normal(0, 0.06), 23 + rng.normal(0, 0.06), 9)
    bores = [(-16.5, 0.0, 9.0), (16.5, 0.0, 7.0 if wrong else 9.0)]
    bolts = [(-31.5, 14.5), (31.5, -14.5), (0.0, 15.5)] + ([] if wrong else [(0.0, -15.5)])
    heading = rng.uniform(0, np.pi)
    along, across = x * np.cos(heading) + y * np.sin(heading), -x * np.sin(heading) + y * np.cos(heading)
    warp, weft = np.sin(2 * np.pi * along / 2.4), np.sin(2 * np.pi * across / 2.4)
    buckle = rng.normal(0, 0.10) * (x / 38) ** 2 + rng.normal(0, 0.08) * (x / 38) * (y / 23)
    surface = 1.6 + rng.normal(0, 0.03) + 0.035 * warp * weft + buckle + noise(rng, (0.015, 4.0), (0.04, 20.0))
    for at_x, at_y, size in [*bores, *((*bolt, 2.4) for bolt in bolts)]:
        ring = np.abs(disc(x - at_x, y - at_y, size + 2.2))
        surface = surface + 0.30 * np.clip(1 - ring / 0.9, 0, 1)
        body = np.maximum(body, -disc(x - at_x - rng.normal(0, 0.05), y - at_y - rng.normal(0, 0.05), size))
    height = blend(np.full_like(x, BELOW_MM), surface.astype(np.float32), body)
    fibre = 0.03 * np.sign(warp * weft) + noise(rng, (0.025, 1.5), (0.02, 9.0), stretch=3.0)
    tone = 1 + rng.normal(0, 0.02) + fibre
    return _part(height, tone[..., None] * np.array([0.42, 0.52, 0.40], np.float32), gloss=0.02)


MORE_PRODUCTS: dict[str, Callable[[np.random.Generator, bool], Part]] = {"wheel": wheel, "cap": cap, "gasket": gasket}


def _turned(rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """x, y, distance from the axis and direction of every grid point, for a round part that lies at any angle."""
    x, y = grid_mm()
    angle = np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)
    return x, y, np.hypot(x, y), angle.astype(np.float32)


def _part(height: Floats, albedo: Floats, gloss: float) -> Part:
    return Part(height.astype(np.float32), np.clip(albedo, 0, 1).astype(np.float32), gloss)
