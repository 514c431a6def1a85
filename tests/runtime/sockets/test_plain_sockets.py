"""Plain connections, and what a stranger can do by them: each costs itself only, and is bounded before it is read."""

from __future__ import annotations

import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest
import zmq

from asperity.benchmarks.line.strangers import TYPES, Strangers, command, greeting, message, ready, sayings
from asperity.runtime.errors import ConfigError, StationError
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from tests.places import ROOT
from tests.runtime.sockets.test_curve_sockets import Desk, open_files

NAMES = ("frames", "results", "bulk", "control")
FOREVER_MS = 60_000
"""A bound of time that a test does not reach: what it sees was done by another one."""
SMALL = {
    "message_ms": FOREVER_MS, "heartbeat_ms": FOREVER_MS, "heartbeat_timeout_ms": FOREVER_MS,
    "frames_max_nbytes": 300_000, "frames_message_nbytes": 400_000,
    "frames_waiting_nbytes": 1_000_000, "subscriptions_max": 8, "topic_max_nbytes": 64,
}  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with closing(Desk(tmp_path / "keys", curve=False, sockets=SMALL, handshake_ms=FOREVER_MS, connections=8)) as made:
        yield made


def raw(desk: Desk, name: str) -> socket.socket:
    end = desk.raw(name)
    end.settimeout(None)  # with one, MSG_DONTWAIT waits for it
    return end


def met(desk: Desk, name: str) -> socket.socket:
    """A raw connection after its handshake."""
    before = desk.sockets.admitted(name)
    end = raw(desk, name)
    end.sendall(greeting() + ready(TYPES[name]))
    desk.until(lambda: desk.sockets.admitted(name) > before, "the handshake")
    return end


def is_cut(end: socket.socket) -> bool:
    """The other side has ended it; what it said before is passed over."""
    with suppress(BlockingIOError):
        try:
            while end.recv(65_536, socket.MSG_DONTWAIT):
                pass
        except ConnectionError:
            return True
        return True
    return False


def say(end: socket.socket, data: bytes) -> None:
    """All of it, or as much as is taken before the connection is cut."""
    with suppress(OSError):
        end.sendall(data)


