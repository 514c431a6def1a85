"""Real engines by TensorRT-RTX, which builds without a GPU; what only a GPU can show is not shown here.

`make trt-tools` installs it. Without it these tests are skipped by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from asperity.calibration.networks import TorchNetworks
from asperity.export.onnx import export_graphs
from asperity.export.precision import derived_graph
from asperity.export.quantize import activation_ranges
from asperity.export.tensorrt import BuildOptions, build_engines, build_plan
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.cuda.environment import Gpu
from asperity.runtime.engines.tensorrt.build import BackgroundBuild
from asperity.runtime.engines.tensorrt.graphs import plan_cache
from asperity.runtime.engines.tensorrt.library import Library, load_library
from asperity.runtime.engines.tensorrt.plan_cache import PlanCache, PlanSet, Precision, Softmax, find_served, plan_key
from asperity.runtime.errors import EngineError, ParityError
from asperity.runtime.manifest import Network
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.settings.station_toml import StationConfig
from tests.bundle_factory import ToyBundle, write_toy_bundle
from tests.export.exported import contents, inputs_of, whole

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (make trt-tools)")

FORMS: list[tuple[Precision, Softmax]] = [("fp32", "fp32"), ("fp16", "half"), ("int8", "half"), ("fp16", "fp32")]
H100 = Gpu("NVIDIA H100", "9.0", "580.1", "13.0")


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library("tensorrt-rtx")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyBundle:
    folder = tmp_path_factory.mktemp("toy")
    return write_toy_bundle(folder / "bundle", TrustStore(folder / "keys"), "lsfa")


@pytest.fixture(scope="module")
def bundle(toy: ToyBundle) -> Bundle:
    return open_bundle(toy.path, toy.trust)


def weight_nbytes(model: bytes) -> int:
    import onnx
    from onnx import numpy_helper

    return sum(numpy_helper.to_array(tensor).nbytes for tensor in onnx.load_from_string(model).graph.initializer)


def check_engines(graphs: dict[str, bytes], given: Network, library: Library) -> None:
    """Every graph in every form becomes an engine that holds its weights in that form's size."""
    inputs = inputs_of(given)
    for name, model in graphs.items():
        if name == "adaptor_points_full":
            continue  # adaptor_points with more tokens
        ranges = activation_ranges(model, name, [inputs[name]])
        sizes = {}
        for precision, softmax in FORMS if name == "adaptor_rgb" else FORMS[:3]:
            form = derived_graph(model, name, precision, softmax, ranges)
            plan = build_plan(library, form, name).plan
            # An engine is its weights and its kernels' code: it can hardly be smaller than the weights alone.
            assert len(plan) > 0.8 * weight_nbytes(form), (name, precision)
            sizes[precision, softmax] = len(plan)
        if weight_nbytes(model) > 4e6:
            assert sizes["fp16", "half"] < 0.8 * sizes["fp32", "fp32"], (name, sizes)


def test_lite(lite: tuple[TorchNetworks, Network, list[Path]], lite_graphs: dict[str, bytes], library: Library) -> None:
    check_engines(lite_graphs, lite[1], library)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["edge", "paper"])
def test_whole_profile(name: str, tmp_path: Path, library: Library) -> None:
    networks, given = whole(name)
    check_engines(contents(export_graphs(networks, given, tmp_path)), given, library)


