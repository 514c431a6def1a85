"""Real processes over real sockets: after kill -9 of any of them every admitted frame has exactly one result."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from asperity.runtime.frame import Result
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from asperity.testing import PATIENCE_MS, PATIENCE_S, Camera, Line
from tests.system.camera_process import CAMERA_PROCESS

pytestmark = pytest.mark.usefixtures("forked_starts")

RUNNING = State.CONTINUOUS_EXECUTION


@pytest.fixture
def line() -> Iterator[Line]:
    # seq_gap_max: of a camera that does not wait, however long a crowded machine lets nobody take its frames.
    with Line("ok ok ng", limits={"deadline_ms": 30_000, "max_age_ms": 30_000, "seq_gap_max": 1000}) as made:
        yield made


def one_result_each(results: dict[int, Result]) -> None:
    """No exposure has two results, and those without one lie in a gap that was refused as a jump."""
    for session in {result.camera_session for result in results.values()} - {""}:
        by_seq: dict[int, Result] = {}
        for result in results.values():
            if result.camera_session == session and result.reason is not Reason.DUPLICATE_SEQ:
                assert result.seq not in by_seq, f"two results for seq {result.seq}"
                by_seq[result.seq] = result
        seqs = sorted(by_seq)
        for before, after in itertools.pairwise(seqs):
            assert after == before + 1 or by_seq[after].reason is Reason.SEQ_JUMP, f"nothing on seq {before + 1}"


def test_kill_9_of_the_inspector_leaves_no_frame_without_its_one_result(line: Line) -> None:
    rng = random.Random(7)
    session = ""
    with Camera(line) as camera:
        for _ in range(3):
            process = line.start()
            session = line.await_state(RUNNING, session).session
            camera.wait_connected(PATIENCE_MS)
            wanted = len(line.heard.results) + rng.randrange(10, 30)
            line.stream(camera, 3000, 8, until=lambda wanted=wanted: len(line.heard.results) >= wanted)  # type: ignore[misc]
            process.kill()
        line.start()
        line.await_state(RUNNING, session)
        camera.wait_connected(PATIENCE_MS)
        line.stream(camera, 10, interval_ms=8)
        results = line.settle(camera)
    line.heard.listen(100)
    assert sorted(results) == list(range(1, max(results) + 1)), "ids go on without a gap"
    one_result_each(results)
    for live in line.heard.results:
        assert live == results[live.result_id], "what was published is what the journal says"
    assert len({live.result_id for live in line.heard.results if live.reason is not Reason.RESTARTED}) == len(
        [live for live in line.heard.results if live.reason is not Reason.RESTARTED]
    ), "published twice"
    assert Counter(result.reason for result in results.values())[Reason.GOOD] > 3
    assert line.heard.states[-1].balanced


def test_kill_9_in_the_middle_of_a_frame_is_answered_restarted(line: Line) -> None:
    # All three must find room, also where they come before the first is taken to work.
    limits = {"deadline_ms": 600_000, "max_age_ms": 600_000, "queue_length": 3}
    with Line("ok=300000", limits=limits) as slow:
        process = slow.start()
        session = slow.await_state(RUNNING).session
        with Camera(slow) as camera:
            camera.wait_connected(PATIENCE_MS)
            slow.stream(camera, 3, interval_ms=20)
            slow.wait(lambda: slow.heard.states[-1].in_flight == 3, "three frames in work")
            process.kill()
            assert slow.heard.results == []
            slow.start()
            slow.await_state(RUNNING, session)
            results = slow.journal()
    assert [(result.seq, result.reason) for result in results.values()] == [
        (seq, Reason.RESTARTED) for seq in (1, 2, 3)
    ]


def test_the_customers_client_sees_every_result_once_over_a_restart(line: Line) -> None:
    process = line.start()
    session = line.await_state(RUNNING).session
    seen: list[int] = []
    with Camera(line) as camera, line.client(since=1) as client:
        camera.wait_connected(PATIENCE_MS)
        line.stream(camera, 15, interval_ms=8)
        while not seen:
            seen += [item.result_id for item in client.poll(50) if isinstance(item, Result)]
        process.kill()
        line.start()
        line.await_state(RUNNING, session)
        camera.wait_connected(PATIENCE_MS)
        line.stream(camera, 15, interval_ms=8)
        last_id = max(line.settle(camera))
        ends_s = time.monotonic() + PATIENCE_S
        # The last result may come before the first state of the new session, by which the client counts.
        while (seen[-1] < last_id or client.session_changes == 0) and time.monotonic() < ends_s:
            seen += [item.result_id for item in client.poll(50) if isinstance(item, Result)]
        assert client.session_changes == 1
    assert seen == list(range(1, last_id + 1))


def test_kill_9_of_the_camera_costs_nothing_but_what_it_did_not_send(line: Line) -> None:
    line.start()
    line.await_state(RUNNING)
    sent: dict[str, int] = {}
    for seed in (1, 2):
        camera = line.spawn(*CAMERA_PROCESS, line.ends["frames"], str(seed))
        before = len(line.heard.results)
        line.wait(lambda before=before: len(line.heard.results) >= before + 15, "results")  # type: ignore[misc]
        camera.kill()
        session, seq = camera.log().splitlines()[-1].split()
        sent[session] = int(seq)
    line.wait(
        lambda: line.heard.states[-1].in_flight == 0 and not line.heard.states[-1].ready, "a state without camera"
    )
    results = line.journal()
    one_result_each(results)
    assert {result.camera_session for result in results.values()} == set(sent)
    assert all(result.seq <= sent[result.camera_session] + 1 for result in results.values())
    assert line.heard.states[-1].alarms == ("CAMERA",)
    assert line.heard.states[-1].balanced


def test_kill_9_of_the_watcher_is_not_even_noticed(line: Line) -> None:
    line.start()
    line.await_state(RUNNING)
    watcher = line.asperity("watch", "--results", line.ends["results"], "--json")
    with Camera(line) as camera:
        camera.wait_connected(PATIENCE_MS)
        line.stream(camera, 3000, 20, until=lambda: bool(watcher.log()))
        assert watcher.poll() is None
        watcher.kill()
        line.stream(camera, 20, interval_ms=8)
        line.wait(lambda: len(line.heard.results) == camera.seq, "a result for each frame")
    assert sorted(result.seq for result in line.heard.results) == list(range(1, camera.seq + 1))


def test_sigterm_answers_every_admitted_frame_and_leaves_nothing_owed() -> None:
    # All six are admitted, and five of them wait for seconds: no pause of this process is as long.
    limits = {"deadline_ms": 120_000, "max_age_ms": 120_000, "queue_length": 6}
    with Line("ok=1500", limits=limits, timing={"shutdown_ms": 60_000}) as line:
        process = line.start()
        session = line.await_state(RUNNING).session
        with Camera(line) as camera:
            camera.wait_connected(PATIENCE_MS)
            line.stream(camera, 6, interval_ms=10)
            line.wait(lambda: line.heard.states[-1].received == 6, "six frames")
            process.send_signal(signal.SIGTERM)
            line.wait(lambda: len(line.heard.results) >= 6, "an answer for each")
            assert process.wait(PATIENCE_S) == 0
        reasons = Counter(result.reason for result in line.heard.results)
        assert set(reasons) <= {Reason.GOOD, Reason.SHUTDOWN}
        assert reasons[Reason.SHUTDOWN] >= 1
        line.wait(lambda: line.heard.states[-1].state == State.HALTED, "the last state")
        assert line.heard.states[-1].balanced
        line.start()
        line.await_state(RUNNING, session)
        assert line.heard.states[-1].received == 0, "nothing was owed"
        assert len(line.journal()) == 6


def test_a_second_inspector_of_the_same_station_does_not_start(line: Line) -> None:
    line.start()
    line.await_state(RUNNING)
    second = line.start()
    assert second.wait(PATIENCE_S) == 9
    assert "in use by another process" in line.log()
    assert "Traceback" not in line.log()
    line.wait(lambda: line.heard.states[-1].state == RUNNING, "the first one still running")


def test_the_control_socket_is_for_this_user_alone(line: Line) -> None:
    line.start()
    line.await_state(RUNNING)
    assert (line.folder / "control").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["frames", "results", "bulk", "control"])
def test_a_bind_off_loopback_is_refused(name: str) -> None:
    with Line() as line:
        process = line.start(f"--{name}", "tcp://0.0.0.0:59731")
        assert process.wait(PATIENCE_S) == 3
        assert "--insecure-lan" in line.log()
        assert "Traceback" not in line.log()
