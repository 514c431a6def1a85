"""The texts for Siemens and Beckhoff, and the EDS file: none of their compilers is here, so what can be is compared."""

from __future__ import annotations

import re

from asperity.runtime.gateways.ethernetip.assemblies import ALL, ASSEMBLIES, COMMAND
from asperity.runtime.gateways.modbus.table import STATUS, STATUS_WORDS, WORDS, WRITE_ADDRESS, WRITE_WORDS, WRITES
from tests.examples.plc_blocks import GENERATED, STATION
from tests.places import EXAMPLES

SIEMENS, BECKHOFF = EXAMPLES / "plc" / "siemens_station.scl", EXAMPLES / "plc" / "beckhoff_station.st"


def body(text: str, begins: str) -> str:
    """The statements from ``begins`` to the end of the block, without comments, prefixes and line breaks."""
    plain = re.sub(r"\(\*.*?\*\)|//[^\n]*", "", text, flags=re.S)
    statements = plain[plain.index(begins) : plain.index("END_FUNCTION_BLOCK")]
    return " ".join(statements.replace("#", "").replace('"', "").split())


def test_the_block_for_siemens_has_the_statements_of_the_one_that_is_run() -> None:
    ours, theirs = STATION.read_text(), SIEMENS.read_text()
    assert body(theirs, "#beat_moved := FALSE") == body(ours, "beat_moved := FALSE")
    for name in re.findall(r"^        (\w+) :", ours, re.M):
        assert re.search(rf"^    {name} : ", theirs, re.M), f"{name} is not declared"


def test_the_generated_scl_reads_every_register_from_its_address_and_asks_all_that_the_st_asks() -> None:
    text = (GENERATED / "asperity_modbus.scl").read_text()
    assert f"Array[0..{STATUS_WORDS - 1}] of Word" in text
    for row in STATUS:
        statement = re.search(rf"#status\.{row.name} := (.*);", text)
        assert statement is not None
        addresses = [int(number) for number in re.findall(r"words\[(\d+)\]", statement[1])]
        assert addresses == list(range(row.address, row.address + WORDS[row.kind])), row.name
    asked = [
        set(re.findall(r"status\.(\w+) *(?:=|<>|<=)", part[part.index("consistent :=") :]))
        for part in ((GENERATED / name).read_text() for name in ("asperity_modbus.scl", "asperity_modbus.st"))
    ]
    assert asked[0] == asked[1] and len(asked[0]) > 8


def test_the_programs_read_and_write_the_whole_blocks() -> None:
    beckhoff, siemens = BECKHOFF.read_text(), SIEMENS.read_text()
    assert f"nQuantity := {STATUS_WORDS}, nMBAddr := 0" in beckhoff
    assert f"nQuantity := {WRITE_WORDS}, nMBAddr := {WRITE_ADDRESS}" in beckhoff
    assert f"MB_MODE := 103, MB_DATA_ADDR := 0, MB_DATA_LEN := {STATUS_WORDS}" in siemens
    assert f"MB_MODE := 116, MB_DATA_ADDR := {WRITE_ADDRESS}, MB_DATA_LEN := {WRITE_WORDS}" in siemens
    for row in WRITES:
        at = row.address - WRITE_ADDRESS
        for text in (beckhoff, siemens):
            written = re.search(rf"out\[{at}\] := (.*);", text)
            assert written is not None
            if row.name in ("result_ack", "trigger_request", "trigger_part", "trigger_recipe"):
                assert f"station.{row.name}" in written[1], row.name


def test_the_eds_file_adds_up() -> None:
    text = (GENERATED / "asperity.eds").read_text()
    assert text.count('"') % 2 == 0 and "2C 96 2C 64" in text
    for assembly in ASSEMBLIES.values():
        entry = re.search(rf"Assem{assembly.instance} =\n(.*?);", text, re.S)
        assert entry is not None and f",{assembly.nbytes}," in entry[1]
        members = re.findall(r"(\d+),(Param\d+)?", entry[1].split(",0x0000,,,")[1])
        assert sum(int(number) for number, _ in members) == 8 * assembly.nbytes
    for assembly in (ALL, COMMAND):
        for row in assembly.rows:
            assert f'"{row.name[:16]}"' in text
