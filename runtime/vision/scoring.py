"""Scores to a verdict: fusion, p-value, threshold, silhouette, and the only places that may say ok: ``decide`` of one
frame, and ``combine`` of a part of which several views were decided.

Pure: values in, values out (lsfa 7.4, 7.5, 11).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import CalibrationError, EngineError
from asperity.runtime.frame import (
    FloatArray,
    ModalityName,
    ModalityScores,
    Region,
    Result,
    Scores,
    Silhouette,
    Verdict,
)
from asperity.runtime.manifest import Decision, Geometry, Modality, SilhouetteRange, weights_fault
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.maps import pixel_map, worst_region

BY_SCORE = frozenset({Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD})
"""Reasons of verdicts that the score decided."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer of ``decide`` to one frame.

    Score, threshold and p-value are None where the verdict is unknown, except that TIMING_ONLY has score and threshold.
    """

    verdict: Verdict
    reason: Reason
    detail: str
    """Why, as text, with the numbers: for the log."""
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    region: Region | None = None
    modality: ModalityName | None = None
    """What added most to the score; None where the verdict is not by the score."""


Distances = Mapping[ModalityName, ModalityScores]

TIE_SLOPE = 1e-3
"""``squares``: a z-score counts so much besides the square of its positive part. So no two frames tie because all of
their modalities lie at or below what is usual: ranks, p-values and an engine's own threshold keep their meaning."""


def fused_score(distances: Distances, decision: Decision) -> float:
    """The frame's anomaly score: sum over the modalities of weight f(z), z = (image_distance - image_mean) / image_std.

    ``squares``: f(z) = max(0, z)^2 + TIE_SLOPE z, weights 0 or 1 (docs/decisions/fusion.md); the others f(z) = z.
    ``average`` has standardising constants of the tuning frames and equal weights (lsfa 7.5, 11 row 14). ``ocsvm``
    works on raw distances: its constants are mean 0, std 1 and the fitted weights. Raises EngineError where a constant
    cannot be right or a modality is missing; the score itself may be any number and is checked by ``decide``.
    """
    _check_constants(decision)
    _check_names(distances, decision)
    total = 0.0
    for name, one in decision.modalities().items():
        z = (distances[name].image_distance - one.image_mean) / one.image_std
        total += one.weight * float(_squared(np.float64(z)) if decision.fusion == "squares" else z)
    return total


def fused_map(distances: Distances, decision: Decision) -> FloatArray:
    """grid x grid float32: weight f((distance - patch_mean) / patch_std), summed, f as in ``fused_score``.

    Patches not scored count as distance 0. Raises EngineError as ``fused_score``.
    """
    _check_constants(decision)
    _check_names(distances, decision)
    fused = np.zeros(next(iter(distances.values())).distance_map.shape, dtype=np.float64)
    for name, one in decision.modalities().items():
        z = (distances[name].distance_map - one.patch_mean) / one.patch_std
        fused += one.weight * (_squared(z) if decision.fusion == "squares" else z)
    with np.errstate(over="ignore"):  # infinity is what ``decide`` finds and answers with unknown
        return fused.astype(np.float32)


def _squared(z: NDArray[np.floating] | np.float64) -> NDArray[np.float64]:
    """max(0, z)^2 + TIE_SLOPE z: strictly ascending; NaN stays NaN."""
    double = np.asarray(z, dtype=np.float64)
    with np.errstate(over="ignore"):
        return np.maximum(0.0, double) ** 2 + TIE_SLOPE * double


def deciding_modality(distances: Distances, decision: Decision) -> ModalityName | None:
    """The modality that adds most to the fused score: the largest weight (image_distance - image_mean) / image_std.

    In ``average`` and ``ocsvm`` these are the score's terms. In ``squares``, whose weights are 0 or 1, a term ascends
    strictly with them, so the order is the same. Of equal ones the first in ``frame.MODALITIES``; a weight of 0 decides
    nothing. None: nothing has a weight, or a number is not finite.
    """
    terms = {
        name: one.weight * (distances[name].image_distance - one.image_mean) / one.image_std
        for name, one in decision.modalities().items()
        if one.weight > 0
    }
    if not terms or not all(map(math.isfinite, terms.values())):
        return None
    return max(terms, key=lambda name: terms[name])


