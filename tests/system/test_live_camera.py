"""`asperity camera live` as a service, killed, stopped or asked to end in each phase: it comes back by itself, and no
part has the picture of another. The stand-in camera shows the part that is in front of it when it exposes."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from asperity.runtime.reasons import Reason
from asperity.testing import CAMERA, PATIENCE_S, STATION, Line
from tests.places import ROOT
from tests.system.camera_unit import Unit
from tests.system.live_stand_in import NAME, UNCHECKED

pytestmark = pytest.mark.usefixtures("forked_starts")

PHASES = ("idle", "triggered", "exposed", "sending")
LATE_MS = 500


class Plant:
    """A line with triggers, a camera service, and parts that pass in front of the camera."""

    def __init__(self, line: Line, folder: Path) -> None:
        self.line, self.folder = line, folder
        self.part = 0
        info = folder / "standin-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: standin\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[asperity.cameras]\n{NAME} = tests.system.live_stand_in:KIND\n")
        self.arguments = [
            NAME, "--log-format", "json", "--set", f"folder={folder}", "--set", f"camera.name={CAMERA}",
            "--set", f"camera.station={STATION}", "--set", f"camera.frames={line.ends['frames']}",
            "--set", f"camera.results={line.ends['results']}", "--set", "live.triggers=software",
            "--set", f"live.late_ms={LATE_MS}",
        ]  # fmt: skip
        self.environment = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
        self.unit = Unit(folder, self.arguments, self.environment)
        self.show()

    def restart(self, **environment: str) -> None:
        """A unit with another environment."""
        self.unit.close()
        (self.folder / "notify").unlink()
        self.unit = Unit(self.folder, self.arguments, {**self.environment, **environment})

    def wait(self, condition: object, what: str) -> None:
        self.line.wait(lambda: self.unit.turn() and condition(), f"{what}\n{self.unit.log()[-3000:]}")  # type: ignore[operator]

    def show(self) -> int:
        """The next part is in front of the camera."""
        self.part += 1
        (self.folder / "part.new").write_text(str(self.part))
        (self.folder / "part.new").rename(self.folder / "part")
        return self.part

    def hold(self, phase: str, how: str = "hold") -> None:
        (self.folder / "reached").unlink(missing_ok=True)
        (self.folder / how).write_text(phase)

    def reached(self) -> bool:
        return (self.folder / "reached").exists()

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def trigger(self) -> int:
        """The station triggers for the part that is there; the id is the part's number."""
        with self.line.client() as client:
            reply = client.request("trigger", trigger_id=self.part, part_id=str(self.part), timeout_ms=3000)
        assert reply.ok, reply
        return self.part

    def reason_of(self, trigger_id: int) -> str:
        found = [result.reason.name for result in self.line.heard.results if result.trigger_id == trigger_id]
        return found[0] if found else ""

    def good(self) -> None:
        """One part after another until one is good: the camera works. A crowded machine may be late."""
        if self.unit.ended:  # by another test
            self.restart()
        reasons: list[str] = []
        ends_s = time.monotonic() + PATIENCE_S
        while "GOOD" not in reasons:
            assert time.monotonic() < ends_s, (reasons, self.unit.log()[-3000:])
            self.show()
            number = self.trigger()
            self.wait(lambda number=number: self.reason_of(number), "a result")  # type: ignore[misc]
            reasons.append(self.reason_of(number))

    def check(self) -> None:
        """One result for each trigger and each exposure, and each judged one of the part that it names."""
        truth = dict(map(int, line.split()) for line in (self.folder / "truth").read_text().splitlines())
        results = list(self.line.journal().values())
        triggers = Counter(result.trigger_id for result in results if result.trigger_id)
        assert set(triggers.values()) == {1}, triggers
        seqs = Counter((result.camera_session, result.seq) for result in results if result.seq)
        assert set(seqs.values()) == {1}, seqs
        judged = [result for result in results if result.t_exposure_us in truth]
        assert sum(result.reason is Reason.GOOD for result in judged) >= 1
        for result in judged:
            if result.reason is Reason.GOOD:
                assert str(truth[result.t_exposure_us]) == result.part_id, "the picture of another part"


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    slow = {"deadline_ms": 30_000, "max_age_ms": 30_000}
    with Line(station={"triggers": "software"}, limits=slow, triggers={"pending_max": 64}) as made:
        made.start()
        made.await_running()
        yield made


