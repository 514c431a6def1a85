"""What a bundle holds for the modalities of the part's surface: its constants, and what is stored of frames."""

from __future__ import annotations

import math

from asperity.runtime.errors import BundleError
from asperity.runtime.manifest import Network
from asperity.runtime.vision.grid_descriptor import DIMENSION, RADII

SURFACE_WIDTHS = (3, 5, 7, 9)
"""Boxes that points may be averaged in: a wider one would blur away what the modalities are there to see."""
MOST_SCALE = 1e4
"""Largest constant that a channel or a figure is divided by: beyond it everything looks alike."""


def check_surface(network: Network) -> None:
    """Constants of exactly those modalities that there are, and usable ones. Raises BundleError naming the field."""
    for field, name in (("picture", "geometry"), ("descriptor", "descriptor")):
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
    if network.descriptor is not None:
        if len(network.descriptor.usual) != len(RADII):
            raise BundleError(f"field network.descriptor.usual is {network.descriptor.usual}, not {len(RADII)} rows")
        for row in network.descriptor.usual:
            for value in row:
                _check_positive("network.descriptor.usual", value)


def input_shapes(network: Network) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of what is stored of one calibration frame, by the tensor's name."""
    picture = (network.image_px, network.image_px, 3)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "image": ("uint8", picture),
        "cloud": ("float32", (network.cloud_px, network.cloud_px, 3)),
        "inspect": ("bool", (network.grid, network.grid)),
        "scores": ("float32", ()),
    }
    if "geometry" in network.modalities:
        shapes["geometry"] = ("uint8", picture)
    if "descriptor" in network.modalities:
        shapes["descriptor"] = ("float32", (network.grid**2, DIMENSION))
    return shapes


def _check_positive(name: str, value: float) -> None:
    if not 0 < value <= MOST_SCALE:
        raise BundleError(f"field {name} is {value}, not above 0 and at most {MOST_SCALE:g}")
