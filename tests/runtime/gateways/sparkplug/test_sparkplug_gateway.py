"""The Sparkplug gateway at a broker: every result once and in order, also through lost connections."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import GatewayConfig, GatewayStation, Mqtt, Sparkplug
from asperity.runtime.gateways.mqtt.broker_limits import BrokerLimits
from asperity.runtime.gateways.mqtt.messages import Message
from asperity.runtime.gateways.sparkplug import gateway as sparkplug
from asperity.runtime.gateways.sparkplug.gateway import UNSENT_MAX, SparkplugGateway, serve
from asperity.testing import PATIENCE_S, STATION, Camera, Line
from tests.runtime.gateways.floor import FakeLink, GatewayProcess, result, until
from tests.runtime.gateways.mqtt.mqtt_floor import Broker
from tests.runtime.gateways.sparkplug.sparkplug_decoder import command, decoded

NODE = f"spBv1.0/asperity/{{}}/{STATION}"


class Connection:
    """A broker in memory; what it is given goes out when the test says so."""

    def __init__(self, *args: Any, will_retained: bool = True, **kwargs: Any) -> None:
        self.will, self.topics, self.will_retained = args[2], args[4], will_retained
        self.up, self.ended, self.why, self.client_id = True, False, "", "c"
        self.taken_over = self.too_large = self.silent = False
        self.largest_nbytes = 0
        self.limits, self.denied = BrokerLimits(), [""][:0]
        self.acknowledged: deque[tuple[int, str]] = deque()
        self.watched: deque[Message] = deque()
        self.given: list[tuple[str, bytes]] = []
        self.written = 0

    def start(self) -> None: ...

    def disconnect(self) -> None:
        self.up, self.ended = False, True

    def fits(self, topic: str, payload: bytes) -> bool:
        limit = self.limits.packet_max_nbytes
        return limit is None or len(payload) <= limit

    def publish(self, topic: str, payload: bytes, qos: int) -> int:
        assert qos == 0
        self.given.append((topic, payload))
        return len(self.given)

    def write(self) -> None:
        """All that was given goes out to the network."""
        self.acknowledged.extend((number + 1, "") for number in range(self.written, len(self.given)))
        self.written = len(self.given)

    def ids(self) -> list[int]:
        """Results that went out."""
        found = [decoded(body)[1] for _, body in self.given[: self.written]]
        return [values["Result/Id"] for values in found if values.get("Result/Id")]

    def kinds(self) -> list[str]:
        return [topic.split("/")[2] for topic, _ in self.given]


class Floor:
    """A gateway, its link, and the connections it made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **own: Any) -> None:
        self.link, self.made = FakeLink(), [Connection(*[None] * 7)][:0]
        mqtt = Mqtt(retry_min_ms=10, retry_max_ms=100, **{"buffer_results": 1000, **own.pop("mqtt", {})})
        config = GatewayConfig(station=GatewayStation(name=STATION), mqtt=mqtt, sparkplug=Sparkplug(**own))

        def connect(*args: Any, **kwargs: Any) -> Connection:
            self.made.append(Connection(*args, **kwargs))
            return self.made[-1]

        monkeypatch.setattr(sparkplug, "Connection", connect)
        self.gateway = SparkplugGateway(config, self.link)  # type: ignore[arg-type]

        async def begin() -> None:
            await self.gateway.open()

        asyncio.run(begin())

    @property
    def connection(self) -> Connection:
        return self.made[-1]

    def turn(self, *, write: bool = True) -> None:
        self.gateway.refresh()
        if write:
            self.connection.write()

    def lose(self) -> None:
        """The connection ends, and the next one stands."""
        before = len(self.made)
        self.connection.disconnect()
        until(lambda: self.gateway.refresh() or len(self.made) > before, "another connection")  # type: ignore[func-returns-value]


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Floor:
    return Floor(monkeypatch)


def test_a_birth_comes_first_and_then_each_result_once(floor: Floor) -> None:
    floor.link.put(result(1), result(2), Gap(3, 4, "lost"), result(5))
    floor.turn()
    assert floor.connection.kinds()[0] == "NBIRTH" and set(floor.connection.kinds()[1:]) == {"NDATA"}
    assert floor.connection.ids() == [1, 2, 5]
    assert any(decoded(body)[1].get("Gap/LastId") == 4 for _, body in floor.connection.given[1:])
    topic, will = floor.connection.will
    assert topic == NODE.format("NDEATH") and not floor.connection.will_retained
    assert decoded(will)[1]["bdSeq"] == decoded(floor.connection.given[0][1])[1]["bdSeq"] == 0


