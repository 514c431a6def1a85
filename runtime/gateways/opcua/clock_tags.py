"""The tags of clocks, as rows: name, type, meaning, value. ``opcua.tags`` makes tags of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncua import ua

from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.wire import StationState
from asperity.runtime.wire.clocks import Clocks

Type = ua.VariantType


def _of(take: Callable[[Clocks], Any]) -> Callable[[StationState], Any]:
    return lambda state: None if state.clocks is None else take(state.clocks)


OF_STATION: tuple[tuple[str, ua.VariantType, str, Callable[[StationState], Any]], ...] = (
    (
        "ClockSynchronised", Type.Boolean, "clock of the station's computer; false: it is not, or that is not known",
        _of(lambda clocks: clocks.computer.synchronised),
    ),
    (
        "ClockOffsetMs", Type.Double, "what is left to correct of it; 0: not known",
        _of(lambda clocks: clocks.computer.offset_ms),
    ),
    (
        "CameraOffsetMs", Type.Double,
        "smallest arrival minus exposure of the last minutes; negative: the camera's clock is ahead; 0: not known",
        _of(lambda clocks: clocks.camera.offset_ms),
    ),
)  # fmt: skip
OF_PLC: tuple[tuple[str, ua.VariantType, str, Callable[[PlcClock], Any]], ...] = (
    ("PlcClock", Type.String, "the PLC's clock by SetPlcTime: unknown, ok or off", lambda plc: plc.word),
    ("PlcOffsetMs", Type.Double, "by how much it is ahead of the gateway's; 0: not known", lambda plc: plc.offset_ms),
)
