"""Plates with a print, whose surface differs a little from plate to plate as real parts' do; drawn at any position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import numpy as np

SIZE_PX, DEPTH_MM = 160, 400.0
HALF_PX = (40.0, 52.0)
COLOUR_NOISE, HEIGHT_NOISE_MM = 1.5, 0.03

Shot = tuple[np.ndarray, np.ndarray]
"""Colour H x W x 3 u8, points H x W x 3 f4 in metres, 1 mm a pixel."""


Shape = Literal["plate", "holes", "disc"]
"""With a print, with two deep holes through which the table is seen, or round with a faint print."""


@dataclass(frozen=True)
class Place:
    """Where a plate lies."""

    down_px: float = 0.0
    across_px: float = 0.0
    turn_deg: float = 0.0


@cache
def _waves(seed: int, count: int, shortest_px: float, longest_px: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([11, seed])
    length, angle = np.exp(rng.uniform(np.log(shortest_px), np.log(longest_px), count)), rng.uniform(0, np.pi, count)
    turned = 2 * np.pi * np.sin(angle) / length, 2 * np.pi * np.cos(angle) / length, rng.uniform(0, 2 * np.pi, count)
    return tuple(one.astype(np.float32) for one in turned)


def _field(seed: int, v: np.ndarray, u: np.ndarray, shortest_px: float = 6.0, longest_px: float = 30.0) -> np.ndarray:
    """A smooth random field of standard deviation 1."""
    down, across, phase = _waves(seed, 12, shortest_px, longest_px)
    waves = (np.cos(d * v + a * u + p) for d, a, p in zip(down, across, phase, strict=True))
    return sum(waves, np.zeros_like(v)) / np.sqrt(len(down) / 2)


@lru_cache(maxsize=128)
def plate(part: int, exposure: int, place: Place = Place(), shape: Shape = "plate") -> Shot:
    """One exposure; ``exposure`` seeds the sensor's noise and nothing else. Shared: copy before changing anything."""
    rng = np.random.default_rng([12, exposure])
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float32) - np.float32((SIZE_PX - 1) / 2)
    turn = np.radians(np.float32(place.turn_deg))
    v, u = rows - np.float32(place.down_px), columns - np.float32(place.across_px)
    v, u = np.cos(turn) * v - np.sin(turn) * u, np.sin(turn) * v + np.cos(turn) * u
    inside = (np.abs(v) < HALF_PX[0]) & (np.abs(u) < HALF_PX[1])
    wall = np.zeros_like(inside)
    if shape == "holes":
        hole = np.where(u > 0, v + 1j * (u - 26), v + 1j * (u + 26))
        # Of its wall is seen what looks towards the camera.
        wall = (np.abs(np.abs(hole) - 9) < 2.5) & ((hole * np.exp(1j * rng.uniform(0, 6.3))).real > 0)
        inside &= (np.abs(hole) > 11.5) | wall
    elif shape == "disc":
        inside = np.hypot(v, u) < HALF_PX[1]
    colour = 130 + (3 if shape == "disc" else 18) * _field(0, v, u, 12.0) + 5 * _field(1 + part, v, u)
    rise = 8 + 0.4 * _field(0, v, u, 25.0, 60.0) + 0.05 * _field(100_000 + part, v, u)
    picture = np.where(inside & ~wall, colour, 35.0)[..., None] + rng.normal(0, COLOUR_NOISE, (*rows.shape, 3))
    z = DEPTH_MM - np.where(inside, rise - 3 * wall, 0.0) + rng.normal(0, HEIGHT_NOISE_MM, rows.shape)
    xyz = np.stack([columns, rows, z], axis=2) / 1000
    shot = np.clip(np.round(picture), 0, 255).astype(np.uint8), xyz.astype(np.float32)
    for array in shot:
        array.flags.writeable = False
    return shot


def by_hand(number: int) -> Place:
    """A little moved from shot to shot."""
    rng = np.random.default_rng([13, number])
    return Place(*rng.uniform(-4, 4, 2), rng.uniform(-3, 3))
