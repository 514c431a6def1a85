"""The registers that a Modbus PLC sees of a station, on a link: results handed over, requests taken.

``accept`` is computed when it is read, for the result that the same answer shows; nothing here stores it.

A result is numbered ``result_id % 65535 + 1`` and acknowledged by that number: unlike a toggle, an acknowledgement that
comes late, twice, or from before a restart acknowledges nothing else.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.given_up import GivenUp
from asperity.runtime.gateways.link import Delivered, Item, Link, synced
from asperity.runtime.gateways.modbus.clock_blocks import ClockBlocks
from asperity.runtime.gateways.modbus.part_blocks import COUNT, FIRST, PartWrites, counts_block, shown_block
from asperity.runtime.gateways.modbus.requests import RecipeRequest, Request
from asperity.runtime.gateways.modbus.server import BUSY, ILLEGAL_ADDRESS, ILLEGAL_VALUE, Refusal
from asperity.runtime.gateways.modbus.table import (
    BATCH,
    CLOCKS,
    COMMANDS,
    COUNTS,
    PART,
    PART_WRITES,
    PLC_TIME,
    RECIPE_CHANGES,
    STATUS,
    STATUS_OF_CODE,
    TABLE_VERSION,
    TRIGGER_TIMEOUT_MS,
    TRIGGERS,
    WORDS,
    WRITE_ADDRESS,
    WRITE_WORDS,
    WRITES,
    Row,
    f32,
    pack,
    unpack,
    words_of,
)
from asperity.runtime.gateways.result_block import ResultBlock
from asperity.runtime.wire import Record, StationState, decode_record, encode_record
from asperity.runtime.wire.record import session_number

log = logging.getLogger("asperity.gateway")

RESULT_NUMBERS = 65535
RECIPE_NUMBERS = ("recipe_select", "trigger_recipe")
NAMED_MAX = 64
"""Triggers whose recipe is remembered: as many as may be pending at a station."""
ACTOR_LENGTH = 64
TAKE_AT_ONCE = 1000
"""Items taken from the link in one turn."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A result as the registers show it."""

    item: Delivered
    record: Record
    """Its numbers, cut to what registers hold; unknown where they cannot hold them."""
    missing_before: int
    refused: bool
    """It is not a pass and never becomes one: another recipe's, a trigger's that was given up, nobody's."""

    @property
    def number(self) -> int:
        """``result_valid``: never 0, and the same after a restart of the gateway."""
        return self.item.result.result_id % RESULT_NUMBERS + 1


