"""Maps and pictures of the last results, for people: from the station's bulk socket, bounded in number and bytes.

A subscriber may lose them, so one that is not here says nothing of its result.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections import OrderedDict
from typing import Literal

import numpy as np
import zmq

from asperity.runtime.errors import StationError, WireError
from asperity.runtime.frame import ByteArray
from asperity.runtime.gateways.config import GatewayConfig, client_key
from asperity.runtime.security.curve_keys import receive, secure
from asperity.runtime.security.socket_files import check_ipc
from asperity.runtime.vision.overlay import heat_overlay
from asperity.runtime.wire import Bulk, decode_bulk, topic

log = logging.getLogger("asperity.gateway")

Kind = Literal["map", "picture"]
KINDS: tuple[Kind, ...] = ("map", "picture")
TAKE_AT_ONCE = 8
"""Messages taken in one turn of the loop; what then waits beyond ``WAITING_MAX`` is lost."""
WAITING_MAX = 8
MAP_FLOOR = 4.0
"""A map whose cells are all below this stays blue, however small its highest one: standard deviations of good parts."""
SIDE_PX = 224
"""The shorter side of a map's picture, at least: a cell is a square of several pixels."""
PNG_LEVEL = 1


class Pictures:
    """For one loop, which calls ``take`` in every turn."""

    def __init__(self, config: GatewayConfig) -> None:
        """Raises StationError on an endpoint that cannot be, AccessError on the key."""
        self._most, self._most_nbytes = config.http.pictures_kept, config.http.pictures_max_nbytes
        self._kept: OrderedDict[tuple[Kind, int], Bulk] = OrderedDict()
        self._nbytes = 0
        self._session = ""
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        if config.station.bulk and self._most:
            self._context = zmq.Context()
            try:
                self._socket = self._connected(self._context, config)
            except BaseException:
                self.close()
                raise

    def _connected(self, context: zmq.Context[zmq.Socket[bytes]], config: GatewayConfig) -> zmq.Socket[bytes]:
        endpoint, socket = config.station.bulk, context.socket(zmq.SUB)
        check_ipc(endpoint, error=StationError)
        socket.setsockopt(zmq.RCVHWM, WAITING_MAX)
        socket.setsockopt(zmq.MAXMSGSIZE, self._most_nbytes)
        for kind in KINDS:
            socket.setsockopt(zmq.SUBSCRIBE, topic(kind, config.station.name))
        secure(socket, client_key(config))
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise StationError(
                f"[station] bulk: cannot connect to {endpoint}: {error}; give tcp://HOST:PORT or ipc://PATH"
            ) from error
        return socket

    @property
    def listens(self) -> bool:
        """They are kept at all."""
        return self._context is not None

    def take(self) -> None:
        """Take over what has come."""
        if self._context is None:
            return
        for _ in range(TAKE_AT_ONCE):
            try:
                self.put(decode_bulk(receive(self._socket)))
            except zmq.Again:
                return
            except WireError as error:
                log.warning("a message of the bulk socket is left out: %s", error)

    def put(self, bulk: Bulk) -> None:
        """Keep one, and forget the oldest ones that there is no room for."""
        if bulk.session != self._session:
            # Another session may begin its numbers anew.
            self._kept.clear()
            self._nbytes, self._session = 0, bulk.session
        before = self._kept.pop((bulk.kind, bulk.result_id), None)
        self._kept[bulk.kind, bulk.result_id] = bulk
        self._nbytes += bulk.array.nbytes - (before.array.nbytes if before is not None else 0)
        while self._kept and (self._nbytes > self._most_nbytes or len(self._kept) > self._most):
            self._nbytes -= self._kept.popitem(last=False)[1].array.nbytes

    def get(self, kind: Kind, session: str, result_id: int) -> Bulk | None:
        """That of a result of this session; None: it is not kept, or never came."""
        return self._kept.get((kind, result_id)) if session == self._session else None

    def close(self) -> None:
        """Listen no longer."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None


def png_of(bulk: Bulk) -> bytes:
    """A picture as it is; a map from blue (0) by yellow to red (its highest cell, ``MAP_FLOOR`` at least)."""
    if bulk.kind == "picture":
        return _png(bulk.array)
    side = max(1, -(-SIDE_PX // min(bulk.array.shape)))
    cells = heat_overlay(
        np.zeros((*bulk.array.shape, 3), np.uint8), bulk.array, 0.0, max(float(bulk.array.max()), MAP_FLOOR)
    )
    return _png(cells.repeat(side, axis=0).repeat(side, axis=1))


def _png(rgb: ByteArray) -> bytes:
    """ISO/IEC 15948, eight bits of red, green and blue, no filter."""
    height_px, width_px, _ = rgb.shape
    rows = np.zeros((height_px, 1 + 3 * width_px), np.uint8)
    rows[:, 1:] = rgb.reshape(height_px, -1)
    head = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), PNG_LEVEL)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
