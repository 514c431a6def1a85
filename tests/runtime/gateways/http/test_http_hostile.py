"""The HTTP gateway under clients that mean harm: each costs its own connection only."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.http.gateway import HttpGateway
from asperity.runtime.gateways.http.requests import RequestRefused, read_request
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import FakeLink, open_files, result, until
from tests.runtime.gateways.http.http_floor import EVIL, Floor, everything


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x00\xff\xfe\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000, b"431"),
    ],
)
def test_malformed_and_oversized_requests_are_answered_and_closed(
    make: Callable[..., Floor], sent: bytes, status: bytes
) -> None:
    floor = make(header_max_nbytes=1024)
    plain = floor.raw()
    plain.sendall(sent)
    said = everything(plain).split(b" ")[1:2]
    assert said == [status] or (len(sent) > 1024 and said == []), "an answer, or a reset while it still sent too much"
    assert floor.get("/livez")[0] == 200


PARTS = st.sampled_from(
    [b"GET ", b"POST ", b"HEAD ", b"/", b"GET /api/v1/results?since=", b"/api/v1/", b"results", b"commands/stop",
     b"?since=", b"1", b"&", b" HTTP/1.1", b"\r\n", b"Content-Length: ", b"Authorization: Basic ",
     b"Content-Type: application/json", b"Og==", b"{}", b"%ff", b"\xff", b"\r\n\r\n"]
)  # fmt: skip


@settings(deadline=None)
@given(request=st.binary(max_size=200) | st.lists(PARTS, max_size=24).map(b"".join))
def test_no_request_breaks_it(request: bytes) -> None:
    async def answered() -> int:
        gateway = HttpGateway(GatewayConfig(), FakeLink())  # type: ignore[arg-type]
        reader = asyncio.StreamReader(limit=4096)
        reader.feed_data(request + b"\r\n\r\n")
        reader.feed_eof()
        try:
            return (await gateway._answer(await read_request(reader, 4096, 256), "host")).status
        except RequestRefused as refused:
            return int(refused.args[0].status)
        except asyncio.IncompleteReadError:
            return 0

    assert asyncio.run(answered()) in (0, 200, 400, 403, 404, 405, 411, 413, 503)


LIVE = b"GET /livez HTTP/1.1\r\n\r\n"


def test_who_never_finishes_his_request_is_closed(make: Callable[..., Floor]) -> None:
    floor = make(request_ms=400)
    slow, silent = floor.raw(), floor.raw()
    slow.sendall(b"GET / HTT")
    assert everything(slow) == everything(silent) == b""
    assert everything(floor.at_once(LIVE)).startswith(b"HTTP/1.1 200")


def test_probes_are_answered_always_however_many_clients_stay_silent(make: Callable[..., Floor]) -> None:
    floor = make(connections_max=8)
    for _ in range(40):
        slow = floor.raw()
        slow.sendall(b"GET /livez HTT")
        assert floor.get("/livez")[0] == 200
    assert len(floor.loop.call(lambda: list(floor.gateway._clients))) <= 8


def test_the_crowd_makes_room_and_not_the_client_of_another_address(make: Callable[..., Floor]) -> None:
    floor = make(connections_max=8)
    other = socket.create_connection(("127.0.0.1", floor.port), PATIENCE_S, source_address=("127.0.0.2", 0))
    until(lambda: len(floor.gateway._clients) == 1, "the other client")
    crowd = [floor.raw() for _ in range(20)]
    assert everything(crowd[0]) == b"", "the oldest of the crowd is closed"
    until(lambda: len(floor.gateway._clients) == 8, "the crowd")
    other.sendall(LIVE)
    assert everything(other).startswith(b"HTTP/1.1 200")
    other.close()


def test_a_client_that_does_not_read_costs_its_connection_only(make: Callable[..., Floor]) -> None:
    floor = make(request_ms=300, results_shown=1000)
    floor.show(*[result(number, part_id=EVIL) for number in range(1, 1001)])
    whole = len(floor.loop.call(lambda: floor.gateway._page(None)).body)
    assert floor.gateway._server is not None
    floor.gateway._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    viewed = floor.link.views
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(PATIENCE_S)
        with floor.loop.standing():
            plain.connect(("127.0.0.1", floor.port))
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        until(lambda: floor.link.views > viewed and not floor.gateway._clients, "the client and its end")
        assert len(everything(plain)) < whole
    assert everything(floor.at_once(LIVE)).startswith(b"HTTP/1.1 200")


def test_five_hundred_visits_leave_nothing_behind(floor: Floor) -> None:
    before = open_files()
    for turn in range(500):
        plain = socket.create_connection(("127.0.0.1", floor.port), timeout=PATIENCE_S)
        if turn % 2:
            plain.sendall(LIVE)
            assert everything(plain).startswith(b"HTTP/1.1 200")
        plain.close()
    until(lambda: open_files() <= before + 2, "the end of old connections")


def test_who_is_closed_for_a_newcomer_is_no_error_in_the_log(
    make: Callable[..., Floor], caplog: pytest.LogCaptureFixture
) -> None:
    floor = make(connections_max=2)
    silent = [floor.raw() for _ in range(20)]
    assert floor.get("/livez")[0] == 200
    assert sum(everything(each) == b"" for each in silent[:17]) == 17
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text


@pytest.mark.parametrize("error", [OSError(errno.EHOSTUNREACH, "no route"), TimeoutError(errno.ETIMEDOUT, "gone")])
def test_a_client_whose_network_is_gone_is_no_error_in_the_log(
    floor: Floor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    async def gone(*_: object) -> None:
        raise error

    monkeypatch.setattr(floor.gateway, "_converse", gone)
    plain = floor.raw()
    assert everything(plain) == b""
    floor.loop.call(lambda: None)
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text
