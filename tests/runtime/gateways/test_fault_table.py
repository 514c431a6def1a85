"""The same table of faults for every protocol: each row is seen by a client of each, and no part passes by any."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime import gateways
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import RecipeChange
from asperity.testing import PATIENCE_S, STATION, Camera, Line
from tests.runtime.gateways.fake_station import FakeStation
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.mqtt.mqtt_floor import MOSQUITTO, Broker
from tests.runtime.gateways.readers import READERS, Reader

pytestmark = pytest.mark.usefixtures("forked_starts")

TOML = "[gateway]\naccept_simulated = {simulated}\naccept_hold_ms = 3_600_000\npatience_ms = 300\n"
"""Only distrust may clear accept here: its hold time is an hour."""
FALL_S = 5.0
"""Generous, for a crowded machine; the measured times are printed, and the soak test asserts the bar."""
BAR_S = 1.0
JUDGED: dict[Verdict, dict[str, Any]] = {
    Verdict.OK: {"reason": Reason.GOOD, "score": 0.25, "threshold": 0.5},
    Verdict.NG: {"reason": Reason.SCORE_ABOVE_THRESHOLD, "score": 0.75, "threshold": 0.5},
    Verdict.UNKNOWN: {"reason": Reason.DEADLINE},
}


def test_no_gateway_is_left_out_of_the_table() -> None:
    (folder,) = gateways.__path__
    assert {found.parent.name for found in Path(folder).glob("*/gateway.py")} == set(READERS)


class Readers:
    """Every gateway of one station, each with its reader."""

    def __init__(self, line: Line, *, simulated: bool) -> None:
        broker = Broker(line, "mosquitto" if MOSQUITTO else "amqtt")
        toml = TOML.format(simulated=str(simulated).lower())
        self.by_name: dict[str, Reader] = {name: make(line, broker, toml) for name, make in READERS.items()}
        for reader in self.by_name.values():
            reader.open()

    @property
    def gates(self) -> list[str]:
        """Those that show an accept."""
        return [name for name, reader in self.by_name.items() if reader.gates]

    def all(self, condition: Callable[[Reader], bool], what: str, of: list[str] | None = None) -> dict[str, float]:
        """Wait until it holds for each; seconds until it did."""
        began_s, came_s = time.monotonic(), dict[str, float]()
        wanted = list(self.by_name) if of is None else of
        while len(came_s) < len(wanted):
            for name in wanted:
                if name not in came_s and condition(self.by_name[name]):
                    came_s[name] = time.monotonic() - began_s
            left = sorted(set(wanted) - set(came_s))
            assert time.monotonic() < began_s + PATIENCE_S, f"{what} did not come over {', '.join(left)}"
            time.sleep(0.01)
        return came_s

    def close(self) -> None:
        for reader in self.by_name.values():
            reader.close()


class Rig(Readers):
    """Of a station that says what a row wants."""

    def __init__(self, line: Line) -> None:
        self.station = FakeStation(line.ends)
        self.last_id = 0
        super().__init__(line, simulated=False)

    def publish(self, verdict: Verdict = Verdict.OK, skip: int = 0, **fields: Any) -> int:
        """A result of a trigger of the same number, unless ``fields`` say otherwise; its id."""
        self.last_id += 1 + skip
        values = {"trigger_id": self.last_id, "recipe": "bracket", **JUDGED[verdict], **fields}
        values |= {"result_id": self.last_id, "t_done_us": 1_790_000_000_000_000 + self.last_id}
        self.station.publish(Result(station=STATION, session="", verdict=verdict, **values))
        return self.last_id

    def passing(self) -> int:
        """A good part that every protocol lets pass; the station is as it should be."""
        self.all(lambda reader: reader.look().good, "quality")
        number = self.publish()
        self.all(lambda reader: reader.passed(number), "accept")
        return number

    def rejects(self, number: int, of: list[str] | None = None) -> None:
        """The result is shown, and is not a pass."""
        self.all(lambda reader: reader.rejected(number), "a reject", self.gates if of is None else of)

    def distrusts(self) -> None:
        """Accept falls, and quality with it."""
        self.all(lambda reader: not reader.look().accept and not reader.look().good, "distrust")

    def request(self, op: str, ask: Callable[[], None]) -> Any:
        """The station's end of it."""
        known = len(self.station.asked)
        ask()
        until(lambda: any(each.op == op for each in self.station.asked[known:]), op)
        return next(each for each in self.station.asked[known:] if each.op == op)

    def close(self) -> None:
        super().close()
        self.station.close()


def _bad(verdict: Verdict = Verdict.OK, **fields: Any) -> Callable[[Rig], None]:
    return lambda rig: rig.rejects(rig.publish(verdict, **fields))


def _lost(rig: Rig) -> None:
    missing = {name: reader.look().missing for name, reader in rig.by_name.items()}
    number = rig.publish(skip=2)
    rig.all(lambda reader: reader.passed(number), "the result after those that are lost")
    for name, reader in rig.by_name.items():
        if name == "io":  # each of them has its strobe, with reject
            assert reader.rejected(number - 1) and reader.rejected(number - 2)
        else:
            assert reader.look().missing == missing[name] + 2, name


def _says(**changes: Any) -> Callable[[Rig], None]:
    """Until the station says otherwise again."""

    def play(rig: Rig) -> None:
        before = {name: getattr(rig.station.state, name) for name in changes}
        rig.station.say(**changes)
        rig.distrusts()
        rig.station.say(**before)

    return play


