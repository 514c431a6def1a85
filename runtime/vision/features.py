"""Prepared frame to patch features: the path shared by calibration (torch) and the engines (ONNX Runtime).

Only ``Networks`` differs between them. The exact reductions of lsfa 10.2 live here: distinct RGB tokens, one sparse
interpolation-and-pooling map, and empty patches merged into spare slots that carry their multiplicity.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, ModalityName, Prepared, Span
from asperity.runtime.manifest import Network
from asperity.runtime.vision.grid_descriptor import DIMENSION
from asperity.runtime.vision.height_residual import DIMENSION as HEIGHTS
from asperity.runtime.vision.points import PointGroups, filled_patches, group
from asperity.runtime.vision.tiles import Tiling, of_window, scorable

T = TypeVar("T", bound=np.generic)

KNOWN: tuple[ModalityName, ...] = ("rgb", "points", "geometry", "height", "descriptor")
"""Modalities that are computed here; an engine of its own may know fewer."""
SLOT_MULTIPLE = 64
SLOT_HEADROOM = 1.1


class Networks(Protocol):
    """The four networks as functions on float32 arrays. Raise EngineError on failure."""

    def rgb(self, image: FloatArray) -> FloatArray:
        """1 x 3 x I x I, normalised -> (rgb_grid^2, rgb_channels), row-major cells."""

    def points(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        """(G, K, 3) relative / group_scale_mm and (G, 3) / position_scale_mm -> (G, points_channels)."""

    def adapt_rgb(self, tokens: FloatArray) -> FloatArray:
        """(rgb_slots, rgb_channels) -> the same shape."""

    def adapt_points(self, tokens: FloatArray, counts: FloatArray) -> FloatArray:
        """(S, points_channels) and (S,) key multiplicities > 0 -> (S, points_channels).

        S is ``points_slots`` or grid^2 (the larger graph).
        """


@dataclass(frozen=True, slots=True)
class Patches:
    """Features of one frame on the grid, frozen or adapted."""

    features: dict[ModalityName, FloatArray]
    """By modality, row-major cells x channels: rgb and geometry rgb_grid^2 x rgb_channels, points grid^2 x
    points_channels, height and descriptor grid^2 x their own; zero rows where a patch is empty (not rgb)."""
    nonempty: BoolArray  # grid x grid


@dataclass(slots=True)
class StageClock:
    """Wall microseconds of each stage; stages of branches that run side by side overlap.

    ``progress`` hears every stage's end, perhaps from another thread, so that a stuck engine stops the heartbeat.
    """

    progress: Callable[[str], None] | None = None
    stage_us: dict[str, int] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    """Every lap, on whichever thread, in the order in which they ended."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def lap(self, stage: str, since_ns: int) -> None:
        """Adds the time since ``since_ns`` (perf_counter_ns) to the stage."""
        now_ns = time.perf_counter_ns()
        span = Span(stage, threading.current_thread().name, since_ns, now_ns)
        with self._lock:
            self.stage_us[stage] = self.stage_us.get(stage, 0) + (now_ns - since_ns) // 1000
            self.spans.append(span)
        if self.progress is not None:
            self.progress(stage)


def points_slots(most_nonempty: int, grid: int) -> int:
    """Static token count of the points adaptor for frames of up to ``most_nonempty`` patches (lsfa 11).

    A multiple of 64 at least 1.1 x the largest count seen in calibration, never more than grid^2.
    """
    wanted = int(np.ceil(most_nonempty * SLOT_HEADROOM / SLOT_MULTIPLE)) * SLOT_MULTIPLE
    return min(max(wanted, SLOT_MULTIPLE), grid**2)


def feature_shapes(network: Network) -> dict[ModalityName, tuple[int, int]]:
    """Cells and channels of each modality's features of one window. Raises EngineError for one that is not known."""
    refuse_unknown(network.modalities)
    network = of_window(network)
    cells = network.grid**2
    shapes: dict[ModalityName, tuple[int, int]] = {
        "rgb": (network.rgb_grid**2, network.rgb_channels), "points": (cells, network.points_channels),
        "geometry": (network.rgb_grid**2, network.rgb_channels), "height": (cells, HEIGHTS),
        "descriptor": (cells, DIMENSION),
    }  # fmt: skip
    return {name: shapes[name] for name in network.modalities}


