"""Branches, events and recordings for the CPU stand-in: nothing runs until something waits for it, then in the worst
order.

A branch's work is kept until it is waited for. Then the branches take turns, one step each, the last made first (or the
first, by ``first_branch_first``); only events hold them back. So a missing event shows as a wrong result, not by luck.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asperity.runtime.cuda.launch import Argument, Buffer, Launch
from asperity.runtime.cuda.shim import ShimBuffer, ShimDevice
from asperity.runtime.cuda.streams import Branch, Event, HostBuffer, Recording
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import ByteArray


class ShimEvent:
    """Counts how often it was recorded and reached."""

    def __init__(self) -> None:
        self.recorded = 0
        self.done = 0


@dataclass(slots=True)
class Step:
    """One piece of work, to be done once ``after`` has been reached ``times`` times; ``marks`` is then reached."""

    work: Callable[[], None] | None = None
    after: ShimEvent | None = None
    times: int = 0
    marks: ShimEvent | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing holds it back."""
        return self.after is None or self.after.done >= self.times


@dataclass(slots=True)
class ShimBranch:
    """A branch by its number."""

    handle: int
    steps: deque[Step] = field(default_factory=deque)


class ShimRecording:
    """Steps of each branch, done again at each replay."""

    def __init__(self, device: ShimFrameDevice) -> None:
        self._device = device
        self.steps: dict[int, list[Step]] = {}

    def replay(self) -> None:
        """As ``Recording.replay``."""
        self._device.enqueue(self._run)

    def _run(self) -> None:
        events: dict[int, ShimEvent] = {}

        def own(event: ShimEvent | None) -> ShimEvent | None:
            return None if event is None else events.setdefault(id(event), ShimEvent())

        queues = {
            handle: deque(Step(step.work, own(step.after), step.times, own(step.marks)) for step in steps)
            for handle, steps in self.steps.items()
        }
        if not self._device.run(queues):
            raise EngineError("a recorded branch waits for an event that never comes")


class ShimHost:
    """Host memory; the stand-in has no other."""

    def __init__(self, nbytes: int) -> None:
        self.data: ByteArray = np.full(nbytes, 0xFF, dtype=np.uint8)


