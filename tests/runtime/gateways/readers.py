"""Every protocol as its reader sees it, by the same few questions: for tables of faults that leave no protocol out."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from asyncua import Client, ua
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pycomm3 import CommError
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from asperity.runtime.gateways.ethernetip.assemblies import ALL, COMMAND
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.gateways.modbus.table import STATUS, STATUS_WORDS, WRITES, unpack
from asperity.testing import PATIENCE_S, Line
from tests.runtime.gateways.ethernetip.eip_floor import Controller
from tests.runtime.gateways.floor import GatewayProcess, Loop
from tests.runtime.gateways.io.io_module import Module
from tests.runtime.gateways.modbus.modbus_floor import QUIET
from tests.runtime.gateways.mqtt.mqtt_floor import Broker, Subscriber
from tests.runtime.gateways.opcua import opcua_floor
from tests.runtime.gateways.sparkplug.sparkplug_decoder import decoded

RECIPES = {"bracket": 1, "lid": 2}
PASSWORD = "correct horse"


class Look(NamedTuple):
    """What a protocol shows at one moment."""

    accept: bool
    good: bool
    newest: int
    """Id of the newest result; 0: none yet."""
    missing: int
    """Results that were named as missing."""


class Reader:
    """One protocol's gateway as a process, and a client of it."""

    gates: ClassVar[bool] = True
    """It shows an accept."""
    commands: ClassVar[bool] = True
    """It takes requests."""
    toml: ClassVar[str] = ""
    """Of gateway.toml; ``folder`` and ``port`` are filled in."""

    def __init__(self, line: Line, broker: Broker, toml: str) -> None:
        own = self.toml.format(folder=line.folder)
        protocol = type(self).__name__.lower()
        self.gateway = GatewayProcess(line, protocol, toml + own, "--port", str(self.at(line, broker)))

    def at(self, line: Line, broker: Broker) -> int:
        """The port that the gateway is given."""
        return 0

    def open(self) -> None:
        """Connect, once the gateway serves."""

    def look(self) -> Look:
        """What it shows now."""
        raise NotImplementedError

    def trigger(self, trigger_id: int) -> None:
        """Ask for it; the answer is not waited for."""

    def prepare(self, recipe: str) -> None:
        """Ask for it; the answer is not waited for."""

    def passed(self, result_id: int) -> bool:
        """This result is shown, and its part may pass."""
        look = self.look()
        return look.newest == result_id and (look.accept or not self.gates)

    def rejected(self, result_id: int) -> bool:
        """This result or a later one is shown, and no part may pass."""
        look = self.look()
        return look.newest >= result_id and not look.accept

    def ended(self) -> bool:
        """The gateway is gone, and the client knows it or is told: it takes nothing for a pass."""
        try:
            return not self.look().accept and not self.look().good
        except (OSError, CommError, ModbusException, ua.UaError, AssertionError, TimeoutError):
            return True

    def close(self) -> None:
        """End the client."""


class Modbus(Reader):
    toml = "[modbus]\nhandshake = false\nrecipes = {{ 1 = 'bracket', 2 = 'lid' }}\n"

    def open(self) -> None:
        self._client = ModbusTcpClient("127.0.0.1", port=self.gateway.port(), timeout=PATIENCE_S, retries=0)
        assert self._client.connect()
        self._write("result_ack", *QUIET)

    def look(self) -> Look:
        answered = self._client.read_holding_registers(0, count=STATUS_WORDS)
        assert not answered.isError(), answered
        block = unpack(STATUS, b"".join(word.to_bytes(2, "big") for word in answered.registers))
        return Look(bool(block["accept"]), bool(block["quality"]), int(block["result_no"]), int(block["missing"]))

    def trigger(self, trigger_id: int) -> None:
        self._write("trigger_request", trigger_id >> 16, trigger_id & 0xFFFF)

    def prepare(self, recipe: str) -> None:
        self._write("recipe_select", RECIPES[recipe])

    def _write(self, name: str, *words: int) -> None:
        address = next(row.address for row in WRITES if row.name == name)
        assert not self._client.write_registers(address, list(words)).isError()

    def close(self) -> None:
        self._client.close()


