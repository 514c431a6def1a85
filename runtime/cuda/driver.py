"""A GPU behind ``launch.Device``: pycuda for context, modules, memory and plain launches.

What pycuda lacks (launches with attributes, graphs) is done by cuda-bindings on the same stream. Neither is imported
before ``libcuda.so.1`` is known to be there, since importing pycuda without it fails with a linker error.
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asperity.runtime.cuda.build import FATBIN
from asperity.runtime.cuda.cublas import Cublas
from asperity.runtime.cuda.launch import Argument, Buffer, Enqueue, Launch
from asperity.runtime.errors import AsperityError, EngineError
from asperity.runtime.extras import install

STATIC_SHARED_BYTES = 48 * 1024
"""Dynamic shared memory that a launch may take without asking."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CudaBuffer:
    """Device memory; ``owner`` keeps it alive."""

    owner: Any
    address: int
    nbytes: int


def check_driver(library: str = "libcuda.so.1") -> None:
    """Raises EngineError where this machine has no NVIDIA driver to load."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        raise EngineError(
            f"there is no NVIDIA driver here ({error}); install it (nvidia-smi must work), start a container with "
            "--gpus all, or use the cpu engine"
        ) from error


def capability_of(index: int) -> tuple[int, int]:
    """Compute capability of a GPU, before any kernel is loaded. Raises EngineError as ``CudaDevice``."""
    device = _device(_pycuda(), index)
    major, minor = device.compute_capability()
    return int(major), int(minor)


class CudaDevice:
    """One GPU, its primary context and one stream. Used by the thread that made it.

    Raises EngineError where driver, GPU, libraries or kernels are missing, with the remedy.
    """

    def __init__(self, index: int = 0, fatbin: Path = FATBIN) -> None:
        cuda = _pycuda()
        if not fatbin.is_file():
            raise EngineError(f"no kernels at {fatbin}; run: python -m asperity.runtime.cuda.build (needs nvcc)")
        self._cuda = cuda
        device = _device(cuda, index)
        self.name: str = device.name()
        self.capability: tuple[int, int] = device.compute_capability()
        attribute = cuda.device_attribute
        self.multiprocessors = int(device.get_attribute(attribute.MULTIPROCESSOR_COUNT))
        self._most_shared = int(device.get_attribute(attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
        self.most_shared_bytes = self._most_shared
        self.most_cluster = 8 if self.capability >= (9, 0) else 1
        # The primary context is the one that TensorRT, cuBLAS and PyTorch use too.
        self._context = self._guard(device.retain_primary_context)
        self._context.push()
        self._open = True
        atexit.register(self.close)  # pycuda ends the process hard when a context is left on its stack
        try:
            self._image = fatbin.read_bytes()
            self._module = self._loaded(fatbin)
            self.stream: Any = self._guard(cuda.Stream)
        except BaseException:
            CudaDevice.close(self)  # a thread that ends with the context on its stack ends the process
            raise
        self._functions: dict[tuple[str, bool], Any] = {}
        self._bound_module: Any = None
        self._cublas: Cublas | None = None

    def _loaded(self, fatbin: Path) -> Any:
        try:
            return self._cuda.module_from_buffer(self._image)
        except self._cuda.Error as error:
            raise EngineError(
                f"{fatbin} holds no kernels for {self.name} (compute capability {self.capability}): {error}; "
                "run: python -m asperity.runtime.cuda.build"
            ) from error

    def close(self) -> None:
        """Give the context back. Nothing of this device may be used afterwards."""
        if self._open:
            self._open = False
            self._context.pop()

    def alloc(self, nbytes: int) -> CudaBuffer:
        """New memory of undefined content."""
        owner = self._guard(lambda: self._cuda.mem_alloc(max(nbytes, 1)))
        return CudaBuffer(owner, int(owner), nbytes)

    def upload(self, array: NDArray[Any]) -> CudaBuffer:
        """New memory with the array's bytes."""
        buffer = self.alloc(array.nbytes)
        self.write(buffer, array)
        return buffer

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """The array's bytes into the start of a buffer, behind everything enqueued."""
        if array.nbytes > buffer.nbytes:
            raise EngineError(f"{array.nbytes} bytes do not fit a device buffer of {buffer.nbytes}")
        if array.nbytes:
            source = np.ascontiguousarray(array)
            self._guard(lambda: self._cuda.memcpy_htod_async(buffer.address, source, self.stream))
            self._guard(self.stream.synchronize)  # the source may be a temporary

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The start of a buffer as a new array, when everything enqueued is done."""
        array = np.empty(shape, dtype=dtype)
        if array.nbytes > buffer.nbytes:
            raise EngineError(f"{array.nbytes} bytes asked of a device buffer of {buffer.nbytes}")
        if array.nbytes:
            self._guard(lambda: self._cuda.memcpy_dtoh_async(array, buffer.address, self.stream))
        self.synchronize()
        return array

    def at(self, buffer: Buffer, offset: int) -> CudaBuffer:
        """The part of a buffer from ``offset`` bytes on."""
        return CudaBuffer(buffer, buffer.address + offset, buffer.nbytes - offset)

    def launch(self, launch: Launch, *arguments: Argument) -> None:
        """Enqueue one kernel."""
        values = [a if isinstance(a, np.generic) else np.uint64(a.address) for a in arguments]
        if launch.cluster > 1:
            self._launch_cluster(launch, values)
            return
        function = self._function(launch, bound=False)
        self._guard(
            lambda: function(
                *values, grid=launch.grid, block=launch.block, shared=launch.shared_bytes, stream=self.stream
            )
        )

    def half_product(
        self, left: Buffer, right: Buffer, out: Buffer, *, rows: int, columns: int, channels: int, first: int
    ) -> None:
        """Enqueue the vendor's matrix product; see ``launch.Device``."""
        if self._cublas is None:
            self._cublas = Cublas(int(self.stream.handle), self.alloc)
        part = right.address + first * channels * 2
        self._cublas.half_product(left.address, part, out.address, rows, columns, channels)

    def synchronize(self) -> None:
        """Wait for everything enqueued."""
        self._guard(self.stream.synchronize)

    def seconds(self, enqueue: Enqueue, repeats: int, before: Enqueue | None = None) -> list[float]:
        """Seconds that each of ``repeats`` calls takes on the GPU, by events; ``before`` each one runs untimed."""
        pairs = [(self._cuda.Event(), self._cuda.Event()) for _ in range(repeats)]
        for start, stop in pairs:
            if before is not None:
                before()
            start.record(self.stream)
            enqueue()
            stop.record(self.stream)
        self.synchronize()
        return [float(start.time_till(stop)) / 1e3 for start, stop in pairs]

    def replayed(self, enqueue: Enqueue) -> Enqueue:
        """What ``enqueue`` enqueues, recorded once: a call launches it whole, without the host's time in between."""
        with self.capture() as graph:
            enqueue()
        return graph.replay

    def fill(self, buffer: Buffer, byte: int) -> None:
        """Enqueue every byte of a buffer set to one value."""
        self._guard(lambda: self._cuda.memset_d8_async(buffer.address, byte, buffer.nbytes, self.stream))

    def copy(self, source: Buffer, to: Buffer, nbytes: int) -> None:
        """Enqueue a copy on the device."""
        self._guard(lambda: self._cuda.memcpy_dtod_async(to.address, source.address, nbytes, self.stream))

    @contextmanager
    def capture(self) -> Iterator[CudaGraph]:
        """Record what is enqueued within instead of running it, for replay. Run it once before: no allocation."""
        graph = CudaGraph(self)
        graph.begin()
        try:
            yield graph
        finally:
            graph.end()

    def _function(self, launch: Launch, bound: bool) -> Any:
        """The kernel, allowed to take as much shared memory as the launch asks."""
        key = (launch.kernel, bound)
        if launch.shared_bytes > self._most_shared:
            raise EngineError(
                f"{launch.kernel} needs {launch.shared_bytes} bytes of shared memory a block; {self.name} has "
                f"{self._most_shared}: another path must be chosen for it"
            )
        if key not in self._functions:
            function = self._bound(launch.kernel) if bound else self._guard(lambda: self._plain(launch.kernel))
            self._functions[key] = function
            if self._most_shared > STATIC_SHARED_BYTES:
                self._allow_shared(function, bound)
        return self._functions[key]

    def _plain(self, kernel: str) -> Any:
        try:
            return self._module.get_function(kernel)
        except self._cuda.LogicError as error:
            remedy = "run: python -m asperity.runtime.cuda.build"
            raise EngineError(f"the fatbin holds no kernel {kernel!r}; {remedy}") from error

    def _allow_shared(self, function: Any, bound: bool) -> None:
        if bound:
            driver = _bindings()
            names = driver.CUfunction_attribute
            static = _told(driver.cuFuncGetAttribute(names.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function))
            most = self._most_shared - static
            _told(driver.cuFuncSetAttribute(function, names.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most))
            return
        attribute = self._cuda.function_attribute
        static = function.get_attribute(attribute.SHARED_SIZE_BYTES)
        self._guard(lambda: function.set_attribute(attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, self._most_shared - static))

    def _bound(self, kernel: str) -> Any:
        """The kernel as cuda-bindings knows it; pycuda keeps its own handles to itself."""
        driver = _bindings()
        if self._bound_module is None:
            self._bound_module = _told(driver.cuModuleLoadData(self._image))
        function = _told(driver.cuModuleGetFunction(self._bound_module, kernel.encode()))
        # Clusters of 16 blocks are an H100's; 8 are portable.
        allow = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
        _told(driver.cuFuncSetAttribute(function, allow, 1))
        return function

    def _launch_cluster(self, launch: Launch, values: list[np.generic]) -> None:
        if self.capability < (9, 0):
            raise EngineError(f"{launch.kernel} asks for clusters of blocks; {self.name} has none (9.0 and later do)")
        driver = _bindings()
        function = self._function(launch, bound=True)
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        attribute.value.clusterDim.x, attribute.value.clusterDim.y, attribute.value.clusterDim.z = launch.cluster, 1, 1
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
        config.sharedMemBytes = launch.shared_bytes
        config.hStream = int(self.stream.handle)
        config.numAttrs = 1
        config.attrs = [attribute]
        held = [np.array([value]) for value in values]
        pointers = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        _told(driver.cuLaunchKernelEx(config, function, ctypes.addressof(pointers), 0))

    def _guard(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except AsperityError:
            raise
        except self._cuda.Error as error:
            raise EngineError(f"{self._label()}: {error}") from error

    def _label(self) -> str:
        return getattr(self, "name", "the GPU")


class CudaGraph:
    """Work recorded once and replayed in one call."""

    def __init__(self, device: CudaDevice) -> None:
        self._driver = _bindings()
        self._stream = int(device.stream.handle)
        self._executable: Any = None

    def begin(self) -> None:
        """Start recording."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _told(self._driver.cuStreamBeginCapture(self._stream, mode))

    def end(self) -> None:
        """Stop recording and make the graph ready."""
        graph = _told(self._driver.cuStreamEndCapture(self._stream))
        self._executable = _told(self._driver.cuGraphInstantiate(graph, 0))
        _told(self._driver.cuGraphDestroy(graph))

    def replay(self) -> None:
        """Enqueue everything recorded."""
        _told(self._driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Free it. Nothing of it is in flight."""
        if self._executable is not None:
            executable, self._executable = self._executable, None
            _told(self._driver.cuGraphExecDestroy(executable))


def _pycuda() -> Any:
    check_driver()
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise EngineError(f"pycuda does not load ({error}); run: {install('gpu')}") from error
    return cuda


def _device(cuda: Any, index: int) -> Any:
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise EngineError(f"the NVIDIA driver does not start ({error}); check the output of nvidia-smi") from error
    if not 0 <= index < count:
        raise EngineError(f"there is no GPU {index}; this machine shows {count} (see nvidia-smi)")
    return cuda.Device(index)


def _bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EngineError(f"cuda-bindings does not load ({error}); run: {install('gpu')}") from error
    return driver


def _told(answer: tuple[Any, ...]) -> Any:
    """What a call of cuda-bindings returned behind its status. Raises EngineError for any status but success."""
    status, *rest = answer
    if int(status) != 0:
        raise EngineError(f"the CUDA driver answered {status.name}")
    return rest[0] if rest else None
