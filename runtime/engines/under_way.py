"""A frame that the CUDA engine has begun and not finished."""

from __future__ import annotations

import time
from dataclasses import dataclass

from asperity.runtime.cuda.lane import Lane
from asperity.runtime.frame import BoolArray, ModalityName, ModalityScores, Prepared, Scores, Silhouette, Window
from asperity.runtime.vision.features import StageClock


@dataclass(slots=True)
class UnderWay:
    """A frame on a lane."""

    lane: Lane
    number: int
    clock: StageClock
    since_ns: int
    prepared: Prepared | None = None
    """Given: nothing of the frame is measured."""
    window: Window | None = None
    silhouette: Silhouette | None = None
    empty: bool = False
    """No patch holds enough points: there is nothing to score."""

    def lap(self, stage: str) -> None:
        """The stage has ended, and the next one begins."""
        self.clock.lap(stage, self.since_ns)
        self.since_ns = time.perf_counter_ns()

    def scores(self, modalities: dict[ModalityName, ModalityScores], scored: BoolArray) -> Scores:
        """What was found; the frame is done."""
        assert self.window is not None
        assert self.silhouette is not None  # known once the head was read
        return Scores(modalities, scored, self.window, self.silhouette, self.clock.stage_us, tuple(self.clock.spans))
