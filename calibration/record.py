"""The output of a calibration: a folder that ``export`` turns into a bundle.

calibration.json              CalibrationRecord; written last, so that its presence means the folder is whole
networks.safetensors          state dicts, prefixes ``rgb.`` ``points.`` (and ``adaptor_rgb.`` ``adaptor_points.``)
banks.safetensors             both memory banks, as ``runtime.bundle.banks`` has them
heights.safetensors           the mean part, where heights are a modality, as ``runtime.bundle.surfaces`` has it
calibration_inputs.safetensors  ``image`` u8 (n, I, I, 3), ``cloud`` f4 (n, P, P, 3), ``inspect`` bool (n, g, g),
                              ``scores`` f4 (n,): fused scores of the calibration frames by the torch reference; where
                              they are modalities ``geometry`` u8 (n, I, I, 3), ``height`` f4 (n, g^2, H) and
                              ``descriptor`` f4 (n, g^2, D)
golden/rgb/NAME.png golden/xyz/NAME.tiff   held-out normal frames (MVTec 3D-AD layout, unit of the geometry)
masks/*.png                   inspect and ignore masks
report/                       report.html, report.json
kept/                         what ``asperity refit`` adds further frames to (``outcome.kept_frames``); may be removed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from asperity.calibration.options import CalibrateOptions, HeldOut
from asperity.runtime.bundle.banks import Banks, bank_shapes, read_banks
from asperity.runtime.bundle.surfaces import height_model
from asperity.runtime.errors import DataError
from asperity.runtime.files import write_whole
from asperity.runtime.frame import ModalityName
from asperity.runtime.manifest import Decision, Geometry, Network, SilhouetteRange, SmallestDefect, WeightsOrigin
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.vision.height_residual import HeightModel

FORMAT = 2
"""Version of the folder's layout. A folder of another format is not exported."""

RECORD = "calibration.json"
NETWORKS = "networks.safetensors"
BANKS = "banks.safetensors"
HEIGHTS = "heights.safetensors"
INPUTS = "calibration_inputs.safetensors"

SplitName = Literal["fit", "tune", "calibrate"]
Evidence = Literal["equal", "alike", "suspected"]


class RefusedFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A normal frame that preprocessing refused, so that it took no part."""

    name: str
    reason: str
    """Name of the reason code."""
    message: str


class Repeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Normal frames that show one part, or seem to, as ``frames.repeats`` found it."""

    frames: tuple[str, ...]
    part_ids: tuple[str, ...]
    """The ids that these frames were given; more than one: different ids for what looks like one part."""
    evidence: Evidence
    """``equal``: not moved and equal but for noise, or sharing a surface that tells parts of the set apart; one part,
    whatever the ids. ``alike``: differing by noise, position and light alone; one part, as there are no ids.
    ``suspected``: as alike as that, or nearly; they count as their ids say, or each by itself."""

    @property
    def counted(self) -> bool:
        """Whether they count as one part."""
        return self.evidence != "suspected"


class FrameFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What calibration found of one normal frame."""

    name: str
    split: SplitName
    image_distances: dict[ModalityName, float]
    score: float
    """Fused score. Fit frames: against the banks without their own rows (leave-one-out)."""


class Suspect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A normal frame that may show a bad part. It took part like any other: a person decides (``outcome.suspects``)."""

    name: str
    split: SplitName
    deviations: dict[ModalityName, float]
    """Robust standard deviations above frames like it."""