class EthernetIp(Reader):
    toml = "[ethernetip]\ncyclic_port = 0\nhandshake = false\nrecipes = {{ 1 = 'bracket', 2 = 'lid' }}\n"

    def open(self) -> None:
        self._controller, self._wanted = Controller(self.gateway.port(), connected=True), {"recipe_select": 0}
        assert self._controller.write(COMMAND) == ""

    def look(self) -> Look:
        block = self._controller.read(ALL)
        return Look(bool(block["accept"]), bool(block["quality"]), int(block["result_no"]), int(block["missing"]))

    def trigger(self, trigger_id: int) -> None:
        self._want(trigger_request=trigger_id)

    def prepare(self, recipe: str) -> None:
        self._want(recipe_select=RECIPES[recipe])

    def _want(self, **values: int) -> None:
        self._wanted |= values
        assert self._controller.write(COMMAND, **self._wanted) == ""

    def close(self) -> None:
        self._controller.close()


class Http(Reader):
    toml = "[users]\nfile = '{folder}/users'\n"

    def at(self, line: Line, broker: Broker) -> int:
        users.put_user(Path(line.folder) / "users", users.new_user("plc", "operate", PASSWORD))
        return 0

    def open(self) -> None:
        self._url = f"http://127.0.0.1:{self.gateway.port()}/api/v1"
        self._asking = ThreadPoolExecutor(1)

    def look(self) -> Look:
        items = self._get("/results")["items"]
        gaps = [item["last_id"] - item["first_id"] + 1 for item in items if item["kind"] == "gap"]
        last = items[-1] if items else {"result_id": 0, "accept": False}
        accept = last.get("accept", False)
        return Look(accept, self._get("/state")["trusted"], last.get("result_id", last.get("last_id")), sum(gaps))

    def trigger(self, trigger_id: int) -> None:
        self._asking.submit(self._post, "trigger", {"trigger_id": trigger_id, "timeout_ms": 1000})

    def prepare(self, recipe: str) -> None:
        self._asking.submit(self._post, "prepare_recipe", {"recipe": recipe})

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def _post(self, op: str, fields: dict[str, Any]) -> None:
        user = "Basic " + base64.b64encode(f"plc:{PASSWORD}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": user}
        request = urllib.request.Request(f"{self._url}/commands/{op}", json.dumps(fields).encode(), headers)
        try:
            urllib.request.urlopen(request, timeout=PATIENCE_S).close()
        except urllib.error.HTTPError as error:
            error.close()

    def close(self) -> None:
        self._asking.shutdown(wait=False)


class OpcUa(Reader):
    toml = "[opcua]\ncertificate_folder = '{folder}/certificate'\nrecipes = 'bracket lid'\n"

    def open(self) -> None:
        self._loop, self._asking = Loop(), ThreadPoolExecutor(1)
        self._client = Client(f"opc.tcp://127.0.0.1:{self.gateway.port()}", timeout=PATIENCE_S)
        self._loop.run(self._client.connect())

    def look(self) -> Look:
        return Look(*self._loop.run(opcua_floor.values(self._client, "Accept", "Ready", "ResultId", "Missing")))

    def trigger(self, trigger_id: int) -> None:
        self._asking.submit(self._loop.run, opcua_floor.call(self._client, "Trigger", trigger_id, "", 1000))

    def prepare(self, recipe: str) -> None:
        self._asking.submit(self._loop.run, opcua_floor.call(self._client, "PrepareRecipe", recipe))

    def close(self) -> None:
        self._asking.shutdown(wait=False)
        with suppress(Exception):  # a gateway that was killed says no goodbye
            self._loop.run(self._client.disconnect())
        self._loop.close()


class Mqtt(Reader):
    toml = (
        "[mqtt]\nversion = '3.1.1'\ncommands = true\nclash_quiet_ms = 2000\nkeepalive_s = 60\nretry_max_ms = 300\n"
        "state_file = '{folder}/mqtt'\n"
    )

    def __init__(self, line: Line, broker: Broker, toml: str) -> None:
        self._ear, self._asked = Subscriber(broker), 0
        super().__init__(line, broker, toml)

    def at(self, line: Line, broker: Broker) -> int:
        return broker.port

    def look(self) -> Look:
        results, gaps = self._ear.last("result"), self._ear.of("gap")
        missing = sum(gap["last_id"] - gap["first_id"] + 1 for gap in gaps)
        accept = self._ear.last("accept")
        good = self._ear.last("state").get("trusted", False) and self._ear.last("online").get("online", False)
        return Look(accept.get("accept", False), good, results.get("result_id", 0), missing)

    def trigger(self, trigger_id: int) -> None:
        self._ask("trigger", trigger_id=trigger_id, timeout_ms=1000)

    def prepare(self, recipe: str) -> None:
        self._ask("prepare_recipe", recipe=recipe)

    def _ask(self, op: str, **fields: Any) -> None:
        self._asked += 1
        self._ear.publish(f"command/{op}", json.dumps({"id": f"asked-{self._asked}", **fields}).encode())

    def ended(self) -> bool:
        """By the broker, with the last will."""
        return bool(self._ear.last("accept").get("why") == "the gateway has disconnected")

    def close(self) -> None:
        self._ear.close()


