"""A GPU as the frame path needs it (``streams.FrameDevice``): pycuda and cuda-bindings behind one small seam.

Its context is current in a thread only within ``current()``: engines are opened by one thread, used by a second and
closed by a third, and pycuda aborts the process when a thread ends with a context on its stack.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from asperity.runtime.cuda.build import FATBIN
from asperity.runtime.cuda.cublas import Cublas
from asperity.runtime.cuda.driver import CudaBuffer, CudaDevice, CudaGraph
from asperity.runtime.cuda.launch import Buffer
from asperity.runtime.cuda.streams import Branch, Event, HostBuffer
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import ByteArray

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for what a library puts on the default one, which would spoil a
recording."""


class CudaHost:
    """Page-locked memory."""

    def __init__(self, data: ByteArray) -> None:
        self.data = data


class CudaBranch:
    """A stream of pycuda's."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    @property
    def handle(self) -> int:
        """The CUstream."""
        return int(self.stream.handle)


class CudaFrameDevice(CudaDevice):
    """One GPU with branches, events and recordings. Between ``current()`` blocks no thread has its context.

    Raises EngineError as ``CudaDevice``.
    """

    def __init__(self, index: int = 0, fatbin: Path = FATBIN) -> None:
        super().__init__(index, fatbin)
        atexit.unregister(self.close)
        self._context.pop()  # it was pushed by the line above
        self._depth = 0
        self._owned: list[Any] = []
        self._hosts: list[CudaHost] = []
        self._products: dict[int, Cublas] = {}
        self._graphs: list[CudaGraph] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """As ``FrameDevice.current``. One thread at a time."""
        if not self._open:
            raise EngineError(f"{self.name}: the device is closed")
        if self._depth:
            yield
            return
        self._guard(self._context.push)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._guard(self._context.pop)

    def alloc(self, nbytes: int) -> CudaBuffer:
        """As ``Device.alloc``; freed by ``close``."""
        buffer = super().alloc(nbytes)
        self._owned.append(buffer.owner)
        return buffer

    def half_product(
        self, left: Buffer, right: Buffer, out: Buffer, *, rows: int, columns: int, channels: int, first: int
    ) -> None:
        """As ``Device.half_product``. Each branch has its own handle: two of them must not share a workspace."""
        handle = self.handle
        if handle not in self._products:
            self._products[handle] = Cublas(handle, self.alloc)
        part = right.address + first * channels * 2
        self._products[handle].half_product(left.address, part, out.address, rows, columns, channels)

    def branch(self) -> CudaBranch:
        """As ``FrameDevice.branch``."""
        return CudaBranch(self._guard(lambda: self._cuda.Stream(NON_BLOCKING)))

    @contextmanager
    def on(self, branch: Branch) -> Iterator[None]:
        """As ``FrameDevice.on``."""
        assert isinstance(branch, CudaBranch)
        before, self.stream = self.stream, branch.stream
        try:
            yield
        finally:
            self.stream = before

    @property
    def handle(self) -> int:
        """As ``FrameDevice.handle``."""
        return int(self.stream.handle)

    def event(self) -> Event:
        """As ``FrameDevice.event``."""
        made: Event = self._guard(lambda: self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING))
        return made

    def record(self, event: Event) -> None:
        """As ``FrameDevice.record``."""
        recorded: Any = event
        self._guard(lambda: recorded.record(self.stream))

    def follow(self, event: Event) -> None:
        """As ``FrameDevice.follow``."""
        self._guard(lambda: self.stream.wait_for_event(event))

    def reached(self, event: Event) -> bool:
        """As ``FrameDevice.reached``."""
        asked: Any = event
        return bool(self._guard(asked.query))

    @contextmanager
    def capture(self) -> Iterator[CudaGraph]:
        """As ``FrameDevice.capture``; ``close`` frees the recording."""
        with super().capture() as graph:
            yield graph
        self._graphs.append(graph)

    def host(self, nbytes: int) -> CudaHost:
        """As ``FrameDevice.host``."""
        host = CudaHost(self._guard(lambda: self._cuda.pagelocked_empty(nbytes, np.uint8)))
        self._hosts.append(host)
        return host

    def send(self, source: HostBuffer, first: int, nbytes: int, to: Buffer, at: int = 0) -> None:
        """As ``FrameDevice.send``."""
        if first + nbytes > source.data.nbytes or at + nbytes > to.nbytes:
            raise EngineError(f"{nbytes} bytes do not fit a device buffer of {to.nbytes}")
        part = source.data[first : first + nbytes]
        self._guard(lambda: self._cuda.memcpy_htod_async(to.address + at, part, self.stream))

    def fetch(self, source: Buffer, to: HostBuffer, nbytes: int) -> None:
        """As ``FrameDevice.fetch``."""
        if nbytes > to.data.nbytes or nbytes > source.nbytes:
            raise EngineError(f"{nbytes} bytes asked of a device buffer of {source.nbytes}")
        part = to.data[:nbytes]
        self._guard(lambda: self._cuda.memcpy_dtoh_async(part, source.address, self.stream))

    def memory(self) -> tuple[int, int]:
        """As ``FrameDevice.memory``."""
        free, total = self._guard(self._cuda.mem_get_info)
        return int(free), int(total)

    def close(self) -> None:
        """As ``FrameDevice.close``."""
        if not self._open:
            return
        try:
            with self.current():
                for graph in self._graphs:
                    graph.close()
                for product in self._products.values():
                    product.close()
                for owner in self._owned:
                    self._guard(owner.free)
                for host in self._hosts:
                    pinned: Any = host.data.base
                    host.data = np.empty(0, dtype=np.uint8)
                    self._guard(pinned.free)
        except EngineError:
            pass  # a lost device gives nothing back; the end of the process will
        finally:
            self._open = False
            self._owned.clear()
            self._hosts.clear()
            self._graphs.clear()
            self._products.clear()
