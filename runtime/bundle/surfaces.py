"""What a bundle holds for the modalities of the part's surface: its constants, and what is stored of frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import BundleError
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.grid_descriptor import DIMENSION, RADII
from asperity.runtime.vision.height_residual import DIMENSION as RESIDUALS
from asperity.runtime.vision.height_residual import SCALES, HeightModel
from asperity.runtime.vision.surface_grid import blocks
from asperity.runtime.vision.tiles import of_window

HEIGHTS_FILE = "heights.safetensors"
SURFACE_WIDTHS = (3, 5, 7, 9)
"""Boxes that points may be averaged in: a wider one would blur away what the modalities are there to see."""
MOST_SCALE = 1e4
"""Largest constant that a channel or a figure is divided by: beyond it everything looks alike."""


def check_surface(network: Network, geometry: Geometry) -> None:
    """Constants of exactly those modalities that there are, and usable ones. Raises BundleError naming the field."""
    for field, name in (("picture", "geometry"), ("height", "height"), ("descriptor", "descriptor")):
        constants = getattr(network, field)
        if (constants is not None) != (name in network.modalities):
            raise BundleError(
                f"field network.{field} is {'not there' if constants is None else 'there'} and network.modalities is "
                f"{', '.join(network.modalities)}"
            )
        if constants is not None and constants.width not in SURFACE_WIDTHS:
            raise BundleError(f"field network.{field}.width is {constants.width}, not one of {SURFACE_WIDTHS}")
    if network.picture is not None:
        for value in network.picture.scale:
            _check_positive("network.picture.scale", value)
        if not all(math.isfinite(value) for value in network.picture.centre):
            raise BundleError(f"field network.picture.centre is {network.picture.centre}, not finite")
    cells = blocks(geometry.side_px)[1]
    if network.height is not None and network.height.side != cells:
        raise BundleError(f"field network.height.side is {network.height.side}, and the window has {cells} cells")
    if network.descriptor is not None:
        if len(network.descriptor.usual) != len(RADII):
            raise BundleError(f"field network.descriptor.usual is {network.descriptor.usual}, not {len(RADII)} rows")
        for row in network.descriptor.usual:
            for value in row:
                _check_positive("network.descriptor.usual", value)


def input_shapes(network: Network) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of what is stored of one calibration frame, by the tensor's name."""
    network = of_window(network)
    picture = (network.image_px, network.image_px, 3)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "image": ("uint8", picture),
        "cloud": ("float32", (network.cloud_px, network.cloud_px, 3)),
        "inspect": ("bool", (network.grid, network.grid)),
        "scores": ("float32", ()),
    }
    if "geometry" in network.modalities:
        shapes["geometry"] = ("uint8", picture)
    if "height" in network.modalities:
        shapes["height"] = ("float32", (network.grid**2, RESIDUALS))
    if "descriptor" in network.modalities:
        shapes["descriptor"] = ("float32", (network.grid**2, DIMENSION))
    return shapes


def height_shapes(network: Network) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor of the mean part; none without the modality height."""
    if network.height is None:
        return {}
    grid = (network.height.side, network.height.side)
    return {"heights": ("float32", grid), "known": ("bool", grid), "spread": ("float32", (len(SCALES), *grid))}


def height_fault(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Why tensors of the right shapes are not a mean part; empty when they are one."""
    heights, known, spread = tensors["heights"], tensors["known"], tensors["spread"]
    if not np.isfinite(heights).all() or not np.isfinite(spread).all():
        return "holds a value that is not finite"
    if not known.any():
        return "knows no place of the part"
    if not (spread > 0).all():
        return "holds a spread that is not above 0"
    return ""


def height_model(tensors: Mapping[str, NDArray[Any]]) -> HeightModel:
    """The mean part of tensors that were checked."""
    return HeightModel(tensors["heights"], tensors["known"].astype(bool), tensors["spread"])


def height_tensors(model: HeightModel) -> dict[str, NDArray[Any]]:
    """What ``height_model`` reads."""
    return {"heights": model.heights, "known": model.known, "spread": model.spread}


def _check_positive(name: str, value: float) -> None:
    if not 0 < value <= MOST_SCALE:
        raise BundleError(f"field {name} is {value}, not above 0 and at most {MOST_SCALE:g}")
