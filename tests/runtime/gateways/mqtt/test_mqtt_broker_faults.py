"""Brokers that refuse, close, take over and limit: what the gateway does then, in a time that the test moves."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import GatewayConfig, Mqtt
from asperity.runtime.gateways.mqtt.broker_limits import BrokerLimits
from asperity.runtime.gateways.mqtt.broker_session import BROKER_CLOSES, CLIENT_ID
from asperity.runtime.gateways.mqtt.connection import MAX_PACKET_BYTES, Connection
from asperity.runtime.gateways.mqtt.gateway import serve
from asperity.runtime.gateways.mqtt.messages import Message, Refused
from asperity.runtime.gateways.process import _status
from asperity.runtime.gateways.state_message import PACKET_LIMIT
from asperity.runtime.wire import Reply
from tests.runtime.gateways.floor import FakeLink, reply, result
from tests.runtime.gateways.mqtt.fake_broker import BASE, OTHER, FakeConnection, Floor, accepts
from tests.runtime.gateways.mqtt.mqtt_floor import make_certificate
from tests.runtime.gateways.test_back_off import CONNECTS_PER_MIN


def end(floor: Floor, why: str = "closed", **how: bool) -> None:
    """The broker ends the connection; the gateway notices it."""
    connection = floor.broker
    for name, value in how.items():
        setattr(connection, name, value)
    connection.abandon(why)
    floor.gateway.refresh()


def until_connected(floor: Floor) -> None:
    count = len(floor.connections)
    while len(floor.connections) == count:
        floor.pass_s(0.1)
    floor.pass_s(0.1)


def ask(floor: Floor, body: dict[str, Any], op: str = "start") -> None:
    floor.broker.requests.append(Message(f"{BASE}/command/{op}", msgspec.json.encode(body), False, False))


# ------------------------------------------------------------------ two clients of one id


def test_a_session_that_is_taken_over_again_and_again_is_an_alarm_until_one_is_held(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        end(floor, "session taken over", taken_over=True)
        until_connected(floor)
    assert (
        f"ALARM {CLIENT_ID}: another client uses client id {floor.broker.client_id}: set [mqtt] client_id"
        in caplog.text
    )
    assert CLIENT_ID in floor.last("state")[1]["alarms"]
    floor.pass_s(9)
    assert accepts(floor.said(lambda: floor.link.put(result(1)))) == [False], "the other may be about to come back"
    assert "another client may use this client id" in floor.last("state")[1]["why"]
    floor.pass_s(2)
    assert CLIENT_ID not in floor.last("state")[1]["alarms"]
    assert accepts(floor.said(lambda: floor.link.put(result(2)))) == [False, True]


def test_one_take_over_is_no_alarm_but_nothing_passes_until_the_connection_lasts(floor: Floor) -> None:
    end(floor, "session taken over", taken_over=True)
    until_connected(floor)
    floor.pass_s(5)
    assert CLIENT_ID not in floor.last("state")[1]["alarms"]
    assert accepts(floor.said(lambda: floor.link.put(result(1)))) == [False]
    floor.pass_s(6)
    assert accepts(floor.said(lambda: floor.link.put(result(2)))) == [False, True]


@pytest.mark.parametrize(("client_id", "alarm"), [("gate", CLIENT_ID), ("", BROKER_CLOSES)])
def test_silent_ends_in_a_row_are_an_alarm_that_says_what_may_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
    client_id: str,
    alarm: str,
) -> None:
    floor = Floor(tmp_path, monkeypatch, OTHER, own=Mqtt(client_id=client_id))
    request.addfinalizer(floor.gateway._events.close)
    for number in range(3):
        assert alarm not in caplog.text, number
        floor.broker.largest_nbytes = 777
        end(floor, "closed without a reason", silent=True)
        until_connected(floor)
    assert f"ALARM {alarm}" in caplog.text and "777 bytes" in caplog.text
    assert ("set [mqtt] client_id" in caplog.text) == bool(client_id)
    assert caplog.text.count("closed without a reason; retrying") == 1, "said once, not at each try"


def test_a_broker_that_does_not_answer_is_left_and_tried_again(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    def mute(connection: FakeConnection) -> None:
        connection.up = False

    floor.on_connect = mute
    end(floor)
    floor.pass_s(60)
    assert caplog.text.count("no answer within 6000 ms from the name server or the broker") == 1
    assert 5 <= len(floor.connections) <= 10


def test_a_connection_that_lasted_and_is_cut_is_neither(floor: Floor) -> None:
    """As after a broker was killed: no delay beyond the usual."""
    floor.pass_s(11)
    end(floor, "closed", silent=True)
    until_connected(floor)
    floor.pass_s(3.5)
    assert accepts(floor.said(lambda: floor.link.put(result(1)))) == [False, True]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_two_gateways_of_one_client_id_and_station_pass_nothing_though_they_never_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, version: str
) -> None:
    """Each connects for itself alone, until the other takes over; both have good parts all the time."""
    both: list[Floor] = []
    for number, instance in enumerate(("0123456789abcdef", OTHER)):
        own = Mqtt(client_id="gate", version=version)  # type: ignore[arg-type]

        def takes_over(new: FakeConnection, number: int = number) -> None:
            others = [floor.broker for other, floor in enumerate(both) if other != number and floor.connections]
            for old in others:
                if old.up:
                    old.taken_over, old.silent = version == "5", version != "5"
                    old.abandon("taken over")

        folder = tmp_path / instance
        folder.mkdir()
        both.append(Floor(folder, monkeypatch, instance, takes_over, own))
        request.addfinalizer(both[-1].gateway._events.close)
    clock, connects = both[1], len(both[0].connections) + len(both[1].connections)
    for result_id in range(1, 1201):
        clock.now_s += 0.1
        for floor in both:
            floor.link.put(result(result_id))
            floor.gateway.refresh()
    connects = sum(len(floor.connections) for floor in both) - connects
    said = [each for floor in both for connection in floor.connections for each in connection.published]
    passed = sum(accepts(said))
    assert passed == 0, "neither may pass a part"
    assert connects <= 2 * 2 * CONNECTS_PER_MIN
    assert all(CLIENT_ID in floor.gateway._session.alarms for floor in both)


# ------------------------------------------------------------------ any script


ENDS = st.sampled_from(["refused", "no answer", "taken over", "silent", "too large", "hold"])


@settings(max_examples=20, deadline=None)
@given(script=st.lists(st.tuples(ENDS, st.floats(0, 25)), min_size=1, max_size=30), asks=st.lists(st.integers(0, 9)))
def test_whatever_a_broker_does_connects_are_bounded_and_each_command_has_one_reply(
    script: list[tuple[str, float]], asks: list[int]
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch, ExitStack() as stack:
        todo, ends_s = list(script), [0.0]
        connects: list[float] = []

        def behave(connection: FakeConnection) -> None:
            how, lasting_s = todo.pop(0) if todo else ("silent", 0.0)
            connects.append(floor.now_s)
            connection.up = how not in ("refused", "no answer")
            connection.ended = how == "refused"
            connection.why = how
            connection.taken_over, connection.silent = how == "taken over", how == "silent"
            connection.too_large, connection.largest_nbytes = how == "too large", 5000
            ends_s[0] = connects[-1] + (1e9 if how in ("hold", "no answer") and todo else lasting_s)

        floor = Floor(Path(folder), monkeypatch, OTHER)
        stack.callback(floor.gateway._events.close)
        floor.on_connect = behave
        floor.broker.abandon("begin")
        asked: list[tuple[FakeConnection, str]] = []
        waiting, number = list(asks), 0
        for _ in range(1300):
            floor.now_s += 0.1
            if floor.now_s >= ends_s[0] and floor.broker.up:
                floor.broker.abandon(floor.broker.why)
            if waiting and floor.broker.up and floor.gateway._session.connection is not None:
                for _ in range(waiting.pop(0)):
                    number += 1
                    asked.append((floor.broker, f"r{number}"))
                    floor.link.replies.append(reply("OK"))
                    ask(floor, {"id": f"r{number}"})
            floor.gateway.refresh()
            floor.gateway.refresh()
        for at_s in connects:
            assert sum(at_s <= other_s < at_s + 60 for other_s in connects) <= CONNECTS_PER_MIN
        for connection, request_id in asked:
            found = [name for name, *_ in connection.published if name == f"reply/{request_id}"]
            assert len(found) == 1, request_id
        assert all(before <= after for before, after in pairwise(connects))


# ------------------------------------------------------------------ limits


def limited(floor: Floor, **limits: Any) -> None:
    floor.broker.limits = BrokerLimits(**limits)
    floor.gateway._state = None


def test_a_result_that_is_too_large_is_a_gap_an_alarm_and_no_accept(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    limited(floor, packet_max_nbytes=560)
    said = floor.said(lambda: floor.link.put(result(1, part_id="p" * 64, recipe="r" * 32, bundle="b" * 64)))
    assert [(name, body.get("first_id"), body.get("last_id")) for name, body, *_ in said if name == "gap"] == [
        ("gap", 1, 1)
    ]
    assert not any(accepts(said)) and not [name for name, *_ in said if name == "result"]
    assert f"ALARM {PACKET_LIMIT}: result of " in caplog.text and "takes packets of 560" in caplog.text
    floor.pass_s(0.2)
    assert PACKET_LIMIT in floor.last("state")[1]["alarms"]
    assert accepts(floor.said(lambda: floor.link.put(result(2)))) == [False, True], "the next one fits"


def test_a_reply_that_is_too_large_is_an_error_reply(floor: Floor) -> None:
    limited(floor, packet_max_nbytes=2048)
    floor.link.replies.append(Reply(id="x", ok=True, code="OK", results=(msgspec.Raw(b'"' + b"x" * 3000 + b'"'),)))
    ask(floor, {"id": "a", "from": 1}, "get_result")
    floor.pass_s(0.2)
    _, body, *_ = floor.last("reply/a")
    assert (body["ok"], body["code"], body["id"]) == (False, "FAILED", "a") and "ask for less" in body["text"]


def test_a_state_that_is_too_large_is_replaced_by_one_that_is_not_ready(floor: Floor) -> None:
    limited(floor, packet_max_nbytes=700)
    assert floor.link.state is not None
    floor.link.state = msgspec.structs.replace(floor.link.state, alarms=("x" * 64,) * 8)
    floor.pass_s(0.2)
    _, body, _, retained = floor.last("state")
    assert not body["ready"] and not body["trusted"] and retained and body["alarms"] == [PACKET_LIMIT]


def test_whatever_the_station_says_accept_false_fits(floor: Floor) -> None:
    limited(floor, packet_max_nbytes=2048)
    view = replace(floor.link.view(), good=False, why="\u0001" * 5000)
    floor.link.view = lambda: view  # type: ignore[method-assign]
    assert accepts(floor.said()) == [False]


def test_a_broker_that_closes_over_a_size_it_did_not_announce_is_given_smaller_packets(floor: Floor) -> None:
    floor.broker.largest_nbytes = 3000
    end(floor, "packet too large", too_large=True)
    until_connected(floor)
    assert floor.broker.limits.packet_max_nbytes == 2999


def test_a_result_that_the_broker_refuses_is_named_in_a_gap_once(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    floor.broker.refuses = ("result", "gap")
    floor.said(lambda: floor.link.put(result(1)))
    floor.pass_s(2)
    gaps = [body for name, body, *_ in floor.broker.published if name == "gap"]
    assert [(body["first_id"], body["last_id"], body["why"]) for body in gaps] == [(1, 1, "the broker refused it")]
    assert caplog.text.count("the broker refused result 1 to 1: not authorized") == 2


def test_a_refused_withdrawal_is_said(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    floor.broker.refuses = ("accept",)
    floor.pass_s(1)
    assert "the broker refused a message about the station: not authorized" in caplog.text


def test_a_password_that_is_being_replaced_is_waited_for(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    def no_password(connection: FakeConnection) -> None:
        raise ConfigError("password_file cannot be read")

    floor.on_connect = no_password
    end(floor)
    floor.pass_s(30)
    assert caplog.text.count("password_file cannot be read; retrying") == 1
    assert len(floor.connections) <= 1 + CONNECTS_PER_MIN, "tried with the usual pauses"
    floor.on_connect = lambda connection: None
    until_connected(floor)
    assert floor.gateway.problem == ""


def test_a_renewed_certificate_is_used_by_the_next_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    made: list[Any] = []
    monkeypatch.setattr("asperity.runtime.gateways.process.run", lambda config, make, since: made.append(make))
    monkeypatch.setattr(Connection, "start", lambda self: None)
    ca = tmp_path / "ca.pem"
    make_certificate(tmp_path / "key", ca)
    own = Mqtt(host="localhost", tls=True, ca_file=str(ca), state_file=str(tmp_path / "state"))
    serve(GatewayConfig(mqtt=own))
    gateway = made[0](FakeLink())
    request.addfinalizer(gateway._events.close)
    asyncio.run(gateway.open())

    def trusts() -> list[bytes]:
        return gateway._session._connection._client._ssl_context.get_ca_certs(binary_form=True)

    first, now_s = trusts(), time.monotonic()
    make_certificate(tmp_path / "key", ca)
    renewed = ca.read_bytes()
    for content, connects in ((b"half a certifi", False), (renewed, True)):
        ca.write_bytes(content)
        if gateway._session._connection is not None:
            gateway._session._connection.abandon("closed")
            gateway._session.turn(now_s)
        gateway._session.turn(now_s := now_s + 60)
        assert (gateway._session._connection is not None) == connects
    assert trusts() != first and "[mqtt] ca_file" in caplog.text


def test_the_status_for_systemd_has_both_sides(floor: Floor) -> None:
    link: Any = floor.link
    assert _status("st1", link, floor.gateway) == "station st1: trusted"
    end(floor, "no way")
    floor.link.good = False
    said = _status("st1", link, floor.gateway)
    assert said.startswith("station st1: the station's heartbeat has stopped; cannot reach the broker at 127.0.0.1")
    assert said.endswith("no way")


def test_a_broker_that_takes_few_messages_at_a_time_gets_no_more(floor: Floor) -> None:
    limited(floor, receive_max=8)
    floor.broker.acknowledges = False
    floor.link.put(*(result(number) for number in range(1, 50)), Gap(50, 60, "gone"))
    for number in range(40):
        ask(floor, {"id": f"r{number}"}, "shutdown")
    floor.pass_s(20)
    assert len(floor.gateway._inflight) <= 8


# ------------------------------------------------------------------ commands


@pytest.mark.parametrize(
    ("body", "op", "code"),
    [
        ({"id": "a", "station": "st2"}, "start", "WRONG_STATION"),
        ({"id": "a"}, "explode", "UNKNOWN_OP"),
        ({"id": "a", "from": "x"}, "get_result", "BAD_REQUEST"),
        ({"id": "a"}, "", "BAD_REQUEST"),
        ({"id": "a"}, "start\n", "BAD_REQUEST"),
    ],
)
def test_a_command_that_is_not_for_here_gets_its_reply(floor: Floor, body: dict[str, Any], op: str, code: str) -> None:
    floor.link.replies.append(reply("UNKNOWN_OP"))  # the station's own answer
    ask(floor, body, op)
    floor.pass_s(0.2)
    known = floor.last("reply/a")[1]
    assert (known["ok"], known["id"], known["code"]) == (False, "a", code)
    assert bool(floor.link.asked) == (op == "explode")


def test_a_crowd_of_commands_is_answered_each_once(floor: Floor) -> None:
    for number in range(64):
        ask(floor, {"id": f"r{number}"}, "shutdown")
    floor.broker.refused.extend(Refused(f"x{number}", "BUSY", "later") for number in range(500))
    floor.pass_s(60)
    replies = [name for name, *_ in floor.broker.published if name.startswith("reply/")]
    assert len(replies) == len(set(replies)) == 564


def test_a_request_may_have_as_many_bytes_as_the_docs_say() -> None:
    assert MAX_PACKET_BYTES == 66_560
