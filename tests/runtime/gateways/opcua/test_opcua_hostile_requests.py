"""The OPC UA gateway under requests that mean harm: each costs its sender, and nobody waits for another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.ua.uaerrors import (
    BadMonitoredItemFilterInvalid,
    BadServiceUnsupported,
    BadSubscriptionIdInvalid,
    BadTooManyOperations,
    BadUserAccessDenied,
)

from asperity.runtime.gateways.opcua.connection import metered
from asperity.runtime.gateways.opcua.session import _plain_where
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import result
from tests.runtime.gateways.opcua.opcua_floor import Served, Told, connected, connections, node, read, refused, soon

Request = Callable[[Client], Awaitable[Any]]
ACCEPT = ua.NodeId("Tags.Accept", 2)


def _reads(count: int) -> Request:
    nodes = [ua.ReadValueId(ACCEPT, ua.AttributeIds.Value) for _ in range(count)]
    return lambda client: client.uaclient.read(ua.ReadParameters(NodesToRead=nodes))


def _browses(count: int, what: int) -> Request:
    nodes = [ua.BrowseDescription(ua.NodeId(what), ua.BrowseDirection.Both, ua.NodeId(), True, 0, 63)] * count
    return lambda client: client.uaclient.browse(ua.BrowseParameters(NodesToBrowse=nodes))


def _call(*arguments: ua.Variant, count: int = 1) -> Request:
    methods = [ua.CallMethodRequest(ua.NodeId("Tags", 2), ua.NodeId("Mode.Halt", 2), list(arguments))] * count
    return lambda client: client.uaclient.call(methods)


async def _items(client: Client) -> Any:
    subscription = await client.create_subscription(1000, Told())
    return await subscription.subscribe_data_change([client.get_node(ACCEPT)] * 600)


def _writes(count: int) -> Request:
    values = [ua.WriteValue(ACCEPT, ua.AttributeIds.Value, "", ua.DataValue(ua.Variant(True)))] * count
    return lambda client: client.uaclient.write(ua.WriteParameters(NodesToWrite=values))


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(_reads(501), id="a read of 501"),
        pytest.param(_reads(30_000), id="a read of 30 000"),
        pytest.param(_browses(501, 85), id="a browse of 501"),
        pytest.param(_browses(500, 22), id="a browse of what has most references"),
        pytest.param(_call(count=501), id="501 calls"),
        pytest.param(_call(ua.Variant([7], ua.VariantType.Int32, Dimensions=[1] * 15_000)), id="15 000 dimensions"),
        pytest.param(_call(ua.Variant([7], ua.VariantType.Int32, Dimensions=[1] * 200_000)), id="200 000 dimensions"),
        pytest.param(_call(ua.Variant([7], ua.VariantType.Int32, Dimensions=[1000, 1000])), id="a matrix to fill up"),
        pytest.param(_items, id="600 monitored items"),
        pytest.param(_writes(1), id="a write"),
        pytest.param(_writes(5000), id="5000 writes"),
        pytest.param(lambda client: client.nodes.objects.add_variable(2, "Mine", 1), id="a node"),
    ],
)
def test_a_request_that_asks_too_much_costs_its_sender_and_nobody_else(
    crowded: Served, watched: list[str], request_: Request
) -> None:
    async def play() -> None:
        async with connected(crowded.url) as other:
            before = refused(crowded)
            hostile = Client(crowded.url, timeout=PATIENCE_S)
            await hostile.connect()
            asking = asyncio.ensure_future(request_(hostile))
            while not asking.done():
                assert (await read(other, "Ready"))[0].Value.Value is True
            with pytest.raises(Exception):  # noqa: B017 - refused, or closed, in the library's many words
                await asking
            assert (await read(other, "Ready"))[0].Value.Value is True
            assert refused(crowded) > before
            with suppress(Exception):  # it may be closed already
                await hostile.disconnect()

    asyncio.run(play())
    assert not watched


def test_what_is_allowed_is_answered_in_full(crowded: Served) -> None:
    async def play() -> None:
        async with connected(crowded.url) as client:
            assert len(await _reads(500)(client)) == 500
            limits = client.get_node(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead)
            assert await limits.read_value() == 500
            nodes = [client.get_node(ACCEPT).nodeid]
            assert await client.uaclient.register_nodes(nodes) == nodes
            assert len((await _browses(1, 22)(client))[0].References) > 200
            with pytest.raises(BadTooManyOperations):
                await _reads(501)(client)
            with pytest.raises(BadUserAccessDenied):
                await _writes(1)(client)
            with pytest.raises(BadServiceUnsupported):
                await client.uaclient.history_read(ua.HistoryReadParameters())

    asyncio.run(play())


def test_nobody_reaches_a_subscription_or_session_of_another(make: Callable[..., Served]) -> None:
    served = make()

    async def play() -> None:
        async with connected(served.url) as plc, connected(served.url) as hostile:
            told = Told()
            subscription = await plc.create_subscription(20, told)
            accept = plc.get_node(ACCEPT)
            told.names[accept.nodeid] = "Accept"
            item = await subscription.subscribe_data_change(accept)
            number = subscription.subscription_id
            request = hostile.uaclient
            mine = ua.SetPublishingModeParameters(PublishingEnabled=False, SubscriptionIds=[number])
            mode = ua.SetMonitoringModeParameters(number, ua.MonitoringMode.Disabled, [item])
            for attempt in (
                lambda: request.delete_subscriptions([number]),
                lambda: request.set_publishing_mode(mine),
                lambda: request.set_monitoring_mode(mode),
                lambda: request.delete_monitored_items(ua.DeleteMonitoredItemsParameters(number, [item])),
                lambda: request.modify_monitored_items(ua.ModifyMonitoredItemsParameters(number)),
                lambda: request.create_monitored_items(ua.CreateMonitoredItemsParameters(number)),
            ):
                with pytest.raises(BadSubscriptionIdInvalid):
                    await attempt()
            with pytest.raises(BadServiceUnsupported):
                await request.transfer_subscriptions(ua.TransferSubscriptionsParameters(SubscriptionIds=[number]))
            tokens = list(served.gateway._server.iserver._external_sessions)
            assert len(set(tokens)) == len(tokens) == 2
            assert all(isinstance(token.Identifier, bytes) and len(token.Identifier) == 32 for token in tokens)
            served.link.put(result(51))
            served.refresh()
            await soon(lambda: ("Accept", True, True) in told.changes)

    asyncio.run(play())


def test_a_filter_that_fails_or_costs_too_much_keeps_no_event_from_the_others(crowded: Served) -> None:
    def where(*operands: list[Any]) -> ua.ContentFilter:
        elements = [ua.ContentFilterElement(ua.FilterOperator.And, each) for each in operands]
        return ua.ContentFilter(Elements=elements)

    def operand(index: int) -> ua.ElementOperand:
        return ua.ElementOperand(Index=index)

    yes = ua.LiteralOperand(Value=ua.Variant(True))
    assert _plain_where(where([operand(1), operand(2)], [yes, yes], [yes, yes]).Elements)
    for bad in (
        where([operand(0), yes]),
        where([operand(1), operand(1)], [yes, yes]),
        where([operand(9), yes]),
        where(*[[yes]] * 9),
        where([yes] * 65),
    ):
        assert not _plain_where(bad.Elements)

    async def play() -> None:
        async with connected(crowded.url) as hostile, connected(crowded.url) as plc:
            system = (await node(plc, "3:VisionSystem")).nodeid
            theirs, told = await hostile.create_subscription(20, Told()), Told()

            async def subscribe(select: str, where: ua.ContentFilter) -> None:
                clause = ua.SimpleAttributeOperand(AttributeId=ua.AttributeIds.Value)
                clause.BrowsePath = [ua.QualifiedName(select, 0)]
                wanted = ua.EventFilter(SelectClauses=[clause], WhereClause=where)
                await theirs._subscribe(hostile.get_node(system), ua.AttributeIds.EventNotifier, wanted)

            await subscribe("data_types", ua.ContentFilter())  # fails whenever there is an event
            with pytest.raises(BadMonitoredItemFilterInvalid):
                await subscribe("Message", where([operand(1), operand(1)], [yes, yes]))
            subscription = await plc.create_subscription(20, told)
            index = await plc.get_namespace_index("urn:asperity:vision")
            await subscription.subscribe_events(system, [plc.get_node(ua.NodeId("ResultReadyEventType", index))])
            crowded.link.put(result(61))
            crowded.refresh()
            await soon(lambda: [event.ResultId for event in told.events] == [61])

    asyncio.run(play())


def test_the_loop_turns_between_the_requests_of_clients_that_send_many(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    from asperity.runtime.gateways.opcua.session import Session

    served = make()
    turns, seen, plain = 0, [], Session.read

    async def counting(self: Session, params: ua.ReadParameters) -> Any:
        seen.append(turns)
        return await plain(self, params)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Session, "read", counting)
    turning = served.loop.call(lambda: asyncio.ensure_future(turn()))

    async def play() -> None:
        async with connected(served.url) as one, connected(served.url) as two, connected(served.url) as three:
            seen.clear()
            await asyncio.gather(*(read(client, "Ready") for client in (one, two, three) for _ in range(40)))

    try:
        asyncio.run(play())
    finally:
        served.loop.call(turning.cancel)
    assert len(set(seen)) == len(seen) >= 100, "no two requests in one turn"


def test_who_took_more_than_its_share_waits_and_nobody_else(make: Callable[..., Served]) -> None:
    served = make()

    async def play() -> None:
        async with connected(served.url) as other:
            [theirs] = connections(served)
            greedy = Client(served.url, timeout=PATIENCE_S)
            await greedy.connect()
            [hostile] = [each for each in connections(served) if each is not theirs]
            served.loop.call(lambda: hostile._spend(3600))
            waiting = asyncio.ensure_future(read(greedy, "Ready"))
            for _ in range(100):
                assert (await read(other, "Ready"))[0].Value.Value is True
            assert not waiting.done()
            served.loop.call(lambda: hostile.end("the test is over"))
            await asyncio.gather(waiting, return_exceptions=True)
            greedy.disconnect_socket()

    asyncio.run(play())


def test_only_the_time_of_the_loop_that_a_request_takes_itself_is_counted() -> None:
    spent: list[float] = []

    def burn(s: float) -> None:
        ends_s = time.thread_time() + s
        while time.thread_time() < ends_s:
            pass

    async def request() -> str:
        burn(0.05)
        await asyncio.sleep(0.01)
        burn(0.05)
        return "done"

    async def play() -> None:
        mine = asyncio.ensure_future(metered(request(), spent.append))
        await asyncio.sleep(0)
        burn(1.0)
        assert await mine == "done"
        hanging = asyncio.ensure_future(metered(asyncio.sleep(3600), spent.append))
        await asyncio.sleep(0)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    asyncio.run(play())
    assert 0.1 <= sum(spent) < 0.9
