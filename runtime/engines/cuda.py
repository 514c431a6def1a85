"""The CUDA engine: a frame is uploaded once; its figures, distance maps and image distances come back.

``runtime.cuda.lane`` does the work on the device. This file is the host's part: which frame is in flight on which lane,
the one read between both halves, what refuses a frame, and what is reported when the device fails.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar
from weakref import WeakSet

import numpy as np

from asperity.runtime.bundle.banks import Banks
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cuda.budget import check_room
from asperity.runtime.cuda.graph import DeviceGraphs
from asperity.runtime.cuda.lane import Lane
from asperity.runtime.cuda.lanes import LanePlan, host_banks, refuse_modalities
from asperity.runtime.cuda.launch import Enqueue
from asperity.runtime.cuda.preprocess import refuse
from asperity.runtime.cuda.readback import EMPTY, check_fault, check_number, modality_of
from asperity.runtime.cuda.staging import Staging
from asperity.runtime.cuda.streams import Event, FrameDevice, wait
from asperity.runtime.engines import Engine, Progress, gc_freeze
from asperity.runtime.engines.under_way import UnderWay
from asperity.runtime.errors import AsperityError, EngineError, EngineLostError, FrameRefused
from asperity.runtime.frame import EngineInfo, Frame, Intrinsics, ModalityScores, Prepared, Scores
from asperity.runtime.manifest import Decision, Geometry, Network
from asperity.runtime.vision.features import StageClock
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.missing_points import as_declared
from asperity.runtime.vision.preprocess import Masks, covered_pixels, refuse_size
from asperity.runtime.vision.tiles import of_window
from asperity.runtime.vision.units import pixel_rays

NAME = "cuda"
T = TypeVar("T")

_open_engines: WeakSet[CudaEngine] = WeakSet()
"""Of this process."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much may be in flight and how long to wait: ``[engine]`` of ``station.toml``."""

    lanes: int = 1
    recipes: int = 2
    wait_ms: int = 2000
    keep_warm_ms: int = 200
    keep_warm_for_s: int = 600


