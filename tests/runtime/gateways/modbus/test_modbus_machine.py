"""Any order of writes, answers, results and restarts: nothing is asked of the station twice, nor without a write that
asks for it, and no part passes of which the PLC was told otherwise."""

from __future__ import annotations

import struct
import uuid
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from asperity.runtime.errors import WireError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import GatewayConfig, Modbus
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.server import BUSY, ILLEGAL_VALUE, Refusal
from asperity.runtime.gateways.modbus.table import (
    COMMANDS,
    STATUS,
    STATUS_WORDS,
    WRITE_ADDRESS,
    WRITE_WORDS,
    WRITES,
    unpack,
)
from asperity.runtime.wire import RecipeChange, Reply
from tests.runtime.gateways.floor import NO_ANSWER, FakeLink, reply, result

RECIPES = {"1": "bracket", "7": "lid"}
ADDRESS = {row.name: row.address for row in WRITES}
ACTING = ("recipe_select", "command", "trigger_request")
CONFIG = GatewayConfig(modbus=Modbus(recipes=RECIPES, buffer_results=3))
LISTED = {"command": {0, *COMMANDS}, "recipe_select": {0, 1, 7}, "trigger_recipe": {0, 1, 7}}
NUMBERS = st.integers(0, 2)
BLOCKS = st.fixed_dictionaries(
    {
        "result_ack": st.integers(0, 12),
        "command": st.sampled_from([0, 0, 1, 3, 100, 99]),
        "recipe_select": st.sampled_from([0, 0, 1, 7, 8]),
        "trigger_timeout_ms": st.sampled_from([1000, 1000, 1000, 0]),
        "trigger_request": NUMBERS,
        "trigger_part": NUMBERS,
        "trigger_recipe": st.sampled_from([0, 0, 0, 7, 9]),
    }
)
ANSWERS = st.sampled_from(
    ["OK", "ACCEPTED", "ACCEPTED", "BUSY", "REFUSED", "TOO_OLD", "NEWS", NO_ANSWER, WireError("no")]
)


