"""``asperity gateway modbus``: a station as blocks of registers, with acknowledged results, for any Modbus TCP PLC."""

from __future__ import annotations

from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.link import Link
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.server import ModbusServer
from asperity.runtime.gateways.process import cannot_listen, check_host, run


class ModbusGateway:
    """The protocol's part of the process."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        """Raises ConfigError for a host off loopback without ``insecure_lan`` and for a recipe of no number."""
        check_host("modbus", config.modbus.host, config.modbus.insecure_lan)
        self._config = config.modbus
        self._registers = ModbusRegisters(config, link)
        self._server = ModbusServer(self._registers, config.modbus)

    async def open(self) -> str:
        """As ``Gateway.open``."""
        try:
            port = await self._server.open()
        except OSError as error:
            raise cannot_listen("modbus", self._config.host, self._config.port, error) from error
        return f"modbus {self._config.host} port {port}"

    @property
    def problem(self) -> str:
        """For the process's status."""
        return self._registers.clocks.plc.problem

    def refresh(self) -> None:
        """As ``Gateway.refresh``."""
        self._registers.refresh()
        self._server.sweep()

    async def close(self) -> None:
        """As ``Gateway.close``."""
        self._server.close()


def serve(config: GatewayConfig) -> None:
    """Run the gateway until SIGTERM. For the main thread. Raises ConfigError and GatewayError."""
    run(config, lambda link: ModbusGateway(config, link))