def p_value(score: float, calibration_scores: Sequence[float]) -> float:
    """Conformal p-value of a score among n calibration scores: (1 + #{calibration >= score}) / (n + 1)."""
    at_least = sum(1 for reference in calibration_scores if reference >= score)
    return (1 + at_least) / (len(calibration_scores) + 1)


def conformal_threshold(scores: Iterable[float], alpha: float) -> float:
    """Split-conformal threshold: a normal frame's score is above it with probability at most ``alpha`` (lsfa 11).

    It is the k-th smallest of n scores, k = ceil((n + 1)(1 - alpha)). Raises CalibrationError when alpha is not
    attainable with n scores, saying how many it needs, and when a score is not finite or alpha not within (0, 1).
    """
    ascending = sorted(float(score) for score in scores)
    if not all(math.isfinite(score) for score in ascending):
        raise CalibrationError("a calibration score is not finite; look for damaged frames and calibrate again")
    if not 0.0 < alpha < 1.0:
        raise CalibrationError(f"a false-reject rate of {alpha} is not possible; give one between 0 and 1")
    # The small term keeps (n + 1) alpha whole where it is whole up to rounding.
    rejects = math.floor((len(ascending) + 1) * alpha + 1e-9)
    if rejects < 1:
        needed = math.ceil(1 / alpha - 1e-9) - 1
        raise CalibrationError(
            f"a false-reject rate of {alpha:.3%} needs {needed} calibration frames and there are {len(ascending)}; "
            f"give more normal frames or ask for {1 / (len(ascending) + 1):.3%} or more"
        )
    return ascending[min(len(ascending) - rejects, len(ascending) - 1)]


def outside_range(silhouette: Silhouette, ranges: Iterable[SilhouetteRange]) -> tuple[str, ...]:
    """Each figure outside its closed range, as text; a figure that is not finite or not known counts as outside."""
    found = []
    for limits in ranges:
        value = getattr(silhouette, limits.figure, math.nan)
        if not limits.low <= value <= limits.high:
            found.append(f"{limits.figure} {value:.4g} is not within {limits.low:.4g}..{limits.high:.4g}")
    return tuple(found)


def decide(
    scores: Scores, decision: Decision, silhouette_ranges: Iterable[SilhouetteRange], geometry: Geometry
) -> Judgement:
    """The verdict on one frame.

    Ok only when at least one patch was scored, every number is finite, the score is at or below the threshold and the
    silhouette is within every range. Ng when the score is above, or else a figure outside. Anything else is unknown;
    so is everything where the decision is for timing only.
    """
    if not scores.scored.any():
        return Judgement(Verdict.UNKNOWN, Reason.TOO_FEW_POINTS, "no patch was left to score")
    damage = _damage(scores, decision)
    if damage:
        return Judgement(Verdict.UNKNOWN, Reason.ENGINE, damage)
    score = fused_score(scores.modalities, decision)
    fused = fused_map(scores.modalities, decision)
    if not (math.isfinite(score) and np.isfinite(fused).all()):
        return Judgement(Verdict.UNKNOWN, Reason.ENGINE, f"the fused score is {score}; it cannot decide a verdict")
    threshold = decision.threshold
    strange = outside_range(scores.silhouette, silhouette_ranges)
    if decision.timing_only:
        verdict, reason = Verdict.UNKNOWN, Reason.TIMING_ONLY
        detail = f"score {score:.4g}, and no verdict: the bundle is for timing only"
    elif score > threshold:
        verdict, reason = Verdict.NG, Reason.SCORE_ABOVE_THRESHOLD
        detail = f"score {score:.4g} is above {threshold:.4g}"
    elif strange:
        verdict, reason, detail = Verdict.NG, Reason.SHAPE_OUT_OF_RANGE, "; ".join(strange)
    elif score <= threshold:
        verdict, reason = Verdict.OK, Reason.GOOD
        detail = f"score {score:.4g} is not above {threshold:.4g}"
    else:
        return Judgement(Verdict.UNKNOWN, Reason.ENGINE, f"score {score} and threshold {threshold} cannot be compared")
    return Judgement(
        verdict=verdict,
        reason=reason,
        detail=detail,
        score=score,
        threshold=threshold,
        p_value=None if verdict is Verdict.UNKNOWN else p_value(score, decision.calibration_scores),
        modality=deciding_modality(scores.modalities, decision) if reason in BY_SCORE else None,
        region=worst_region(pixel_map(fused), scores.scored, scores.window, geometry.height_px, geometry.width_px),
    )


