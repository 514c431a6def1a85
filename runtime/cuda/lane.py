"""One frame on the device: every buffer it will ever need, and its work as two recordings with one read between them.

First recording: part and window, then side by side the colour branch (silhouette, network, adaptor), the surface's, for
bundles judged by it (its picture, through the same network, heights, histograms), and the points' (sampling, grouping,
map to patches, network; without the modality only which patches hold points). The host then reads the head: what may
refuse the frame, and how many patches are not empty. Second recording, one for the slots and one for the larger
adaptor: points adaptor and search beside the others' searches, image distances, maps, the answer in one piece.

What a frame declares (scale, unit, which value is invalid) is an argument of its first kernel, which is therefore
launched separately, before the first recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.answer import Packed, Piece, enqueue_check
from asperity.runtime.cuda.graph import DeviceGraph, DeviceGraphs, Shape
from asperity.runtime.cuda.heights import DeviceHeights
from asperity.runtime.cuda.launch import Buffer, Enqueue
from asperity.runtime.cuda.maps import LAID, Maps
from asperity.runtime.cuda.modality import ModalityBranch, SharedBank
from asperity.runtime.cuda.point_branch import PointBranch
from asperity.runtime.cuda.points import FilledPatches, PatchNumbers
from asperity.runtime.cuda.preprocess import FIGURES, Preprocess
from asperity.runtime.cuda.shape import SHAPES, ShapeInputs, sees_surfaces
from asperity.runtime.cuda.streams import FrameDevice, Recording
from asperity.runtime.cuda.tiles import ColourPass
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, Frame, ModalityName, Prepared
from asperity.runtime.manifest import Decision, Geometry, Network
from asperity.runtime.vision.features import adapts, normalised, normalised_image, prepared_features
from asperity.runtime.vision.maps import own_blur_px
from asperity.runtime.vision.tiles import of_window

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
    banks: Mapping[ModalityName, SharedBank]
    heights: DeviceHeights | None
    """The mean part, where heights are a modality."""


class Lane:
    """Buffers, networks and recordings of one frame in flight. For one thread; the device is current."""

    def __init__(self, device: FrameDevice, recipe: Shared) -> None:
        """Allocates every buffer; ``connect`` and ``record`` follow, and nothing is allocated after them."""
        network = self.network = of_window(recipe.network)
        self.device, self.geometry, self.recipe = device, recipe.geometry, recipe
        self._adapts = adapts(network)
        self._local = recipe.banks["rgb"].usual is not None
        self.patches, self.tokens = network.grid**2, network.rgb_grid**2
        self.slots = network.points_slots if self._adapts and network.points_slots else self.patches
        pixels = recipe.geometry.height_px * recipe.geometry.width_px
        self.pre = Preprocess(device, recipe.geometry, network, recipe.covered)
        self.shape = ShapeInputs(self.pre, recipe.heights) if sees_surfaces(network) else None
        self.picture = self.shape.picture if self.shape else None
        self.rgb_in, self.cloud_in, self.rays = (device.alloc(n * pixels) for n in (3, 12, 12))
        self.number, self.fault = device.alloc(4), device.alloc(4)
        self.points: PointBranch | None = None
        self.filled: FilledPatches | None = None
        if "points" in network.modalities:
            self.points = PointBranch(device, network, self.slots, adapts=self._adapts)
            self._numbers: PatchNumbers = self.points.numbers
        else:
            self.filled = FilledPatches(device, network.cloud_px, network.grid, network.pooling)
            self._numbers = self.filled.numbers
        self.colour = ColourPass(device, recipe.network, self.pre.network_image)
        self._rgb_adapted = device.alloc(self.colour.tokens.nbytes) if self._adapts else None
        self.pictured: ColourPass | None = None
        if self.picture:
            self.pictured = ColourPass(device, recipe.network, self.picture.network_image)
        coarser = network.rgb_grid != network.grid
        self.branches: dict[ModalityName, ModalityBranch] = {}
        for name, bank in recipe.banks.items():
            by_token = LAID[name] == LAID["rgb"]
            rows, grid = (self.tokens, network.rgb_grid) if by_token else (self.patches, network.grid)
            self.branches[name] = ModalityBranch(device, bank, rows, grid, own_peak=by_token and coarser)
        placed = {name: branch.placed for name, branch in self.branches.items()}
        self.maps = Maps(
            device, network.grid, network.rgb_grid, self.patches, recipe.decision, placed, own_blur_px(network.grid)
        )
        self._networks: dict[str, DeviceGraph] = {}
        self.head = self._head_pieces()
        self.answer = self._answer_pieces()
        self.head_host, self.answer_host = device.host(self.head.nbytes), device.host(self.answer.nbytes)
        self.main, self._side, self._third = device.branch(), device.branch(), device.branch()
        self._forked, self._joined, self._shaped = device.event(), device.event(), device.event()
        self._pictured = device.event()
        self.head_event, self.answer_event = device.event(), device.event()
        self._first: Recording | None = None
        self._second: dict[bool, Recording] = {}

    @property
    def has_larger(self) -> bool:
        """Whether frames of more non-empty patches than slots can be judged."""
        return "adaptor_points_full" in self._networks

    def connect(self, graphs: DeviceGraphs) -> None:
        """Make the networks and tell them their buffers. Raises EngineError where they do not fit the manifest."""
        network = self.recipe.network  # of one tile
        picture, colour = (1, 3, network.image_px, network.image_px), (network.rgb_grid**2, network.rgb_channels)
        bound: dict[str, dict[str, tuple[Buffer, Shape]]] = {}
        for name, seen in (("rgb", self.colour), (SURFACE_PASS, self.pictured)):
            if seen is not None:
                bound[name] = {"image": (seen.input, picture), "tokens": (seen.output, colour)}
        if self._rgb_adapted:
            bound["adaptor_rgb"] = {"tokens": (self.colour.tokens, colour), "adapted": (self._rgb_adapted, colour)}
        if self.points:
            bound |= self.points.bound()
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
            given = prepared_features(prepared, self.recipe.network)
            for name, features in (self.shape.features if self.shape else {}).items():
                device.write(features, given[name])
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
        pre, fault = self.pre, self.fault
        stages: list[tuple[str, Enqueue]] = [
            ("part", lambda: pre.enqueue_part(self.rgb_in, fault)),
            ("silhouette", lambda: pre.enqueue_silhouette(fault)),
            ("rgb network", lambda: self._see("rgb", self.colour)),
        ]
        if adapted := self._rgb_adapted:
            stages.append(("rgb adaptor", lambda: self._run("adaptor_rgb", adapted, adapted.nbytes // 4)))
        if filled := self.filled:
            stages.append(("filled patches", lambda: filled.enqueue(pre.cloud, fault)))
        if points := self.points:
            stages += [
                ("sampling", lambda: points.enqueue_sampling(pre.cloud, fault)),
                ("grouping", lambda: points.enqueue_grouping(pre.cloud, fault)),
                ("interpolation", lambda: points.enqueue_mapping(pre.cloud, fault)),
                ("points network", lambda: self._run("points", points.tokens, points.token_count)),
                ("pooling", lambda: points.enqueue_pooled(self.slots, fault)),
            ]
            if self._adapts:
                stages.append(("points adaptor", lambda: self._adapt_points(points, larger=False)))
        if shape := self.shape:
            stages.append(("picture" if self.picture else "surface", lambda: shape.enqueue_picture(fault)))
            if pictured := self.pictured:
                stages.append(("picture network", lambda: self._see(SURFACE_PASS, pictured)))
            if shape.features:
                stages.append((" and ".join(shape.features), lambda: shape.enqueue_features(fault)))
        stages += [(f"{name} search", partial(self._search, name, self.slots)) for name in self.branches]
        return [*stages, ("maps", self._enqueue_maps)]

    def close(self) -> None:
        """Free the networks' scratch memory; buffers are the device's to free."""
        for network in self._networks.values():
            network.close()

    # ------------------------------------------------------------------ what is enqueued

    def _enqueue_first(self, *, preprocess: bool) -> None:
        device, fault = self.device, self.fault
        if preprocess:
            self.pre.enqueue_part(self.rgb_in, fault)
        device.record(self._forked)
        if self.shape:
            with device.on(self._third):
                self._enqueue_shape(self.shape, preprocess=preprocess)
        with device.on(self._side):
            device.follow(self._forked)
            if preprocess:
                self.pre.enqueue_silhouette(fault)
            self._see("rgb", self.colour)
            if self._rgb_adapted:
                self._run("adaptor_rgb", self._rgb_adapted, self._rgb_adapted.nbytes // 4)
            if self.pictured:
                device.follow(self._pictured)
                self._see(SURFACE_PASS, self.pictured)
            device.record(self._joined)
        if self.points:
            self.points.enqueue_inputs(self.pre.cloud, fault)
        elif self.filled:
            self.filled.enqueue(self.pre.cloud, fault)
        # What is scored is known before any distance is, and only that is searched.
        device.fill(self.maps.slot_scored, 0)
        self.maps.enqueue_scored(self._numbers.slot_of_patch, self.pre.inspect, fault)
        if self.points:
            self._run("points", self.points.tokens, self.points.token_count)
        device.follow(self._joined)
        if self.shape:
            device.follow(self._shaped)
        self.head.enqueue()
        device.fetch(self.head.out, self.head_host, self.head.nbytes)

    def _enqueue_shape(self, shape: ShapeInputs, *, preprocess: bool) -> None:
        """The third branch: the picture, which the second waits for, and the features that need no network."""
        device = self.device
        device.follow(self._forked)
        if preprocess:
            shape.enqueue_picture(self.fault)
        device.record(self._pictured)
        if preprocess:
            shape.enqueue_features(self.fault)
        for features in shape.features.values():
            enqueue_check(device, features, features.nbytes // 4, self.fault)
        device.record(self._shaped)

    def _enqueue_second(self, larger: bool) -> None:
        device, slots = self.device, self.patches if larger else self.slots
        device.record(self._forked)
        with device.on(self._side):
            device.follow(self._forked)
            self._search("rgb", slots)
            device.record(self._joined)
        if self.shape:
            with device.on(self._third):
                device.follow(self._forked)
                for name in SHAPES:
                    if name in self.branches:
                        self._search(name, slots)
                device.record(self._shaped)
        if self.points:
            self.points.enqueue_pooled(slots, self.fault)
            if self._adapts:
                self._adapt_points(self.points, larger=larger)
            self._search("points", slots)
        device.follow(self._joined)
        if self.shape:
            device.follow(self._shaped)
        self._enqueue_maps()
        self.answer.enqueue()
        device.fetch(self.answer.out, self.answer_host, self.answer.nbytes)

    def _adapt_points(self, points: PointBranch, *, larger: bool) -> None:
        slots = self.patches if larger else self.slots
        name = "adaptor_points_full" if larger else "adaptor_points"
        self._run(name, points.features, slots * self.network.points_channels)

    def _search(self, name: ModalityName, slots: int) -> None:
        """Distances of one modality's features; ``slots``: rows that the points' may have."""
        maps, branch = self.maps, self.branches[name]
        if name == "points":
            assert self.points is not None
            branch.enqueue(self.points.features, maps.slot_scored, slots, self.fault)
        elif name in ("rgb", "geometry"):
            seen = self.colour if name == "rgb" else self.pictured
            assert seen is not None
            adapted = self._rgb_adapted if name == "rgb" else None
            branch.enqueue(adapted or seen.tokens, maps.token_scored, self.tokens, self.fault)
        else:
            assert self.shape is not None
            branch.enqueue(self.shape.features[name], maps.scored, self.patches, self.fault)

    def _enqueue_maps(self) -> None:
        """Pixels only where image distances are their peaks."""
        self.maps.enqueue_planes(self._numbers.slot_of_patch, self.fault)
        if self._local:
            self.maps.enqueue_pixels(self.fault)

    def _see(self, name: str, seen: ColourPass) -> None:
        seen.enqueue(lambda: self._run(name, seen.output, seen.count))

    def _run(self, name: str, output: Buffer, count: int) -> None:
        self._networks[name].enqueue(self.device.handle)
        enqueue_check(self.device, output, count, self.fault)

    # ------------------------------------------------------------------ what is made

    def _head_pieces(self) -> Packed:
        pre, numbers = self.pre, self._numbers
        ends = 2 * (self.geometry.height_px + self.geometry.width_px)
        return Packed(
            self.device,
            {
                "number": Piece(self.number, (1,), np.uint32),
                "fault": Piece(self.fault, (1,), np.uint32),
                "larger": Piece(numbers.larger, (1,), np.int32),
                "filled": Piece(numbers.count, (1,), np.int32),
                **({"points": Piece(self.points.sampling.count, (1,), np.int32)} if self.points else {}),
                "figures": Piece(pre.figures, (FIGURES,), np.int32),
                "window": Piece(pre.window, (2,), np.int32),
                "heights": Piece(pre.heights, (2,), np.float64),
                "ends": Piece(pre.ends, (ends, 3), np.float32),
            },
        )

    def _answer_pieces(self) -> Packed:
        maps, grid = self.maps, self.network.grid
        pieces = {
            "number": Piece(self.number, (1,), np.uint32),
            "fault": Piece(self.fault, (1,), np.uint32),
            "scored": Piece(maps.scored, (grid, grid), np.uint8),
        }
        for name, branch in self.branches.items():
            plane = maps.plane_of[name]
            pieces[name] = Piece(maps.planes, (grid, grid), np.float32, 4 * plane * self.patches)
            pieces |= branch.pieces(name, maps.peaks, plane)
        return Packed(self.device, pieces)
