"""What a client asks is done in time or never, and nobody on the control socket can answer in the station's place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from asperity.runtime import wire
from asperity.runtime.client import station_client as client_module
from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.station_client import Gap, StationClient
from asperity.runtime.errors import StationError
from asperity.runtime.frame import Verdict
from asperity.runtime.inspector import requests
from asperity.runtime.settings.station_toml import Control
from tests.runtime.client.fake_station import OTHER, SESSION, FakeStation, collect, made, received, until

LIMITS = ClientLimits(request_timeout_ms=100, request_tries=200, ask_again_ms=20, patience_ms=60_000)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeStation]:
    station = FakeStation(tmp_path)
    yield station
    station.close()


@pytest.fixture
def client(fake: FakeStation) -> Iterator[StationClient]:
    with StationClient(fake.results, fake.control, station="st1", limits=LIMITS) as station:
        until(lambda: station.trusted, station)
        yield station


# How old a request is


def test_what_changes_something_repeats_the_last_state_and_what_only_asks_does_not(
    fake: FakeStation, client: StationClient
) -> None:
    assert client.request("stop").ok and client.request("get_state").ok
    stop, ask = fake.requests
    assert stop.session == SESSION and stop.uptime_ms is not None
    assert ask.session == "" and ask.uptime_ms is None
    state = client.state
    assert state is not None and stop.uptime_ms <= state.uptime_ms
    assert client_module.READ_ONLY == requests.READ_ONLY


def test_a_request_asked_again_keeps_its_bytes_though_newer_states_came(
    fake: FakeStation, client: StationClient
) -> None:
    fake.deaf_to = 3
    assert client.request("stop").ok
    assert len(fake.requests) >= 4
    assert len({wire.encode_request(request) for request in fake.requests}) == 1


def test_what_the_client_has_given_up_is_not_done_later(fake: FakeStation) -> None:
    shipped = ClientLimits()
    patience_ms = shipped.request_timeout_ms * shipped.request_tries
    assert patience_ms > Control().request_age_max_ms, "as shipped the station forgets it before the client does"
    fake.request_age_max_ms = Control().request_age_max_ms
    with StationClient(fake.results, fake.control, station="st1") as client:
        client.await_state(20_000)
        with fake.lock:
            fake.reading = False
        with pytest.raises(StationError, match=f"no answer to stop in {patience_ms} ms"):
            client.request("stop")
        fake.reading = True  # a station that stood still finds the request on its socket
        until(lambda: len(fake.requests) >= shipped.request_tries, client)
    assert fake.done == []


def test_who_has_heard_old_states_only_gets_the_answer_too_old_and_may_ask_again(
    fake: FakeStation, client: StationClient
) -> None:
    with fake.lock:
        fake.silent, fake.request_age_max_ms = True, 50
    time.sleep(0.2)
    reply = client.request("stop")
    assert (reply.ok, reply.code) == (False, "TOO_OLD") and fake.done == []
    fake.silent, fake.request_age_max_ms = False, 3_600_000
    assert client.request("stop").ok and fake.done == ["stop"]


def test_a_request_begun_after_a_pause_repeats_the_newest_state_that_waits(
    fake: FakeStation, client: StationClient
) -> None:
    before = client.state
    assert before is not None
    while fake.beat < before.beat + 50:  # states pile up, and nobody looks at them
        time.sleep(0.01)
    client.begin("stop")
    until(lambda: bool(fake.requests), client)
    assert fake.requests[0].uptime_ms is not None and fake.requests[0].uptime_ms > before.uptime_ms


def test_a_request_that_says_of_when_it_is_keeps_that(fake: FakeStation, client: StationClient) -> None:
    """Found in review: who asks over MQTT repeats the state that he saw, and a broker may keep that for minutes."""
    assert client.state is not None and client.state.uptime_ms > 0
    client.request("stop", session=SESSION, uptime_ms=0)
    client.request("stop", session=OTHER, uptime_ms=None)
    assert [(each.session, each.uptime_ms) for each in fake.requests] == [(SESSION, 0), (OTHER, None)]


def test_a_request_to_the_session_before_is_not_done(fake: FakeStation, client: StationClient) -> None:
    with fake.lock:
        fake.silent = True
        fake.session = OTHER
    assert client.request("stop").code == "TOO_OLD" and fake.done == []


def test_without_a_state_nothing_that_changes_something_is_asked(tmp_path: Path) -> None:
    fake = FakeStation(tmp_path, silent=True)
    try:
        with StationClient(fake.results, fake.control, station="st1", limits=LIMITS) as client:
            assert client.request("get_state").ok
        hasty = replace(LIMITS, request_tries=3)
        with StationClient(fake.results, fake.control, station="st1", limits=hasty) as client:
            with pytest.raises(StationError, match="stop: no state in 300 ms"):
                client.request("stop")
            late = client.begin("stop")
            time.sleep(0.4)
            fake.silent = False
            client.await_state(20_000)
            with pytest.raises(StationError, match="stop: no state in 300 ms"):
                client.answer(late)
        assert {request.op for request in fake.requests} == {"get_state"}
    finally:
        fake.close()


def test_a_newcomer_awaits_the_first_state_before_it_asks(fake: FakeStation) -> None:
    with StationClient(fake.results, fake.control, station="st1", limits=LIMITS) as client:
        assert client.state is None and client.request("stop").ok
    assert fake.requests[0].session == SESSION


# Who is accepted


@pytest.mark.parametrize("triggers", ["software", "hard_wired", "", "of a later version"])
def test_where_frames_need_triggers_only_the_answer_to_one_is_accepted(
    fake: FakeStation, client: StationClient, triggers: str
) -> None:
    fake.triggers = triggers
    fake.publish(1)
    fake.publish(2, trigger_id=7)
    stray, answer = received(client, 2)
    until(lambda: client.state is not None and client.state.triggers == triggers, client)
    assert client.accepts(answer) and not client.accepts(stray)
    fake.triggers = "free_run"
    until(lambda: client.state is not None and client.state.triggers == "free_run", client)
    assert client.accepts(answer) and client.accepts(stray)


def test_a_result_of_another_station_is_not_accepted(fake: FakeStation, client: StationClient) -> None:
    theirs = wire.decode_result_body(wire.encode_result_body(made(1, station="st2")))
    assert theirs.accept and client.trusted and not client.accepts(theirs)


# Somebody else on the control socket


def forging(*bodies: bytes) -> Callable[[wire.Reply], wire.Reply]:
    return lambda reply: msgspec.structs.replace(
        reply, results=tuple(msgspec.Raw(body) for body in bodies), next_result_id=None
    )


def good(number: int, session: str = SESSION, station: str = "st1") -> bytes:
    return wire.encode_result_body(made(number, session, station=station))


def test_no_answer_of_the_journal_comes_before_the_true_result(fake: FakeStation, client: StationClient) -> None:
    fake.in_flight, fake.beat_timeout_ms = 1, 3_600_000
    fake.forge = forging(good(1))
    fake.publish(2)  # 1 is in work
    until(lambda: client.missing == (1, 1), client)
    state = client.state
    assert state is not None
    until(lambda: client.state is not None and client.state.uptime_ms > state.uptime_ms + 300, client)
    assert client.missing == (1, 1) and not fake.requests, "what may still be published is not asked for"
    fake.publish(1, verdict=Verdict.UNKNOWN)
    bad, after = received(client, 2)
    assert (bad.result_id, bad.verdict) == (1, Verdict.UNKNOWN) and not client.accepts(bad)
    assert client.accepts(after)


def test_what_was_in_work_is_asked_for_once_no_frame_can_be_in_work_so_long(
    fake: FakeStation, client: StationClient
) -> None:
    fake.in_flight, fake.beat_timeout_ms = 1, 300
    published_ms = fake.uptime_ms()
    fake.publish(1, lost=True)
    fake.publish(2)
    assert [result.result_id for result in received(client, 2)] == [1, 2]
    assert fake.requests and fake.uptime_ms() > published_ms + 300, "not before beat_timeout_ms have passed"


@pytest.mark.parametrize(
    ("bodies", "words"),
    [
        ([good(1), good(9)], "were requested"),
        ([good(3)], "were requested"),
        ([good(1, station="st2")], "is from station st2"),
    ],
)
def test_an_answer_that_cannot_be_true_is_an_alarm_and_nothing_is_accepted(
    fake: FakeStation, client: StationClient, bodies: list[bytes], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake.forge = forging(*bodies)
    with fake.lock:
        fake.publish(1, lost=True)
        fake.publish(2)
    until(lambda: client.contradictions > 1, client)
    fake.forge = lambda reply: reply
    items: list[wire.ReceivedResult] = received(client, 2)
    assert [item.result_id for item in items] == [1, 2], "the true answer is still taken"
    assert not client.trusted and not any(client.accepts(item) for item in items)
    lines = [record.message for record in caplog.records if words in record.message]
    assert len(lines) == 1, "one line, however often it comes"
    fake.session = OTHER
    until(lambda: client.trusted, client)


def test_a_result_of_an_earlier_session_is_not_taken_for_one_of_this(fake: FakeStation, client: StationClient) -> None:
    fake.publish(1)
    assert collect(client, 1) == [1]
    fake.in_flight, fake.beat_timeout_ms = 1, 3_600_000
    with fake.lock:
        fake.publish(3)
        fake.publish(2, lost=True, verdict=Verdict.UNKNOWN)
    until(lambda: client.missing == (2, 2), client)
    fake.forge = forging(good(2, OTHER))
    with fake.lock:
        fake.session, fake.in_flight = OTHER, 0
    until(lambda: client.contradictions > 0, client)
    assert not client.trusted


def test_a_result_that_comes_otherwise_than_it_was_recovered_is_an_alarm(
    fake: FakeStation, client: StationClient, caplog: pytest.LogCaptureFixture
) -> None:
    fake.forge = forging(good(1))
    fake.publish(1, lost=True, verdict=Verdict.UNKNOWN)
    (forged,) = received(client, 1)
    assert forged.recovered and forged.accept
    fake.send([wire.topic("result", "st1"), fake.journal[1]])
    until(lambda: client.contradictions == 1, client)
    assert not client.trusted and not client.accepts(forged)
    assert "differs from what" in caplog.text
    assert client.poll(20) == [], "none twice"


def test_a_result_that_comes_again_as_it_was_recovered_is_none(fake: FakeStation, client: StationClient) -> None:
    fake.publish(1, lost=True)
    (recovered,) = received(client, 1)
    fake.send([wire.topic("result", "st1"), fake.journal[1]])
    fake.publish(2)
    (after,) = received(client, 1)
    assert client.contradictions == 0 and client.accepts(recovered) and client.accepts(after)
    assert recovered.recovered and not after.recovered


def test_what_anybody_on_the_box_could_have_answered_is_not_accepted(fake: FakeStation, tmp_path: Path) -> None:
    """The control socket by TCP without CURVE: whoever came first may hold the port."""
    with StationClient(fake.results, fake.open_control(), station="st1", limits=LIMITS) as client:
        until(lambda: client.trusted, client)
        fake.publish(1, lost=True)
        fake.publish(2)
        recovered, heard = received(client, 2)
        assert recovered.accept and client.trusted
        assert client.accepts(heard) and not client.accepts(recovered)


def test_a_forged_gap_is_believed_of_settled_results_only(fake: FakeStation, client: StationClient) -> None:
    fake.in_flight, fake.beat_timeout_ms = 1, 3_600_000
    fake.forge = lambda reply: msgspec.structs.replace(reply, first_result_id=1000, results=())
    fake.publish(2)
    until(lambda: client.missing == (1, 1), client)
    fake.publish(1)
    assert [item for item in received(client, 2) if isinstance(item, Gap)] == []


def test_a_control_socket_that_libzmq_gave_up_is_made_again_while_states_arrive(
    fake: FakeStation, client: StationClient
) -> None:
    """As after something else listened at the endpoint: the control is a socket that was made just before."""
    control = client._ends[1]
    client._control.disconnect(control)
    client._limits = replace(LIMITS, request_tries=3)
    with pytest.raises(StationError, match="no answer to get_state"):
        client.request("get_state")
    assert client.trusted
    client._control_s -= LIMITS.renew_ms / 1000
    assert client.request("get_state").ok
