"""Part after part over MQTT on a line with triggers: none is accepted that was not exposed and judged ok."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asperity.runtime.errors import GatewayError
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.gateways.mqtt.gateway import ALARM
from asperity.testing import Camera, Line
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.mqtt.mqtt_floor import BROKERS, RUNNING, TOML, Broker, Subscriber, lies, trusted

pytestmark = pytest.mark.usefixtures("forked_starts")

TIMEOUT_MS = 300
FATES = {"exposed": 80, "not exposed": 6, "a stray exposure before": 7, "exposed twice": 7}
LIE = msgspec.json.encode({"accept": True, "result_id": 1, "trigger_id": 1, "part_id": "lie", "valid_ms": 9999})


class Ids:
    """Which triggers were answered, read from what a subscriber heard, each message once."""

    def __init__(self, ear: Subscriber) -> None:
        self._ear = ear
        self._read = 0
        self.results: set[int] = set()
        self.replies: dict[str, bool] = {}

    def read(self) -> None:
        while self._read < len(self._ear.heard):
            name, body, _ = self._ear.heard[self._read]
            self._read += 1
            if name == "result" and body["trigger_id"]:
                self.results.add(body["trigger_id"])
            elif name.startswith("reply/"):
                self.replies[body["id"]] = body["ok"]

    def answered(self, number: int) -> bool:
        """Its result came, or it was not begun."""
        self.read()
        return number in self.results or self.replies.get(f"t{number}") is False


def one_part(
    line: Line, gateway: GatewayProcess, camera: Camera, ear: Subscriber, ids: Ids, number: int, fate: str
) -> bool:
    """Command the trigger over MQTT, expose as ``fate`` says, await the answer. True if the part was exposed."""
    if fate == "a stray exposure before":
        camera.deliver()
    request = {"id": f"t{number}", "trigger_id": number, "part_id": f"p{number}", "timeout_ms": TIMEOUT_MS}
    ear.publish("command/trigger", msgspec.json.encode(request))
    exposed = False

    def answered() -> bool:
        nonlocal exposed
        line.listen(0)
        trigger = camera.wait_trigger(5)
        if trigger is not None and trigger.trigger_id == number and fate != "not exposed":
            exposed = camera.send(camera.picture(), trigger)
            if fate == "exposed twice":
                camera.send(camera.picture(), trigger)
        return ids.answered(number) or gateway.process.poll() is not None

    until(answered, f"an answer to part {number} ({fate})", 0.001)
    return exposed


def own(ear: Subscriber) -> list[tuple[str, dict[str, Any]]]:
    """What the gateway said: not the lies."""
    return [(name, body) for name, body, _ in list(ear.heard) if body.get("part_id") != "lie"]


def noticed(ear: Subscriber, began: int) -> bool:
    return any(name == "state" and ALARM in body["alarms"] for name, body, _ in ear.heard[began:])


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize(
    "count", [120, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.foreign, pytest.mark.timeout(3600)])]
)
def test_no_part_is_accepted_that_was_not_exposed_and_judged_ok(kind: str, count: int, tmp_path: Path) -> None:
    rng = random.Random(14)
    limits = {"engine_faults_max": 1000}
    with Line("ok ok ok ng nan refuse shape", station={"triggers": "software"}, limits=limits) as line:
        broker = Broker(line, kind)
        toml = TOML.format(version=broker.version, folder=tmp_path)
        line.start()
        line.await_state(RUNNING)

        def start() -> GatewayProcess:
            return GatewayProcess(line, "mqtt", toml, "--port", str(broker.port))

        gateway, ear = start(), Subscriber(broker)
        exposed: set[int] = set()
        try:
            with Camera(line, triggered=True) as camera:
                camera.wait_connected(10_000)
                until(trusted(ear), "a trusted state")
                ids, began = Ids(ear), 0
                for number in range(1, count + 1):
                    fate = rng.choices(list(FATES), list(FATES.values()))[0]
                    if one_part(line, gateway, camera, ear, ids, number, fate):
                        exposed.add(number)
                    if gateway.process.poll() is not None:
                        # On a crowded machine a loop may stand; the process ends, and its supervisor starts it again.
                        assert gateway.process.returncode == GatewayError.exit_code, gateway.log()
                        began, gateway = len(ear.heard), start()
                        until(trusted(ear, began), "a trusted state of the next gateway")
                    if number % 100 == 45:
                        until(trusted(ear, began), "the end of the quiet time")
                    if number % 100 == 40:
                        began = len(ear.heard)
                        ear.publish("accept", LIE, retain=True)
                        until(lambda began=began: noticed(ear, began), "that the lie is noticed")  # type: ignore[misc]
                    if number == count // 2:
                        began = len(ear.heard)
                        gateway.process.kill()
                        gateway = start()
                        until(trusted(ear, began), "a trusted state again")
            last = max(body["result_id"] for name, body in own(ear) if name == "result")
            line.wait(lambda: line.heard.results[-1].result_id >= last, "what the station said")
            truth: dict[int, Result] = {result.result_id: result for result in line.heard.results}
            accepted = [body for name, body in own(ear) if name == "accept" and body["accept"]]
            for body in accepted:
                result = truth[body["result_id"]]
                assert result.verdict is Verdict.OK and result.trigger_id in exposed, body
                assert (body["trigger_id"], body["part_id"]) == (result.trigger_id, f"p{result.trigger_id}")
            parts = {body["trigger_id"] for body in accepted}
            good = {each.trigger_id for each in truth.values() if each.verdict is Verdict.OK and each.trigger_id}
            print(f"{kind}: {count} parts, {len(exposed)} exposed, {len(good)} ok, {len(parts)} accepted")
            assert len(parts) > len(good) // 2 > count // 10, "most good parts pass"
            assert not lies(own(ear), truth)
        finally:
            ear.close()
