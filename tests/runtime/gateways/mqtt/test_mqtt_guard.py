"""What others publish on a station's topics: kept accepts, a second gateway of the name, users without the right to."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from asperity.runtime.gateways.mqtt.gateway import ALARM
from asperity.testing import PATIENCE_S, Camera, Line
from asperity.testing.site import free_port
from tests.places import ROOT
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.mqtt.mqtt_floor import (
    BASE,
    BROKERS,
    MOSQUITTO,
    RUNNING,
    TOML,
    Broker,
    Subscriber,
    listens,
    make_certificate,
    open_to_mosquitto,
    passing,
    start_gateway,
    told,
    trusted,
)

pytestmark = pytest.mark.usefixtures("forked_starts")

DEPLOY = ROOT / "deploy" / "mosquitto"
LIE = msgspec.json.encode({"v": 1, "accept": True, "result_id": 1, "part_id": "p"})


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with Line("ok") as line:
        line.start()
        line.await_state(RUNNING)
        yield Broker(line, request.param)


@pytest.fixture
def line(broker: Broker) -> Line:
    return broker.line


@pytest.fixture
def camera(line: Line) -> Iterator[Camera]:
    with Camera(line) as camera:
        camera.wait_connected(10_000)
        yield camera


@pytest.fixture
def ear(broker: Broker) -> Iterator[Subscriber]:
    ear = Subscriber(broker)
    yield ear
    ear.close()


def kept(broker: Broker) -> list[tuple[str, dict[str, Any]]]:
    """What the broker gives to who comes now: all that is retained."""
    late = Subscriber(broker)
    try:
        # Retained messages come before what is published after the subscription.
        until(lambda: False in late.retained, "a live message")
        found = zip(list(late.heard), list(late.retained), strict=False)
        return [(name, body) for (name, body, _), retained in found if retained]
    finally:
        late.close()


def foreign(gateway: GatewayProcess) -> Callable[[], bool]:
    return lambda: f"ALARM {ALARM}" in gateway.log()


def test_a_lie_that_a_broker_keeps_does_not_outlive_the_gateways_first_word(
    broker: Broker, ear: Subscriber, line: Line, camera: Camera, tmp_path: Path
) -> None:
    for name in ("accept", "online", "state"):
        ear.publish(name, LIE, retain=True)
    until(lambda: all(LIE in ear.raw.get(name, ()) for name in ("accept", "online", "state")), "the lies")
    began = len(ear.heard)
    gateway = start_gateway(broker, tmp_path)
    first = "the gateway has just connected"
    until(lambda: any(body.get("why") == first for body in ear.of("accept")[1:]), "its first word")
    until(trusted(ear, began), "a trusted state")
    assert not any(
        body.get("accept") or (body.get("ready") is True and name == "accept") for name, body in kept(broker)
    )
    assert not foreign(gateway)(), gateway.log()

    # While a part passes nothing true is kept, and the gateway's death is accept false for who listens.
    passing(ear, line, camera)
    assert ear.last("accept")["accept"]
    found = dict(kept(broker))
    assert not found["accept"]["accept"] and not found["online"]["online"] and not found["state"]["ready"]
    gateway.process.kill()
    until(lambda: not ear.last("accept")["accept"], "the will")
    assert ear.last("accept")["why"] == "the gateway has disconnected"


def test_a_lie_while_the_gateway_runs_is_withdrawn_shown_and_ends_in_acceptance_again(
    broker: Broker, ear: Subscriber, line: Line, camera: Camera, tmp_path: Path
) -> None:
    gateway = start_gateway(broker, tmp_path)
    began = len(ear.heard)
    until(trusted(ear, began), "a trusted state")
    passing(ear, line, camera)
    began = len(ear.heard)
    ear.publish("accept", LIE, retain=True)
    until(foreign(gateway), "the alarm")
    until(lambda: ALARM in ear.last("state").get("alarms", []), "the alarm in the state")
    until(lambda: not ear.last("accept")["accept"], "the truth")
    assert not dict(kept(broker))["accept"]["accept"]
    state = ear.last("state")
    assert not state["ready"] and not state["trusted"] and "not a gateway" in state["why"]
    came = [body["accept"] for name, body, _ in ear.heard[began:] if name == "accept"]
    assert False in came[came.index(True) :], "withdrawn after it"
    # Its own word published again is a lie too.
    own = next(body for body in reversed(ear.raw["accept"]) if b'"accept":true' in body and b"instance" in body)
    ear.publish("accept", own)
    until(lambda: "not a gateway" not in ear.last("state")["why"], "the end of the quiet time", 0.05)
    ear.publish("accept", own)
    until(lambda: "published again" in ear.last("state")["why"], "that it is noticed")
    until(lambda: not ear.last("accept")["accept"], "the truth")
    passing(ear, line, camera)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("client_id", ["", "the-same"])
def test_two_stations_of_one_name_pass_nothing_until_one_is_gone(
    broker: Broker, line: Line, camera: Camera, tmp_path: Path, client_id: str
) -> None:
    own = Broker(line, broker.kind)
    ear = Subscriber(own)
    with Line("ok") as double, Camera(double) as second:
        double.start()
        double.await_state(RUNNING)
        second.wait_connected(10_000)
        gateways = []
        for at, folder in ((line, tmp_path / "one"), (double, tmp_path / "two")):
            toml = TOML.format(version=own.version, folder=folder) + f'client_id = "{client_id}"\n'
            gateways.append(GatewayProcess(at, "mqtt", toml, "--port", str(own.port)))
        try:
            # Clients of one id throw each other out. (amqtt lets both in, and gives one of them nothing back.)
            noticed = any if client_id else all
            until(lambda: noticed(foreign(each)() for each in gateways), "that each notices the other")
            for _ in range(20):
                line.stream(camera, 1, 20)
                double.stream(second, 1, 20)
            for at, cam in ((line, camera), (double, second)):
                last = max(at.settle(cam))
                until(told(ear, last), "the last result")
            said = [body for name, body, _ in list(ear.heard) if name in ("accept", "result")]
            assert said and not any(body["accept"] for body in said), "neither"
            gateways[0].process.kill()
            if not client_id or broker.kind == "mosquitto":
                passing(ear, double, second)
        finally:
            for each in gateways:
                each.process.kill()
            ear.close()


def make_users(folder: Path, port: int, *users: str) -> Path:
    """The files of deploy/mosquitto as an engineer puts them in place, on another port and in another folder."""
    passwords = folder / "passwords"
    for number, user in enumerate(users):
        create = ["-c"] if not number else []
        subprocess.run(["mosquitto_passwd", *create, "-b", str(passwords), user, f"secret {user}"], check=True)
    make_certificate(folder / "broker.key", folder / "broker.pem")
    shutil.copy(DEPLOY / "asperity.acl", folder)
    config = (DEPLOY / "asperity.conf").read_text()
    assert "listener 8883\n" in config
    config = config.replace("listener 8883", f"listener {port} 127.0.0.1")
    file = folder / "asperity.conf"
    file.write_text(config.replace("/etc/mosquitto/asperity", str(folder)))
    open_to_mosquitto(folder)
    for each in folder.iterdir():
        each.chmod(0o644)  # mosquitto drops to its own user
    return file


class User:
    """A client of the broker with a name and a password."""

    def __init__(self, name: str, port: int, ca: Path) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.refused: dict[int, bool] = {}
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.tls_set(str(ca))
        client.username_pw_set(name, f"secret {name}")
        up = threading.Event()
        client.on_connect = lambda client, *rest: client.subscribe(f"{BASE}/#", qos=1)
        client.on_subscribe = lambda *rest: up.set()
        client.on_message = self._on_message
        client.on_publish = lambda client, data, number, reason, rest: self.refused.update({number: reason.is_failure})
        client.connect("localhost", port)
        client.loop_start()
        assert up.wait(PATIENCE_S)

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self.heard.append((message.topic.removeprefix(BASE + "/"), msgspec.json.decode(message.payload)))

    def may_publish(self, name: str, body: bytes, retain: bool = False) -> bool:
        """What the broker answers."""
        number = self._client.publish(f"{BASE}/{name}", body, qos=1, retain=retain).mid
        until(lambda: number in self.refused, "the broker's answer")
        return not self.refused[number]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.foreign
@pytest.mark.skipif(MOSQUITTO is None or not shutil.which("mosquitto_passwd"), reason="mosquitto is not installed")
def test_the_shipped_access_list_lets_the_gateway_alone_speak_for_the_station(tmp_path: Path) -> None:
    with Line("ok") as line, Camera(line) as camera:
        port = free_port()
        file = make_users(tmp_path, port, "gateway-st1", "gateway-st2", "plc-st1", "operator-st1", "stranger")
        line.spawn(str(MOSQUITTO), "-c", str(file))
        until(lambda: listens(port), "the broker's address")
        ca, secret = tmp_path / "broker.pem", tmp_path / "secret"
        secret.touch(mode=0o600)
        secret.write_text("secret gateway-st1")
        toml = TOML.format(version="5", folder=tmp_path / "kept")
        toml += f'tls = true\nhost = "localhost"\nca_file = "{ca}"\nuser = "gateway-st1"\npassword_file = "{secret}"\n'
        gateway = GatewayProcess(line, "mqtt", toml, "--port", str(port))
        until(lambda: "connected to the broker" in gateway.log(), "the gateway's connection")
        users = {name: User(name, port, ca) for name in ("gateway-st2", "plc-st1", "operator-st1", "stranger")}
        plc, operator = users["plc-st1"], users["operator-st1"]
        try:
            line.start()
            line.await_state(RUNNING)
            camera.wait_connected(10_000)

            def heard(name: str) -> list[dict[str, Any]]:
                return [body for topic, body in list(plc.heard) if topic == name]

            until(lambda: bool(heard("state")) and heard("state")[-1].get("trusted"), "a trusted state")
            for name, user in users.items():
                for topic in ("accept", "online", "state", "result", "gap", "recipe", "event", "reply/x"):
                    assert not user.may_publish(topic, LIE, retain=True), f"{name} on {topic}"
                for op in ("set_threshold", "shutdown"):
                    assert not user.may_publish(f"command/{op}", b'{"id":"no"}'), f"{name}: {op}"
                may_stop = user.may_publish("command/get_state", msgspec.json.encode({"id": name}))
                assert may_stop == (name == "operator-st1"), name
            until(lambda: bool(heard("reply/operator-st1")), "the operator's answer")
            assert heard("reply/operator-st1")[0]["ok"]

            def passes() -> bool:
                line.stream(camera, 1, 50)
                return any(body["accept"] for body in heard("accept"))

            until(passes, "a part that may pass")
            assert not foreign(gateway)() and "refused" not in gateway.log()
            assert {name for name, _ in users["stranger"].heard} == set()
            assert {name for name, _ in users["gateway-st2"].heard} == set()
            assert not [body for _, body in operator.heard if body.get("part_id") == "p"], "no lie came through"
            for name in ("reply/gateway-st2", "reply/plc-st1", "reply/stranger"):
                assert heard(name) == []
        finally:
            for user in users.values():
                user.close()


@pytest.mark.foreign
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_gateway_that_may_not_read_its_own_topics_passes_nothing_and_says_so(tmp_path: Path) -> None:
    with Line("ok") as line, Camera(line) as camera:
        broker = Broker(line, "mosquitto", acl=f"topic write {BASE}/#\nuser ear\ntopic read {BASE}/#\n")
        gateway = start_gateway(broker, tmp_path)
        ear = Subscriber(broker, user="ear")
        try:
            line.start()
            line.await_state(RUNNING)
            camera.wait_connected(10_000)
            until(lambda: ear.last("state").get("state") == RUNNING, "a state")
            line.stream(camera, 20, 10)
            until(told(ear, max(line.settle(camera))), "20 results")
            until(lambda: "own accept back" in ear.last("state")["why"], "why")
            assert not any(body["accept"] for name, body, _ in ear.heard if name in ("accept", "result"))
            assert gateway.process.poll() is None
        finally:
            ear.close()
