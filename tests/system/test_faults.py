"""Faults of what surrounds the inspector, each done for real: camera, subscribers, network, clock and disk.

kill -9 is in test_kill, engines and messages are in test_line, keys in test_curve; ``docs/failsafe.md`` lists them all.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from asperity.runtime import wire
from asperity.runtime.frame import Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from asperity.testing import PATIENCE_MS, PATIENCE_S, STATION, Camera, Line
from tests.places import ROOT
from tests.system.camera_process import CAMERA_PROCESS

pytestmark = pytest.mark.usefixtures("forked_starts")

RUNNING = State.CONTINUOUS_EXECUTION
PATIENT = {"deadline_ms": 30_000, "max_age_ms": 30_000}


def fates(line: Line) -> Counter[Reason]:
    """Reasons of everything heard; the law must hold whenever this is asked."""
    assert line.heard.states[-1].balanced
    return Counter(result.reason for result in line.heard.results)


def test_a_stopped_camera_is_noticed_and_what_it_sends_late_is_answered() -> None:
    limits = {**PATIENT, "max_age_ms": 700, "camera_silent_ms": 400}
    with Line("ok", limits=limits, station={"name": STATION, "camera": "cam1", "expected_rate_hz": 50.0}) as line:
        line.start()
        line.await_state(RUNNING)
        camera = line.spawn(*CAMERA_PROCESS, line.ends["frames"], "0")
        line.wait(lambda: len(line.heard.results) > 10 and line.heard.states[-1].ready, "a running stream")
        camera.send_signal(signal.SIGSTOP)
        line.wait(lambda: not line.heard.states[-1].ready, "the end of ready")
        camera.send_signal(signal.SIGCONT)
        line.wait(lambda: line.heard.states[-1].ready, "ready again, without hands")
        seen = len(line.heard.results)
        line.wait(lambda: len(line.heard.results) > seen + 5, "results again")
        assert set(fates(line)) <= {Reason.GOOD, Reason.STALE, Reason.LOST, Reason.OVERLOAD, Reason.SEQ_JUMP}


def test_a_subscriber_that_never_reads_costs_nobody_anything() -> None:
    sockets, timing = {"results_hwm": 50}, {"state_interval_ms": 1000}
    with Line("ok", limits=PATIENT, sockets=sockets, timing=timing) as line, Camera(line) as camera:
        process = line.start()
        line.await_state(RUNNING)
        context = zmq.Context()
        deaf = [context.socket(zmq.SUB) for _ in range(40)]  # what waits for one alone would hardly show
        for each in deaf:
            each.setsockopt(zmq.RCVHWM, 1)
            each.setsockopt(zmq.RCVBUF, 4096)
            each.setsockopt(zmq.SUBSCRIBE, b"")
            each.connect(line.ends["results"])
        try:
            camera.wait_connected(PATIENCE_MS)
            for _ in range(5):
                line.stream(camera, 10, 2)
                line.wait(lambda: len(line.heard.results) == camera.seq, "the first results")
            before_kb = memory_kb(process.pid)
            for _ in range(150):
                # Ten at once: the station may drop more than results_hwm for whoever stands still, also for us.
                line.stream(camera, 10, 1)
                line.wait(lambda: len(line.heard.results) == camera.seq, "a result for every frame")
            assert memory_kb(process.pid) < before_kb + 8_000
            assert fates(line)[Reason.GOOD] + fates(line)[Reason.OVERLOAD] + fates(line)[Reason.LOST] == camera.seq
        finally:
            context.destroy(linger=0)


def memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(row for row in status.splitlines() if row.startswith("VmRSS")).split()[1])


def test_a_thousand_reconnections_leave_nothing_behind() -> None:
    with Line("ok", limits=PATIENT) as line, Camera(line) as camera:
        process = line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        handles = Path(f"/proc/{process.pid}/fd")
        line.heard.listen(100)
        before = len(list(handles.iterdir()))
        context = zmq.Context()
        for index in range(1000):
            kind, name = ((zmq.SUB, "results"), (zmq.DEALER, "control"), (zmq.PUSH, "frames"))[index % 3]
            visitor = context.socket(kind)
            visitor.setsockopt(zmq.LINGER, 0)
            visitor.connect(line.ends[name])
            if kind == zmq.DEALER:
                visitor.send(wire.encode_request(wire.Request(id=f"r{index}", op="get_state")), zmq.NOBLOCK)
            visitor.close()
            if index % 100 == 0:
                # A sender keeps one frame: while the desk turns visitors away the one before may still be under way.
                assert camera.send(camera.picture(), wait_ms=PATIENCE_MS)
                line.heard.listen(1)
        context.destroy(linger=0)
        line.wait(lambda: len(line.heard.results) == 10, "results of the frames between")
        line.wait(lambda: len(list(handles.iterdir())) <= before + 2, "the end of every connection")
        # Frames may come in a bunch while the desk turns visitors away; then the queue of two lets the oldest go.
        counted = fates(line)
        assert set(counted) <= {Reason.GOOD, Reason.OVERLOAD} and counted.total() == 10


def test_ten_times_the_rate_is_overload_and_the_newest_frames_are_judged() -> None:
    with Line("ok=200", limits=PATIENT) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        # Of a machine so slow that a frame takes half the engine's time instead of a tenth there would be as many GOOD.
        line.stream(camera, 3000, 20, until=lambda: fates(line)[Reason.GOOD] >= 10)
        line.wait(lambda: len(line.heard.results) >= camera.seq, "a result for every frame")
        counted = fates(line)
        assert counted[Reason.GOOD] >= 10 and counted[Reason.OVERLOAD] > counted[Reason.GOOD]
        assert not any(r.accept for r in line.heard.results if r.verdict is not Verdict.OK)


@contextmanager
def relayed(endpoint: str, delay_s: float) -> Iterator[str]:
    """A slow road to an ipc endpoint: every piece arrives ``delay_s`` late, one piece in ten twice as late."""
    server = socket.create_server(("127.0.0.1", 0))
    ending = threading.Event()

    def pump(source: socket.socket, target: socket.socket) -> None:
        count = 0
        while not ending.is_set():
            try:
                piece = source.recv(1 << 16)
            except OSError:
                break
            if not piece:
                break
            count += 1
            time.sleep(delay_s * (2 if count % 10 == 0 else 1))
            try:
                target.sendall(piece)
            except OSError:
                break
        for one in (source, target):
            one.close()

    def accept() -> None:
        while not ending.is_set():
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(endpoint.removeprefix("ipc://"))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    finally:
        ending.set()
        server.close()


def test_a_slow_road_makes_frames_stale_not_wrong() -> None:
    # A handshake takes several such pieces: on a crowded machine longer than is usual.
    patient = {"handshake_ms": PATIENCE_MS}
    with Line("ok", limits={"max_age_ms": 60, "deadline_ms": 30_000}, security=patient) as line:
        line.start()
        line.await_state(RUNNING)
        with relayed(line.ends["frames"], 0.08) as road:
            line.ends["frames"] = road
            with Camera(line) as camera:
                camera.wait_connected(PATIENCE_MS)
                line.stream(camera, 20, 30)
                line.wait(lambda: len(line.heard.results) >= camera.seq - 1, "results")
        counted = fates(line)
        assert counted[Reason.STALE] > 0
        assert counted[Reason.GOOD] == 0, "no frame that took 80 ms can be younger than 60"


def cable_ends() -> tuple[str, str]:
    """Addresses of this process's own: another run of the tests on this machine has others."""
    high, low = divmod(4 * (os.getpid() % 16384), 256)
    return f"10.213.{high}.{low + 1}", f"10.213.{high}.{low + 2}"


