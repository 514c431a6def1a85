"""A view of a part is judged and accepts nothing, in any form in which a result leaves the station or a gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from asperity.runtime import wire
from asperity.runtime.commands.watch import line
from asperity.runtime.frame import Result, Verdict, ViewSummary
from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation
from asperity.runtime.gateways.http.page import _cells
from asperity.runtime.gateways.link import Delivered, Link
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.table import STATUS, unpack, words_of
from asperity.runtime.gateways.requests import fields_to_ask, request_of
from asperity.runtime.reasons import Reason
from asperity.runtime.wire.record import FLAG_ACCEPT, FLAG_VIEW
from asperity.testing import PATIENCE_S, STATION
from tests.runtime.gateways.fake_station import FakeStation

PART = Result(
    station=STATION, session="7d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d", result_id=1, trigger_id=7, part_id="A-7",
    verdict=Verdict.OK, reason=Reason.GOOD, score=0.5, threshold=1.0, recipe="bracket",
    views=(ViewSummary("front", 5, 1, 1, 0.5), ViewSummary("back", 6, 1, 1, 0.25)),
)  # fmt: skip
VIEW = replace(PART, view_of="part", views=())


@pytest.fixture
def station() -> Iterator[FakeStation]:
    station = FakeStation()
    yield station
    station.close()


def test_json_and_record_of_a_view_accept_nothing_though_it_is_ok() -> None:
    for result, accept in ((PART, True), (VIEW, False)):
        body = msgspec.json.decode(wire.encode_result_body(result))
        assert (body["verdict"], body["reason_code"], body["accept"]) == (1, 1, accept)
        received = wire.decode_result_body(wire.encode_result_body(result))
        assert (received.verdict, received.accept, received.accept_sent) == (Verdict.OK, accept, accept)
        assert (received.view_of, received.views) == (result.view_of, result.views)
        record = wire.decode_record(wire.encode_record(result, state=8, station_number=1))
        assert (record.accept, bool(record.flags & FLAG_ACCEPT), bool(record.flags & FLAG_VIEW)) == (
            accept, accept, not accept,
        )  # fmt: skip
        assert not replace(record, flags=record.flags | FLAG_VIEW).accept
    body = wire.encode_result_body(VIEW).replace(b'"accept":false', b'"accept":true')
    assert wire.decode_result_body(body).verdict is Verdict.UNKNOWN, "a view that accepts contradicts itself"
    body = wire.encode_result_body(VIEW).replace(b'"view_of":"part"', b'"view_of":""')
    assert wire.decode_result_body(body).verdict is Verdict.UNKNOWN, "and so it is read by who does not know view_of"


def test_the_longest_result_of_a_part_leaves_its_views_out() -> None:
    text = '"' * 64
    longest = replace(
        PART, station="s" * 32, result_id=2**53 - 1, trigger_id=2**32 - 1, part_id='"' * 256, lot=text, order=text,
        shift=text, recipe="r" * 32, position=-(2**53) + 1, score=-1.2345678901234567e-300, t_done_us=2**53 - 1,
        views=tuple(ViewSummary("v" * 32, 2**53 - 1, 1, 1, -1.2345678901234567e-300) for _ in range(8)),
    )  # fmt: skip
    body = wire.encode_result_body(longest)
    assert len(body) <= wire.MAX_RESULT_BYTES and wire.decode_result_body(body).views == ()
    usual = replace(PART, views=tuple(ViewSummary("front", 123456, 1, 1, 0.8125) for _ in range(8)))
    assert len(wire.decode_result_body(wire.encode_result_body(usual)).views) == 8


@pytest.mark.parametrize("of", ["part", "view", "old view"])
def test_no_gateway_passes_a_view(station: FakeStation, of: str) -> None:
    """``old view``: one whose result does not say so, of a station that does."""
    ends = GatewayStation(name=STATION, results=station.ends["results"], control=station.ends["control"])
    config = GatewayConfig(station=ends, gateway=Gateway(accept_hold_ms=600_000))
    if of != "part":
        station.say(view_of="part")
    link = Link(config, since=1)
    registers = ModbusRegisters(config, link)
    link.start()
    try:
        ends_s = time.monotonic() + PATIENCE_S
        while not link.view().good:
            assert time.monotonic() < ends_s
            time.sleep(0.002)
        station.publish(VIEW if of == "view" else PART)
        while link.view().last is None:
            assert time.monotonic() < ends_s
            time.sleep(0.002)
        view = link.view()
        assert isinstance(view.last, Delivered) and view.last.result.verdict is Verdict.OK
        passes = of == "part"
        assert (view.accept, view.last.accept, link.may_pass(view.last)) == (passes, passes, passes)
        registers.refresh()
        values = unpack(STATUS, registers.read(0, words_of(STATUS)))
        assert (values["verdict"], values["reason"], values["accept"]) == (1, 1, int(passes))
    finally:
        link.close()


def test_people_are_told() -> None:
    shown = wire.decode_result_body(wire.encode_result_body(VIEW))
    assert "accepts no part" in _cells(shown, None)[-1]
    assert "a view of part: accepts no part" in line(wire.encode_result(VIEW), json=False)
    assert "[front 5 ok, back 6 ok]" in line(wire.encode_result(PART), json=False)
    assert "front 5 ok, back 6 ok" in _cells(wire.decode_result_body(wire.encode_result_body(PART)), None)[-1]


def test_a_client_of_a_gateway_may_name_the_view() -> None:
    body = b'{"id":"a","trigger_id":7,"timeout_ms":500%s}'
    assert fields_to_ask(request_of("trigger", body % b',"view":2'))["view"] == 2
    assert "view" not in fields_to_ask(request_of("trigger", body % b""))
