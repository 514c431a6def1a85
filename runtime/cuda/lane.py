"""One frame on the device: every buffer it will ever need, and its work as two recordings with one read between them.

First recording: part and window, then side by side the colour branch (silhouette, network, adaptor; for bundles judged
by it also the surface's picture, through the same network) and the points one (sampling, grouping, map to patches,
network). The host then reads the head: what may refuse the frame, and how many patches are not empty. Second recording,
one for the slots and one for the larger adaptor: points adaptor and search beside the colour search, image distances,
maps, the answer in one piece.

What a frame declares (scale, unit, which value is invalid) is an argument of its first kernel, which is therefore
launched separately, before the first recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.answer import Packed, Piece, enqueue_check
from asperity.runtime.cuda.graph import DeviceGraph, DeviceGraphs, Shape
from asperity.runtime.cuda.launch import Buffer, Enqueue
from asperity.runtime.cuda.maps import POINTS, RGB, SURFACE, Maps
from asperity.runtime.cuda.modality import ModalityBranch, SharedBank
from asperity.runtime.cuda.points import Grouping, GroupScale, Interpolation, Sampling, SamplingPlan
from asperity.runtime.cuda.preprocess import FIGURES, Preprocess
from asperity.runtime.cuda.streams import FrameDevice, Recording
from asperity.runtime.cuda.surface import SurfaceImage
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, Frame, Prepared
from asperity.runtime.manifest import Decision, Geometry, Network
from asperity.runtime.vision.features import adapts, normalised, normalised_image

SURFACE_PASS = "rgb of the surface"
"""The colour network's second pass of a frame, over the surface's picture: a graph of its own."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all lanes of a recipe go by, on the device where it is large."""

    geometry: Geometry
    network: Network
    decision: Decision
    covered: BoolArray | None
    """H x W, pixels that the recipe's masks hide; None: none."""
    rgb: SharedBank
    points: SharedBank
    surface: SharedBank | None
    """Of the modality ``geometry``, where the bundle has it."""


