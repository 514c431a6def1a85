"""Strangers on a port: raw connections that speak no ZMTP, part of it, a wrong version, or valid ZMTP with bad intent.

Everything follows from the seed. No answer is waited for, so that a stranger takes no longer than its own delays.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TYPES = {"frames": b"PUSH", "results": b"SUB", "bulk": b"SUB", "control": b"DEALER"}
"""The socket type that may connect to each socket of a station."""
STATION_TYPES = {"frames": b"PULL", "results": b"PUB", "bulk": b"PUB", "control": b"ROUTER"}
"""The socket types of the station itself."""
ENDINGS = ("close", "reset", "half", "leave", "slow")
"""How a stranger leaves: in order, with linger 0, closing its own side only, not at all, or byte by byte."""
SLOW_BYTES = 12
SLOW_S = 0.01
TIMEOUT_S = 5.0
_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_TLS_HELLO = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(32)) + b"\x20" + bytes(96)


class Saying(NamedTuple):
    """What a stranger sends."""

    name: str
    data: bytes


def greeting(mechanism: bytes = b"NULL", version: int = 3, as_server: int = 0) -> bytes:
    """64 bytes of ZMTP 3."""
    return _SIGNATURE + bytes((version, 1)) + mechanism.ljust(20, b"\0") + bytes((as_server,)) + bytes(31)


def command(name: bytes, data: bytes = b"") -> bytes:
    """A command, whole."""
    body = bytes((len(name),)) + name + data
    return b"\x04" + bytes((len(body),)) + body


def ready(socket_type: bytes) -> bytes:
    """READY with a socket type."""
    return command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type)


def message(*parts: bytes) -> bytes:
    """A message, whole."""
    flags = [1] * (len(parts) - 1) + [0]
    return b"".join(struct.pack(">BQ", more | 2, len(part)) + part for more, part in zip(flags, parts, strict=True))


def sayings(socket_type: bytes, dice: random.Random) -> list[Saying]:
    """Everything that a stranger may send to a socket to which ``socket_type`` connects, some of it random."""
    hello, met = greeting(), greeting() + ready(socket_type)
    curve = greeting(b"CURVE")
    queue_full = 1500 if socket_type == b"SUB" else 100
    said = {
        "nothing": b"",
        "zmtp1": b"\x01\x00\x02\x00x",
        "zmtp1 identity": b"\x04\x00abc\x02\x00x\x0a\x01twoparts\x03\x00ab",
        "zmtp2": _SIGNATURE + b"\x01\x08\x00\x00\x00\x01x",
        "zmtp2 half": _SIGNATURE + b"\x01",
        "zmtp3 half": hello[: dice.randrange(1, 64)],
        "zmtp3 greeting": hello,
        "zmtp4": greeting(version=4) + ready(socket_type),
        "as server": greeting(as_server=1) + ready(socket_type),
        "plain": greeting(b"PLAIN") + command(b"HELLO", b"\x04user\x04pass"),
        "gssapi": greeting(b"GSSAPI") + command(b"INITIATE", bytes(40)),
        "curve hello": curve + command(b"HELLO", bytes(194)),
        "curve half": curve + command(b"HELLO", bytes(194))[: dice.randrange(1, 200)],
        "curve large": curve + b"\x06" + struct.pack(">Q", 2**27) + bytes(4096),
        "http": b"GET / HTTP/1.1\r\nHost: station\r\nAccept: */*\r\n\r\n",
        "tls": _TLS_HELLO,
        "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
        "wrong type": hello + ready(b"REP"),
        "no type": hello + command(b"READY"),
        "half property": hello + command(b"READY", b"\x0bSocket-Type\x00\x00"),
        "message first": hello + message(b"x"),
        "error": hello + command(b"ERROR", b"\x03bad"),
        "long command": met + b"\x06" + struct.pack(">Q", 10_000) + bytes(10_000),
        "nameless command": met + b"\x04\x00" + b"\x04\x02\x09a",
        "short ping": met + command(b"PING") * 3,
        "pings": met + command(b"PING", b"\x00\x0actx") * 40,
        "long ping": met + command(b"PING", bytes(200)),
        "subscribe": met + command(b"SUBSCRIBE", b"state/") + command(b"CANCEL", b"never"),
        "reserved flags": met + b"\xf8\x01x",
        "empty parts": met + b"\x01\x00" * 6 + b"\x00\x00",
        "many parts": met + b"\x01\x01x" * 20_000 + b"\x00\x01x",
        "unfinished parts": met + b"\x01\x01x" * 20_000,
        "endless part": met + b"\x02" + struct.pack(">Q", 2**63 - 1) + bytes(5000),
        "half part": met + b"\x02" + struct.pack(">Q", 100_000) + bytes(1000),
        "many messages": met + message(b"x") * 200,
        "topics": met + b"".join(message(b"\x01" + struct.pack(">I", number)) for number in range(2000)),
        "long topic": met + message(b"\x01" + bytes(3000)),
        "no frame": met + message(b"frame/cam1/", b"{", bytes(10), bytes(10)),
        # With the queue full and the connection reset, libzmq 4.3.5 ends the whole process at such a heartbeat.
        "heartbeat behind a full queue": met
        + b"\x00\x02\x01x" * queue_full
        + command(b"PING", b"\x00\x00")
        + b"\x00\x02\x01y",
        "random": dice.randbytes(dice.randrange(1, 400)),
        "greeting, random": hello + dice.randbytes(dice.randrange(1, 400)),
        "ready, random": met + dice.randbytes(dice.randrange(1, 400)),
    }
    return [Saying(name, data) for name, data in said.items()]


class Strangers:
    """Raw connections to one endpoint; those that stay are closed at the end."""

    def __init__(self, endpoint: str, dice: random.Random) -> None:
        self._endpoint = endpoint
        self._dice = dice
        self._stayed: list[socket.socket] = []
        self.said = 0

    def say(self, saying: Saying, ending: str) -> None:
        """One connection. Whether it is refused or cut does not matter."""
        with suppress(OSError):
            end = connect(self._endpoint)
            self.said += 1
            play(end, saying.data, ending, self._stayed)

    def say_all(self, sayings: Sequence[Saying], endings: Sequence[str] = ENDINGS) -> None:
        """Each of them once, with a random ending, in random order."""
        for saying in self._dice.sample(sayings, len(sayings)):
            self.say(saying, self._dice.choice(endings))

    def close(self) -> None:
        """Close those that stayed."""
        for end in self._stayed:
            end.close()
        self._stayed.clear()


def connect(endpoint: str) -> socket.socket:
    """A raw connection to ``tcp://`` or ``ipc://``."""
    scheme, _, place = endpoint.partition("://")
    if scheme == "ipc":
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.settimeout(TIMEOUT_S)
        end.connect(place)
        return end
    host, _, port = place.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def play(end: socket.socket, data: bytes, ending: str, stayed: list[socket.socket]) -> None:
    """Send it and leave. Raises OSError where the other side has cut the connection."""
    end.settimeout(TIMEOUT_S)
    try:
        if ending == "slow":
            for byte in data[:SLOW_BYTES]:
                end.send(bytes((byte,)))
                time.sleep(SLOW_S)
            data = data[SLOW_BYTES:]
        end.sendall(data)
    finally:
        if ending == "leave":
            stayed.append(end)
        else:
            if ending == "reset":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif ending == "half":
                end.settimeout(SLOW_S)
                with suppress(OSError):
                    end.shutdown(socket.SHUT_WR)
                    end.recv(4096)
            end.close()


