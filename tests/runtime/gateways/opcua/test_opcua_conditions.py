"""The station's alarms as conditions: their states, who may acknowledge them, and what a refresh brings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.ua.uaerrors import (
    BadConditionBranchAlreadyAcked,
    BadEventIdUnknown,
    BadInvalidArgument,
    BadMonitoredItemIdInvalid,
    BadNodeIdUnknown,
    BadSubscriptionIdInvalid,
    BadUserAccessDenied,
)
from msgspec.structs import replace

from asperity.runtime.gateways.config import Users
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.gateways.opcua.companion.conditions import COMMENT_MAX, CONDITIONS_MAX, EVENTS_KEPT, LINK
from asperity.runtime.states import ALARMS
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import FakeLink, Loop, looping
from tests.runtime.gateways.opcua.opcua_floor import Served, Told, connected, soon

PASSWORD = "correct horse battery"
CONDITION = ua.NodeId(ua.ObjectIds.ConditionType)
ACKNOWLEDGE = ua.NodeId(ua.ObjectIds.AcknowledgeableConditionType_Acknowledge)
COMMENT = ua.NodeId(ua.ObjectIds.ConditionType_AddComment)
REFRESH = ua.NodeId(ua.ObjectIds.ConditionType_ConditionRefresh)
REFRESH_ITEM = ua.NodeId(ua.ObjectIds.ConditionType_ConditionRefresh2)
REFRESHING = (ua.NodeId(ua.ObjectIds.RefreshStartEventType), ua.NodeId(ua.ObjectIds.RefreshEndEventType))


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opcua")


@pytest.fixture(scope="module")
def house(loop: Loop, folder: Path) -> Iterator[Served]:
    file = folder / "users"
    users.put_user(file, users.new_user("plc", "operate", PASSWORD))
    served = Served(loop, folder, accounts=Users(file=str(file)), audit_file=str(folder / "audit.jsonl"))
    yield served
    served.close()


@pytest.fixture
def served(house: Served) -> Served:
    FakeLink.__init__(house.link)
    house.loop.call(house.gateway._server.iserver.others._all.clear)  # type: ignore[union-attr]
    house.refresh()
    return house


def operator(served: Served) -> Client:
    client = Client(served.url, timeout=PATIENCE_S)
    client.set_user("plc")
    client.set_password(PASSWORD)
    return client


async def alarm(served: Served, *kinds: str, state: int = 8) -> None:
    assert served.link.state is not None
    served.link.state = replace(served.link.state, alarms=kinds, state=state)
    await asyncio.to_thread(served.refresh)


async def listen(client: Client, *more: ua.NodeId) -> tuple[Told, Any]:
    """To the server object, as displays of alarms do."""
    told = Told()
    subscription = await client.create_subscription(20, told)
    kinds = [ua.NodeId("WarningType", 2), ua.NodeId("PersistentErrorType", 2), *more]
    await subscription.subscribe_events(client.nodes.server, [client.get_node(kind) for kind in kinds])
    return told, subscription


async def call(client: Client, condition: ua.NodeId, method: ua.NodeId, *arguments: Any) -> Any:
    return await client.get_node(condition).call_method(method, *arguments)


async def acknowledge(client: Client, event: Any, comment: str = "seen", method: ua.NodeId = ACKNOWLEDGE) -> Any:
    return await call(client, event.NodeId, method, event.EventId, ua.LocalizedText(comment))


def states(event: Any) -> tuple[bool, bool, bool]:
    return getattr(event, "ActiveState/Id", None), getattr(event, "AckedState/Id"), event.Retain  # type: ignore[return-value]


def test_an_alarm_is_active_until_it_is_gone_and_retained_until_it_is_acknowledged(
    served: Served, folder: Path
) -> None:
    async def play() -> None:
        async with operator(served) as client:
            told, _ = await listen(client)
            await alarm(served, "DRIFT")
            await soon(lambda: told.events)
            first = told.events[0]
            assert states(first) == (True, False, True)
            assert (first.ConditionName, first.Message.Text, first.Severity) == ("DRIFT", ALARMS["DRIFT"], 500)
            assert first.NodeId == ua.NodeId("Alarms.DRIFT", 2) and not first.StopReaction
            await alarm(served)
            await soon(lambda: len(told.events) == 2)
            assert states(told.events[1]) == (False, False, True)
            with pytest.raises(BadInvalidArgument):
                await acknowledge(client, told.events[1], "x" * (COMMENT_MAX + 1))
            await acknowledge(client, first, "lamp cleaned")
            await soon(lambda: len(told.events) == 3)
            gone = told.events[2]
            assert states(gone) == (False, True, False)
            assert (gone.Comment.Text, gone.ClientUserId) == ("lamp cleaned", "plc")
            with pytest.raises(BadConditionBranchAlreadyAcked):
                await acknowledge(client, gone)
            await acknowledge(client, gone, "again lamp 3", method=COMMENT)
            await soon(lambda: len(told.events) == 4)
            await alarm(served, "DRIFT")
            await soon(lambda: len(told.events) == 5)
            assert states(told.events[4]) == (True, False, True)
            for old in told.events[:4]:
                with pytest.raises(BadEventIdUnknown):
                    await acknowledge(client, old)
            assert states(told.events[4]) == (True, False, True), "an old event acknowledges nothing that came since"

    asyncio.run(play())

    def entries() -> list[tuple[str, ...]]:
        lines = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
        return [
            (each["op"], each["code"], each["actor"]["name"], each["fields"]["alarm"], each["text"])
            for each in lines
            if each["op"] != "log_in"
        ]

    wanted = ("acknowledge", "Good", "plc", "DRIFT", "lamp cleaned")
    asyncio.run(soon(lambda: wanted in entries() and ("comment", "Good", "plc", "DRIFT", "again lamp 3") in entries()))


def test_who_may_not_operate_acknowledges_nothing(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            told, _ = await listen(client)
            await alarm(served, "CAMERA")
            await soon(lambda: told.events)
            with pytest.raises(BadUserAccessDenied):
                await acknowledge(client, told.events[0])
            with pytest.raises(BadNodeIdUnknown):
                await call(client, ua.NodeId("Alarms.NONE", 2), ACKNOWLEDGE, b"x", ua.LocalizedText(""))
            with pytest.raises(BadInvalidArgument):
                await call(client, told.events[0].NodeId, ACKNOWLEDGE, b"x", "no text")
            assert len(told.events) == 1

    asyncio.run(play())


def test_a_refresh_brings_what_is_retained_to_the_subscription_that_asked_and_to_no_other(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client, connected(served.url) as other:
            await alarm(served, "DRIFT", "CAMERA")
            await alarm(served, "DRIFT")
            told, subscription = await listen(client, *REFRESHING)
            unasked, foreign = await listen(other)
            number = ua.Variant(subscription.subscription_id, ua.VariantType.UInt32)
            await call(client, CONDITION, REFRESH, number)
            await soon(lambda: len(told.events) >= 4)
            assert (told.events[0].EventType, told.events[-1].EventType) == REFRESHING
            found = {event.ConditionName: states(event) for event in told.events[1:-1]}
            assert found == {"DRIFT": (True, False, True), "CAMERA": (False, False, True)}
            items = served.gateway._server.iserver.subscription_service.subscriptions
            kept = items[subscription.subscription_id].monitored_item_srv._monitored_items
            item = ua.Variant(next(iter(kept)), ua.VariantType.UInt32)
            await call(client, CONDITION, REFRESH_ITEM, number, item)
            await soon(lambda: len(told.events) == 8)
            with pytest.raises(BadMonitoredItemIdInvalid):
                await call(client, CONDITION, REFRESH_ITEM, number, ua.Variant(99_999, ua.VariantType.UInt32))
            nobodys = ua.Variant(foreign.subscription_id, ua.VariantType.UInt32)
            with pytest.raises(BadSubscriptionIdInvalid):
                await call(client, CONDITION, REFRESH, nobodys)
            assert not unasked.events

    asyncio.run(play())


def test_a_silent_station_is_an_alarm_and_its_own_alarms_stay(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            told, _ = await listen(client)
            await alarm(served, "JOURNAL", state=3)
            await soon(lambda: told.events)
            assert told.events[0].StopReaction and told.events[0].Severity == 900
            before, served.link.state = served.link.state, None
            await asyncio.to_thread(served.refresh)
            await soon(lambda: len(told.events) == 2)
            assert (told.events[1].ConditionName, states(told.events[1])) == (LINK, (True, False, True))
            served.link.state = replace(before, alarms=())  # type: ignore[type-var]
            await asyncio.to_thread(served.refresh)
            await soon(lambda: len(told.events) == 4)
            assert [(e.ConditionName, states(e)[0]) for e in told.events[2:]] == [(LINK, False), ("JOURNAL", False)]

    asyncio.run(play())


def test_that_a_gateway_has_just_begun_is_nobodys_to_acknowledge(served: Served) -> None:
    conditions: Any = served.gateway._server.iserver.others
    state, served.link.state, conditions._heard = served.link.state, None, False

    async def play() -> None:
        await asyncio.to_thread(served.refresh)
        await soon(lambda: LINK in conditions._all and conditions._all[LINK].active)
        assert conditions._all[LINK].retain
        served.link.state = state
        await asyncio.to_thread(served.refresh)
        await soon(lambda: not conditions._all[LINK].active)
        assert not conditions._all[LINK].retain

    asyncio.run(play())


def test_what_is_remembered_of_alarms_is_bounded(served: Served) -> None:
    async def play() -> None:
        for number in range(3 * CONDITIONS_MAX):
            await alarm(served, f"OF_A_LATER_VERSION_{number}")
        conditions: Any = served.gateway._server.iserver.others
        await soon(lambda: f"OF_A_LATER_VERSION_{3 * CONDITIONS_MAX - 1}" in conditions._all)
        assert len(conditions._all) <= CONDITIONS_MAX
        assert all(len(each.event_ids) <= EVENTS_KEPT for each in conditions._all.values())

    asyncio.run(play())
