"""Procedurally made organised clouds with real density and noise: what the small point encoder learns from.

Everything is measured in cells of the 112 x 112 cloud (the unit that ``calibration.profiles.network_for`` gives the
encoders), so one cell stands for 0.2 mm or 2 mm alike. A product is a height field over an outline: a base (plane,
cylinder, ball, revolved or extruded profile, organic bumps) with steps, pockets, bosses, holes, grooves, ridges,
chamfers and textures. An instance is the product in some pose, seen with sensor noise that grows with the slope, and
dropouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]
Field = Callable[[Array, Array], Array]
"""Height (or any figure) at places x, y, all in cells."""
Place = tuple[float, float]

CLOUD_PX = 112
DISTANCE = 400.0
"""Camera to part, in cells: far from 0, which means "no point"."""
_SOURCE = 2
"""Source pixels a cell and axis; each cell holds the mean of its valid pixels."""


@dataclass(frozen=True, slots=True)
class Product:
    """One part's shape: ``height`` over the part's own x, y, and whether there is material."""

    height: Field
    inside: Field


@dataclass(frozen=True, slots=True)
class Instance:
    """One frame of a product."""

    cloud: NDArray[np.float32]  # 112 x 112 x 3, cells, (0, 0, 0) where there is no point
    clean: Array  # 112 x 112: height of the noiseless surface, NaN where there is no point
    defect: Array  # 112 x 112: displacement by the defect, 0 if there is none


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a product lies, and how well it is seen."""

    angle: float
    shift: tuple[float, float]
    tilt: tuple[float, float]
    noise: float  # standard deviation of a source pixel's height on a surface facing the camera, cells
    dropout: float  # share of pixels lost at random


def make_product(rng: Generator) -> Product:
    """A random product: a base, an outline and 2 to 9 features."""
    heights = [_pick(rng, _BASES)(rng)]
    outlines = [_pick(rng, _OUTLINES)(rng)]
    for _ in range(rng.integers(2, 10)):
        feature = _pick(rng, _FEATURES)(rng)
        heights.append(feature)
    if rng.random() < 0.6:
        outlines += [_hole(rng) for _ in range(rng.integers(1, 6))]
    if rng.random() < 0.5:
        heights.append(_texture(rng))
    return Product(
        height=lambda x, y: np.sum([field(x, y) for field in heights], axis=0),
        inside=lambda x, y: np.min([field(x, y) for field in outlines], axis=0),
    )


def place_on(product: Product, rng: Generator, margin: float) -> Place:
    """A random place of the part, in its own coordinates, at least about ``margin`` inside its outline.

    Raises ValueError when the part is nowhere that wide.
    """
    places = rng.uniform(-40, 40, (4000, 2))
    fits = np.flatnonzero(product.inside(places[:, 0], places[:, 1]) > margin)
    if not len(fits):
        raise ValueError(f"no place lies {margin} cells inside the part's outline")
    return float(places[fits[0], 0]), float(places[fits[0], 1])


def station_pose(rng: Generator, noise: float) -> Pose:
    """A pose for one station: parts lie roughly alike, and the sensor stays the same."""
    return Pose(rng.normal(0, 0.1), _pair(rng, 3), _pair(rng, 0.02), noise, 0.01)


def render(product: Product, pose: Pose, rng: Generator, defect: Field | None = None) -> Instance:
    """The frame of a product in a pose, with or without a defect added to its height."""
    side = CLOUD_PX * _SOURCE
    axis = (np.arange(side) + 0.5) / _SOURCE - CLOUD_PX / 2
    x, y = np.meshgrid(axis, axis)
    u, v = turn(x - pose.shift[0], y - pose.shift[1], pose.angle)
    clean = product.height(u, v) + pose.tilt[0] * x + pose.tilt[1] * y
    displaced = np.zeros_like(clean) if defect is None else defect(u, v)
    clean = clean + displaced
    slope = np.hypot(*np.gradient(clean, 1 / _SOURCE))
    ripple = rng.uniform(0, 0.5) * pose.noise * np.sin(x * rng.uniform(0.3, 1.5) + rng.uniform(0, 6) + 0.02 * y)
    noisy = clean + ripple + rng.normal(size=clean.shape) * pose.noise * (1 + 0.5 * np.minimum(slope, 6))
    lost = rng.random(clean.shape) < pose.dropout + 1 / (1 + np.exp(-(slope - 4) / 0.5))
    seen = (product.inside(u, v) > 0) & ~lost

    z = np.where(seen, DISTANCE - noisy, np.nan)
    points = np.stack([x * z / DISTANCE, y * z / DISTANCE, z], axis=-1)
    cells = _cell_mean(points)
    surface = _cell_mean(np.where(seen, clean, np.nan)[..., None])[..., 0]
    cloud = np.where(np.isfinite(cells), cells, 0.0).astype(np.float32)
    return Instance(cloud, surface, _cell_mean(displaced[..., None])[..., 0])


