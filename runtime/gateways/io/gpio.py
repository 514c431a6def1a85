"""Outputs on lines of a GPIO chip of this computer: Linux's character device, by libgpiod 2."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from asperity.runtime.errors import GatewayError
from asperity.runtime.gateways.config import DigitalIo


class Gpio:
    """The lines of one gateway. Nobody else can hold them meanwhile."""

    def __init__(self, config: DigitalIo, lines: Mapping[str, int]) -> None:
        self._config, self._lines = config, lines
        self._request: Any = None
        self._gpiod: Any = None

    async def open(self) -> str:
        """Take the lines, inactive. Raises GatewayError."""
        config = self._config
        try:
            self._gpiod = gpiod = importlib.import_module("gpiod")
        except ImportError as error:
            raise GatewayError("[io] kind is gpio, which needs the package gpiod: pip install '.[io]'") from error
        low = config.active_low.split()
        settings = {
            line: gpiod.LineSettings(
                direction=gpiod.line.Direction.OUTPUT, active_low=name in low,
                output_value=gpiod.line.Value.INACTIVE,
            )
            for name, line in self._lines.items()
        }  # fmt: skip
        try:
            self._request = gpiod.request_lines(config.chip, consumer="asperity", config=settings)
        except (OSError, ValueError) as error:
            raise GatewayError(
                f"[io] chip {config.chip}, lines {sorted(settings)} cannot be taken: {error}; look at them with "
                "gpioinfo, and at the permissions of the device"
            ) from error
        return f"{config.chip} lines {', '.join(f'{name} {line}' for name, line in self._lines.items())}"

    async def write(self, values: Mapping[str, bool]) -> None:
        """Set all lines at once. Raises GatewayError."""
        on, off = self._gpiod.line.Value.ACTIVE, self._gpiod.line.Value.INACTIVE
        try:
            self._request.set_values({line: on if values[name] else off for name, line in self._lines.items()})
        except OSError as error:
            raise GatewayError(f"[io] chip {self._config.chip} cannot be written: {error}") from error

    async def close(self) -> None:
        """Give the lines back."""
        if self._request is not None:
            self._request.release()
            self._request = None
