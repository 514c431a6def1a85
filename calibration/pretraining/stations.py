"""Made-up stations: frames of one procedural product under a fixed camera, some spoiled, ready for the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from asperity.calibration.pretraining.clouds import CLOUD_PX, Instance, Pose, make_product, place_on, render
from asperity.calibration.pretraining.defects import KINDS, make_defect
from asperity.calibration.pretraining.surface_targets import surface_targets
from asperity.calibration.profiles import network_for, profile
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.points import group, valid_points

AMPLITUDE = (0.1, 1.2)
"""Heights and depths of the defects, cells."""
_TRIES = 1000


@dataclass(frozen=True, slots=True)
class StationFrame:
    """One frame. ``label`` by patch: 1 under the defect, 0 away from any, -1 near one; only filled patches count."""

    groups: FloatArray  # G x K x 3
    centres: FloatArray  # G x 3
    to_patches: Any  # sparse grid^2 x G
    filled: BoolArray  # grid^2
    label: NDArray[np.int8]  # grid^2
    surface: FloatArray  # G x TARGETS, see ``surface_targets``
    known: FloatArray  # G x TARGETS


def cell_network() -> Network:
    """The constants of `lite` on a station where one cell is one millimetre: lengths here are in cells."""
    geometry = Geometry(
        method="none", why="procedural", unit="mm", height_px=CLOUD_PX, width_px=CLOUD_PX, plane=None, plane_cut_mm=0.0,
        point_spacing_mm=1.0, plane_noise_mm=0.0, cluster_gap_px=1, side_px=CLOUD_PX, mm_per_px=1.0, min_points=100,
        moved_share=1.0, moved_mm=1.0,
    )  # fmt: skip
    return network_for(profile("lite"), geometry, "none")


def make_station(rng: Generator, normal: int, spoiled: int) -> list[StationFrame]:
    """``normal`` good frames and then ``spoiled`` ones of a random product, pose spread and sensor.

    Raises ValueError when no product of many tries is wide enough to carry a defect.
    """
    network = cell_network()
    first = int(rng.integers(len(KINDS)))
    kinds = [None] * normal + [KINDS[(first + i) % len(KINDS)] for i in range(spoiled)]
    for _ in range(_TRIES):
        product = make_product(rng)
        noise = float(np.exp(rng.uniform(*np.log((0.01, 0.12)))))
        turn, spread, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.15), rng.uniform(-0.15, 0.15, 2)
        frames = []
        try:
            for kind in kinds:
                where = place_on(product, rng, 2.0)
                lean, shift = tilt + rng.uniform(-0.02, 0.02, 2), rng.uniform(-3, 3, 2)
                pose = Pose(turn + rng.normal(0, spread), (shift[0], shift[1]), (lean[0], lean[1]), noise, 0.01)
                defect = None if kind is None else make_defect(kind, rng, where, AMPLITUDE)
                frames.append(_frame(render(product, pose, rng, defect), network))
        except ValueError:
            continue
        return frames
    raise ValueError(f"{_TRIES} products were all too small")


def _frame(instance: Instance, network: Network) -> StationFrame:
    if np.isfinite(instance.clean).sum() < 2 * network.groups:
        raise ValueError("the part is too small")
    made = group(instance.cloud, network)
    points, pixels = valid_points(instance.cloud)
    at = cKDTree(points).query(made.centres * network.position_scale_mm + points.mean(axis=0))[1]
    surface, known = surface_targets(instance.clean, pixels[at])
    label = _label(instance, network).ravel()
    return StationFrame(made.groups, made.centres, made.to_patches, made.nonempty.ravel(), label, surface, known)


def _label(instance: Instance, network: Network) -> NDArray[np.int8]:
    """1 where a patch reaches half of the defect's height, 0 where neither it nor its neighbours moved, else -1."""
    cells = CLOUD_PX // network.grid
    moved = np.abs(instance.defect).reshape(network.grid, cells, network.grid, cells).max(axis=(1, 3))
    if moved.max() == 0:
        return np.zeros(moved.shape, dtype=np.int8)
    near = binary_dilation(moved > 0, np.ones((3, 3)))
    return np.where(moved >= 0.5 * moved.max(), 1, np.where(near, -1, 0)).astype(np.int8)