def _falls_silent(what: str) -> Callable[[Rig], None]:
    def play(rig: Rig) -> None:
        before = rig.station.state.beat_timeout_ms
        rig.station.say(beat_timeout_ms=300)
        rig.all(lambda reader: reader.look().good, "quality")
        setattr(rig.station, what, False)
        rig.distrusts()
        setattr(rig.station, what, True)
        rig.station.say(beat_timeout_ms=before)

    return play


def _restarted(rig: Rig) -> None:
    rig.station.restart()
    rig.all(lambda reader: not reader.look().accept, "the end of accept", rig.gates)
    rig.all(lambda reader: reader.look().good, "quality, without hands")
    assert not any(reader.look().accept for reader in rig.by_name.values()), "a part of before never passes again"


def _trigger_refused(rig: Rig) -> None:
    for name, reader in rig.by_name.items():
        if reader.commands:
            number = rig.last_id + 1
            request = rig.request("trigger", lambda reader=reader, number=number: reader.trigger(number))
            assert request.trigger_id == number
            rig.station.answer(request, "BUSY")
            others = [other for other in rig.gates if other != name]
            assert rig.publish() == number
            rig.rejects(number, [name])
            rig.all(lambda other, number=number: other.passed(number), "accept", others)


def _recipe_failed(rig: Rig) -> None:
    for change, (name, reader) in enumerate(rig.by_name.items(), 1):
        if reader.commands:
            request = rig.request("prepare_recipe", lambda reader=reader: reader.prepare("lid"))
            rig.station.answer(request, "ACCEPTED", 2 * change)
            rig.station.say(recipe_change=RecipeChange(2 * change, "lid", "failed", "why"))
            rig.rejects(rig.publish(), [name])
            request = rig.request("prepare_recipe", lambda reader=reader: reader.prepare("bracket"))
            rig.station.answer(request, "ACCEPTED", 2 * change + 1)
            rig.station.say(recipe_change=RecipeChange(2 * change + 1, "bracket", "done", ""))
            number = rig.publish()
            rig.all(lambda reader, number=number: reader.passed(number), "accept", [name])


FAULTS: dict[str, Callable[[Rig], None]] = {
    "the part is not good": _bad(Verdict.NG),
    "there is no verdict": _bad(Verdict.UNKNOWN),
    "the result is simulated": _bad(simulated=True),
    "nobody announced the part": _bad(trigger_id=0),
    "results are lost": _lost,
    "the station is not ready": _says(state=6, ready=False),
    "the inspector's engine hangs: the heartbeat stops": _falls_silent("beats"),
    "the inspector stands still: nothing comes": _falls_silent("speaks"),
    "the inspector is restarted: a new session": _restarted,
    "a trigger was refused, and its result comes all the same": _trigger_refused,
    "a recipe change failed": _recipe_failed,
}


def test_no_part_passes_over_any_protocol_after_a_fault_and_the_next_good_one_does() -> None:
    """All rows with one set of gateways, which take longer to start than all the rest; the last row kills them."""
    with Line() as line:
        rig = Rig(line)
        try:
            for fault, comes in FAULTS.items():
                print(f"row: {fault}")
                rig.passing()
                comes(rig)
                rig.passing()
            print("row: gateways are killed")
            for name, reader in rig.by_name.items():
                reader.gateway.process.kill()
                until(reader.ended, f"the end of {name}")
        finally:
            rig.close()


def fall(readers: Readers, line: Line, number: int) -> dict[str, float]:
    """Seconds from the signal to accept = 0 (Sparkplug: to bad quality)."""
    os.kill(line.inspector.pid, number)
    came_s = readers.all(lambda r: not (r.look().accept if r.gates else r.look().good), "the fall of accept")
    readers.all(lambda reader: not reader.look().good, "bad quality")
    shown = ", ".join(f"{name} {after_s:.3f}" for name, after_s in came_s.items())
    print(f"{signal.Signals(number).name}: accept = 0 after s: {shown}")
    return came_s


def falls(bar_s: float, times: int) -> None:
    """A real inspector is stopped and killed, again and again; every gateway finds back without hands."""
    with Line("ok", limits={"deadline_ms": 500}) as line:
        line.start()
        readers = Readers(line, simulated=True)
        camera = Camera(line)
        try:
            for number in [signal.SIGSTOP, signal.SIGKILL] * times:
                readers.all(lambda reader: reader.look().good, "quality")
                assert not any(reader.look().accept for reader in readers.by_name.values()), "a part of before"
                passing(readers, line, camera)
                took_s = fall(readers, line, number)
                assert max(took_s.values()) < bar_s, took_s
                if number == signal.SIGSTOP:
                    os.kill(line.inspector.pid, signal.SIGCONT)
                else:
                    line.kill()
                    line.start()
            readers.all(lambda reader: reader.look().good, "quality")
            for reader in readers.by_name.values():
                gateway: GatewayProcess = reader.gateway
                assert gateway.process.poll() is None and "Traceback" not in gateway.log()
        finally:
            camera.close()
            readers.close()


def passing(readers: Readers, line: Line, camera: Camera) -> None:
    """A part passes now over every protocol that keeps its accept (the outputs' one is a pulse)."""
    gates = [name for name in readers.gates if name != "io"]
    first = camera.seq + 1

    def all_accept() -> bool:
        if camera.seq < first or not line.heard.results or line.heard.results[-1].seq == camera.seq:
            line.stream(camera, 1, 50)
        line.listen(20)
        return all(readers.by_name[name].look().accept for name in gates)

    until(all_accept, "accept over every protocol")


def test_a_stopped_or_killed_inspector_takes_accept_away_over_every_protocol() -> None:
    falls(FALL_S, 1)


@pytest.mark.soak
def test_accept_falls_within_a_second_over_every_protocol() -> None:
    falls(BAR_S, 10)