class CudaEngine(Engine):
    """Scores frames on one GPU (``runtime.engines.Engine``), up to ``[engine] lanes`` of them at once."""

    def __init__(
        self,
        device: FrameDevice,
        graphs: DeviceGraphs,
        geometry: Geometry,
        network: Network,
        decision: Decision,
        banks: Banks,
        masks: Masks | None = None,
        settings: Settings | None = None,
        heights: HeightModel | None = None,
    ) -> None:
        """Takes device and graphs over: they are closed with the engine, and where it cannot be made.

        Raises EngineError where the geometry's method is not for the device, or memory is short: the message says of
        what, how much and what to do.
        """
        self._device, self._graphs = device, graphs
        self._geometry, self._network = geometry, network
        self._settings = settings = settings or Settings()
        self._lost: EngineLostError | None = None
        self._closed = self._serving = False
        self._number = 0
        self._last_frame_ns = self._last_warm_ns = time.monotonic_ns()
        self.batch_max = settings.lanes
        self._lanes: list[Lane] = []
        try:
            with device.current():
                self._make(decision, banks, masks or Masks(), heights)
            _open_engines.add(self)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(
        cls, bundle: Bundle, device: FrameDevice, graphs: DeviceGraphs, settings: Settings | None = None
    ) -> CudaEngine:
        """The engine of a verified bundle. Raises EngineError; ``engines.parity_gate`` decides whether it may judge."""
        manifest, masks = bundle.manifest, Masks(bundle.inspect_mask(), bundle.ignore_mask())
        beside = Settings() if settings is None else settings
        if _open_engines:  # the room for this one was asked for when the first was opened
            beside = replace(beside, recipes=1)
        return cls(
            device, graphs, manifest.geometry, manifest.network, manifest.decision, bundle.banks(), masks, beside,
            bundle.heights(),
        )  # fmt: skip

    def describe(self) -> EngineInfo:
        """As ``Engine.describe``."""
        return EngineInfo(NAME, f"{self._device.name}, {self._graphs.runtime}", self._graphs.precision)

    def score(self, frame: Frame, progress: Progress) -> Scores:
        """As ``Engine.score``."""
        answer = self.score_batch([frame], progress)[0]
        if isinstance(answer, AsperityError):
            raise answer
        return answer

    def score_batch(self, frames: Sequence[Frame], progress: Progress) -> list[Scores | AsperityError]:
        """As ``Engine.score_batch``: the next frame is sent while those before it are computed."""
        answers: list[Scores | AsperityError] = [EngineError("not scored")] * len(frames)
        halfway: deque[tuple[int, UnderWay]] = deque()
        first_half: tuple[int, UnderWay] | None = None

        def attempt(index: int, step: Callable[[], T]) -> T | None:
            try:
                return step()
            except EngineLostError:
                raise
            except AsperityError as error:
                answers[index] = error
                return None

        def go_on(index: int, way: UnderWay) -> None:
            if attempt(index, lambda: self._guarded(way, lambda: self._second(way))) is not None:
                halfway.append((index, way))

        def end(index: int, way: UnderWay) -> None:
            scores = attempt(index, lambda: self._guarded(way, lambda: self._finish(way)))
            if scores is not None:
                self._free.append(way.lane)
                answers[index] = scores

        with self._used():
            for index, frame in enumerate(frames):
                if not self._free and halfway:
                    end(*halfway.popleft())
                if not self._free and first_half is not None:
                    go_on(*first_half)
                    first_half = None
                    if halfway:
                        end(*halfway.popleft())
                way = attempt(index, lambda frame=frame: self._start(frame, progress))  # type: ignore[misc]
                if first_half is not None:
                    go_on(*first_half)
                first_half = None if way is None else (index, way)
            if first_half is not None:
                go_on(*first_half)
            while halfway:
                end(*halfway.popleft())
        return answers

    def score_prepared(self, prepared: Prepared, progress: Progress) -> Scores:
        """As ``Engine.score_prepared``."""
        with self._used():
            way = self._taken(progress)

            def run() -> Scores:
                way.prepared = prepared
                with self._device.on(way.lane.main):
                    self._device.write(way.lane.number, np.array([way.number], dtype=np.uint32))
                way.lane.start_prepared(prepared)
                self._second(way)
                return self._finish(way)

            scores = self._guarded(way, run)
            self._free.append(way.lane)
            return scores

    def begin_serving(self) -> None:
        """As ``Engine.begin_serving``: nothing is allocated on the device, and Python's collector is frozen."""
        if not self._serving:
            self._serving = True
            gc_freeze.freeze()

    def idle(self) -> None:
        """As ``Engine.idle``: from time to time do the work of a frame, which keeps the device awake."""
        if self._lost is not None:
            raise self._lost
        settings, now_ns = self._settings, time.monotonic_ns()
        resting = now_ns - self._last_frame_ns > settings.keep_warm_for_s * 10**9
        if not settings.keep_warm_ms or resting or now_ns - self._last_warm_ns < settings.keep_warm_ms * 10**6:
            return
        with self._used():
            way = self._taken(lambda stage: None)

            def run() -> None:
                way.lane.replay_idle()
                self._wait(way.lane.answer_event)

            self._guarded(way, run)
            self._free.append(way.lane)
        self._last_warm_ns = time.monotonic_ns()

    def measure_stages(self, seconds: Callable[[Enqueue], float]) -> dict[str, float]:
        """``seconds`` of each stage of the frame that was scored last, by name (``Lane.stages``); for benchmarks."""
        lane = self._lanes[0]
        with self._used(), self._device.on(lane.main):
            return {name: seconds(enqueue) for name, enqueue in lane.stages()}

    def search_stats(self) -> dict[str, dict[str, int]]:
        """For the last scored frame: queries left to the float32 pass, and those within float32's margin there."""
        answer = self._lanes[0].read_answer()
        rows = {name: answer[f"{name}_stats"].tolist() for name in self._network.modalities}
        return {name: {"unsettled": row[1], "within_margin": row[2]} for name, row in rows.items()}

    def close(self) -> None:
        """As ``Engine.close``. What a lost device does not free is freed when the process ends."""
        if self._closed:
            return
        self._closed = True
        _open_engines.discard(self)
        if self._serving:
            gc_freeze.thaw()
        try:
            with self._device.current():
                if self._lost is None:
                    for lane in self._lanes:
                        lane.close()
                    self._graphs.close()
        except EngineError as error:
            self._lost = self._lost or EngineLostError(f"the device could not be released: {error}")
        self._lanes.clear()
        self._device.close()

    # ------------------------------------------------------------------ a frame's way

    def _start(self, frame: Frame, progress: Progress) -> UnderWay:
        """Send the frame and enqueue its first half. Raises FrameRefused for what needs no pixel to be seen."""
        self._last_frame_ns = time.monotonic_ns()
        refuse_size(frame, self._geometry)
        frame = as_declared(frame, self._geometry)
        depth = frame.xyz is None
        rays = pixel_rays(frame.intrinsics, *frame.shape_px) if depth and frame.intrinsics is not None else None
        way = self._taken(progress)

        def run() -> UnderWay:
            lane, staging = way.lane, self._stagings[way.number % len(self._stagings)]
            if staging.used:
                self._wait(staging.sent)
            if rays is not None and self._rays_of.get(id(lane)) != frame.intrinsics:
                assert frame.intrinsics is not None
                with self._device.on(lane.main):
                    self._device.write(lane.rays, rays)
                self._rays_of[id(lane)] = frame.intrinsics
            staging.send(frame, way.number, lane)
            lane.start(frame, depth=depth)
            return way

        started = self._guarded(way, run)
        way.lap("pre")
        return started

    def _second(self, way: UnderWay) -> bool:
        """Read the head; refuse the frame, or enqueue its second half. True, for it never ends with nothing."""
        lane = way.lane
        self._wait(lane.head_event)
        head = lane.read_head()
        check_number(head, way.number)
        if way.prepared is not None:
            way.window, way.silhouette = way.prepared.window, way.prepared.silhouette
        else:
            refuse(head["figures"], self._geometry)
        if "points" in head and int(head["points"][0]) == 0:
            raise EngineError("no points to sample; too few valid points should have been refused before")
        way.empty = int(head["filled"][0]) == 0
        check_fault(int(head["fault"][0]) & ~(EMPTY if way.empty else 0))
        larger = bool(head["larger"][0])
        if larger and not lane.has_larger:
            raise EngineError(
                f"the frame has more non-empty patches than the bundle's {lane.slots} slots and the bundle holds no "
                "adaptor_points_full.onnx; calibrate with frames as full as this one, or export with the larger graph"
            )
        if not way.empty:
            lane.finish(larger)
        if way.prepared is None:
            # While the device goes on.
            figures = lane.pre.read_figures(head["figures"], head["window"], head["heights"], head["ends"])
            way.window, way.silhouette = figures.window, figures.silhouette
        way.lap("points")
        return True

    def _finish(self, way: UnderWay) -> Scores:
        """Read the answer."""
        grid = of_window(self._network).grid
        if way.empty:
            nothing = ModalityScores(np.zeros((grid, grid), dtype=np.float32), 0.0)
            scored = np.zeros((grid, grid), dtype=bool)
            return way.scores({name: nothing for name in self._network.modalities}, scored)
        self._wait(way.lane.answer_event)
        answer = way.lane.read_answer()
        check_number(answer, way.number)
        check_fault(int(answer["fault"][0]))
        scored = answer["scored"].astype(bool)
        modalities = {name: modality_of(answer, name, scored) for name in self._network.modalities}
        way.lap("knn")
        return way.scores(modalities, scored)

    def _taken(self, progress: Progress) -> UnderWay:
        self._number = self._number % (2**32 - 1) + 1  # never 0, which is the number of no frame
        return UnderWay(self._free.pop(), self._number, StageClock(progress), time.perf_counter_ns())

    # ------------------------------------------------------------------ waiting and failing

    def _wait(self, event: Event) -> None:
        """Raises EngineError when the device has not come so far within ``[engine] device_wait_ms``."""
        wait(self._device, event, self._settings.wait_ms)

    def _guarded(self, way: UnderWay, step: Callable[[], T]) -> T:
        """Do one step of a frame. Where it fails the lane is free again once it is idle, or the device is lost."""
        try:
            return step()
        except FrameRefused:
            self._free.append(way.lane)
            raise
        except EngineError as error:
            self._drain(way.lane, error)
            self._free.append(way.lane)
            raise
        except Exception as error:
            told = EngineError(f"{type(error).__name__}: {error}")
            self._drain(way.lane, told)
            self._free.append(way.lane)
            raise told from error

    def _drain(self, lane: Lane, error: EngineError) -> None:
        """Wait until nothing of the lane is in flight. Raises EngineLostError where the device answers no more."""
        try:
            with self._device.on(lane.main):
                self._device.record(self._drained)
            self._wait(self._drained)
        except EngineError as second:
            again = "" if str(second) == str(error) else f"; when probed again: {second}"
            raise self._lose(f"{error}{again}") from error

    def _lose(self, what: str) -> EngineLostError:
        """Give this engine up, and with it every other on the device: they share its context."""
        error = EngineLostError(
            f"{what}; the device is unavailable until this process is restarted (see `asperity doctor`, and dmesg "
            "for Xid errors)"
        )
        for engine in {self, *_open_engines}:
            if engine._device.name == self._device.name:
                engine._lost = engine._lost or error
        return error

    @contextmanager
    def _used(self) -> Iterator[None]:
        """The device for this thread. Raises EngineError once the engine is closed, EngineLostError once it is lost."""
        if self._lost is not None:
            raise self._lost
        if self._closed:
            raise EngineError("the engine is closed")
        with ExitStack() as used:
            try:
                used.enter_context(self._device.current())
            except EngineError as error:
                raise self._lose(str(error)) from error
            yield

    # ------------------------------------------------------------------ what is made

    def _make(self, decision: Decision, banks: Banks, masks: Masks, heights: HeightModel | None) -> None:
        device, settings = self._device, self._settings
        refuse_modalities(self._network)
        covered = covered_pixels(masks, self._geometry)
        plan = LanePlan(
            self._geometry, self._network, decision, covered if covered.any() else None,
            host_banks(device.name, banks, decision, self._network), heights,
        )  # fmt: skip
        self.budget = plan.budget(device, self._graphs, settings.lanes)
        check_room(self.budget, device, settings.recipes, settings.lanes)
        for lane in plan.lanes(device, settings.lanes):
            self._lanes.append(lane)
            lane.connect(self._graphs)
            lane.record()
        self._stagings = [Staging(device, self._geometry) for _ in range(settings.lanes + 1)]
        self._drained = device.event()
        self._rays_of: dict[int, Intrinsics] = {}
        self._free = list(self._lanes)
