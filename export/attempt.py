"""Trying built networks on their GPU: the bundle's gate first, then the time of a frame.

The whole CUDA engine is opened with them, so what is proven and timed is what a station would run.
"""

from __future__ import annotations

import statistics
import time

from asperity.export.tensorrt import Try
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cuda.frame_device import CudaFrameDevice
from asperity.runtime.engines.cuda import CudaEngine
from asperity.runtime.engines.parity_gate import no_progress, prove
from asperity.runtime.engines.tensorrt.graphs import TensorRtGraphs
from asperity.runtime.engines.tensorrt.library import Library
from asperity.runtime.engines.tensorrt.plan_cache import PlanSet

WARM_FRAMES, TIMED_FRAMES = 20, 100


def gpu_attempt(bundle: Bundle, library: Library, index: int) -> Try:
    """What ``export.tensorrt.build_engines`` tries a set with: raises as opening an engine does, and ParityError."""

    def attempt(plans: PlanSet) -> float:
        engine = _opened(bundle, plans, library, index)
        try:
            prove(bundle, engine, no_progress)
            return median_frame_ms(bundle, engine)
        finally:
            engine.close()

    return attempt


def _opened(bundle: Bundle, plans: PlanSet, library: Library, index: int) -> CudaEngine:
    device = CudaFrameDevice(index)
    try:
        with device.current():
            graphs = TensorRtGraphs(plans, bundle.manifest.network, device, library)
    except BaseException:
        device.close()
        raise
    return CudaEngine.open(bundle, device, graphs)


def median_frame_ms(bundle: Bundle, engine: CudaEngine) -> float:
    """Median wall time of the golden frames in turn, back to back, after a warm-up."""
    frames = [frame for _, frame in bundle.golden_frames()]
    times_ms = []
    for number in range(WARM_FRAMES + TIMED_FRAMES):
        start_ns = time.perf_counter_ns()
        engine.score(frames[number % len(frames)], no_progress)
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return statistics.median(times_ms[WARM_FRAMES:])
