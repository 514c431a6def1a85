"""The Structured Text: made from the tables, translated and run; where a built matiec is at hand also compiled and run.

``MATIEC=folder`` names a build of https://github.com/nucleron/matiec (``iec2c`` and ``lib``); no registry brings it.
"""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime.documents.receiver_constants import record_fields
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.gateways.modbus.part_blocks import shown_block
from asperity.runtime.gateways.modbus.table import (
    PART,
    STATUS,
    STATUS_WORDS,
    TABLE_VERSION,
    TRIGGERS,
    WORDS,
    unpack,
    words_of,
)
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import encode_record
from tests.examples.plc_blocks import GENERATED, STATION, Plc, TranslatedPlc
from tests.examples.structured_text import Block, Program
from tests.places import EXAMPLES
from tests.runtime.gateways.floor import result

PATIENCE_S = 60.0


def test_every_register_is_read_from_its_address() -> None:
    text = (GENERATED / "asperity_modbus.st").read_text()
    assert f"ARRAY[0..{STATUS_WORDS - 1}]" in text
    for row in STATUS:
        statement = re.search(rf"status\.{row.name} := (.*);", text)
        assert statement is not None
        addresses = [int(number) for number in re.findall(r"words\[(\d+)\]", statement[1])]
        assert addresses == list(range(row.address, row.address + WORDS[row.kind])), row.name


def test_every_field_of_the_record_is_read_from_its_offset() -> None:
    text = (GENERATED / "asperity.st").read_text()
    for field in record_fields():
        statement = re.search(rf"record\.{field.name} := (.*);", text)
        assert statement is not None
        nbytes = int(field.kind[1:]) // 8
        read = [int(number) for number in re.findall(r"bytes\[(\d+)\]", statement[1])]
        assert read == list(range(field.offset, field.offset + nbytes)), field.name


def test_the_station_block_uses_only_fields_that_there_are() -> None:
    used = set(re.findall(r"\bstatus\.([a-z_]+)", STATION.read_text()))
    assert used and used <= {row.name for row in STATUS}


def status(**values: Any) -> dict[str, Any]:
    """A station that runs, with a good result."""
    usual = {
        "beat": 1, "accept": 1, "quality": 1, "state": 8, "result_valid": 5, "verdict": 1, "reason": 1, "result_no": 4,
        "result_no_copy": 4, "score": 0.5, "threshold": 1.0, "session": 9, "table_version": TABLE_VERSION,
        "beat_timeout_ms": 600, "triggers": TRIGGERS["free_run"],
    }  # fmt: skip
    return {row.name: 0 for row in STATUS} | usual | values


@pytest.mark.foreign
def test_records_are_read_exactly_and_pass_only_whole(compiled: Plc) -> None:
    result = Result(
        station="st1", session="0b0e7a1c-3f52-4c1e-9d0a-5f6e7d8c9b0a", result_id=2**40 + 1, seq=2**33 + 5, trigger_id=7,
        part_id="4711", verdict=Verdict.OK, reason=Reason.GOOD, score=0.123456789, threshold=3.25e-5 * 1e5,
        t_exposure_us=1_790_000_000_000_001,
    )  # fmt: skip
    body = encode_record(result, state=8, station_number=9)
    told = compiled.record(body)
    assert told[:8] == ["1", "1", "8", "1", str(2**40 + 1), str(2**33 + 5), "1790000000000001", "7"]
    assert struct.pack("<ff", float(told[8]), float(told[9])) == body[40:48], "to the last bit"
    assert told[10:] == ["1", "4711"]
    for at in range(64):
        damaged = bytearray(body)
        damaged[at] ^= 1 << at % 8
        assert compiled.record(bytes(damaged))[1] == "0", f"byte {at}"
    for at, value in ((5, 3), (5, 4), (6, 2), (7, 0), (7, 5), (52, 2), (40, 0xFF)):
        changed = bytearray(body[:60])
        changed[at] = value
        if at == 40:
            changed[40:44] = struct.pack("<f", float("nan"))
        whole = bytes(changed) + zlib.crc32(changed).to_bytes(4, "little")
        assert compiled.record(whole)[:2] == ["1", "0"], f"byte {at} = {value}: valid, and no pass"
    simulated = bytearray(body[:60])
    simulated[7] = 5
    whole = bytes(simulated) + zlib.crc32(simulated).to_bytes(4, "little")
    assert compiled.record(whole, allow_simulated=True)[:2] == ["1", "1"]


