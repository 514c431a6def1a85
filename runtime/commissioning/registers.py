"""A PLC that reads and writes the block of registers: over Modbus TCP, or as the assemblies of EtherNet/IP."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import NoReturn, Protocol

from asperity.runtime.commissioning.plc_side import (
    U32,
    Counted,
    NoAnswer,
    Reading,
    Shown,
    reason_name,
    session_seen,
)
from asperity.runtime.gateways.modbus.table import (
    BATCH,
    COMMANDS,
    COUNTS,
    PART,
    PART_WRITES,
    RECIPE_CHANGES,
    STATUS,
    STATUS_CODES,
    TABLE_VERSION,
    TRIGGER_TIMEOUT_MS,
    TRIGGERS,
    WORDS,
    WRITES,
    Row,
    Value,
    pack,
    text_of,
    unpack,
)
from asperity.runtime.text.part_identity import Batch
from asperity.runtime.wire import StationState

POLL_S = 0.01
OUTCOME_S = 30.0
"""Longest wait for the outcome of a request; a station answers or the gateway says NO_ANSWER long before."""
NUMBERS_OF_COMMAND = {name: number for number, (name, _) in COMMANDS.items()}
NAMES_OF_CHANGE = {number: name for name, number in RECIPE_CHANGES.items()}
COPIES = {PART: ("part_result_no", "part_result_no_copy"), BATCH: ("batch_result_no", "batch_result_no_copy")}


class Busy(Exception):
    """The gateway did not take a write, because the last request of that kind has no answer yet."""


def receive(connection: socket.socket, nbytes: int) -> bytes:
    """So many bytes. Raises OSError, and EOFError where the connection ends before."""
    data = b""
    while len(data) < nbytes:
        more = connection.recv(nbytes - len(data))
        if not more:
            raise EOFError("the connection was closed")
        data += more
    return data


class Transport(Protocol):
    """Reads and writes whole blocks of registers. Raises NoAnswer, Busy."""

    timeout_s: float

    def read(self, rows: tuple[Row, ...]) -> bytes:
        """The registers of a block."""

    def write(self, rows: tuple[Row, ...], registers: bytes) -> None:
        """Write a block."""

    def close(self) -> None:
        """End the connection."""


class RegisterSide:
    """As ``PlcSide``."""

    cycle_s = 0.02
    handshake = True
    users = False

    def __init__(self, transport: Transport, recipes: Mapping[str, int]) -> None:
        """``recipes``: name -> number, of the gateway's configuration."""
        self._transport = transport
        self._number_of_recipe = dict(recipes)
        self._recipe_of_number = {number: name for name, number in recipes.items()}
        self._out: dict[str, Value] = {}
        """What the PLC writes, all of it in each request."""
        self._part: dict[str, Value] = {}
        self._last: Shown | None = None
        self._valid = 0
        self._taken = False  # the last shown one was acknowledged, so whatever is shown now is another
        self.again()

    @property
    def timeout_s(self) -> float:
        """As ``PlcSide.timeout_s``."""
        return self._transport.timeout_s

    @timeout_s.setter
    def timeout_s(self, value: float) -> None:
        self._transport.timeout_s = value

    def again(self) -> None:
        """As ``PlcSide.again``: the first write of each register is taken as its current value, so it is 0."""
        self._out = {**dict.fromkeys((row.name for row in WRITES), 0), "trigger_timeout_ms": TRIGGER_TIMEOUT_MS}
        self._part = {row.name: b"" if row.kind.startswith("text") else 0 for row in PART_WRITES}
        self._last, self._taken = None, False
        self._write({})

    def read(self) -> Reading:
        """As ``PlcSide.read``."""
        block = self._status()
        shown: Shown | None = None
        if block["result_valid"]:
            if block["result_no"] != block["result_no_copy"]:
                raise NoAnswer("result_no and result_no_copy differ: the block is not of one moment")
            shown = self._shown(block)
        same = shown is not None and self._last is not None and self._last.number == shown.number and not self._taken
        new = () if shown is None or same else (shown,)
        if shown is not None:
            self._last, self._valid, self._taken = shown, int(block["result_valid"]), False
        return Reading(
            beat=int(block["beat"]),
            accept=block["accept"] == 1,
            quality=block["quality"] == 1,
            state=int(block["state"]),
            session=str(block["session"]) if block["state"] else "",
            shown=shown,
            new=new,
            recipe_change=NAMES_OF_CHANGE.get(int(block["recipe_change"]), ""),
        )

    def acknowledge(self, shown: Shown) -> None:
        """As ``PlcSide.acknowledge``."""
        self._write({"result_ack": self._valid})
        self._taken = True

    def trigger(self, trigger_id: int, part_id: str, timeout_ms: int) -> str:
        """As ``PlcSide.trigger``."""
        self._part |= {"part_for": trigger_id, "trigger_part_id": part_id.encode()}
        self._transport.write(PART_WRITES, pack(PART_WRITES, self._part))
        asked: dict[str, Value] = {"trigger_request": trigger_id, "trigger_timeout_ms": timeout_ms}
        return self._ask("trigger_status", asked, POLL_S)

    def repeat_trigger(self) -> str:
        """As ``PlcSide.repeat_trigger``."""
        self._write({})
        return STATUS_CODES[int(self._status()["trigger_status"])][0]

    def command(self, op: str) -> str:
        """As ``PlcSide.command``."""
        return self._ask("command_status", {"command": NUMBERS_OF_COMMAND[op]}, POLL_S, reset="command")

    def set_batch(self, batch: Batch) -> str:
        """As ``PlcSide.set_batch``."""
        self._part |= {f"set_{name}": value.encode() for name, value in batch._asdict().items()}
        self._transport.write(PART_WRITES, pack(PART_WRITES, self._part))
        return self.command("set_batch")

    def want_recipe(self, name: str) -> str:
        """As ``PlcSide.want_recipe``."""
        number = self._number_of_recipe.get(name)
        if number is None:
            raise NoAnswer(f"recipe {name} has no number in the gateway's configuration (recipes)")
        self._write({"recipe_select": 0})
        code = self._ask("recipe_status", {"recipe_select": number}, POLL_S, pending=("UNDER_WAY", "ACCEPTED"))
        return "done" if code == "OK" else "failed"

    def counters(self) -> Counted:
        """As ``PlcSide.counters``."""
        values = unpack(COUNTS, self._transport.read(COUNTS))
        fields = ("counted_ok", "counted_ng", "counted_unknown", "counter_resets")
        return Counted(*(int(values[name]) for name in fields))

    def identity(self, state: StationState) -> list[tuple[str, str, str]]:
        """As ``PlcSide.identity``."""
        block = self._status()
        return [
            ("table_version", str(TABLE_VERSION), str(int(block["table_version"]))),
            ("session", session_seen(state.session, cut=True), str(int(block["session"]))),
            ("triggers", str(TRIGGERS.get(state.triggers, 0)), str(int(block["triggers"]))),
            ("beat_timeout_ms", str(min(state.beat_timeout_ms, 0xFFFF)), str(int(block["beat_timeout_ms"]))),
            ("recipe", str(self._number_of_recipe.get(state.recipe, 0)), str(int(block["recipe"]))),
        ]

    def command_without_role(self) -> str:
        """As ``PlcSide.command_without_role``; there are no users."""
        return ""

    def close(self) -> None:
        """As ``PlcSide.close``."""
        self._transport.close()

    def _status(self) -> dict[str, int | float]:
        return unpack(STATUS, self._transport.read(STATUS))

    def _write(self, values: Mapping[str, Value]) -> None:
        """The whole block, as a PLC that writes it in each cycle."""
        self._out |= values
        self._transport.write(WRITES, pack(WRITES, self._out))

    def _ask(
        self, status: str, values: Mapping[str, Value], poll_s: float, reset: str = "",
        pending: tuple[str, ...] = ("UNDER_WAY",),
    ) -> str:  # fmt: skip
        """Write, and wait for the outcome. ``reset``: a register that is 0 again afterwards."""
        before = dict(self._out)
        try:
            self._write(values)
        except Busy:
            self._out = before
            return "BUSY"
        ends_s = time.monotonic() + OUTCOME_S
        while (code := STATUS_CODES[int(self._status()[status])][0]) in pending:
            if time.monotonic() > ends_s:
                raise NoAnswer(f"{status} is still {code} after {OUTCOME_S:.0f} s")
            time.sleep(poll_s)
        if reset:
            self._write({reset: 0})
        return code

    def _shown(self, block: Mapping[str, int | float]) -> Shown:
        """With its part, which is read once for each result."""
        number, last = int(block["result_no"]), self._last
        accept = block["accept"] == 1
        if last is not None and last.number == number:
            return last._replace(accept=accept)
        part, batch = self._texts(PART, number), self._texts(BATCH, number)
        return Shown(
            number=number,
            verdict=int(block["verdict"]),
            reason=reason_name(int(block["reason"])),
            trigger_id=int(block["trigger_id"]),
            part_id=part["part_id"],
            accept=accept,
            recipe=self._recipe_of_number.get(int(block["result_recipe"]), ""),
            lot=batch["lot"],
            order=batch["order"],
            shift=batch["shift"],
            simulated=block["simulated"] == 1,
            missing_before=int(block["missing_before"]),
        )

    def _texts(self, rows: tuple[Row, ...], number: int) -> dict[str, str]:
        """The texts of a block of the shown result, which stays until it is acknowledged."""
        registers, first = self._transport.read(rows), rows[0].address
        texts: dict[str, str] = {}
        for row in rows:
            cut = registers[2 * (row.address - first) : 2 * (row.address - first + WORDS[row.kind])]
            if row.kind.startswith("text"):
                texts[row.name] = (text_of(row, cut) or b"").decode(errors="replace")
            elif row.name in COPIES[rows] and int.from_bytes(cut, "big") != number & U32:
                _torn(row.name)
        return texts


def _torn(name: str) -> NoReturn:
    raise NoAnswer(f"{name} is of another result than result_no")
