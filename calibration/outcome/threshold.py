"""The threshold and its guarantee: split-conformal, with a stated rate of false rejects (lsfa 11, "Split").

With n calibration frames the threshold is the k-th highest of their scores. A further good frame, exchangeable with
them, is rejected with probability k / (n + 1) on average over calibrations; given one calibration, the rate in the long
run is Beta(k, n + 1 - k). So the lowest attainable rate is 1 / (n + 1), whatever the scores are.

Several frames of one part are one witness, not several: they are alike. Where calibration frames share parts, n counts
parts, a part's score is that of its worst frame, and the promise is of parts: k / (n + 1) of good parts, shown as
often, have a frame rejected. A single frame of a new part is rejected less often than that.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import msgspec
from scipy.stats import beta

from asperity.calibration.frames.repeats import Unseen
from asperity.calibration.options import HeldOut
from asperity.calibration.record import FalseRejects, Repeat
from asperity.runtime.errors import CalibrationError
from asperity.runtime.vision.scoring import conformal_threshold

DEFAULT_ALPHA = 0.02
"""Rate aimed at where none is asked for: attainable from 49 calibration frames, about 200 normal ones."""


UNSEEN: dict[Unseen, str] = {
    "any": "Whether frames repeat a part could not be checked, because too few level cells of it are in view",
    "turned": "Whether frames repeat a part that was turned could not be checked, because it looks nearly the same at "
    "every turn",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of n witnesses may lie above the threshold."""

    witnesses: int
    """n: calibration frames, or their parts where they share any."""
    allowed: int
    """k: the threshold is the k-th highest score, so k - 1 witnesses lie above it."""
    spent_on_shape: int
    """1 when the silhouette's ranges were widened to hold the calibration frames: one more rank to pay for."""
    of_parts: bool = False
    """Whether witnesses are parts that several frames show."""

    @property
    def alpha(self) -> float:
        """k / (n + 1): mean rate of false rejects by the score, and by score and shape when no rank is spent on it."""
        return self.allowed / (self.witnesses + 1)

    @property
    def alpha_total(self) -> float:
        """Mean rate of false rejects by score and silhouette together; 1: nothing is known of it."""
        return min(1.0, (self.allowed + self.spent_on_shape) / (self.witnesses + 1))

    def bound(self, level: float = 0.95) -> float:
        """The long-run rate of rejects by score and shape lies below this for ``level`` of all calibrations.

        The quantile of Beta(k, n + 1 - k). With a rank spent on the shape, two such rates add up, and nothing is known
        of how they depend on each other: each gets half of what ``level`` leaves.
        """
        if not self.spent_on_shape:
            return self._quantile(self.allowed, level)
        half = (1 + level) / 2
        return min(1.0, self._quantile(self.allowed, half) + self._quantile(self.spent_on_shape, half))

    def _quantile(self, rank: int, level: float) -> float:
        if rank > self.witnesses:
            return 1.0
        return float(beta.ppf(level, rank, self.witnesses + 1 - rank))


def choose_rate(frames: int, asked: float | None, shape_widened: bool = False, parts: int = 0) -> Rate:
    """The rate for ``frames`` calibration frames: the highest k within ``asked``, or within DEFAULT_ALPHA if none is.

    ``parts``: how many parts they show; 0: not known, each frame is taken for a separate part. Where nothing is asked
    for and DEFAULT_ALPHA is not attainable, k = 1. Raises CalibrationError when ``asked`` is not attainable, saying how
    many frames (or parts) it needs, and when it is not a rate.
    """
    of_parts = 0 < parts < frames
    witnesses = parts if of_parts else frames
    spent = int(shape_widened)
    if asked is not None and not 0.0 < asked < 1.0:
        raise CalibrationError(f"--alpha {asked} cannot be a false-reject rate; give one between 0 and 1, as 0.02")
    # The small term keeps (n + 1) alpha whole where it is whole up to rounding.
    ranks = math.floor((witnesses + 1) * (DEFAULT_ALPHA if asked is None else asked) + 1e-9)
    allowed = ranks - spent
    if allowed < 1:
        if asked is not None:
            raise CalibrationError(_not_attainable(witnesses, asked, spent, of_parts))
        allowed = 1
    return Rate(witnesses, min(allowed, witnesses), spent, of_parts)


def frames_needed(alpha: float, spent_on_shape: int = 0) -> int:
    """Calibration frames (parts, where frames share them) that make a rate attainable."""
    return math.ceil((1 + spent_on_shape) / alpha - 1e-9) - 1


def _not_attainable(witnesses: int, asked: float, spent: int, of_parts: bool) -> str:
    needed = frames_needed(asked, spent)
    shape = " (one rank of which goes to the silhouette, see the report)" if spent else ""
    what = "different parts among the calibration frames" if of_parts else "calibration frames"
    return (
        f"--alpha {asked:.3%} needs {needed} {what}{shape}, about {4 * needed} normal ones, and there are "
        f"{witnesses}; provide more or request {(1 + spent) / (witnesses + 1):.3%} or more"
    )


def threshold(scores: Sequence[float], rate: Rate, parts: Sequence[Hashable] = ()) -> float:
    """The k-th highest score, by the same function that engines use for thresholds of their own.

    ``parts``: the part of each frame, needed where the rate's witnesses are parts: each counts by its worst frame.
    """
    return conformal_threshold(worst_scores(scores, parts) if rate.of_parts else scores, rate.alpha)


