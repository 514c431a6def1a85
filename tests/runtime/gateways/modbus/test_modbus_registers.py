"""The Modbus registers against a client that others wrote (pymodbus): results handed over, commands taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import WireError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.modbus.server import BUSY, ILLEGAL_ADDRESS
from asperity.runtime.gateways.modbus.table import STATUS_OF_CODE, STATUS_WORDS
from asperity.testing import PATIENCE_MS
from tests.runtime.gateways.floor import NO_ANSWER, Loop, floors, looping, reply, result
from tests.runtime.gateways.modbus.modbus_floor import Floor


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


def test_before_the_first_news_everything_is_0(floor: Floor) -> None:
    floor.link.state, floor.link.good = None, False
    values = floor.read()
    assert {name for name, value in values.items() if value} == {"table_version"}


def test_a_result_is_shown_whole_and_function_code_4_shows_the_same(floor: Floor) -> None:
    floor.show(result(65_600, part_id="1234", trigger_id=9, latency_us={"total": 43_000}))
    values = floor.read()
    expected = {
        "beat": 7, "accept": 1, "quality": 1, "state": 8, "result_valid": 66, "verdict": 1, "reason": 1, "waiting": 1,
        "result_no": 65_600, "seq": 65_700, "trigger_id": 9, "part_number": 1234, "score": 0.25, "threshold": 0.5,
        "latency_us": 43_000, "recipe": 1, "beat_timeout_ms": PATIENCE_MS, "results": 1, "result_no_copy": 65_600,
        "session": 0x2E9A7B10, "triggers": 1, "synced": 1,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == expected
    inputs = floor.client.read_input_registers(0, count=STATUS_WORDS)
    assert inputs.registers == floor.client.read_holding_registers(0, count=STATUS_WORDS).registers
    assert floor.client.read_holding_registers(8, count=2).registers == [1, 64]


@pytest.mark.parametrize("verdict", [Verdict.NG, Verdict.UNKNOWN])
def test_no_other_verdict_is_accepted(floor: Floor, verdict: Verdict) -> None:
    floor.show(result(1, verdict))
    values = floor.read()
    assert (values["accept"], values["verdict"], values["result_valid"]) == (0, int(verdict), 2)
    if verdict is Verdict.UNKNOWN:
        assert (values["score"], values["threshold"]) == (0, 0)


def test_a_score_that_no_register_can_hold_is_no_score_and_not_accepted(floor: Floor) -> None:
    floor.show(result(1, score=-1e300))
    values = floor.read()
    assert (values["accept"], values["verdict"], values["reason"], values["score"]) == (0, 0, 0, 0)


def test_a_missed_deadline_and_a_simulation_show_as_such(floor: Floor) -> None:
    floor.show(replace(result(1, Verdict.UNKNOWN), deadline_missed=True, simulated=True))
    values = floor.read()
    assert (values["deadline_missed"], values["simulated"], values["reason"]) == (1, 1, 202)


def test_accept_follows_the_link_at_the_moment_of_each_read(floor: Floor) -> None:
    floor.show(result(1))
    assert floor.read()["accept"] == 1
    floor.link.good = False
    values = floor.read()
    assert (values["accept"], values["quality"], values["verdict"]) == (0, 0, 1)
    floor.link.good = True
    floor.link.expired.add(1)
    assert floor.read()["accept"] == 0
    assert floor.read()["quality"] == 1


def test_a_result_stays_until_its_own_number_is_acknowledged(floor: Floor) -> None:
    floor.show(result(1), result(2, Verdict.NG), result(3))
    for _ in range(3):
        assert floor.read()["result_valid"] == 2, "never acknowledged: never replaced"
    assert floor.write("result_ack", 3) == 0
    assert floor.write("result_ack", 1) == 0
    assert floor.read()["result_valid"] == 2, "another number is an earlier result's, and acknowledges nothing"
    assert floor.write("result_ack", 2) == 0
    assert (floor.read()["result_valid"], floor.read()["waiting"], floor.read()["accept"]) == (3, 2, 0)
    assert floor.write("result_ack", 2) == 0, "said again, it means nothing more"
    assert floor.write("result_ack", 0) == 0
    assert floor.read()["result_valid"] == 3
    assert floor.write("result_ack", 3) == 0
    assert floor.write("result_ack", 4) == 0
    values = floor.read()
    assert (values["result_valid"], values["accept"], values["result_no"], values["waiting"]) == (0, 0, 0, 0)
    assert floor.write("result_ack", 5) == 0
    floor.show(result(5))
    assert floor.read()["result_valid"] == 6


def test_the_ninth_unacknowledged_result_is_an_overrun_that_is_named_and_counted(floor: Floor) -> None:
    floor.show(*[result(number) for number in range(1, 13)])
    values = floor.read()
    assert (values["result_no"], values["waiting"], values["overrun"], values["overruns"]) == (1, 8, 1, 4)
    seen = []
    while (values := floor.read())["result_valid"]:
        seen.append((values["result_no"], values["missing_before"]))
        assert floor.write("result_ack", int(values["result_valid"])) == 0
    assert seen == [(1, 0), (6, 4), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0), (12, 0)]
    assert floor.read()["overrun"] == 1
    assert floor.write("command", 100) == 0
    values = floor.read()
    assert (values["overrun"], values["overruns"], values["command_status"]) == (0, 4, STATUS_OF_CODE["OK"])


def test_a_gap_is_named_before_the_result_after_it(floor: Floor) -> None:
    floor.show(result(1), Gap(2, 4, "gone"), result(5))
    assert (floor.read()["gaps"], floor.read()["missing"], floor.read()["missing_before"]) == (1, 3, 0)
    floor.write("result_ack", 2)
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (5, 3)


def test_the_least_buffer_names_what_it_drops_too(make: Callable[..., Floor]) -> None:
    floor = make(buffer_results=2)
    floor.show(result(1), result(2), Gap(3, 4, "gone"), result(5), result(6))
    assert (floor.read()["waiting"], floor.read()["overruns"]) == (2, 2)
    floor.write("result_ack", 2)
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (6, 4)


def test_a_gap_before_an_overrun_is_not_forgotten(floor: Floor) -> None:
    floor.show(result(1), Gap(2, 4, "gone"), *[result(number) for number in range(5, 13)])
    floor.write("result_ack", 2)
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (6, 4)


def test_without_handshake_the_newest_is_shown_and_a_gap_shows_nothing(make: Callable[..., Floor]) -> None:
    floor = make(handshake=False)
    floor.show(result(1), result(2, Verdict.NG))
    assert (floor.read()["result_no"], floor.read()["accept"]) == (2, 0)
    floor.show(result(3))
    assert (floor.read()["result_no"], floor.read()["accept"], floor.read()["overruns"]) == (3, 1, 0)
    floor.show(Gap(4, 6, "gone"))
    assert (floor.read()["result_valid"], floor.read()["accept"]) == (0, 0)
    floor.show(result(7))
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (7, 3)
    assert floor.write("result_ack", 8) == 0
    assert floor.read()["result_valid"] == 8


def test_commands_are_passed_on_and_their_outcome_shown(floor: Floor) -> None:
    floor.link.replies += [reply("OK"), reply("WRONG_STATE"), NO_ANSWER, WireError("no"), reply("NEWS"), None]
    for command, op, fields, status in (
        (1, "start", {}, "OK"),
        (2, "start", {"mode": "single"}, "WRONG_STATE"),
        (3, "stop", {}, "NO_ANSWER"),
        (4, "halt", {}, "BAD_REQUEST"),
        (5, "abort", {}, "OTHER"),
        (6, "reset", {}, "UNDER_WAY"),
    ):
        assert floor.write("command", command) == 0
        assert floor.asked[-1] == (op, fields)
        assert floor.read()["command_status"] == STATUS_OF_CODE[status]
    assert floor.write("command", 6) == 0, "the same value again does nothing"
    assert len(floor.link.asked) == 6
    assert floor.write("command", 3) == BUSY
    assert floor.write("command", 0) == 0
    assert floor.read()["command_status"] == STATUS_OF_CODE["UNDER_WAY"]
    floor.link.open_futures[0].set_result(reply("ACCEPTED"))
    assert floor.read()["command_status"] == STATUS_OF_CODE["ACCEPTED"]
    assert floor.write("command", 3) == 0
    floor.link.open_futures[1].set_result(reply("OK"))
    assert floor.write("command", 0) == 0
    assert floor.read()["command_status"] == STATUS_OF_CODE["IDLE"]


def test_a_trigger_carries_its_number_timeout_and_part(floor: Floor) -> None:
    floor.link.replies += [reply("ACCEPTED"), reply("BUSY")]
    assert floor.write("trigger_timeout_ms", 250, 1, 2, 0, 77) == 0
    assert floor.asked == [("trigger", {"trigger_id": 0x10002, "timeout_ms": 250, "part_id": "77"})]
    assert floor.read()["trigger_status"] == STATUS_OF_CODE["ACCEPTED"]
    assert floor.write("trigger_timeout_ms", 250, 1, 2, 0, 77) == 0, "the same trigger is not given twice"
    assert len(floor.link.asked) == 1
    assert floor.write("trigger_request", 0, 5) == 0
    assert floor.asked[1][1] == {"trigger_id": 5, "timeout_ms": 250, "part_id": "77"}
    assert floor.read()["trigger_status"] == STATUS_OF_CODE["BUSY"]
    assert floor.write("trigger_request", 0, 6, 0, 0, 7) == 0
    assert floor.asked[2][1] == {"trigger_id": 6, "timeout_ms": 250, "recipe": "lid"}


def test_a_gateway_without_commands_takes_acknowledgements_only(make: Callable[..., Floor]) -> None:
    floor = make(commands=False)
    floor.show(result(1))
    assert floor.write("command", 1) == floor.write("recipe_select", 1) == ILLEGAL_ADDRESS
    assert floor.write("trigger_request", 0, 1) == ILLEGAL_ADDRESS
    assert floor.write("result_ack", 2) == 0
    assert floor.link.asked == []
