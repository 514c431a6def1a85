"""The core data types: a frame, its scores and its result. They are defined only here.

Arrays are numpy; their shapes are written H x W (rows x columns). Lengths are millimetres unless a name says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.reasons import JUDGED, Reason

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

Clock = Literal["ptp", "realtime", "device"]
Unit = Literal["m", "mm", "um"]
MissingPoint = tuple[float | None, float | None, float | None]
"""Stored x, y and z by which a camera says that a point is missing; None: any."""

MAX_SIDE_PX = 16_384
MAX_PIXELS = 16_777_216
MAX_BUFFER_BYTES = MAX_PIXELS * 3 * 4
"""Largest legal buffer of a frame (XYZ as f4); MAXMSGSIZE of the frames and bulk sockets."""

MM_PER_UNIT: dict[str, float] = {"m": 1000.0, "mm": 1.0, "um": 0.001}


def frame_size_fault(height_px: int, width_px: int) -> str:
    """Why no frame can have this size, with the size; empty: it can. The only rule of it (docs/wire.md, "Limits")."""
    if min(height_px, width_px) >= 1 and max(height_px, width_px) <= MAX_SIDE_PX and height_px * width_px <= MAX_PIXELS:
        return ""
    return (
        f"{height_px} x {width_px} pixels (height x width); a frame has 1 to {MAX_SIDE_PX} per side and at most "
        f"{MAX_PIXELS} in total"
    )


class Verdict(IntEnum):
    """The inspector's answer to a frame. Anything a receiver does not know is a reject."""

    UNKNOWN = 0
    OK = 1
    NG = 2


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """Pinhole camera, pixels. ``dist`` are distortion coefficients of ``model`` (empty: none)."""

    fx: float
    fy: float
    cx: float
    cy: float
    model: str = "pinhole"
    dist: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure as it came from the camera: colour and 3D of the same instant, pixel-aligned.

    Exactly one of ``xyz`` and ``depth`` is given; ``depth`` needs ``intrinsics``. Stored values become lengths by
    ``value * scale + offset`` in ``unit``; ``unit`` None means the sender did not say. A point is missing where any
    coordinate is not finite, where all are 0, or where the depth equals ``invalid``.
    """

    camera: str
    camera_session: str
    seq: int
    rgb: ByteArray  # H x W x 3
    xyz: FloatArray | None = None  # H x W x 3
    depth: NDArray[np.uint16] | FloatArray | None = None  # H x W
    intrinsics: Intrinsics | None = None
    unit: Unit | None = None
    scale: float = 1.0
    offset: float = 0.0
    invalid: float | None = None
    trigger_id: int = 0
    promise: int = 0
    """The trigger's ``promise``, copied; 0: free run."""
    part_id: str = ""
    recipe: str | None = None
    t_exposure_us: int = 0
    t_sent_us: int = 0
    clock: Clock = "device"
    sensor: str = ""

    @property
    def shape_px(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rgb.shape[0], self.rgb.shape[1]


@dataclass(frozen=True, slots=True)
class Window:
    """The square of the source frame that was resized to the network's input. May reach beyond the frame's edge."""

    x_px: int
    y_px: int
    side_px: int


@dataclass(frozen=True, slots=True)
class Silhouette:
    """Figures of the part's outline, all measured on the foreground of one frame."""

    area_mm2: float
    length_mm: float  # longer side of the smallest rectangle around the outline
    width_mm: float  # its shorter side
    height_mm: float  # 98th percentile of the height above the background plane (or depth range without a plane)
    missing_share: float  # missing points inside the outline / pixels inside the outline, 0..1
    level_mm: float = math.nan  # without a plane: z in the middle between the 2nd and 98th percentile, signed


ModalityName = Literal["rgb", "points", "geometry", "height", "descriptor"]
MODALITIES: tuple[ModalityName, ...] = ("rgb", "points", "geometry", "height", "descriptor")
"""What a frame can be judged by, in the order in which everything lists them: colour; the point encoder; a picture of
the surface through the colour's backbone; the height residual of the posed part; a descriptor on the camera's grid."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame made ready for the networks: the seam between preprocessing and everything after it.

    ``image`` is the window, background black, resized. ``cloud`` is the window's organised foreground in mm in the
    camera's coordinates, (0, 0, 0) where there is no foreground point. ``inspect`` is False where a mask says so.
    Sizes are the window's: of several tiles, of all of them together (``vision.tiles.of_window``).
    """

    image: ByteArray  # image_px x image_px x 3
    cloud: FloatArray  # cloud_px x cloud_px x 3, mm
    inspect: BoolArray  # grid x grid, patches that a recipe's masks leave to be judged
    window: Window
    silhouette: Silhouette
    geometry: ByteArray | None = None  # image_px x image_px x 3, the picture of the surface, where it is a modality
    height: FloatArray | None = None  # grid^2 x H, height residuals, where they are a modality
    descriptor: FloatArray | None = None  # grid^2 x D, where it is a modality


@dataclass(frozen=True, slots=True)
class ModalityScores:
    """Distances of one modality's patches to its memory bank."""

    distance_map: FloatArray  # grid x grid; 0 where not scored
    image_distance: float  # of the whole image, by ``runtime.vision.distances``; larger is stranger


class Span(NamedTuple):
    """What a thread did from when to when, nanoseconds of the monotonic clock."""

    stage: str
    thread: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Scores:
    """An engine's answer to one frame. No verdict yet: that is ``scoring.decide``'s alone."""

    modalities: dict[ModalityName, ModalityScores]
    scored: BoolArray  # grid x grid: patches with foreground that were compared with the banks
    window: Window
    silhouette: Silhouette
    stage_us: dict[str, int] = field(default_factory=dict)  # pre, rgb, points, knn (microseconds of wall time)
    spans: tuple[Span, ...] = ()  # the same, one by one: what a trace of the frame shows


@dataclass(frozen=True, slots=True)
class Region:
    """The worst spot, in pixels of the source frame."""

    x: int
    y: int
    w: int
    h: int
    area_px: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What scores: named in the first log line and in every state message."""

    name: str  # cpu, cuda, simulated
    device: str
    precision: str


@dataclass(frozen=True, slots=True)
class ViewSummary:
    """What a combined result says of one view of the part. For people: no verdict follows from it."""

    station: str
    result_id: int
    """0: the view had no result."""
    verdict: int
    reason_code: int
    score: float | None = None

    def __str__(self) -> str:
        verdicts: dict[int, str] = {verdict: verdict.name.lower() for verdict in Verdict}
        return f"{self.station} {self.result_id} {verdicts.get(self.verdict, 'unknown')}"


LATENCY_STAGES = ("recv", "pre", "rgb", "points", "knn", "post", "total")


@dataclass(frozen=True, slots=True)
class Result:
    """The one answer to a frame or, with views, to a part. Born unknown and not judged; only ``scoring.decide`` and
    ``scoring.combine`` provide another verdict.

    Raises ValueError when verdict, reason and numbers contradict each other, so that no such result can exist.
    """

    station: str
    session: str
    result_id: int
    camera: str = ""
    camera_session: str = ""
    seq: int = 0
    trigger_id: int = 0
    part_id: str = ""
    verdict: Verdict = Verdict.UNKNOWN
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    reason: Reason = Reason.NOT_JUDGED
    recipe: str = ""
    bundle: str = ""
    t_exposure_us: int = 0
    t_done_us: int = 0
    latency_us: dict[str, int] = field(default_factory=dict)
    deadline_us: int = 0
    deadline_missed: bool = False
    simulated: bool = False
    region: Region | None = None
    modality: str = ""
    """Which modality added most to the score (``scoring.deciding_modality``); empty: not said."""
    lot: str = ""
    order: str = ""
    shift: str = ""
    """What the part belongs to, as given with its trigger or set for the station."""
    position: int | None = None
    """Of the line's encoder, in counts, as given with the trigger; None: none was given."""
    view_of: str = ""
    """The combined station for which this is the result of one view, which alone accepts no part; empty: no view."""
    views: tuple[ViewSummary, ...] = ()
    """Of a combined result: the part's views, in the order of the configuration."""

    def __post_init__(self) -> None:
        judged = self.verdict is not Verdict.UNKNOWN
        if judged != (self.reason in JUDGED):
            raise ValueError(f"verdict {self.verdict.name} contradicts reason {self.reason.name}")
        if judged and (self.score is None or self.threshold is None):
            raise ValueError("a judged result needs a score and a threshold")
        for name in ("score", "threshold", "p_value"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}; NaN and infinity must be given as None, with verdict unknown")

    @property
    def accept(self) -> bool:
        """True only for a verdict of ok on a whole part. Every wire form has its accept from here."""
        return self.verdict is Verdict.OK and self.view_of == ""

    def unknown(self, reason: Reason) -> Result:
        """The same result with nothing decided, and why."""
        return replace(
            self, verdict=Verdict.UNKNOWN, reason=reason, score=None, threshold=None, p_value=None, region=None,
            modality="",
        )  # fmt: skip
