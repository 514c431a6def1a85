"""The camera's side of the wire: frames out, triggers in. A thin layer; ``runtime.wire`` encodes and decodes.

With default socket options a sender queues several stale frames before it notices that nobody reads. So the socket
keeps one message, connects before it queues, and never waits: a frame that cannot be sent now is dropped here, and its
``seq`` is used up, so that the inspector can name what is missing.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import zmq

from asperity.runtime.errors import CameraError, WireError
from asperity.runtime.frame import Frame
from asperity.runtime.security.curve_keys import ClientKey, read_client_key, receive, secure
from asperity.runtime.security.socket_files import check_ipc
from asperity.runtime.wire import MAX_CONTROL_BYTES, Trigger, decode_trigger, encode_frame, topic

log = logging.getLogger(__name__)
S = TypeVar("S", bound="FrameSender")


@dataclass(frozen=True, slots=True)
class SenderLimits:
    """Bounds of a sender."""

    send_queue_messages: int = 1
    linger_ms: int = 1000
    """How long ``close`` may still deliver the last frame."""
    trigger_queue_messages: int = 64
    renew_ms: int = 10_000
    """Sockets are made again when no frame could go for this long: libzmq gives up permanently on a peer that broke the
    protocol, and may lose a connection without notice."""
    max_nbytes: int = MAX_CONTROL_BYTES
    """Largest part that is read: of triggers, and of whatever a peer that is not a station sends."""


class FrameSender:
    """Sends the frames of one camera run: PUSH to the inspector's frames socket, SUB to its triggers.

    ``camera_session`` is this run's UUID. ``seq`` counts exposures from 1, sent or not; the frame's own
    ``camera, camera_session, seq, t_sent_us`` are replaced. Not for several threads.
    """

    _push: zmq.Socket[bytes]
    _sub: zmq.Socket[bytes] | None

    def __init__(
        self,
        camera: str,
        frames_endpoint: str,
        *,
        station: str = "",
        results_endpoint: str = "",
        limits: SenderLimits | None = None,
        key: ClientKey | Path | None = None,
    ) -> None:
        """Connect. ``station`` and ``results_endpoint`` are needed for triggers only.

        ``key``: this camera's key or its file, for a station with CURVE (role camera, and read for triggers).
        Raises CameraError on an endpoint that cannot be, StationError on one that another user could hold, WireError on
        a bad camera's or station's name, AccessError on the key.
        """
        topic("frame", camera)
        for endpoint in (frames_endpoint, results_endpoint):
            check_ipc(endpoint, error=CameraError)
        key = read_client_key(key) if key else None
        limits = limits or SenderLimits()
        self.camera = camera
        self.camera_session = str(uuid.uuid4())
        self.seq = 0
        self.sent = 0
        self._limits = limits
        self._key = key
        self._frames_endpoint = frames_endpoint
        self._results_endpoint = results_endpoint
        self._station = station
        self._context = zmq.Context()
        try:
            self._connect_all()
        except BaseException:
            self._context.destroy(linger=0)
            raise

    @property
    def dropped(self) -> int:
        """Exposures that were not sent."""
        return self.seq - self.sent

    def missed(self) -> None:
        """Count an exposure of which there is no frame."""
        self.seq += 1

    def send(self, frame: Frame, trigger: Trigger | None = None, *, wait_ms: int = 0) -> bool:
        """Send one exposure now, or within ``wait_ms``, or never; True if the socket took it.

        ``trigger``: the one it answers; its ids and ``promise`` are copied into the frame. The frame's arrays are not
        copied: leave them alone afterwards. False: not connected, or the previous frame is still being sent. Raises
        WireError on a frame that breaks the contract (its ``seq`` is used up anyway).
        """
        if self._sub is not None:
            # ZeroMQ subscribes anew after a reconnection only when the socket is looked at.
            self._sub.poll(0)
        self.seq += 1
        if wait_ms > 0:
            self.wait_connected(wait_ms)
        frame = replace(
            frame,
            camera=self.camera,
            camera_session=self.camera_session,
            seq=self.seq,
            t_sent_us=time.time_ns() // 1000,
            trigger_id=trigger.trigger_id if trigger else frame.trigger_id,
            promise=trigger.promise if trigger else frame.promise,
            part_id=trigger.part_id if trigger else frame.part_id,
            recipe=trigger.recipe if trigger and trigger.recipe else frame.recipe,
        )
        try:
            self._push.send_multipart(encode_frame(frame), flags=zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self._renew()
            return False
        self._renew_s = time.monotonic() + self._limits.renew_ms / 1000
        self.sent += 1
        return True

    def wait_connected(self, timeout_ms: int) -> bool:
        """True as soon as the socket would take a frame, False when none did within ``timeout_ms``."""
        ends_s = time.monotonic() + timeout_ms / 1000
        while True:
            self._renew()
            left_ms = max(0, round((ends_s - time.monotonic()) * 1000))
            if self._push.poll(min(left_ms, self._limits.renew_ms), zmq.POLLOUT):
                return True
            if time.monotonic() >= ends_s:
                return False

    def wait_trigger(self, timeout_ms: int) -> Trigger | None:
        """The next trigger of the station, None when none came within ``timeout_ms``. Malformed ones are logged."""
        if self._sub is None:
            raise CameraError("this sender does not receive triggers; pass results_endpoint and station")
        ends_s = time.monotonic() + timeout_ms / 1000
        self._renew()
        while True:
            left_ms = max(0, round((ends_s - time.monotonic()) * 1000))
            if not self._sub.poll(left_ms):
                return None
            try:
                return decode_trigger(receive(self._sub))
            except WireError as error:
                log.warning("trigger ignored: %s", error)
            if time.monotonic() >= ends_s:
                return None

    def close(self) -> None:
        """Close the sockets; a frame still being sent gets ``linger_ms``."""
        for socket in (self._push, self._sub):
            if socket is not None:
                socket.close()
        self._context.term()

    def _renew(self) -> None:
        """Make the sockets again where no frame could go for too long."""
        now_s = time.monotonic()
        if self._push.poll(0, zmq.POLLOUT):
            self._renew_s = now_s + self._limits.renew_ms / 1000
        elif now_s > self._renew_s:
            for socket in (self._push, self._sub):
                if socket is not None:
                    socket.close(0)
            self._connect_all()

    def _connect_all(self) -> None:
        limits = self._limits
        self._renew_s = time.monotonic() + limits.renew_ms / 1000
        options = {zmq.IMMEDIATE: 1, zmq.SNDHWM: limits.send_queue_messages, zmq.LINGER: limits.linger_ms}
        self._push = self._connect(zmq.PUSH, self._frames_endpoint, options)
        self._sub = None
        if self._results_endpoint:
            options = {zmq.RCVHWM: limits.trigger_queue_messages, zmq.LINGER: 0}
            self._sub = self._connect(zmq.SUB, self._results_endpoint, options)
            self._sub.setsockopt(zmq.SUBSCRIBE, topic("trigger", self._station))

    def _connect(self, kind: int, endpoint: str, options: Mapping[zmq.SocketOption, int]) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, self._limits.max_nbytes)
        for option, value in options.items():
            socket.setsockopt(option, value)
        secure(socket, self._key)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise CameraError(f"cannot connect to {endpoint}: {error}; give tcp://HOST:PORT or ipc://PATH") from error
        return socket

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
