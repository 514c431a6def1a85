"""Outputs on coils of a Modbus TCP module: written in every cycle, so that its watchdog notices an end."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from contextlib import suppress

from asperity.runtime.errors import GatewayError
from asperity.runtime.gateways.config import DigitalIo

HEADER = struct.Struct(">HHHBB")
"""Transaction, protocol, length, unit, function."""
WRITE_COILS, READ_REGISTERS, WRITE_REGISTER = 15, 3, 6
RESPONSE_NBYTES_MAX = 253


class ModbusModule:
    """One connection. Where it fails the gateway ends: the module's watchdog takes the outputs back."""

    def __init__(self, config: DigitalIo, coils: Mapping[str, int]) -> None:
        self._config, self._coils = config, coils
        self._where = f"the module at {config.module_host} port {config.module_port}"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._transaction = 0

    async def open(self) -> str:
        """Connect, and set the module's watchdog. Raises GatewayError."""
        config = self._config
        try:
            connecting = asyncio.open_connection(config.module_host, config.module_port)
            self._reader, self._writer = await asyncio.wait_for(connecting, config.module_timeout_ms / 1000)
        except (OSError, asyncio.TimeoutError) as error:
            raise GatewayError(f"[io] {self._where} does not answer: {error or 'timeout'}") from error
        if config.watchdog_register >= 0:
            register, value = config.watchdog_register, config.watchdog_value
            await self._ask(WRITE_REGISTER, struct.pack(">HH", register, value))
            found = await self._ask(READ_REGISTERS, struct.pack(">HH", register, 1))
            if found != struct.pack(">BH", 2, value):
                raise GatewayError(
                    f"[io] {self._where} does not keep {value} in its watchdog register {register}: it reads "
                    f"{found.hex()}; look up the register and its unit in the module's manual"
                )
        return f"{config.module_host} port {config.module_port} coils {', '.join(map(str, self._coils.values()))}"

    async def write(self, values: Mapping[str, bool]) -> None:
        """Write all coils in one request. Raises GatewayError."""
        first, names = min(self._coils.values()), {coil: name for name, coil in self._coils.items()}
        bits = sum(values[name] << (coil - first) for coil, name in names.items())
        body = struct.pack(">HHB", first, len(names), 1) + bytes([bits])
        await self._ask(WRITE_COILS, body)

    async def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._writer.wait_closed(), self._config.module_timeout_ms / 1000)
            self._reader = self._writer = None

    async def _ask(self, function: int, body: bytes) -> bytes:
        """One request; the response after its function code. Raises GatewayError."""
        assert self._reader is not None and self._writer is not None
        self._transaction = self._transaction % 65_535 + 1
        self._writer.write(HEADER.pack(self._transaction, 0, 2 + len(body), self._config.module_unit, function) + body)
        try:
            answering = self._answer(self._reader, function)
            return await asyncio.wait_for(answering, self._config.module_timeout_ms / 1000)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            why = str(error) or f"no answer within {self._config.module_timeout_ms} ms ([io] module_timeout_ms)"
            raise GatewayError(f"[io] {self._where}: {why}") from error

    async def _answer(self, reader: asyncio.StreamReader, function: int) -> bytes:
        number, protocol, length, unit, told = HEADER.unpack(await reader.readexactly(HEADER.size))
        if (number, protocol, unit) != (self._transaction, 0, self._config.module_unit):
            raise GatewayError(f"[io] {self._where} answered another request; is another client connected to it?")
        if not 2 <= length <= RESPONSE_NBYTES_MAX:
            raise GatewayError(f"[io] {self._where} answered {length} bytes; Modbus has at most {RESPONSE_NBYTES_MAX}")
        body = await reader.readexactly(length - 2)
        if told != function:
            code = body[0] if body else 0
            raise GatewayError(f"[io] {self._where} refused function {function}: exception {code}; check the numbers")
        return body
