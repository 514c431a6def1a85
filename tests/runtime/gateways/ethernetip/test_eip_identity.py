"""Who a part is and what is counted, over EtherNet/IP: ids of 256 bytes in both directions, lot, order and shift."""

from __future__ import annotations

import struct
from collections.abc import Callable

from asperity.runtime.gateways.ethernetip.assemblies import (
    COUNTED,
    PRODUCED,
    SHOWN_BATCH,
    SHOWN_PART,
    TRIGGERED_PART,
    Assembly,
)
from tests.runtime.gateways.ethernetip.eip_floor import Controller, Floor
from tests.runtime.gateways.floor import reply, result

NewFloor = Callable[..., Floor]
PART_ID = "0104012345678901\x1d21" + "ü" * 118 + "x"
GET, SET = 0x0E, 0x10


def cut(assembly: Assembly, data: bytes, name: str) -> bytes:
    """From a field on."""
    return data[next(place.offset for place in assembly.places if place.row.name == name) :]


def text(assembly: Assembly, data: bytes, name: str) -> str:
    field = cut(assembly, data, name)
    return field[4 : 4 + int.from_bytes(field[:4], "little")].decode()


def written(**values: bytes) -> bytes:
    """Assembly 152 with these fields."""
    data = bytearray(TRIGGERED_PART.nbytes)
    for place in TRIGGERED_PART.places:
        value = values.get(place.row.name, b"")
        if place.row.kind.startswith("text"):
            value = len(value).to_bytes(4, "little") + value
        data[place.offset : place.offset + len(value)] = value
    return bytes(data)


def read(controller: Controller, assembly: Assembly) -> bytes:
    data = controller.ask(GET, 4, assembly.instance, 3).value
    assert len(data) == assembly.nbytes
    return bytes(data)


def test_a_part_id_of_256_bytes_lot_order_shift_and_position_are_read(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect(True)
    assert len(PART_ID.encode()) == 256
    floor.show(result(7, part_id=PART_ID, lot="L 1", order="ü", shift="night", position=-5))
    data = read(controller, SHOWN_PART)
    assert text(SHOWN_PART, data, "part_id") == PART_ID
    assert struct.unpack_from("<q", cut(SHOWN_PART, data, "position"))[0] == -5
    assert struct.unpack_from("<I", data)[0] == 7
    batch = read(controller, SHOWN_BATCH)
    assert [text(SHOWN_BATCH, batch, name) for name in ("lot", "order", "shift")] == ["L 1", "ü", "night"]
    assert read(controller, COUNTED) == bytes(COUNTED.nbytes)
    assert not {SHOWN_PART, SHOWN_BATCH, COUNTED} & set(PRODUCED)


def test_a_trigger_names_a_part_id_of_256_bytes_and_a_position(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect()
    floor.link.replies.extend([reply("ACCEPTED"), reply("OK")])
    asked = written(
        part_for=struct.pack("<I", 9), trigger_position_given=b"\x01\x00", trigger_position=struct.pack("<q", -7),
        trigger_part_id=PART_ID.encode(), set_lot=b"L 2",
    )  # fmt: skip
    assert not controller.ask(SET, 4, TRIGGERED_PART.instance, 3, asked).error
    assert read(controller, TRIGGERED_PART) == asked
    assert controller.write(trigger_request=9) == "" and controller.write(trigger_request=9, command=8) == ""
    trigger, batch = floor.asked
    assert trigger[1]["part_id"] == PART_ID and trigger[1]["position"] == -7
    assert batch[0] == "set_batch" and batch[1]["lot"] == "L 2"


def test_a_text_that_claims_more_than_its_room_is_refused(new_floor: NewFloor) -> None:
    controller = new_floor().connect()
    data = bytearray(written())
    at = next(place.offset for place in TRIGGERED_PART.places if place.row.name == "trigger_part_id")
    data[at : at + 4] = b"\x03\x00\x01\x00"
    assert "invalid attribute value" in controller.ask(SET, 4, TRIGGERED_PART.instance, 3, bytes(data)).error
