"""The gateways' common core on a real inspector: order, gaps, and an accept that dies by itself."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import msgspec
import pytest
import zmq

from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.errors import StationError, WireError
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation
from asperity.runtime.gateways.link import Delivered, Item, Link
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import StationState, encode_result, encode_state
from asperity.testing import PATIENCE_S, STATION, Camera, Line
from tests.runtime.gateways.floor import result

READY, RUNNING = 6, 8
PATIENT = {"deadline_ms": 30_000, "max_age_ms": 30_000}
"""No frame is late, and the beat may pause as long: for tests in which a crowded machine must not cost a part."""


@pytest.fixture
def line() -> Iterator[Line]:
    with Line("ok ng", limits=PATIENT) as line:
        yield line


def config_of(line: Line, **gateway: object) -> GatewayConfig:
    station = GatewayStation(name=STATION, results=line.ends["results"], control=line.ends["control"])
    return GatewayConfig(station=station, gateway=Gateway(**gateway))  # type: ignore[arg-type]


def until(condition: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s, f"{what} did not come"
        time.sleep(0.005)


def collect(link: Link, items: list[Item], count: int) -> None:
    def come() -> bool:
        items.extend(link.take(1000))
        return len(items) >= count

    until(come, f"{count} items")


def test_a_gateway_whose_runtime_folder_is_another_one_says_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asperity.runtime.gateways.link.QUIET_S", 0.0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/4711")
    link = Link(GatewayConfig(station=GatewayStation(results="ipc:///run/user/4711/asperity/results")))
    link.start()
    try:
        until(lambda: "nobody listens" in link.view().why, "that nobody listens")
    finally:
        link.close()
    assert "/run/user/4711/asperity/results (there is no such file)" in caplog.text
    assert "/run/user/4711/asperity/st1.control (there is no such file)" in caplog.text
    assert "set [station] control" in caplog.text and "here it is /run/user/4711" in caplog.text
    assert caplog.text.count("set [station] control") == 1, "once, not at each look"


def test_a_link_that_never_started_closes_its_sockets() -> None:
    """As where the gateway's own part cannot be made, or its port is taken."""
    link = Link(GatewayConfig())
    link.close()
    assert link._station._context.closed and not link.alive


def passing(line: Line, link: Link, camera: Camera) -> Item:
    """A part that may pass as this returns or might a moment ago. On a crowded machine one may be late, or its time
    over before it is looked at: then another is sent, once the one before is answered."""
    found: list[Item] = []

    def passes() -> bool:
        view = link.view()
        if view.accept and view.last is not None:
            found.append(view.last)
        elif view.results + view.missing >= camera.seq:
            line.stream(camera, 1, 0)
        return bool(found)

    until(passes, "a part that may pass")
    return found[0]


def test_results_come_in_order_and_a_simulation_is_never_accepted_unless_told(line: Line) -> None:
    line.start()
    line.await_state(RUNNING)
    strict, loose = Link(config_of(line)), Link(config_of(line, accept_simulated=True))
    camera = Camera(line)
    try:
        for link in (strict, loose):
            link.start()
            until(lambda link=link: link.view().state is not None, "a state")  # type: ignore[misc]
        camera.wait_connected(10_000)
        until(lambda: strict.view().good and loose.view().good, "trust")
        line.stream(camera, 20, 10)
        count = len(line.settle(camera))
        seen: dict[Link, list[Item]] = {strict: [], loose: []}
        for link, items in seen.items():
            collect(link, items, count)
            results = [item for item in items if isinstance(item, Delivered)]
            assert [item.result.result_id for item in results] == list(range(1, len(results) + 1))
        assert not any(item.accept for item in seen[strict] if isinstance(item, Delivered))
        assert strict.view().results == count >= 20 and not strict.view().accept
        until(lambda: (said := strict.view().counters) is not None and said.results == count, "the station's counters")
        for item in seen[loose]:
            assert isinstance(item, Delivered)
            assert item.accept == (item.result.verdict is Verdict.OK)
    finally:
        camera.close()
        strict.close()
        loose.close()
    assert not strict.alive


@contextmanager
def trusted(line: Line, accept_hold_ms: int) -> Iterator[tuple[Link, Camera]]:
    """A link that trusts its running station, and a camera connected to that."""
    line.start()
    line.await_state(RUNNING)
    link = Link(config_of(line, accept_simulated=True, accept_hold_ms=accept_hold_ms))
    camera = Camera(line)
    try:
        link.start()
        camera.wait_connected(10_000)
        until(lambda: link.view().good, "trust")
        yield link, camera
    finally:
        camera.close()
        link.close()


