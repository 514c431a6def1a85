"""A bundle's description of itself: ``manifest.json`` as types. Written by ``export``, verified by ``bundle.reader``.

Lengths are millimetres unless the name says otherwise. Unknown fields are refused: a manifest is signed, not guessed.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from asperity.runtime.frame import MODALITIES, MissingPoint, ModalityName, Unit

FORMAT = 1
"""Version of the bundle's layout. A bundle of another format does not open."""
LATEST_US = 253_402_300_800_000_000
"""The year 10000, in microseconds since 1970: beyond it no date can be written."""


class Plane(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Background plane in camera coordinates: ``normal . p + offset_mm = 0``, unit normal towards the camera."""

    normal: tuple[float, float, float]
    offset_mm: float


class Geometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a frame of this station becomes model inputs; fitted once from the normal frames."""

    method: Literal["plane", "published", "none"]
    """``plane``: one stored plane (fast). ``published``: RANSAC + DBSCAN each frame (M3DM). ``none``: nothing to do."""
    why: str
    """Why calibration chose the method, as text."""
    unit: Unit
    """Unit of frames whose header names none."""
    height_px: int
    width_px: int
    """Size of the source frames; another size is refused."""
    plane: Plane | None
    plane_cut_mm: float
    """Points nearer to the plane than this are background."""
    point_spacing_mm: float
    """Median distance of neighbouring source pixels' points on the part."""
    plane_noise_mm: float
    """Standard deviation of the background points about the plane."""
    cluster_gap_px: int
    """Foreground pixels this far apart still belong to one part."""
    side_px: int
    """Side of the square window cut from the source frame: one scale for the recipe."""
    mm_per_px: float
    """Size of a source pixel on the part."""
    min_points: int
    """Frames with fewer foreground points are refused TOO_FEW_POINTS."""
    moved_share: float
    """CAMERA_MOVED when more than this share of border points lies off the plane."""
    moved_mm: float
    """How far off the plane a border point must lie to count as moved."""
    inspect_mask: str | None = None
    ignore_mask: str | None = None
    """Files in the bundle: 8-bit PNG of the source frame's size; non-zero pixels are (not) inspected."""
    invalid: tuple[MissingPoint, ...] | None = None
    """Missing points of frames that name none, as stored. Empty: every point is measured, as calibration was told.
    None: nothing was said. Undeclared points that look like missing ones are refused unless it is empty."""


class SurfacePicture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the part's surface becomes a picture for the colour network (``vision.surface_picture``)."""

    kind: Literal["normals", "relief"]
    width: int
    """Odd side of the square that points are averaged in before normals are taken, cells of the surface grid."""
    centre: tuple[float, float, float]
    scale: tuple[float, float, float]
    """A channel's value at the middle of its range of 8 bits, and how far from it either end is (of a normal), or the
    quarters of the range are (of a relief)."""


class GridDescriptor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of the surface's histograms (``vision.grid_descriptor``)."""

    width: int
    """As ``SurfacePicture.width``."""
    usual: tuple[tuple[float, float, float], ...]
    """By radius: median magnitude of each figure on good frames; half of a histogram's range lies within it."""


class HeightResidual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of the mean part in ``heights.safetensors`` (``vision.height_residual``)."""

    width: int
    """As ``SurfacePicture.width``."""
    side: int
    """Cells of a side of the surface grid."""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shapes and constants the engine needs to run the graphs (lsfa 2, 3)."""

    profile: str
    image_px: int
    grid: int
    """Patches are scored on a grid x grid map."""
    rgb_grid: int
    """Grid of the RGB tokens as the backbone gives them (28; the 56 x 56 form repeats each token four times)."""
    rgb_channels: int
    rgb_mean: tuple[float, float, float]
    rgb_std: tuple[float, float, float]
    cloud_px: int
    cloud_resize: Literal["nearest", "mean"]
    """How the window's cloud becomes cloud_px x cloud_px: nearest (published) or the mean of each cell's points."""
    groups: int
    group_size: int
    points_channels: int
    group_scale_mm: float
    """Coordinates relative to a group's centre are divided by this."""
    position_scale_mm: float
    """Centres are divided by this (after subtracting the cloud's centroid where ``centre_positions``)."""
    centre_positions: bool
    pooling: Literal["published", "valid_mean"]
    """Interpolated point features to patches: 3x3 mean + adaptive mean with zeros of empty pixels (M3DM), or the mean
    over each patch's own valid points."""
    adaptor: Literal["none", "lsfa"]
    distances: Literal["published", "local"] = "published"
    """How a patch's distance and the image's distance are computed (``runtime.vision.distances``)."""
    rgb_slots: int = 0
    points_slots: int = 0
    """Static token counts of the adaptor graphs; 0: no adaptor."""
    modalities: tuple[ModalityName, ...] = ("rgb", "points")
    """What frames are judged by, in the order of ``frame.MODALITIES``."""
    tiles: int = 1
    """The window's picture is seen by tiles x tiles network inputs that overlap (``runtime.vision.tiles``); image_px,
    grid and rgb_grid are those of one."""
    picture: SurfacePicture | None = None
    """Constants of the modality ``geometry``."""
    descriptor: GridDescriptor | None = None
    """Constants of the modality ``descriptor``."""
    height: HeightResidual | None = None
    """Constants of the modality ``height``. Each is None where its modality is not there, and only there."""


class WeightsOrigin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a network's weights came from. ``seeded`` weights are random: good for timing, not for inspection."""

    network: str
    source: str
    sha256: str
    licence: str
    seeded: bool = False


class Modality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Constants of one modality's scores."""

    feature_mean: float
    feature_std: float
    """Adapted features are standardised by these scalars before they meet the bank (lsfa 11 row 16)."""
    image_mean: float
    image_std: float
    """Mean and standard deviation of the image distance on the tuning frames."""
    patch_mean: float
    patch_std: float
    """Mean and standard deviation of scored patch distances on the tuning frames."""
    weight: float
    """Weight of this modality's standardised score in the fused one; with ``squares`` 0 or 1 (0: left out)."""
    bank_rows: int
    projected: int = 0
    """Columns of the projection that standardised features and rows were multiplied by; 0: there is none."""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Scores to a verdict. Belongs to one (bundle, engine, precision)."""

    engine: str
    precision: str
    rgb: Modality | None = None
    points: Modality | None = None
    geometry: Modality | None = None
    height: Modality | None = None
    descriptor: Modality | None = None
    fusion: Literal["average", "ocsvm", "squares"]
    threshold: float
    alpha: float
    """False-reject rate the score's threshold was set for (its share of ``alpha_total``)."""
    alpha_total: float
    """False-reject rate of score and silhouette together, as promised to the user; 1: none could be promised."""
    calibration_scores: tuple[float, ...]
    """Fused scores of the calibration frames, ascending: the p-value's reference."""
    alpha_asked: float | None = None
    timing_only: bool = False
    """True: nothing shows that these networks see a defect, so no frame gets a verdict; scores, maps and times are real
    (docs/decisions/timing-only.md)."""

    def modalities(self) -> dict[ModalityName, Modality]:
        """The constants of every modality that is there, in the order of ``frame.MODALITIES``."""
        found: dict[ModalityName, Modality | None] = {name: getattr(self, name) for name in MODALITIES}
        return {name: one for name, one in found.items() if one is not None}


def weights_fault(decision: Decision) -> str:
    """Why these weights cannot be right; empty when they can.

    At or below 0 a weight would let its modality vouch for defects. With ``squares`` 0 leaves a modality out.
    """
    weights = {name: one.weight for name, one in decision.modalities().items()}
    if decision.fusion != "squares":
        bad = next((name for name, weight in weights.items() if not (math.isfinite(weight) and weight > 0)), None)
        return f"decision.{bad}.weight is {weights[bad]} and must be above 0" if bad else ""
    bad = next((name for name, weight in weights.items() if weight not in (0.0, 1.0)), None)
    if bad:
        return f"decision.{bad}.weight is {weights[bad]} and must be 0 or 1 where fusion is squares"
    return "" if 1.0 in weights.values() else "every modality of the decision has a weight of 0"


SILHOUETTE_FIGURES = ("area_mm2", "length_mm", "width_mm", "height_mm", "missing_share")
"""Each has its range in every bundle: a figure that is left out is a check that is left out."""
LEVEL_FIGURE = "level_mm"
"""And where nothing is removed from a frame: a view without a part differs from one with a flat part in this alone."""


def silhouette_figures(geometry: Geometry) -> tuple[str, ...]:
    """The figures that a bundle of this geometry has a range for."""
    return (*SILHOUETTE_FIGURES, LEVEL_FIGURE) if geometry.method == "none" else SILHOUETTE_FIGURES


class SilhouetteRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Closed interval of one ``Silhouette`` figure seen as normal."""

    figure: str
    low: float
    high: float


class GoldenFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A frame stored in the bundle with what the reference engine said of it."""

    name: str
    """``golden/rgb/NAME.png`` and ``golden/xyz/NAME.tiff`` (MVTec 3D-AD layout, unit of ``Geometry.unit``)."""
    kind: Literal["normal", "near", "spoiled_geometry", "spoiled_colour"]
    verdict: Literal["ok", "ng", "unknown"]
    """``unknown`` in a bundle for timing only, and there alone."""
    reason: int
    score: float
    image_distances: dict[ModalityName, float] = {}
    """Of each modality, by the exporter's engine: for people; the gate measures them itself."""
    rgb_image_distance: float | None = None
    points_image_distance: float | None = None
    """As earlier versions wrote them; not written any more."""

    def distances(self) -> dict[str, float]:
        """Image distances by modality, whichever version wrote them."""
        earlier = {"rgb": self.rgb_image_distance, "points": self.points_image_distance}
        return {name: value for name, value in earlier.items() if value is not None} | dict(self.image_distances)


class SmallestDefect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From which size on the reference engine saw defects of one kind that were put into held-out good frames."""

    kind: str
    half_mm: float | None
    often_mm: float | None
    """Size (a diameter, a scratch's length) found in half and in 95 % of the places; None: not at ``largest_mm``."""
    half_strength: float | None
    often_strength: float | None
    """The height or depth in mm that went with it; of a stain its opacity, 0..1."""
    largest_mm: float
    """The largest size tried."""
    sizes_mm: tuple[float, ...]
    """Of each place where a defect was found, the size from which it was, ascending."""
    places: int
    """Places tried."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the bundle, path relative to it with forward slashes."""

    path: str
    nbytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``manifest.json``. The signature covers its bytes; its ``files`` cover every other file."""

    format: int
    asperity: str
    """Version of the project that wrote it."""
    recipe: str
    created_us: int
    """When it was exported, microseconds since 1970 by that machine's clock. Signed with the rest, and what tells an
    older bundle of a recipe from a newer one (``runtime.judging.served_bundles``)."""
    geometry: Geometry
    network: Network
    weights: tuple[WeightsOrigin, ...]
    decision: Decision
    silhouette: tuple[SilhouetteRange, ...]
    golden: tuple[GoldenFrame, ...]
    golden_tolerance: float
    """0.1 x the standard deviation of the held-out normals' scores."""
    normal_frames: dict[str, int]
    """How many frames went into fit, tune and calibrate."""
    frame_p99_ms: float
    """p99 of the whole path on the machine that calibrated; sets beat_timeout_ms on slow profiles."""
    files: tuple[File, ...]
    smallest_defects: tuple[SmallestDefect, ...] = ()
    """By kind; empty: not measured."""
    held_out: Literal["split", "leave_one_out"] = "split"
    """``split``: the calibration inputs took no part in the banks, so every engine takes its own threshold from them.
    ``leave_one_out``: they did; engines are compared on them, and the threshold stays the reference's."""
