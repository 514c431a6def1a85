"""Strangers on every port of every process, each for real: a connection costs itself, the line goes on.

What a stranger says is ``benchmarks.line.strangers``; bounds one by one are in tests/runtime/test_plain_ends and
test_curve_bounds. The long run is marked ``soak``.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from asperity.benchmarks.line.strangers import ENDINGS, TYPES, Impostor, Strangers, sayings
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from asperity.testing import PATIENCE_MS, STATION, Camera, Line, Recorder
from tests.runtime.gateways.floor import GatewayProcess
from tests.system.camera_process import CAMERA_PROCESS

RUNNING = State.CONTINUOUS_EXECUTION
NAMES = ("frames", "results", "bulk", "control")
UNHURRIED = {"deadline_ms": 30_000, "max_age_ms": 60_000, "beat_timeout_min_ms": 600}
QUICK = {"message_ms": 1000}
SOAK_S = 600.0
SOAK_PAUSE_S = 0.05
"""Between two strangers on a port."""
SOAK_DEADLINE_MS = 2000
"""Also the beat timeout."""
MEMORY_MAX_MB = 50
PROTOCOLS = [
    "modbus",
    "ethernetip",
    *(["http"] if find_spec("prometheus_client") else []),
    *(["opcua"] if find_spec("asyncua") else []),
]


WATCHER = """
import sys, time
import zmq
from asperity.runtime import wire
from asperity.runtime.security.curve_keys import secure
sub = zmq.Context().socket(zmq.SUB)
secure(sub, sys.argv[2] or None)
sub.setsockopt(zmq.SUBSCRIBE, wire.topic("state", "st1"))
sub.connect(sys.argv[1])
last = said = longest = 0.0
while True:
    sub.recv_multipart()
    now = time.monotonic()
    longest = max(longest, now - last) if last else longest
    last = now
    if now - said > 5:
        said = now
        print(round(1000 * longest))
