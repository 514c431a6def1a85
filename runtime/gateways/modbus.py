"""``asperity gateway modbus``: a station as one block of registers, with acknowledged results, for any Modbus TCP PLC.

``accept`` is computed when it is read, for the result that the same answer shows; nothing here stores it.

A result is numbered ``result_id % 65535 + 1`` and acknowledged by that number: unlike a toggle, an acknowledgement that
comes late, twice, or from before a restart acknowledges nothing else.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from runtime.errors import ConfigError, StationError, WireError
from runtime.frame import Verdict
from runtime.gateways.config import GatewayConfig
from runtime.gateways.link import Delivered, Link
from runtime.gateways.modbus_server import BUSY, ILLEGAL_ADDRESS, ILLEGAL_VALUE, ModbusServer, Refusal
from runtime.gateways.modbus_table import (
    COMMANDS,
    STATUS,
    STATUS_OF_CODE,
    STATUS_WORDS,
    TABLE_VERSION,
    TRIGGER_TIMEOUT_MS,
    WORDS,
    WRITE_ADDRESS,
    WRITE_WORDS,
    WRITES,
    pack,
    unpack,
)
from runtime.gateways.process import cannot_listen, check_host, run
from runtime.ordering import Gap
from runtime.wire import Record, Reply, decode_record, encode_record
from runtime.wire.record import session_number

log = logging.getLogger("asperity.gateway")

RESULT_NUMBERS = 65535
TAKE_AT_ONCE = 1000
"""Items taken from the link in one turn."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A result as the registers show it."""

    item: Delivered
    record: Record
    """Its numbers, cut to what registers hold; unknown where they cannot hold them."""
    missing_before: int

    @property
    def number(self) -> int:
        """``result_valid``: never 0, and the same after a restart of the gateway."""
        return self.item.result.result_id % RESULT_NUMBERS + 1


class Request:
    """One kind of request, of which at most one is under way, and what became of the last."""

    def __init__(self) -> None:
        self._future: Future[Reply] | None = None
        self._status = "IDLE"

    @property
    def status(self) -> str:
        """Name of a status code."""
        if self._future is not None and self._future.done():
            self._status = _outcome(self._future)
            self._future = None
        return self._status

    @property
    def under_way(self) -> bool:
        """No other may be begun."""
        return self.status == "UNDER_WAY"

    def begin(self, future: Future[Reply]) -> None:
        """Follow this one."""
        self._future, self._status = future, "UNDER_WAY"

    def settle(self, status: str) -> None:
        """Nothing is under way, and this is what became of it."""
        self._future, self._status = None, status


