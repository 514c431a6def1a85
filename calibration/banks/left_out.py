"""Which modalities count: all, but for those that pseudo-defects show to do harm.

Weights are not fitted: their optimum on pseudo-defects was the worst row on real ones (docs/accuracy.md). A modality
is left out where the AUROC of good frames against spoiled ones is higher without it by more than ``STANDARD_ERRORS``,
or is higher at all and it does not see that frames were spoiled: so a sensor's noise does not reach the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.calibration.auroc import wins
from asperity.calibration.banks.reference import FrameDistances
from asperity.calibration.record import LeftOut
from asperity.runtime.frame import ModalityName
from asperity.runtime.manifest import Decision
from asperity.runtime.vision.scoring import fused_score

STANDARD_ERRORS = 2.0
CLEAR = 3.0
"""A frame's distance rises or falls by so many standard deviations at most, when it is asked whether defects are seen:
one that is seen clearly says no more than that."""
LEAST_SPOILED = 20
"""With fewer spoiled frames nothing is left out."""


@dataclass(frozen=True, slots=True)
class SpoiledDistances:
    """A good frame with a pseudo-defect, by banks that hold no row of its part."""

    frame: int
    kind: str
    distances: FrameDistances


def leave_out(
    decision: Decision, normal: Mapping[int, FrameDistances], spoiled: Sequence[SpoiledDistances]
) -> tuple[Decision, tuple[LeftOut, ...]]:
    """The decision with weight 0 for modalities that do harm, one after the other, the clearest first; never for all.

    ``normal``: good frames judged as the spoiled ones were.
    """
    found: list[LeftOut] = []
    while len(spoiled) >= LEAST_SPOILED:
        counted = [name for name, one in decision.modalities().items() if one.weight > 0]
        if len(counted) < 2:
            break
        whole = Wins(decision, normal, spoiled)
        trials = []
        for name in counted:
            without = _without(decision, name)
            gain, error = whole.gain_of(Wins(without, normal, spoiled))
            left = LeftOut(name, gain, error, response(decision, name, normal, spoiled))
            if gain > STANDARD_ERRORS * error or (gain > 0 and left.response < STANDARD_ERRORS):
                trials.append((left, without))
        if not trials:
            break
        left, decision = max(trials, key=lambda trial: trial[0].gain)
        found.append(left)
    return decision, tuple(found)


def response(
    decision: Decision, name: ModalityName, normal: Mapping[int, FrameDistances], spoiled: Sequence[SpoiledDistances]
) -> float:
    """How clearly a modality's distance rises when a frame is spoiled: the mean rise in its standard errors."""
    one = decision.modalities()[name]
    rises: dict[int, list[float]] = {}
    for bad in spoiled:
        before, after = (frame.modalities[name].image_distance for frame in (normal[bad.frame], bad.distances))
        rises.setdefault(bad.frame, []).append(float(np.clip((after - before) / one.image_std, -CLEAR, CLEAR)))
    means = np.array([np.mean(values) for values in rises.values()])
    if len(means) < 2:
        return 0.0
    error = float(means.std(ddof=1) / np.sqrt(len(means)))
    return float(means.mean()) / error if error > 0 else 0.0


def _without(decision: Decision, name: ModalityName) -> Decision:
    one = msgspec.structs.replace(decision.modalities()[name], weight=0.0)
    return msgspec.structs.replace(decision, **{name: one})


class Wins:
    """AUROC of good against spoiled frames by one decision, and again without each frame in turn."""

    def __init__(
        self, decision: Decision, normal: Mapping[int, FrameDistances], spoiled: Sequence[SpoiledDistances]
    ) -> None:
        frames = list(normal)
        below = [fused_score(normal[frame].modalities, decision) for frame in frames]
        above = [fused_score(one.distances.modalities, decision) for one in spoiled]
        matrix = wins(below, above)
        own = np.array([[one.frame == frame for one in spoiled] for frame in frames], dtype=np.float64)
        self.auroc = float(matrix.mean())
        rest = matrix.sum() - matrix.sum(axis=1) - own @ matrix.sum(axis=0) + (own * matrix).sum(axis=1)
        self.one_less: NDArray[np.float64] = rest / ((len(frames) - 1) * (len(spoiled) - own.sum(axis=1)))

    def gain_of(self, other: Wins) -> tuple[float, float]:
        """How much higher the other AUROC is, and the jackknife's standard error of that over frames."""
        differences = other.one_less - self.one_less
        count = len(differences)
        error = np.sqrt((count - 1) / count * ((differences - differences.mean()) ** 2).sum())
        return other.auroc - self.auroc, float(error)
