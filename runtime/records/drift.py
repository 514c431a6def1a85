"""Do accepted frames still score like calibration frames? A rank test, one window at a time; no verdict depends on it.

Of a window of accepted (ok) frames every score is compared with every calibration score that the threshold accepts too.
Where nothing has changed, a live score is as often above as below: the share above is 0.5, and how far it strays by
chance is known (Mann and Whitney 1947, normal form). Windows do not overlap. The chance of a false alarm is one over
calibrations and windows; windows of one station share its calibration, and frames that follow each other closely are
more alike than the test supposes. A level far below what one would take for single frames makes room for that.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

LEAST_REFERENCES = 20
"""With fewer accepted calibration scores nothing is said: their own spread is not known."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What a full window shows."""

    share_above: float
    """Chance that a live score lies above one of calibration's; 0.5 where nothing has changed."""
    z: float
    """How many standard deviations that is off."""
    found: bool
    frames: int
    references: int

    @property
    def text(self) -> str:
        """As text, for the alarm."""
        side = "above" if self.share_above > 0.5 else "below"
        share = max(self.share_above, 1 - self.share_above)
        return (
            f"scores of the last {self.frames} accepted frames lie {side} calibration's in {share:.0%} of comparisons "
            f"(50 % if nothing had changed; z {self.z:+.1f}, {self.references} calibration frames); check camera, "
            "lighting and parts, and calibrate again if good parts now look like this"
        )


class DriftMonitor:
    """Collects accepted scores; tells at the end of each window. Holds at most one window."""

    def __init__(self, window_frames: int, level: float) -> None:
        """``window_frames`` 0: never says anything. ``level``: chance of a false alarm in a window, both sides."""
        self._window_frames = window_frames
        self._limit = NormalDist().inv_cdf(1 - level / 2)
        self._references: list[float] = []
        self._scores: list[float] = []

    def refer(self, calibration_scores: Sequence[float], threshold: float) -> None:
        """Compare with these from here on; an unfinished window is dropped."""
        self._references = sorted(score for score in calibration_scores if score <= threshold)
        self._scores = []

    def accepted(self, score: float) -> Drift | None:
        """One accepted frame's score; the finding when it ends a window."""
        if not self._window_frames or len(self._references) < LEAST_REFERENCES or not math.isfinite(score):
            return None
        self._scores.append(score)
        if len(self._scores) < self._window_frames:
            return None
        live, self._scores = self._scores, []
        return self._judged(live)

    def _judged(self, live: list[float]) -> Drift:
        references, frames = len(self._references), len(live)
        above = sum(
            0.5 * (bisect_left(self._references, score) + bisect_right(self._references, score)) for score in live
        )
        share = above / (references * frames)
        spread = math.sqrt((references + frames + 1) / (12.0 * references * frames))
        z = (share - 0.5) / spread
        return Drift(share, z, abs(z) > self._limit, frames, references)