class ModbusRegisters:
    """The table of ``modbus_table`` on a link. For one thread."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        """Raises ConfigError for a recipe of no number."""
        self._config = config
        self._link = link
        self._buffer: deque[Shown] = deque()
        self._missing = 0  # results lost since the one that came last
        self._overruns = 0
        self._overrun = False
        self._command, self._recipe, self._trigger = Request(), Request(), Request()
        self._written: dict[str, int | float] = {row.name: 0 for row in WRITES}
        self._written["trigger_timeout_ms"] = TRIGGER_TIMEOUT_MS
        self._recipe_of_number = {_number(text): name for text, name in config.modbus.recipes.items()}
        self._number_of_recipe = {name: number for number, name in self._recipe_of_number.items()}

    def refresh(self) -> None:
        """Take over what the link has."""
        for item in self._link.take(TAKE_AT_ONCE):
            if isinstance(item, Gap):
                self._missing += item.last_id - item.first_id + 1
                if not self._config.modbus.handshake:
                    self._buffer.clear()
                continue
            state = self._link.view().state
            record = decode_record(
                encode_record(item.result, state=0 if state is None else state.state, station_number=0)
            )
            if not self._config.modbus.handshake:
                self._buffer.clear()
            elif len(self._buffer) == self._config.modbus.buffer_results:
                self._drop_oldest_waiting()
            self._buffer.append(Shown(item, record, self._missing))
            self._missing = 0

    def _drop_oldest_waiting(self) -> None:
        """The shown result stays until it is acknowledged; what follows it says how many are missing before it."""
        if not self._overrun:
            log.warning("result %d is dropped: nobody acknowledges", self._buffer[1].item.result.result_id)
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
        """As ``Registers.read``: the status block of this moment, or what was written. Raises Refusal."""
        if address + count <= STATUS_WORDS:
            self.refresh()
            return pack(STATUS, self._status())[2 * address : 2 * (address + count)]
        first = address - WRITE_ADDRESS
        if first < 0 or first + count > WRITE_WORDS:
            raise Refusal(ILLEGAL_ADDRESS)
        return pack(WRITES, self._written)[2 * first : 2 * (first + count)]

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
                "result_no_copy": record.result_id,
                "accept": view.good and record.verdict == Verdict.OK and self._link.may_pass(shown.item),
            }
        return values

    def write(self, address: int, words: list[int]) -> None:
        """As ``Registers.write``. A register acts when its value changes; 0 does nothing. Raises Refusal."""
        first, end = address - WRITE_ADDRESS, address - WRITE_ADDRESS + len(words)
        if first < 0 or end > WRITE_WORDS:
            raise Refusal(ILLEGAL_ADDRESS)
        for row in WRITES:
            begins = row.address - WRITE_ADDRESS
            touched = range(max(first, begins), min(end, begins + WORDS[row.kind]))
            if 0 < len(touched) < WORDS[row.kind]:
                raise Refusal(ILLEGAL_VALUE)  # half a u32 would be another number
        registers = bytearray(pack(WRITES, self._written))
        registers[2 * first : 2 * end] = b"".join(word.to_bytes(2, "big") for word in words)
        values = unpack(WRITES, bytes(registers))
        changed = {name: int(value) for name, value in values.items() if value != self._written[name]}
        self._check(changed, int(values["trigger_timeout_ms"]))
        self._written = values
        self._act(changed)

    def _check(self, changed: dict[str, int], trigger_timeout_ms: int) -> None:
        """Everything that may be wrong, before anything is done. Raises Refusal."""
        self.refresh()
        ack, command = changed.get("result_ack", 0), changed.get("command", 0)
        recipe, trigger = changed.get("recipe_select", 0), changed.get("trigger_request", 0)
        if ack and not (self._buffer and self._config.modbus.handshake and ack == self._buffer[0].number):
            raise Refusal(ILLEGAL_VALUE)
        if (command and command not in COMMANDS) or (recipe and recipe not in self._recipe_of_number):
            raise Refusal(ILLEGAL_VALUE)
        if trigger_timeout_ms == 0:
            raise Refusal(ILLEGAL_VALUE)
        if (command or recipe or trigger) and not self._config.gateway.commands:
            raise Refusal(ILLEGAL_ADDRESS)
        asked = ((command, self._command), (recipe, self._recipe), (trigger, self._trigger))
        if any(value and request.under_way for value, request in asked):
            raise Refusal(BUSY)

    def _act(self, changed: dict[str, int]) -> None:
        """Do what the changed registers ask for."""
        if changed.get("result_ack"):
            self._buffer.popleft()
        self._ask(self._recipe, changed.get("recipe_select"), self._select)
        self._ask(self._command, changed.get("command"), self._do)
        self._ask(self._trigger, changed.get("trigger_request"), self._pull)

    def _ask(self, request: Request, value: int | None, begin: Callable[[Request, int], None]) -> None:
        if value:
            begin(request, value)
        elif value == 0 and not request.under_way:
            request.settle("IDLE")

    def _select(self, request: Request, value: int) -> None:
        request.begin(self._link.ask("prepare_recipe", recipe=self._recipe_of_number[value]))

    def _do(self, request: Request, value: int) -> None:
        name = COMMANDS[value][0]
        if name == "clear_overrun":
            self._overrun = False
            request.settle("OK")
        elif name == "start_single":
            request.begin(self._link.ask("start", mode="single"))
        else:
            request.begin(self._link.ask(name))

    def _pull(self, request: Request, value: int) -> None:
        part = int(self._written["trigger_part"])
        op = "expect" if self._config.modbus.hard_wired else "trigger"
        timeout_ms = int(self._written["trigger_timeout_ms"])
        request.begin(self._link.ask(op, trigger_id=value, timeout_ms=timeout_ms, part_id=str(part) if part else None))


class ModbusGateway:
    """The protocol's part of the process."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        """Raises ConfigError for a host off loopback without ``insecure_lan`` and for a recipe of no number."""
        check_host("modbus", config.modbus.host, config.modbus.insecure_lan)
        self._config = config.modbus
        self._registers = ModbusRegisters(config, link)
        self._server = ModbusServer(self._registers, config.modbus)

    async def open(self) -> str:
        """As ``Gateway.open``."""
        try:
            port = await self._server.open()
        except OSError as error:
            raise cannot_listen("modbus", self._config.host, self._config.port, error) from error
        return f"modbus {self._config.host} port {port}"

    def refresh(self) -> None:
        """As ``Gateway.refresh``."""
        self._registers.refresh()
        self._server.sweep()

    async def close(self) -> None:
        """As ``Gateway.close``."""
        self._server.close()


def serve(config: GatewayConfig) -> None:
    """Run the gateway until SIGTERM. For the main thread. Raises ConfigError and GatewayError."""
    run(config, lambda link: ModbusGateway(config, link))


def _number(text: str) -> int:
    """A recipe's number; keys of a TOML table are texts."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 0xFFFF):
        raise ConfigError(
            f'[modbus] recipes has the number {text!r}; give 1 to 65535, such as recipes = {{ 1 = "name" }}'
        )
    return int(text)


def _outcome(future: Future[Reply]) -> str:
    """What became of a request."""
    try:
        code = future.result(timeout=0).code
    except StationError:
        return "NO_ANSWER"
    except WireError:
        return "BAD_REQUEST"
    return code if code in STATUS_OF_CODE else "OTHER"
