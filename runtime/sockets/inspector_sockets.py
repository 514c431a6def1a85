"""The I/O thread's sockets: bound, bounded and closed in one place. Only the I/O thread may touch them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import zmq

from asperity.runtime.clock import MS
from asperity.runtime.errors import ConfigError, StationError
from asperity.runtime.security.socket_files import check_ipc
from asperity.runtime.settings.combined_stations import names_of
from asperity.runtime.settings.listening import place_of, why_not_bound
from asperity.runtime.settings.paths import control_endpoint
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.access import Access
from asperity.runtime.sockets.curve_sockets import CurveEnds
from asperity.runtime.sockets.plain_sockets import PlainEnds
from asperity.runtime.sockets.reachability import is_loopback
from asperity.runtime.wire import Part

STALL_MS = 100
"""A turn that comes so much too late: the process stood still, and unread messages wait."""
CATCH_UP_MS = 100
"""After which what waited is taken for read."""
UNREAD_MS = 200
"""So far back ``read_up_to_ns`` may be although nothing waits: a turn, and the catching up; and a sleep before it."""


class Ends(Protocol):
    """What carries the messages: ``PlainEnds``, or ``CurveEnds`` with CURVE."""

    def bind(self, name: str, endpoint: str) -> str: ...
    def open(self) -> None: ...
    def make_bell(self) -> Callable[[], None]: ...
    def wait(self, timeout_ms: float) -> None: ...
    def frames(self, count: int) -> Sequence[tuple[int, str, list[Part]]]: ...
    def requests(self, count: int) -> Sequence[tuple[bytes, str, list[bytes]]]: ...
    def reply(self, envelope: list[bytes], body: bytes) -> None: ...
    def publish(self, name: str, parts: Sequence[Part]) -> None: ...
    def speaks(self, connection: int, camera: str) -> None: ...
    def number(self, connection: int) -> int | None: ...
    def is_open(self, number: int) -> bool: ...
    def may_hear(self, camera: str) -> bool: ...
    def admitted(self, name: str) -> int: ...
    def close(self, linger_ms: int) -> None: ...


class InspectorSockets:
    """PULL frames, PUB results, PUB bulk, ROUTER control, and the bell by which other threads wake the I/O thread.

    Raises ConfigError for a malformed endpoint and for a bind off loopback without CURVE or ``insecure_lan``,
    StationError where a bind fails, AccessError where the key folder cannot be trusted.
    """

    def __init__(self, config: StationConfig) -> None:
        """``config``: the process's; its stations share the sockets."""
        sizes = config.sockets
        self._config = config
        self.access = Access(config.security)
        self._speaker = 0  # connection by which the last message on the frames socket came
        self._turn_ns = self._frames_read_ns = self._requests_read_ns = time.monotonic_ns()
        self._caught_up_ns = 0
        self._ends: Ends = CurveEnds(config, self.access) if self.access.curve else PlainEnds(config, self.access)
        try:
            # Whoever knows a station's name alone finds the control socket, whichever station of the process it is.
            controls = dict.fromkeys(control_endpoint(name, sizes.control) for name in names_of(config))
            bound = [self._bind("control", endpoint) for endpoint in controls]
            self.endpoints = {
                "frames": self._bind("frames", sizes.frames),
                "results": self._bind("results", sizes.results),
                "bulk": self._bind("bulk", sizes.bulk),
                "control": bound[0],
            }
            self._ends.open()
        except BaseException:
            self.close(linger_ms=0)
            raise

    def make_bell(self) -> Callable[[], None]:
        """For another thread, called on it: returns what wakes the I/O thread. Never blocks."""
        return self._ends.make_bell()

    def wait(self, timeout_ms: float) -> None:
        """Sleep until something came in, at most ``timeout_ms``. Raises StationError: the sockets cannot go on."""
        self._ends.wait(timeout_ms)
        now_ns = time.monotonic_ns()
        if now_ns - self._turn_ns > (timeout_ms + STALL_MS) * MS:
            self._caught_up_ns = now_ns + CATCH_UP_MS * MS
        self._turn_ns = now_ns

    def frames(self) -> Iterator[list[Part]]:
        """Messages on the frames socket, parts not copied; at most ``frames_per_turn``."""
        most, looked_ns = self._config.sockets.frames_per_turn, time.monotonic_ns()
        taken = self._ends.frames(most)
        for connection, client, parts in taken:
            self._speaker = connection
            if self.access.sends_frames(client):
                yield parts
        if len(taken) < most and looked_ns >= self._caught_up_ns:
            self._frames_read_ns = looked_ns

    def requests(self) -> Iterator[tuple[list[bytes], list[bytes], str]]:
        """(sender, parts, client) of messages on the control socket; at most ``requests_per_turn``."""
        most, looked_ns = self._config.sockets.requests_per_turn, time.monotonic_ns()
        taken = self._ends.requests(most)
        for sender, client, parts in taken:
            yield [sender], parts, client
        if len(taken) < most and looked_ns >= self._caught_up_ns:
            self._requests_read_ns = looked_ns

    @property
    def read_up_to_ns(self) -> int:
        """Every frame and request that came before this moment (monotonic) has been read."""
        return min(self._frames_read_ns, self._requests_read_ns)

    def reply(self, envelope: list[bytes], body: bytes) -> None:
        """Answer a request. A client that is gone or does not read loses it and asks again."""
        self._ends.reply(envelope, body)

    def publish(self, parts: Sequence[bytes]) -> None:
        """On the results socket. Never blocks: a subscriber that does not read loses it."""
        self._ends.publish("results", parts)

    def publish_bulk(self, parts: Sequence[bytes | memoryview]) -> None:
        """On the bulk socket. Never blocks."""
        self._ends.publish("bulk", parts)

    def camera_spoke(self, camera: str) -> None:
        """The message that ``frames`` gave last is of this camera."""
        self._ends.speaks(self._speaker, camera)

    @property
    def speaker(self) -> int | None:
        """Number of the connection of the message that ``frames`` gave last; None: it is closed by now."""
        return self._ends.number(self._speaker)

    def is_open(self, connection: int) -> bool:
        """The connection of this number to the frames socket is still there."""
        return self._ends.is_open(connection)

    def camera_connected(self, camera: str) -> bool:
        """True while this camera is connected to the frames socket and answers its heartbeat.

        As long as no frame of it has arrived, any connection that has sent nothing yet may be it.
        """
        return self._ends.may_hear(camera)

    def admitted(self, name: str) -> int:
        """Connections of a socket (frames, results, bulk, control) whose handshake has ended."""
        return self._ends.admitted(name)

    def close(self, linger_ms: int) -> None:
        """Close everything; what subscribers have not taken gets ``linger_ms``."""
        self._ends.close(linger_ms)

    def _bind(self, name: str, endpoint: str) -> str:
        try:
            place = place_of(endpoint)
        except ValueError as error:
            raise ConfigError(f"[sockets] {name} is {endpoint!r}: {error}") from error
        path = check_ipc(endpoint, make_folder=True)
        asked = self._config.security.curve or self._config.sockets.insecure_lan
        if path is None and not asked and not is_loopback(endpoint):
            raise ConfigError(
                f"[sockets] {name} is {endpoint}, which other hosts on the network could reach and use; bind "
                "127.0.0.1, give --curve and each client a key, or --insecure-lan if that network is trusted"
            )
        before = os.umask(0o177)  # a socket file must not be open to others even for a moment
        try:
            bound = self._ends.bind(name, endpoint)
        except (OSError, UnicodeError, zmq.ZMQError) as error:
            why = why_not_bound(error, place, "another inspector")
            raise StationError(f"[sockets] {name}: cannot bind {endpoint}: {why}") from error
        finally:
            os.umask(before)
        if path is not None:
            path.chmod(0o600)
        return bound