def _cell_mean(values: Array) -> Array:
    """(2n, 2n, C) -> (n, n, C): mean of each cell's finite values, NaN where there is none."""
    n = values.shape[0] // _SOURCE
    blocks = values.reshape(n, _SOURCE, n, _SOURCE, -1)
    finite = np.isfinite(blocks)
    counts = finite.sum(axis=(1, 3))
    total = np.where(finite, blocks, 0.0).sum(axis=(1, 3))
    return np.asarray(np.where(counts > 0, total / np.maximum(counts, 1), np.nan))


# Bases: the large shape.


def _plane(rng: Generator) -> Field:
    return lambda x, y: np.zeros_like(x)


def _cylinder(rng: Generator) -> Field:
    radius, angle = rng.uniform(25, 140), rng.uniform(0, np.pi)
    return lambda x, y: np.sqrt(np.maximum(radius**2 - turn(x, y, angle)[0] ** 2, 0)) - radius


def _ball(rng: Generator) -> Field:
    radius, squeeze = rng.uniform(30, 140), rng.uniform(0.6, 1)
    return lambda x, y: np.sqrt(np.maximum(radius**2 - (x * squeeze) ** 2 - y**2, 0)) - radius


def _revolved(rng: Generator) -> Field:
    profile = _profile(rng)
    return lambda x, y: profile(np.hypot(x, y))


def _extruded(rng: Generator) -> Field:
    profile, angle = _profile(rng), rng.uniform(0, np.pi)
    return lambda x, y: profile(turn(x, y, angle)[0])


def _organic(rng: Generator) -> Field:
    count = int(rng.integers(6, 18))
    centres, widths = rng.uniform(-45, 45, (count, 2)), rng.uniform(6, 26, count)
    amplitudes = rng.normal(0, 0.16, count) * widths

    def field(x: Array, y: Array) -> Array:
        total = np.zeros_like(x)
        for (a, b), width, amplitude in zip(centres, widths, amplitudes, strict=True):
            total += amplitude * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * width**2))
        return total

    return field


def _profile(rng: Generator) -> Callable[[Array], Array]:
    """A random cross-section: straight pieces, some of them steep."""
    knots = np.cumsum(rng.uniform(1.5, 18, 14)) - 70
    heights = np.cumsum(rng.normal(0, 1.6, 14) * (rng.random(14) < 0.6))
    return lambda t: np.interp(t, knots, heights)


# Outlines: positive where there is material.


def _disc(rng: Generator) -> Field:
    radius = rng.uniform(26, 52)
    return lambda x, y: radius - np.hypot(x, y)


def _rectangle(rng: Generator) -> Field:
    half_x, half_y, corner = rng.uniform(20, 50), rng.uniform(20, 50), rng.uniform(0, 12)

    def field(x: Array, y: Array) -> Array:
        dx, dy = np.maximum(np.abs(x) - half_x + corner, 0), np.maximum(np.abs(y) - half_y + corner, 0)
        return np.asarray(corner + 1e-6 - np.hypot(dx, dy))

    return field


def _wavy(rng: Generator) -> Field:
    radius, order = rng.uniform(28, 45), rng.integers(2, 9)
    amplitudes, phases = rng.normal(0, 3.0, order) / np.arange(1, order + 1) ** 0.5, rng.uniform(0, 6.3, order)

    def field(x: Array, y: Array) -> Array:
        angle = np.arctan2(y, x)
        waves = [a * np.cos((k + 1) * angle + p) for k, (a, p) in enumerate(zip(amplitudes, phases, strict=True))]
        return np.asarray(radius + np.sum(waves, axis=0) - np.hypot(x, y))

    return field


