"""The desk's sockets: bound, bounded and closed in one place. Only the desk's thread may touch them."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import zmq

from runtime.access import Access
from runtime.config import StationConfig, control_endpoint, hosted
from runtime.curve_ends import CurveEnds
from runtime.errors import ConfigError, StationError
from runtime.plain_ends import PlainEnds
from runtime.wire import Part


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
    def may_hear(self, camera: str) -> bool: ...
    def admitted(self, name: str) -> int: ...
    def close(self, linger_ms: int) -> None: ...


class DeskSockets:
    """PULL frames, PUB results, PUB bulk, ROUTER control, and the bell by which other threads wake the desk.

    Raises ConfigError for a bind off loopback without CURVE or ``insecure_lan``, StationError where a bind fails,
    AccessError where the key folder cannot be trusted.
    """

    def __init__(self, config: StationConfig) -> None:
        """``config``: the process's; its stations share the sockets."""
        sizes = config.sockets
        self._config = config
        self.access = Access(config.security)
        self._speaker = 0  # connection by which the last message on the frames socket came
        self._ends: Ends = (CurveEnds if self.access.curve else PlainEnds)(config, self.access)
        try:
            # Whoever knows a station's name alone finds the control socket, whichever station of the process it is.
            controls = dict.fromkeys(control_endpoint(each.station.name, sizes.control) for each in hosted(config))
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
        """For another thread, called on it: returns what wakes the desk. Never blocks."""
        return self._ends.make_bell()

    def wait(self, timeout_ms: float) -> None:
        """Sleep until something came in, at most ``timeout_ms``. Raises StationError: the sockets cannot go on."""
        self._ends.wait(timeout_ms)

    def frames(self) -> Iterator[list[Part]]:
        """Messages on the frames socket, parts not copied; at most ``frames_per_turn``."""
        for connection, client, parts in self._ends.frames(self._config.sockets.frames_per_turn):
            self._speaker = connection
            if self.access.sends_frames(client):
                yield parts

    def requests(self) -> Iterator[tuple[list[bytes], list[bytes], str]]:
        """(sender, parts, client) of messages on the control socket; at most ``requests_per_turn``."""
        for sender, client, parts in self._ends.requests(self._config.sockets.requests_per_turn):
            yield [sender], parts, client

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

    def camera_connected(self, camera: str) -> bool:
        """True while this camera is connected to the frames socket and answers its heartbeat.

        As long as no frame of it has come, whoever is connected and has sent nothing yet may be it.
        """
        return self._ends.may_hear(camera)

    def admitted(self, name: str) -> int:
        """Connections of a socket (frames, results, bulk, control) whose handshake has ended."""
        return self._ends.admitted(name)

    def close(self, linger_ms: int) -> None:
        """Close everything; what subscribers have not taken gets ``linger_ms``."""
        self._ends.close(linger_ms)

    def _bind(self, name: str, endpoint: str) -> str:
        path = Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
        asked = self._config.security.curve or self._config.sockets.insecure_lan
        if path is None and not asked and not _is_loopback(endpoint):
            raise ConfigError(
                f"[sockets] {name} is {endpoint}, which others on the network could reach and use; bind 127.0.0.1, "
                "give --curve and each client a key, or --insecure-lan if nobody untrusted is on that network"
            )
        if path is not None:
            _private_folder(path.parent, endpoint)
        before = os.umask(0o177)  # a socket file must not be open to others even for a moment
        try:
            bound = self._ends.bind(name, endpoint)
        except (OSError, zmq.ZMQError) as error:
            raise StationError(
                f"[sockets] {name}: cannot bind {endpoint} ({error.strerror}); is another inspector running? "
                "Choose another endpoint"
            ) from error
        finally:
            os.umask(before)
        if path is not None:
            path.chmod(0o600)
        return bound


def _is_loopback(endpoint: str) -> bool:
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _private_folder(folder: Path, endpoint: str) -> None:
    """Make the folder of an ipc socket for this user alone. Raises StationError where it is somebody else's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise StationError(f"the folder of {endpoint} cannot be made: {error.strerror}; choose another") from error
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (os.getuid(), 0) or open_to_all:
        raise StationError(f"{folder} belongs to somebody else or is open to all; choose another place for {endpoint}")
