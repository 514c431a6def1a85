"""``asperity gateway io``: ready, busy, accept, reject and strobe as digital outputs.

Energised accept is a permission to pass, and an output keeps its level when a process is killed. So accept either
toggles, and a relay or the PLC takes only the toggling for it, or the outputs are those of a module whose watchdog
takes them back. Without one of them accept is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.gateways.config import DigitalIo, GatewayConfig
from asperity.runtime.gateways.io.gpio import Gpio
from asperity.runtime.gateways.io.modbus_module import ModbusModule
from asperity.runtime.gateways.io.signals import OUTPUTS, Signals, Timing, all_off
from asperity.runtime.gateways.link import Link
from asperity.runtime.gateways.process import run

COILS_MAX = 8


class Outputs(Protocol):
    """What has the outputs."""

    async def open(self) -> str: ...
    async def write(self, values: Mapping[str, bool]) -> None: ...
    async def close(self) -> None: ...


def serve(config: GatewayConfig) -> None:
    """Put out until SIGTERM. Raises ConfigError, GatewayError."""
    outputs = outputs_of(config.io)
    run(config, lambda link: IoGateway(config, link, outputs))


def outputs_of(config: DigitalIo) -> Outputs:
    """The outputs as configured. Raises ConfigError for what could leave accept on, or means nothing."""
    lines = {name: getattr(config, name) for name in OUTPUTS if getattr(config, name) >= 0}
    if not lines:
        raise ConfigError("[io] names no output; give ready, busy, accept, reject or strobe the number of a line")
    twice = {line for line in lines.values() if list(lines.values()).count(line) > 1}
    if twice:
        raise ConfigError(f"[io] line {min(twice)} is given to two outputs; give each its own")
    unknown = sorted(set(config.active_low.split()) - set(lines))
    if unknown:
        raise ConfigError(f"[io] active_low names {unknown[0]!r}, which is not one of the outputs: {', '.join(lines)}")
    if config.hold_ms < config.setup_ms + config.strobe_ms:
        raise ConfigError(
            f"[io] hold_ms {config.hold_ms} is less than setup_ms + strobe_ms = {config.setup_ms + config.strobe_ms}; "
            "accept and reject must hold longer than the strobe"
        )
    if "accept" in lines:
        _check_accept(config)
    if config.kind == "gpio":
        return Gpio(config, lines)
    if config.active_low:
        raise ConfigError("[io] active_low is for kind gpio; a module's outputs are inverted in the module")
    if max(lines.values()) - min(lines.values()) + 1 != len(lines) or len(lines) > COILS_MAX:
        raise ConfigError(f"[io] coils {sorted(lines.values())} are not next to each other; they are written together")
    return ModbusModule(config, lines)


def _check_accept(config: DigitalIo) -> None:
    """Raises ConfigError unless a killed process is noticed."""
    if config.accept_proof == "toggle":
        if config.toggle_ms < config.cycle_ms:
            raise ConfigError(f"[io] toggle_ms {config.toggle_ms} is below cycle_ms {config.cycle_ms}; raise the first")
        return
    if config.accept_proof == "watchdog" and config.kind == "modbus" and config.watchdog_register >= 0:
        return
    raise ConfigError(
        "[io] accept is an output, which keeps its level when the process is killed; set accept_proof to toggle, and "
        "let a relay or the PLC take only the toggling for a pass; or set kind to modbus, accept_proof to watchdog, "
        "and watchdog_register to that of the module"
    )


class IoGateway:
    """The outputs' part of the process."""

    def __init__(self, config: GatewayConfig, link: Link, outputs: Outputs) -> None:
        own = config.io
        toggle_ms = own.toggle_ms if own.accept_proof == "toggle" else 0
        self._config = own
        self._link = link
        self._outputs = outputs
        self._signals = Signals(
            Timing(own.setup_ms, own.strobe_ms, own.hold_ms, own.gap_ms, toggle_ms), own.queue_max, link.may_pass
        )
        self._cycle: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """As ``Gateway.open``."""
        where = await self._outputs.open()
        await self._outputs.write(all_off())
        self._cycle = asyncio.create_task(self._run())
        return where

    def refresh(self) -> None:
        """As ``Gateway.refresh``. Raises GatewayError when the cycle has ended."""
        if self._cycle is not None and self._cycle.done():
            error = self._cycle.exception()
            raise error if isinstance(error, GatewayError) else GatewayError(f"the outputs' cycle ended: {error!r}")
        for item in self._link.take(self._config.queue_max + 1):
            self._signals.put(item)

    async def close(self) -> None:
        """Accept off, reject on, then give the outputs back."""
        if self._cycle is not None:
            self._cycle.cancel()
            with suppress(asyncio.CancelledError, GatewayError):
                await self._cycle
        with suppress(GatewayError):
            await self._outputs.write(all_off())
        await self._outputs.close()

    async def _run(self) -> None:
        while True:
            view = self._link.view()
            in_flight = view.state is not None and view.state.in_flight > 0
            await self._outputs.write(self._signals.at(time.monotonic() * 1000, good=view.good, in_flight=in_flight))
            await asyncio.sleep(self._config.cycle_ms / 1000)