def _gear(rng: Generator) -> Field:
    radius, teeth, depth = rng.uniform(34, 48), rng.integers(10, 30), rng.uniform(1.5, 5)
    return lambda x, y: radius + depth * np.clip(2 * np.sin(teeth * np.arctan2(y, x)), -1, 1) - np.hypot(x, y)


def _hole(rng: Generator) -> Field:
    (a, b), radius = _pair(rng, 36), rng.uniform(1.5, 9)
    return lambda x, y: np.hypot(x - a, y - b) - radius


# Features: added to the height.


def _boss(rng: Generator) -> Field:
    (a, b), radius, height, ramp = _pair(rng, 38), rng.uniform(1.5, 14), _signed(rng, 0.2, 5), rng.uniform(0.3, 3)
    return lambda x, y: height * np.clip((radius - np.hypot(x - a, y - b)) / ramp + 0.5, 0, 1)


def _block(rng: Generator) -> Field:
    (a, b), (p, q), angle = _pair(rng, 38), rng.uniform(2, 16, 2), rng.uniform(0, np.pi)
    height, ramp = _signed(rng, 0.2, 5), rng.uniform(0.3, 3)

    def field(x: Array, y: Array) -> Array:
        u, v = turn(x - a, y - b, angle)
        return np.asarray(height * np.clip(np.minimum(p - np.abs(u), q - np.abs(v)) / ramp + 0.5, 0, 1))

    return field


def _line(rng: Generator) -> Field:
    """A groove or a ridge across the part."""
    (a, b), width, angle = _pair(rng, 38), rng.uniform(0.4, 4), rng.uniform(0, np.pi)
    height, ramp = _signed(rng, 0.15, 2.5), rng.uniform(0.3, 2)
    return lambda x, y: height * np.clip((width - np.abs(turn(x - a, y - b, angle)[0])) / ramp + 0.5, 0, 1)


def _step(rng: Generator) -> Field:
    (a, b), angle, height, ramp = _pair(rng, 38), rng.uniform(0, np.pi), _signed(rng, 0.2, 5), rng.uniform(0.3, 6)
    return lambda x, y: height * np.clip(turn(x - a, y - b, angle)[0] / ramp + 0.5, 0, 1)


def _mound(rng: Generator) -> Field:
    (a, b), radius, height = _pair(rng, 40), rng.uniform(1, 8), _signed(rng, 0.1, 2)
    return lambda x, y: height * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * radius**2))


def _ring(rng: Generator) -> Field:
    (a, b), radius, width = _pair(rng, 30), rng.uniform(3, 16), rng.uniform(0.5, 3)
    height, ramp = _signed(rng, 0.2, 3), rng.uniform(0.3, 2)
    return lambda x, y: height * np.clip((width - np.abs(np.hypot(x - a, y - b) - radius)) / ramp + 0.5, 0, 1)


def _texture(rng: Generator) -> Field:
    """Roughness: waves of 2 to 9 cells, all of one direction (turned, knurled) or of many (cast, woven)."""
    count = int(rng.integers(1, 16))
    wavelength, angle = rng.uniform(2, 9, count), rng.uniform(0, np.pi, count)
    phase, amplitude = rng.uniform(0, 6.3, count), rng.uniform(0.02, 0.3) / count**0.5

    def field(x: Array, y: Array) -> Array:
        total = np.zeros_like(x)
        for length, direction, start in zip(wavelength, angle, phase, strict=True):
            total += amplitude * np.sin(2 * np.pi / length * turn(x, y, direction)[0] + start)
        return total

    return field


_BASES = (_plane, _cylinder, _ball, _revolved, _extruded, _organic)
_OUTLINES = (_disc, _rectangle, _wavy, _gear)
_FEATURES = (_boss, _block, _line, _step, _mound, _ring)


def _pick(rng: Generator, makers: tuple[Callable[[Generator], Field], ...]) -> Callable[[Generator], Field]:
    return makers[int(rng.integers(len(makers)))]


def _pair(rng: Generator, limit: float) -> tuple[float, float]:
    return float(rng.uniform(-limit, limit)), float(rng.uniform(-limit, limit))


def _signed(rng: Generator, low: float, high: float) -> float:
    """A size between low and high, small ones as frequent as large ones, up or down."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))) * rng.choice((-1, 1)))


def turn(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """x, y in axes turned by ``angle`` (radians)."""
    c, s = np.cos(angle), np.sin(angle)
    return c * x + s * y, c * y - s * x
