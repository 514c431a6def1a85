"""The assemblies of EtherNet/IP: tables of ``docs/plc/ethernetip.md``, and ``examples/generated/asperity.eds``."""

from __future__ import annotations

from collections.abc import Iterable

from asperity.runtime.documents.banner import MADE
from asperity.runtime.documents.blocks import filled
from asperity.runtime.gateways.ethernetip.assemblies import (
    ACKNOWLEDGE,
    ALL,
    ASSEMBLIES,
    COMMAND,
    CONFIGURATION,
    COUNTED,
    INPUT_ONLY,
    PLC_CLOCK,
    RESULT,
    SHOWN_BATCH,
    SHOWN_CLOCKS,
    SHOWN_PART,
    STATE,
    TRIGGERED_PART,
    WRITE_STATUS,
    Assembly,
    nbytes_of,
)
from asperity.runtime.gateways.ethernetip.connections import RPI_MAX_US
from asperity.runtime.gateways.ethernetip.objects import DEVICE_TYPE, PRODUCT, REVISION
from asperity.runtime.gateways.ethernetip.settings import Ethernetip
from asperity.runtime.gateways.modbus.table import Kind, Row

TYPES: dict[Kind, str] = {
    "u16": "UINT", "u32": "UDINT", "i64": "LINT", "f32": "REAL", "text64": "UDINT length, 64 bytes of UTF-8",
    "text256": "UDINT length, 256 bytes of UTF-8",
}  # fmt: skip
CODES: dict[Kind, int] = {"u16": 0xC7, "u32": 0xC8, "i64": 0xC5, "f32": 0xCA, "text64": 0xD1, "text256": 0xD1}
EDS_NAME_MAX, EDS_HELP_MAX = 16, 64
RPI_US = 20_000


def _meaning(row: Row) -> str:
    return row.meaning.replace("[modbus]", "[ethernetip]")


def assemblies() -> list[str]:
    """What instances there are."""
    rows = [
        f"| {each.instance} | {each.name} | {each.nbytes} | {'read, write' if each.writable else 'read'} "
        f"| {each.meaning} |"
        for each in ASSEMBLIES.values()
    ]
    return ["| instance | name | bytes | access | what it is |", "|---|---|---|---|---|", *rows]


def _fields(*columns: Assembly) -> list[str]:
    """Where each field begins in each of the assemblies."""
    offsets = {each.instance: {place.row.name: place.offset for place in each.places} for each in columns}
    head = " | ".join(f"byte in {each.instance}" for each in columns)
    lines = [f"| {head} | type | name | meaning |", "|---" * (len(columns) + 3) + "|"]
    for row in columns[0].rows:
        cells = " | ".join(str(offsets[each.instance].get(row.name, "")) for each in columns)
        lines.append(f"| {cells} | {TYPES[row.kind]} | `{row.name}` | {_meaning(row)} |")
    return lines


def produced() -> list[str]:
    """The fields that are read."""
    lines = _fields(ALL, RESULT, STATE)
    for each in (SHOWN_PART, SHOWN_BATCH, COUNTED, SHOWN_CLOCKS):
        lines += ["", *_fields(each)]
    return lines


def consumed() -> list[str]:
    """The fields that are written, and the outcomes of a write."""
    lines = [*_fields(COMMAND, ACKNOWLEDGE), "", *_fields(TRIGGERED_PART), "", *_fields(PLC_CLOCK), ""]
    lines += [ "| `write_status` | name | the last write |", "|---|---|---|"]
    return lines + [f"| {number} | {name} | {meaning} |" for number, (name, meaning) in WRITE_STATUS.items()]


def page(present: str) -> str:
    """The page as it is, with its tables generated again. Raises DataError when a block is missing from it."""
    return filled(present, {"assemblies": assemblies, "produced": produced, "consumed": consumed})


