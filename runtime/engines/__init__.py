"""The engine seam: what turns a frame into scores. One file an engine beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runtime.frame import EngineInfo, Frame, Prepared, Scores

Progress = Callable[[str], None]
"""Called with a stage's name when the stage ends."""


class Engine(Protocol):
    """Scores frames of one bundle. Used by one thread at a time."""

    def describe(self) -> EngineInfo:
        """What scores, on what device, at what precision."""

    def score(self, frame: Frame, progress: Progress) -> Scores:
        """The frame's scores. Raises FrameRefused when it must not be scored, EngineError when scoring failed."""

    def score_prepared(self, prepared: Prepared, progress: Progress) -> Scores:
        """Scores of a frame that was prepared before: calibration inputs and benchmarks. Raises EngineError."""

    def close(self) -> None:
        """Frees what the engine holds. May be called twice."""
