"""Defects on procedural parts: displacements of the height, in the part's own coordinates, all lengths in cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from asperity.calibration.pretraining.clouds import Array, Field, Place, turn

KINDS = ("bump", "dent", "scratch", "hole")


def make_defect(kind: str, rng: Generator, where: Place, size: tuple[float, float]) -> Field:
    """A random defect of that kind at ``where``; ``size``: range of its height or depth, small ones as frequent as
    large ones. A hole is at least one cell deep. Raises KeyError for an unknown kind.
    """
    height = float(np.exp(rng.uniform(*np.log(size))))
    return _MAKERS[kind](rng, where, height)


def bump(rng: Generator, where: Place, radius: float, amplitude: float) -> Field:
    """A raised (or, with a negative amplitude, sunken) round place with a smooth rim."""
    stretch, angle = rng.uniform(0.7, 1.4), rng.uniform(0, np.pi)

    def field(x: Array, y: Array) -> Array:
        u, v = turn(x - where[0], y - where[1], angle)
        distance = np.hypot(u * stretch, v / stretch) / radius
        return np.asarray(amplitude * np.where(distance < 1, 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1)), 0.0))

    return field


def scratch(rng: Generator, where: Place, depth: float) -> Field:
    """A curved V-shaped groove."""
    half_width, half_length = rng.uniform(0.6, 1.4), rng.uniform(4, 13)
    heading, curve = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.02)

    def field(x: Array, y: Array) -> Array:
        along, across = turn(x - where[0], y - where[1], heading)
        across = across - curve * along**2
        profile = np.clip(1 - np.abs(across) / half_width, 0, 1)
        return np.asarray(-depth * np.where(np.abs(along) < half_length, profile, 0.0))

    return field


def hole(rng: Generator, where: Place, depth: float) -> Field:
    """A blind hole with steep walls, most of whose points are lost."""
    radius = rng.uniform(1.0, 2.5)
    return lambda x, y: -depth * np.clip((radius - np.hypot(x - where[0], y - where[1])) / 0.5, 0, 1)


_MAKERS: dict[str, Callable[[Generator, Place, float], Field]] = {
    "bump": lambda rng, where, height: bump(rng, where, rng.uniform(2, 6), height),
    "dent": lambda rng, where, height: bump(rng, where, rng.uniform(2, 6), -height),
    "scratch": scratch,
    "hole": lambda rng, where, height: hole(rng, where, max(1.0, 3 * height)),
}
