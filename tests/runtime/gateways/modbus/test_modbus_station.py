"""The Modbus gateway's registers on the real link, with a station that answers late, never, or only in its states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation
from asperity.runtime.gateways.link import Link
from asperity.runtime.gateways.modbus.table import STATUS_OF_CODE
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import RecipeChange, Request
from asperity.testing import STATION
from tests.runtime.gateways.fake_station import FakeStation
from tests.runtime.gateways.floor import Loop, floors, looping, until
from tests.runtime.gateways.modbus.modbus_floor import ACTOR, Floor

FOREVER_MS = 3_600_000


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture
def make(loop: Loop) -> Iterator[Callable[..., Floor]]:
    with floors(Floor, loop) as make:
        yield make


@pytest.fixture
def station() -> Iterator[FakeStation]:
    station = FakeStation()
    yield station
    station.close()


@contextmanager
def floor_of(station: FakeStation, make: Callable[..., Floor]) -> Iterator[Floor]:
    config = GatewayConfig(
        station=GatewayStation(name=STATION, **station.ends),
        gateway=Gateway(accept_hold_ms=FOREVER_MS, patience_ms=FOREVER_MS),
    )
    link = Link(config)
    link.start()
    until(lambda: link.view().good, "trust")
    yield make(link=link)
    link.close()


@pytest.fixture
def hasty(station: FakeStation, make: Callable[..., Floor]) -> Iterator[Floor]:
    """It gives a request up as soon as a gateway on a line does."""
    with floor_of(station, make) as floor:
        yield floor


@pytest.fixture
def floor(station: FakeStation, make: Callable[..., Floor], monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    """It gives no request up, however slow the machine."""
    monkeypatch.setattr("asperity.runtime.gateways.link.ClientLimits", partial(ClientLimits, request_tries=100))
    with floor_of(station, make) as floor:
        yield floor


def asked(station: FakeStation, count: int) -> Request:
    until(lambda: len(station.asked) == count, "the request")
    assert station.asked[-1].actor == ACTOR
    return station.asked[-1]


def await_status(floor: Floor, name: str, status: str) -> None:
    until(lambda: floor.read()[f"{name}_status"] == STATUS_OF_CODE[status], f"{name}_status {status}")


def good(result_id: int, trigger_id: int) -> Result:
    return Result(
        station=STATION, session="", result_id=result_id, trigger_id=trigger_id, verdict=Verdict.OK, reason=Reason.GOOD,
        score=0.25, threshold=0.5, recipe="bracket",
    )  # fmt: skip


@pytest.mark.parametrize("answered", ["before its result", "after its result", "never"])
def test_a_trigger_that_was_given_up_and_carried_out_is_no_pass(
    hasty: Floor, station: FakeStation, answered: str
) -> None:
    hasty.write("trigger_request", 0, 7)
    request = asked(station, 1)
    assert (request.op, request.trigger_id) == ("trigger", 7)
    await_status(hasty, "trigger", "NO_ANSWER")
    if answered == "before its result":
        station.answer(request, "ACCEPTED")
    station.publish(good(1, 7))
    if answered == "after its result":
        station.answer(request, "ACCEPTED")
    trigger_id, taken = 7, False
    while not taken:  # a crowded machine may cost an answer
        trigger_id += 1
        hasty.write("trigger_request", 0, trigger_id)
        station.answer(asked(station, trigger_id - 6), "ACCEPTED")
        until(lambda: hasty.read()["trigger_status"] > 1, "an answer")
        taken = hasty.read()["trigger_status"] == STATUS_OF_CODE["ACCEPTED"]
    station.publish(good(2, trigger_id))
    until(lambda: hasty.read()["waiting"] == 2, "both results")
    assert (hasty.read()["trigger_id"], hasty.read()["verdict"], hasty.read()["accept"]) == (7, 1, 0)
    hasty.write("result_ack", 2)
    assert (hasty.read()["trigger_id"], hasty.read()["accept"]) == (trigger_id, 1)


def test_a_request_that_was_too_long_on_its_way_is_told_as_such(floor: Floor, station: FakeStation) -> None:
    floor.write("command", 1)
    station.answer(asked(station, 1), "TOO_OLD")
    await_status(floor, "command", "TOO_OLD")


@pytest.mark.parametrize(
    ("end", "told"), [("done", "OK"), ("failed", "FAILED"), ("restart", "FAILED"), ("silence", "NO_ANSWER")]
)
def test_a_change_of_recipe_ends_as_the_station_says(
    floor: Floor, station: FakeStation, make: Callable[..., Floor], end: str, told: str
) -> None:
    if end == "silence":
        floor = make(link=floor.link, recipe_silent_ms=1000)
    floor.write("recipe_select", 7)
    request = asked(station, 1)
    assert (request.op, request.recipe) == ("prepare_recipe", "lid")
    station.say(recipe_change=RecipeChange(1, "lid", "under_way"))
    station.answer(request, "ACCEPTED", 1)
    await_status(floor, "recipe", "ACCEPTED")
    if end == "restart":
        station.restart()
    elif end == "silence":
        station.close()
    else:
        until(lambda: floor.read()["recipe_change"] == 1, "under way")
        station.say(recipe="lid" if end == "done" else "bracket", recipe_change=RecipeChange(1, "lid", end, "why"))
    await_status(floor, "recipe", told)
    assert floor.read()["recipe"] == (7 if end == "done" else 1)