def test_what_was_not_written_comes_again_after_a_loss_and_is_historical(floor: Floor) -> None:
    floor.turn()
    floor.link.put(*(result(number) for number in range(1, 5 * UNSENT_MAX)))
    floor.turn(write=False)
    assert len(floor.connection.given) <= 1 + UNSENT_MAX, "the rest waits here, where it is bounded"
    first = floor.connection
    floor.lose()
    for _ in range(20):
        floor.turn()
    assert first.ids() + floor.connection.ids() == list(range(1, 5 * UNSENT_MAX))
    second = [decoded(body) for topic, body in floor.connection.given]
    assert second[0][1]["bdSeq"] == 1 and [seq for seq, _, _ in second] == [n % 256 for n in range(len(second))]
    assert all("Result/Id" in historical for _, values, historical in second[1:] if values.get("Result/Id"))
    floor.link.put(result(5 * UNSENT_MAX))
    floor.turn()
    assert not decoded(floor.connection.given[-1][1])[2], "what comes now is not history"


def test_what_there_is_no_room_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    floor = Floor(monkeypatch, mqtt={"buffer_results": 2})
    floor.connection.up = False
    for number in range(1, 7):
        floor.link.put(result(number))
        floor.gateway.refresh()
    floor.connection.up = True
    floor.turn()
    gaps = [decoded(body)[1] for _, body in floor.connection.given[1:] if decoded(body)[1].get("Gap/FirstId")]
    assert [(gap["Gap/FirstId"], gap["Gap/LastId"]) for gap in gaps] == [(1, 4)]
    assert floor.connection.ids() == [5, 6]


def test_a_rebirth_is_given_once_and_no_other_command_taken(floor: Floor) -> None:
    floor.turn()
    rebirth, reboot = command(Node_Control__Rebirth=True), command(Node_Control__Reboot=True)
    for body in (rebirth, rebirth, reboot):
        floor.connection.watched.append(Message(NODE.format("NCMD"), body, False, False))
    floor.turn()
    floor.turn()
    assert floor.connection.kinds() == ["NBIRTH", "NBIRTH"]
    assert not floor.link.asked


def test_without_its_primary_host_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    floor = Floor(monkeypatch, primary_host="scada")
    floor.link.put(result(1))

    def say(online: str, at_ms: int) -> None:
        body = f'{{"online": {online}, "timestamp": {at_ms}}}'.encode()
        floor.connection.watched.append(Message("spBv1.0/STATE/scada", body, True, False))
        floor.turn()

    floor.turn()
    assert not floor.connection.given and "scada is not online" in floor.gateway.problem
    say("true", 1)
    assert floor.connection.ids() == [1]
    say("false", 2)
    assert floor.connection.kinds()[-1] == "NDEATH"
    floor.link.put(result(2))
    floor.turn()
    assert floor.connection.ids() == [1]
    say("true", 3)
    assert floor.connection.ids() == [1, 2] and floor.connection.kinds().count("NBIRTH") == 2


def test_what_the_broker_does_not_take_is_said(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    floor.connection.limits = BrokerLimits(packet_max_nbytes=100)
    floor.turn()
    assert not floor.connection.given and "the broker takes packets of 100" in caplog.text


@pytest.mark.parametrize("own", [{"group": ""}, {"group": "a/b"}, {"node": "a+"}, {"primary_host": "#"}])
def test_names_that_cannot_be_topics_are_refused(own: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"\[sparkplug\]"):
        serve(GatewayConfig(sparkplug=Sparkplug(**own)))


@pytest.mark.usefixtures("forked_starts")
def test_over_a_broker_each_result_of_a_line_comes_once_and_a_dead_station_is_not_good() -> None:
    with Line("ok ng") as line:
        line.start()
        line.await_state(8)
        broker = Broker(line, "amqtt")
        heard: list[tuple[str, bytes]] = []
        host = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        subscribed: list[int] = []
        host.on_connect = lambda client, *rest: client.subscribe("spBv1.0/#", qos=0)
        host.on_subscribe = lambda *rest: subscribed.append(1)
        host.on_message = lambda client, data, message: heard.append((message.topic, message.payload))
        host.connect("127.0.0.1", broker.port)
        host.loop_start()
        until(lambda: bool(subscribed), "the subscription")
        toml = f'[mqtt]\nversion = "{broker.version}"\nkeepalive_s = 60\n'
        gateway = GatewayProcess(line, "sparkplug", toml, "--port", str(broker.port))

        def said(name: str) -> list[Any]:
            found = [decoded(body)[1] for topic, body in list(heard) if "/NDEATH/" not in topic]
            return [values[name] for values in found if values.get(name) is not None]

        with Camera(line) as camera:
            camera.wait_connected(round(PATIENCE_S * 1000))
            until(lambda: said("Station/Good")[-1:] == [True], "a good station")
            line.stream(camera, 20, 10)
            journal = line.settle(camera)
        until(lambda: len(said("Result/Id")) == len(journal), "every result")
        assert said("Result/Id") == sorted(journal)
        assert said("Result/Verdict") == [int(journal[number].verdict) for number in sorted(journal)]
        line.kill()
        until(lambda: said("Station/Good")[-1] is False, "the end of good")
        host.publish(NODE.format("NCMD"), command(Node_Control__Rebirth=True), qos=0)
        until(lambda: [topic for topic, _ in list(heard)].count(NODE.format("NBIRTH")) == 2, "a rebirth")
        gateway.process.kill()
        until(lambda: heard[-1][0] == NODE.format("NDEATH"), "the last will")
        host.disconnect()
        host.loop_stop()