class FalseRejects(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The promise about good parts: how often score and silhouette together reject one."""

    asked: float | None
    frames: int
    """Calibration frames."""
    allowed: int
    """k: the threshold is the k-th highest of the n calibration frames' (or ``parts``') scores."""
    alpha: float
    """k / (n + 1): mean rate of false rejects by the score."""
    alpha_total: float
    """Score and silhouette together."""
    bound_95: float
    """With probability 0.95 over calibrations the long-run rate of score and shape is below this."""
    held_out: HeldOut
    statement: str
    """The same in plain words."""
    shape_widened_for: tuple[str, ...] = ()
    """Calibration frames outside the learnt silhouette, for which its ranges were widened at the cost of one rank."""
    parts: int = 0
    """n where calibration frames share parts: a part's score is that of its worst frame. 0: n counts frames."""

    excluded: int = 0
    """Normal frames that a person excluded: the promise is not about parts like them."""
    excluded_calibrate: tuple[str, ...] = ()
    """Those of them that had served to calibrate, where that is known."""
    alpha_if_good: float = 0.0
    """``alpha_total`` should all excluded frames show good parts; 0: none was excluded."""

    @property
    def witnesses(self) -> int:
        """n."""
        return self.parts or self.frames


class Refit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What frames were added to, and what the earlier threshold made of them."""

    earlier_sha256: str
    """Of the earlier ``calibration.json``."""
    earlier_created_us: int
    earlier_threshold: float
    earlier: FalseRejects
    """The promise before."""
    earlier_frames: dict[str, int]
    kept: int
    """Frames of the earlier calibration that were used again."""
    added: int
    """Usable frames that came later, said to be all of their time whatever the verdict on them was."""
    patches_reused: int
    excluded_calibrate: tuple[str, ...]
    """Calibration frames of the earlier calibration that a person excluded."""
    above_earlier: int
    """Added parts (frames) of which a frame scores above the earlier threshold."""
    judged_earlier: int
    """Of so many."""
    chance_of_fewer: float
    """Probability of so few or fewer above it if the added parts are like the earlier ones and none was left out."""
    chance_of_more: float
    """Of so many or more."""
    adaptation: dict[str, float]
    """Figures of the adaptation, which is the earlier one's."""


class GoldenCandidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A held-out normal frame kept for the parity gate, with what the torch reference said of it."""

    name: str
    """``golden/rgb/NAME.png`` and ``golden/xyz/NAME.tiff``."""
    source_name: str
    kind: Literal["normal", "near"]
    verdict: Literal["ok", "ng"]
    reason: int
    score: float
    image_distances: dict[ModalityName, float]


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A modality that does not count in the score, and why (``fusion`` squares)."""

    modality: ModalityName
    gain: float
    """AUROC of good frames against pseudo-defects without it, less that with it."""
    standard_error: float
    response: float
    """How clearly its distance rises when a frame is spoiled: the mean rise, in standard errors."""


class TriedModalities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of modalities, judged by pseudo-defects on good frames."""

    modalities: tuple[ModalityName, ...]
    auroc: float
    loss: float
    """AUROC of the best set, less this one's."""
    standard_error: float
    """Of the loss."""
    cost: float
    """Of a frame on a processor, as declared; 1 is a frame by colour alone."""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``--modalities auto`` chose, and all that it tried, best first."""

    chosen: TriedModalities
    tried: tuple[TriedModalities, ...]
    unavailable: dict[ModalityName, str] = {}
    """Modalities that the good frames give no constants for, and why."""
    frame_ms: dict[ModalityName, float] = {}
    """Measured while calibrating, by torch: colour alone, and what each further modality adds. It decided nothing."""


class CalibrationRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``calibration.json``: all numbers of a calibration."""

    format: int
    asperity: str
    created_us: int
    recipe: str
    source: str
    """Name of the source folder."""
    options: CalibrateOptions
    geometry: Geometry
    network: Network
    weights: tuple[WeightsOrigin, ...]
    rgb_taps: tuple[int, ...] | None = None
    """Blocks of the colour backbone that feed its bank. None: calibrated when no profile chose any."""
    rgb_norm: bool = True
    """Whether they pass the backbone's final LayerNorm."""
    decision: Decision
    """By the torch reference; another engine takes its own threshold."""
    silhouette: tuple[SilhouetteRange, ...]
    false_rejects: FalseRejects
    normal_frames: dict[str, int]
    """How many frames went into fit, tune and calibrate, and how many were refused or excluded."""
    refused: tuple[RefusedFrame, ...]
    repeats: tuple[Repeat, ...] = ()
    """Frames that show one part although their ids do not say so."""
    frames: tuple[FrameFigures, ...]
    suspects: tuple[Suspect, ...] = ()
    """Frames proposed for exclusion, the most deviating first."""
    golden: tuple[GoldenCandidate, ...]
    golden_tolerance: float
    """0.1 x the standard deviation of the calibration frames' scores."""
    left_out: tuple[LeftOut, ...] = ()
    choice: Choice | None = None
    """None: the modalities were named, or are the profile's."""
    adaptation: dict[str, float]
    """Figures of the adaptation (losses, spread); empty when the features are frozen."""
    stage_s: dict[str, float]
    """Wall time of each stage of the calibration, seconds."""
    refit: Refit | None = None
    """None: calibrated from the source's frames alone."""
    smallest_defects: tuple[SmallestDefect, ...] = ()
    """By kind; empty: not measured."""


