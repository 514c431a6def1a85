"""Cyclic connections of the EtherNet/IP adapter: what is sent and done, who owns, what is refused, how they end."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.ethernetip.assemblies import ACKNOWLEDGE, RESULT
from asperity.runtime.gateways.ethernetip.cip import Extended
from asperity.runtime.gateways.ethernetip.connections import FIRST_S
from tests.runtime.gateways.ethernetip.eip_floor import Floor, Scanner
from tests.runtime.gateways.floor import reply, result, until

NewFloor = Callable[..., Floor]
KEY = bytes.fromhex("3404") + struct.pack("<HHHBB", 0, 43, 1, 0x82, 1)


def test_blocks_come_and_commands_go_in_the_cycle(new_floor: NewFloor) -> None:
    floor = new_floor()
    scanner = Scanner(floor)
    assert scanner.open(front=KEY) == (0,)
    floor.show(result(1), result(2, Verdict.NG))
    shown = scanner.until(lambda block: block["result_no"] == 1, "the first result")
    assert (shown["accept"], shown["quality"], shown["result_no_copy"], shown["verdict"]) == (1, 1, 1, 1)
    shown = scanner.until(lambda block: block["result_no"] == 2, "the next", result_ack=int(shown["result_valid"]))
    assert (shown["accept"], shown["verdict"]) == (0, 2)
    floor.link.replies.extend([reply("ACCEPTED")])
    scanner.until(lambda block: block["trigger_status"] == 3, "the trigger", result_ack=2, trigger_request=9)
    # The same again in each cycle asks for nothing.
    scanner.until(lambda block: block["result_valid"] == 0, "the end", result_ack=3, trigger_request=9)
    assert floor.asked == [("trigger", {"trigger_id": 9, "timeout_ms": 1000})]
    assert floor.connect().ask(0x0E, 1, 1, 5).value == struct.pack("<H", 0x61), "owned, and running"
    assert scanner.shut() == (0,) and scanner.shut() == (1, Extended.NOT_FOUND)


def test_accept_falls_in_the_cycle_whatever_was_sent_before(new_floor: NewFloor) -> None:
    floor = new_floor()
    scanner = Scanner(floor)
    assert scanner.open(consumed=254, ot_nbytes=2) == (0,)
    floor.show(result(1))
    scanner.until(lambda block: block["accept"] == 1, "accept")
    floor.link.good = False
    fallen = scanner.until(lambda block: block["quality"] == 0, "bad quality")
    assert fallen["accept"] == 0
    floor.link.good = True
    scanner.until(lambda block: block["accept"] == 1, "accept again")
    floor.link.expired.add(1)
    scanner.until(lambda block: block["accept"] == 0, "the fall")


def test_who_owns_writes_alone(new_floor: NewFloor) -> None:
    floor = new_floor()
    first, second, controller = Scanner(floor), Scanner(floor), floor.connect()
    assert first.open() == (0,)
    assert second.open(serial=2) == (1, Extended.OWNED)
    assert second.open(serial=2, consumed=254, ot_nbytes=2, produced=101, to_nbytes=2 + RESULT.nbytes) == (0,)
    assert "Device state conflict" in controller.write(command=1)
    assert "Device state conflict" in controller.write(ACKNOWLEDGE, result_ack=1)
    # In another's name, with an id that another has, or older than the last: nothing is done.
    first.send(number=10)
    second.ot_id = first.ot_id + 1
    second.send(command=3)
    first.send(number=9, command=3)
    first.udp.sendto(b"\x02\x00", ("127.0.0.1", floor.server.cyclic_port))
    first.send(number=11, command=77)
    until(lambda: first.receive()["write_status"] == 2, "the refusal")
    assert floor.asked == []
    assert first.shut() == (0,) and controller.write() == ""


def test_a_controller_in_program_mode_asks_for_nothing(new_floor: NewFloor) -> None:
    floor = new_floor(fresh=True)
    scanner = Scanner(floor)
    assert scanner.open() == (0,)
    told = scanner.until(lambda block: block["write_status"] != 0, "a status", run=False, command=1)
    assert told["write_status"] == 5 and floor.asked == []
    scanner.until(lambda block: block["write_status"] == 1, "the first write")
    floor.link.replies.append(reply("OK"))
    scanner.until(lambda block: block["command_status"] == 2, "the command", command=1)
    scanner.send(command=77)
    until(lambda: scanner.receive()["write_status"] == 2, "the refusal")
    assert [op for op, _ in floor.asked] == ["start"]


def test_a_connection_of_which_nothing_comes_is_closed_and_another_may_own(new_floor: NewFloor) -> None:
    floor = new_floor()
    scanner, other = Scanner(floor), Scanner(floor)
    assert scanner.open(multiplier=0) == (0,)  # 4 x 20 ms
    scanner.send()
    # Its session stands; only the datagrams stay away.
    until(lambda: not floor.loop.call(lambda: floor.server.connections.cyclic), "the end of the connection")
    assert other.open(serial=2) == (0,)
    assert floor.loop.call(lambda: floor.server.connections.sweep(time.monotonic() + FIRST_S + 1))
    assert floor.loop.call(lambda: not floor.server.connections.cyclic)


@pytest.mark.parametrize(
    "wish, why",
    [
        ({"ot_nbytes": 20}, (Extended.OT_SIZE, 26)),
        ({"to_nbytes": 100}, (Extended.TO_SIZE, 114)),
        ({"kinds": (2, 1)}, (Extended.TO_TYPE,)),
        ({"kinds": (0, 2)}, (Extended.OT_TYPE,)),
        ({"rpi_ms": 1}, (Extended.RPI,)),
        ({"rpi_ms": 201}, (Extended.RPI,)),
        ({"trigger": 0x11}, (Extended.TRANSPORT,)),
        ({"trigger": 0x02}, (Extended.TRANSPORT,)),
        ({"consumed": 151}, (Extended.CONSUMED_PATH,)),
        ({"produced": 150}, (Extended.PRODUCED_PATH,)),
        ({"configuration": 5}, (Extended.CONFIGURATION_PATH,)),
        ({"data": b"\x80\x01\x00\x00"}, (Extended.CONFIGURATION_PATH,)),
        ({"front": b"\x01\x03"}, (Extended.PORT,)),
        ({"multiplier": 8}, (Extended.PARAMETER,)),
        ({"front": KEY[:2] + struct.pack("<HHHBB", 7, 0, 0, 0, 0)}, (Extended.KEY_PRODUCT,)),
        ({"front": KEY[:2] + struct.pack("<HHHBB", 0, 12, 0, 0, 0)}, (Extended.KEY_TYPE,)),
        ({"front": KEY[:2] + struct.pack("<HHHBB", 0, 0, 0, 9, 0)}, (Extended.KEY_REVISION,)),
        ({"trigger": 0xA3}, (Extended.APPLICATION_PATH,)),
    ],
)
def test_what_is_not_offered_is_refused_with_its_reason(
    new_floor: NewFloor, wish: dict[str, Any], why: tuple[int, ...]
) -> None:
    floor = new_floor()
    assert Scanner(floor).open(**wish) == (1, *why)
    assert floor.loop.call(lambda: not floor.server.connections.cyclic)


def test_cyclic_connections_are_bounded_and_can_be_off(new_floor: NewFloor) -> None:
    floor = new_floor(cyclic_max=2)
    scanner = Scanner(floor)
    for serial in (1, 2):
        assert scanner.open(serial=serial, consumed=254, ot_nbytes=2) == (0,)
    assert scanner.open(serial=2, consumed=254, ot_nbytes=2) == (1, Extended.IN_USE)
    assert scanner.open(serial=3, consumed=254, ot_nbytes=2) == (1, Extended.FULL)
    off = new_floor(cyclic_max=0)
    assert Scanner(off).open() == (1, Extended.FULL) and off.server.cyclic_port == 0
    with socket.create_connection(("127.0.0.1", off.port)):
        pass