def worst_scores(scores: Sequence[float], parts: Sequence[Hashable]) -> Sequence[float]:
    """The highest score of each part; all scores where ``parts`` is empty."""
    if not parts:
        return scores
    worst: dict[Hashable, float] = {}
    for part, score in zip(parts, scores, strict=True):
        worst[part] = max(score, worst.get(part, -math.inf))
    return list(worst.values())


def promise(
    rate: Rate, asked: float | None, held_out: HeldOut, frames: int, widened_for: tuple[str, ...] = (),
    suspected: Sequence[Repeat] = (), unseen: Unseen = "", shown_apart: int | None = None,
) -> FalseRejects:  # fmt: skip
    """The rate in numbers and plain words. ``frames``: how many calibrate.

    ``shown_apart``: witnesses that the frames themselves show to be different parts; None: all. With fewer than the ids
    say, the numbers are those of so many, and the words say both.

    ``widened_for``: names of the frames that made the silhouette's ranges wider. ``suspected``: normal frames that may
    repeat parts and are counted as different ones. ``unseen``: which of those may not have been found.
    """
    by_ids, doubted = rate.alpha_total, shown_apart is not None and shown_apart < rate.witnesses
    stated = replace(rate, witnesses=shown_apart) if shown_apart is not None and doubted else rate
    total, bound = stated.alpha_total, stated.bound()
    shown = f"{rate.witnesses} parts in {frames} frames" if rate.of_parts else f"{frames} frames"
    words = (
        f"Of 100 good parts, score and shape together reject {100 * total:.2g} on average "
        f"(1 in {round(1 / total)}), learned from {shown} that were not used for anything else. "
        f"For this very calibration the long-run rate is below {100 * bound:.2g} % with 95 % confidence."
    )
    if held_out == "leave_one_out":
        words = (
            f"About {100 * total:.2g} of 100 good parts are rejected, estimated by leave-one-out on {shown} "
            "that also made the memory bank. This is weaker than held-out frames: no bound is proven."
        )
    if total >= 1:
        words = "How many good parts will be rejected is not known."
    if doubted:
        words += (
            f" {rate.witnesses} part ids calibrate, but frames of different ids differ by noise, position and light "
            f"alone, as those of one part do, so that only {shown_apart} of these parts are shown to be different ones "
            f"that nothing was learnt from. If all ids are right, it is {100 * by_ids:.2g} of 100."
        )
    if asked is None and total > DEFAULT_ALPHA + 1e-12:
        words += (
            f" No rate was requested; the target of {DEFAULT_ALPHA:.0%} needs {frames_needed(DEFAULT_ALPHA)} "
            f"calibration {'parts' if rate.of_parts else 'frames'} (about 200 normal ones), so this is the lowest rate "
            f"that {rate.witnesses} can give."
        )
    if rate.spent_on_shape:
        words += (
            f" One of the {rate.witnesses + 1} ranks is spent on the shape, whose ranges had to be widened for "
            f"{', '.join(widened_for) or 'calibration frames outside them'}."
        )
    if rate.of_parts:
        words += (
            " Frames of one part are alike and count once, by the worst of them: a part counts as rejected when any of "
            "its frames is, shown as often as here."
        )
    if suspected and not doubted:
        words += (
            f" All this presumes different parts, and {sum(len(one.frames) for one in suspected)} of the normal frames "
            "differ hardly more than frames of one part do: if they show the same parts, far more good parts are "
            "rejected."
        )
    if unseen:
        words += f" {UNSEEN[unseen]}: the parts are as many as the part ids say, or the frames where they have none."
    return FalseRejects(
        asked=asked, frames=frames, allowed=rate.allowed, alpha=rate.alpha, alpha_total=total, bound_95=bound,
        held_out=held_out, statement=words, shape_widened_for=widened_for,
        parts=rate.witnesses if rate.of_parts else 0,
    )  # fmt: skip


def with_excluded(
    rejects: FalseRejects, frames: int, excluded: int, calibrated: tuple[str, ...] = ()
) -> FalseRejects:
    """The promise after a person excluded frames. ``frames``: how many normal ones were left.

    It says nothing of parts like those. Should they be good after all, and all like them be rejected, the rate grows by
    their share; where it is known that some had served to calibrate (``calibrated``, their names), each of these is a
    rank above the threshold.
    """
    if not excluded:
        return rejects
    share = (frames * rejects.alpha_total + excluded) / (frames + excluded)
    ranks = rejects.alpha_total * (rejects.witnesses + 1) + len(calibrated)
    worst = max(share, ranks / (rejects.witnesses + 1 + len(calibrated)))
    words = (
        f" {excluded} of {frames + excluded} normal frames were excluded by a person as bad parts: the promise does "
        f"not cover parts like them. If those parts are good, about {100 * worst:.2g} of 100 good parts are rejected."
    )
    if calibrated:
        words += f" {', '.join(calibrated)} had served to calibrate: the rate is that of the remaining parts alone."
    return msgspec.structs.replace(
        rejects, statement=rejects.statement + words, excluded=excluded, excluded_calibrate=calibrated,
        alpha_if_good=worst,
    )  # fmt: skip