class Impostor:
    """An impostor at a station's endpoints (ipc): it sends to every client what strangers send."""

    def __init__(self, ends: Mapping[str, str], dice: random.Random) -> None:
        """``ends``: endpoints of frames, results and control, or some of them."""
        self.said: Counter[str] = Counter()
        """How often it sent something, by socket."""
        self._places = [Path(end.removeprefix("ipc://")) for end in ends.values()]
        self._listeners = []
        self._threads = []
        for name, place in zip(ends, self._places, strict=True):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(place))
            listener.listen()
            self._listeners.append(listener)
            arguments = (name, listener, random.Random(dice.random()))
            self._threads.append(threading.Thread(target=self._serve, args=arguments, daemon=True))
        for thread in self._threads:
            thread.start()

    def _serve(self, name: str, listener: socket.socket, dice: random.Random) -> None:
        plan: Iterator[Saying] = iter(())
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            saying = next(plan, None)
            if saying is None:
                said = sayings(STATION_TYPES[name], dice)
                plan = iter(dice.sample(said, len(said)))
                saying = next(plan)
            with suppress(OSError):
                end.sendall(saying.data)
                end.settimeout(0.02)
                ends_s = time.monotonic() + 0.1
                with suppress(TimeoutError):  # what it answers, so that it has read; a camera would go on for ever
                    while end.recv(65_536) and time.monotonic() < ends_s:
                        pass
                play(end, b"", dice.choice(("close", "reset")), [])
            self.said[name] += 1

    def close(self) -> None:
        """Free the endpoints for a station."""
        for listener, place in zip(self._listeners, self._places, strict=True):
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            place.unlink()
        for thread in self._threads:
            thread.join(10)
