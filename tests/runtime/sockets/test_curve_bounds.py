"""What clients with a key, and strangers before their handshake, may send to sockets with CURVE."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import zmq

from asperity.benchmarks.line.strangers import greeting
from asperity.runtime.security.curve_keys import Role
from asperity.runtime.sockets import curve_connections
from asperity.runtime.sockets import curve_sockets as curve_ends
from tests.places import ROOT
from tests.runtime.sockets.test_curve_sockets import Desk

FOREVER_MS = 60_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    sizes = {"frames_message_nbytes": 2**20, "frames_waiting_nbytes": 4 * 2**20}
    with closing(Desk(tmp_path / "keys", sockets=sizes)) as made:
        yield made


def cut(desk: Desk) -> bool:
    return desk.sockets.access.refused["BOUNDS"] > 0


def test_a_message_of_many_parts_is_thrown_away_bit_by_bit_and_its_sender_cut(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_ends, "SURPLUS_PER_TURN", 50)
    monkeypatch.setattr(curve_connections, "WEIGH_MS", 60_000)  # it is cut although it was not weighed yet
    camera, other = (desk.client(zmq.PUSH, "frames", desk.key(name, Role.CAMERA)) for name in ("cam", "other"))
    for end in (camera, other):
        end.send(b"frame")
    desk.until(lambda: len(desk.frames) == 2, "both")
    desk.messages.clear()
    camera.send_multipart([b"x"] * 1000)
    turns = 0
    while not cut(desk):
        desk.turn()
        turns += 1
        assert turns < 4000
    other.send(b"after it")
    desk.until(lambda: b"after it" in desk.frames, "another's frame")
    assert desk.messages == [[b"after it"]]
    camera.send(b"again")  # its connection comes back by itself
    desk.until(lambda: b"again" in desk.frames, "its next frame")


def test_who_sends_more_than_is_read_of_it_is_cut(desk: Desk) -> None:
    camera = desk.client(zmq.PUSH, "frames", desk.key("cam", Role.CAMERA))
    camera.setsockopt(zmq.SNDHWM, 0)
    camera.send(b"frame")
    desk.until(lambda: desk.frames == [b"frame"], "a frame")
    for _ in range(20):  # while the desk is busy
        camera.send(bytes(2**19))
    ends_s = time.monotonic() + 20
    while not cut(desk):
        desk.sockets.wait(5)
        assert time.monotonic() < ends_s


def test_who_sends_much_that_is_read_is_not_cut(desk: Desk) -> None:
    camera = desk.client(zmq.PUSH, "frames", desk.key("cam", Role.CAMERA))
    for number in range(1, 41):
        camera.send_multipart([b"frame", bytes(2**18), bytes(100)])
        desk.until(lambda: len(desk.frames) == number, "it")  # noqa: B023
    assert not desk.sockets.access.refused["BOUNDS"]  # an earlier desk on this port may still have clients that return


@pytest.mark.parametrize("name", ["results", "bulk"])
def test_a_subscriber_with_too_many_subscriptions_is_cut(desk: Desk, name: str) -> None:
    key = desk.key("reader", Role.READ)
    first = desk.client(zmq.SUB, name, key)
    desk.until(lambda: desk.sockets.admitted(name) == 1, "the desk to know the key")
    first.close()
    desk.until(lambda: desk.sockets.admitted(name) == 0, "it to be gone")
    reader = desk.context.socket(zmq.SUB)
    for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RECONNECT_IVL, FOREVER_MS)):
        reader.setsockopt(option, value)
    key.secure(reader)
    reader.connect(desk.sockets.endpoints[name])
    desk.until(lambda: desk.sockets.admitted(name) == 1, "the reader")
    for number in range(40_000):
        reader.setsockopt(zmq.SUBSCRIBE, b"topic" + struct.pack(">I", number))
    desk.until(lambda: cut(desk), "the cut")
    desk.until(lambda: desk.sockets.admitted(name) == 0, "its end")


@pytest.mark.parametrize("name", ["frames", "results", "bulk", "control"])
def test_a_stranger_that_sends_much_before_its_handshake_is_cut(tmp_path: Path, name: str) -> None:
    """libzmq reads whatever a first command announces, up to the largest part of a frame."""
    with closing(Desk(tmp_path / "keys", handshake_ms=FOREVER_MS)) as desk, desk.raw(name) as end:
        end.settimeout(None)
        head = b"\x06" + struct.pack(">Q", 60_000 if name != "frames" else 2**27)
        with suppress(OSError):
            end.sendall(greeting(b"CURVE") + head + bytes(50_000))
        desk.until(lambda: cut(desk), "the cut")
        desk.until(lambda: desk.sockets.access.refused["HANDSHAKE"] == 1, "its end")


RESET = """
import socket, struct, sys, tempfile, threading, time
from contextlib import closing
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.runtime.sockets.test_curve_sockets import Desk, Role, zmq
name, kind = sys.argv[2], {"frames": zmq.PUSH, "results": zmq.SUB, "control": zmq.DEALER}[sys.argv[2]]
lively = {"heartbeat_ms": 100, "heartbeat_timeout_ms": 60_000}
with tempfile.TemporaryDirectory() as folder, closing(Desk(Path(folder) / "keys", sockets=lively)) as desk:
    # A road between them, whose end resets the connection.
    road = socket.create_server(("127.0.0.1", 0))
    there = desk.sockets.endpoints[name]
    desk.sockets.endpoints[name] = "tcp://127.0.0.1:%d" % road.getsockname()[1]
    key = desk.key("client", Role.CAMERA, Role.OPERATE)
    end = desk.context.socket(kind)
    end.setsockopt(zmq.HEARTBEAT_IVL, 20)
    end.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)   # by default the interval: too short beside other work
    end.setsockopt(zmq.SNDHWM, 0)
    key.secure(end)
    end.connect(desk.sockets.endpoints[name])
    host, _, port = there.removeprefix("tcp://").rpartition(":")
    outs = []
    def carry(source, target):
        try:
            while True:
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue  # closed meanwhile?
                if not data:
                    return
                target.sendall(data)
        except OSError:
            pass
    def accept():
        while True:  # libzmq connects again where a handshake took too long beside other work
            try:
                here, _ = road.accept()
            except OSError:
                return
            outs.append(socket.create_connection((host, int(port))))
            here.settimeout(0.1)
            outs[-1].settimeout(0.1)
            for pair in ((here, outs[-1]), (outs[-1], here)):
                threading.Thread(target=carry, args=pair, daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    desk.until(lambda: desk.sockets.admitted(name) == 1, "the handshake")
    road.shutdown(socket.SHUT_RDWR)
    out = outs[-1]
    for number in range(2000):
        if kind == zmq.SUB:
            end.setsockopt(zmq.SUBSCRIBE, b"%d" % number)
        else:
            end.send(b"x")
    time.sleep(0.7)   # the desk is busy; heartbeats come from both sides
    out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    out.close()
    time.sleep(0.5)
    desk.until(lambda: desk.sockets.admitted(name) == 0, "the end")
    if kind != zmq.SUB:
        desk.until(lambda: len(desk.frames) + desk.requests > 0, "what came before")
    for _ in range(200):
        desk.turn()
"""


@pytest.mark.parametrize("name", ["frames", "results", "control"])
def test_a_reset_connection_with_much_unread_and_heartbeats_of_both_sides_harms_nobody(name: str) -> None:
    """In a process of its own: with bounded receiving queues libzmq 4.3.5 ends it (test_plain_ends)."""
    code = [sys.executable, "-c", RESET, str(ROOT), name]
    ended = subprocess.run(code, timeout=240, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
