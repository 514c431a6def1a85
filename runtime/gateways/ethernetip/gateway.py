"""``asperity gateway ethernetip``: a station as assemblies, for controllers that speak EtherNet/IP.

It shows what the Modbus gateway shows, by the same code and with the same handshake: only the messages differ.
``accept`` is computed when an assembly is read or sent, for the result in the same data; nothing here stores it.
"""

from __future__ import annotations

import ipaddress

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.ethernetip.server import EthernetIpServer
from asperity.runtime.gateways.link import Link
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.process import cannot_listen, check_host, run

TABLE = "ethernetip"


class EthernetIpGateway:
    """The protocol's part of the process."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        """Raises ConfigError for a host off loopback without ``insecure_lan`` and for a recipe of no number."""
        own = config.ethernetip
        check_host(TABLE, own.host, own.insecure_lan)
        if ipaddress.ip_address(own.host).version != 4:
            raise ConfigError(f"[{TABLE}] host is {own.host}, but EtherNet/IP has no IPv6; use an IPv4 address")
        self._config = own
        self._registers = ModbusRegisters(config, link, TABLE)
        self._server = EthernetIpServer(self._registers, own, config.station.name)

    async def open(self) -> str:
        """As ``Gateway.open``."""
        try:
            port = await self._server.open()
        except OSError as error:
            raise cannot_listen(TABLE, self._config.host, self._server.opening, error) from error
        cyclic = f"cyclic data at port {self._server.cyclic_port}, " if self._server.cyclic_port else ""
        return f"ethernetip {self._config.host}, {cyclic}requests at port {port}"

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
    run(config, lambda link: EthernetIpGateway(config, link))
