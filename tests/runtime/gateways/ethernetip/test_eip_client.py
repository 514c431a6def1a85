"""The EtherNet/IP adapter as pycomm3 sees it: identity, assemblies, handshake, commands, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from pycomm3 import CIPDriver, LogixDriver, ResponseError

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.ethernetip.assemblies import ACKNOWLEDGE, ALL, ASSEMBLIES, COMMAND, RESULT, STATE
from asperity.runtime.gateways.ethernetip.gateway import EthernetIpGateway
from asperity.runtime.gateways.ethernetip.settings import Ethernetip
from asperity.runtime.gateways.modbus.table import STATUS_OF_CODE
from tests.runtime.gateways.ethernetip.eip_floor import Controller, Floor, decode
from tests.runtime.gateways.floor import FakeLink, reply, result

NewFloor = Callable[..., Floor]
GET_ALL, GET_LIST, GET, SET, SEVERAL = 0x01, 0x03, 0x0E, 0x10, 0x0A


def test_it_says_who_it_is_in_every_way_that_clients_ask(new_floor: NewFloor) -> None:
    floor = new_floor()
    listed = CIPDriver.list_identity(f"127.0.0.1:{floor.port}")
    assert listed is not None and listed["product_name"] == "Asperity st1" and listed["state"] == 3
    controller = floor.connect()
    routed = controller.driver.get_module_info(0)  # through an Unconnected Send
    assert (routed["product_name"], routed["serial"]) == ("Asperity st1", listed["serial"])
    assert controller.ask(GET, 1, 1, 7).value == b"\x0cAsperity st1"
    # As a client of a Rockwell controller begins: it is none, and says so.
    with pytest.raises(ResponseError):
        LogixDriver(f"127.0.0.1:{floor.port}").open()


@pytest.mark.parametrize("connected", [False, True])
def test_a_result_is_shown_until_it_is_acknowledged(new_floor: NewFloor, connected: bool) -> None:
    floor = new_floor()
    controller = floor.connect(connected)
    floor.show(result(1), result(2, Verdict.NG), Gap(3, 4, "lost"), result(5))
    shown = controller.read()
    assert (shown["result_no"], shown["result_no_copy"], shown["accept"], shown["waiting"]) == (1, 1, 1, 3)
    assert (shown["score"], shown["threshold"], shown["beat"], shown["quality"]) == (0.25, 0.5, 7, 1)
    assert controller.read(RESULT) == {name: shown[name] for name in controller.read(RESULT)}
    assert controller.read(STATE) == {name: shown[name] for name in controller.read(STATE)}
    assert controller.write(ACKNOWLEDGE, result_ack=9) == "" and controller.read()["result_no"] == 1
    assert controller.write(ACKNOWLEDGE, result_ack=int(shown["result_valid"])) == ""
    shown = controller.read()
    assert (shown["result_no"], shown["verdict"], shown["accept"]) == (2, 2, 0)
    assert controller.write(COMMAND, result_ack=int(shown["result_valid"])) == ""
    shown = controller.read()
    assert (shown["result_no"], shown["missing_before"], shown["gaps"]) == (5, 2, 1)
    assert controller.read(COMMAND)["result_ack"] == 3


@pytest.mark.parametrize("connected", [False, True])
def test_accept_falls_with_trust_and_age_and_stays_with_its_part(new_floor: NewFloor, connected: bool) -> None:
    floor = new_floor()
    controller = floor.connect(connected)
    floor.show(result(1))
    assert controller.read(RESULT)["accept"] == 1
    floor.link.good = False
    for assembly in (ALL, RESULT):
        fallen = controller.read(assembly)
        assert (fallen["accept"], fallen["quality"]) == (0, 0)
    floor.link.good = True
    floor.link.expired.add(1)
    assert controller.read()["accept"] == 0


def test_commands_triggers_and_recipes_go_the_way_of_modbus(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect(True)
    floor.link.replies.extend([reply("OK"), reply("ACCEPTED"), reply("OK"), None])
    assert controller.write(command=1) == ""
    assert controller.read()["command_status"] == STATUS_OF_CODE["OK"]
    assert controller.write(trigger_request=9, trigger_part=4711, trigger_recipe=7, trigger_timeout_ms=300) == ""
    assert controller.read()["trigger_status"] == STATUS_OF_CODE["ACCEPTED"]
    assert controller.write(command=6, trigger_request=9) == ""
    assert controller.write(recipe_select=7, trigger_request=9, command=6) == ""
    assert floor.asked == [
        ("start", {}),
        ("trigger", {"trigger_id": 9, "timeout_ms": 300, "part_id": "4711", "recipe": "lid"}),
        ("reset", {}),
        ("prepare_recipe", {"recipe": "lid"}),
    ]
    # Only results of that recipe pass from now on.
    floor.show(result(1, recipe="bracket", trigger_id=9))
    assert controller.read()["accept"] == 0


def test_a_write_that_may_not_be_changes_nothing_and_is_named(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect(True)
    for values in ({"command": 77}, {"recipe_select": 3}, {"trigger_timeout_ms": 0}):
        assert "invalid attribute value" in controller.write(trigger_request=5, **values)
        assert controller.read(STATE)["write_status"] == 2
    assert controller.write(command=1) == "" and controller.read(STATE)["write_status"] == 1
    assert "bject state conflict" in controller.write(command=3), "the first is still pending"
    assert controller.read(STATE)["write_status"] == 3
    assert [op for op, _ in floor.asked] == ["start"]
    for instance, attribute, data, words in (
        (150, 3, bytes(18), "Insufficient command data"), (150, 3, bytes(22), "Too much data"),
        (100, 3, bytes(112), "settable"), (150, 4, bytes(2), "settable"), (99, 3, bytes(2), "estination"),
    ):  # fmt: skip
        assert words.lower() in str(controller.ask(SET, 4, instance, attribute, data).error).lower()
    assert controller.ask(SET, 1, 1, 7, b"x").error and controller.ask(0x05, 1, 1).error, "no reset, no new name"
    bare = new_floor(commands=False, fresh=True).connect()
    assert "Permission denied" in bare.write(command=1) and bare.read()["write_status"] == 4
    assert bare.write(ACKNOWLEDGE, result_ack=1) == ""


def test_what_stood_in_the_controller_as_the_gateway_started_is_not_done(new_floor: NewFloor) -> None:
    floor = new_floor(fresh=True)
    controller = floor.connect()
    assert controller.write(command=1, trigger_request=7) == ""
    shown = controller.read()
    assert (shown["command_status"], shown["trigger_status"], floor.asked) == (21, 21, [])


def test_objects_answer_what_clients_ask_of_them(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect()
    ask = controller.ask
    assert ask(GET, 4, 100, 4).value == struct.pack("<H", ALL.nbytes)
    assert ask(GET, 4, 0, 2).value == struct.pack("<H", max(ASSEMBLIES))
    assert ask(GET, 0xF5, 1, 5).value[:4] == bytes([1, 0, 0, 127]) and ask(GET_ALL, 0xF5, 1).value
    assert ask(GET_ALL, 0xF6, 1).value == bytes(4) + b"\x01\0\0\0" + bytes(6)
    assert ask(GET_ALL, 1, 1).value[-13:] == b"\x0cAsperity st1"
    assert ask(GET_LIST, 1, 1, data=struct.pack("<HHH", 2, 3, 2)).value == struct.pack("<HHHHHHH", 2, 3, 0, 1, 2, 0, 43)
    assert ask(GET_LIST, 1, 1, data=struct.pack("<HH", 1, 99)).error
    for class_id, instance, attribute in ((1, 2, 1), (1, 1, 99), (4, 3, 3), (0x6B, 1, 1)):
        assert ask(GET, class_id, instance, attribute).error
    two = bytes([GET, 3, 0x20, 1, 0x24, 1, 0x30, 7]), bytes([GET, 3, 0x20, 4, 0x24, 151, 0x30, 4])
    several = struct.pack("<HHH", 2, 6, 14) + two[0] + two[1]
    answer = ask(SEVERAL, 2, 1, data=several).value
    assert answer[:2] == b"\x02\0" and b"\x8e\0\0\0\x0cAsperity st1" in answer and answer[-2:] == b"\x02\0"


def test_a_message_that_comes_twice_over_a_connection_is_done_once_and_shows_no_old_block(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect(True)
    assert controller.write(command=0) == ""
    floor.link.replies.extend([reply("OK"), reply("OK")])
    assert controller.write(command=1) == ""
    wire, sent = controller.driver._sock, []
    send = wire.send
    wire.send = lambda message: sent.append(message) or send(message)
    assert controller.write(command=3) == ""
    send(sent[0])
    assert wire.receive()[44:50] == sent[0][44:46] + bytes([0x80 | SET, 0, 0, 0])
    assert [op for op, _ in floor.asked] == ["start", "stop"]
    floor.show(result(1))
    assert controller.read(RESULT)["accept"] == 1
    floor.link.good = False
    send(sent[-1])
    assert decode(RESULT, wire.receive()[50:])["accept"] == 0


def test_a_host_that_others_reach_ipv6_and_a_number_of_no_recipe_are_refused() -> None:
    for options, words in (
        ({"host": "0.0.0.0"}, "insecure_lan = true"),
        ({"host": "::1"}, "no IPv6"),
        ({"recipes": {"01": "x"}}, "[ethernetip] recipes"),
    ):
        config = GatewayConfig(ethernetip=Ethernetip(**options))
        with pytest.raises(ConfigError) as refusal:
            EthernetIpGateway(config, FakeLink())  # type: ignore[arg-type]
        assert words in str(refusal.value)


def test_a_client_too_many_closes_one_that_asked_nothing(new_floor: NewFloor) -> None:
    floor = new_floor(connections_max=3)
    controller = floor.connect()
    for _ in range(8):
        floor.raw()
    assert controller.read()["table_version"] == 2
    assert isinstance(floor.connect(), Controller) and controller.read()["quality"] == 1
