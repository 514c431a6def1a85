"""Several stations in one real process over real sockets: every frame of every station has its one result."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from asperity.runtime.client.station_client import StationClient
from asperity.runtime.reasons import Reason
from asperity.runtime.settings.paths import control_endpoint
from asperity.runtime.states import State
from asperity.testing import PATIENCE_MS, PATIENCE_S, UNHURRIED, Camera, Line
from tests.system.test_kill import one_result_each

pytestmark = pytest.mark.usefixtures("forked_starts")

NAMES = ("left", "right", "top")
RUNNING = State.CONTINUOUS_EXECUTION
PATIENT = {"deadline_ms": 30_000, "max_age_ms": 30_000}


@pytest.fixture
def line() -> Iterator[Line]:
    with Line("ok ok ng", names=NAMES, limits=PATIENT) as made:
        yield made


def cameras(line: Line, stack: ExitStack) -> dict[str, Camera]:
    made = {name: Camera(line, seed=seed, station=name) for seed, name in enumerate(line.names)}
    for camera in made.values():
        stack.enter_context(camera)
        assert camera.wait_connected(PATIENCE_MS)
    return made


def deliver_after_restart(camera: Camera) -> None:
    """Two frames: the first may still go into the connection that died with the process, and then only it is lost."""
    for _ in range(2):
        camera.deliver()


def await_all(line: Line, number: int, session: str = "") -> str:
    """Until every station is in this state, of another session than ``session``; the session then."""
    return {line.await_state(number, session, name).session for name in line.names}.pop()


def test_each_station_answers_its_own_camera(line: Line) -> None:
    line.start()
    await_all(line, RUNNING)
    with ExitStack() as stack:
        senders = cameras(line, stack)
        for turn in range(15):
            for name in NAMES[: 1 + turn % 3]:
                senders[name].deliver()
            line.listen(10)
        for name, camera in senders.items():
            results = line.settle(camera)
            one_result_each(results)
            assert {(result.station, result.camera) for result in results.values()} == {(name, name)}
            assert sorted(results) == list(range(1, len(results) + 1))
            state = line.heard_of[name].states[-1]
            assert (state.received, state.lost) == (camera.seq, 0) and state.balanced
    assert len({line.heard_of[name].states[-1].session for name in NAMES}) == 1


def test_kill_9_leaves_no_frame_of_any_station_without_its_one_result(line: Line) -> None:
    rng = random.Random(11)
    session = ""
    with ExitStack() as stack:
        senders: dict[str, Camera] = {}
        for start in range(3):
            process = line.start()
            session = await_all(line, RUNNING, session)
            senders = senders or cameras(line, stack)
            for _ in range(rng.randrange(30, 90)):
                senders[rng.choice(NAMES)].deliver()
                line.listen(rng.choice((0, 2, 5)))
            if start < 2:
                process.kill()
        for name, camera in senders.items():
            for _ in range(6):  # each alone: some are judged, however many came at once before
                camera.deliver()
                heard, seq = line.heard_of[name].results, camera.seq
                line.wait(lambda heard=heard, seq=seq: any(r.seq == seq for r in heard[-5:]), "the result")  # type: ignore[misc]
            results = line.settle(camera)
            assert sorted(results) == list(range(1, max(results) + 1)), "ids go on without a gap"
            one_result_each(results)
            for live in line.heard_of[name].results:
                assert live == results[live.result_id], "what was published is what the journal says"
            assert Counter(result.reason for result in results.values())[Reason.GOOD] > 3
            assert line.heard_of[name].states[-1].balanced


def test_a_station_that_is_flooded_starves_no_other() -> None:
    with Line("ok=20", names=("left", "right"), limits=PATIENT) as line:
        line.start()
        await_all(line, RUNNING)
        with ExitStack() as stack:
            senders = cameras(line, stack)
            answered = line.heard_of["right"].results
            for number in range(1, 16):
                for _ in range(20):
                    senders["left"].deliver()
                senders["right"].deliver()
                line.wait(lambda number=number: len(answered) >= number, "the other station's result")  # type: ignore[misc]
            assert {result.reason for result in answered} == {Reason.GOOD}
            flooded = Counter(result.reason for result in line.settle(senders["left"]).values())
            assert flooded[Reason.OVERLOAD] > 0 and flooded[Reason.GOOD] > 0
        assert all(line.heard_of[name].states[-1].balanced for name in line.names)


def test_one_station_is_halted_and_changes_its_recipe_while_the_others_judge() -> None:
    recipes = {"a": "script:ok", "b": "script:ng"}
    with Line("ok", names=NAMES, limits=PATIENT, recipes=recipes, engine={"name": "simulated"}) as line:
        line.start()
        await_all(line, RUNNING)
        assert line.ask("halt", "left").ok
        assert line.ask("prepare_recipe", "right", recipe="b").code == "ACCEPTED"
        with ExitStack() as stack:
            senders = cameras(line, stack)

            def changed() -> bool:
                for camera in senders.values():
                    camera.deliver()
                states = line.heard_of["right"].states
                return bool(states) and states[-1].recipe == "b"

            line.wait(changed, "the other recipe")
            for camera in senders.values():
                camera.deliver()
            seen = {name: line.settle(camera) for name, camera in senders.items()}
        assert {result.reason for result in seen["left"].values()} == {Reason.NOT_RUNNING}
        assert {result.reason for result in seen["top"].values()} <= {Reason.GOOD, Reason.OVERLOAD}
        by_recipe = {result.recipe: result.reason for result in seen["right"].values() if result.score is not None}
        assert by_recipe["b"] is Reason.SCORE_ABOVE_THRESHOLD
        assert line.heard_of["left"].states[-1].state == State.HALTED
        assert all(line.heard_of[name].states[-1].balanced for name in NAMES)


def test_a_camera_that_goes_is_missed_by_its_own_station_alone(line: Line) -> None:
    line.start()
    await_all(line, RUNNING)
    with ExitStack() as stack:
        senders = cameras(line, stack)
        for camera in senders.values():
            camera.deliver()
            line.settle(camera)
        line.wait(lambda: all(line.heard_of[name].states[-1].ready for name in NAMES), "all cameras")
        senders["right"].close()
        line.wait(lambda: not line.heard_of["right"].states[-1].ready, "the missing camera to show")
        line.listen(300)
        assert [line.heard_of[name].states[-1].ready for name in NAMES] == [True, False, True]
        assert "CAMERA" in line.heard_of["right"].states[-1].alarms


def test_a_lost_engine_is_every_stations_error_and_ends_the_process_for_the_supervisor() -> None:
    with Line("ok", names=("left", "right"), limits=PATIENT) as line:
        process = line.start()
        session = await_all(line, RUNNING)
        with ExitStack() as stack:
            senders = cameras(line, stack)
            for camera in senders.values():
                camera.deliver()
                line.settle(camera)
            assert senders["left"].send(replace(senders["left"].picture(), sensor="simulate:gone"))
            assert process.wait(PATIENCE_S) == 18, line.log()
            for name in line.names:
                line.wait(
                    lambda name=name: any(s.state == State.ERROR for s in line.heard_of[name].states), "Error"  # type: ignore[misc]
                )  # fmt: skip
                assert any("ENGINE_LOST" in state.alarms for state in line.heard_of[name].states)
            assert line.heard_of["left"].results[-1].reason is Reason.ENGINE
            line.start()  # as the supervisor does
            await_all(line, RUNNING, session)
            for camera in senders.values():
                deliver_after_restart(camera)
                results = line.settle(camera)
                one_result_each(results)
                assert Reason.RESTARTED not in {result.reason for result in results.values()}


def test_sigterm_answers_every_admitted_frame_of_every_station() -> None:
    with Line("ok=50", names=NAMES, limits=PATIENT, timing={"shutdown_ms": 100}) as line:
        process = line.start()
        session = await_all(line, RUNNING)
        with ExitStack() as stack:
            senders = cameras(line, stack)
            for _ in range(3):
                for camera in senders.values():
                    camera.deliver()
            line.wait(lambda: any(line.heard_of[name].results for name in NAMES), "a result")
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, line.log()
            line.start()
            await_all(line, RUNNING, session)
            for camera in senders.values():
                deliver_after_restart(camera)
                results = line.settle(camera)
                one_result_each(results)
                assert Reason.RESTARTED not in {result.reason for result in results.values()}, "nothing was left owing"


def test_a_client_that_knows_its_stations_name_alone_finds_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with Line("ok", names=NAMES, sockets={"control": ""}) as line:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(line.folder))
        line.start()
        await_all(line, RUNNING)
        for name in NAMES:
            with StationClient(line.ends["results"], control_endpoint(name), station=name, limits=UNHURRIED) as client:
                state = client.request("get_state").state
                assert state is not None and state.station == name


def test_a_station_whose_recipe_does_not_open_is_no_reason_to_end_otherwise_than_in_order() -> None:
    with Line("ok", names=("left", "right"), limits=PATIENT, recipes={"none": "script:what"}) as line:
        toml = line.config.read_text()
        line.config.write_text(toml.replace('camera = "right"', 'camera = "right"\nrecipe = "none"'))
        process = line.start()
        line.await_state(RUNNING, station="left")
        line.wait(lambda: any("RECIPE" in state.alarms for state in line.heard_of["right"].states), "the alarm")
        with Camera(line, station="left") as camera:
            camera.deliver()
            assert {result.reason for result in line.settle(camera).values()} == {Reason.GOOD}
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, line.log()


def test_commands_meant_for_one_station_are_told_which(line: Line) -> None:
    line.start()
    await_all(line, RUNNING)
    command = [sys.executable, "-m", "asperity.runtime.cli"]
    camera = [
        "camera", "virtual", "--camera", "right", "--size", "32", "--frames", "6", "--rate", "4", "--json",
        "--frames-endpoint", line.ends["frames"],
    ]  # fmt: skip
    watch = ["watch", "result", "--station", "right", "--results", line.ends["results"], "--count", "3", "--json"]
    ends = ["--results", line.ends["results"], "--control", line.ends["control"]]
    gateway = line.asperity("gateway", "http", "--station", "right", "--port", "0", *ends)
    watching = line.asperity(*watch)
    sent = 0
    while watching.poll() is None:  # it hears what is sent once it has started: perhaps not before the next run
        run = subprocess.run([*command, *camera], stdout=subprocess.PIPE, check=True, timeout=PATIENCE_S)
        sent += json.loads(run.stdout)["sent"]
        with suppress(subprocess.TimeoutExpired):
            watching.wait(1)
    told = watching.log().splitlines()
    assert len(told) == 3 and {json.loads(row)["station"] for row in told} == {"right"}
    line.wait(lambda: line.heard_of["right"].states[-1].received == sent, "the frames")
    served: list[str] = []

    def serves() -> bool:
        served.extend(re.findall(r"http://127.0.0.1:\d+", gateway.log()))
        return bool(served)

    line.wait(serves, "the gateway's address")

    def counted() -> bool:
        with urllib.request.urlopen(f"{served[0]}/metrics", timeout=PATIENCE_S) as page:
            seen = page.read().decode()
        return 'station="right"' in seen and f"asperity_station_received_total {sent}.0" in seen

    line.wait(counted, "the frames in the gateway's metrics")
    assert [line.heard_of[name].states[-1].received for name in NAMES] == [0, sent, 0]


def test_two_stations_with_one_camera_end_the_start_with_one_sentence() -> None:
    with Line("ok", names=("left", "right")) as line:
        line.config.write_text(line.config.read_text().replace('camera = "right"', 'camera = "left"'))
        process = line.start()
        assert process.wait(PATIENCE_S) == 3
        assert "no. 1 and no. 2 both have camera 'left'; give each its own camera" in line.log()