@dataclass(frozen=True, slots=True)
class ViewDue:
    """One view without which a part has no verdict."""

    ticket: int
    """Issued for this view of this part alone, and never used twice in a session."""
    station: str
    recipe: str
    bundle: str
    """As they were active when the part was triggered."""


@dataclass(frozen=True, slots=True)
class PartDue:
    """What the combined verdict on one part must rest on."""

    station: str
    """The combined station, which the result of each view names in ``view_of``."""
    session: str
    trigger_id: int
    part_id: str
    views: tuple[ViewDue, ...]
    ends_ns: int
    """A view that is answered later counts as missing. Monotonic."""


@dataclass(frozen=True, slots=True)
class ViewSeen:
    """The result of a view, and for which ticket and when it came."""

    ticket: int
    result: Result
    at_ns: int


def combine(part: PartDue, seen: Sequence[ViewSeen]) -> Judgement:
    """The verdict on a part, from the results of its views; their order does not matter.

    Ok only when every view that is due has exactly one result, in time, of this part and trigger, by the recipe that
    was active when the part was triggered, and each of them is ok. Ng when all are there, none is unknown and one is
    ng. Anything else is unknown. Score and threshold are those of the view that is worst by its own threshold.
    """
    conflict = _conflict(part, seen)
    if conflict:
        return Judgement(Verdict.UNKNOWN, Reason.VIEW_CONFLICT, conflict)
    in_time = {one.ticket: one.result for one in seen if one.at_ns <= part.ends_ns}
    missing = [f"{at} ({view.station})" for at, view in enumerate(part.views, 1) if view.ticket not in in_time]
    if missing or not part.views:
        return Judgement(Verdict.UNKNOWN, Reason.VIEW_MISSING, f"no result in time of view {', '.join(missing)}")
    results = [in_time[view.ticket] for view in part.views]
    unknown = [result for result in results if result.verdict not in (Verdict.OK, Verdict.NG)]
    if unknown:
        reasons = {result.reason for result in unknown}
        reason = reasons.pop() if len(reasons) == 1 else Reason.VIEW_MISSING
        detail = ", ".join(f"{result.station}: {result.reason.name} (result {result.result_id})" for result in unknown)
        return Judgement(Verdict.UNKNOWN, reason, detail)
    bad = [result for result in results if result.verdict is Verdict.NG]
    worst = max(bad or results, key=_excess)
    detail = f"view {worst.station} (result {worst.result_id}) is the worst"
    if bad:
        verdict, reason = Verdict.NG, worst.reason
    elif all(result.verdict is Verdict.OK and _within(result) for result in results):
        verdict, reason = Verdict.OK, Reason.GOOD
    else:
        return Judgement(Verdict.UNKNOWN, Reason.ENGINE, f"{detail}, and its numbers contradict its verdict")
    return Judgement(verdict, reason, detail, worst.score, worst.threshold)