def test_a_good_part_passes_only_while_the_station_lives(plc: TranslatedPlc | Plc) -> None:
    assert not plc.call(10, status(result_valid=0))["alive"], "the beat has not moved yet"
    assert plc.call(10, status(beat=2, result_valid=0))["alive"]
    told = plc.call(10, status(beat=3))
    assert told["accept"] and told["new_result"] and told["result_ack"] == 5
    told = plc.call(100, status(beat=4))
    assert told["accept"] and not told["new_result"] and told["write_ack"], "each result is taken once"
    assert not plc.call(500, status(beat=5))["accept"], "after hold"
    assert plc.call(10, status(beat=6, result_valid=6, result_no=5, result_no_copy=5))["accept"]
    plc.call(10)
    assert not plc.call(500)["alive"], "nothing was read for link_timeout"
    plc.call(10, status(beat=7, result_valid=6))
    for _ in range(30):
        told = plc.call(50, status(beat=7, result_valid=6))
    assert not told["alive"], "the beat stands still"
    assert plc.call(10, status(beat=8, result_valid=6))["alive"]
    told = plc.call(10, status(beat=9, result_valid=7, session=10))
    assert not told["alive"] and not told["accept"], "a new session: not before its beat has moved"


@pytest.mark.parametrize(
    "wrong",
    [
        {"accept": 0}, {"accept": 2}, {"quality": 0}, {"verdict": 0}, {"verdict": 2}, {"verdict": 7}, {"reason": 0},
        {"reason": 2}, {"reason": 999}, {"state": 3}, {"state": 4}, {"state": 9}, {"score": 1.5}, {"simulated": 1},
        {"score": float("nan")}, {"threshold": float("nan")}, {"threshold": float("inf")}, {"result_no_copy": 3},
        {"table_version": TABLE_VERSION + 1}, {"result_valid": 0},
    ],
)  # fmt: skip
def test_one_field_that_does_not_say_so_is_a_reject(plc: TranslatedPlc | Plc, wrong: dict[str, Any]) -> None:
    plc.call(10, status(result_valid=0))
    plc.call(10, status(beat=2, result_valid=0))
    assert not plc.call(10, status(beat=3, **wrong))["accept"]


def test_a_trigger_has_one_answer_or_runs_out(plc: TranslatedPlc | Plc) -> None:
    plc.call(10, status(result_valid=0))
    plc.call(10, status(beat=2, result_valid=0))
    told = plc.call(10, status(beat=3, result_valid=0), trigger=True)
    assert told["busy"] and not told["done"] and told["trigger_request"] == 1
    told = plc.call(10, status(beat=4, trigger_id=99), trigger=True)
    assert told["busy"] and not told["accept"] and told["result_ack"] == 5, "another's result is taken, and no pass"
    told = plc.call(10, status(beat=5, trigger_id=1, result_valid=6, missing_before=3), trigger=True)
    assert told["done"] and told["accept"] and not told["busy"] and not told["timed_out"] and told["lost"] == 3
    plc.call(10, status(beat=6, trigger_id=1, result_valid=6))
    told = plc.call(10, status(beat=7, trigger_id=1, result_valid=6), trigger=True)
    assert told["busy"] and not told["accept"] and told["trigger_request"] == 2, "a new part begins as a reject"
    beat = 8
    for _ in range(45):
        told = plc.call(50, status(beat=beat, result_valid=0), trigger=True)
        beat += 1
    assert told["done"] and told["timed_out"] and not told["accept"] and not told["busy"]
    told = plc.call(10, status(beat=beat, trigger_id=2, result_valid=7))
    assert not told["accept"] and told["result_ack"] == 7, "too late: acknowledged, and no pass"


def test_on_a_line_with_triggers_a_frame_that_nobody_announced_opens_no_gate(plc: TranslatedPlc | Plc) -> None:
    """A bad part, then a stray exposure of the empty belt: the gate must not open for the part that is still there."""
    plc.call(10, status(result_valid=0))
    plc.call(10, status(beat=2, result_valid=0), trigger=True)
    bad = {"trigger_id": 1, "accept": 0, "verdict": 2, "reason": 2, "score": 1.5}
    told = plc.call(10, status(beat=3, result_valid=5, **bad), trigger=True)
    assert told["done"] and not told["accept"]
    for triggers in range(5):
        told = plc.call(10, status(beat=4 + triggers, result_valid=6 + triggers, triggers=triggers))
        assert told["new_result"] and not told["accept"], triggers
    plc.call(10, status(beat=20, result_valid=0), trigger=True)
    told = plc.call(10, status(beat=21, result_valid=20, triggers=2), trigger=True)
    assert told["busy"] and not told["accept"], "nor for a part that waits for its own"
    told = plc.call(10, status(beat=22, result_valid=21, triggers=2, trigger_id=2), trigger=True)
    assert told["accept"] and told["done"], "which then comes"


