"""Registers of clocks: the station's time, what is known of each clock, and the time that the PLC writes."""

from __future__ import annotations

from collections.abc import Callable

from asperity.runtime.clock import Now, look
from asperity.runtime.gateways.link import View
from asperity.runtime.gateways.modbus.server import ILLEGAL_VALUE, Refusal
from asperity.runtime.gateways.modbus.table import CLOCKS, PLC_TIME, Value, f32, pack, unpack, words_of
from asperity.runtime.gateways.plc_clock import Clocks, PlcClock
from asperity.runtime.wire.clocks import Clocks as StationClocks

FIRST, COUNT = PLC_TIME[0].address, words_of(PLC_TIME)
SYNCHRONISED = {None: 0, True: 1, False: 2}
CAMERA_CLOCKS = {"ptp": 1, "realtime": 2, "device": 3}
PLC_WORDS = {"unknown": 0, "ok": 1, "off": 2}


class ClockBlocks:
    """CLOCKS and PLC_TIME of one gateway."""

    def __init__(self, config: Clocks, clock: Callable[[], Now] = look) -> None:
        self.plc = PlcClock(config, clock)
        self._clock = clock
        self.written = bytes(2 * COUNT)
        """PLC_TIME as it was written last."""

    def show(self, view: View) -> bytes:
        """CLOCKS of this moment; what the station says of its own is 0 while nothing was heard."""
        said = (view.state.clocks if view.state is not None else None) or StationClocks()
        seconds, us = divmod(self._clock().wall_us, 1_000_000)
        values: dict[str, Value] = {
            "station_time_s": seconds,
            "station_time_ms": us // 1000,
            "computer_clock": SYNCHRONISED[said.computer.synchronised],
            "computer_offset_ms": f32(said.computer.offset_ms),
            "computer_error_ms": f32(said.computer.error_ms),
            "camera_clock": CAMERA_CLOCKS.get(said.camera.clock, 0),
            "plc_clock": PLC_WORDS[self.plc.word],
            "camera_offset_ms": f32(said.camera.offset_ms),
            "plc_offset_ms": f32(self.plc.offset_ms),
        }
        return pack(CLOCKS, values)

    def takes(self, address: int, words: list[int]) -> bool:
        """Is this the PLC's time? Raises Refusal for a part of it, which would be another time."""
        if address + len(words) <= FIRST or address >= FIRST + COUNT:
            return False
        if (address, len(words)) != (FIRST, COUNT):
            raise Refusal(ILLEGAL_VALUE)
        return True

    def write(self, words: list[int], peer: str) -> None:
        """The PLC writes its time; 0 says nothing. Raises Refusal."""
        written = b"".join(word.to_bytes(2, "big") for word in words)
        values = unpack(PLC_TIME, written)
        seconds, ms = int(values["plc_time_s"]), int(values["plc_time_ms"])
        if ms > 999:
            raise Refusal(ILLEGAL_VALUE)
        self.written = written
        if seconds:
            self.plc.says(seconds * 1_000_000 + ms * 1000, peer)
