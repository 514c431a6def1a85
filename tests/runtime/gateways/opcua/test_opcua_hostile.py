"""The OPC UA gateway under clients that mean harm: each costs its own connection, and nobody sees a stale Accept."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asyncua import Client, ua
from asyncua.ua.uaerrors import (
    BadMonitoredItemFilterInvalid,
    BadServiceUnsupported,
    BadSubscriptionIdInvalid,
    BadTooManyOperations,
    BadTooManySessions,
    BadTooManySubscriptions,
    BadUserAccessDenied,
    UaStatusCodeError,
)

from asperity.runtime.gateways.opcua import users
from asperity.runtime.gateways.opcua.connection import Connection, metered
from asperity.runtime.gateways.opcua.session import _plain_where
from asperity.runtime.gateways.watch_loop import TurnWatch
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import Loop, looping, result, until
from tests.runtime.gateways.opcua.opcua_floor import Served, Told, connected, node, read, soon

PASSWORD = "correct horse"
NAMES = ("plc", "hmi", "scada")


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opcua")


@pytest.fixture(scope="module")
def watched(loop: Loop) -> Iterator[list[str]]:
    """What the watch of a real gateway would have ended the process for."""
    said: list[str] = []
    watch = TurnWatch(lambda: 600, said.append)
    turning = loop.call(lambda: asyncio.ensure_future(watch.keep_turning()))
    watch.start()
    yield said
    watch.close()
    loop.call(turning.cancel)


@pytest.fixture
def make(loop: Loop, folder: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(**own: Any) -> Served:
        made.append(Served(loop, folder, **own))
        return made[-1]

    yield make
    for served in made:
        served.close()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Users whose passwords are cheap to check, so that 200 of them take seconds on a small machine."""
    monkeypatch.setattr(users, "SCRYPT", (2**10, 8, 1))
    for name in NAMES:
        users.put_user(tmp_path / "users", users.new_user(name, "operate", PASSWORD))
    return tmp_path / "users"


def connections(served: Served) -> list[Connection]:
    server = served.gateway._server.bserver
    assert server is not None
    return served.loop.call(lambda: list(server.clients))  # type: ignore[arg-type]


def refused(served: Served) -> int:
    return served.gateway._server.iserver.refused