def test_without_triggers_only_a_free_running_station_passes_parts(plc: TranslatedPlc | Plc) -> None:
    plc.call(10, status(result_valid=0))
    plc.call(10, status(beat=2, result_valid=0))
    for turn, (triggers, trigger_id, passes) in enumerate(
        ((0, 0, 0), (1, 0, 1), (2, 0, 0), (3, 0, 0), (4, 0, 0), (1, 9, 0), (1, 0, 1))
    ):
        one = status(beat=3 + turn, result_valid=5 + turn, triggers=triggers, trigger_id=trigger_id, simulated=1)
        assert plc.call(10, one, simulated=True)["accept"] == passes, (triggers, trigger_id)


def test_only_results_of_the_recipe_that_is_asked_for_pass(plc: TranslatedPlc | Plc) -> None:
    plc.call(10, status(result_valid=0), recipe=2)
    plc.call(10, status(beat=2, result_valid=0), recipe=2)
    for turn, (judged_by, passes) in enumerate(((1, 0), (0, 0), (2, 1))):
        one = status(beat=3 + turn, result_valid=5 + turn, result_recipe=judged_by)
        assert plc.call(10, one, recipe=2)["accept"] == passes, judged_by
    told = plc.call(10, status(beat=6, result_valid=0), trigger=True, recipe=2)
    assert (told["trigger_request"], told["trigger_recipe"]) == (1, 2)
    told = plc.call(10, status(beat=7, result_valid=8, trigger_id=1, result_recipe=3), trigger=True, recipe=3)
    assert told["done"] and not told["accept"], "the recipe is that of the moment of the trigger"
    plc.call(10, status(beat=8, result_valid=0), recipe=3)
    plc.call(10, status(beat=9, result_valid=0), trigger=True, recipe=3)
    assert plc.call(10, status(beat=10, result_valid=9, trigger_id=2, result_recipe=3), trigger=True)["accept"]


