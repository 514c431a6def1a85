"""Plans as networks on the device, over a library that records its calls: there is no GPU to run one on.

That the names called exist in the real library is ``tests/export/test_tensorrt.py``'s.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.cuda.environment import Gpu, driver_version, find_gpu
from asperity.runtime.engines.tensorrt.graphs import TensorRtGraphs, open_graphs, plan_cache
from asperity.runtime.engines.tensorrt.library import Library, load_library
from asperity.runtime.engines.tensorrt.plan_cache import PlanCache, PlanFile, PlanKey, PlanSet
from asperity.runtime.errors import EngineError
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.settings.station_toml import StationConfig
from tests.bundle_factory import GRID, IMAGE_PX, RGB_CHANNELS, toy_manifest, write_toy_bundle

IMAGE, TOKENS = (1, 3, IMAGE_PX, IMAGE_PX), (GRID * GRID, RGB_CHANNELS)
ORIN = Gpu("Orin", "8.7", "540.4.0", "12.6")
SCRATCH = 4096


@dataclass
class Context:
    """Records what it is told; ``refuses`` names what it says no to."""

    log: list[str]
    refuses: set[str]
    logger: Any

    def set_device_memory(self, address: int, nbytes: int) -> None:
        self.log.append(f"memory {address:#x} {nbytes}")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.log.append(f"{name} {address:#x}")
        return name not in self.refuses

    def execute_async_v3(self, stream: int) -> bool:
        self.log.append(f"run on {stream}")
        if "run" in self.refuses:
            self.logger.log("ERROR", "Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
            self.logger.log("ERROR", "Error Code 1: Cuda Runtime (in the next call)")
        return "run" not in self.refuses


@dataclass
class FakeTensorRt:
    """As much of the library as is used, for one network ``rgb``."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"image": IMAGE, "tokens": TOKENS})
    refuses: set[str] = field(default_factory=set)
    dtype: str = "float"
    log: list[str] = field(default_factory=list)

    def library(self) -> Library:
        fake = self

        class ILogger:
            Severity = SimpleNamespace(INTERNAL_ERROR="INTERNAL_ERROR", ERROR="ERROR", WARNING="WARNING")

        class Engine:
            device_memory_size_v2 = SCRATCH
            num_io_tensors = len(fake.shapes)

            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def get_tensor_name(self, index: int) -> str:
                return list(fake.shapes)[index]

            def get_tensor_dtype(self, name: str) -> str:
                return fake.dtype

            def get_tensor_mode(self, name: str) -> Any:
                return SimpleNamespace(name="INPUT" if name == "image" else "OUTPUT")

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return fake.shapes[name]

            def create_execution_context(self, strategy: str) -> Context | None:
                fake.log.append(f"context {strategy}")
                return None if "context" in fake.refuses else Context(fake.log, fake.refuses, self.logger)

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
                fake.log.append(f"plan {data!r}")
                if "plan" in fake.refuses:
                    self.logger.log("WARNING", "nothing to worry about")
                    self.logger.log("ERROR", "Serialization assertion stdVersionRead == kVERSION failed.")
                    return None
                return Engine(self.logger)

        module = SimpleNamespace(
            ILogger=ILogger, Runtime=Runtime, float32="float",
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        )  # fmt: skip
        return Library("tensorrt", "10.3.0", module)


class Memory:
    """A device that only gives memory."""

    def __init__(self, log: list[str], room: int = 10**6) -> None:
        self._log, self._room = log, room

    def alloc(self, nbytes: int) -> Any:
        self._log.append(f"alloc {nbytes}")
        if nbytes > self._room:
            raise EngineError(f"no {nbytes} bytes")
        return SimpleNamespace(address=0x1000, nbytes=nbytes)


def plans(folder: Path, **other: object) -> PlanSet:
    data = b"PLAN"
    key = PlanKey(bundle="b" * 64, precision="fp16", softmax="half", library="tensorrt", version="10.3.0", gpu=ORIN)
    made = PlanFile("rgb", len(data), hashlib.sha256(data).hexdigest(), "0" * 64, 1.0)
    return PlanCache(folder / "engines", 10**6).store(msgspec.structs.replace(key, **other), {"rgb": (data, made)}, "0")


def opened(fake: FakeTensorRt, folder: Path, room: int = 10**6) -> TensorRtGraphs:
    network = toy_manifest("none").network
    return TensorRtGraphs(plans(folder), network, Memory(fake.log, room), fake.library())  # type: ignore[arg-type]


def test_memory_is_taken_when_a_graph_is_made_and_nothing_afterwards(tmp_path: Path) -> None:
    fake = FakeTensorRt()
    graphs = opened(fake, tmp_path)
    assert (graphs.runtime, graphs.precision, graphs.names()) == ("tensorrt 10.3.0", "fp16", frozenset({"rgb"}))
    assert (graphs.nbytes("rgb").weights, graphs.nbytes("rgb").scratch) == (4, SCRATCH)
    graph = graphs.graph("rgb")
    assert (graph.inputs, graph.outputs) == ({"image": IMAGE}, {"tokens": TOKENS})
    graph.bind({"image": 0x100, "tokens": 0x200})
    before = list(fake.log)
    assert before == [
        "plan b'PLAN'", f"alloc {SCRATCH}", "context USER_MANAGED", f"memory 0x1000 {SCRATCH}", "image 0x100",
        "tokens 0x200",
    ]  # fmt: skip
    graph.enqueue(7)
    graph.enqueue(7)
    assert fake.log[len(before) :] == ["run on 7", "run on 7"]
    graph.close()
    graph.close()
    with pytest.raises(EngineError, match="the graph of rgb is closed"):
        graph.enqueue(7)
    graphs.close()
    graphs.close()
    with pytest.raises(EngineError, match="closed"):
        graphs.graph("rgb")


