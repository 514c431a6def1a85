"""What a PLC asks for by Modbus is done once, after it was asked for, and what became of it is what it is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asperity.runtime.errors import WireError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.given_up import GIVEN_UP_MAX, GivenUp
from asperity.runtime.gateways.modbus.server import ILLEGAL_VALUE
from asperity.runtime.gateways.modbus.table import COMMANDS, STATUS_OF_CODE
from tests.runtime.gateways.floor import NO_ANSWER, Loop, floors, looping, reply, result
from tests.runtime.gateways.modbus.modbus_floor import Floor, block, say, status

OTHER_SESSION = "0b0e7a1c-3f52-4c1e-9d0a-5f6e7d8c9b0a"


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


# ---------------------------------------------------------------- the first write


def test_after_a_restart_of_the_gateway_what_stands_in_the_plc_is_not_done_again(
    floor: Floor, make: Callable[..., Floor]
) -> None:
    """An operator stopped the station; the PLC still holds what it wrote long ago, and writes it in each cycle."""
    floor.link.replies += [reply("OK"), reply("ACCEPTED", 1), reply("ACCEPTED")]
    standing = block(command=1, recipe_select=7, trigger_request=41, result_ack=9)
    assert floor.write("result_ack", *standing) == 0
    assert [op for op, _ in floor.asked] == ["prepare_recipe", "start", "trigger"]
    again = make(fresh=True, link=floor.link)
    say(again, session=OTHER_SESSION, recipe="lid")
    for _ in range(5):
        assert again.write("result_ack", *standing) == 0, "nor is the block refused for its old acknowledgement"
    assert len(again.link.asked) == 3
    for name in ("command", "recipe", "trigger"):
        assert status(again, name) == "BASELINE"
    # From here on it is as ever: 0, then the request; another number at once.
    again.link.replies += [reply("OK"), reply("ACCEPTED")]
    assert again.write("result_ack", *block(recipe_select=7, trigger_request=42)) == 0
    assert [op for op, _ in again.asked[3:]] == ["trigger"]
    assert again.write("result_ack", *block(command=1, recipe_select=7, trigger_request=42)) == 0
    assert [op for op, _ in again.asked[4:]] == ["start"]


@pytest.mark.parametrize("value", sorted(COMMANDS))
def test_a_plc_that_writes_single_registers_is_told_that_its_first_write_was_not_done(
    make: Callable[..., Floor], value: int
) -> None:
    floor = make(fresh=True)
    assert floor.write("command", value) == 0
    assert status(floor, "command") == "BASELINE" and not floor.link.asked
    assert status(floor, "recipe") == status(floor, "trigger") == "IDLE", "each register for itself"
    assert floor.write("command", value) == 0 and not floor.link.asked
    assert floor.write("command", 0) == 0
    assert status(floor, "command") == "IDLE"
    floor.link.replies += [reply("OK")]
    assert floor.write("command", value) == 0
    assert status(floor, "command") == "OK" and len(floor.link.asked) == (value != 100)


def test_the_first_write_counts_for_the_gateway_and_not_for_each_connection(make: Callable[..., Floor]) -> None:
    floor = make(fresh=True)
    assert floor.write("command", 0) == 0
    floor.client = floor.connect()
    assert floor.write("command", 3) == 0
    assert [op for op, _ in floor.asked] == ["stop"]
    floor.client = floor.connect()
    assert floor.write("command", 3) == 0
    assert len(floor.link.asked) == 1


def test_a_block_that_is_refused_is_no_first_write(make: Callable[..., Floor]) -> None:
    floor = make(fresh=True)
    assert floor.write("result_ack", *block(command=99)) == ILLEGAL_VALUE
    assert floor.write("command", 1) == 0
    assert status(floor, "command") == "BASELINE" and not floor.link.asked


def test_a_new_inspector_is_told_nothing_again(floor: Floor) -> None:
    floor.link.replies += [reply("OK"), reply("ACCEPTED", 1), reply("ACCEPTED")]
    standing = block(command=1, recipe_select=7, trigger_request=41)
    assert floor.write("result_ack", *standing) == 0
    say(floor, session=OTHER_SESSION, beat=1)
    for _ in range(3):
        assert floor.write("result_ack", *standing) == 0
    assert len(floor.link.asked) == 3


def test_a_standing_acknowledgement_never_holds_the_block_up(floor: Floor) -> None:
    floor.show(*[result(number) for number in range(1, 4)])
    for shown in (2, 3, 4):
        assert floor.read()["result_valid"] == shown
        for _ in range(3):
            assert floor.write("result_ack", *block(result_ack=shown)) == 0
    assert floor.read()["result_valid"] == 0
    assert floor.write("result_ack", *block(result_ack=4, command=3)) == 0
    assert [op for op, _ in floor.asked] == ["stop"]


# ---------------------------------------------------------------- triggers that were given up


@pytest.mark.parametrize(
    "answer", [NO_ANSWER, WireError("no"), *map(reply, ("BUSY", "REFUSED", "TOO_OLD", "NOT_ALLOWED", "FAILED", "NEWS"))]
)
def test_a_trigger_of_which_the_plc_was_told_that_no_result_comes_is_no_pass(floor: Floor, answer: Any) -> None:
    floor.link.replies += [answer]
    assert floor.write("trigger_request", 0, 7) == 0
    assert floor.read()["trigger_status"] >= 10
    floor.show(result(1, trigger_id=7), result(2, trigger_id=8))
    assert (floor.read()["trigger_id"], floor.read()["verdict"], floor.read()["accept"]) == (7, 1, 0)
    floor.write("result_ack", 2)
    assert (floor.read()["trigger_id"], floor.read()["accept"]) == (8, 1)


def test_a_result_is_not_shown_before_its_trigger_was_answered(floor: Floor) -> None:
    assert floor.write("trigger_request", 0, 7) == 0
    floor.show(result(1, trigger_id=6), result(2, trigger_id=7), result(3, trigger_id=5))
    assert (floor.read()["trigger_id"], floor.read()["waiting"]) == (6, 1)
    floor.write("result_ack", 2)
    assert (floor.read()["result_valid"], status(floor, "trigger")) == (0, "UNDER_WAY")
    floor.link.open_futures[0].set_exception(NO_ANSWER)
    assert (floor.read()["trigger_id"], floor.read()["accept"], status(floor, "trigger")) == (7, 0, "NO_ANSWER")
    floor.write("result_ack", 3)
    assert (floor.read()["trigger_id"], floor.read()["accept"]) == (5, 1)


def test_with_the_answer_the_result_is_shown_and_may_pass(floor: Floor) -> None:
    assert floor.write("trigger_request", 0, 7) == 0
    floor.show(result(1, trigger_id=7))
    assert floor.read()["result_valid"] == 0
    floor.link.open_futures[0].set_result(reply("ACCEPTED"))
    assert (floor.read()["trigger_id"], floor.read()["accept"], status(floor, "trigger")) == (7, 1, "ACCEPTED")


def test_a_number_that_the_station_refused_may_be_given_again(floor: Floor) -> None:
    floor.link.replies += [reply("BUSY"), reply("ACCEPTED")]
    for words in ((0, 7), (0, 0), (0, 7)):
        assert floor.write("trigger_request", *words) == 0
    floor.show(result(1, trigger_id=7))
    assert (floor.read()["accept"], status(floor, "trigger")) == (1, "ACCEPTED")


def test_a_number_that_was_never_answered_costs_a_part_when_it_is_given_again(floor: Floor) -> None:
    """Two results of one number may come, and which is which nobody can tell: the first is no pass."""
    floor.link.replies += [NO_ANSWER, reply("ACCEPTED")]
    for words in ((0, 7), (0, 0), (0, 7)):
        assert floor.write("trigger_request", *words) == 0
    floor.show(result(1, trigger_id=7), result(2, Verdict.NG, trigger_id=7), result(3, trigger_id=7))
    for shown, accept in ((2, 0), (3, 0), (4, 1)):
        assert (floor.read()["result_valid"], floor.read()["accept"]) == (shown, accept)
        floor.write("result_ack", shown)


def test_a_result_that_is_shown_already_stays_refused_once_its_number_is(floor: Floor) -> None:
    floor.link.replies += [reply("ACCEPTED"), reply("BUSY"), reply("ACCEPTED")]
    assert floor.write("trigger_request", 0, 7) == 0
    floor.show(result(1, trigger_id=7))
    assert floor.read()["accept"] == 1
    for words in ((0, 0), (0, 7)):
        assert floor.write("trigger_request", *words) == 0
    assert (floor.read()["accept"], status(floor, "trigger")) == (0, "BUSY")
    for words in ((0, 0), (0, 7)):
        assert floor.write("trigger_request", *words) == 0
    assert (floor.read()["accept"], status(floor, "trigger")) == (0, "ACCEPTED"), "once 0 it stays 0"


def test_the_trigger_under_way_as_the_gateway_was_started_again_is_no_pass(make: Callable[..., Floor]) -> None:
    floor = make(fresh=True)
    assert floor.write("result_ack", *block(trigger_request=41)) == 0
    assert status(floor, "trigger") == "BASELINE"
    floor.show(result(1, trigger_id=41))
    assert floor.read()["accept"] == 0


def test_the_memory_of_given_up_triggers_has_a_bound_and_keeps_the_newest() -> None:
    given_up = GivenUp()
    for trigger_id in range(1, GIVEN_UP_MAX + 11):
        given_up.answered(trigger_id, "NO_ANSWER")
    kept = [trigger_id for trigger_id in range(1, GIVEN_UP_MAX + 11) if trigger_id in given_up]
    assert kept == list(range(11, GIVEN_UP_MAX + 11))
    assert given_up.refused(11) and not given_up.refused(10)


@pytest.mark.parametrize(
    ("story", "refused"),
    [
        ("NO_ANSWER", [True, True, True]),
        ("BUSY", [True, True, True]),
        ("BUSY ACCEPTED", [False]),
        ("NO_ANSWER ACCEPTED", [True, False]),
        ("NO_ANSWER BUSY ACCEPTED", [True, False]),
        ("NO_ANSWER result ACCEPTED", [False]),
        ("NO_ANSWER NO_ANSWER ACCEPTED", [True, True, False]),
        ("NO_ANSWER ACCEPTED NO_ANSWER", [True, True, True, True]),
        ("NO_ANSWER ACCEPTED BUSY ACCEPTED", [True, True, False]),
        ("ACCEPTED", [False]),
    ],
)
def test_as_many_results_of_a_number_are_refused_as_may_be_of_requests_that_were_given_up(
    story: str, refused: list[bool]
) -> None:
    given_up = GivenUp()
    for word in story.split():
        if word == "result":
            assert given_up.refused(7)
        else:
            given_up.answered(7, word)
    assert [given_up.refused(7) for _ in refused] == refused


# ---------------------------------------------------------------- what the station judges


@pytest.mark.parametrize(
    ("triggers", "number", "accept"),
    [("free_run", 1, 1), ("software", 2, 0), ("hard_wired", 3, 0), ("", 0, 0), ("new", 0, 0)],
)
def test_a_frame_that_nobody_announced_passes_on_a_free_running_line_only(
    floor: Floor, triggers: str, number: int, accept: int
) -> None:
    say(floor, triggers=triggers)
    floor.show(result(1), result(2, trigger_id=9))
    assert (floor.read()["triggers"], floor.read()["accept"]) == (number, accept)
    floor.write("result_ack", 2)
    assert floor.read()["accept"] == 1


@pytest.mark.parametrize(
    ("triggers", "synced", "shown"),
    [
        ("free_run", None, 1), ("software", None, 1), ("hard_wired", True, 1), ("hard_wired", False, 0),
        ("hard_wired", None, 0), ("", None, 0), ("new", True, 0),
    ],
)  # fmt: skip
def test_synced_is_1_only_where_it_is_known(floor: Floor, triggers: str, synced: bool | None, shown: int) -> None:
    say(floor, triggers=triggers, synced=synced)
    assert floor.read()["synced"] == shown


@pytest.mark.parametrize(("threshold", "shown"), [(2.5, 2.5), (None, 0.0), (1e300, 0.0), (-1e300, 0.0)])
def test_the_threshold_in_force_and_late_frames_are_shown(floor: Floor, threshold: float | None, shown: float) -> None:
    say(floor, threshold=threshold, late=70_000)
    assert (floor.read()["threshold_in_force"], floor.read()["late"]) == (shown, 70_000)


@pytest.mark.parametrize(
    ("triggers", "told", "op"),
    [
        ("software", None, "trigger"), ("hard_wired", None, "expect"), ("software", False, "trigger"),
        ("hard_wired", True, "expect"), ("", None, "trigger"), ("", True, "expect"), ("free_run", None, "trigger"),
    ],
)  # fmt: skip
def test_a_wired_trigger_is_announced_and_a_software_one_given(
    make: Callable[..., Floor], triggers: str, told: bool | None, op: str
) -> None:
    floor = make(hard_wired=told)
    say(floor, triggers=triggers)
    floor.link.replies += [reply("ACCEPTED")]
    assert floor.write("trigger_request", 0, 5) == 0
    assert floor.asked == [(op, {"trigger_id": 5, "timeout_ms": 1000})]


@pytest.mark.parametrize(("triggers", "told"), [("software", True), ("hard_wired", False)])
def test_a_configuration_that_contradicts_the_station_gives_no_trigger(
    make: Callable[..., Floor], caplog: pytest.LogCaptureFixture, triggers: str, told: bool
) -> None:
    floor = make(hard_wired=told)
    say(floor, triggers=triggers)
    with caplog.at_level(logging.ERROR, "asperity.gateway"):
        assert floor.write("trigger_request", 0, 5) == 0
    assert (status(floor, "trigger"), floor.link.asked) == ("REFUSED", [])
    assert f"hard_wired is {str(told).lower()}" in caplog.text and triggers in caplog.text
    floor.show(result(1, trigger_id=5))
    assert floor.read()["accept"] == 0


def test_too_old_has_a_number_of_its_own(floor: Floor) -> None:
    floor.link.replies += [reply("TOO_OLD")]
    assert floor.write("command", 3) == 0
    assert floor.read()["command_status"] == STATUS_OF_CODE["TOO_OLD"] == 19