@dataclass(frozen=True, slots=True)
class CalibrationFolder:
    """A whole calibration folder on disk."""

    path: Path
    record: CalibrationRecord

    def banks(self) -> Banks:
        """The memory banks. Raises DataError."""
        arrays, decision = _load_arrays(self.path / BANKS), self.record.decision
        if arrays.keys() != bank_shapes(self.record.network, decision).keys():
            raise DataError(f"{self.path / BANKS} holds {', '.join(sorted(arrays))}: calibrate again")
        return read_banks(arrays, decision)

    def calibration_inputs(self) -> dict[str, NDArray[np.generic]]:
        """``image``, ``cloud``, ``inspect`` and ``scores`` of the calibration frames. Raises DataError."""
        return _load_arrays(self.path / INPUTS)

    def heights(self) -> HeightModel | None:
        """The mean part, where heights are a modality. Raises DataError."""
        if "height" not in self.record.network.modalities:
            return None
        return height_model(_load_arrays(self.path / HEIGHTS))

    @property
    def networks_path(self) -> Path:
        """State dicts of the networks, safetensors."""
        return self.path / NETWORKS

    @property
    def report_path(self) -> Path:
        """The report an engineer reads."""
        return self.path / "report" / "report.html"

    def golden_paths(self, name: str) -> tuple[Path, Path]:
        """Colour PNG and xyz TIFF of a golden candidate."""
        return self.path / "golden" / "rgb" / f"{name}.png", self.path / "golden" / "xyz" / f"{name}.tiff"

    def mask_paths(self) -> dict[str, Path]:
        """The masks the geometry names (``masks/inspect.png``), by that name."""
        names = [m for m in (self.record.geometry.inspect_mask, self.record.geometry.ignore_mask) if m is not None]
        return {name: self.path / name for name in names}


def save_record(record: CalibrationRecord, folder: Path) -> Path:
    """Write ``calibration.json`` in one step (a half-written one is never seen). Returns its path."""
    path = folder / RECORD
    write_whole(path, msgspec.json.format(msgspec.json.encode(record), indent=1), mode=0o644)
    return path


def load_folder(folder: Path) -> CalibrationFolder:
    """Open a calibration folder.

    Raises DataError when it is missing, unfinished or of another format.
    """
    path = folder / RECORD
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): calibrate into {folder} first") from error
    try:
        record = decode_json(data, CalibrationRecord)
    except TextRefused as error:
        raise DataError(f"{path} is not a calibration record ({error}): calibrate again") from error
    if record.format != FORMAT:
        raise DataError(f"{path} has format {record.format}, this version reads {FORMAT}: calibrate again")
    for name in (NETWORKS, BANKS, INPUTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing: the calibration folder is incomplete, calibrate again")
    return CalibrationFolder(folder, record)


def _load_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}): calibrate again") from error