class ModbusRegisters:
    """The table of ``modbus_table`` on a link. For one thread."""

    def __init__(self, config: GatewayConfig, link: Link, table: str = "modbus") -> None:
        """``table``: where these settings stand in gateway.toml. Raises ConfigError for a recipe of no number."""
        self._config, self._table = config, table
        self._block: ResultBlock = getattr(config, table)
        self._link = link
        self._arrived: deque[Item] = deque()  # taken from the link and not shown yet
        self._buffer: deque[Shown] = deque()
        self._missing = 0  # results lost since the one that came last
        self._overruns = 0
        self._overrun = False
        self._command, self._trigger = Request(), Request()
        self._recipe = RecipeRequest(self._block.recipe_silent_ms)
        self._requests = {"command": self._command, "recipe_select": self._recipe, "trigger_request": self._trigger}
        self._trigger_id = 0  # the last that was asked for
        self._given_up = GivenUp()
        self._named: OrderedDict[int, str] = OrderedDict()  # trigger -> recipe that it named
        self._written: dict[str, int | float] = {row.name: 0 for row in WRITES}
        self._written["trigger_timeout_ms"] = TRIGGER_TIMEOUT_MS
        self._contradicted = False
        self._parts, self.clocks = PartWrites(), ClockBlocks(config.clocks)
        self._blocks: dict[tuple[Row, ...], Callable[[], bytes]] = {
            WRITES: lambda: pack(WRITES, self._written),
            PART_WRITES: lambda: self._parts.read(0, words_of(PART_WRITES)),
            **{rows: partial(self._show, rows) for rows in (STATUS, PART, BATCH)},
            COUNTS: lambda: counts_block(link.view()),
            CLOCKS: lambda: self.clocks.show(link.view()),
            PLC_TIME: lambda: self.clocks.written,
        }
        self._known: set[str] = set()  # registers that were written since the gateway started
        self._recipe_of_number = {_number(table, text): name for text, name in self._block.recipes.items()}
        self._number_of_recipe = {name: number for number, name in self._recipe_of_number.items()}

    def refresh(self) -> None:
        """Take over the link's items."""
        state = self._link.view().state
        self._command.look()
        self._recipe.follow(state, time.monotonic())
        if self._trigger.look():
            self._trigger_answered(self._trigger_id, self._trigger.status)
        self._arrived.extend(self._link.take(TAKE_AT_ONCE - len(self._arrived)))
        while self._arrived and not self._before_its_answer(self._arrived[0]):
            self._place(self._arrived.popleft(), state)

    def _before_its_answer(self, item: Item) -> bool:
        """The result of a trigger whose request is unanswered yet waits: what follows may be that none would come."""
        return self._trigger.unanswered and isinstance(item, Delivered) and item.result.trigger_id == self._trigger_id

    def _place(self, item: Item, state: StationState | None) -> None:
        if isinstance(item, Gap):
            self._missing += item.last_id - item.first_id + 1
            if not self._block.handshake:
                self._buffer.clear()
            return
        record = decode_record(encode_record(item.result, state=0 if state is None else state.state, station_number=0))
        if not self._block.handshake:
            self._buffer.clear()
        elif len(self._buffer) == self._block.buffer_results:
            self._drop_oldest_waiting()
        refused = (
            not self._of_selected_recipe(item)
            or self._named.get(record.trigger_id, item.result.recipe) != item.result.recipe
            or (record.trigger_id == 0 and (state is None or state.triggers != "free_run"))
            or (record.verdict == Verdict.OK and self._given_up.refused(record.trigger_id))
        )
        self._buffer.append(Shown(item, record, self._missing, refused))
        self._missing = 0

    def _of_selected_recipe(self, item: Delivered) -> bool:
        """Judged by the recipe that the PLC wants, where it wants one."""
        selected = int(self._written["recipe_select"])
        return selected == 0 or item.result.recipe == self._recipe_of_number.get(selected)

    def _refuse(self, which: Callable[[Shown], bool]) -> None:
        """These are no longer a pass, whatever comes."""
        self._buffer = deque(replace(shown, refused=True) if which(shown) else shown for shown in self._buffer)

    def _trigger_answered(self, trigger_id: int, status: str) -> None:
        """The PLC reads ``status`` of this trigger from here on."""
        self._given_up.answered(trigger_id, status)
        if trigger_id in self._given_up:
            self._refuse(lambda shown: shown.record.trigger_id == trigger_id)

    def _drop_oldest_waiting(self) -> None:
        """The shown result stays until it is acknowledged; what follows it says how many are missing before it."""
        if not self._overrun:
            log.warning("result %d is dropped: it was not acknowledged in time", self._buffer[1].item.result.result_id)
        self._overrun = True
        self._overruns += 1
        lost = self._buffer[1].missing_before + 1
        del self._buffer[1]
        if len(self._buffer) > 1:
            after = self._buffer[1]
            self._buffer[1] = replace(after, missing_before=after.missing_before + lost)
        else:
            self._missing += lost

    def read(self, address: int, count: int) -> bytes:
        """As ``Registers.read``: a block of this moment, or what was written. Raises Refusal."""
        for rows, block in self._blocks.items():
            first = address - rows[0].address
            if first >= 0 and first + count <= words_of(rows):
                return block()[2 * first : 2 * (first + count)]
        raise Refusal(ILLEGAL_ADDRESS)

    def _show(self, rows: tuple[Row, ...]) -> bytes:
        self.refresh()
        if rows is STATUS:
            return pack(STATUS, self._status())
        return shown_block(rows, self._buffer[0].item.result if self._buffer else None)

    def _status(self) -> dict[str, int | float]:
        """Values of the status block."""
        view = self._link.view()
        state = view.state
        shown = self._buffer[0] if self._buffer else None
        values: dict[str, int | float] = dict.fromkeys((row.name for row in STATUS), 0)
        values |= {
            "quality": view.good,
            "waiting": len(self._buffer),
            "overrun": self._overrun,
            "overruns": self._overruns,
            "gaps": view.gaps,
            "missing": view.missing,
            "results": view.results,
            "command_status": STATUS_OF_CODE[self._command.status],
            "recipe_status": STATUS_OF_CODE[self._recipe.status],
            "trigger_status": STATUS_OF_CODE[self._trigger.status],
            "table_version": TABLE_VERSION,
        }
        if state is not None:
            values |= {
                "beat": state.beat,
                "state": state.state,
                "recipe": self._number_of_recipe.get(state.recipe, 0),
                "beat_timeout_ms": min(state.beat_timeout_ms, 0xFFFF),
                "alarms": len(state.alarms),
                "session": session_number(state.session),
                "recipe_change": RECIPE_CHANGES.get(state.recipe_change.status, 0) if state.recipe_change else 0,
                "triggers": TRIGGERS.get(state.triggers, 0),
                "synced": synced(state),
                "threshold_in_force": f32(state.threshold),
                "late": state.late,
            }
        if shown is not None:
            record = shown.record
            values |= {
                "result_valid": shown.number,
                "verdict": record.verdict,
                "reason": record.reason_code,
                "result_no": record.result_id,
                "seq": record.seq,
                "trigger_id": record.trigger_id,
                "part_number": record.part_number,
                "score": record.score,
                "threshold": record.threshold,
                "latency_us": record.latency_us,
                "missing_before": shown.missing_before,
                "deadline_missed": shown.item.result.deadline_missed,
                "simulated": shown.item.result.simulated,
                "result_recipe": self._number_of_recipe.get(shown.item.result.recipe, 0),
                "result_no_copy": record.result_id,
                "accept": view.good
                and record.verdict == Verdict.OK
                and not shown.refused
                and self._link.may_pass(shown.item),
            }
        return values

    def write(self, address: int, words: list[int], peer: str) -> None:
        """As ``Registers.write``. A register acts when its value changes from one that was written since the gateway
        started; 0 does nothing. Raises Refusal."""
        if FIRST <= address <= FIRST + COUNT - len(words):
            if not self._parts.write(address - FIRST, words):
                raise Refusal(ILLEGAL_VALUE)
            return
        if self.clocks.takes(address, words):
            return self.clocks.write(words, f"{self._table} {peer}")
        first, end = address - WRITE_ADDRESS, address - WRITE_ADDRESS + len(words)
        if first < 0 or end > WRITE_WORDS:
            raise Refusal(ILLEGAL_ADDRESS)
        touched = set()
        for row in WRITES:
            begins = row.address - WRITE_ADDRESS
            overlap = len(range(max(first, begins), min(end, begins + WORDS[row.kind])))
            if 0 < overlap < WORDS[row.kind]:
                raise Refusal(ILLEGAL_VALUE)  # half a u32 would be another number
            if overlap:
                touched.add(row.name)
        registers = bytearray(pack(WRITES, self._written))
        registers[2 * first : 2 * end] = b"".join(word.to_bytes(2, "big") for word in words)
        values = unpack(WRITES, bytes(registers))
        asked = {name: int(values[name]) for name in self._requests if name in touched}
        changed = {name: value for name, value in asked.items() if name in self._known and value != self._written[name]}
        self.refresh()
        self._check(values, asked, changed)
        other_recipe = values["recipe_select"] != self._written["recipe_select"]
        self._written = values
        if "result_ack" in touched:
            self._acknowledge(int(values["result_ack"]))
        if other_recipe:
            self._refuse(lambda shown: not self._of_selected_recipe(shown.item))
        self._take_as_it_stands({name: value for name, value in asked.items() if name not in self._known})
        self._known |= touched
        self._act(changed, _actor(f"{self._table} {peer}"))

    def _check(self, values: dict[str, int | float], asked: dict[str, int], changed: dict[str, int]) -> None:
        """Everything that may be wrong, before anything is done. Raises Refusal."""
        if asked.get("command") and asked["command"] not in COMMANDS:
            raise Refusal(ILLEGAL_VALUE)
        if any(values[name] and values[name] not in self._recipe_of_number for name in RECIPE_NUMBERS):
            raise Refusal(ILLEGAL_VALUE)
        if values["trigger_timeout_ms"] == 0:
            raise Refusal(ILLEGAL_VALUE)
        if any(asked.values()) and not self._config.gateway.commands:
            raise Refusal(ILLEGAL_ADDRESS)
        if any(value and self._requests[name].unanswered for name, value in changed.items()):
            raise Refusal(BUSY)

    def _acknowledge(self, number: int) -> None:
        """The PLC has the shown result. Another number is of an earlier one, which is gone: it acknowledges nothing."""
        if self._block.handshake and self._buffer and number == self._buffer[0].number:
            self._buffer.popleft()

    def _take_as_it_stands(self, first: dict[str, int]) -> None:
        """What stood in the PLC as the gateway was started was done long ago, or is not wanted any more."""
        for name, value in first.items():
            if value:
                log.warning("%s was %d at the first write: not executed; write 0, then write again", name, value)
                self._requests[name].settle("BASELINE")
        if first.get("trigger_request"):
            self._trigger_answered(first["trigger_request"], "BASELINE")

    def _act(self, changed: dict[str, int], actor: str) -> None:
        """Do what the changed registers ask for."""
        for name, begin in (("recipe_select", self._select), ("command", self._do), ("trigger_request", self._pull)):
            value, request = changed.get(name), self._requests[name]
            if value:
                begin(value, actor)
            elif value == 0 and not request.open:
                request.settle("IDLE")

    def _select(self, value: int, actor: str) -> None:
        recipe, state = self._recipe_of_number[value], self._link.view().state
        self._recipe.select(self._link.ask("prepare_recipe", recipe=recipe, actor=actor), recipe, state)

    def _do(self, value: int, actor: str) -> None:
        name = COMMANDS[value][0]
        if name == "clear_overrun":
            self._overrun = False
            self._command.settle("OK")
        elif name == "start_single":
            self._command.begin(self._link.ask("start", mode="single", actor=actor))
        elif name == "set_batch":
            batch = self._parts.batch()
            if batch is None:
                self._command.settle("BAD_REQUEST")
            else:
                self._command.begin(self._link.ask(name, actor=actor, **batch))
        else:
            self._command.begin(self._link.ask(name, actor=actor))

    def _pull(self, value: int, actor: str) -> None:
        wired, said = self._hard_wired(), self._parts.of_trigger(value)
        if wired is None or said is None:
            status = "REFUSED" if wired is None else "BAD_REQUEST"
            self._trigger.settle(status)
            self._trigger_answered(value, status)
            return
        part, recipe = int(self._written["trigger_part"]), int(self._written["trigger_recipe"])
        self._named.pop(value, None)
        if recipe:
            self._named[value] = self._recipe_of_number[recipe]
        if len(self._named) > NAMED_MAX:
            self._named.popitem(last=False)
        future = self._link.ask(
            "expect" if wired else "trigger",
            trigger_id=value,
            timeout_ms=int(self._written["trigger_timeout_ms"]),
            recipe=self._named.get(value),
            actor=actor,
            **{"part_id": str(part) if part else None, **said},
        )
        self._trigger_id = value
        self._trigger.begin(future)

    def _hard_wired(self) -> bool | None:
        """Does a wire fire the camera? None: the configuration contradicts the station."""
        state, told = self._link.view().state, self._block.hard_wired
        if state is None or state.triggers not in ("software", "hard_wired"):
            return bool(told)
        wired = state.triggers == "hard_wired"
        if told is None or told == wired:
            return wired
        if not self._contradicted:
            self._contradicted = True
            log.error("[%s] hard_wired is %s, but the station's triggers are %s: none is forwarded; remove hard_wired",
                      self._table, str(told).lower(), state.triggers)  # fmt: skip
        return None


def _number(table: str, text: str) -> int:
    """A recipe's number; keys of a TOML table are texts, and 01 would be a second key for the number 1."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and text[0] != "0" and int(text) <= 0xFFFF):
        raise ConfigError(
            f'[{table}] recipes has the number {text!r}; use 1 to 65535, for example recipes = {{ 1 = "name" }}'
        )
    return int(text)


def _actor(who: str) -> str:
    """On whose behalf a request is made; an address may bring the name of an interface."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in who)[:ACTOR_LENGTH]