@contextmanager
def silent(served: Served, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    port = int(served.url.rpartition(":")[2])
    plain = [socket.create_connection(("127.0.0.1", port), PATIENCE_S, (source, 0)) for _ in range(count)]
    try:
        yield plain
    finally:
        for each in plain:
            each.close()


def closed(plain: socket.socket) -> bool:
    """Waits for the other side's end."""
    try:
        while plain.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def as_user(served: Served, name: str, password: str = PASSWORD) -> Client:
    client = Client(served.url, timeout=4 * PATIENCE_S)
    client.set_user(name)
    client.set_password(password)
    return client


async def outcome(client: Client) -> str:
    """Of a log-in: ``in``, or why not."""
    try:
        async with client:
            return "in"
    except UaStatusCodeError as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 - the library has many words for a connection that was closed
        return f"closed: {error!r}"


def test_two_hundred_log_ins_leave_accept_fresh_and_lock_nobody_else_out(
    make: Callable[..., Served], file: Path, watched: list[str]
) -> None:
    # The crowd is in this process and slow itself: what has to do with time is asked in test_log_ins.
    patient = {"handshake_ms": 600_000, "login_wait_ms": 600_000, "session_idle_ms": 600_000}
    served = make(users_file=str(file), sessions_max=300, login_delay_ms=10, login_delay_max_ms=50, **patient)

    async def play() -> None:
        async with as_user(served, "scada") as client:
            served.link.put(result(21))

            async def accept() -> bool:
                return bool((await read(client, "Accept"))[0].Value.Value)

            async def accepted() -> None:
                """With a beat that moves; a slow machine may be late for one."""
                while True:
                    served.link.state = msgspec.structs.replace(served.link.state, beat=served.link.state.beat + 1)
                    served.refresh()
                    if await accept():
                        return

            await accepted()
            wrong = [outcome(as_user(served, "plc", "wrong horse")) for _ in range(60)]
            invented = [outcome(as_user(served, f"nobody{number}", PASSWORD)) for number in range(80)]
            right = [outcome(as_user(served, "plc" if number % 2 else "hmi")) for number in range(60)]
            crowd = asyncio.gather(*wrong, *invented, *right)
            other, began_s = 0, time.monotonic()
            while not crowd.done():
                served.link.expired.add(21)
                assert not await accept(), "stale"
                served.link.expired.clear()
                await asyncio.wait_for(accepted(), PATIENCE_S)
                assert await outcome(as_user(served, "scada")) == "in", "locked out by the crowd"
                other += 1
            print(f"{other} log-ins of another user meanwhile, {time.monotonic() - began_s:.1f} s")
            outcomes = await crowd
            assert outcomes == ["BadUserAccessDenied"] * 140 + ["in"] * 60
            assert (await read(client, "Refused"))[0].Value.Value >= 140

    asyncio.run(play())
    assert not watched, "the gateway would have ended"


def test_a_failed_log_in_is_logged_with_its_address_and_its_name_escaped(
    make: Callable[..., Served], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = make(users_file=str(file))
    assert asyncio.run(outcome(as_user(served, "a\nb\x1b[2J" + "x" * 500))) == "BadUserAccessDenied"
    line = next(record.getMessage() for record in caplog.records if "log-in" in record.getMessage())
    assert "'a\\nb\\x1b[2J" in line and "127.0.0.1:" in line and len(line) < 200 and "\n" not in line
    assert PASSWORD not in caplog.text


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


@pytest.fixture(scope="module")
def crowded(loop: Loop, folder: Path) -> Iterator[Served]:
    """One gateway for the tests that leave nothing behind."""
    served = Served(loop, folder, handshake_ms=600_000)
    yield served
    served.close()


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


def test_nobody_reaches_a_subscription_or_session_of_another(crowded: Served) -> None:
    async def play() -> None:
        async with connected(crowded.url) as plc, connected(crowded.url) as hostile:
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
            tokens = list(crowded.gateway._server.iserver._external_sessions)
            assert len(set(tokens)) == len(tokens) == 2
            assert all(isinstance(token.Identifier, bytes) and len(token.Identifier) == 32 for token in tokens)
            crowded.link.put(result(51))
            crowded.refresh()
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


def test_silent_connections_make_room_and_end_in_a_named_time(make: Callable[..., Served]) -> None:
    served = make(connections_max=8, handshake_ms=600_000)
    with silent(served, 30) as plain:
        assert asyncio.run(outcome(Client(served.url, timeout=PATIENCE_S))) == "in"
        assert closed(plain[0])
        assert len(connections(served)) <= 8
    soon_over = make(handshake_ms=300)
    with silent(soon_over, 3) as plain:
        plain[1].sendall(b"HEL")
        assert all(closed(each) for each in plain)


def test_who_is_logged_in_stays_however_many_come(make: Callable[..., Served]) -> None:
    served = make(connections_max=2, handshake_ms=600_000)

    async def play() -> None:
        async with connected(served.url) as client:
            with silent(served, 20) as plain:
                assert closed(plain[0])
                assert (await read(client, "Ready"))[0].Value.Value is True
            async with connected(served.url):
                with silent(served, 1) as (third,):
                    assert closed(third), "there is no room, and both are logged in"
                assert (await read(client, "Ready"))[0].Value.Value is True

    asyncio.run(play())


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\xff" * 100, id="noise"),
        pytest.param(b"HELF" + struct.pack("<I", 2**31) + bytes(300_000), id="a chunk of 2 GiB"),
        pytest.param(b"OPNF" + struct.pack("<II", 60_000, 0) + bytes(59_988), id="a long request to open"),
        pytest.param(
            b"HELF" + struct.pack("<IIIIIIi", 32, 0, 1, 1, 0, 0, -1), id="a client that takes its answer byte by byte"
        ),
        pytest.param(b"ACKF" + struct.pack("<IIIIII", 28, 0, 2**31, 2**31, 0, 0), id="a client that sets the limits"),
        pytest.param(b"MSGF" + struct.pack("<III", 16, 0, 0), id="a message without a channel"),
    ],
)
def test_what_is_no_opc_ua_is_closed_at_once(crowded: Served, sent: bytes) -> None:
    before = refused(crowded)
    with silent(crowded, 1) as (plain,):
        with suppress(ConnectionError):
            plain.sendall(sent)
        assert closed(plain)
    until(lambda: refused(crowded) > before, "the count")


def test_sessions_and_subscriptions_are_bounded_and_a_lost_connection_holds_no_place(
    make: Callable[..., Served],
) -> None:
    served = make(sessions_max=1, subscriptions_each=2)

    async def play() -> None:
        async with connected(served.url) as first:
            subscription = await first.create_subscription(100, Told())
            await first.create_subscription(100, Told())
            with pytest.raises(BadTooManySubscriptions):
                await first.create_subscription(100, Told())
            with pytest.raises(BadTooManySessions):
                await Client(served.url, timeout=PATIENCE_S).connect()
            await subscription.delete()
            with pytest.raises(BadTooManySessions):
                await first.create_session()
        # A client whose cable was pulled: the library keeps its session, with its subscriptions.
        lost = Client(served.url, timeout=PATIENCE_S)
        await lost.connect()
        await lost.create_subscription(100, Told())
        assert lost.uaclient.protocol is not None
        lost.uaclient.protocol.transport.abort()
        await asyncio.to_thread(until, lambda: not any(c.logged_in for c in connections(served)), "the loss")
        assert await outcome(Client(served.url, timeout=PATIENCE_S)) == "in"
        lost.disconnect_socket()

    asyncio.run(play())


def test_who_does_not_read_its_answers_is_closed(make: Callable[..., Served]) -> None:
    served = make(unread_max_nbytes=65_536)

    async def play() -> None:
        client = Client(served.url, timeout=PATIENCE_S)
        await client.connect()
        assert client.uaclient.protocol is not None
        client.uaclient.protocol.transport.pause_reading()
        large = [ua.ReadValueId(ua.NodeId(24239), ua.AttributeIds.Value) for _ in range(500)]
        asking = [asyncio.ensure_future(client.uaclient.read(ua.ReadParameters(NodesToRead=large))) for _ in range(100)]
        await asyncio.to_thread(until, lambda: not connections(served), "its end")
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        client.disconnect_socket()

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
