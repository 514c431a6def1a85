"""What a person may choose about a calibration."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from asperity.runtime.errors import UsageError
from asperity.runtime.frame import MissingPoint, Unit

Method = Literal["lsfa", "frozen"]
Fusion = Literal["average", "ocsvm", "squares"]
HeldOut = Literal["split", "leave_one_out"]
Removal = Literal["auto", "plane", "published", "none"]
Meaning = Literal["auto", "distance", "height"]

AUTO = ("auto",)
"""Modalities that pseudo-defects choose."""


class CalibrateOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a person may choose about a calibration; the defaults are the method's (lsfa 11)."""

    profile: str = "lite"
    method: Method = "lsfa"
    recipe: str = ""
    """Name of the product; empty: the name of the source folder."""
    alpha: float | None = None
    """False-reject rate of score and silhouette together, 0..1. None: the best attainable one up to 2 %."""
    exclude: tuple[str, ...] = ()
    """Names of normal frames to leave out (a bad part among the good)."""
    seed: int = 0
    unit: Unit | None = None
    """Unit of frames that name none. None: derived from the median depth."""
    invalid: tuple[MissingPoint, ...] | None = None
    """What is stored for a missing point. None: nothing was said; empty: every point is measured."""
    inspect_mask: str | None = None
    ignore_mask: str | None = None
    """8-bit PNG files of the source frame's size; non-zero pixels are (not) inspected."""
    limit: int | None = None
    """Use at most this many normal frames, the first ones."""
    device: str = "cpu"
    """Torch device of networks and adaptation."""
    modalities: tuple[str, ...] | None = None
    """What frames are judged by, in the order of ``frame.MODALITIES``; ``auto``: chosen. None: the profile's own."""
    fusion: Fusion | None = None
    """How the modalities' scores become one. None: the profile's."""
    whitening: bool = True
    """False: features are compared as they are, also where the profile whitens them."""
    held_out: HeldOut = "split"
    """``leave_one_out``: every frame is in the bank and judged against the others' rows. Weaker: no proven rate."""
    geometry: Removal = "auto"
    """How the background is found; ``published`` is RANSAC + DBSCAN for each frame (slow)."""
    z: Meaning = "auto"
    """What the points' z is: a distance from the camera, or a height above a table that grows towards the camera."""
    views: int = 0
    """The banks also hold so many views of each fit frame (light, exposure, pose, half patches, depth noise)."""
    bank_projection: bool = False
    """Choose bank rows on a sparse random projection of the features, as published. False: on the features."""
    rgb_weights: str | None = None
    points_weights: str | None = None
    """Weight files in place of the profile's own."""
    strangest: int = 10
    """How many of the strangest normal frames the report shows."""
    keep_frames: bool = True
    """Keep model inputs and patches of all frames in the folder, so that frames can be added (``asperity refit``)."""
    tiles: int = 1
    """The window's picture is seen by tiles x tiles network inputs that overlap: finer, and so many times as slow."""
    smallest_defect: bool = False
    """Measure the smallest defect that this station sees, by kind (``tuning.smallest_defect``)."""


def chosen_options(**chosen: Any) -> CalibrateOptions:
    """The options as a command was given them. Raises UsageError for a choice that does not exist."""
    for option in msgspec.structs.fields(CalibrateOptions):
        allowed = _literals(option.type)
        if allowed and chosen.get(option.name) not in (*allowed, None):
            name = f"--{option.name.replace('_', '-')}"
            raise UsageError(f"{name} {chosen[option.name]!r} is not known; choose one of {', '.join(allowed)}")
    return msgspec.convert(chosen, CalibrateOptions)


def _literals(kind: Any) -> tuple[str, ...]:
    """The values of a Literal, also within a union with None; empty for every other type."""
    found: tuple[str, ...] = ()
    for part in get_args(kind):
        found += (part,) if isinstance(part, str) else _literals(part)
    return found