def served(desk: Desk) -> None:
    """A camera, a subscriber and a client are served."""
    push, sub, ask = desk.client(zmq.PUSH, "frames", None), desk.client(zmq.SUB, "results", None), desk.client(
        zmq.DEALER, "control", None
    )  # fmt: skip
    push.send_multipart([b"good", bytes(100_000)])
    ask.send(b"request")
    desk.until(lambda: [b"good", bytes(100_000)] in desk.messages, "a frame")
    desk.until(lambda: bool(sub.poll(0)) and bool(ask.poll(0)), "a state and an answer")
    for end in (push, sub, ask):
        end.close()
    desk.messages.clear()


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_whatever_strangers_say_costs_them_alone(tmp_path: Path, scheme: str) -> None:
    dice = random.Random(7)
    ends = {name: f"ipc://{tmp_path}/{name}" if scheme == "ipc" else "tcp://127.0.0.1:*" for name in NAMES}
    with closing(Desk(tmp_path / "keys", curve=False, sockets={**ends, "message_ms": 500})) as desk:
        served(desk)
        before = open_files()
        strangers = [Strangers(desk.sockets.endpoints[name], dice) for name in NAMES]
        for name, stranger in zip(NAMES, strangers, strict=True):
            stranger.say_all(sayings(TYPES[name], dice), ("close", "reset", "leave"))
            desk.turn()
        served(desk)
        for stranger in strangers:
            assert stranger.said == len(sayings(b"PUSH", dice))
            stranger.close()
        desk.until(lambda: not any(desk.sockets.admitted(name) for name in NAMES), "the end of them all")
        desk.until(lambda: open_files() <= before + 2, "their connections to be closed")
        assert set(desk.sockets.access.refused) <= {"HANDSHAKE", "BOUNDS", "CONNECTIONS"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("frames", b"\x01\x01x" * 17),
        ("frames", b"\x02" + struct.pack(">Q", 300_001)),
        ("frames", b"\x03" + struct.pack(">Q", 250_000) + bytes(250_000) + b"\x02" + struct.pack(">Q", 250_000)),
        ("frames", b"\x02" + struct.pack(">Q", 2**63)),
        ("frames", b"\x08\x01x"),
        ("frames", command(b"PING")),
        ("frames", command(b"PING", bytes(40))),
        ("frames", b"\x04\x00"),
        ("frames", b"\x06" + struct.pack(">Q", 600)),
        ("control", b"\x01\x01x" * 17),
        ("control", b"\x02" + struct.pack(">Q", 65_537)),
        ("results", b"".join(message(b"\x01" + bytes((number,))) for number in range(9))),
        ("results", b"".join(command(b"SUBSCRIBE", bytes((number,))) for number in range(9))),
        ("results", message(b"\x01" + bytes(65))),
        ("results", command(b"SUBSCRIBE", bytes(65))),
        ("bulk", message(b"\x02topic")),
        ("bulk", message(b"\x01topic", b"more")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:12].hex(),
)
def test_a_connection_beyond_a_bound_is_cut_before_more_is_read_and_nobody_else_is(
    desk: Desk, name: str, data: bytes
) -> None:
    bystander = met(desk, name)
    end = met(desk, name)
    say(end, data)
    desk.until(lambda: is_cut(end), "the cut")
    desk.until(lambda: desk.sockets.access.refused == {"BOUNDS": 1}, "the count")
    assert not is_cut(bystander) and desk.sockets.admitted(name) == 1
    assert not desk.messages and not desk.requests
    served(desk)


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x00\x02\x00x",
        b"\xff" + bytes(8) + b"\x7f\x01\x08\x00\x00\x00\x01x" + bytes(60),
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        greeting(version=2) + ready(b"PUSH"),
        greeting(b"PLAIN"),
        greeting(b"CURVE"),
        greeting() + ready(b"REP"),
        greeting() + command(b"READY"),
        greeting() + message(b"x"),
    ],
)
def test_who_speaks_no_zmtp_3_is_cut_at_once(desk: Desk, data: bytes) -> None:
    end = raw(desk, "frames")
    say(end, data)
    desk.until(lambda: is_cut(end), "the cut")
    desk.until(lambda: desk.sockets.access.refused == {"HANDSHAKE": 1}, "the count")
    assert not desk.camera_connected() and not desk.messages


def test_half_a_message_may_not_stay_half_nor_stand_in_the_way_of_others(tmp_path: Path) -> None:
    half = b"\x03" + struct.pack(">Q", 300_000) + bytes(290_000)
    with closing(Desk(tmp_path / "keys", curve=False, sockets=SMALL)) as desk:
        # Three halves are all the bytes there may be: the fourth, or a whole frame, makes the oldest of them go.
        ends = [met(desk, "frames") for _ in range(4)]
        for end in ends:
            say(end, half)
        desk.until(lambda: any(is_cut(end) for end in ends), "one to go")
        served(desk)
        assert 1 <= sum(is_cut(end) for end in ends) <= 2
    with closing(Desk(tmp_path / "keys", curve=False, sockets={**SMALL, "message_ms": 200})) as desk:
        end = met(desk, "frames")
        say(end, half)
        desk.until(lambda: is_cut(end), "the cut")
        assert desk.sockets.admitted("frames") == 0


def test_frames_that_wait_are_bounded_and_none_of_them_is_lost(desk: Desk) -> None:
    """A sender that is faster than the desk waits; TCP tells it to."""
    push = desk.client(zmq.PUSH, "frames", None)
    for number in range(40):
        desk.until(lambda: bool(push.poll(0, zmq.POLLOUT)), "room")
        push.send_multipart([number.to_bytes(1, "big"), bytes(200_000)])
    desk.until(lambda: len(desk.frames) == 40, "all of them")
    assert desk.frames == [number.to_bytes(1, "big") for number in range(40)]


def test_a_crowd_is_bounded_and_locks_nobody_out(desk: Desk) -> None:
    crowd = [raw(desk, "frames") for _ in range(40)]
    desk.until(lambda: sum(is_cut(end) for end in crowd) >= 32, "the first of them to be cut for the last")
    served(desk)
    desk.until(lambda: desk.sockets.admitted("results") == 0, "the subscriber to be gone")
    many = [met(desk, "results") for _ in range(8)]
    one_more = raw(desk, "results")
    say(one_more, greeting() + ready(b"SUB"))
    desk.until(lambda: is_cut(one_more), "the ninth to be refused")
    desk.until(lambda: desk.sockets.access.refused["CONNECTIONS"] == 1, "the count")
    assert not any(is_cut(end) for end in many)


