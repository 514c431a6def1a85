"""What the frame path needs of a device beyond ``launch.Device``: branches, events, recordings, page-locked memory."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Protocol

from asperity.runtime.cuda.launch import Buffer, Device
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import ByteArray

POLL_S = 20e-6
"""Between two questions whether the device is done; the thread sleeps, so that the I/O thread gets its turn."""


class HostBuffer(Protocol):
    """Page-locked host memory: copies from and to it need no help of the driver."""

    @property
    def data(self) -> ByteArray:
        """All of it."""


class Branch(Protocol):
    """A stream: work on it is done in order."""

    @property
    def handle(self) -> int:
        """The CUstream, as ``runtime.cuda.graph.DeviceGraph.enqueue`` takes it."""


class Event(Protocol):
    """A point in a branch's work."""


class Recording(Protocol):
    """Work recorded once."""

    def replay(self) -> None:
        """Enqueue all of it on the current branch, in one call."""


class FrameDevice(Device, Protocol):
    """A device with branches. What is enqueued goes to the current one. Raises EngineError on any failure.

    Nothing here waits but ``write``, ``download`` and ``synchronize``, and none of these is on the frame path: there
    ``reached`` is asked again and again, so that a device that never comes back cannot hold the thread.
    """

    def current(self) -> AbstractContextManager[None]:
        """Make the device usable by this thread. May be nested."""

    def branch(self) -> Branch:
        """A new one."""

    def on(self, branch: Branch) -> AbstractContextManager[None]:
        """Let ``branch`` be the current one."""

    @property
    def handle(self) -> int:
        """Of the current branch."""

    def event(self) -> Event:
        """A new one, never reached yet."""

    def record(self, event: Event) -> None:
        """Enqueue the event behind all that is on the current branch."""

    def follow(self, event: Event) -> None:
        """Let what is enqueued on the current branch from now on come after the event as recorded last."""

    def reached(self, event: Event) -> bool:
        """Whether all work before the event, as recorded last, is done. Raises EngineError where it failed."""

    def capture(self) -> AbstractContextManager[Recording]:
        """Record what is enqueued within on the current branch and those that follow it, instead of doing it.

        Branches that followed must be joined again. The same work was done once before, so that nothing is allocated.
        """

    def host(self, nbytes: int) -> HostBuffer:
        """New page-locked memory."""

    def send(self, source: HostBuffer, first: int, nbytes: int, to: Buffer, at: int = 0) -> None:
        """Enqueue a copy of ``nbytes`` from ``first`` on to the device, ``at`` bytes into the buffer."""

    def fetch(self, source: Buffer, to: HostBuffer, nbytes: int) -> None:
        """Enqueue a copy of the buffer's first bytes to the host."""

    def fill(self, buffer: Buffer, byte: int) -> None:
        """Enqueue every byte of a buffer set to one value."""

    def memory(self) -> tuple[int, int]:
        """Bytes free and in all."""

    def close(self) -> None:
        """Free everything that came from here. May be called twice; what fails on a lost device is let be."""


def wait(device: FrameDevice, event: Event, wait_ms: int) -> None:
    """Raises EngineError when the device has not come so far within ``wait_ms`` (``[engine] device_wait_ms``)."""
    ends_ns = time.monotonic_ns() + wait_ms * 10**6
    while not device.reached(event):
        if time.monotonic_ns() > ends_ns:
            raise EngineError(f"{device.name} did not finish within {wait_ms} ms ([engine] device_wait_ms)")
        time.sleep(POLL_S)
