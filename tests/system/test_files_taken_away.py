"""Files that go while a station runs, done for real: its journal is removed, cut or replaced under it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from asperity.testing import PATIENCE_MS, PATIENCE_S, Camera, Line

pytestmark = pytest.mark.usefixtures("forked_starts")

PATIENT = {"deadline_ms": 30_000, "max_age_ms": 30_000}


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize(
    ("lose", "again", "ends_by"),
    [
        (Path.unlink, "continue at", signal.SIGTERM),
        (Path.unlink, "continue at", signal.SIGKILL),
        (lambda path: os.truncate(path, 0), "move the file away", signal.SIGTERM),
        (lambda path: os.truncate(path, 100_000), "move the file away", signal.SIGKILL),
        (replace, "records ids that the journal does not", signal.SIGTERM),
    ],
    ids=["removed", "removed-killed", "emptied", "cut-killed", "replaced"],
)
def test_a_journal_lost_under_a_running_inspector_is_an_error_and_no_id_comes_twice(
    lose: Callable[[Path], object], again: str, ends_by: signal.Signals
) -> None:
    with Line("ok", limits=PATIENT) as line:
        path = line.folder / "journal"
        process = line.start()
        line.await_state(State.CONTINUOUS_EXECUTION)
        with Camera(line) as camera:
            camera.wait_connected(PATIENCE_MS)
            line.stream(camera, 10, 1)
            line.wait(lambda: len(line.heard.results) >= 10, "a result for every frame")
            lose(path)
            line.await_state(State.ERROR)
            assert "JOURNAL" in line.heard.states[-1].alarms
            seen = len(line.heard.results)
            line.stream(camera, 10, 1)
            line.wait(lambda: len(line.heard.results) >= seen + 10, "an answer to every frame in Error too")
        assert {result.reason for result in line.heard.results[seen:]} == {Reason.NOT_RUNNING}
        assert process.poll() is None, "it survives"
        text = next(event.text for event in line.heard.events if event.code == "JOURNAL")
        assert str(path) in text
        if ends_by is signal.SIGKILL:
            process.kill()
        else:
            process.send_signal(ends_by)
            assert process.wait(PATIENCE_S) == 0
        assert "Traceback" not in line.log()

        line.start()
        if again.startswith("move"):
            assert line.inspector.wait(PATIENCE_S) == 9
            assert again in line.log() and str(path) in line.log() and "Traceback" not in line.log()
            path.unlink()
            again = "continue at"
            line.start()
        states = len(line.heard.states)
        line.await_state(State.CONTINUOUS_EXECUTION, session=line.heard.results[-1].session)
        line.wait(lambda: len(line.heard.states) > states, "a state of the new run")
        assert again in line.log() and "JOURNAL" in line.heard.states[-1].alarms
        with Camera(line, seed=1) as camera:
            camera.wait_connected(PATIENCE_MS)
            before = len(line.heard.results)
            line.stream(camera, 5, 1)
            line.wait(lambda: len(line.heard.results) >= before + 5, "results of the new run")
        ids = [result.result_id for result in line.heard.results]
        assert len(set(ids)) == len(ids) and min(ids[before:]) > max(ids[:before])