def test_every_refusal_of_the_library_is_an_error_with_its_first_words(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"does not open rgb\.plan \(Serialization assertion.*engines remove"):
        opened(FakeTensorRt(refuses={"plan"}), tmp_path / "a")
    with pytest.raises(EngineError, match="could not create an execution context"):
        opened(FakeTensorRt(refuses={"context"}), tmp_path / "b").graph("rgb")
    graph = opened(FakeTensorRt(refuses={"run", "tokens"}), tmp_path / "c").graph("rgb")
    with pytest.raises(EngineError, match="tokens cannot be placed at 0x200"):
        graph.bind({"image": 0x100, "tokens": 0x200})
    with pytest.raises(EngineError, match=r"was not enqueued .*illegal memory access"):
        graph.enqueue(1)
    with pytest.raises(EngineError, match="no 4096 bytes"):
        opened(FakeTensorRt(), tmp_path / "d", room=100).graph("rgb")
    with pytest.raises(EngineError, match="hold no points; they hold rgb"):
        opened(FakeTensorRt(), tmp_path / "e").graph("points")


def test_names_that_are_missing_or_strange_are_not_bound(tmp_path: Path) -> None:
    graph = opened(FakeTensorRt(), tmp_path).graph("rgb")
    for addresses in ({"image": 1}, {"image": 1, "tokens": 2, "more": 3}, {}):
        with pytest.raises(EngineError, match="has the tensors"):
            graph.bind(addresses)


@pytest.mark.parametrize(
    "fake",
    [
        FakeTensorRt(shapes={"image": IMAGE, "tokens": (1, *TOKENS)}),
        FakeTensorRt(shapes={"picture": IMAGE, "tokens": TOKENS}),
        FakeTensorRt(shapes={"image": IMAGE}),
        FakeTensorRt(dtype="half"),
    ],
)
def test_a_plan_of_another_network_is_refused(fake: FakeTensorRt, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has the tensors|is not float32"):
        opened(fake, tmp_path)


def test_float32_softmax_is_told(tmp_path: Path) -> None:
    fake, network = FakeTensorRt(), toy_manifest("none").network
    for other, told in (
        ({"softmax": "fp32"}, "fp16, softmax fp32"),
        ({"precision": "fp32", "softmax": "fp32"}, "fp32"),
        ({"precision": "int8"}, "int8"),
    ):
        graphs = TensorRtGraphs(plans(tmp_path, **other), network, Memory([]), fake.library())  # type: ignore[arg-type]
        assert graphs.precision == told


def test_a_recipe_without_built_networks_says_how_to_build_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = write_toy_bundle(tmp_path / "bundle", TrustStore(tmp_path / "keys"))
    bundle = open_bundle(toy.path, toy.trust)
    config = msgspec.structs.replace(
        StationConfig(), engine=msgspec.structs.replace(StationConfig().engine, cache=str(tmp_path / "engines"))
    )
    fake = FakeTensorRt()
    monkeypatch.setattr("asperity.runtime.engines.tensorrt.graphs.load_library", fake.library)
    monkeypatch.setattr("asperity.runtime.engines.tensorrt.graphs.find_gpu", lambda index: ORIN)
    with pytest.raises(EngineError, match="engines build BUNDLE --precision fp16"):
        open_graphs(bundle, config, Memory([]))  # type: ignore[arg-type]
    data = b"PLAN"
    key = PlanKey(bundle.digest, "fp16", "half", "tensorrt", "10.3.0", ORIN)
    file = PlanFile("rgb", len(data), hashlib.sha256(data).hexdigest(), "0" * 64, 1.0)
    plan_cache(config).store(key, {"rgb": (data, file)}, "0")
    assert open_graphs(bundle, config, Memory([])).names() == {"rgb"}  # type: ignore[arg-type]


def test_a_library_that_is_missing_or_of_another_version_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    (tmp_path / "tensorrt_rtx.py").write_text("__version__ = '1.2.0'\nRuntime = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    with patch.dict(sys.modules):  # as it was afterwards: other tests ask whether the library is installed
        for name in ("tensorrt", "tensorrt_rtx"):
            sys.modules.pop(name, None)
        with pytest.raises(EngineError, match=r"tensorrt does not load .*libnvinfer.*pip install .*'tensorrt<12,>=10"):
            load_library()
        with pytest.raises(EngineError, match=r"of version 1\.2\.0.*from 1\.4 to below 2"):
            load_library("tensorrt-rtx")
        del sys.modules["tensorrt_rtx"]
        (tmp_path / "tensorrt_rtx.py").write_text("nothing = 1")
        with pytest.raises(EngineError, match="another package"):
            load_library("tensorrt-rtx")


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path) -> None:
    assert find_gpu(0, library="libnone-of-this-name.so.1") is None
    assert driver_version(tmp_path / "absent") == ""
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\nGCC version: 11.4.0\n"
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == "540.4.0"
