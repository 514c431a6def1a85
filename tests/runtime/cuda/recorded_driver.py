"""pycuda and cuda-bindings as the frame device uses them, over the CPU stand-in: what it asks, in which order.

A call made without the context, a launch on a stream of another device, a page-locked buffer used after it was freed:
the stand-in alone cannot show these, since it has neither contexts nor handles.
"""

from __future__ import annotations

import ctypes
import threading
import types
from typing import Any

import numpy as np

from asperity.runtime.cuda.launch import Launch
from asperity.runtime.cuda.shim.streams import ShimBranch, ShimEvent, ShimFrameDevice

MOST_SHARED = 227 * 1024


class Address(int):
    """Device memory: an owner that is also a number."""

    driver: RecordedDriver

    def free(self) -> None:
        self.driver.check("cuMemFree")
        self.driver.live.remove(int(self))


class RecordedDriver:
    """Both modules, and the calls that matter. ``broken``: every call fails with these words."""

    def __init__(self, kernels: ShimFrameDevice) -> None:
        self.shim = ShimFrameDevice(like=kernels)
        self.stacks: dict[int, int] = {}
        self.calls: list[str] = []
        self.live: list[int] = []
        self.pinned = 0
        self.graphs = 0
        self.broken = ""
        self.error: type[Exception] = Exception
        self._recording: Any = None

    def check(self, call: str) -> None:
        """Every call: is the context current in this thread, does the device still work?"""
        assert self.stacks.get(threading.get_ident(), 0) == 1, f"{call} without the context"
        self.calls.append(call)
        if self.broken:
            raise self.error(f"{call} failed: {self.broken}")

    def pycuda(self) -> types.ModuleType:  # noqa: PLR0915 - a list of small functions
        """``pycuda.driver``."""
        driver, shim = self, self.shim
        module: Any = types.ModuleType("pycuda.driver")
        names = types.SimpleNamespace(
            MULTIPROCESSOR_COUNT=2, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=MOST_SHARED, SHARED_SIZE_BYTES=0,
            MAX_DYNAMIC_SHARED_SIZE_BYTES="most",
        )  # fmt: skip

        class Error(Exception):
            pass

        class LogicError(Error):
            pass

        self.error = LogicError

        def push() -> None:
            if driver.broken == "dead":
                raise LogicError("cuCtxPushCurrent failed: context is destroyed")
            thread = threading.get_ident()
            driver.stacks[thread] = driver.stacks.get(thread, 0) + 1

        def pop() -> None:
            thread = threading.get_ident()
            assert driver.stacks.get(thread, 0) > 0, "cannot pop non-current context"
            driver.stacks[thread] -= 1

        class Device:
            count = staticmethod(lambda: 1)
            name = staticmethod(lambda: "Recorded 9000")
            compute_capability = staticmethod(lambda: (8, 7))
            get_attribute = staticmethod(lambda value: value)

            def __init__(self, index: int) -> None: ...

            def retain_primary_context(self) -> Any:
                return types.SimpleNamespace(push=push, pop=pop)

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                driver.check("cuStreamCreate")
                self.flags = flags
                self.branch: ShimBranch = shim.branch()

            @property
            def handle(self) -> int:
                return self.branch.handle

            def synchronize(self) -> None:
                driver.check("cuStreamSynchronize")
                shim.synchronize()

            def wait_for_event(self, event: Event) -> None:
                driver.check("cuStreamWaitEvent")
                with shim.on(self.branch):
                    shim.follow(event.event)

        class Event:
            def __init__(self, flags: int) -> None:
                driver.check("cuEventCreate")
                self.event: ShimEvent = shim.event()

            def record(self, stream: Stream) -> None:
                driver.check("cuEventRecord")
                with shim.on(stream.branch):
                    shim.record(self.event)

            def query(self) -> bool:
                driver.check("cuEventQuery")
                return shim.reached(self.event)

        def alloc(nbytes: int) -> Address:
            driver.check("cuMemAlloc")
            buffer = shim.alloc(nbytes)
            driver.live.append(buffer.address)
            address = Address(buffer.address)
            address.driver = driver
            return address

        def copied(call: str, to: int, source: Any, nbytes: int, stream: Stream) -> None:
            driver.check(call)
            with shim.on(stream.branch):
                shim.enqueue(lambda: ctypes.memmove(to, source, nbytes) and None)

        class Pinned:
            def __init__(self, nbytes: int) -> None:
                driver.pinned += 1
                self.memory = (ctypes.c_ubyte * nbytes)()

            @property
            def __array_interface__(self) -> dict[str, Any]:
                data = (ctypes.addressof(self.memory), False)
                return {"shape": (len(self.memory),), "typestr": "|u1", "data": data, "version": 3}

            def free(self) -> None:
                driver.check("cuMemFreeHost")
                driver.pinned -= 1

        def pagelocked(nbytes: int, dtype: Any) -> np.ndarray:
            driver.check("cuMemHostAlloc")
            return np.asarray(Pinned(nbytes))

        def memset(address: int, byte: int, nbytes: int, stream: Stream) -> None:
            driver.check("cuMemsetD8Async")
            with shim.on(stream.branch):
                shim.enqueue(lambda: ctypes.memset(int(address), byte, nbytes) and None)

        def function(kernel: str) -> Any:
            def launch(*arguments: Any, grid: Any, block: Any, shared: int, stream: Stream) -> None:
                driver.check("cuLaunchKernel")
                with shim.on(stream.branch):
                    shim.launch(Launch(kernel, grid, block, shared), *arguments)

            def attribute(*_: Any) -> int:
                driver.check("cuFuncAttribute")
                return 512

            class Function:
                get_attribute = set_attribute = staticmethod(attribute)
                __call__ = staticmethod(launch)

            return Function()

        module.Error, module.LogicError, module.Device = Error, LogicError, Device
        module.Stream, module.Event = Stream, Event
        module.device_attribute = module.function_attribute = names
        module.event_flags = types.SimpleNamespace(DISABLE_TIMING=2)
        module.init = lambda: None
        module.mem_alloc, module.pagelocked_empty, module.memset_d8_async = alloc, pagelocked, memset
        module.mem_get_info = lambda: (2**33 - sum(b.nbytes for b in shim._buffers), 2**33)
        module.memcpy_htod_async = lambda to, source, stream: copied(
            "cuMemcpyHtoDAsync", int(to), source.ctypes.data, source.nbytes, stream
        )
        module.memcpy_dtoh_async = lambda array, at, stream: copied(
            "cuMemcpyDtoHAsync", array.ctypes.data, int(at), array.nbytes, stream
        )
        module.module_from_buffer = lambda image: types.SimpleNamespace(get_function=function)
        return module

    def bindings(self) -> types.ModuleType:
        """``cuda.bindings.driver``: recordings."""
        driver, shim = self, self.shim
        module: Any = types.ModuleType("cuda.bindings.driver")

        class Status(int):
            name = "CUDA_ERROR_ILLEGAL_ADDRESS"

        good, bad = Status(0), Status(700)

        def told(call: str, *values: Any) -> tuple[Any, ...]:
            try:
                driver.check(call)
            except driver.error:
                return (bad, None)
            return (good, *values)

        def begin(stream: int, mode: str) -> tuple[Any, ...]:
            assert mode == "thread local"
            branch = shim.branch_of(stream)
            driver._recording = (shim.on(branch), shim.capture())
            driver._recording[0].__enter__()
            driver._graph = driver._recording[1].__enter__()  # type: ignore[attr-defined]
            return told("cuStreamBeginCapture")

        def end(stream: int) -> tuple[Any, ...]:
            on, capture = driver._recording
            capture.__exit__(None, None, None)
            on.__exit__(None, None, None)
            return told("cuStreamEndCapture", driver._graph)  # type: ignore[attr-defined]

        def instantiate(graph: Any, flags: int) -> tuple[Any, ...]:
            driver.graphs += 1
            return told("cuGraphInstantiate", graph)

        def launch(graph: Any, stream: int) -> tuple[Any, ...]:
            branch = shim.branch_of(stream)
            with shim.on(branch):
                graph.replay()
            return told("cuGraphLaunch")

        def destroy(graph: Any) -> tuple[Any, ...]:
            driver.graphs -= 1
            return told("cuGraphExecDestroy")

        module.CUstreamCaptureMode = types.SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")
        module.cuStreamBeginCapture, module.cuStreamEndCapture = begin, end
        module.cuGraphInstantiate, module.cuGraphLaunch, module.cuGraphExecDestroy = instantiate, launch, destroy
        module.cuGraphDestroy = lambda graph: told("cuGraphDestroy")
        return module