class Modbus:
    """The few bytes of Modbus TCP that a PLC needs."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._number = 0

    def _ask(self, body: bytes) -> bytes:
        self._number = self._number % 65535 + 1
        self._socket.sendall(struct.pack(">HHHB", self._number, 0, len(body) + 1, 1) + body)
        number, _, length, _ = struct.unpack(">HHHB", self._take(7))
        answer = self._take(length - 1)
        assert number == self._number and answer[0] == body[0], answer.hex()
        return answer

    def _take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            more = self._socket.recv(count - len(taken))
            assert more, "the gateway has closed"
            taken += more
        return taken

    def read(self) -> list[int]:
        return list(struct.unpack(f">{STATUS_WORDS}H", self._ask(struct.pack(">BHH", 3, 0, STATUS_WORDS))[2:]))

    def write(self, address: int, *words: int) -> None:
        self._ask(struct.pack(f">BHHB{len(words)}H", 16, address, len(words), 2 * len(words), *words))

    def close(self) -> None:
        self._socket.close()


@pytest.mark.foreign
def test_the_block_runs_a_simulated_station_over_the_real_gateway(compiled: Plc, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="asp-"))
    ends = {name: f"ipc://{folder}/{name}" for name in ("frames", "results", "bulk", "control")}
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'[station]\nresults = "{ends["results"]}"\ncontrol = "{ends["control"]}"\n'
        f"[gateway]\naccept_simulated = true\n[modbus]\nport = {port}\n"
    )
    cli = [sys.executable, "-m", "asperity.runtime.cli"]
    where = [f"--{name}={end}" for name, end in ends.items()]
    script = "ok ng STALE ok shape WRONG_RECIPE NO_FRAME ok"
    started = [
        subprocess.Popen([*cli, "simulate", "--log-level=error", "--on-trigger", f"--script={script}", *where]),
        subprocess.Popen([*cli, "gateway", "modbus", f"--config={config}"], stderr=subprocess.DEVNULL),
    ]
    modbus = None
    try:
        ends_s = time.monotonic() + PATIENCE_S
        while modbus is None:
            assert time.monotonic() < ends_s
            try:
                modbus = Modbus(port)
            except ConnectionRefusedError:
                time.sleep(0.05)
        seen: list[tuple[bool, bool]] = []
        trigger, last_s, told = False, time.monotonic(), {"alive": 0, "busy": 0, "done": 0, "trigger_request": 0}
        while len(seen) < 8 + 3:  # the first triggers may come before the camera has subscribed
            assert time.monotonic() < ends_s, (seen, told)
            now_s = time.monotonic()
            words = dict(zip((row.name for row in STATUS), unpack_status(modbus.read()), strict=True))
            told = compiled.call(max(1, round((now_s - last_s) * 1000)), words, trigger=trigger, simulated=True)
            last_s = now_s
            if told["write_ack"]:
                modbus.write(100, told["result_ack"])
            modbus.write(104, 0, told["trigger_request"], 0, 77, told["trigger_recipe"])
            if trigger and told["done"]:
                seen.append((bool(told["accept"]), bool(told["timed_out"])))
                trigger = False
            elif told["alive"] and words["state"] == 8:
                trigger = True
            time.sleep(0.01)
        accepts = [accept for accept, _ in seen]
        first = accepts.index(True)  # the first ok of the script that was answered
        expected = [True, False, False, True, False, False, False, True]
        assert accepts[first : first + 8] == expected[: len(accepts) - first], seen
    finally:
        if modbus is not None:
            modbus.close()
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


def unpack_status(words: list[int]) -> list[int | float]:
    """Values of the status block, in order of the table."""
    return list(unpack(STATUS, struct.pack(f">{STATUS_WORDS}H", *words)).values())


GATE = EXAMPLES / "plc" / "asperity_gate.st"
HERE = {"new_result": True, "accept": True, "part_known": True, "position": 100, "offset": 1000, "window": 20}


def gate() -> Any:
    block = Block(Program(GATE.read_text()), "ASPERITY_GATE")

    def call(encoder: int, **inputs: Any) -> bool:
        usual = {"new_result": False, "accept": False, "part_known": False, "alive": True, "clear": False}
        block(**{**usual, "encoder": encoder, **inputs})
        return bool(block.open)

    return call


def test_the_gate_opens_at_position_and_offset_of_an_accepted_part_alone() -> None:
    call = gate()
    assert not call(100, **HERE)
    assert [at for at in range(150, 1500, 10) if call(at)] == list(range(1080, 1130, 10))
    assert [at for at in range(1000, 1200, 10) if call(at)] == [], "once"


@pytest.mark.parametrize(
    "wrong",
    [
        {"accept": False}, {"part_known": False}, {"new_result": False}, {"alive": False}, {"clear": True},
        {"position": -2000},
    ],
)  # fmt: skip
def test_the_gate_stays_shut_for_everything_else(wrong: dict[str, Any]) -> None:
    call = gate()
    call(100, **{**HERE, **wrong})
    assert not any(call(at) for at in range(150, 1500, 10))


@pytest.mark.parametrize("then", [{"alive": False}, {"clear": True}, {**HERE, "accept": False, "position": 110}])
def test_the_gate_forgets_a_part_on_the_way_when_in_doubt(then: dict[str, Any]) -> None:
    call = gate()
    call(100, **HERE)
    call(150, **then)
    assert not any(call(at) for at in range(200, 1500, 10))


def test_the_gate_keeps_parts_apart_and_has_room_for_so_many() -> None:
    call = gate()
    for number in range(33):
        call(number * 50, **{**HERE, "position": number * 50, "offset": 5000, "accept": number != 7})
    opened = [at for at in range(4900, 7000, 10) if call(at, offset=5000, window=20)]
    assert {round((at - 5000) / 50) for at in opened} == set(range(33)) - {7}


def test_who_a_part_is_is_read_from_its_registers() -> None:
    block = Block(Program((GENERATED / "asperity.st").read_text(), (GENERATED / "asperity_modbus.st").read_text()),
                  "ASPERITY_READ_PART")  # fmt: skip
    shown = result(70_001, part_id="x\u00fc\x1d7", position=-123_456_789_012)
    words = list(struct.unpack(f">{words_of(PART)}H", shown_block(PART, shown)))
    block(words=words)
    assert block.consistent and block.position_given and (block.result_no, block.position) == (70_001, -123_456_789_012)
    assert bytes(block.id[: block.id_length]) == "x\u00fc\x1d7".encode()
    block(words=[*words[:-1], words[-1] + 1])
    assert not block.consistent and not block.position_given
