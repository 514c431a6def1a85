"""What systemd is told, and how a process ends that is told to end while it starts."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.frame import Frame
from asperity.runtime.process.systemd import EXTENSION_INTERVAL_S, Supervision
from tests.places import ROOT
from tests.runtime.inspector.station_floor import Floor

PATIENCE_S = 60.0


class Manager:
    """The supervisor's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.lines: list[str] = []

    def hear(self, timeout_s: float = 0.0) -> list[str]:
        """Everything said so far, waiting at most ``timeout_s`` for a line."""
        self._socket.settimeout(timeout_s or None)
        self._socket.setblocking(timeout_s > 0)
        try:
            while True:
                self.lines.append(self._socket.recv(4096).decode())
                self._socket.setblocking(False)
        except (BlockingIOError, TimeoutError):
            return self.lines

    def await_line(self, line: str, more_than: int = 0) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while self.lines.count(line) <= more_than:
            assert time.monotonic() < ends_s, f"{line} was not said: {self.lines}"
            self.hear(0.2)

    def close(self) -> None:
        self._socket.close()


def inspector(
    folder: Path, address: str, *arguments: str, script: str = "ok", watchdog_us: int = 400_000
) -> subprocess.Popen[bytes]:
    ends = [f"--{name}=ipc://{folder}/{name}" for name in ("frames", "results", "bulk", "control")]
    command = [sys.executable, "-m", "asperity.runtime.cli", "run", "--engine=simulated", f"--script={script}", *ends]
    environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(watchdog_us)}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*command, f"--journal={folder}/journal", *arguments], env=environment, stdout=log, stderr=log
        )


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_then_watchdog_then_stopping(tmp_path: Path, abstract: bool) -> None:
    manager = Manager(f"@asperity-test-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    # Two feeds a second: the kernel keeps ten lines for a manager that stands still, and the eleventh is lost.
    process = inspector(tmp_path, manager.address, watchdog_us=2_000_000)
    try:
        manager.await_line("READY=1")
        manager.await_line("WATCHDOG=1", more_than=2)
        assert "STOPPING=1" not in manager.lines
        manager.await_line("STATUS=8 CONTINUOUS_EXECUTION, simulated; alarms: CAMERA")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        manager.await_line("STOPPING=1")
        assert manager.lines.count("READY=1") == 1
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        manager.close()


def test_an_engine_that_hangs_ends_the_feeding_of_the_watchdog(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    process = inspector(tmp_path, manager.address, script="stuck")
    frame = Frame(
        camera="cam1",
        camera_session="",
        seq=0,
        rgb=np.zeros((4, 5, 3), np.uint8),
        xyz=np.ones((4, 5, 3), np.float32),
        t_exposure_us=time.time_ns() // 1000,
    )
    try:
        manager.await_line("WATCHDOG=1", more_than=2)
        with FrameSender("cam1", f"ipc://{tmp_path}/frames") as sender:
            assert sender.wait_connected(round(PATIENCE_S * 1000)) and sender.send(frame)
            ends_s, quiet_s, fed = time.monotonic() + PATIENCE_S, time.monotonic(), 0
            while time.monotonic() - quiet_s < 1.0:  # it is fed ten times a second while the bench lives
                assert time.monotonic() < ends_s
                count = manager.hear(0.1).count("WATCHDOG=1")
                if count != fed:
                    fed, quiet_s = count, time.monotonic()
        assert process.poll() is None, "it lives on, and systemd would end it"
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        manager.close()


def test_ready_comes_only_after_the_first_recipe_and_time_is_asked_for_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    floor = Floor(tmp_path / "journal", ready=False)
    try:
        waiting = floor.opening[floor.station.name]
        opening = waiting[:]
        waiting.clear()  # the recipe takes its time
        floor.serve()  # the self-test
        for _ in range(4):
            floor.pass_ms(100)
        said = manager.hear()
        assert "READY=1" not in said
        assert [line for line in said if "EXTEND" in line] == ["EXTEND_TIMEOUT_USEC=30000000"]
        waiting.extend(opening)
        floor.settle()
        floor.pass_ms(100)
        assert manager.hear().count("READY=1") == 1
        floor.pass_ms(60_000)
        assert manager.hear().count("READY=1") == 1
    finally:
        floor.close()
        manager.close()


def test_a_recipe_that_does_not_open_is_never_ready(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    process = inspector(tmp_path, manager.address, "--log-format=json", script="nonsense")
    try:
        assert process.wait(PATIENCE_S) == 3
        assert "READY=1" not in manager.hear()
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        assert lines[-1]["kind"] == "ConfigError" and "nonsense" in lines[-1]["text"]
    finally:
        manager.close()


def test_the_watchdog_is_fed_by_progress_and_by_nothing_else(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    now_ns = [10**12]
    supervision = Supervision({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000"}, lambda: now_ns[0])
    for beat in range(40):
        supervision.progress(beat)
        now_ns[0] += 10**8
    assert len(manager.hear()) == 4, "4 s of progress, a feed a second"
    for _ in range(100):
        supervision.progress(39)
        now_ns[0] += 10**9
    assert len(manager.hear()) == 5, "what moved since the last feed, and then nothing more"
    for _ in range(3):
        supervision.opening()
        now_ns[0] += EXTENSION_INTERVAL_S * 10**9
    assert manager.hear().count("EXTEND_TIMEOUT_USEC=30000000") == 3
    supervision.status("a\nb")
    supervision.status("a\nb")
    assert manager.hear()[-1] == "STATUS=a b" and manager.lines.count("STATUS=a b") == 1
    manager.close()


def test_ready_is_said_again_to_a_supervisor_that_had_no_room_for_it(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    supervision = Supervision({"NOTIFY_SOCKET": manager.address})
    for number in range(2000):  # the kernel keeps so many datagrams (net.unix.max_dgram_qlen), usually 10 or 512
        supervision.status(str(number))
    supervision.ready()
    assert "READY=1" not in manager.hear()
    for _ in range(3):
        supervision.ready()
    assert manager.hear().count("READY=1") == 1
    manager.close()


def test_a_stuck_engine_starves_the_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "4")
    floor = Floor(tmp_path / "journal", "ok")
    try:
        before = manager.hear().count("WATCHDOG=1")
        floor.serve()
        assert manager.hear().count("WATCHDOG=1") > before, "an idle tick of the bench is progress"
        before = manager.lines.count("WATCHDOG=1")
        for _ in range(50):
            floor.pass_ms(1000)  # the desk goes on, the bench does not
        assert manager.hear().count("WATCHDOG=1") == before
        assert any("STUCK" in line for line in manager.lines)
    finally:
        floor.close()
        manager.close()


def test_without_a_supervisor_nothing_happens_and_a_dead_one_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Supervision({}).ready()
    lonely = Supervision({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    lonely.ready()
    lonely.stopping()
    assert len(caplog.records) == 1 and "could not be notified of READY=1" in caplog.text


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.25, 0.45])
def test_sigterm_during_the_start_ends_without_a_traceback(tmp_path: Path, delay_s: float) -> None:
    process = inspector(tmp_path, "", "--log-format=json")
    try:
        ends_s = time.monotonic() + PATIENCE_S
        while not _catches_sigterm(process.pid):  # before that there is only the bare interpreter
            assert time.monotonic() < ends_s and process.poll() is None
            time.sleep(0.002)
        time.sleep(delay_s * random.Random(str(tmp_path)).uniform(0.5, 1.5))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) in (0, 143)
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def test_a_signal_whose_exception_python_drops_still_ends_the_process(tmp_path: Path) -> None:
    """In a weak reference's callback nothing that is raised gets out: as in the middle of an import."""
    program = """
import os, signal, weakref
from asperity.runtime.process import early_signals
early_signals.install()
class Thing: pass
thing = Thing()
watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
del thing
from pathlib import Path
from asperity.runtime.inspector.serving import inspect
from asperity.runtime.settings.loading import load
end = {name: f"ipc://{os.getcwd()}/{name}" for name in ("frames", "results", "bulk", "control")}
given = {"engine": {"name": "simulated"}, "recipes": {"a": "script:ok"}, "sockets": end, "journal": {"path": "j"}}
inspect(load(None, given), ["a"])
print("ended in order")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert "ended in order" in done.stdout, done.stderr


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_log_lines_as_json_carry_the_ids(tmp_path: Path) -> None:
    process = inspector(tmp_path, "", "--log-format=json")
    try:
        ends_s = time.monotonic() + PATIENCE_S
        while "CONTINUOUS_EXECUTION" not in (tmp_path / "log").read_text():
            assert time.monotonic() < ends_s
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {line["station"] for line in lines} == {"st1"} and len({line["session"] for line in lines}) == 1
    assert lines[0]["kind"] == "START"
    assert all(line["level"] in ("info", "warning", "error") and line["t_us"] > 0 and line["text"] for line in lines)


def test_the_ids_of_a_frame_are_in_its_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from asperity.runtime.settings.log_lines import JsonLines

    floor = Floor(tmp_path / "journal", "raise")
    try:
        floor.send(17)
        floor.settle()
        lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
        line = next(line for line in lines if line["kind"] == "ENGINE")
        assert (line["seq"], line["result_id"], line["session"]) == (17, 1, floor.desk.session)
        event = next(event for event in floor.events if event.code == "ENGINE")
        assert (event.seq, event.result_id) == (17, 1)
    finally:
        floor.close()