def test_a_graph_that_cannot_be_parsed_or_built_is_named(library: Library) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    node = helper.make_node("Unheard", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(EngineError, match=r"tensorrt-rtx 1\.\S+ does not parse toy\.onnx: .*Unheard"):
        build_plan(library, model.SerializeToString(), "toy")
    with pytest.raises(EngineError, match=r"does not parse toy\.onnx"):
        build_plan(library, b"no model", "toy")


def test_a_set_of_a_bundle_lies_in_the_cache_and_is_found_again(
    bundle: Bundle, library: Library, tmp_path: Path
) -> None:
    cache = PlanCache(tmp_path / "engines", 10**8)
    said: list[str] = []
    for precision in ("fp32", "fp16", "int8"):
        built = build_engines(bundle, cache, library, None, BuildOptions(precision), said.append)
        assert built.graphs == bundle.graph_names()
        found = cache.find(built.record.key)
        assert found is not None and found.record == built.record
        assert all(len(found.read(name)) > 100 for name in found.graphs)
        forms = {file.graph: file.onnx_sha256 for file in built.record.files}
        signed = {file.path: file.sha256 for file in bundle.manifest.files}
        assert (signed["rgb.onnx"] == forms["rgb"]) == (precision == "fp32")
    assert len(said) == 3 * len(bundle.graph_names())
    # No engine serves what was built without a GPU, nor on another.
    with pytest.raises(EngineError, match="no GPU was found"):
        find_served(cache, plan_key(bundle.digest, "fp16", "half", library, None))
    with pytest.raises(EngineError, match="engines build BUNDLE --precision fp16"):
        find_served(cache, plan_key(bundle.digest, "fp16", "half", library, H100))


class Attempts:
    """Stands for an engine on a GPU: says which sets the gate refuses, and how long a frame takes."""

    def __init__(self, refused: set[str], frame_ms: dict[str, float]) -> None:
        self.refused, self.frame_ms, self.seen = refused, frame_ms, list[str]()

    def __call__(self, plans: PlanSet) -> float:
        key = plans.record.key
        form = f"{key.precision} {key.softmax}"
        self.seen.append(form)
        if form in self.refused:
            raise ParityError(f"{form} is wrong")
        return self.frame_ms.get(key.precision, 1.0)


def test_softmax_goes_to_float32_only_where_the_gate_refuses_half(
    bundle: Bundle, library: Library, tmp_path: Path
) -> None:
    cache = PlanCache(tmp_path / "engines", 10**8)
    attempts = Attempts({"fp16 half"}, {})
    built = build_engines(bundle, cache, library, None, BuildOptions("fp16"), str, attempts)
    assert built.record.key.softmax == "fp32" and attempts.seen == ["fp16 half", "fp16 fp32"]
    assert [found.record.key.softmax for found in cache.survey()[0]] == ["fp32"]
    attempts = Attempts({"fp16 half", "fp16 fp32"}, {})
    with pytest.raises(ParityError, match="no engine of precision fp16 reproduces the bundle: fp16 fp32 is wrong"):
        build_engines(bundle, cache, library, None, BuildOptions("fp16"), str, attempts)
    assert cache.survey()[0] == []


def test_int8_is_timed_against_fp16_and_that_is_written_down(bundle: Bundle, library: Library, tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "engines", 10**8)
    attempts = Attempts(set(), {"int8": 0.9, "fp16": 1.1})
    built = build_engines(bundle, cache, library, None, BuildOptions("int8"), str, attempts)
    assert attempts.seen == ["int8 half", "fp16 half", "fp16 half"]  # fp16 was missing: built, proven, timed
    assert built.record.trial is not None
    assert (built.record.trial.frame_ms, built.record.trial.rival_frame_ms) == (0.9, 1.1)
    again = cache.find(built.record.key)
    assert again is not None and again.record.trial == built.record.trial


def test_tensorrt_itself_builds_only_on_its_gpu(bundle: Bundle, library: Library, tmp_path: Path) -> None:
    full = Library("tensorrt", "10.3.0", library.module)
    with pytest.raises(EngineError, match="builds only on the GPU"):
        build_engines(bundle, PlanCache(tmp_path, 10**8), full, None, BuildOptions("fp32"), str)


def test_building_needs_neither_torch_nor_the_calibration(toy: ToyBundle, tmp_path: Path) -> None:
    """On a Jetson there is only onnx and TensorRT: the command runs with everything else out of reach."""
    program = """
import sys
absent = {"torch", "onnxscript", "open3d", "sklearn", "matplotlib", "calibration", "benchmarks"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is out of reach", name=name)
sys.meta_path.insert(0, Absent())
from asperity.export.commands.engines import app
app(["build", sys.argv[1], "--precision", sys.argv[2], "--cache", sys.argv[3], "--keys", sys.argv[4]])
"""
    for precision in ("fp16", "int8"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(toy.path), precision, str(tmp_path / "engines"), str(toy.trust.folder)],
            capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"{precision}, softmax half" in done.stdout


def test_the_stations_own_command_builds_in_the_background(toy: ToyBundle, bundle: Bundle, tmp_path: Path) -> None:
    whole = StationConfig()
    engine = msgspec.structs.replace(whole.engine, cache=str(tmp_path / "engines"), trust=str(toy.trust.folder))
    config = msgspec.structs.replace(whole, engine=engine)
    build = BackgroundBuild(toy.path, config)
    end_s = time.monotonic() + 280
    while not build.done():
        assert time.monotonic() < end_s
        time.sleep(0.05)
    sets, unusable = plan_cache(config).survey()
    assert [(one.record.key.bundle, one.record.key.precision) for one in sets] == [(bundle.digest, "fp16")]
    assert unusable == {}


def test_names_used_of_the_library_are_there(library: Library) -> None:
    """``runtime.engines.tensorrt.graphs`` meets no GPU here; that it uses names which exist can be shown."""
    trt = library.module
    used = {
        trt.Runtime: ["deserialize_cuda_engine"],
        trt.ICudaEngine: [
            "create_execution_context", "device_memory_size_v2", "num_io_tensors", "get_tensor_name",
            "get_tensor_dtype", "get_tensor_mode", "get_tensor_shape",
        ],
        trt.IExecutionContext: ["set_device_memory", "set_tensor_address", "execute_async_v3"],
        trt.ExecutionContextAllocationStrategy: ["USER_MANAGED"],
        trt.TensorIOMode: ["INPUT", "OUTPUT"],
    }  # fmt: skip
    assert [name for kind, names in used.items() for name in names if not hasattr(kind, name)] == []
    assert trt.float32 == trt.DataType.FLOAT
    assert np.dtype(trt.nptype(trt.float32)) == np.float32
