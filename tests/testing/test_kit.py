"""The kit itself: every kind of line works, a wait that is in vain says why, and nothing is left behind."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from asperity.runtime.errors import StationError
from asperity.runtime.process.child import Child
from asperity.runtime.security.curve_keys import Role
from asperity.testing import PATIENCE_MS, STATION, Camera, Line
from tests.places import ROOT
from tests.runtime.gateways.floor import open_files, until

PATIENT = {"deadline_ms": 30_000, "max_age_ms": 60_000}


@pytest.mark.parametrize("tcp", [False, True])
def test_a_line_with_keys_over_either_transport_goes_on_where_it_was_killed(tcp: bool) -> None:
    with Line("ok ng", curve=True, tcp=tcp, limits=PATIENT) as line, Camera(line) as camera:
        line.start()
        line.await_running()
        assert line.result_of(camera.expose("ng")).reason.name == "SCORE_ABOVE_THRESHOLD"
        line.kill()
        line.start()
        (state,) = line.await_running()
        camera.deliver()
        assert [result.seq for result in line.settle(camera).values()] == [1, 2]
        assert line.heard.results[-1].session == state.session
        assert line.admit("guest", Role.READ).exists()
        assert line.stop() == 0


def test_several_stations_are_one_process_with_a_camera_each() -> None:
    with Line(names=("left", "right"), limits=PATIENT) as line, Camera(line, station="right") as camera:
        line.start()
        assert [state.station for state in line.await_running()] == ["left", "right"]
        assert line.result_of(camera.expose(), "right").station == "right"
        assert line.heard_of["left"].results == []


def test_an_inspector_that_does_not_start_is_an_error_with_its_log() -> None:
    with Line(limits={"deadline_ms": -1}) as line:
        line.start()
        with pytest.raises(StationError, match=r"exit code 3; its log:\n(.|\n)*deadline_ms"):
            line.await_running()


def test_a_wait_in_vain_ends_with_the_log() -> None:
    with Line() as line:
        line.start()
        line.await_running()
        with pytest.raises(StationError, match=r"a miracle did not come in 0 s; (.|\n)*engine simulated"):
            line.wait(lambda: False, "a miracle", timeout_s=0.0)


def test_a_line_hears_a_station_that_something_else_has_started() -> None:
    with Line() as line:
        ends = [word for name, end in line.ends.items() for word in (f"--{name}", end)]
        line.asperity("simulate", "--rate", "20", *ends)
        with line.client(since=1) as client:
            until(lambda: bool(client.poll(20)), "a result")
        line.wait(lambda: bool(line.heard.results), "the same")
        assert line.heard.results[0].station == STATION


def test_a_line_that_nobody_started_says_so() -> None:
    with Line() as line, pytest.raises(StationError, match="call start"):
        line.await_running()


def test_nothing_is_left_behind_by_a_line_that_ends() -> None:
    files = open_files()
    with Line() as line, Camera(line):
        pids = [line.start().pid, line.spawn("sleep", "60").pid]
        line.await_running()
    assert not line.folder.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert open_files() <= files


def test_an_inspector_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from asperity.testing import Line\n"
        "line = Line(); print(line.folder); print(line.start().pid, flush=True); line.await_running(); time.sleep(600)"
    )
    tests = Child([sys.executable, "-u", "-c", code], log=tmp_path / "log")
    until(lambda: len(tests.log().splitlines()) == 2, "the inspector's start")
    folder, pid = tests.log().splitlines()
    tests.kill()
    until(lambda: not _lives(int(pid)), "the inspector's end")
    for path in Path(folder).iterdir():  # of the folder nobody was left to remove it
        path.unlink()
    Path(folder).rmdir()


def _lives(pid: int) -> bool:
    """A process that has ended and that nobody waits for is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = Child([sys.executable, "-c", code], log=tmp_path / "log")
    until(lambda: child.log() == "deaf\n", "a child that does not listen")
    assert child.end(timeout_s=0.1) == -signal.SIGKILL


def test_a_part_with_two_views_has_one_accept() -> None:
    with (
        Line(names=("front", "back"), combined="part", limits=PATIENT) as line,
        Camera(line, station="front", triggered=True) as front,
        Camera(line, station="back", triggered=True) as back,
    ):
        line.start()
        assert [state.station for state in line.await_running()] == ["front", "back", "part"]
        for camera in (front, back):
            assert camera.wait_connected(PATIENCE_MS)
        assert line.ask("trigger", station="part", trigger_id=7, timeout_ms=30_000).ok
        for camera in (front, back):
            trigger = camera.wait_trigger(PATIENCE_MS)
            assert trigger is not None
            camera.expose("ok", trigger_id=trigger.trigger_id, promise=trigger.promise)
        line.wait(lambda: bool(line.heard_of["part"].results), "the part's result")
        (part,) = line.heard_of["part"].results
        assert (part.trigger_id, part.accept, len(part.views)) == (7, True, 2)
        views = [result for name in line.names for result in line.heard_of[name].results]
        assert [(view.verdict.name, view.accept) for view in views] == [("OK", False)] * 2