def test_a_connection_that_answers_no_heartbeat_is_no_camera_and_one_that_does_is(tmp_path: Path) -> None:
    """Without an expected rate too: a camera that stands still holds its connection open and says nothing."""
    lively = {"heartbeat_ms": 100, "heartbeat_timeout_ms": 300}
    with closing(Desk(tmp_path / "keys", curve=False, sockets=lively)) as desk:
        end = met(desk, "frames")
        desk.until(lambda: is_cut(end), "the cut of who says nothing")
        desk.until(lambda: desk.sockets.access.refused == {"BOUNDS": 1}, "the count")
        assert not desk.camera_connected()
        push = desk.client(zmq.PUSH, "frames", None)
        desk.until(desk.camera_connected, "the camera")
        for _ in range(5):
            heartbeat = met(desk, "frames")  # as long as a camera's silence
            desk.until(lambda end=heartbeat: is_cut(end), "the next one's cut")  # type: ignore[misc]
        assert desk.sockets.admitted("frames") == 1 and desk.camera_connected()
        push.close()


def test_heartbeats_and_the_subscriptions_of_zmtp_3_1_are_answered(desk: Desk) -> None:
    end = met(desk, "results")
    say(end, command(b"PING", b"\x00\x00ctx"))
    said = b""

    def answered() -> bool:
        nonlocal said
        with suppress(BlockingIOError):
            said += end.recv(65_536, socket.MSG_DONTWAIT)
        return command(b"PONG", b"ctx") in said

    desk.until(answered, "PONG")
    assert b"state/" not in said
    say(end, command(b"SUBSCRIBE", b"state/"))
    desk.until(lambda: answered() and b"state/st1/" in said, "a state")
    say(end, command(b"CANCEL", b"state/"))
    ask = desk.client(zmq.DEALER, "control", None)
    ask.send(b"after it")
    desk.until(lambda: bool(ask.poll(0)), "an answer")


def test_a_subscriber_that_does_not_read_loses_messages_and_nobody_else_does(tmp_path: Path) -> None:
    with closing(Desk(tmp_path / "keys", curve=False, sockets={"results_hwm": 10})) as desk:
        deaf = met(desk, "results")
        say(deaf, message(b"\x01large/"))
        sub = desk.client(zmq.SUB, "results", None)
        desk.until(lambda: bool(sub.poll(0)), "a first message")
        for number in range(400):
            desk.sockets.publish([b"large/", struct.pack(">I", number), bytes(60_000)])
            desk.turn()
            while sub.poll(0):
                parts = sub.recv_multipart()
                if parts[0] == b"large/":
                    heard = struct.unpack(">I", parts[1])[0]
        assert heard == 399
        deaf.settimeout(5)
        taken = 0
        while select.select([deaf], [], [], 0)[0] and (data := deaf.recv(1 << 20)):
            taken += len(data)
            desk.turn()
        assert 0 < taken < 400 * 60_000, "what it did not read waits for it up to its bound"


