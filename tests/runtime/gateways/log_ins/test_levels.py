"""docs/security.md says which level may do what over which protocol; here each gateway is asked."""

from __future__ import annotations

import asyncio
import base64
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asyncua import ua

from asperity.runtime.gateways.config import GatewayConfig, Modbus, Users
from asperity.runtime.gateways.http.gateway import HttpGateway
from asperity.runtime.gateways.http.requests import Request
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.table import COMMANDS, WRITES
from asperity.runtime.gateways.mqtt.commands import Commands
from asperity.runtime.gateways.opcua.methods import Methods
from asperity.runtime.gateways.opcua.session import CALLER, Client
from asperity.runtime.gateways.parts import Parts
from asperity.runtime.gateways.plc_clock import Clocks, PlcClock
from asperity.runtime.wire import OPERATIONS
from asperity.testing import STATION
from tests.places import ROOT
from tests.runtime.gateways.floor import FakeLink, reply

PASSWORD = "correct horse"
REQUESTS = [op for op in OPERATIONS if not op.startswith("get_")]
FIELDS: dict[str, Any] = {"trigger_id": 7, "timeout_ms": 500, "recipe": "bracket", "threshold": 1.0}
MODES = ("software", "hard_wired")


def link(triggers: str) -> FakeLink:
    made = FakeLink()
    assert made.state is not None
    made.state = msgspec.structs.replace(made.state, triggers=triggers)
    made.replies.extend([reply("OK")] * 100)
    return made


def asked(made: FakeLink) -> set[str]:
    return {op for op, _ in made.asked}


def over_http(file: str) -> dict[str, str]:
    made = link("software")
    gateway = HttpGateway(GatewayConfig(users=Users(file=file)), made)  # type: ignore[arg-type]

    async def levels() -> dict[str, str]:
        found = {}
        for op in REQUESTS:
            body = msgspec.json.encode({name: FIELDS[name] for name in OPERATIONS[op].required})
            for user in ("", "viewer", "ann"):
                coded = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
                headers = {"content-type": "application/json"} | ({"authorization": f"Basic {coded}"} if user else {})
                made.asked.clear()
                await gateway._answer(Request("POST", f"/api/v1/commands/{op}", {}, headers, body), "h")
                if asked(made) == {op}:
                    found[op] = {"": "anyone", "viewer": "read", "ann": "operate"}[user]
                    break
        return found

    found = asyncio.run(levels())
    gateway._doorkeeper.close()
    return found


def over_opcua() -> dict[str, str]:
    values = {ua.VariantType.UInt32: 7, ua.VariantType.Int64: 1, ua.VariantType.Boolean: True, ua.VariantType.UInt64: 1,
              ua.VariantType.String: "bracket", ua.VariantType.DateTime: None}  # fmt: skip
    found: dict[str, str] = {}
    for operates, mode in itertools.product((True, False), MODES):
        made = link(mode)
        methods = Methods(made, Parts(10), True, lambda: None, PlcClock(Clocks()))  # type: ignore[arg-type]
        CALLER.set(Client(None, "someone", may_operate=operates))
        for method in methods.table():
            asyncio.run(method.call(ua.NodeId(), *(ua.Variant(values[kind], kind) for _, kind, _ in method.inputs)))
        found |= dict.fromkeys(asked(made), "operate" if operates else "read")
    return found


def over_mqtt() -> dict[str, str]:
    made = link("software")
    commands = Commands(made, STATION)  # type: ignore[arg-type]
    for op in REQUESTS:
        fields = {"id": op, **{name: FIELDS[name] for name in OPERATIONS[op].required}}
        commands.take_in(op, msgspec.json.encode(fields), retained=False)
    return dict.fromkeys(asked(made), "access")


def over_modbus() -> dict[str, str]:
    address = {row.name: row.address for row in WRITES}
    found: dict[str, str] = {}
    for mode in MODES:
        made = link(mode)
        config = GatewayConfig(modbus=Modbus(recipes={"1": "bracket"}))
        registers = ModbusRegisters(config, made)  # type: ignore[arg-type]
        registers.write(100, [0, 0, 0, 500, 0, 0, 0, 0, 0], "plc")
        for number in COMMANDS:
            registers.write(address["command"], [number], "plc")
            registers.write(address["command"], [0], "plc")
        registers.write(address["recipe_select"], [1], "plc")
        registers.write(address["trigger_request"], [0, 7], "plc")
        found |= dict.fromkeys(asked(made), "access")
    return found


def table() -> dict[str, list[str]]:
    """Operation -> levels, of the page."""
    page = (ROOT / "docs" / "security.md").read_text()
    lines = page.split("## Levels of users over the gateways\n", 1)[1].split("\n## ")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    assert head == ["operation", "HTTP", "OPC UA", "MQTT", "Modbus, EtherNet/IP", "Sparkplug, I/O"]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_page_says_what_each_gateway_does(tmp_path: Path) -> None:
    file = tmp_path / "users"
    users.put_user(file, users.new_user("viewer", "read", PASSWORD))
    users.put_user(file, users.new_user("ann", "operate", PASSWORD))
    columns = (over_http(str(file)), over_opcua(), over_mqtt(), over_modbus(), {})
    assert table() == {op: [column.get(op, "-") for column in columns] for op in REQUESTS}


@pytest.mark.parametrize("room", ["sparkplug", "io"])
def test_these_gateways_ask_nothing_of_the_station(room: str) -> None:
    sources = [path.read_text() for path in (ROOT / "runtime" / "gateways" / room).glob("*.py")]
    assert sources and not any(".ask(" in source for source in sources)
    assert ".ask(" in (ROOT / "runtime" / "gateways" / "mqtt" / "commands.py").read_text(), "else this shows nothing"


def test_every_level_of_the_page_is_one_of_the_list() -> None:
    assert {level for levels in table().values() for level in levels} <= {*users.ROLES, "access", "-"}
