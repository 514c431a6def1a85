"""A case's networks through TensorRT or TensorRT-RTX: the product's own conversion and plans, without a bundle too."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from asperity import runtime
from asperity.benchmarks.gpu.cases import Case
from asperity.export.onnx import export_graphs
from asperity.export.precision import derived_graph
from asperity.export.tensorrt import build_plan
from asperity.runtime.cuda.environment import Gpu, find_gpu
from asperity.runtime.cuda.graph import DeviceGraphs
from asperity.runtime.cuda.launch import Device
from asperity.runtime.engines.tensorrt.graphs import TensorRtGraphs
from asperity.runtime.engines.tensorrt.library import Library, LibraryName, load_library
from asperity.runtime.engines.tensorrt.plan_cache import PlanCache, PlanFile, PlanSet, Precision, Softmax, plan_key
from asperity.runtime.files import put_folder

PRECISION: Precision = "fp16"
SOFTMAX: Softmax = "half"
CACHE_NBYTES = 16 * 2**30
WORKSPACE_NBYTES = 2 * 2**30


def opener(name: LibraryName) -> Callable[[Case, Device, Path], DeviceGraphs]:
    """Opens a case with that library; plans are built if the work folder has none for this GPU."""

    def open_graphs(case: Case, device: Device, work: Path) -> DeviceGraphs:
        library = load_library(name)
        plans = plans_of(case, library, find_gpu(0), work)
        return TensorRtGraphs(plans, case.network, device, library)

    return open_graphs


def plans_of(case: Case, library: Library, gpu: Gpu | None, work: Path) -> PlanSet:
    """The case's plans for this library and GPU, from the cache or built now. Raises EngineError."""
    models = models_of(case, work)
    digest = hashlib.sha256(b"".join(hashlib.sha256(models[name]).digest() for name in sorted(models))).hexdigest()
    key, cache = plan_key(digest, PRECISION, SOFTMAX, library, gpu), PlanCache(work / "engines", CACHE_NBYTES)
    found = cache.find(key)
    if found is not None:
        return found
    plans: dict[str, tuple[bytes, PlanFile]] = {}
    for name, model in models.items():
        start = time.monotonic()
        derived = derived_graph(model, name, PRECISION, SOFTMAX)
        built = build_plan(library, derived, name, gpu=gpu, workspace_nbytes=WORKSPACE_NBYTES)
        sha256, onnx_sha256 = (hashlib.sha256(data).hexdigest() for data in (built.plan, derived))
        seconds = round(time.monotonic() - start, 3)
        plans[name] = built.plan, PlanFile(name, len(built.plan), sha256, onnx_sha256, seconds)
    return cache.store(key, plans, runtime.__version__)


def models_of(case: Case, work: Path) -> dict[str, bytes]:
    """The float32 graphs by name: the bundle's, or exported once into the work folder."""
    if case.bundle is not None:
        return {name: case.bundle.graph(name) for name in case.bundle.graph_names()}
    digest = hashlib.sha256(msgspec.json.encode(case.network))
    for key, tensor in sorted(case.networks.state_dict().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    folder = work / f"onnx-{digest.hexdigest()[:12]}"
    if not folder.is_dir():
        draft = folder.with_suffix(".draft")
        draft.mkdir(parents=True, exist_ok=True)
        export_graphs(case.networks, case.network, draft)
        put_folder(draft, folder)
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.onnx"))}
