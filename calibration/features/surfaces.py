"""Constants of the modalities that look at the part's surface, from good frames: once per calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from asperity.calibration.features.height_model import fit_heights
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import Frame, ModalityName, Window
from asperity.runtime.manifest import Geometry, GridDescriptor, HeightResidual, Network, SurfacePicture
from asperity.runtime.vision.grid_descriptor import usual_figures
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.preprocess import find_part, surface_grid
from asperity.runtime.vision.surface_grid import TANGENT_STEP, Surface, SurfaceGrid, surface_of
from asperity.runtime.vision.surface_picture import channels_of

SURFACE_FRAMES = 24
"""Frames that the constants are taken from, evenly spread over those that banks are learnt from."""
WIDTHS = (3, 5, 7, 9)
NORMALS_NOISE = 0.03
"""The narrowest box is taken with which noise moves a normal's components by no more than this: 1.7 degrees."""
QUANTILE = 0.8
"""This share of the good frames' values lies within the middle half of a channel's range."""
LEAST_SCALE = 1e-3


def fit_surface(
    network: Network, modalities: tuple[ModalityName, ...], frames: Sequence[Frame], windows: Sequence[Window],
    geometry: Geometry,
) -> tuple[Network, HeightModel | None]:  # fmt: skip
    """The network's constants with these modalities and what they need; the mean part where heights are one of them.

    Raises CalibrationError where the surface does not give it, FrameRefused.
    """
    network = msgspec.structs.replace(network, modalities=modalities)
    if not {"geometry", "height", "descriptor"} & set(modalities):
        return network, None
    grids = [
        surface_grid(find_part(frame, geometry), window, geometry)
        for frame, window in zip(frames, windows, strict=True)
    ]
    noise_mm = depth_noise_mm(grids)
    width = choose_width(grids, noise_mm)
    surfaces = [surface_of(grid, width) for grid in grids]
    if not any(surface.sloped.any() for surface in surfaces):
        raise CalibrationError(
            "no good frame has a surface to take normals from; calibrate with --modalities rgb,points"
        )
    if "geometry" in modalities:
        network = msgspec.structs.replace(network, picture=fit_picture(grids, surfaces, width))
    if "descriptor" in modalities:
        network = msgspec.structs.replace(network, descriptor=GridDescriptor(width, usual_figures(surfaces)))
    if "height" not in modalities:
        return network, None
    heights = fit_heights(grids, surfaces, noise_mm)
    return msgspec.structs.replace(network, height=HeightResidual(width, heights.heights.shape[0])), heights


def only(network: Network, modalities: tuple[ModalityName, ...]) -> Network:
    """The network's constants with some of its modalities."""
    own = {"geometry": "picture", "height": "height", "descriptor": "descriptor"}
    gone = {constant: None for name, constant in own.items() if name not in modalities}
    return msgspec.structs.replace(network, modalities=modalities, **gone)


def depth_noise_mm(grids: Sequence[SurfaceGrid]) -> float:
    """Standard deviation of a single point's height, from second differences along rows."""
    seen = []
    for grid in grids:
        heights, valid = grid.points @ grid.up, grid.valid
        there = valid[:, :-2] & valid[:, 1:-1] & valid[:, 2:]
        seen.append((heights[:, :-2] - 2.0 * heights[:, 1:-1] + heights[:, 2:])[there])
    differences = np.concatenate(seen)
    return 1.4826 * float(np.median(np.abs(differences))) / np.sqrt(6.0) if differences.size else 0.0


def choose_width(grids: Sequence[SurfaceGrid], noise_mm: float) -> int:
    """The narrowest box whose normals are quiet enough, or the widest, from the noise of single points."""
    cell_mm = grids[0].cell_mm
    quiet = [width for width in WIDTHS if normals_noise(noise_mm / cell_mm, width) <= NORMALS_NOISE]
    return quiet[0] if quiet else WIDTHS[-1]


def normals_noise(noise_cells: float, width: int) -> float:
    """Scatter of a normal's components: of the difference of two box means by their distance."""
    return math.sqrt(2.0) * noise_cells / (width * 2 * TANGENT_STEP)


def fit_picture(grids: Sequence[SurfaceGrid], surfaces: Sequence[Surface], width: int) -> SurfacePicture:
    """The range of the picture's channels."""
    values = np.concatenate(
        [channels_of(grid, one, "relief")[:, one.sloped].T for grid, one in zip(grids, surfaces, strict=True)]
    )
    centre = np.median(values, axis=0)
    scale = np.maximum(np.quantile(np.abs(values - centre), QUANTILE, axis=0), LEAST_SCALE)
    return SurfacePicture("relief", width, _three(centre), _three(scale))


def _three(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