def frozen_patches(
    prepared: Prepared, network: Network, networks: Networks, clock: StageClock | None = None
) -> Patches:
    """Features of every modality on the grid.

    Raises EngineError when a network gives another shape than promised or a value that is not finite.
    """
    clock = clock or StageClock()
    refuse_unknown(network.modalities)
    pictures = picture_tokens(prepared, network, networks, clock)
    points, nonempty = shape_patches(prepared, network, networks, clock)
    features = {**pictures, **points, **prepared_features(prepared, network)}
    return Patches({name: features[name] for name in network.modalities}, nonempty)


def refuse_unknown(modalities: Iterable[ModalityName], known: Collection[ModalityName] = KNOWN) -> None:
    """Raises EngineError for modalities that are not computed here."""
    if strange := [name for name in modalities if name not in known]:
        raise EngineError(
            f"the bundle's modalities {', '.join(strange)} are not known to this engine; use another engine, or "
            "calibrate again with this version"
        )


def picture_tokens(
    prepared: Prepared, network: Network, networks: Networks, clock: StageClock
) -> dict[ModalityName, FloatArray]:
    """The colour network's distinct tokens (rgb_grid^2, rgb_channels) of the image (lsfa 2.1, 10.2 point 1), and of
    the surface's picture by a second pass where it is a modality. Of several tiles: those of the window that they make,
    zeros under tiles that have nothing to score."""
    tiling = Tiling.of(network)
    tiles = scorable(tiling, prepared, network)

    def seen(stage: str, picture: Callable[[Prepared], ByteArray]) -> FloatArray:
        found = [None if tile is None else _tokens(picture(tile), network, networks, clock, stage) for tile in tiles]
        return tiling.merged(found, network.rgb_channels)

    tokens = {"rgb": seen("rgb", lambda tile: tile.image)}
    if "geometry" in network.modalities:
        tokens["geometry"] = seen("geometry", lambda tile: _made(tile.geometry, "geometry"))
    return cast("dict[ModalityName, FloatArray]", tokens)


def _tokens(image: ByteArray, network: Network, networks: Networks, clock: StageClock, stage: str) -> FloatArray:
    since_ns = time.perf_counter_ns()
    tokens = networks.rgb(normalised(image, network))
    _check(tokens, (network.rgb_grid**2, network.rgb_channels), stage)
    clock.lap("rgb", since_ns)
    return tokens


def shape_patches(
    prepared: Prepared, network: Network, networks: Networks, clock: StageClock
) -> tuple[dict[ModalityName, FloatArray], BoolArray]:
    """The point encoder's patches, where they are a modality, and which patches hold points."""
    if "points" not in network.modalities:
        return {}, filled_patches(prepared.cloud, of_window(network))
    grouped = point_groups(prepared, of_window(network), clock)
    return {"points": point_patches(grouped, network, networks, clock)}, grouped.nonempty


def prepared_features(prepared: Prepared, network: Network) -> dict[ModalityName, FloatArray]:
    """Features that preprocessing has made itself. Raises EngineError where they are not there or not finite."""
    found: dict[ModalityName, FloatArray] = {}
    shapes = feature_shapes(network)
    if "height" in shapes:
        found["height"] = _made(prepared.height, "height")
    if "descriptor" in shapes:
        found["descriptor"] = _made(prepared.descriptor, "descriptor")
    for name, values in found.items():
        _check(values, shapes[name], name)
    return found


def _made(values: NDArray[T] | None, name: str) -> NDArray[T]:
    if values is None:
        raise EngineError(f"the frame was prepared without its {name}, which the bundle judges by; export it again")
    return values


def point_groups(prepared: Prepared, network: Network, clock: StageClock) -> PointGroups:
    """The frame's cloud as groups, and which patches have points (lsfa 2.2, 2.3)."""
    since_ns = time.perf_counter_ns()
    grouped = group(prepared.cloud, network)
    clock.lap("points", since_ns)
    return grouped


