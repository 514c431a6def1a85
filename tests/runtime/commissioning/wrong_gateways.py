"""Gateways over Modbus that are wrong in one thing each, in this process, at a simulated line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asperity.runtime.commissioning.simulated import FAILING_RECIPE, GOOD_RECIPE, HOLD_MS, SimulatedLine
from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation, Modbus
from asperity.runtime.gateways.link import Delivered, Link
from asperity.runtime.gateways.modbus.registers import ModbusRegisters, Shown
from asperity.runtime.gateways.modbus.server import ModbusServer
from tests.runtime.gateways.floor import Loop


class AcceptOutlivesBeat(ModbusRegisters):
    """Accept, once 1 for a result, stays 1 while it is shown."""

    _kept = 0

    def _status(self) -> dict[str, int | float]:
        values = super()._status()
        if values["accept"]:
            self._kept = int(values["result_no"])
        return {**values, "accept": values["result_no"] != 0 and values["result_no"] == self._kept}


class AcceptsOtherIds(ModbusRegisters):
    """Accept is 1 for a result that answers another trigger, or none."""

    def _status(self) -> dict[str, int | float]:
        values = super()._status()
        other = values["result_no"] != 0 and values["trigger_id"] != self._trigger_id
        return {**values, "accept": values["accept"] or other}


class ShowsTwice(ModbusRegisters):
    """Every third result is shown once more after it was acknowledged."""

    _again = 0

    def _acknowledge(self, number: int) -> None:
        if self._buffer and number == self._buffer[0].number and number % 3 == 0 and number != self._again:
            self._again = number
            return
        super()._acknowledge(number)


class BeatsByItself(ModbusRegisters):
    """The heartbeat is made by the gateway."""

    def _status(self) -> dict[str, int | float]:
        return {**super()._status(), "beat": int(time.monotonic() * 10) & 0xFFFF}


class SwapsReasons(ModbusRegisters):
    """Codes 200 and 203 are mixed up."""

    def _status(self) -> dict[str, int | float]:
        values = super()._status()
        return {**values, "reason": {200: 203, 203: 200}.get(int(values["reason"]), values["reason"])}


class IgnoresRecipe(ModbusRegisters):
    """Results of another recipe than the PLC asks for can be accepted."""

    def _of_selected_recipe(self, item: Delivered) -> bool:
        return True


class RepeatsTriggers(ModbusRegisters):
    """What stands in the PLC when the gateway starts is executed."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        super().__init__(config, link)
        self._known = set(self._requests)


class DropsUnacknowledged(ModbusRegisters):
    """The shown result gives way to the next one."""

    def refresh(self) -> None:
        super().refresh()
        while len(self._buffer) > 1:
            self._buffer.popleft()


class AcceptsAfterHold(ModbusRegisters):
    """Accept is not bounded in time. The other bounds hold."""

    def _status(self) -> dict[str, int | float]:
        values = super()._status()
        shown: Sequence[Shown] = self._buffer
        return {**values, "accept": bool(shown) and shown[0].item.accept and values["quality"]}


class WrongLine(SimulatedLine):
    """A simulated line whose gateway is one of these."""

    registers: type[ModbusRegisters] = ModbusRegisters
    accepts_simulated = False
    """It accepts simulated parts whatever its configuration says."""

    def __init__(self, folder: Path, loop: Loop) -> None:
        super().__init__("modbus", folder)
        self._loop = loop
        self._served: tuple[Link, ModbusServer] | None = None

    def start_gateway(self, **settings: Any) -> None:
        self.kill_gateway()
        sockets = self.config.sockets
        own = {"accept_simulated": True, "accept_hold_ms": HOLD_MS, **settings}
        config = GatewayConfig(
            station=GatewayStation(self.config.station.name, sockets.results, sockets.control),
            gateway=Gateway(**{**own, **({"accept_simulated": True} if self.accepts_simulated else {})}),
            modbus=Modbus(port=0, recipes={"1": GOOD_RECIPE, "2": FAILING_RECIPE}),
        )
        link = Link(config)
        server = ModbusServer(self.registers(config, link), config.modbus)
        self.cable.target = self._loop.run(server.open())
        link.start()
        self._served = link, server

    def kill_gateway(self) -> None:
        if self._served is not None:
            link, server = self._served
            self._served = None
            self._loop.call(server.close)
            link.close()

    def repair(self) -> None:
        self.inspector.pause(paused=False)

    def __exit__(self, *error: object) -> None:
        self.kill_gateway()
        super().__exit__(*error)
