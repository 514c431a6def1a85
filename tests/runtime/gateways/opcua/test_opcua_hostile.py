"""The OPC UA gateway under clients that mean harm: each costs its own connection, and nobody sees a stale Accept."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from asyncua import Client, ua
from asyncua.ua.uaerrors import BadTooManySessions, BadTooManySubscriptions, UaStatusCodeError

from asperity.runtime.gateways.config import Users
from asperity.runtime.gateways.log_ins import users
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import result, until
from tests.runtime.gateways.opcua.opcua_floor import Served, Told, connected, connections, read, refused

PASSWORD = "correct horse"
NAMES = ("plc", "hmi", "scada")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Users whose passwords are cheap to check, so that 200 of them take seconds on a small machine."""
    monkeypatch.setattr(users, "SCRYPT", (2**10, 8, 1))
    for name in NAMES:
        users.put_user(tmp_path / "users", users.new_user(name, "operate", PASSWORD))
    return tmp_path / "users"


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
    patient = {"handshake_ms": 600_000, "session_idle_ms": 600_000}
    accounts = Users(file=str(file), wait_ms=600_000, delay_ms=10, delay_max_ms=50)
    served = make(accounts=accounts, sessions_max=300, **patient)

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
    served = make(accounts=Users(file=str(file)))
    assert asyncio.run(outcome(as_user(served, "a\nb\x1b[2J" + "x" * 500))) == "BadUserAccessDenied"
    line = next(record.getMessage() for record in caplog.records if "log-in" in record.getMessage())
    assert "'a\\nb\\x1b[2J" in line and "127.0.0.1:" in line and len(line) < 200 and "\n" not in line
    assert PASSWORD not in caplog.text


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