class Sparkplug(Reader):
    """It has no accept: a host keeps the last value of a metric."""

    gates = commands = False
    toml = "[mqtt]\nversion = '3.1.1'\nkeepalive_s = 60\nretry_max_ms = 300\n"

    def __init__(self, line: Line, broker: Broker, toml: str) -> None:
        self._values: dict[str, Any] = {}
        self._host = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._host.on_connect = lambda client, *rest: client.subscribe("spBv1.0/#", qos=0)
        self._host.on_message = self._came
        self._host.connect("127.0.0.1", broker.port)
        self._host.loop_start()
        super().__init__(line, broker, toml)

    def at(self, line: Line, broker: Broker) -> int:
        return broker.port

    def _came(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        if not message.topic.startswith("spBv1.0/"):
            return  # amqtt was seen to send what nobody subscribed to
        if "/NDEATH/" in message.topic:
            self._values["Station/Good"] = False
            return
        self._values |= {name: value for name, value in decoded(message.payload)[1].items() if value is not None}

    def look(self) -> Look:
        found = [self._values.get(name, 0) for name in ("Station/Good", "Result/Id", "Gateway/Missing")]
        return Look(False, bool(found[0]), *found[1:])

    def close(self) -> None:
        self._host.disconnect()
        self._host.loop_stop()


class Io(Reader):
    """Coils of a module. A result is known by the number of its strobe: each has one, in order, from 1 on."""

    commands = False
    toml = (
        "[io]\nkind = 'modbus'\nready = 0\nbusy = 1\naccept = 2\nreject = 3\nstrobe = 4\naccept_proof = 'watchdog'\n"
        "watchdog_register = 20\nwatchdog_value = 5\nmodule_timeout_ms = 10_000\nqueue_max = 1000\n"
        "setup_ms = 5\nstrobe_ms = 50\nhold_ms = 150\ngap_ms = 20\ncycle_ms = 10\n"
    )

    def __init__(self, line: Line, broker: Broker, toml: str) -> None:
        self._module = Module()
        self._seen, self._strobes, self._before = 0, 0, False
        self._passed: dict[int, bool] = {}
        super().__init__(line, broker, toml)

    def at(self, line: Line, broker: Broker) -> int:
        return self._module.port

    def look(self) -> Look:
        while self._seen < len(self._module.coils):
            _, _, accept, reject, strobe = self._module.coils[self._seen]
            self._seen += 1
            self._strobes += strobe and not self._before
            self._before = strobe
            if strobe:
                assert accept is not reject
                # What the PLC samples with the strobe; accept may fall during it, and does not come again.
                self._passed[self._strobes] = self._passed.get(self._strobes, True) and accept
        ready, _, accept, *_ = self._module.coils[-1] if self._module.coils else [False] * 5
        # A missing one is a strobe with reject, as any reject is: it has no count.
        return Look(accept, ready, self._strobes, 0)

    def passed(self, result_id: int) -> bool:
        self.look()
        return self._passed.get(result_id, False)

    def rejected(self, result_id: int) -> bool:
        self.look()
        return self._passed.get(result_id) is False

    def ended(self) -> bool:
        """Nothing is written any more, which the module's watchdog sees."""
        return self.gateway.process.poll() is not None

    def close(self) -> None:
        self._module.close()


READERS: dict[str, Callable[[Line, Broker, str], Reader]] = {
    "modbus": Modbus, "ethernetip": EthernetIp, "http": Http, "opcua": OpcUa, "mqtt": Mqtt, "sparkplug": Sparkplug,
    "io": Io,
}  # fmt: skip
"""By the name of ``asperity gateway NAME``."""