class ShimFrameDevice(ShimDevice):
    """``runtime.cuda.streams.FrameDevice`` on the CPU. ``allocations`` counts; ``lost`` makes every call fail."""

    def __init__(
        self, sources: Iterable[str] | None = None, order: int = 0, first_branch_first: bool = False,
        total_bytes: int = 2**33, extra: Path | None = None, like: ShimDevice | None = None,
    ) -> None:  # fmt: skip
        super().__init__(sources, extra, order, like)
        self._branches = [ShimBranch(1)]
        self._now = self._branches[0]
        self._recording: ShimRecording | None = None
        self._recorded_from: dict[int, int] = {}
        self._first_branch_first, self._total_bytes = first_branch_first, total_bytes
        self.allocations = 0
        self.lost: str = ""
        """Set: the device has failed permanently, and this is what it says."""
        self.hangs = False
        """Set: what is enqueued is never done."""

    def alloc(self, nbytes: int) -> ShimBuffer:
        """As ``Device.alloc``."""
        self._alive()
        self.allocations += 1
        return super().alloc(nbytes)

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """As ``Device.write``."""
        self.synchronize()
        super().write(buffer, array)

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """As ``Device.download``."""
        self.synchronize()
        return super().download(buffer, shape, dtype)

    def launch(self, launch: Launch, *arguments: Argument) -> None:
        """As ``Device.launch``: kept for later."""
        self.enqueue(lambda: ShimDevice.launch(self, launch, *arguments))

    def half_product(
        self, left: Buffer, right: Buffer, out: Buffer, *, rows: int, columns: int, channels: int, first: int
    ) -> None:
        """As ``Device.half_product``: kept for later."""

        def work() -> None:
            a = self._own(left).data[: 2 * rows * channels].view(np.float16).reshape(rows, channels)
            whole = self._own(right).data[: 2 * (first + columns) * channels].view(np.float16)
            b = whole.reshape(-1, channels)[first:]
            product = a.astype(np.float32) @ b.astype(np.float32).T
            self._own(out).data[: product.nbytes] = product.reshape(-1).view(np.uint8)

        self.enqueue(work)

    def fill(self, buffer: Buffer, byte: int) -> None:
        """As ``FrameDevice.fill``."""
        self.enqueue(lambda: ShimDevice.fill(self, buffer, byte))

    def synchronize(self) -> None:
        """Do everything that was enqueued. Raises EngineError where a branch waits for what never comes."""
        self._alive()
        if self.hangs:
            raise EngineError("the stand-in hangs, as it was told to")
        if not self.run({branch.handle: branch.steps for branch in self._branches}):
            raise EngineError("a branch waits for an event that never comes")

    def view(self, address: int, nbytes: int) -> ByteArray:
        """The bytes at a device address. Raises EngineError where they are not all of one buffer."""
        for buffer in self._buffers:
            first = address - buffer.address
            if first >= 0 and first + nbytes <= buffer.nbytes:
                return buffer.data[first : first + nbytes]
        raise EngineError(f"{nbytes} bytes at {address:#x} are not memory of the stand-in")

    def enqueue(self, work: Callable[[], None]) -> None:
        """Any host function as a piece of the current branch's work (a network of ``shim.graphs``)."""
        self._add(Step(work))

    @contextmanager
    def current(self) -> Iterator[None]:
        """As ``FrameDevice.current``: any thread may use it."""
        self._alive()
        yield

    def branch(self) -> ShimBranch:
        """As ``FrameDevice.branch``."""
        self._branches.append(ShimBranch(len(self._branches) + 1))
        return self._branches[-1]

    def branch_of(self, handle: int) -> ShimBranch:
        """The branch of a handle. Raises EngineError where there is none."""
        for branch in self._branches:
            if branch.handle == handle:
                return branch
        raise EngineError(f"the stand-in has no branch {handle}")

    @contextmanager
    def on(self, branch: Branch) -> Iterator[None]:
        """As ``FrameDevice.on``."""
        assert isinstance(branch, ShimBranch)
        before, self._now = self._now, branch
        try:
            yield
        finally:
            self._now = before

    @property
    def handle(self) -> int:
        """As ``FrameDevice.handle``."""
        return self._now.handle

    def event(self) -> ShimEvent:
        """As ``FrameDevice.event``."""
        return ShimEvent()

    def record(self, event: Event) -> None:
        """As ``FrameDevice.record``."""
        assert isinstance(event, ShimEvent)
        if self._recording is None:
            event.recorded += 1
            self._add(Step(marks=event))
            return
        self._recorded_from[id(event)] = self._recorded_from.get(id(event), 0) + 1
        self._add(Step(marks=event))

    def follow(self, event: Event) -> None:
        """As ``FrameDevice.follow``."""
        assert isinstance(event, ShimEvent)
        if self._recording is None:
            self._add(Step(after=event, times=event.recorded))
            return
        times = self._recorded_from.get(id(event), 0)
        if times == 0:
            raise EngineError("a recording follows an event from outside of it")
        self._recording.steps.setdefault(self._now.handle, [])
        self._add(Step(after=event, times=times))

    def reached(self, event: Event) -> bool:
        """As ``FrameDevice.reached``: everything is done now, unless the stand-in hangs."""
        assert isinstance(event, ShimEvent)
        self._alive()
        if self.hangs:
            return False
        self.synchronize()
        return event.done >= event.recorded

    @contextmanager
    def capture(self) -> Iterator[Recording]:
        """As ``FrameDevice.capture``. Raises EngineError where a branch was not joined or memory was allocated."""
        if self._recording is not None:
            raise EngineError("a recording is in progress already")
        self.synchronize()
        recording = ShimRecording(self)
        recording.steps[self._now.handle] = []
        before, own = self.allocations, self._now.handle
        self._recording, self._recorded_from = recording, {}
        try:
            yield recording
        finally:
            self._recording = None
        if self.allocations != before:
            raise EngineError("memory was allocated in a recording")
        for handle, steps in recording.steps.items():
            joined = any(step.after is not None for step in recording.steps[own])
            if handle != own and (not joined or not steps or steps[-1].marks is None):
                raise EngineError(f"branch {handle} was not joined when the recording ended")

    def host(self, nbytes: int) -> ShimHost:
        """As ``FrameDevice.host``."""
        self._alive()
        self.allocations += 1
        return ShimHost(nbytes)

    def send(self, source: HostBuffer, first: int, nbytes: int, to: Buffer, at: int = 0) -> None:
        """As ``FrameDevice.send``: reads the host's memory only when its turn comes, as a copy engine does."""
        data, target = source.data, self._own(to).data
        if first + nbytes > len(data) or at + nbytes > len(target):
            raise EngineError("a copy beyond the end of a buffer")

        def work() -> None:
            target[at : at + nbytes] = data[first : first + nbytes]

        self.enqueue(work)

    def fetch(self, source: Buffer, to: HostBuffer, nbytes: int) -> None:
        """As ``FrameDevice.fetch``."""
        data, whole = to.data, self._own(source).data
        if nbytes > len(data) or nbytes > len(whole):
            raise EngineError("a copy beyond the end of a buffer")

        def work() -> None:
            data[:nbytes] = whole[:nbytes]

        self.enqueue(work)

    def memory(self) -> tuple[int, int]:
        """As ``FrameDevice.memory``, of the size that it was made with."""
        return self._total_bytes - sum(buffer.nbytes for buffer in self._buffers), self._total_bytes

    def close(self) -> None:
        """As ``FrameDevice.close``."""
        for branch in self._branches:
            branch.steps.clear()
        self.forget()

    def run(self, queues: dict[int, deque[Step]]) -> bool:
        """Do all steps, in the order that events allow; False if some are held back forever."""
        while any(queues.values()):
            progressed = False
            for handle in sorted(queues, reverse=not self._first_branch_first):
                queue = queues[handle]
                while queue and queue[0].ready:
                    step = queue.popleft()
                    if step.work is not None:
                        step.work()
                    if step.marks is not None:
                        step.marks.done += 1
                    progressed = True
            if not progressed:
                return False
        return True

    def _add(self, step: Step) -> None:
        self._alive()
        if self._recording is None:
            self._now.steps.append(step)
            return
        if self._now.handle not in self._recording.steps:
            raise EngineError("work on a branch that the recording does not hold")
        self._recording.steps[self._now.handle].append(step)

    def _alive(self) -> None:
        if self.lost:
            raise EngineError(f"cpu-shim: {self.lost}")
