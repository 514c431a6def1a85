"""Who a part is, in registers: an id arrives whole and of one moment; a trigger takes only what was written for it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import GatewayConfig, Modbus
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.server import READ_MAX, WRITE_MAX, Refusal
from asperity.runtime.gateways.modbus.table import (
    BATCH,
    COUNTED_REASONS,
    COUNTS,
    PART,
    PART_WRITES,
    WORDS,
    unpack,
    words_of,
)
from asperity.runtime.reasons import Reason
from asperity.runtime.text.part_identity import PART_ID_MAX_NBYTES
from tests.runtime.gateways.floor import COUNTERS, FakeLink, reply, result
from tests.runtime.wire.test_wire_properties import batch_texts, part_ids, positions

AT = {row.name: row.address for row in (*PART, *BATCH, *PART_WRITES)}
GS1 = "010401234567890121x-4\u00fc\x1d10L-2026/7"


class Plc:
    """Reads and writes the registers as the server does, without a socket."""

    def __init__(self, acknowledged: bool = True) -> None:
        self.link = FakeLink()
        assert self.link.state is not None
        self.registers = ModbusRegisters(GatewayConfig(modbus=Modbus(recipes={}, handshake=acknowledged)), self.link)  # type: ignore[arg-type]
        self.write(100, 0, 0, 0, 1000, 0, 0, 0, 0, 0)

    def read(self, name: str, count: int) -> bytes:
        assert count <= READ_MAX
        return self.registers.read(AT[name], count)

    def write(self, address: int, *words: int) -> None:
        assert len(words) <= WRITE_MAX
        self.registers.write(address, list(words), "here")

    def text(self, name: str, text: bytes) -> None:
        """Length, then bytes, in as many requests as it takes."""
        words = [len(text), *struct.unpack(f">{(len(text) + 1) // 2}H", text + b"\0" * (len(text) % 2))]
        for first in range(0, len(words), WRITE_MAX):
            self.write(AT[name] + first, *words[first : first + WRITE_MAX])

    def trigger(self, number: int) -> None:
        self.write(104, number >> 16, number & 0xFFFF)

    def status(self, name: str) -> int:
        return int.from_bytes(self.registers.read({"command": 40, "trigger": 42}[name], 1), "big")


@pytest.fixture(scope="module")
def plc() -> Iterator[Plc]:
    yield Plc(acknowledged=False)


def unpacked(block: bytes) -> tuple[int, bool, int, bytes]:
    number, given, position, length = struct.unpack_from(">IHqH", block)
    return number, bool(given), position, block[16 : 16 + length]


@settings(max_examples=60)
@given(part_ids, batch_texts, batch_texts, positions, st.sampled_from(Verdict))
def test_whatever_a_part_is_called_the_registers_say_so(
    plc: Plc, part_id: str, lot: str, shift: str, position: int | None, verdict: Verdict
) -> None:
    """Id, position and the number of their result are of one moment; an id of 256 bytes takes two requests."""
    item = result(70_001, verdict, part_id=part_id, lot=lot, shift=shift, position=position)
    plc.link.put(item)
    block = plc.read("part_result_no", READ_MAX)
    if len(part_id.encode()) > 234:
        block += plc.registers.read(AT["part_result_no"] + READ_MAX, words_of(PART) - READ_MAX)
        assert block[-4:] == block[:4]
    assert unpacked(block) == (70_001, position is not None, position or 0, part_id.encode())
    batch = plc.read("batch_result_no", words_of(BATCH))
    texts = [batch[4 + 66 * n :][:66] for n in range(3)]
    assert [text[2 : 2 + int.from_bytes(text[:2], "big")].decode() for text in texts] == [lot, "", shift]
    assert batch[:4] == batch[-4:] == block[:4]


def test_without_a_result_nobody_is_shown() -> None:
    plc = Plc()
    for rows in (PART, BATCH):
        assert set(plc.registers.read(rows[0].address, min(READ_MAX, words_of(rows)))) == {0}
    for address, count in ((199, 2), (200, 139), (338, 1), (399, 1), (503, 1), (599, 1), (835, 1)):
        with pytest.raises(Refusal):
            plc.registers.read(address, count)


def test_a_trigger_takes_the_id_and_position_that_were_written_for_it_alone() -> None:
    plc = Plc()
    plc.text("trigger_part_id", GS1.encode())
    plc.write(AT["part_for"], 0, 7, 1, *struct.unpack(">4H", struct.pack(">q", -5)))
    plc.link.replies.extend([reply("ACCEPTED")] * 2)
    plc.trigger(7)
    plc.write(106, 0, 99)
    plc.trigger(8)
    (_, first), (_, second) = plc.link.asked
    assert (first["trigger_id"], first["part_id"], first["position"]) == (7, GS1, -5)
    assert (second["trigger_id"], second["part_id"]) == (8, "99") and "position" not in second


@pytest.mark.parametrize("text", [b"\xff\xfe", b"x" * (PART_ID_MAX_NBYTES + 2)])
def test_a_trigger_whose_id_cannot_be_read_is_not_sent_and_its_result_is_no_pass(text: bytes) -> None:
    plc = Plc()
    plc.text("trigger_part_id", text[:PART_ID_MAX_NBYTES])
    plc.write(AT["trigger_part_id"], len(text))
    plc.write(AT["part_for"], 0, 7)
    plc.trigger(7)
    assert (plc.link.asked, plc.status("trigger")) == ([], 11)
    plc.link.put(result(5, trigger_id=7))
    assert plc.registers.read(0, 54)[2:4] == b"\0\0", "accept"


def test_half_a_number_is_refused_and_half_a_text_is_not() -> None:
    plc = Plc()
    for address, words in ((600, 1), (601, 1), (603, 3), (605, 4)):
        with pytest.raises(Refusal):
            plc.write(address, *[1] * words)
    plc.write(AT["trigger_part_id"] + 3, 0x4142)
    assert plc.registers.read(AT["trigger_part_id"] + 3, 1) == b"AB" and plc.registers.read(600, 7) == bytes(14)


def test_lot_order_and_shift_are_set_by_a_command() -> None:
    plc = Plc()
    plc.text("set_lot", "L-7\u00fc".encode())
    plc.text("set_shift", b"late")
    assert plc.link.asked == []
    plc.link.replies.append(reply("OK"))
    plc.write(101, 8)
    (op, fields), = plc.link.asked
    assert op == "set_batch" and {name: fields[name] for name in ("lot", "order", "shift")} == {
        "lot": "L-7\u00fc", "order": "", "shift": "late",
    }  # fmt: skip
    assert plc.status("command") == 2
    plc.write(101, 0)
    plc.write(AT["set_order"], 65)
    plc.write(101, 8)
    assert plc.status("command") == 11 and len(plc.link.asked) == 1, "longer than its registers"


def test_the_counters_are_shown_and_reset(plc: Plc) -> None:
    plc.link.counters = None
    assert set(plc.registers.read(900, words_of(COUNTS))) == {0}, "before the station has said so"
    plc.link.counters = COUNTERS
    assert plc.link.state is not None
    plc.link.state = replace(plc.link.state, lot="L-7\u00fc", shift="late")
    values = unpack(COUNTS, plc.registers.read(900, words_of(COUNTS)))
    assert {name: value for name, value in values.items() if value} == {
        "counted_ok": 9, "counted_ng": 2, "counted_unknown": 1, "batch_ok": 4, "batch_ng": 1, "counter_resets": 3,
        "counted_SHAPE_OUT_OF_RANGE": 2, "counted_LOST": 1,
    }  # fmt: skip
    plc.write(101, 9)
    assert plc.link.asked[-1][0] == "reset_counters"


def test_every_reason_has_its_register_for_ever() -> None:
    assert set(COUNTED_REASONS) == {reason.name for reason in Reason} - {"GOOD", "NOT_JUDGED"}
    assert (COUNTED_REASONS[0], COUNTED_REASONS[27]) == ("SCORE_ABOVE_THRESHOLD", "TIMING_ONLY")
    assert (COUNTS[0].address, COUNTS[-1].address) == (900, 972)
    assert words_of(COUNTS) <= READ_MAX


def test_the_new_blocks_lie_side_by_side_and_far_from_the_old() -> None:
    for rows in (PART, BATCH, PART_WRITES):
        for row, after in itertools.pairwise(rows):
            assert after.address == row.address + WORDS[row.kind], after
    places = [(rows[0].address, words_of(rows)) for rows in (PART, BATCH, PART_WRITES)]
    assert places == [(200, 138), (400, 103), (600, 235)]
