"""A module of digital outputs that others wrote, as far as the gateway uses one: pymodbus's server."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from asperity.testing import PATIENCE_S
from asperity.testing.site import free_port


class Module:
    """pymodbus's server as a module: eight coils and a watchdog register, in a loop of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.coils: list[list[bool]] = []
        self._loop = asyncio.new_event_loop()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.result(PATIENCE_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._serve())
        self._loop.run_forever()

    async def _serve(self) -> None:
        coils, registers = (
            SimData(0, count=64, values=value, datatype=kind)  # type: ignore[arg-type]
            for value, kind in ((False, DataType.BITS), (0, DataType.REGISTERS))
        )
        device = SimDevice(1, simdata=([coils], [coils], [registers], [registers]))
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port), trace_pdu=self._trace)
        await self._server.serve_forever(background=True)
        self._ready.set_result(None)

    def _trace(self, sending: bool, pdu: Any) -> Any:
        if not sending and pdu.function_code == 15:
            self.coils.append(list(pdu.bits[:5]))
        return pdu

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