def test_what_a_subscriber_has_not_taken_is_sent_before_the_end(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        ends = {name: f"ipc://{tmp_path}/{name}" for name in NAMES}
        sockets = InspectorSockets(msgspec.convert({"sockets": ends}, StationConfig))
        sub.setsockopt(zmq.SUBSCRIBE, b"")
        sub.connect(ends["results"])
        while not sub.poll(0):
            sockets.wait(5)
            sockets.publish([b"first/"])
        for number in range(200):
            sockets.publish([b"more/", struct.pack(">I", number), bytes(20_000)])
        sockets.close(20_000)
        heard = 0
        while heard < 200 and sub.poll(20_000):
            heard += sub.recv_multipart()[0] == b"more/"
        assert heard == 200 and not any(Path(tmp_path, name).exists() for name in NAMES)


def test_an_endpoint_in_use_or_that_cannot_be_is_named(tmp_path: Path, desk: Desk) -> None:
    free = {name: f"ipc://{tmp_path}/{name}" for name in NAMES}
    for endpoint, kind, words in (
        (desk.sockets.endpoints["frames"], StationError, r"\[sockets\] frames: cannot bind .* another inspector"),
        ("tcp://127.0.0.1:port", ConfigError, r"\[sockets\] frames is .*: 'port' is not a port"),
        (f"ipc://{tmp_path}/{'long' * 40}", StationError, "bytes, a socket's may have 107"),
    ):
        config = msgspec.convert({"sockets": {**free, "frames": endpoint}}, StationConfig)
        with pytest.raises(kind, match=words):
            InspectorSockets(config)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(f"{tmp_path}/frames")  # of a process that was killed
    stale.close()
    InspectorSockets(msgspec.convert({"sockets": free}, StationConfig)).close(0)


LIBZMQ = """
import socket, struct, sys, time
import zmq
sys.path.insert(0, sys.argv[1])
from asperity.benchmarks.line.strangers import TYPES, command, greeting, ready
name, receiving, heartbeat = sys.argv[2:5]
kind = {"frames": zmq.PULL, "results": zmq.PUB, "control": zmq.ROUTER}[name]
end = zmq.Context().socket(kind)
end.setsockopt(zmq.RCVHWM, int(receiving))
if heartbeat == "own":
    end.setsockopt(zmq.HEARTBEAT_IVL, 100)
    end.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60000)
end.bind("tcp://127.0.0.1:*")
host, _, port = end.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")
raw = socket.create_connection(("127.0.0.1", int(port)))
raw.sendall(greeting() + ready(TYPES[name]))
raw.settimeout(30)
said = b""
while b"READY" not in said:
    said += raw.recv(4096)
body = b"\\x00\\x02\\x01x" * 1500  # less than libzmq reads at once
raw.sendall(body if heartbeat == "own" else body + command(b"PING", b"\\0\\0") + b"\\x00\\x02\\x01y")
time.sleep(0.5)   # the desk is busy
raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
raw.close()
time.sleep(1)
for _ in range(3000):
    try:
        end.send(b"z", zmq.NOBLOCK) if kind == zmq.PUB else end.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        pass
    time.sleep(0.0002)
"""


@pytest.mark.parametrize(
    ("name", "receiving", "heartbeat", "ends_well"),
    [
        ("frames", 4, "own", False),
        ("frames", 4, "its", False),
        ("control", 64, "its", False),
        ("results", 1000, "its", False),
        ("frames", 0, "own", True),
        ("frames", 0, "its", True),
        ("control", 0, "its", True),
        ("results", 0, "its", True),
    ],
)
def test_libzmq_ends_the_process_at_a_heartbeat_on_a_reset_connection_unless_no_queue_is_ever_full(
    name: str, receiving: int, heartbeat: str, ends_well: bool
) -> None:
    """Why plain connections are not libzmq's, and why its receiving queues have no bound where CURVE needs it."""
    place = str(ROOT)
    code = [sys.executable, "-c", LIBZMQ, place, name, str(receiving), heartbeat]
    ended = subprocess.run(code, timeout=120, check=False, capture_output=True, text=True)
    if ends_well:
        assert ended.returncode == 0, ended.stderr
    elif zmq.zmq_version_info() <= (4, 3, 5):
        assert "_io_error" in ended.stderr and ended.returncode < 0


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_connection_with_a_heartbeat_behind_a_full_queue_harms_nobody(tmp_path: Path, name: str) -> None:
    """The same as kills libzmq, while the desk is busy; and the station's own heartbeat comes meanwhile."""
    lively = {"heartbeat_ms": 100, "heartbeat_timeout_ms": FOREVER_MS}
    with closing(Desk(tmp_path / "keys", curve=False, sockets=lively)) as desk:
        end = met(desk, name)
        end.settimeout(2)  # what is not taken while the desk is busy stays unsent
        say(end, b"\x00\x02\x01x" * 1500 + command(b"PING", b"\x00\x00") + message(b"\x01y"))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
        time.sleep(0.3)
        served(desk)
        desk.until(lambda: desk.sockets.admitted(name) == 0, "the end of it")
