"""The loader without a GPU: what it says where something is missing, and what it hands to the driver.

pycuda and cuda-bindings are replaced by stand-ins that run the kernels on the CPU, so that a wrong argument, size or
attribute shows here. That the real libraries do as the stand-ins do is for a machine with a GPU (``make gpu-check``).
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asperity.runtime.cuda import driver as loader
from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.cuda.choice import ChoiceTable, bucket, choose, file_of
from asperity.runtime.cuda.cublas import Cublas, candidates
from asperity.runtime.cuda.driver import CudaDevice, check_driver
from asperity.runtime.cuda.launch import Launch
from asperity.runtime.cuda.nearest import NearestSearch
from asperity.runtime.cuda.shim import ShimBuffer, ShimDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.vision.nearest import MemoryBank

MOST_SHARED = 99 * 1024


def test_a_machine_without_a_driver_is_told_what_to_do() -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA driver.*nvidia-smi.*cpu engine"):
        check_driver("libcuda-that-is-not-there.so.1")


class Address(int):
    """A device address as pycuda gives it: an owner that is also a number."""


class StandIn:
    """Enough of ``pycuda.driver`` and ``cuda.bindings.driver`` for the loader, on the CPU stand-in."""

    def __init__(self, shim: ShimDevice) -> None:
        self.shim, self.calls = shim, []  # type: ignore[var-annotated]
        self.allocated: dict[int, Any] = {}

    def pycuda(self) -> types.ModuleType:
        module: Any = types.ModuleType("pycuda.driver")
        names = types.SimpleNamespace(
            MULTIPROCESSOR_COUNT=2, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=MOST_SHARED, SHARED_SIZE_BYTES=0
        )
        names.MAX_DYNAMIC_SHARED_SIZE_BYTES = "most"

        class Error(Exception):
            pass

        class LogicError(Error):
            pass

        class Device:
            count = staticmethod(lambda: 1)
            name = staticmethod(lambda: "Stand-in 9000")
            compute_capability = staticmethod(lambda: (9, 0))
            get_attribute = staticmethod(lambda value: value)

            def __init__(self, index: int) -> None: ...

            def retain_primary_context(self) -> Any:
                return types.SimpleNamespace(push=lambda: None, pop=lambda: None)

        class Stream:
            handle = 7

            def synchronize(self) -> None: ...

        module.Error, module.LogicError, module.Device, module.Stream = Error, LogicError, Device, Stream
        module.device_attribute = module.function_attribute = names
        module.init = lambda: None
        module.mem_alloc = self._alloc
        module.memcpy_htod_async = lambda to, source, stream: ctypes.memmove(int(to), source.ctypes.data, source.nbytes)
        module.memcpy_dtoh_async = lambda array, at, stream: ctypes.memmove(array.ctypes.data, int(at), array.nbytes)
        module.module_from_buffer = lambda image: types.SimpleNamespace(get_function=self._function)
        return module

    def bindings(self) -> types.ModuleType:
        module: Any = types.ModuleType("cuda.bindings.driver")

        class Success(int):
            name = "CUDA_SUCCESS"

        good = Success(0)
        names = ("MAX_DYNAMIC_SHARED_SIZE_BYTES", "SHARED_SIZE_BYTES", "NON_PORTABLE_CLUSTER_SIZE_ALLOWED")
        module.CUfunction_attribute = types.SimpleNamespace(**{f"CU_FUNC_ATTRIBUTE_{name}": name for name in names})
        module.CUlaunchAttributeID = types.SimpleNamespace(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION=4)
        module.CUlaunchConfig = types.SimpleNamespace
        module.CUlaunchAttribute = lambda: types.SimpleNamespace(
            value=types.SimpleNamespace(clusterDim=types.SimpleNamespace())
        )
        module.cuModuleLoadData = lambda image: (good, "module")
        module.cuModuleGetFunction = lambda module, name: (good, name.decode())
        module.cuFuncGetAttribute = lambda attribute, function: (good, 1024)
        module.cuFuncSetAttribute = lambda function, attribute, value: self.calls.append((attribute, value)) or (good,)
        module.cuLaunchKernelEx = lambda config, function, pointers, extra: self._launch_ex(
            config, function, pointers, good
        )
        return module

    def _alloc(self, nbytes: int) -> Address:
        buffer = self.shim.alloc(nbytes)
        self.allocated[buffer.address] = buffer
        return Address(buffer.address)

    def _function(self, kernel: str) -> Any:
        if not any(hasattr(library, f"simt_stub_{kernel}") for library in self.shim._libraries):
            raise sys.modules["pycuda.driver"].LogicError("not found")  # type: ignore[attr-defined]

        def launch(*arguments: Any, grid: Any, block: Any, shared: int, stream: Any) -> None:
            assert all(isinstance(a, np.number) for a in arguments), "pycuda takes numpy numbers"
            self.shim.launch(Launch(kernel, grid, block, shared), *arguments)

        class Function:
            get_attribute = staticmethod(lambda attribute: 512)
            set_attribute = staticmethod(lambda attribute, value: self.calls.append((attribute, value)))
            __call__ = staticmethod(launch)

        return Function()

    def _launch_ex(self, config: Any, kernel: str, pointers: int, good: Any) -> tuple[Any]:
        library = self.shim._library(kernel)
        cluster = config.attrs[0].value.clusterDim
        failed = library.simt_launch(
            ctypes.cast(getattr(library, f"simt_stub_{kernel}"), ctypes.c_void_p),
            ctypes.c_void_p(pointers),
            (ctypes.c_uint * 3)(config.gridDimX, config.gridDimY, config.gridDimZ),
            (ctypes.c_uint * 3)(config.blockDimX, config.blockDimY, config.blockDimZ),
            ctypes.c_size_t(config.sharedMemBytes),
            ctypes.c_uint(cluster.x),
            ctypes.c_int(0),
        )
        assert not failed and (cluster.y, cluster.z) == (1, 1) and config.hStream == 7
        return (good,)


@pytest.fixture(scope="module")
def built() -> ShimDevice:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    sources = ("nearest_prepare", "nearest_tensor", "nearest_settle", "nearest_exact", "neighbours")
    return ShimDevice(sources, extra=Path(__file__).parent / "shim_kernels.cu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, built: ShimDevice, tmp_path: Path) -> tuple[StandIn, Path]:
    stand_in = StandIn(built)
    package: Any = types.ModuleType("pycuda")
    package.driver = stand_in.pycuda()
    bindings: Any = types.ModuleType("cuda.bindings")
    bindings.driver = stand_in.bindings()
    for name, module in (("pycuda", package), ("pycuda.driver", package.driver), ("cuda", types.ModuleType("cuda"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(loader, "check_driver", lambda: None)
    fatbin = tmp_path / "asperity.fatbin"
    fatbin.write_bytes(b"image")
    return stand_in, fatbin


def test_a_search_goes_through_the_loader(machine: tuple[StandIn, Path]) -> None:
    stand_in, fatbin = machine
    device = CudaDevice(0, fatbin)
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(90, 152)).astype(np.float32), rng.normal(size=(20, 152)).astype(np.float32)
    search = NearestSearch(device, bank, 20)
    before = len(stand_in.allocated)
    features = device.upload(queries)
    search.enqueue(features)
    search.enqueue_image_distance()
    assert len(stand_in.allocated) == before + 1, "the frame path allocated device memory"
    found = search.result()
    distance, index = MemoryBank(bank).nearest(queries)
    assert (found.index == index).all() and np.allclose(found.distance, distance, rtol=2e-7)
    assert ("most", MOST_SHARED - 512) in stand_in.calls


def test_clusters_go_through_an_attribute_launch(machine: tuple[StandIn, Path]) -> None:
    stand_in, fatbin = machine
    device = CudaDevice(0, fatbin)
    values = np.arange(128, dtype=np.float32)
    out = device.alloc(values.nbytes)
    device.launch(Launch("cluster_neighbour", (2, 1, 1), (64, 1, 1), 256, cluster=2), device.upload(values), out)
    halves = values.reshape(2, 64)
    assert (device.download(out, (2, 64), np.float32) == (halves[:, ::-1] + 2 * halves)).all()
    assert ("NON_PORTABLE_CLUSTER_SIZE_ALLOWED", 1) in stand_in.calls


def test_what_is_missing_is_named_with_its_remedy(machine: tuple[StandIn, Path], tmp_path: Path) -> None:
    _, fatbin = machine
    with pytest.raises(EngineError, match=r"no kernels at .*runtime\.cuda\.build"):
        CudaDevice(0, tmp_path / "absent.fatbin")
    with pytest.raises(EngineError, match="no GPU 3"):
        CudaDevice(3, fatbin)
    device = CudaDevice(0, fatbin)
    with pytest.raises(EngineError, match="no kernel 'absent'"):
        device.launch(Launch("absent", (1, 1, 1), (32, 1, 1)))
    with pytest.raises(EngineError, match="shared memory"):
        device.launch(Launch("staged", (1, 1, 1), (32, 1, 1), shared_bytes=MOST_SHARED + 1))
    with pytest.raises(EngineError, match="do not fit"):
        device.write(device.alloc(8), np.zeros(3))


def test_cublas_is_looked_for_in_pip_packages(tmp_path: Path) -> None:
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libcublas.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    assert candidates([str(tmp_path)]) == ["libcublas.so.13", "libcublas.so.12", str(library)]


class ByColumns:
    """``cublasGemmEx`` as its manual has it, on host memory: everything is stored by columns."""

    def __init__(self) -> None:
        self.status = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *arguments: self.status

    def cublasGemmEx(
        self, handle: Any, op_a: int, op_b: int, m: int, n: int, k: int, alpha: Any, a: Any, a_type: int, lda: int,
        b: Any, b_type: int, ldb: int, beta: Any, c: Any, c_type: int, ldc: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        assert (op_a, op_b, a_type, b_type, c_type, compute, algorithm) == (1, 0, 2, 2, 0, 68, -1)

        def stored(pointer: Any, lead: int, columns: int, dtype: type[np.generic]) -> np.ndarray:
            bytes_ = (ctypes.c_char * (lead * columns * np.dtype(dtype).itemsize)).from_address(pointer.value)
            return np.frombuffer(bytes_, dtype).reshape(columns, lead).T

        left, right = stored(a, lda, m, np.float16)[:k], stored(b, ldb, n, np.float16)[:k]
        stored(c, ldc, n, np.float32)[:m] = left.astype(np.float32).T @ right.astype(np.float32)
        return self.status


def test_the_vendors_product_is_asked_for_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ByColumns()
    monkeypatch.setattr("asperity.runtime.cuda.cublas._load", lambda: library)
    cublas = Cublas(0, ShimBuffer)
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=(5, 64)).astype(np.float16), rng.normal(size=(9, 64)).astype(np.float16)
    out = np.full((5, 9), np.nan, dtype=np.float32)
    cublas.half_product(left.ctypes.data, right.ctypes.data, out.ctypes.data, 5, 9, 64)
    assert np.allclose(out, left.astype(np.float32) @ right.astype(np.float32).T, rtol=1e-5, atol=1e-5)
    library.status = 13
    with pytest.raises(EngineError, match="status 13"):
        cublas.half_product(left.ctypes.data, right.ctypes.data, out.ctypes.data, 5, 9, 64)


def test_the_measured_table_chooses(tmp_path: Path) -> None:
    import msgspec

    assert choose("NVIDIA H100", 784, 8329, 768, tmp_path) == "tensor"
    table = ChoiceTable("NVIDIA H100", "kernels.json", {bucket(784, 8329, 768): "product"})
    file_of("NVIDIA H100", tmp_path).write_bytes(msgspec.json.encode(table))
    assert choose("NVIDIA H100", 900, 9000, 600, tmp_path) == "product"
    assert choose("NVIDIA H100", 3136, 83292, 1152, tmp_path) == "tensor"
    assert bucket(10**6, 10**7, 10**4) == "m<=inf,n<=inf,d<=inf"
    file_of("NVIDIA H100", tmp_path).write_bytes(b'{"device": "other", "measured": "", "paths": {}}')
    with pytest.raises(EngineError, match="measured on other"):
        choose("NVIDIA H100", 784, 8329, 768, tmp_path)
    file_of("NVIDIA H100", tmp_path).write_bytes(b'{"paths": {"x": "fastest"}}')
    with pytest.raises(EngineError, match="not a table of paths"):
        choose("NVIDIA H100", 784, 8329, 768, tmp_path)
