"""A GenICam camera of a test: a node map that is a dictionary, and buffers that the test puts on its list."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.sources.genicam.nodes import Scan3d, Value
from asperity.runtime.cameras.sources.genicam.payload import Delivery, Part
from asperity.runtime.cameras.sources.genicam.sdk import Seen
from asperity.runtime.errors import CameraError

ROWS, COLUMNS = 6, 8
MM = Scan3d(unit="Millimeter", mode="CalibratedABC_Grid", system="Cartesian")


class StandInNodes:
    """Nodes by name; with a selector, by its choice too (``Scan3dCoordinateScale[CoordinateA]``)."""

    def __init__(self, values: dict[str, Value] | None = None, **rest: Value) -> None:
        self.values = {**(values or {}), **rest}
        self.log: list[str] = []
        self.on_execute: Callable[[str], None] = lambda name: None

    def _key(self, name: str) -> str:
        chunk = name.startswith("Chunk")
        selectors = {key: value for key, value in self.values.items() if key.endswith("Selector")}
        choices = [f"{name}[{value}]" for key, value in selectors.items() if key.startswith("Chunk") == chunk]
        return next((key for key in choices if key in self.values), name)

    def has(self, name: str) -> bool:
        return self._key(name) in self.values

    def read(self, name: str) -> Value | None:
        return self.values.get(self._key(name))

    def write(self, name: str, text: str) -> None:
        if not self.has(name):
            raise CameraError(f"the camera has no node {name}")
        old = self.values[self._key(name)]
        self.log.append(f"{name}={text}")
        kind = {bool: lambda said: said in ("1", "true"), int: lambda said: int(said, 0)}.get(type(old), type(old))
        self.values[self._key(name)] = kind(text)

    def execute(self, name: str) -> None:
        self.log.append(name)
        self.on_execute(name)


class StandIn:
    """An open camera, as ``sdk.Device``. An exception on its list is raised."""

    def __init__(self, nodes: StandInNodes | None = None, serial: str = "S1", wraps: bool = False) -> None:
        self.nodes = nodes or StandInNodes()
        self.seen = Seen("id1", "S1", "Stand In")
        self.serial, self.wraps = serial, wraps
        self.queue: deque[Delivery | Exception | None] = deque()
        self.buffers = 0
        self.closed = 0

    def start(self, buffers: int) -> None:
        self.buffers = buffers

    def fetch(self, timeout_ms: int, scan3d: Scan3d) -> Delivery | None:
        assert timeout_ms > 0
        come = self.queue.popleft() if self.queue else None
        if isinstance(come, Exception):
            raise come
        return come

    def close(self) -> None:
        self.closed += 1


def part(name: str, values: NDArray[np.generic], padding: int = 0) -> Part:
    """A component of these pixels: H x W, or H x W x channels."""
    rows, columns = values.shape[:2]
    packed = np.ascontiguousarray(values).reshape(rows, -1).view(np.uint8)
    data = np.concatenate([packed, np.full((rows, padding), 255, np.uint8)], axis=1).reshape(-1)
    return Part(name, packed.shape[1] * 8 // columns, columns, rows, padding, data)


def points(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(500, 20, (ROWS, COLUMNS, 3)).astype(np.float32)


def picture(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)


def delivery(frame_id: int | None, time_us: int = 0, seed: int | None = None) -> Delivery:
    """A whole exposure; no two alike."""
    seed = frame_id or 0 if seed is None else seed
    return Delivery((part("RGB8", picture(seed)), part("Coord3D_ABC32f", points(seed))), frame_id, time_us, MM)