@pytest.fixture
def namespace() -> Iterator[str]:
    """Another host: a network namespace joined by a cable that can be pulled."""
    name = f"asp{os.getpid() % 10000}"
    here, there = cable_ends()
    steps = [
        f"ip netns add {name}",
        f"ip link add {name}a type veth peer name {name}b",
        f"ip link set {name}b netns {name}",
        f"ip addr add {here}/30 dev {name}a",
        f"ip link set {name}a up",
        f"ip netns exec {name} ip addr add {there}/30 dev {name}b",
        f"ip netns exec {name} ip link set {name}b up",
    ]
    if shutil.which("ip") is None:
        pytest.skip("the program ip (iproute2) is not there to make a network namespace")
    try:
        for step in steps:
            made = subprocess.run(step.split(), capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespace can be made here: {step}: {made.stderr.strip()}")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True, check=False)


def test_a_pulled_cable_is_noticed_and_the_line_goes_on_when_it_is_back(namespace: str) -> None:
    frames = f"tcp://{cable_ends()[0]}:5560"  # nobody else has this address
    limits = {**PATIENT, "camera_silent_ms": 800}
    sockets = {"frames": frames, "insecure_lan": True, "heartbeat_ms": 200, "heartbeat_timeout_ms": 800}
    with Line("ok", limits=limits, sockets=sockets) as line:
        line.start()
        line.await_state(RUNNING)
        line.spawn("ip", "netns", "exec", namespace, *CAMERA_PROCESS, frames, "0")
        line.wait(lambda: len(line.heard.results) > 10 and line.heard.states[-1].ready, "a running stream")
        subprocess.run(["ip", "link", "set", f"{namespace}a", "down"], check=True)
        line.wait(lambda: not line.heard.states[-1].ready, "the end of ready")
        subprocess.run(["ip", "link", "set", f"{namespace}a", "up"], check=True)
        seen = len(line.heard.results)
        line.wait(lambda: line.heard.states[-1].ready, "ready again, without hands")
        line.wait(lambda: len(line.heard.results) > seen + 10, "results again")
        assert set(fates(line)) <= {Reason.GOOD, Reason.LOST, Reason.SEQ_JUMP, Reason.OVERLOAD, Reason.STALE}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not there to build the clock that steps")
def test_a_wall_clock_that_steps_makes_frames_stale_and_nothing_late_or_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, step = tmp_path / "clock_step.so", tmp_path / "step_us"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, ROOT / "tests/system/clock_step.c"], check=True)
    step.write_text("0")
    # Both are longer than any pause and shorter than the steps.
    with Line("ok", limits={"deadline_ms": 600_000, "max_age_ms": 600_000}) as line, Camera(line) as camera:
        with monkeypatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(library))
            patch.setenv("CLOCK_STEP_FILE", str(step))
            line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        said: dict[int, set[Reason]] = {}
        for step_us in (0, 3_600_000_000, -3_600_000_000, 0):
            step.write_text(str(step_us))
            seen = len(line.heard.results)
            for count in range(1, 6):  # each alone, so that none is refused as one too many
                camera.deliver()
                line.wait(lambda due=seen + count: len(line.heard.results) >= due, "a result")  # type: ignore[misc]
            said.setdefault(step_us, set()).update(r.reason for r in line.heard.results[seen:])
            beat = line.heard.states[-1].beat
            line.wait(lambda beat=beat: line.heard.states[-1].beat > beat, "a beat that moves")  # type: ignore[misc]
        # The camera keeps the true time: its frames seem an hour old, then exposed an hour hence. Neither is believed.
        assert said[0] == {Reason.GOOD}
        assert said[3_600_000_000] == {Reason.STALE}
        assert said[-3_600_000_000] == {Reason.STALE}
        assert line.heard.states[-1].balanced and line.heard.states[-1].deadline_missed == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_stops_a_start_in_words_and_a_running_station_not_at_all(small_disk: Path) -> None:
    with Line("ok", limits=PATIENT, journal={"path": str(small_disk / "journal")}) as line:
        process = line.start()
        assert process.wait(PATIENCE_S) != 0, "4096 slots do not fit on 2 MB"
        assert "Traceback" not in line.log() and "journal" in line.log() and "disk" in line.log()
    with Line("ok", limits=PATIENT, journal={"path": str(small_disk / "journal"), "slots": 320}) as line:
        line.start()
        line.await_state(RUNNING)
        with Camera(line) as camera:
            camera.wait_connected(PATIENCE_MS)
            with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
                while True:
                    filler.write(b"\1" * 65536)
            # More than one round of the ring: a write that failed would show.
            line.stream(camera, 400, 1)
            line.wait(lambda: len(line.heard.results) == camera.seq, "a result for every frame")
            line.wait(lambda: line.heard.states[-1].ready, "a state of the running stream")
            assert set(fates(line)) <= {Reason.GOOD, Reason.OVERLOAD, Reason.LOST}