class Plant(RuleBasedStateMachine):
    """A PLC, a gateway that is started again now and then, and a station that answers or does not."""

    @initialize()
    def begin(self) -> None:
        self.link = FakeLink()
        self.results = 0
        self.start_gateway()

    @rule()
    def start_gateway(self) -> None:
        self.registers = ModbusRegisters(CONFIG, self.link)  # type: ignore[arg-type]
        self.known: dict[str, int] = {}
        """What each register was written to since then."""
        self.trigger_id = 0
        """That trigger_status is of."""
        self.told_no: set[int] = set()
        """Triggers of which the PLC has read that no result comes, and of which it has read nothing else since."""
        self.rejected: set[int] = set()
        """Results that were shown with accept 0."""

    @rule(values=BLOCKS)
    def write_block(self, values: dict[str, int]) -> None:
        self.write(values)

    @rule(values=BLOCKS, name=st.sampled_from(sorted(ADDRESS)))
    def write_one(self, values: dict[str, int], name: str) -> None:
        self.write({name: values[name]})

    @rule()
    def write_the_same_again(self) -> None:
        before = len(self.link.asked)
        words = self.registers.read(WRITE_ADDRESS, WRITE_WORDS)
        if set(self.known) == set(ADDRESS):
            self.registers.write(WRITE_ADDRESS, list(struct.unpack(f">{WRITE_WORDS}H", words)), "plc")
            assert len(self.link.asked) == before

    def write(self, values: dict[str, int]) -> None:
        before, kept = len(self.link.asked), self.registers.read(WRITE_ADDRESS, WRITE_WORDS)
        first = next(row for row in WRITES if row.name in values)
        words: list[int] = []
        for row in WRITES:
            if row.name in values:
                value = values[row.name]
                words += [value] if row.kind == "u16" else [value >> 16, value & 0xFFFF]
        rising = {
            name: values[name]
            for name in ACTING
            if values.get(name) and name in self.known and values[name] != self.known[name]
        }
        try:
            self.registers.write(first.address, words, "plc")
        except Refusal as refusal:
            assert refusal.code in (BUSY, ILLEGAL_VALUE)
            illegal = values.get("trigger_timeout_ms") == 0 or any(
                name in values and values[name] not in listed for name, listed in LISTED.items()
            )
            assert illegal == (refusal.code == ILLEGAL_VALUE)
            assert illegal or (rising and any(not future.done() for future in self.link.open_futures))
            assert self.registers.read(WRITE_ADDRESS, WRITE_WORDS) == kept and len(self.link.asked) == before
            return
        asked = [self.request_of(op, fields) for op, fields in self.link.asked[before:]]
        assert asked == [(name, value) for name, value in rising.items() if (name, value) != ("command", 100)]
        name = "trigger_request"
        if values.get(name) and (name in rising or name not in self.known):
            self.trigger_id = values[name]
        self.known |= values

    @staticmethod
    def request_of(op: str, fields: dict[str, Any]) -> tuple[str, int]:
        """The register and value that such a request must come from."""
        if op in ("trigger", "expect"):
            return "trigger_request", fields["trigger_id"]
        if op == "prepare_recipe":
            return "recipe_select", {"bracket": 1, "lid": 7}[fields["recipe"]]
        return "command", next(number for number, (name, _) in COMMANDS.items() if name == op)

    @precondition(lambda self: any(not future.done() for future in self.link.open_futures))
    @rule(code=ANSWERS, number=st.integers(1, 3))
    def answer(self, code: Any, number: int) -> None:
        """The station's, to what it was asked first of what it has not answered."""
        future = next(future for future in self.link.open_futures if not future.done())
        if isinstance(code, Exception):
            future.set_exception(code)
        else:
            made: Reply = reply(code, number if code == "ACCEPTED" else None)
            future.set_result(made)

    @rule(
        verdict=st.sampled_from([Verdict.OK, Verdict.OK, Verdict.NG]),
        trigger_id=NUMBERS,
        recipe=st.sampled_from(["", "lid"]),
    )
    def publish(self, verdict: Verdict, trigger_id: int, recipe: str) -> None:
        self.results += 1
        self.link.put(result(self.results, verdict, trigger_id=trigger_id, recipe=recipe))

    @rule(
        triggers=st.sampled_from(["free_run", "software", "hard_wired"]),
        what=st.sampled_from(["under_way", "done", "failed"]),
        number=st.integers(1, 3),
        again=st.booleans(),
    )
    def state(self, triggers: str, what: str, number: int, again: bool) -> None:
        assert self.link.state is not None
        changes: dict[str, Any] = {"session": str(uuid.UUID(int=self.results))} if again else {}
        change = RecipeChange(number, "lid", what)
        self.link.state = replace(self.link.state, triggers=triggers, recipe_change=change, **changes)

    @rule()
    def acknowledge(self) -> None:
        block = unpack(STATUS, self.registers.read(0, STATUS_WORDS))
        self.write({"result_ack": int(block["result_valid"])})

    @invariant()
    def no_part_passes_that_must_not(self) -> None:
        block = unpack(STATUS, self.registers.read(0, STATUS_WORDS))
        number, trigger_id, code = (int(block[name]) for name in ("result_no", "trigger_id", "trigger_status"))
        if self.trigger_id and code >= 10:
            self.told_no.add(self.trigger_id)
        elif self.trigger_id and code in (2, 3):
            self.told_no.discard(self.trigger_id)
        if block["accept"]:
            assert number not in self.rejected
            assert block["verdict"] == 1 and trigger_id not in self.told_no
            assert self.known.get("recipe_select", 0) in (0, block["result_recipe"])
        elif number:
            self.rejected.add(number)


TestPlant = Plant.TestCase
TestPlant.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
