"""A bundle's networks as TensorRT plans, built on the machine that will run them: strongly typed, from the signed ONNX.

Needs `onnx` and one of the two libraries behind ``runtime.engines.tensorrt.library``, no torch. `tensorrt` builds only
on the GPU it builds for; `tensorrt-rtx` also without one, which is how this code is tested everywhere.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from asperity import runtime
from asperity.export.precision import derived_graphs
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.cuda.environment import Gpu
from asperity.runtime.engines.tensorrt.library import Library, Said, new_logger
from asperity.runtime.engines.tensorrt.plan_cache import (
    PlanCache,
    PlanFile,
    PlanKey,
    PlanSet,
    Precision,
    Softmax,
    Trial,
    plan_key,
)
from asperity.runtime.errors import EngineError, ParityError

Say = Callable[[str], None]
Try = Callable[[PlanSet], float]
"""Opens an engine with the plans, has the gate prove it and returns the median milliseconds of a frame.

Raises ParityError when the engine must not judge."""
MAX_ERRORS = 3


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build."""

    precision: Precision
    softmax: Literal["auto", "half", "fp32"] = "auto"
    """auto: half, and fp32 where the gate refuses half."""
    workspace_nbytes: int = 2 * 2**30
    """Device memory that a kernel may take while kernels are tried."""
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Built:
    """A plan and the kernel timings learnt with it (empty where the library keeps none)."""

    plan: bytes
    timing: bytes


def build_plan(
    library: Library, model: bytes, name: str, *, timing: bytes = b"", gpu: Gpu | None = None, workspace_nbytes: int = 0
) -> Built:
    """One graph's plan. Raises EngineError with the library's message when it cannot be parsed or built."""
    trt = library.module
    logger, said = new_logger(library)
    builder = trt.Builder(logger)
    network = _parsed(library, builder, model, name, logger, said)
    config = builder.create_builder_config()
    # fp32 means float32: TF32 keeps 10 bits of 23.
    config.clear_flag(trt.BuilderFlag.TF32)
    # The engine's own streams are enough; a plan that forks would not be captured with them.
    config.max_aux_streams = 0
    if workspace_nbytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_nbytes)
    if library.times_kernels:
        config.set_timing_cache(config.create_timing_cache(timing), ignore_mismatch=False)
    elif gpu is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    said.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{library.label} does not build {name}.onnx: {said.first()}")
    learnt = bytes(memoryview(config.get_timing_cache().serialize())) if library.times_kernels else b""
    return Built(bytes(memoryview(plan)), learnt)


def _parsed(library: Library, builder: Any, model: bytes, name: str, logger: Any, said: Said) -> Any:
    trt = library.module
    # TensorRT 11 knows no other networks and may drop the name.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(min(parser.num_errors, MAX_ERRORS))]
        told = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
        told = told or said.first()
        raise EngineError(f"{library.label} does not parse {name}.onnx: {told}")
    return network


def build_set(
    bundle: Bundle, key: PlanKey, cache: PlanCache, library: Library, options: BuildOptions, say: Say
) -> PlanSet:
    """Build every network of a bundle for a key and put the set into the cache. Raises EngineError, BundleError."""
    if key.gpu is None and library.times_kernels:
        raise EngineError(
            f"{library.label} builds only on the GPU that it builds for, and none is found; run this on the station's "
            "machine, or give --library tensorrt-rtx to try without a GPU"
        )
    plans: dict[str, tuple[bytes, PlanFile]] = {}
    for name, model in derived_graphs(bundle, key.precision, key.softmax, options.threads):
        start_ns = time.perf_counter_ns()
        timing = cache.timing(key) if library.times_kernels else b""
        built = build_plan(library, model, name, timing=timing, gpu=key.gpu, workspace_nbytes=options.workspace_nbytes)
        build_s = (time.perf_counter_ns() - start_ns) / 1e9
        if built.timing and built.timing != timing:
            cache.store_timing(key, built.timing)
        sha256, onnx_sha256 = (hashlib.sha256(data).hexdigest() for data in (built.plan, model))
        plans[name] = built.plan, PlanFile(name, len(built.plan), sha256, onnx_sha256, round(build_s, 3))
        say(f"{name}: {len(built.plan) / 1e6:.1f} MB in {build_s:.1f} s")
    return cache.store(key, plans, runtime.__version__)


def build_engines(
    bundle: Bundle, cache: PlanCache, library: Library, gpu: Gpu | None, options: BuildOptions, say: Say,
    attempt: Try | None = None,
) -> PlanSet:  # fmt: skip
    """Build a bundle's networks in a precision and, where ``attempt`` is given, keep them only if the gate passes.

    With softmax ``auto`` half is built first and fp32 where the gate refuses it. int8 is also timed against fp16 (built
    where it is missing), and the outcome is recorded; ``plans.find_served`` goes by that.
    Raises ParityError when no choice passes, EngineError, BundleError.
    """
    choices: tuple[Softmax, ...] = ("half", "fp32") if options.softmax == "auto" else (options.softmax,)
    if options.precision == "fp32":
        choices = ("fp32",)
    refused: ParityError | None = None
    for softmax in choices:
        key = plan_key(bundle.digest, options.precision, softmax, library, gpu)
        plans = build_set(bundle, key, cache, library, options, say)
        if attempt is None:
            return plans
        try:
            frame_ms = attempt(plans)
        except ParityError as error:
            say(f"{options.precision} with softmax in {softmax} is refused: {error}")
            cache.remove(plans.folder.name)
            refused = error
            continue
        if options.precision != "int8":
            return plans
        rival_ms = attempt(_rival(bundle, cache, library, gpu, options, say, attempt))
        return cache.note_trial(plans, Trial(frame_ms=frame_ms, rival="fp16", rival_frame_ms=rival_ms))
    raise ParityError(f"no engine of precision {options.precision} reproduces the bundle: {refused}") from refused


def _rival(
    bundle: Bundle, cache: PlanCache, library: Library, gpu: Gpu | None, options: BuildOptions, say: Say, attempt: Try
) -> PlanSet:
    """The bundle's fp16 set, built where there is none."""
    for softmax in ("half", "fp32"):
        found = cache.find(plan_key(bundle.digest, "fp16", softmax, library, gpu))
        if found is not None:
            return found
    fp16 = BuildOptions("fp16", "auto", options.workspace_nbytes, options.threads)
    return build_engines(bundle, cache, library, gpu, fp16, say, attempt)