"""
"""Says the longest gap between two states, in ms, every five seconds; nothing else keeps it from its work."""


def own_ports(protocol: str) -> str:
    """Its table of gateway.toml, with free ports."""
    return f"[{protocol}]\nport = 0\n" + ("cyclic_port = 0\n" if protocol == "ethernetip" else "")


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    rows = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("Pss:")).split()[1]) / 1024


def listen_again(line: Line) -> None:
    line.heard.close()
    line.heard_of[STATION] = Recorder(line.ends["results"], line.keys.get("recorder"), station=STATION)


def tcp_line(curve: bool, **limits: int) -> Line:
    """A line whose inspector listens on TCP."""
    limits = {**UNHURRIED, **limits}
    return Line("ok", curve, tcp=True, limits=limits, sockets=QUICK, security={"handshake_ms": 1000})


def made(curve: bool, scheme: str) -> Line:
    return tcp_line(curve) if scheme == "tcp" else Line("ok", curve, limits=UNHURRIED, sockets=QUICK)


def each_frame_has_its_one_result(line: Line, camera: Camera) -> None:
    camera.deliver()
    results = line.settle(camera)  # the journal's ring has the last of them, and we heard the others
    results.update({result.result_id: result for result in line.heard.results})
    seqs = Counter(result.seq for result in results.values() if result.camera_session == camera.camera_session)
    assert set(seqs) == set(range(1, camera.seq + 1)) and set(seqs.values()) == {1}
    assert line.heard.states[-1].balanced
    assert "Traceback" not in line.log()


@pytest.mark.parametrize(("curve", "scheme"), [(False, "tcp"), (False, "ipc"), (True, "tcp")])
def test_strangers_on_every_port_of_the_inspector_cost_the_line_nothing(curve: bool, scheme: str) -> None:
    dice = random.Random(11)
    with made(curve, scheme) as line, Camera(line) as camera:
        process = line.start()
        line.await_state(RUNNING)
        line.stream(camera, 3, 1)
        strangers = {name: Strangers(line.ends[name], dice) for name in NAMES}
        plan = [(name, saying) for name in NAMES for saying in sayings(TYPES[name], dice)]
        for name, saying in dice.sample(plan, len(plan)):
            strangers[name].say(saying, dice.choice(ENDINGS[:4]))
            line.stream(camera, 1, 5)
        assert process.poll() is None and sum(stranger.said for stranger in strangers.values()) == len(plan)
        each_frame_has_its_one_result(line, camera)
        fates = Counter(result.reason for result in line.heard.results)
        assert fates[Reason.GOOD] > 10, fates
        for stranger in strangers.values():
            stranger.close()


def test_strangers_on_the_ports_of_gateways_cost_no_other_connection() -> None:
    dice = random.Random(12)
    with Line("ok", limits=UNHURRIED) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        gateways = [GatewayProcess(line, protocol, own_ports(protocol)) for protocol in PROTOCOLS]
        strangers = [Strangers(f"tcp://127.0.0.1:{gateway.port()}", dice) for gateway in gateways]
        for stranger in strangers:
            stranger.say_all(sayings(b"PUSH", dice), ENDINGS[:4])
            line.stream(camera, 1, 1)
        for gateway, stranger in zip(gateways, strangers, strict=True):
            assert gateway.process.poll() is None, gateway.log()
            stranger.close()
            socket.create_connection(("127.0.0.1", gateway.port()), timeout=5).close()
            assert "Traceback" not in gateway.log(), gateway.log()


def test_who_connects_to_an_impostor_lives_on_and_serves_when_the_station_is_there() -> None:
    with Line("ok", limits=UNHURRIED) as line, ExitStack() as stack:
        impostor = Impostor({name: line.ends[name] for name in ("frames", "results", "control")}, random.Random(13))
        child = line.spawn(*CAMERA_PROCESS, line.ends["frames"], "0")
        gateways = [GatewayProcess(line, protocol, own_ports(protocol)) for protocol in PROTOCOLS]
        client = stack.enter_context(line.client())
        camera = stack.enter_context(Camera(line, triggered=True))
        ends_s = time.monotonic() + PATIENCE_MS / 1000
        while min(impostor.said[name] for name in ("frames", "results", "control")) < 2:
            client.poll(10)
            camera.send(camera.picture())
            assert time.monotonic() < ends_s, impostor.said
        impostor.close()
        listen_again(line)  # this subscriber is libzmq's alone, which gave up
        assert child.poll() is None
        for gateway in gateways:
            assert gateway.process.poll() is None, gateway.log()
        line.start()
        line.await_state(RUNNING)
        line.wait(lambda: len(line.heard.results) > 5, "the child's frames")
        line.wait(lambda: any(not hasattr(item, "first_id") for item in client.poll(10)), "results at the client")
        assert client.request("get_state").ok
        camera.deliver()


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 300)
@pytest.mark.parametrize("curve", [False, True])
def test_ten_minutes_of_strangers_leave_nothing_behind(curve: bool) -> None:
    dice = random.Random(17)
    with tcp_line(curve, deadline_ms=SOAK_DEADLINE_MS) as line, Camera(line) as camera:
        process = line.start()
        line.await_state(RUNNING)
        toml = f'[station]\nkey_file = "{line.keys["client"]}"\n' if curve else ""
        gateways = [GatewayProcess(line, protocol, toml + own_ports(protocol)) for protocol in PROTOCOLS]
        targets = [(line.ends[name], TYPES[name]) for name in NAMES]
        targets += [(f"tcp://127.0.0.1:{gateway.port()}", b"PUSH") for gateway in gateways]
        processes = [process, *(gateway.process for gateway in gateways)]
        line.stream(camera, 100, 10)
        before = [memory_mb(each) for each in processes]
        ends_s = time.monotonic() + SOAK_S
        key = str(line.keys.get("recorder", ""))
        watcher = line.spawn(sys.executable, "-u", "-c", WATCHER, line.ends["results"], key)
        strangers = [(Strangers(endpoint, dice), kind) for endpoint, kind in targets]
        stop = threading.Event()

        def play_on(stranger: Strangers, kind: bytes) -> None:
            own = random.Random(kind)
            while not stop.is_set():
                for saying in sayings(kind, own):
                    stranger.say(saying, own.choice(ENDINGS))
                    time.sleep(SOAK_PAUSE_S)
                    if stop.is_set():
                        break
                stranger.close()

        threads = [threading.Thread(target=play_on, args=pair, daemon=True) for pair in strangers]
        for thread in threads:
            thread.start()
        while time.monotonic() < ends_s:
            line.stream(camera, 1, 20)
            assert all(each.poll() is None for each in processes), line.log()
        stop.set()
        for thread in threads:
            thread.join(60)
        each_frame_has_its_one_result(line, camera)
        after = [memory_mb(each) for each in processes]
        assert all(late - early < MEMORY_MAX_MB for early, late in zip(before, after, strict=True)), (before, after)
        watcher.kill()
        gap_ms = int(watcher.log().split()[-1])
        timeout_ms = max(state.beat_timeout_ms for state in line.heard.states[-5:])
        said = sum(stranger.said for stranger, _ in strangers)
        print(f"{said} strangers, {camera.seq} frames, MB {before} -> {after}, longest gap of states {gap_ms} ms")
        assert gap_ms < timeout_ms, (gap_ms, timeout_ms)