@pytest.fixture(scope="module")
def plant(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(line, tmp_path_factory.mktemp("plant"))
    yield made
    made.unit.close()


@pytest.mark.parametrize("phase", ["opening", *PHASES])
def test_kill_9_in_each_phase_and_it_comes_back_with_a_new_session(plant: Plant, phase: str) -> None:
    plant.good()
    session, ended = plant.line.heard.results[-1].camera_session, len(plant.unit.codes)
    plant.hold(phase)
    if phase == "opening":
        plant.unit.signal(signal.SIGKILL)
        plant.wait(lambda: len(plant.unit.codes) == ended + 1, "the end")
        ended += 1
    elif phase != "idle":
        plant.show()
        plant.trigger()
    plant.wait(plant.reached, "the phase")
    assert plant.unit.ready == (phase != "opening")
    plant.unit.signal(signal.SIGKILL)
    plant.show()
    plant.release()
    plant.wait(lambda: plant.unit.codes[ended:] == [-signal.SIGKILL] and plant.unit.ready, "ready again")
    plant.good()
    assert plant.line.heard.results[-1].camera_session not in ("", session)
    plant.check()


@pytest.mark.parametrize("phase", PHASES)
def test_stopped_in_each_phase_it_goes_on_and_gives_no_part_the_next_ones_picture(plant: Plant, phase: str) -> None:
    plant.good()
    ended = len(plant.unit.codes)
    stopped_while_another_part_came(plant, phase)
    plant.good()
    assert len(plant.unit.codes) == ended, "it needed no restart"
    plant.check()


def stopped_while_another_part_came(plant: Plant, phase: str) -> int:
    """Stopped for longer than a trigger may wait; the part that is there then is another. The trigger's id."""
    plant.hold(phase)
    plant.show()
    number = 0 if phase == "idle" else plant.trigger()
    plant.wait(plant.reached, "the phase")
    plant.unit.signal(signal.SIGSTOP)
    number = number or plant.trigger()
    plant.release()
    plant.show()
    time.sleep(1.5 * LATE_MS / 1000)  # what is tested: a pause
    plant.unit.signal(signal.SIGCONT)
    plant.wait(lambda: plant.reason_of(number), "its result")
    if phase in ("idle", "triggered"):
        assert plant.reason_of(number) == "NO_FRAME"
    return number


def test_a_process_that_stands_still_is_killed_by_its_watchdog_and_comes_back(plant: Plant) -> None:
    plant.good()
    ended = len(plant.unit.codes)
    plant.unit.signal(signal.SIGSTOP)
    plant.wait(lambda: plant.unit.codes[ended:] == [-signal.SIGKILL] and plant.unit.ready, "ready again")
    plant.good()
    assert "Stand-in 7: " in plant.unit.status
    plant.check()


@pytest.mark.parametrize("closes", [True, False])
def test_a_camera_that_is_gone_ends_the_process_even_if_its_driver_hangs(plant: Plant, closes: bool) -> None:
    plant.good()
    session, ended = plant.line.heard.results[-1].camera_session, len(plant.unit.codes)
    if not closes:
        plant.hold("closing", "hang")
    (plant.folder / "pulled").touch()
    plant.wait(lambda: not (plant.folder / "pulled").exists(), "the end of the camera")
    plant.wait(lambda: plant.unit.codes[ended:] == [20] and plant.unit.ready, "ready again")
    (plant.folder / "hang").unlink(missing_ok=True)
    plant.good()
    assert plant.line.heard.results[-1].camera_session != session
    assert "the cable was pulled out" in plant.unit.log()
    plant.check()


def test_the_inspector_goes_away_and_the_camera_waits_for_it(plant: Plant) -> None:
    plant.good()
    ended, session = len(plant.unit.codes), plant.line.heard.results[-1].camera_session
    plant.line.kill()
    fed = plant.unit.fed
    plant.wait(lambda: plant.unit.fed > fed + 1, "the watchdog's feeding")
    plant.line.start()
    plant.line.await_running()
    plant.good()
    assert len(plant.unit.codes) == ended and plant.line.heard.results[-1].camera_session == session
    plant.check()


def test_the_control_without_the_check_a_part_has_the_next_ones_picture(plant: Plant) -> None:
    plant.restart(**{UNCHECKED: "1"})
    plant.good()
    with pytest.raises(AssertionError, match="GOOD"):
        stopped_while_another_part_came(plant, "triggered")
    with pytest.raises(AssertionError, match="the picture of another part"):
        plant.check()
    plant.restart()
    (plant.folder / "truth").write_text("")  # what is wrong now stays in the journal


@pytest.mark.parametrize(
    ("phase", "how", "code"),
    [("opening", "hold", 143), ("opening", "hang", 143), ("triggered", "hold", 0), ("closing", "hang", 143)],
)
def test_sigterm_ends_it_in_each_phase(plant: Plant, phase: str, how: str, code: int) -> None:
    plant.unit.close()
    plant.hold(phase, how)  # before the next one starts, or it may have passed the phase
    plant.restart()
    try:
        if phase != "opening":
            plant.wait(lambda: plant.unit.ready, "ready")
            while not plant.reached() and phase == "triggered":
                plant.show()
                number = plant.trigger()
                plant.wait(lambda number=number: plant.reached() or plant.reason_of(number), "the phase")  # type: ignore[misc]
        else:
            plant.wait(plant.reached, "the phase")
        assert plant.unit.stop(PATIENCE_S) == code
    finally:
        (plant.folder / how).unlink()
    assert "Traceback" not in plant.unit.log()
