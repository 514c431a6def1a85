"""The client against a little station: what PUB loses comes from the journal, trust follows the beat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asperity.runtime import wire
from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.station_client import Gap, StationClient
from asperity.runtime.errors import StationError, WireError
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason
from tests.runtime.client.fake_station import OTHER, SESSION, FakeStation, collect, received, until

LIMITS = ClientLimits(request_timeout_ms=100, request_tries=200, ask_again_ms=20, patience_ms=60_000)
HASTY = replace(LIMITS, request_tries=3, patience_ms=200)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeStation]:
    station = FakeStation(tmp_path)
    yield station
    station.close()


@pytest.fixture
def client(fake: FakeStation) -> Iterator[StationClient]:
    with StationClient(fake.results, fake.control, station="st1", limits=LIMITS) as station:
        station.await_state(10_000)
        yield station


@pytest.fixture
def hasty(fake: FakeStation) -> Iterator[StationClient]:
    """A client that gives up soon."""
    with StationClient(fake.results, fake.control, station="st1", limits=HASTY) as station:
        station.await_state(10_000)
        yield station


def test_results_arrive_in_order(fake: FakeStation, client: StationClient) -> None:
    for number in range(1, 21):
        fake.publish(number)
    assert collect(client, 20) == list(range(1, 21))


def test_lost_results_come_from_the_journal_in_order_and_once(fake: FakeStation, client: StationClient) -> None:
    for number in range(1, 31):
        fake.publish(number, lost=number % 3 == 0 or 10 <= number <= 20)
    assert collect(client, 30) == list(range(1, 31))
    assert any(request.op == "get_result" for request in fake.requests)


def test_a_lost_last_result_is_not_waited_for(fake: FakeStation, client: StationClient) -> None:
    fake.publish(1)
    fake.publish(2, lost=True)
    assert collect(client, 2) == [1, 2]


def test_what_the_journal_lacks_is_a_named_gap(fake: FakeStation, client: StationClient) -> None:
    with fake.lock:  # a state between 2 and 3 would make two gaps of them
        fake.publish(1)
        fake.publish(2, lost=True, journal=False)
        fake.publish(3, lost=True, journal=False)
        fake.publish(4)
    assert collect(client, 3) == [1, (2, 3), 4]


def test_what_has_left_the_journal_is_a_named_gap(fake: FakeStation, client: StationClient) -> None:
    fake.in_flight = 1  # ids are settled by time alone, and only the journal's oldest id can tell
    fake.beat_timeout_ms = 50
    fake.oldest_id = 3
    fake.publish(3, lost=True)
    fake.publish(4)
    assert collect(client, 3) == [(1, 2), 3, 4]


def test_a_result_out_of_turn_is_awaited(fake: FakeStation, client: StationClient) -> None:
    fake.in_flight = 1
    fake.publish(2)
    until(lambda: client.missing == (1, 1), client)
    fake.publish(1)
    fake.in_flight = 0
    assert collect(client, 2) == [1, 2]


def test_what_never_comes_is_given_up_in_the_end(fake: FakeStation, hasty: StationClient) -> None:
    fake.in_flight = 1
    fake.publish(2)
    assert collect(hasty, 2) == [(1, 1), 2]


def test_a_silent_control_socket_does_not_hold_results_for_ever(fake: FakeStation, hasty: StationClient) -> None:
    fake.answering = False
    fake.publish(2)
    assert collect(hasty, 2) == [(1, 1), 2]
    until(lambda: bool(fake.requests), hasty)
    asked = {request.id for request in fake.requests}
    assert len(asked) == 1, "asked again with the same id"


def test_a_lost_question_is_asked_again(fake: FakeStation, client: StationClient) -> None:
    fake.deaf_to = 2
    fake.publish(1, lost=True)
    fake.publish(2)
    assert collect(client, 2) == [1, 2]
    assert len(fake.requests) >= 3 and len({request.id for request in fake.requests[:3]}) == 1


def test_a_restart_of_the_inspector_opens_no_gap(fake: FakeStation, tmp_path: Path) -> None:
    limits = replace(HASTY, patience_ms=1000, silent_ms=50, restart_ms=60_000)
    with StationClient(fake.results, fake.control, station="st1", limits=limits) as patient:
        patient.await_state(10_000)
        fake.in_flight, fake.answering = 1, False
        fake.publish(2)
        until(lambda: patient.missing == (1, 1), patient)
        fake.silent = True
        time.sleep(1.2)  # longer than patience_ms
        assert patient.poll(0) == []
        fake.session, fake.answering, fake.silent, fake.in_flight = OTHER, True, False, 0
        fake.publish(1, lost=True, verdict=Verdict.UNKNOWN)  # as RESTARTED is
        assert collect(patient, 2) == [1, 2]


def test_an_inspector_that_does_not_come_back_is_given_up(fake: FakeStation) -> None:
    limits = replace(HASTY, silent_ms=50, restart_ms=300)
    with StationClient(fake.results, fake.control, station="st1", limits=limits) as client:
        client.await_state(10_000)
        fake.in_flight, fake.silent = 1, True
        fake.publish(2)
        assert collect(client, 2) == [(1, 1), 2]


def test_without_control_a_loss_is_named(fake: FakeStation) -> None:
    with StationClient(fake.results, station="st1", limits=HASTY) as alone:
        alone.await_state(10_000)
        fake.publish(1)
        fake.publish(2, lost=True)
        fake.publish(3)
        assert collect(alone, 3) == [1, (2, 2), 3]
        with pytest.raises(StationError, match="control endpoint"):
            alone.request("get_state")


def test_one_who_comes_again_gets_what_it_missed(fake: FakeStation) -> None:
    for number in range(1, 9):
        fake.publish(number)
    with StationClient(fake.results, fake.control, station="st1", since=3, limits=LIMITS) as again:
        assert collect(again, 6) == [3, 4, 5, 6, 7, 8]


def test_malformed_results_are_counted_and_asked_for(fake: FakeStation, client: StationClient) -> None:
    fake.publish(1, lost=True)
    fake.send([b"result/st1/", b"{"])
    fake.publish(2)
    assert collect(client, 2) == [1, 2]
    assert client.malformed == 1


def test_results_ends_when_idle(fake: FakeStation, client: StationClient) -> None:
    fake.publish(1)
    fake.publish(2)
    while client.state is None or client.state.last_result_id < 2:
        client.request("get_state")  # takes in what has come without handing it out
    assert [item.result_id for item in client.results(idle_timeout_s=0.3) if not isinstance(item, Gap)] == [1, 2]


# Trust: beat_timeout_ms is long, so that a busy machine cannot break a test, except where the beat shall stop


def test_trust_needs_a_moving_beat(fake: FakeStation, client: StationClient) -> None:
    fake.beat_timeout_ms = 400
    until(lambda: client.trusted, client)
    fake.beating = False
    until(lambda: not client.trusted, client)
    assert client.state is not None and client.state.can_judge, "states still arrive and say ready"
    fake.beating = True
    until(lambda: client.trusted, client)


def test_a_station_whose_beat_never_moved_is_not_trusted(fake: FakeStation) -> None:
    fake.beating = False
    time.sleep(0.1)  # the last moving beat is out
    with StationClient(fake.results, fake.control, station="st1", limits=LIMITS) as client:
        client.await_state(10_000)
        for _ in range(20):
            client.poll(20)
            assert client.state is not None and client.state.can_judge and not client.trusted


def test_trust_needs_readiness(fake: FakeStation, client: StationClient) -> None:
    until(lambda: client.trusted, client)
    fake.ready = False
    until(lambda: not client.trusted, client)
    fake.ready = True
    until(lambda: client.trusted, client)


def test_no_state_no_trust(tmp_path: Path) -> None:
    with StationClient(f"ipc://{tmp_path}/nobody", station="st1") as client:
        with pytest.raises(StationError, match="did not send anything"):
            client.await_state(50)
        assert not client.trusted


def test_trust_ends_with_the_process_and_its_old_results(fake: FakeStation, client: StationClient) -> None:
    until(lambda: client.trusted, client)
    fake.publish(1)
    (old,) = received(client, 1)
    assert client.accepts(old)
    fake.session = OTHER
    until(lambda: client.session_changes == 1, client)
    assert not client.accepts(old), "a good result of the session before is not accepted"
    until(lambda: client.trusted, client)
    assert not client.accepts(old)


def test_a_new_session_is_not_trusted_before_its_beat_moved(fake: FakeStation, client: StationClient) -> None:
    until(lambda: client.trusted, client)
    fake.beating = False
    fake.session = OTHER
    until(lambda: client.session_changes == 1, client)
    assert client.state is not None and client.state.can_judge and not client.trusted
    fake.beating = True
    until(lambda: client.trusted, client)


def test_a_client_that_slept_does_not_trust_old_news(fake: FakeStation, client: StationClient) -> None:
    fake.beat_timeout_ms = 400
    until(lambda: client.trusted, client)
    time.sleep(0.6)  # longer than beat_timeout_ms, while states pile up
    client.poll(0)
    assert not client.trusted
    until(lambda: client.trusted, client)


def test_only_good_results_of_a_trusted_station_are_accepted(fake: FakeStation, client: StationClient) -> None:
    fake.publish(1, verdict=Verdict.UNKNOWN)
    fake.publish(2)
    bad, good = received(client, 2)
    until(lambda: client.trusted, client)
    assert client.accepts(good) and not client.accepts(bad)
    simulated = wire.decode_result_body(
        wire.encode_result_body(
            Result("st1", SESSION, 3, verdict=Verdict.OK, reason=Reason.GOOD, score=1.0, threshold=2.0, simulated=True)
        )
    )
    assert simulated.accept and not client.accepts(simulated) and client.accepts(simulated, simulated=True)


# Requests


def test_a_request_is_answered(fake: FakeStation, client: StationClient) -> None:
    reply = client.request("get_state")
    assert reply.ok and reply.state is not None and reply.state.session == SESSION


def test_an_unanswered_request_is_asked_again_with_its_id_and_then_raised(
    fake: FakeStation, hasty: StationClient
) -> None:
    fake.answering = False
    with pytest.raises(StationError, match="no answer to stop in 300 ms"):
        hasty.request("stop")
    until(lambda: len(fake.requests) >= HASTY.request_tries, hasty)
    assert len({request.id for request in fake.requests}) == 1
    assert all(request.op == "stop" and request.station == "st1" for request in fake.requests)


def test_a_request_that_breaks_the_contract_is_not_sent(fake: FakeStation, client: StationClient) -> None:
    with pytest.raises(WireError, match="threshold is missing"):
        client.request("set_threshold")
    assert fake.requests == []


def test_results_keep_coming_while_a_request_waits(fake: FakeStation, hasty: StationClient) -> None:
    fake.answering = False
    fake.publish(1)
    with pytest.raises(StationError):
        hasty.request("stop")
    assert collect(hasty, 1) == [1]


def test_an_impossible_endpoint_is_named() -> None:
    with pytest.raises(StationError, match="nonsense"):
        StationClient("nonsense", station="st1")