def eds() -> str:
    """The electronic data sheet: what a configuration tool knows of the device."""
    parameters: dict[str, int] = {}
    lines = [
        f"$ {MADE}",
        "$ VendCode 0: no ODVA vendor number; put that of [ethernetip] vendor_id here. Not tested for conformance.",
        "",
        "[File]",
        '        DescText = "Asperity inspection station";',
        "        CreateDate = 11-30-2026;",
        "        CreateTime = 00:00:00;",
        f"        Revision = {REVISION[0]}.{REVISION[1]};",
        "",
        "[Device]",
        f"        VendCode = {Ethernetip().vendor_id};",
        '        VendName = "Asperity";',
        f"        ProdType = {DEVICE_TYPE};",
        '        ProdTypeStr = "Generic Device (keyable)";',
        f"        ProdCode = {PRODUCT};",
        f"        MajRev = {REVISION[0]};",
        f"        MinRev = {REVISION[1]};",
        '        ProdName = "Asperity station";',
        '        Catalog = "asperity";',
        "",
        "[Device Classification]",
        "        Class1 = EtherNetIP;",
        "",
        "[Params]",
    ]
    for row in dict.fromkeys(row for each in ASSEMBLIES.values() for row in each.rows):
        parameters[row.name] = len(parameters) + 1
        lines += _parameter(parameters[row.name], CODES[row.kind], nbytes_of(row), row.name, _meaning(row))
    rpi = len(parameters) + 1
    bounds = f"{Ethernetip().cyclic_min_ms * 1000},{RPI_MAX_US},{RPI_US}"
    lines += _parameter(rpi, CODES["u32"], 4, "RPI", "interval of cyclic data, microseconds", bounds)
    lines += ["", "[Assembly]", '        Object_Name = "Assembly Object";', "        Object_Class_Code = 0x04;"]
    for each in ASSEMBLIES.values():
        lines += _assembly(each, parameters)
    return "\n".join([*lines, *_connections(rpi), ""])


def _parameter(number: int, code: int, nbytes: int, name: str, meaning: str, bounds: str = ",,0") -> list[str]:
    text = "".join(letter for letter in f"{name}: {meaning}" if " " <= letter <= "~" and letter not in '"\\;')
    return [
        f"        Param{number} =",
        f'                0,,,0x0000,0x{code:02X},{nbytes},"{name[:EDS_NAME_MAX]}","","{text[:EDS_HELP_MAX]}",',
        f"                {bounds},,,,,,,,,;",
    ]


def _assembly(assembly: Assembly, parameters: dict[str, int]) -> list[str]:
    """Its fields in bits, with the gaps between them."""
    fields, at = [], 0
    for place in assembly.places:
        if place.offset > at:
            fields.append(f"{8 * (place.offset - at)},")
        fields.append(f"{8 * nbytes_of(place.row)},Param{parameters[place.row.name]}")
        at = place.offset + nbytes_of(place.row)
    if assembly.nbytes > at:
        fields.append(f"{8 * (assembly.nbytes - at)},")
    return [
        f"        Assem{assembly.instance} =",
        f'                "{assembly.name}","20 04 24 {assembly.instance:02X} 30 03",{assembly.nbytes},0x0000,,,',
        *(f"                {text},"  for text in fields[:-1]),
        f"                {fields[-1]};",
    ]


def _connections(rpi: int) -> Iterable[str]:
    """Exclusive owner: a header of 32 bits from the controller, none back; point to point both ways. Input only."""
    kinds = (
        (1, "Exclusive Owner", 0x04010002, 0x77440405, f"Param{rpi},,Assem{COMMAND.instance}", COMMAND.instance),
        (2, "Input Only", 0x02010002, 0x77440305, f"Param{rpi},0,", INPUT_ONLY),
    )
    yield ""
    yield "[Connection Manager]"
    yield '        Object_Name = "Connection Manager Object";'
    yield "        Object_Class_Code = 0x06;"
    for number, name, trigger, parameters, consumes, point in kinds:
        yield f"        Connection{number} ="
        yield f"                0x{trigger:08X},0x{parameters:08X},"
        yield f"                {consumes},"
        yield f"                Param{rpi},,Assem{ALL.instance},"
        yield "                ,,"
        yield "                ,,"
        yield f'                "{name}","",'
        yield f'                "20 04 24 {CONFIGURATION:02X} 2C {point:02X} 2C {ALL.instance:02X}";'
    yield ""
    yield "[Port]"
    yield '        Port1 = TCP,"EtherNet/IP","20 F5 24 01",1;'
