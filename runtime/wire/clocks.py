"""What a state says of the clocks: the computer's, and the camera's against it. Never needed to judge a part."""

from __future__ import annotations

import msgspec

from asperity.runtime.wire.common import Count, Text


class ComputerClock(msgspec.Struct, frozen=True, kw_only=True):
    """The clock of the inspector's computer, as its kernel reports it."""

    synchronised: bool | None = None
    source: Text = ""
    offset_ms: float | None = None
    error_ms: float | None = None


class CameraClock(msgspec.Struct, frozen=True, kw_only=True):
    """The clock of the camera, as its frames show it."""

    clock: Text = ""
    offset_ms: float | None = None
    jumps: Count = 0


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """Both."""

    computer: ComputerClock = ComputerClock()
    camera: CameraClock = CameraClock()

    def numbers(self) -> dict[str, float | None]:
        """By name, to be checked."""
        return {
            "clocks.computer.offset_ms": self.computer.offset_ms,
            "clocks.computer.error_ms": self.computer.error_ms,
            "clocks.camera.offset_ms": self.camera.offset_ms,
        }
