"""`asperity gateway opcua` on a real inspector: what a client is told, and how soon it falls."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from asyncua import Client, Node, ua

from asperity.runtime.frame import Result, Verdict
from asperity.testing import PATIENCE_S, Camera, Line
from tests.runtime.gateways.floor import GatewayProcess

pytestmark = pytest.mark.usefixtures("forked_starts")

RUNNING = 8
TOML = "[gateway]\naccept_simulated = true\naccept_hold_ms = {hold_ms}\n[opcua]\ncertificate_folder = '{folder}'\n"
FALL_S = 5.0
"""Generous, for a crowded machine; the measured time is printed."""


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    # Many faults: where a crowded machine drops frames between them, three "nan" in a row come by chance.
    with Line("ok ok ng nan refuse shape", limits={"engine_faults_max": 1000}) as line:
        line.start()
        line.await_state(RUNNING)
        yield line


@pytest.fixture(scope="module")
def gateway(line: Line) -> GatewayProcess:
    toml = TOML.format(hold_ms=3_600_000, folder=line.folder / "certificate")
    return GatewayProcess(line, "opcua", toml, "--port", "0")


async def connect(gateway: GatewayProcess) -> Client:
    port = await asyncio.to_thread(gateway.port)
    return Client(f"opc.tcp://127.0.0.1:{port}", timeout=PATIENCE_S)


async def tags(client: Client, *names: str) -> list[ua.DataValue]:
    nodes = [ua.ReadValueId(ua.NodeId(f"Tags.{name}", 2), ua.AttributeIds.Value) for name in names]
    return await client.uaclient.read(ua.ReadParameters(NodesToRead=nodes))


async def ready(client: Client) -> bool:
    return bool((await tags(client, "Ready"))[0].Value.Value)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> float:
    """Seconds until it holds."""
    began_s = time.monotonic()
    while not await condition():
        assert time.monotonic() < began_s + PATIENCE_S, f"{what} did not come"
        await asyncio.sleep(0.005)
    return time.monotonic() - began_s


class Watcher:
    """Everything that a subscriber was told, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.pictures: list[dict[str, Any]] = []

    def event_notification(self, event: Any) -> None:
        self.events.append(event)

    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        pass


def lies(told: dict[int, bool], journal: dict[int, Result]) -> list[int]:
    """Results that were told accept = 1 and that the station did not judge ok."""
    return [number for number, accept in told.items() if accept and journal[number].verdict is not Verdict.OK]


def test_a_control_that_must_fail_the_watcher_finds_a_lie(line: Line) -> None:
    ng = Result(station="st1", session="", result_id=3)
    assert lies({3: True}, {3: ng}) == [3] and lies({3: False}, {3: ng}) == []


def test_events_come_in_order_none_twice_and_no_accept_without_an_ok(line: Line, gateway: GatewayProcess) -> None:
    count = 60

    async def play() -> None:
        async with await connect(gateway) as client:
            # The gateway's link must be there before the first frame, and a station without a camera is not ready.
            watcher = Watcher()
            subscription = await client.create_subscription(20, watcher)
            kinds = [client.get_node(ua.NodeId(name, 2)) for name in ("ResultReadyEventType", "GapEventType")]
            await subscription.subscribe_events(ua.ObjectIds.Server, kinds, queuesize=1000)
            await until(lambda: ready(client), "a ready station")
            seen: dict[int, bool] = {}
            torn: list[tuple[int, int]] = []
            streaming = asyncio.create_task(asyncio.to_thread(stream, line, camera, count, lambda: bool(seen)))

            def all_told() -> bool:
                return (
                    streaming.done() and bool(watcher.events) and watcher.events[-1].ResultId == max(streaming.result())
                )

            async def read_on() -> bool:
                accept, first, copy = await tags(client, "Accept", "ResultId", "ResultIdCopy")
                if first.Value.Value != copy.Value.Value:
                    torn.append((first.Value.Value, copy.Value.Value))
                if accept.Value.Value:
                    assert accept.StatusCode.is_good()
                    seen[first.Value.Value] = True
                return all_told()

            await until(read_on, "every event")
            journal = await streaming
            numbers = [event.ResultId for event in watcher.events]
            assert numbers == list(range(numbers[0], max(journal) + 1)) and len(numbers) >= count
            told = {event.ResultId: event.Accept for event in watcher.events}
            assert not torn and not lies(told, journal) and not lies(seen, journal)
            assert seen and any(told.values()) and not all(told.values())
            assert [event.Verdict for event in watcher.events] == [int(journal[n].verdict) for n in numbers]

    with Camera(line) as camera:
        asyncio.run(play())


def stream(line: Line, camera: Camera, count: int, enough: Callable[[], bool]) -> dict[int, Result]:
    """At least ``count`` frames, more until it is enough; the journal once all are answered."""
    line.stream(camera, count, 15)
    line.stream(camera, 2000, 15, until=enough)
    return line.settle(camera)


def test_sigterm_tells_subscribers_and_ends_within_two_seconds(line: Line) -> None:
    toml = TOML.format(hold_ms=3_600_000, folder=line.folder / "certificate")
    gateway = GatewayProcess(line, "opcua", toml, "--port", "0")
    told: list[ua.DataValue] = []

    class Handler:
        def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
            told.append(data.monitored_item.Value)

    async def play() -> None:
        client = await connect(gateway)
        await client.connect()
        subscription = await client.create_subscription(20, Handler())
        await subscription.subscribe_data_change(client.get_node(ua.NodeId("Tags.Accept", 2)))

        async def told_first() -> bool:
            # Read after it was told: then the client's request for the next notification is with the gateway.
            return bool(told) and bool(await tags(client, "Accept"))

        await until(told_first, "the first notification")
        began_s = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(gateway.process.wait, PATIENCE_S)
        print(f"SIGTERM: ended after {time.monotonic() - began_s:.2f} s")
        assert code == 0, gateway.log()

        async def told_so() -> bool:
            return bool(told) and told[-1].Value.Value is False and told[-1].StatusCode.name == "BadShutdown"

        await until(told_so, "the goodbye")
        with suppress(Exception):  # the server is gone
            await client.disconnect()

    asyncio.run(play())