class Lane:
    """Buffers, networks and recordings of one frame in flight. For one thread; the device is current."""

    def __init__(self, device: FrameDevice, recipe: Shared) -> None:
        """Allocates every buffer; ``connect`` and ``record`` follow, and nothing is allocated after them."""
        network = self.network = recipe.network
        self.device, self.geometry, self.recipe = device, recipe.geometry, recipe
        self._adapts = adapts(network)
        self._local = recipe.points.usual is not None
        self.patches, self.tokens, self.groups = network.grid**2, network.rgb_grid**2, network.groups
        self.slots = network.points_slots if self._adapts and network.points_slots else self.patches
        pixels = recipe.geometry.height_px * recipe.geometry.width_px
        self.pre = Preprocess(device, recipe.geometry, network, recipe.covered)
        self.picture = SurfaceImage(self.pre) if recipe.surface else None
        self.rgb_in, self.cloud_in, self.rays = (device.alloc(n * pixels) for n in (3, 12, 12))
        self.number, self.fault = device.alloc(4), device.alloc(4)
        cloud_px = network.cloud_px
        self.sampling = Sampling(device, cloud_px, self.groups, SamplingPlan.fitting(device, cloud_px**2))
        scale = GroupScale(network.group_scale_mm, network.position_scale_mm, network.centre_positions)
        self.grouping = Grouping(device, cloud_px, self.groups, network.group_size, scale)
        self.mapping = Interpolation(device, cloud_px, network.grid, self.groups, network.pooling, self.slots)
        self.maps = Maps(device, network.grid, network.rgb_grid, self.patches, recipe.decision)
        self._nothing = device.upload(np.zeros(max(self.patches, self.tokens), dtype=np.float32))
        c, d = network.rgb_channels, network.points_channels
        self._rgb_tokens, self._point_tokens = device.alloc(4 * self.tokens * c), device.alloc(4 * self.groups * d)
        self._pooled = device.alloc(4 * self.patches * d)
        if self._adapts:
            sizes = (4 * self.tokens * c, 4 * self.patches * d)
            self._rgb_adapted, self._points_adapted = (device.alloc(size) for size in sizes)
            self._ones = device.upload(np.ones(self.patches, dtype=np.float32))
        coarser = network.rgb_grid != network.grid
        self.rgb = ModalityBranch(device, recipe.rgb, self.tokens, network.rgb_grid, own_peak=coarser)
        self.surface: ModalityBranch | None = None
        if recipe.surface:
            self._surface_tokens = device.alloc(4 * self.tokens * c)
            self.surface = ModalityBranch(device, recipe.surface, self.tokens, network.rgb_grid, own_peak=coarser)
        self.points = ModalityBranch(device, recipe.points, self.patches, network.grid, own_peak=False)
        self._networks: dict[str, DeviceGraph] = {}
        self.head = self._head_pieces()
        self.answer = self._answer_pieces()
        self.head_host, self.answer_host = device.host(self.head.nbytes), device.host(self.answer.nbytes)
        self.main, self._side = device.branch(), device.branch()
        self._forked, self._joined = device.event(), device.event()
        self.head_event, self.answer_event = device.event(), device.event()
        self._first: Recording | None = None
        self._second: dict[bool, Recording] = {}

    @property
    def has_larger(self) -> bool:
        """Whether frames of more non-empty patches than slots can be judged."""
        return "adaptor_points_full" in self._networks

    def connect(self, graphs: DeviceGraphs) -> None:
        """Make the networks and tell them their buffers. Raises EngineError where they do not fit the manifest."""
        network = self.network
        size, c, d = network.image_px, network.rgb_channels, network.points_channels
        groups = (self.groups, network.group_size, 3)
        bound: dict[str, dict[str, tuple[Buffer, Shape]]] = {
            "rgb": {
                "image": (self.pre.network_image, (1, 3, size, size)),
                "tokens": (self._rgb_tokens, (self.tokens, c)),
            },
            "points": {
                "groups": (self.grouping.relative, groups),
                "centres": (self.grouping.positions, (self.groups, 3)),
                "tokens": (self._point_tokens, (self.groups, d)),
            },
        }
        if self.picture:
            bound[SURFACE_PASS] = {
                "image": (self.picture.network_image, (1, 3, size, size)),
                "tokens": (self._surface_tokens, (self.tokens, c)),
            }
        if self._adapts:
            colour = (self.tokens, c)
            bound["adaptor_rgb"] = {"tokens": (self._rgb_tokens, colour), "adapted": (self._rgb_adapted, colour)}
            for name, slots, counts in (
                ("adaptor_points", self.slots, self.mapping.multiplicity),
                ("adaptor_points_full", self.patches, self._ones),
            ):
                bound[name] = {
                    "tokens": (self._pooled, (slots, d)),
                    "counts": (counts, (slots,)),
                    "adapted": (self._points_adapted, (slots, d)),
                }
        network_of = {name: "rgb" if name == SURFACE_PASS else name for name in bound}
        missing = sorted(set(network_of.values()) - graphs.names() - {"adaptor_points_full"})
        if missing:
            raise EngineError(f"the bundle holds no {', '.join(missing)}; export it again")
        for name in sorted(name for name in bound if network_of[name] in graphs.names()):
            graph = self._networks[name] = graphs.graph(network_of[name])
            promised = {tensor: shape for tensor, (_, shape) in bound[name].items()}
            found = {**graph.inputs, **graph.outputs}
            if found != promised:
                raise EngineError(f"{name} has {found} where the manifest promises {promised}; export the bundle again")
            graph.bind({tensor: buffer.address for tensor, (buffer, _) in bound[name].items()})

    def record(self) -> None:
        """Do everything once, on whatever the buffers hold, then record it. What it says means nothing."""
        device = self.device
        seconds = [False, True] if self.has_larger else [False]
        with device.on(self.main):
            device.fill(self.rgb_in, 0)
            for buffer in (self.pre.points, self.pre.valid, self.pre.foreground, self.number, self.fault):
                device.fill(buffer, 0)
            self.pre.enqueue_begin()
            self._enqueue_first(preprocess=True)
            for larger in seconds:
                self._enqueue_second(larger)
            device.synchronize()
            with device.capture() as first:
                self._enqueue_first(preprocess=True)
            self._first = first
            for larger in seconds:
                with device.capture() as second:
                    self._enqueue_second(larger)
                self._second[larger] = second

    def start(self, frame: Frame, *, depth: bool) -> None:
        """Enqueue the first half of a frame whose bytes were sent before, on ``main``. ``head_event`` tells its end."""
        assert self._first is not None  # ``record`` was called
        with self.device.on(self.main):
            self.device.fill(self.fault, 0)
            self.pre.enqueue_points(frame, self.cloud_in, self.rays if depth else None, self.fault)
            self._first.replay()
            self.device.record(self.head_event)

    def finish(self, larger: bool) -> None:
        """Enqueue the second half. ``answer_event`` tells its end."""
        with self.device.on(self.main):
            self._second[larger].replay()
            self.device.record(self.answer_event)

    def start_prepared(self, prepared: Prepared) -> None:
        """The first half of a frame that was prepared before; as ``start``, but not recorded: it may take its time."""
        device, inspect = self.device, np.ascontiguousarray(prepared.inspect, dtype=np.uint8)
        with device.on(self.main):
            device.write(self.pre.network_image, normalised_image(prepared, self.network))
            if self.picture:
                if prepared.geometry is None:
                    raise EngineError("the frame was prepared without its surface's picture; export the bundle again")
                device.write(self.picture.network_image, normalised(prepared.geometry, self.network))
            device.write(self.pre.cloud, np.ascontiguousarray(prepared.cloud, dtype=np.float32))
            device.write(self.pre.inspect, inspect)
            device.fill(self.fault, 0)
            self._enqueue_first(preprocess=False)
            device.record(self.head_event)

    def replay_idle(self) -> None:
        """A frame's work once more, for nothing but to keep the device awake. The number is that of no frame."""
        assert self._first is not None
        with self.device.on(self.main):
            self.device.fill(self.number, 0)
            self.pre.enqueue_begin()
            self._first.replay()
            self._second[False].replay()
            self.device.record(self.answer_event)

    def read_head(self) -> dict[str, NDArray[Any]]:
        """The head of the frame in flight, once ``head_event`` is reached."""
        return self.head.read(self.head_host.data)

    def read_answer(self) -> dict[str, NDArray[Any]]:
        """The answer of the frame in flight, once ``answer_event`` is reached."""
        return self.answer.read(self.answer_host.data)

    def stages(self) -> list[tuple[str, Enqueue]]:
        """What both recordings are made of, by name and in their order, for measuring each alone.

        Each works on what the frame scored last left in the buffers, on the device's current branch.
        """
        pre, maps, fault, network = self.pre, self.maps, self.fault, self.network
        rgb, points = self.tokens * network.rgb_channels, network.points_channels
        sampling, centres = self.sampling, self.sampling.centres
        stages: list[tuple[str, Enqueue]] = [
            ("part", lambda: pre.enqueue_part(self.rgb_in, fault)),
            ("silhouette", lambda: pre.enqueue_silhouette(fault)),
            ("rgb network", lambda: self._run("rgb", self._rgb_tokens, rgb)),
            ("sampling", lambda: sampling.enqueue(pre.cloud, fault)),
            ("grouping", lambda: self.grouping.enqueue(pre.cloud, centres, sampling.centroid, fault)),
            ("interpolation", lambda: self.mapping.enqueue(pre.cloud, centres, fault)),
            ("points network", lambda: self._run("points", self._point_tokens, self.groups * points)),
            ("pooling", lambda: self.mapping.enqueue_pool(
                self._point_tokens, points, False, self.slots, self._pooled, fault)),
            ("rgb search", lambda: self.rgb.enqueue(
                self._rgb_adapted if self._adapts else self._rgb_tokens, maps.token_scored, self.tokens, fault)),
            ("points search", lambda: self.points.enqueue(
                self._points_adapted if self._adapts else self._pooled, maps.slot_scored, self.slots, fault)),
            ("maps", self._enqueue_maps),
        ]  # fmt: skip
        picture, surface = self.picture, self.surface
        if picture and surface:
            stages += [
                ("picture", lambda: picture.enqueue(fault)),
                ("picture network", lambda: self._run(SURFACE_PASS, self._surface_tokens, rgb)),
                ("picture search", lambda: surface.enqueue(
                    self._surface_tokens, maps.token_scored, self.tokens, fault)),
            ]  # fmt: skip
        if self._adapts:
            stages.insert(3, ("rgb adaptor", lambda: self._run("adaptor_rgb", self._rgb_adapted, rgb)))
            stages.insert(9, ("points adaptor", lambda: self._run(
                "adaptor_points", self._points_adapted, self.slots * points)))  # fmt: skip
        return stages

    def close(self) -> None:
        """Free the networks' scratch memory; buffers are the device's to free."""
        for network in self._networks.values():
            network.close()

    # ------------------------------------------------------------------ what is enqueued

    def _enqueue_first(self, *, preprocess: bool) -> None:
        device, network, fault = self.device, self.network, self.fault
        if preprocess:
            self.pre.enqueue_part(self.rgb_in, fault)
        device.record(self._forked)
        with device.on(self._side):
            device.follow(self._forked)
            if preprocess:
                self.pre.enqueue_silhouette(fault)
            self._run("rgb", self._rgb_tokens, self.tokens * network.rgb_channels)
            if self._adapts:
                self._run("adaptor_rgb", self._rgb_adapted, self.tokens * network.rgb_channels)
            if self.picture:
                if preprocess:
                    self.picture.enqueue(fault)
                self._run(SURFACE_PASS, self._surface_tokens, self.tokens * network.rgb_channels)
            device.record(self._joined)
        self.sampling.enqueue(self.pre.cloud, fault)
        self.grouping.enqueue(self.pre.cloud, self.sampling.centres, self.sampling.centroid, fault)
        self.mapping.enqueue(self.pre.cloud, self.sampling.centres, fault)
        # What is scored is known before any distance is, and only that is searched.
        device.fill(self.maps.slot_scored, 0)
        nothing, no_surface = self._nothing, self._nothing if self.surface else None
        self.maps.enqueue_planes(nothing, self.mapping.slot_of_patch, nothing, self.pre.inspect, fault, no_surface)
        self._run("points", self._point_tokens, self.groups * network.points_channels)
        device.follow(self._joined)
        self.head.enqueue()
        device.fetch(self.head.out, self.head_host, self.head.nbytes)

    def _enqueue_second(self, larger: bool) -> None:
        device, network, fault, maps = self.device, self.network, self.fault, self.maps
        slots = self.patches if larger else self.slots
        device.record(self._forked)
        with device.on(self._side):
            device.follow(self._forked)
            colour = self._rgb_adapted if self._adapts else self._rgb_tokens
            self.rgb.enqueue(colour, maps.token_scored, self.tokens, fault)
            if self.surface:
                self.surface.enqueue(self._surface_tokens, maps.token_scored, self.tokens, fault)
            device.record(self._joined)
        channels = network.points_channels
        self.mapping.enqueue_pool(self._point_tokens, channels, False, slots, self._pooled, fault)
        if self._adapts:
            name = "adaptor_points_full" if larger else "adaptor_points"
            self._run(name, self._points_adapted, slots * channels)
        features = self._points_adapted if self._adapts else self._pooled
        self.points.enqueue(features, maps.slot_scored, slots, fault)
        device.follow(self._joined)
        self._enqueue_maps()
        self.answer.enqueue()
        device.fetch(self.answer.out, self.answer_host, self.answer.nbytes)

    def _enqueue_maps(self) -> None:
        """Pixels only where image distances are their peaks."""
        surface = self.surface.placed if self.surface else None
        enqueue = self.maps.enqueue if self._local else self.maps.enqueue_planes
        enqueue(self.points.placed, self.mapping.slot_of_patch, self.rgb.placed, self.pre.inspect, self.fault, surface)

    def _run(self, name: str, output: Buffer, count: int) -> None:
        self._networks[name].enqueue(self.device.handle)
        enqueue_check(self.device, output, count, self.fault)

    # ------------------------------------------------------------------ what is made

    def _head_pieces(self) -> Packed:
        pre, mapping = self.pre, self.mapping
        ends = 2 * (self.geometry.height_px + self.geometry.width_px)
        return Packed(
            self.device,
            {
                "number": Piece(self.number, (1,), np.uint32),
                "fault": Piece(self.fault, (1,), np.uint32),
                "larger": Piece(mapping.larger, (1,), np.int32),
                "filled": Piece(mapping.count, (1,), np.int32),
                "points": Piece(self.sampling.count, (1,), np.int32),
                "figures": Piece(pre.figures, (FIGURES,), np.int32),
                "window": Piece(pre.window, (2,), np.int32),
                "heights": Piece(pre.heights, (2,), np.float64),
                "ends": Piece(pre.ends, (ends, 3), np.float32),
            },
        )

    def _answer_pieces(self) -> Packed:
        maps, grid = self.maps, self.network.grid
        surface: dict[str, Piece] = {}
        if self.surface:
            surface = self.surface.pieces("geometry", maps.peaks, SURFACE)
            surface["geometry"] = Piece(maps.planes, (grid, grid), np.float32, 4 * SURFACE * self.patches)
        return Packed(
            self.device,
            {
                "number": Piece(self.number, (1,), np.uint32),
                "fault": Piece(self.fault, (1,), np.uint32),
                "scored": Piece(maps.scored, (grid, grid), np.uint8),
                "rgb": Piece(maps.planes, (grid, grid), np.float32, 4 * RGB * self.patches),
                "points": Piece(maps.planes, (grid, grid), np.float32, 4 * POINTS * self.patches),
                **self.rgb.pieces("rgb", maps.peaks, RGB),
                **self.points.pieces("points", maps.peaks, POINTS),
                **surface,
            },
        )
