"""Prepared frame to patch features: the path shared by calibration (torch) and the engines (ONNX Runtime).

Only ``Networks`` differs between them. The exact reductions of lsfa 10.2 live here: distinct RGB tokens, one sparse
interpolation-and-pooling map, and empty patches merged into spare slots that carry their multiplicity.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, FloatArray, ModalityName, Prepared, Span
from asperity.runtime.manifest import Network
from asperity.runtime.vision.points import PointGroups, group
from asperity.runtime.vision.tiles import Tiling, of_window, scorable

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
    shapes: dict[ModalityName, tuple[int, int]] = {
        "rgb": (network.rgb_grid**2, network.rgb_channels), "points": (network.grid**2, network.points_channels)
    }  # fmt: skip
    return {name: shapes[name] for name in network.modalities}


def frozen_patches(
    prepared: Prepared, network: Network, networks: Networks, clock: StageClock | None = None
) -> Patches:
    """Tokens of both backbones on the grid.

    Raises EngineError when a network gives another shape than promised or a value that is not finite.
    """
    clock = clock or StageClock()
    refuse_unknown(network.modalities)
    rgb = window_rgb(prepared, network, networks, clock)
    grouped = point_groups(prepared, of_window(network), clock)
    points = point_patches(grouped, network, networks, clock)
    return Patches({"rgb": rgb, "points": points}, grouped.nonempty)


def window_rgb(prepared: Prepared, network: Network, networks: Networks, clock: StageClock) -> FloatArray:
    """The RGB tokens of a window's tiles on the window's grid; zeros under tiles that have nothing to score."""
    tiling = Tiling.of(network)
    tiles = scorable(tiling, prepared, network)
    tokens = [None if tile is None else rgb_tokens(tile, network, networks, clock) for tile in tiles]
    return tiling.merged(tokens, network.rgb_channels)


def refuse_unknown(modalities: Iterable[ModalityName]) -> None:
    """Raises EngineError for modalities that are not computed here."""
    if tuple(modalities) != ("rgb", "points"):
        raise EngineError(f"modalities {', '.join(modalities)} are not known; calibrate again with this version")


def rgb_tokens(prepared: Prepared, network: Network, networks: Networks, clock: StageClock) -> FloatArray:
    """The RGB backbone's distinct tokens (rgb_grid^2, rgb_channels) (lsfa 2.1, 10.2 point 1)."""
    since_ns = time.perf_counter_ns()
    tokens = networks.rgb(normalised_image(prepared, network))
    _check(tokens, (network.rgb_grid**2, network.rgb_channels), "rgb")
    clock.lap("rgb", since_ns)
    return tokens


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
    """u8 image -> 1 x 3 x I x I float32, [0, 1], less mean, over standard deviation (lsfa 1.3)."""
    mean = np.asarray(network.rgb_mean, dtype=np.float32)
    std = np.asarray(network.rgb_std, dtype=np.float32)
    scaled = prepared.image.astype(np.float32) * (1 / (255 * std)) - mean / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def adapted_patches(patches: Patches, network: Network, networks: Networks, clock: StageClock | None = None) -> Patches:
    """The patches after the adaptors (lsfa 3), or as they are when the network has none.

    Raises EngineError on a wrong shape or a value that is not finite, and for an adaptor that is not known.
    """
    clock = clock or StageClock()
    features = dict(patches.features)
    features["rgb"] = adapted_rgb(features["rgb"], network, networks, clock)
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
