"""Real processes over real sockets: load, time, triggers, recipes and rubbish in mid stream."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest
import zmq
from line import CAMERA, PATIENCE_S, Camera, Line

from runtime import wire
from runtime.reasons import Reason
from runtime.states import State

RUNNING = State.CONTINUOUS_EXECUTION
PATIENT = {"deadline_ms": 30_000, "max_age_ms": 30_000}
PATIENCE_MS = round(PATIENCE_S * 1000)


def test_more_frames_than_the_engine_can_take_are_refused_overload() -> None:
    with Line("ok=150", limits=PATIENT) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        camera.stream(line, 30, interval_ms=15)
        line.wait(lambda: len(line.heard.results) == camera.seq, "a result for each frame")
        reasons = Counter(result.reason for result in line.heard.results)
        assert set(reasons) <= {Reason.GOOD, Reason.OVERLOAD, Reason.LOST}
        assert reasons[Reason.OVERLOAD] > 0 and reasons[Reason.GOOD] > 0
        line.wait(lambda: line.heard.states[-1].ok == reasons[Reason.GOOD], "a state that has counted them")
        assert line.heard.states[-1].balanced


def test_old_exposures_are_stale() -> None:
    with Line("ok", limits={"max_age_ms": 10_000}) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        picture = camera.picture()
        camera.send(replace(picture, t_exposure_us=picture.t_exposure_us - 60_000_000))
        line.wait(lambda: bool(line.heard.results), "the result")
        assert line.heard.results[0].reason is Reason.STALE


def test_a_stuck_engine_misses_deadlines_stops_the_beat_and_ends_in_error() -> None:
    with Line("stuck", limits={"deadline_ms": 300, "max_age_ms": 30_000, "engine_stuck_ms": 1500}) as line:
        process = line.start()
        line.await_state(RUNNING)
        with Camera(line) as camera:
            camera.wait_connected(PATIENCE_MS)
            camera.send(camera.picture())
            line.wait(lambda: bool(line.heard.results), "the result")
            assert line.heard.results[0].reason is Reason.DEADLINE
            assert line.heard.results[0].deadline_missed
            error = line.await_state(State.ERROR)
            assert "STUCK" in error.alarms
            assert not error.ready
            beats = {state.beat for state in line.heard.states if state.received == 1}
            assert len(beats) <= 2, "a stuck engine must stop the beat"
            camera.send(camera.picture())
            line.wait(lambda: len(line.heard.results) == 2, "the second result")
            assert line.heard.results[1].reason is Reason.NOT_RUNNING
            assert line.ask("reset").code == "ACCEPTED"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, "a stuck engine cannot keep the process from ending"


def test_a_slow_engine_is_late_and_its_score_only_logged() -> None:
    with Line("ok=900", limits={"deadline_ms": 200, "max_age_ms": 30_000}) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        camera.send(camera.picture())
        line.wait(lambda: any(event.code == "LATE_SCORE" for event in line.heard.events), "the late score")
        assert [result.reason for result in line.heard.results] == [Reason.DEADLINE]
        assert line.heard.states[-1].state == RUNNING


def test_triggers_are_answered_by_the_camera_or_in_time_without_it() -> None:
    with Line("ok", limits=PATIENT) as line, Camera(line, triggered=True) as camera, line.client() as plc:
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        ends_s = time.monotonic() + PATIENCE_S
        first = None
        trigger_id = 0
        while first is None and time.monotonic() < ends_s:  # PUB forgets what is sent before a subscriber has joined
            trigger_id += 1
            assert plc.request("trigger", trigger_id=trigger_id, part_id="P1", timeout_ms=400).code == "ACCEPTED"
            first = camera.wait_trigger(400)
        assert first is not None and (first.trigger_id, first.part_id) == (trigger_id, "P1")
        line.wait(lambda: len(line.heard.results) >= trigger_id - 1, "the unanswered ones")
        plc.request("trigger", trigger_id=500, part_id="P500", timeout_ms=30_000)
        trigger = camera.wait_trigger(PATIENCE_MS)
        camera.send(camera.picture(), trigger)
        plc.request("expect", trigger_id=501, part_id="P501", timeout_ms=200)
        line.wait(lambda: {500, 501} <= {result.trigger_id for result in line.heard.results}, "both results")
        by_id = {result.trigger_id: result for result in line.heard.results}
        assert (by_id[500].reason, by_id[500].part_id) == (Reason.GOOD, "P500")
        assert (by_id[501].reason, by_id[501].part_id) == (Reason.NO_FRAME, "P501")
        assert Counter(result.trigger_id for result in line.heard.results).most_common(1)[0][1] == 1


def test_the_recipe_changes_between_two_frames_of_a_running_stream() -> None:
    recipes = {"bad": "script:ng", "broken": "script:nonsense"}
    with Line("ok", limits=PATIENT, recipes=recipes) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        camera.stream(line, 3, interval_ms=20)
        assert line.ask("prepare_recipe", recipe="broken").code == "ACCEPTED"
        camera.stream(line, 3000, 20, until=lambda: "RECIPE" in line.heard.states[-1].alarms)
        assert line.heard.states[-1].recipe == "simulated", "the recipe in force stays in force"
        assert line.ask("prepare_recipe", recipe="bad").code == "ACCEPTED"
        camera.stream(line, 3000, 20, until=lambda: line.heard.states[-1].recipe == "bad")
        camera.stream(line, 3, interval_ms=20)
        line.wait(lambda: len(line.heard.results) == camera.seq, "a result for each frame")
        in_order = sorted(line.heard.results, key=lambda result: result.result_id)
        changes = [result.recipe for result in in_order if result.reason in (Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD)]
        assert [name for n, name in enumerate(changes) if n == 0 or name != changes[n - 1]] == ["simulated", "bad"]
        assert all(result.accept == (result.recipe != "bad") for result in in_order if result.score is not None)
        assert line.heard.states[-1].alarms == ()


def mutated(parts: list[bytes], rng: random.Random) -> list[bytes]:
    """A frame message with something wrong with it, or nothing."""
    changed = [bytearray(part) for part in parts]
    for _ in range(rng.randrange(1, 4)):
        kind, at = rng.randrange(6), rng.randrange(len(changed)) if changed else 0
        if not changed:
            break
        part = changed[at]
        if kind == 0 and part:
            part[rng.randrange(len(part))] ^= rng.randrange(1, 256)
        elif kind == 1:
            del part[rng.randrange(len(part) + 1) :]
        elif kind == 2:
            del changed[at]
        elif kind == 3:
            changed.insert(at, bytearray(rng.randbytes(rng.randrange(40))))
        elif kind == 4 and part:
            where = rng.randrange(len(part))
            part[where : where + 3] = b'":9'
        elif at == 1:
            changed[1] = bytearray(part.replace(b'"seq":', b'"seq":' + str(rng.randrange(10**17)).encode()))
    return [bytes(part) for part in changed]


def send_rubbish(count: int, seed: int) -> None:
    """Mutated frames over the real socket: each message has one result, the law holds, the station still works."""
    rng = random.Random(seed)
    with Line("ok", limits=PATIENT) as line, Camera(line) as camera:
        process = line.start()
        line.await_state(RUNNING)
        sent = 0
        context = zmq.Context()
        push = context.socket(zmq.PUSH)
        push.connect(line.ends["frames"])
        try:
            for number in range(1, count + 1):
                frame = replace(camera.picture(), seq=number, camera=CAMERA)
                parts = mutated([bytes(part) for part in wire.encode_frame(frame)], rng)
                if not parts:
                    continue
                push.send_multipart(parts)
                sent += 1
                if number % 50 == 0:
                    line.heard.listen(0)
                    assert process.poll() is None
            line.wait(lambda: line.heard.states[-1].received == sent, "every message counted")
            line.wait(lambda: line.heard.states[-1].in_flight == 0, "every message answered")
            last = line.heard.states[-1]
            assert last.balanced
            line.wait(lambda: len(line.heard.results) == last.received + last.lost, "every result")
            assert "LAW" not in last.alarms
            with Camera(line, seed=1) as another:
                another.wait_connected(PATIENCE_MS)
                another.send(another.picture())
                line.wait(lambda: line.heard.states[-1].ok == last.ok + 1, "a good frame still judged")
            assert process.poll() is None
            assert line.log().count("\n") < 60, "rubbish must not fill the log"
        finally:
            context.destroy(linger=0)


def test_rubbish_on_the_frames_socket_keeps_the_law() -> None:
    send_rubbish(1500, seed=11)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_very_much_rubbish_keeps_the_law() -> None:
    send_rubbish(100_000, seed=12)


def test_nothing_is_logged_for_each_frame() -> None:
    with Line("ok ng ok", limits=PATIENT) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(PATIENCE_MS)
        camera.stream(line, 5, interval_ms=15)
        line.wait(lambda: len(line.heard.results) >= 5, "results")
        before = line.log()
        camera.stream(line, 60, interval_ms=15)
        line.wait(lambda: len(line.heard.results) == camera.seq, "a result for each frame")
        assert line.log() == before or "OVERLOAD" in line.log()
        assert "engine simulated" in before.splitlines()[0]


def test_shutdown_by_request_ends_the_process() -> None:
    with Line("ok") as line:
        process = line.start()
        line.await_state(RUNNING)
        assert line.ask("shutdown").code == "ACCEPTED"
        assert process.wait(PATIENCE_S) == 0


def test_a_bundle_that_is_none_ends_the_process_with_one_sentence() -> None:
    with Line("ok") as line:
        process = line.start("--engine", "cpu", str(line.folder / "nothing"))
        assert process.wait(PATIENCE_S) == 5
        assert "no bundle at" in line.log() and "Traceback" not in line.log()


def test_a_station_can_open_a_recipe_of_its_own_at_start() -> None:
    with Line("ok", station={"recipe": "b"}, recipes={"a": "script:ok", "b": "script:ng"}) as line:
        line.start()
        assert line.await_state(RUNNING).recipe == "b"


def test_nothing_to_judge_by_is_said() -> None:
    with Line("ok") as line:
        process = line.start("--engine", "cpu")
        assert process.wait(PATIENCE_S) == 2
        assert "give a bundle" in line.log() and "Traceback" not in line.log()
