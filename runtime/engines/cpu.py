"""The CPU engine: preprocessing, points and nearest neighbour in numpy, the networks in ONNX Runtime.

RGB and points are independent, so with two cores or more their branches run in parallel. A network may use all cores:
the branches never take equally long, and the other's network uses the cores that one leaves idle. BLAS, whose waiting
threads spin, is limited to half of the cores in either branch.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime as ort
from threadpoolctl import ThreadpoolController

from asperity.runtime.bundle.banks import Banks
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.engines import Engine, Progress
from asperity.runtime.errors import EngineError, first_line
from asperity.runtime.frame import (
    BoolArray,
    EngineInfo,
    FloatArray,
    Frame,
    ModalityName,
    ModalityScores,
    Prepared,
    Scores,
)
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.process.processors import usable_processors
from asperity.runtime.vision.distances import modality_scores
from asperity.runtime.vision.features import (
    StageClock,
    adapted_points,
    adapted_rgb,
    picture_tokens,
    prepared_features,
    refuse_unknown,
    shape_patches,
)
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.preprocess import Masks, prepare

NAME = "cpu"
PRECISION = "fp32"

T = TypeVar("T")


class OnnxNetworks:
    """``runtime.vision.features.Networks`` over ONNX Runtime sessions, by the graph names of a bundle.

    ``graphs``: model bytes by name: rgb, points, and where there are adaptors adaptor_rgb, adaptor_points and, for
    frames of more non-empty patches than slots, adaptor_points_full. Raises EngineError when a graph does not load.
    """

    def __init__(self, graphs: Mapping[str, bytes], network: Network, threads: int) -> None:
        self._slots = network.points_slots or network.grid**2
        self._sessions = {name: _session(name, model, threads) for name, model in graphs.items()}

    def rgb(self, image: FloatArray) -> FloatArray:
        """As ``Networks.rgb``."""
        return self._run("rgb", image=image)

    def points(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        """As ``Networks.points``."""
        return self._run("points", groups=groups, centres=centres)

    def adapt_rgb(self, tokens: FloatArray) -> FloatArray:
        """As ``Networks.adapt_rgb``."""
        return self._run("adaptor_rgb", tokens=tokens)

    def adapt_points(self, tokens: FloatArray, counts: FloatArray) -> FloatArray:
        """As ``Networks.adapt_points``; the larger graph takes what does not fit the slots."""
        if len(tokens) == self._slots:
            return self._run("adaptor_points", tokens=tokens, counts=counts)
        if "adaptor_points_full" not in self._sessions:
            raise EngineError(
                f"the frame has more non-empty patches than the bundle's {self._slots} slots and the bundle holds no "
                "adaptor_points_full.onnx; calibrate with frames as full as this one, or export with the larger graph"
            )
        return self._run("adaptor_points_full", tokens=tokens, counts=counts)

    def close(self) -> None:
        """Drops the sessions."""
        self._sessions.clear()

    def _run(self, name: str, **inputs: FloatArray) -> FloatArray:
        session = self._sessions.get(name)
        if session is None:
            raise EngineError(f"the engine is closed, or the bundle holds no {name}.onnx")
        try:
            output: FloatArray = session.run(None, inputs)[0]
        except Exception as error:  # ONNX Runtime's own errors share no base class
            raise EngineError(f"{name}.onnx failed: {first_line(error)}") from error
        return output


class CpuEngine(Engine):
    """Scores frames on the CPU. One thread at a time may use it (``runtime.engines.Engine``)."""

    def __init__(
        self,
        geometry: Geometry,
        network: Network,
        graphs: Mapping[str, bytes],
        banks: Banks,
        masks: Masks | None = None,
        threads: int | None = None,
        heights: HeightModel | None = None,
    ) -> None:
        """``threads``: cores to use; None: all of this process's. Raises EngineError when a graph does not load."""
        threads = usable_processors() if threads is None else threads
        if threads < 1:
            raise EngineError(f"threads is {threads} and must be 1 or more")
        refuse_unknown(network.modalities)
        self._geometry, self._network, self._masks = geometry, network, masks
        self._threads = threads
        self._branch_threads = max(1, threads // 2)
        self._networks = OnnxNetworks(graphs, network, threads)
        self._beside: Executor = ThreadPoolExecutor(1, "rgb") if threads > 1 else _Here()
        self._blas = ThreadpoolController()
        self._banks, self._heights = banks, heights

    @classmethod
    def open(cls, bundle: Bundle, threads: int | None = None) -> CpuEngine:
        """The engine of a verified bundle. Raises EngineError; ``engines.parity_gate`` decides whether it may judge."""
        manifest = bundle.manifest
        return cls(
            manifest.geometry,
            manifest.network,
            {name: bundle.graph(name) for name in bundle.graph_names()},
            bundle.banks(),
            Masks(bundle.inspect_mask(), bundle.ignore_mask()),
            threads,
            bundle.heights(),
        )

    def describe(self) -> EngineInfo:
        """Name, processor with thread count, precision."""
        return EngineInfo(NAME, f"{processor_name()}, {self._threads} threads", PRECISION)

    def score(self, frame: Frame, progress: Progress) -> Scores:
        """As ``Engine.score``."""
        clock = StageClock(progress)
        since_ns = time.perf_counter_ns()
        with self._held_blas():
            prepared = prepare(frame, self._geometry, self._network, self._masks, self._heights)
            clock.lap("pre", since_ns)
            return self._scored(prepared, clock)

    def score_prepared(self, prepared: Prepared, progress: Progress) -> Scores:
        """As ``Engine.score_prepared``."""
        with self._held_blas():
            return self._scored(prepared, StageClock(progress))

    def close(self) -> None:
        """As ``Engine.close``."""
        self._networks.close()
        self._beside.shutdown()

    def _scored(self, prepared: Prepared, clock: StageClock) -> Scores:
        pictures = self._start(self._picture_features, prepared, clock)
        features, nonempty = shape_patches(prepared, self._network, self._networks, clock)
        if "points" in features:
            features["points"] = adapted_points(features["points"], nonempty, self._network, self._networks, clock)
        features |= prepared_features(prepared, self._network)
        scored = nonempty & prepared.inspect
        # All searches start here, so that whichever branch was longer, they are shared between the two threads.
        found = self._searched(features, scored, clock)
        found |= self._searched(pictures.result(), scored, clock)
        return Scores(
            {name: found[name] for name in self._network.modalities}, scored, prepared.window, prepared.silhouette,
            clock.stage_us, tuple(clock.spans),
        )  # fmt: skip

    def _searched(
        self, features: dict[ModalityName, FloatArray], scored: BoolArray, clock: StageClock
    ) -> dict[ModalityName, ModalityScores]:
        beside = self._beside if self._threads > 1 else None
        since_ns = time.perf_counter_ns()
        found = {name: modality_scores(one, scored, self._banks[name], beside) for name, one in features.items()}
        clock.lap("knn", since_ns)
        return found

    def _held_blas(self) -> AbstractContextManager[Any]:
        """BLAS on a branch's share of the cores, preparation included: its threads spin on after a product."""
        limit: AbstractContextManager[Any] = self._blas.limit(limits=self._branch_threads, user_api="blas")
        return limit

    def _start(self, task: Callable[..., T], *arguments: object) -> Future[T]:
        try:
            return self._beside.submit(task, *arguments)
        except RuntimeError as error:
            raise EngineError("the engine is closed") from error

    def _picture_features(self, prepared: Prepared, clock: StageClock) -> dict[ModalityName, FloatArray]:
        tokens = picture_tokens(prepared, self._network, self._networks, clock)
        tokens["rgb"] = adapted_rgb(tokens["rgb"], self._network, self._networks, clock)
        return tokens


class _Here(Executor):
    """Runs a task at once in the calling thread: what one core has in place of a second thread."""

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def processor_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "processor not named"


def _session(name: str, model: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin would take the other branch's core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise EngineError(f"{name}.onnx does not load: {first_line(error)}; export the bundle again") from error