def test_a_stopped_inspector_takes_accept_away_and_the_same_part_never_gets_it_back() -> None:
    with Line("ok") as line, trusted(line, 3_600_000) as (link, camera):
        part = passing(line, link, camera)
        inspector = line.inspector
        os.kill(inspector.pid, signal.SIGSTOP)
        until(lambda: "beat" in link.view().why, "distrust")
        assert not link.view().accept and not link.may_pass(part)
        os.kill(inspector.pid, signal.SIGCONT)
        until(lambda: link.view().good, "trust again")
        assert not link.may_pass(part)
        inspector.kill()
        until(lambda: not link.view().good, "distrust")
        line.start()
        until(lambda: link.view().good, "trust in the new session")
        assert not link.may_pass(part)


def test_accept_ends_with_its_hold_time() -> None:
    with Line("ok", limits=PATIENT) as line, trusted(line, 300) as (link, camera):
        passing(line, link, camera)
        until(lambda: not link.view().accept, "the end of accept")
        assert link.view().good


def test_requests_pass_and_fail_in_words(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.start("--no-autostart")
    line.await_state(READY)
    hasty = Link(config_of(line))
    monkeypatch.setattr("asperity.runtime.gateways.link.ClientLimits", partial(ClientLimits, request_tries=100))
    link = Link(config_of(line))
    silent = Link(config_of(line, commands=False))
    try:
        for each in (link, silent, hasty):
            each.start()
        reply = link.ask("start").result(PATIENCE_S)
        assert reply.ok
        assert link.ask("prepare_recipe", recipe="nosuch").result(PATIENCE_S).code == "REFUSED"
        with pytest.raises(WireError):
            link.ask("trigger", trigger_id=0, timeout_ms=100).result(PATIENCE_S)
        with pytest.raises(StationError, match="commands is false"):
            silent.ask("start").result(PATIENCE_S)
        line.kill()
        with pytest.raises(StationError, match="no answer"):
            hasty.ask("start").result(PATIENCE_S)
    finally:
        for each in (link, silent, hasty):
            each.close()
    with pytest.raises(StationError, match="not connected"):
        link.ask("start").result(PATIENCE_S)


class Pretender:
    """Publishes what a station might say, with a beat that moves."""

    def __init__(self, triggers: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._state = StationState(
            station=STATION, session=str(uuid.uuid4()), state=RUNNING, ready=True, triggers=triggers
        )

    def beat(self) -> None:
        self._state = msgspec.structs.replace(self._state, beat=self._state.beat + 1)
        self._socket.send_multipart(encode_state(self._state))

    def good(self, trigger_id: int) -> None:
        judged = Result(
            station=STATION, session=self._state.session, result_id=1, trigger_id=trigger_id,
            verdict=Verdict.OK, reason=Reason.GOOD, score=0.25, threshold=0.5,
        )  # fmt: skip
        self._socket.send_multipart(encode_result(judged))

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.mark.parametrize(
    ("triggers", "trigger_id", "passes"),
    [
        ("free_run", 0, True),
        ("software", 0, False),
        ("hard_wired", 0, False),
        ("", 0, False),
        ("of a later version", 0, False),
        ("software", 7, True),
        ("hard_wired", 7, True),
    ],
)
def test_a_good_result_that_nobody_announced_is_no_parts_on_a_line_with_triggers(
    triggers: str, trigger_id: int, passes: bool
) -> None:
    station, items = Pretender(triggers), list[Item]()
    nowhere = "tcp://127.0.0.1:1"
    link = Link(GatewayConfig(station=GatewayStation(name=STATION, results=station.endpoint, control=nowhere)))
    link.start()
    try:

        def trusts() -> bool:
            station.beat()
            return link.view().good

        def comes() -> bool:
            items.extend(link.take(1000))
            return bool(items)

        until(trusts, "trust")
        station.good(trigger_id)
        until(comes, "the result")
        assert isinstance(items[0], Delivered) and items[0].result.accept
        # A pause of the machine may cost trust, and so accept; never the other way round.
        assert items[0].accept is passes or (passes and not link.view().good)
    finally:
        link.close()
        station.close()


def test_a_station_says_how_it_is_triggered() -> None:
    with Line("ok", station={"triggers": "software"}) as line:
        line.start()
        assert line.await_state(RUNNING).triggers == "software"


def test_a_part_of_the_session_before_passes_no_more_though_one_poll_brought_all_of_the_change(line: Line) -> None:
    link = Link(config_of(line))
    heard = SimpleNamespace(
        state=StationState(station=STATION, session=str(uuid.uuid4()), state=RUNNING, ready=True, triggers="free_run"),
        trusted_until_s=time.monotonic() + PATIENCE_S, station=STATION, counters=None, accepts=lambda *_, **__: True,
    )  # fmt: skip
    own, link._station = link._station, heard  # type: ignore[assignment]
    try:
        link._observe([result(1)])
        assert link.view().accept
        heard.state = msgspec.structs.replace(heard.state, session=str(uuid.uuid4()))
        link._observe([])
        assert link.view().good and not link.view().accept
    finally:
        link._station = own
        link.close()
