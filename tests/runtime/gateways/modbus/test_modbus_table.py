"""The register table: what a PLC programmer types in must never move."""

from __future__ import annotations

import itertools
import struct

from asperity.runtime.gateways.modbus.server import READ_MAX
from asperity.runtime.gateways.modbus.table import (
    COMMANDS,
    ROWS,
    STATUS,
    STATUS_CODES,
    STATUS_OF_CODE,
    STATUS_WORDS,
    WORDS,
    WRITE_WORDS,
    WRITES,
    pack,
    unpack,
)
from asperity.runtime.wire import OPERATIONS
from asperity.runtime.wire.control import CODES

GOLDEN = bytes.fromhex(
    "cf150001000100080003000100010002"  # beat accept quality state result_valid verdict reason waiting
    "0001000200000066deadbeef000004d2"  # result_no seq trigger_id part_number
    "3e8000003f0000000000bab000000005"  # score threshold latency_us missing_before
    "0000000100010009"  # deadline_missed simulated overrun recipe
    "0000000600000001000000020000002a"  # overruns gaps missing results
    "025800000123456700020003000a0002"  # beat_timeout_ms alarms session command, recipe, trigger status, version
    "00070003000200013f40000000000004"  # result_recipe recipe_change triggers synced threshold_in_force late
    "00010002"  # result_no_copy
)
VALUES = {
    "beat": 0x12CF15, "accept": 1, "quality": 1, "state": 8, "result_valid": 3, "verdict": 1, "reason": 1,
    "waiting": 2, "result_no": 0x7_0001_0002, "seq": 0x66, "trigger_id": 0xDEADBEEF, "part_number": 1234,
    "score": 0.25, "threshold": 0.5, "latency_us": 0xBAB0, "missing_before": 5, "deadline_missed": 0, "simulated": 1,
    "overrun": 1, "recipe": 9, "overruns": 6, "gaps": 1, "missing": 2, "results": 42, "beat_timeout_ms": 600,
    "alarms": 0, "session": 0x01234567, "command_status": 2, "recipe_status": 3, "trigger_status": 10,
    "table_version": 2, "result_recipe": 7, "recipe_change": 3, "triggers": 2, "synced": 1, "threshold_in_force": 0.75,
    "late": 4, "result_no_copy": 0x7_0001_0002,
}  # fmt: skip


def test_the_block_is_big_endian_high_word_first_and_where_it_always_was() -> None:
    assert pack(STATUS, VALUES) == GOLDEN
    assert unpack(STATUS, GOLDEN)["trigger_id"] == 0xDEADBEEF
    assert struct.unpack_from(">f", GOLDEN, 2 * 16)[0] == 0.25


def test_rows_lie_side_by_side_and_the_block_fits_one_request() -> None:
    for rows in (STATUS, WRITES):
        for row, after in itertools.pairwise(rows):
            assert after.address == row.address + WORDS[row.kind], after
    assert (STATUS[0].name, STATUS[0].address, STATUS[1].name, STATUS[1].address) == ("beat", 0, "accept", 1)
    assert STATUS[-1].name == "result_no_copy"
    assert STATUS_WORDS == 54
    assert STATUS_WORDS <= READ_MAX
    assert (WRITES[0].address, WRITE_WORDS) == (100, 9)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_every_code_of_the_wire_has_a_number_and_every_command_is_an_operation() -> None:
    assert set(CODES) <= set(STATUS_OF_CODE)
    assert len(STATUS_OF_CODE) == len(STATUS_CODES)
    station = {name for name, _ in COMMANDS.values()} - {"clear_overrun", "start_single"}
    assert station <= set(OPERATIONS)
    assert 0 not in COMMANDS
