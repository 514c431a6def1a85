"""The PLC's side of each protocol, imported when it is needed."""

from __future__ import annotations

from collections.abc import Mapping

from asperity.runtime.commissioning.plc_side import PlcSide


def side_of(
    protocol: str, host: str, port: int, timeout_s: float, recipes: Mapping[str, int], user: tuple[str, str] | None
) -> PlcSide:
    """Connect as a PLC does. ``recipes``: name -> number, for protocols with numbers. Raises NoAnswer."""
    if protocol == "opcua":
        from asperity.runtime.commissioning.opcua import OpcuaSide

        return OpcuaSide(host, port, timeout_s, user)
    if protocol == "http":
        from asperity.runtime.commissioning.http import HttpSide

        return HttpSide(host, port, timeout_s, user)
    from asperity.runtime.commissioning.registers import RegisterSide

    if protocol == "ethernetip":
        from asperity.runtime.commissioning.ethernetip import AssemblyTransport

        return RegisterSide(AssemblyTransport(host, port, timeout_s), recipes)
    from asperity.runtime.commissioning.modbus import ModbusTransport

    return RegisterSide(ModbusTransport(host, port, timeout_s), recipes)