def _conflict(part: PartDue, seen: Sequence[ViewSeen]) -> str:
    """Why these results are not one of each view of this part, as text; empty: nothing speaks against it."""
    due = {view.ticket: view for view in part.views}
    ids = {(one.result.station, one.result.result_id) for one in seen}
    found = [
        "two views have one ticket" if len(due) != len(part.views) else "",
        "a view has two results" if len({one.ticket for one in seen}) != len(seen) else "",
        "one result stands for two views" if len(ids) != len(seen) else "",
        *(_stray(part, due.get(one.ticket), one.result) for one in seen),
    ]
    return next(filter(None, found), "")


def _stray(part: PartDue, view: ViewDue | None, result: Result) -> str:
    """Why a result is not one of this view of this part; empty: it is."""
    who = f"result {result.result_id} of {result.station}"
    if view is None:
        return f"{who} is of no view of this part"
    if (result.view_of, result.session, result.station) != (part.station, part.session, view.station):
        return f"{who} is not of view {view.station} in this session"
    if result.trigger_id != part.trigger_id or (part.part_id and result.part_id != part.part_id):
        return f"{who} is of another trigger or part"
    judged = result.verdict is not Verdict.UNKNOWN
    if judged and (result.recipe, result.bundle) != (view.recipe, view.bundle):
        return f"{who} was judged by another recipe"
    return ""


def _within(result: Result) -> bool:
    return result.score is not None and result.threshold is not None and result.score <= result.threshold


def _excess(result: Result) -> float:
    """By how much a score is above its threshold, relative to it where that says something; NaN without numbers."""
    score, threshold = result.score, result.threshold
    if score is None or threshold is None:
        return math.nan
    return score / threshold - 1 if threshold > 0 else score - threshold


def _damage(scores: Scores, decision: Decision) -> str:
    """What in the numbers cannot be right, as text; empty when nothing."""
    try:
        _check_constants(decision)
        _check_names(scores.modalities, decision)
    except EngineError as error:
        return str(error)
    if not math.isfinite(decision.threshold):
        return f"the threshold is {decision.threshold}"
    if not decision.calibration_scores:
        return "the bundle holds no calibration scores"
    found = (_modality_damage(name, one, scores.scored.shape) for name, one in scores.modalities.items())
    return next(filter(None, found), "")


def _modality_damage(name: str, modality: ModalityScores, shape: tuple[int, ...]) -> str:
    if modality.distance_map.shape != shape:
        return f"the {name} map has shape {modality.distance_map.shape} and the scored patches {shape}"
    if not (np.isfinite(modality.distance_map).all() and (modality.distance_map >= 0).all()):
        return f"the {name} map contains a distance that is not finite or is below 0"
    if not (math.isfinite(modality.image_distance) and modality.image_distance >= 0):
        return f"the {name} image distance is {modality.image_distance}"
    return ""


def _check_constants(decision: Decision) -> None:
    if decision.fusion not in ("average", "ocsvm", "squares"):
        raise EngineError(f"decision.fusion {decision.fusion!r} is not known; calibrate again with this version")
    modalities = decision.modalities()
    if not modalities:
        raise EngineError("the decision has no modality to judge by; calibrate again")
    for name, modality in modalities.items():
        _check_modality(name, modality)
    if fault := weights_fault(decision):
        raise EngineError(f"{fault}; calibrate again")


def _check_names(distances: Distances, decision: Decision) -> None:
    """Every modality of the decision was scored, and no other."""
    if distances.keys() != decision.modalities().keys():
        raise EngineError(
            f"the engine scored {', '.join(distances) or 'nothing'} and the decision is about "
            f"{', '.join(decision.modalities())}; export the bundle again"
        )


def _check_modality(name: str, modality: Modality) -> None:
    for field in ("image_std", "patch_std"):
        value = getattr(modality, field)
        if not (math.isfinite(value) and value > 0):
            raise EngineError(f"decision.{name}.{field} is {value} and must be above 0; calibrate again")
    for field in ("image_mean", "patch_mean"):
        value = getattr(modality, field)
        if not math.isfinite(value):
            raise EngineError(f"decision.{name}.{field} is {value} and must be finite; calibrate again")
