"""A recipe that a PLC selects by Modbus: what becomes of the change, and whose results pass meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import GatewayConfig, Modbus
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.requests import RecipeRequest
from asperity.runtime.gateways.modbus.server import BUSY, ILLEGAL_VALUE
from asperity.runtime.wire import RecipeChange, StationState
from tests.runtime.gateways.floor import SESSION, FakeLink, Loop, floors, looping, reply, result
from tests.runtime.gateways.modbus.modbus_floor import Floor, block, say, status

OTHER_SESSION = "0b0e7a1c-3f52-4c1e-9d0a-5f6e7d8c9b0a"
SILENT_MS = 10_000


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture
def make(loop: Loop) -> Iterator[Callable[..., Floor]]:
    with floors(Floor, loop) as make:
        yield make


@pytest.fixture
def floor(make: Callable[..., Floor]) -> Floor:
    return make()


def test_a_change_of_recipe_is_done_when_the_station_says_so(floor: Floor) -> None:
    floor.link.replies += [reply("ACCEPTED", 3)]
    assert floor.write("recipe_select", 7) == 0
    assert floor.asked == [("prepare_recipe", {"recipe": "lid"})]
    assert (status(floor, "recipe"), floor.read()["recipe_change"], floor.read()["recipe"]) == ("ACCEPTED", 0, 1)
    say(floor, recipe_change=RecipeChange(2, "lid", "done"))
    assert status(floor, "recipe") == "ACCEPTED", "that was another one"
    for what, number, told in (("under_way", 1, "ACCEPTED"), ("strange", 0, "ACCEPTED"), ("done", 2, "OK")):
        say(floor, recipe_change=RecipeChange(3, "lid", what))
        assert (status(floor, "recipe"), floor.read()["recipe_change"]) == (told, number)
    say(floor, recipe="lid", recipe_change=RecipeChange(4, "bracket", "failed"))
    assert (status(floor, "recipe"), floor.read()["recipe"]) == ("OK", 7), "what was done was done"
    assert floor.write("recipe_select", 0) == 0
    assert status(floor, "recipe") == "IDLE"


@pytest.mark.parametrize(
    "then",
    [
        {"recipe_change": RecipeChange(3, "lid", "failed", "the bundle does not open")},
        {"recipe_change": RecipeChange(3, "bracket", "done")},
        {"recipe_change": RecipeChange(4, "lid", "under_way")},
        {"session": OTHER_SESSION},
        {"session": OTHER_SESSION, "recipe": "lid", "recipe_change": RecipeChange(3, "lid", "done")},
    ],
    ids=["failed", "another recipe", "another change", "restarted", "restarted with that number"],
)
def test_a_change_of_recipe_that_failed_is_told(floor: Floor, then: dict[str, Any]) -> None:
    floor.link.replies += [reply("ACCEPTED", 3)]
    assert floor.write("recipe_select", 7) == 0
    say(floor, recipe_change=RecipeChange(3, "lid", "under_way"))
    assert status(floor, "recipe") == "ACCEPTED"
    say(floor, **then)
    assert status(floor, "recipe") == "FAILED"
    say(floor, session=SESSION, recipe_change=RecipeChange(3, "lid", "done"))
    assert status(floor, "recipe") == "FAILED", "it does not come true afterwards"


@pytest.mark.parametrize("numbered", [True, False])
def test_a_change_of_recipe_of_which_no_state_tells_is_not_done(numbered: bool) -> None:
    request, link = RecipeRequest(SILENT_MS), FakeLink()
    link.replies += [reply("ACCEPTED", 3 if numbered else None)]
    state = link.state
    assert isinstance(state, StationState)
    request.select(link.ask("prepare_recipe"), "lid", state)
    request.follow(state, 100.0)
    for at_s in (105.0, 110.0):
        request.follow(state, at_s)
        assert (request.status, request.open, request.unanswered) == ("ACCEPTED", True, False)
    begun_s = 110.0
    if numbered:
        for _ in range(5):
            begun_s += 9
            state = replace(state, recipe_change=RecipeChange(3, "lid", "under_way"))
            request.follow(state, begun_s)
            assert request.status == "ACCEPTED", "a long change is no silence"
        begun_s += 10
        request.follow(state, begun_s)
        assert request.status == "ACCEPTED"
    request.follow(state, begun_s + 0.1)
    assert (request.status, request.open) == ("NO_ANSWER", False)


def test_a_recipe_asked_for_before_any_state_is_followed_in_the_first_session_heard() -> None:
    request, link = RecipeRequest(SILENT_MS), FakeLink()
    link.replies += [reply("ACCEPTED", 1)]
    request.select(link.ask("prepare_recipe"), "lid", None)
    request.follow(None, 0.0)
    assert request.status == "ACCEPTED" and isinstance(link.state, StationState)
    request.follow(replace(link.state, recipe_change=RecipeChange(1, "lid", "under_way")), 1.0)
    request.follow(replace(link.state, session=OTHER_SESSION, recipe_change=RecipeChange(1, "lid", "done")), 2.0)
    assert request.status == "FAILED"


def test_while_a_change_goes_on_the_next_is_the_stations_to_refuse_and_nothing_is_held_up(floor: Floor) -> None:
    floor.link.replies += [reply("ACCEPTED", 3), reply("BUSY"), None]
    assert floor.write("recipe_select", 7) == 0
    assert status(floor, "recipe") == "ACCEPTED"
    assert floor.write("recipe_select", 0) == 0
    assert status(floor, "recipe") == "ACCEPTED", "0 does not forget it"
    assert floor.write("recipe_select", 1) == 0
    assert status(floor, "recipe") == "BUSY"
    assert floor.write("recipe_select", 7) == 0
    assert floor.write("recipe_select", 1) == BUSY, "not answered yet"


def test_only_results_of_the_selected_recipe_pass(floor: Floor) -> None:
    floor.link.replies += [reply("REFUSED")]
    floor.show(result(1, recipe="bracket"), result(2, recipe="bracket"), result(3, recipe="lid"))
    values = floor.read()
    assert (values["accept"], values["result_recipe"], values["recipe"]) == (1, 1, 1)
    assert floor.write("recipe_select", 7) == 0
    for shown, judged_by, accept in ((2, 1, 0), (3, 1, 0), (4, 7, 1)):
        values = floor.read()
        assert (values["result_valid"], values["result_recipe"], values["accept"]) == (shown, judged_by, accept)
        if shown == 3:
            assert floor.write("recipe_select", 0) == 0
            assert floor.read()["accept"] == 0, "once 0 it stays 0"
            assert floor.write("recipe_select", 7) == 0
        floor.write("result_ack", shown)
    floor.show(result(4, recipe="unlisted"), result(5))
    for shown in (5, 6):
        assert (floor.read()["result_recipe"], floor.read()["accept"]) == (0, 0)
        floor.write("result_ack", shown)
    assert floor.write("recipe_select", 0) == 0
    floor.show(result(6, recipe="unlisted"))
    assert floor.read()["accept"] == 1, "a PLC that asks for none takes what is in force"


def test_a_recipe_that_stands_in_the_plc_counts_although_it_is_not_asked_for_again(make: Callable[..., Floor]) -> None:
    floor = make(fresh=True)
    floor.show(result(1, recipe="bracket"))
    assert floor.read()["accept"] == 1
    assert floor.write("result_ack", *block(recipe_select=7)) == 0
    assert (floor.read()["accept"], status(floor, "recipe")) == (0, "BASELINE")


def test_the_recipe_of_a_trigger_must_be_listed(floor: Floor) -> None:
    assert floor.write("trigger_recipe", 2) == ILLEGAL_VALUE
    assert floor.write("trigger_recipe", 7) == 0
    assert floor.write("trigger_request", 0, 5) == 0
    assert floor.asked[0][1]["recipe"] == "lid"


def test_a_trigger_that_names_a_recipe_takes_no_result_of_another(floor: Floor) -> None:
    floor.link.replies += [reply("ACCEPTED")] * 3
    for trigger_id, recipe in ((5, 7), (6, 7), (7, 0)):
        assert floor.write("trigger_request", 0, trigger_id, 0, 0, recipe) == 0
    floor.show(*[result(n, trigger_id=n + 4, recipe=name) for n, name in ((1, "bracket"), (2, "lid"), (3, "bracket"))])
    for shown, accept in ((2, 0), (3, 1), (4, 1)):
        assert (floor.read()["result_valid"], floor.read()["accept"]) == (shown, accept)
        floor.write("result_ack", shown)


@pytest.mark.parametrize("number", ["01", "+1", "１", "1 ", "", "0", "65536", "1_0", "9" * 5000])
def test_a_number_written_in_two_ways_is_refused(number: str) -> None:
    config = GatewayConfig(modbus=Modbus(recipes={"1": "lid", number: "box"}))
    with pytest.raises(ConfigError, match="use 1 to 65535"):
        ModbusRegisters(config, FakeLink())  # type: ignore[arg-type]
