"""A broker that is a list in memory, and a gateway connected to it whose clock the test moves."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation, Mqtt
from asperity.runtime.gateways.mqtt.broker_limits import BrokerLimits, publish_nbytes
from asperity.runtime.gateways.mqtt.gateway import MqttGateway
from asperity.runtime.gateways.mqtt.messages import Message, Refused
from asperity.runtime.gateways.mqtt.outbox import StateFile
from asperity.runtime.gateways.mqtt.topic_watch import Watch
from asperity.testing import STATION
from tests.runtime.gateways.floor import FakeLink

BASE = f"asperity/{STATION}"
OTHER = "fedcba9876543210"
Published = tuple[str, dict[str, Any], int, bool]
"""Topic without prefix, body, QoS, retained."""


class FakeConnection:
    """A broker that acknowledges and gives back at once; the surface of ``Connection``."""

    def __init__(self) -> None:
        self.up, self.ended, self.why = True, False, ""
        self.acknowledged: deque[tuple[int, str]] = deque()
        self.requests: deque[Message] = deque()
        self.watched: deque[Message] = deque()
        self.refused: deque[Refused] = deque()
        self.unseen = self.unanswered = self.largest_nbytes = 0
        self.denied: list[str] = []
        self.client_id, self.limits = "asperityst101234567", BrokerLimits()
        self.taken_over = self.too_large = self.silent = False
        self.refuses: tuple[str, ...] = ()
        """Topics, without prefix, that the broker does not let it publish on."""
        self.published: list[Published] = []
        self.kept: dict[str, bytes] = {}
        self.expiries: list[int | None] = []
        self.gives_back = self.acknowledges = True

    def start(self) -> None: ...

    def disconnect(self) -> None:
        self.up, self.ended = False, True

    def abandon(self, why: str) -> None:
        self.up, self.ended, self.why = False, True, self.why or why

    def fits(self, topic: str, payload: bytes) -> bool:
        limit = self.limits.packet_max_nbytes
        return limit is None or publish_nbytes(topic, payload, 1, True) <= limit

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False, expiry_s: int | None = None) -> int:
        name = topic.removeprefix(BASE + "/")
        self.published.append((name, msgspec.json.decode(payload), qos, retain))
        self.expiries.append(expiry_s)
        if retain:
            self.kept[name] = payload
        if qos and self.acknowledges:
            self.acknowledged.append((len(self.published), "not authorized" if name in self.refuses else ""))
        if self.gives_back and not name.startswith(("reply/", "event", "counters")):
            self.watched.append(Message(topic, payload, False, False))
        return len(self.published)

    def foreign(self, name: str, fields: dict[str, Any], retain: bool = True) -> None:
        """Another client publishes."""
        body = msgspec.json.encode(fields)
        if retain:
            self.kept[name] = body
        self.watched.append(Message(f"{BASE}/{name}", body, False, False))


class Floor:
    """A gateway, a link and a broker, with a clock that the test moves."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        instance: str,
        on_connect: Callable[[FakeConnection], None] = lambda connection: None,
        own: Mqtt | None = None,
    ) -> None:
        self.on_connect = on_connect
        self.now_s = time.monotonic()
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr("asperity.runtime.gateways.mqtt.gateway.time", clock)
        self.link = FakeLink()
        self.connections: list[FakeConnection] = []
        config = GatewayConfig(station=GatewayStation(name=STATION), gateway=Gateway(), mqtt=own or Mqtt())
        self.watch = Watch(instance, config.mqtt.clash_quiet_ms / 1000)
        self.gateway = MqttGateway(config, self.link, StateFile(folder / "state", STATION), self.watch, self._connect)  # type: ignore[arg-type]
        asyncio.run(self.gateway.open())
        self.gateway.refresh()

    def _connect(self, wake: Callable[[], None]) -> FakeConnection:
        self.connections.append(FakeConnection())
        self.on_connect(self.connections[-1])
        return self.connections[-1]

    @property
    def broker(self) -> FakeConnection:
        return self.connections[-1]

    def pass_s(self, seconds: float) -> None:
        """Time goes by in turns of 0.1 s."""
        for _ in range(round(seconds * 10)):
            self.now_s += 0.1
            self.gateway.refresh()

    def said(self, turn: Callable[[], object] | None = None) -> list[Published]:
        """What is published in a turn, state and online left out."""
        began = len(self.broker.published)
        if turn is not None:
            turn()
        self.gateway.refresh()
        return [each for each in self.broker.published[began:] if each[0] not in ("state", "online")]

    def last(self, name: str) -> Published:
        return next(each for each in reversed(self.broker.published) if each[0] == name)

    def close(self) -> None:
        asyncio.run(self.gateway.close())


def accepts(said: list[Published]) -> list[bool]:
    return [body["accept"] for name, body, _, _ in said if name == "accept"]
