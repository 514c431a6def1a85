"""What the calibration report says, as types: the content of ``report.json``."""

from __future__ import annotations

import msgspec

from asperity.calibration.record import Choice, FalseRejects, FrameFigures, LeftOut, RefusedFrame, Repeat, Suspect
from asperity.runtime.frame import ModalityName
from asperity.runtime.manifest import SmallestDefect, WeightsOrigin


class ShapeFigure(msgspec.Struct, frozen=True):
    """One silhouette figure: the range, and the normal frames that come nearest to its ends."""

    figure: str
    low: float
    high: float
    seen_low: float
    seen_high: float
    lowest_frame: str
    highest_frame: str


class StrangeFrame(msgspec.Struct, frozen=True):
    """One of the strangest normal frames."""

    name: str
    split: str
    score: float
    leave_one_out: bool
    stds: dict[ModalityName, float]
    """Each modality's distance in standard deviations above the tuning frames' mean."""
    above_threshold: bool
    suspect: bool
    """Proposed: a person should look at the part."""


class Report(msgspec.Struct, frozen=True):
    """``report.json``."""

    recipe: str
    profile: str
    method: str
    threshold: float
    false_rejects: FalseRejects
    normal_frames: dict[str, int]
    split: str
    suspects: tuple[Suspect, ...]
    """Frames proposed for exclusion; a person decides."""
    alpha_if_excluded: float
    """The rate of false rejects if all of them are excluded and show good parts after all; 0: none is proposed."""
    strangest: tuple[StrangeFrame, ...]
    silhouette: tuple[ShapeFigure, ...]
    refused: tuple[RefusedFrame, ...]
    repeats: tuple[Repeat, ...]
    excluded: tuple[str, ...]
    weights: tuple[WeightsOrigin, ...]
    background: str
    bank_rows: dict[ModalityName, int]
    fusion: str
    modality_weights: dict[ModalityName, float]
    left_out: tuple[LeftOut, ...]
    choice: Choice | None
    adaptation: dict[str, float]
    smallest_defects: tuple[SmallestDefect, ...]
    stage_s: dict[str, float]
    frames: tuple[FrameFigures, ...]


NAMES: dict[ModalityName, str] = {
    "rgb": "colour", "points": "points", "geometry": "surface", "height": "height", "descriptor": "descriptor"
}  # fmt: skip
"""What the report calls each modality."""