def point_patches(grouped: PointGroups, network: Network, networks: Networks, clock: StageClock) -> FloatArray:
    """The point encoder's tokens pooled to patches (grid^2, points_channels), zero rows where empty."""
    since_ns = time.perf_counter_ns()
    tokens = networks.points(grouped.groups, grouped.centres)
    _check(tokens, (network.groups, network.points_channels), "points")
    patches = np.asarray(grouped.to_patches @ tokens, dtype=np.float32)
    clock.lap("points", since_ns)
    return patches


def normalised_image(prepared: Prepared, network: Network) -> FloatArray:
    """The frame's colour picture as its network takes it."""
    return normalised(prepared.image, network)


def normalised(image: ByteArray, network: Network) -> FloatArray:
    """u8 picture -> 1 x 3 x I x I float32, [0, 1], less mean, over standard deviation (lsfa 1.3)."""
    mean = np.asarray(network.rgb_mean, dtype=np.float32)
    std = np.asarray(network.rgb_std, dtype=np.float32)
    scaled = image.astype(np.float32) * (1 / (255 * std)) - mean / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def adapted_patches(patches: Patches, network: Network, networks: Networks, clock: StageClock | None = None) -> Patches:
    """The patches after the adaptors (lsfa 3), or as they are when the network has none.

    Raises EngineError on a wrong shape or a value that is not finite, and for an adaptor that is not known.
    """
    clock = clock or StageClock()
    features = dict(patches.features)
    features["rgb"] = adapted_rgb(features["rgb"], network, networks, clock)
    if "points" in features:
        features["points"] = adapted_points(features["points"], patches.nonempty, network, networks, clock)
    return Patches(features, patches.nonempty)


def adapted_rgb(tokens: FloatArray, network: Network, networks: Networks, clock: StageClock) -> FloatArray:
    """RGB tokens (rgb_grid^2, C) after their adaptor, or as they are. Raises as ``adapted_patches``."""
    if not adapts(network):
        return tokens
    since_ns = time.perf_counter_ns()
    adapted = networks.adapt_rgb(tokens)
    _check(adapted, tokens.shape, "adaptor_rgb")
    clock.lap("rgb", since_ns)
    return adapted


def adapted_points(
    points: FloatArray, nonempty: BoolArray, network: Network, networks: Networks, clock: StageClock
) -> FloatArray:
    """Points patches (grid^2, C) after their adaptor, zero where empty, or as they are. Raises as above."""
    if not adapts(network):
        return points
    since_ns = time.perf_counter_ns()
    tokens, counts = merged_tokens(points, nonempty, network)
    adapted = networks.adapt_points(tokens, counts)
    _check(adapted, tokens.shape, "adaptor_points")
    placed = np.zeros_like(points)
    placed[nonempty.ravel()] = adapted[: int(nonempty.sum())]
    clock.lap("points", since_ns)
    return placed


def merged_tokens(points: FloatArray, nonempty: BoolArray, network: Network) -> tuple[FloatArray, FloatArray]:
    """Points tokens for the adaptor's static slots: (S, C) tokens and (S,) key multiplicities (lsfa 11).

    The non-empty patches come first; the spare slots all hold the zero token and share the count of empty patches, so
    attention sees exactly what grid^2 tokens would show it. S is ``points_slots``, or grid^2 when the frame has more
    non-empty patches than slots (or no empty one to fill spare slots with), or when no slots are set.
    """
    present = nonempty.ravel()
    total, filled = present.size, int(present.sum())
    empty = total - filled
    slots = network.points_slots or total
    if filled > slots or (filled == slots) != (empty == 0):
        slots = total
    tokens = np.zeros((slots, points.shape[1]), dtype=np.float32)
    tokens[:filled] = points[present]
    counts = np.ones(slots, dtype=np.float32)
    if slots > filled:
        counts[filled:] = empty / (slots - filled)
    return tokens, counts


def adapts(network: Network) -> bool:
    if network.adaptor not in ("none", "lsfa"):
        raise EngineError(f"network.adaptor {network.adaptor!r} is not known; calibrate again with this version")
    return network.adaptor == "lsfa"


def _check(tokens: FloatArray, shape: tuple[int, ...], graph: str) -> None:
    if tokens.shape != shape:
        raise EngineError(f"{graph} gave shape {tokens.shape} where {shape} is expected; export the bundle again")
    if not np.isfinite(tokens).all():
        raise EngineError(f"{graph} returned NaN or infinity; the network or its input is damaged")
