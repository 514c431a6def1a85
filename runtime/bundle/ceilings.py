"""How far a bundle, or an operator, may loosen a check. The limits are in the code: no signature lifts them.

A manifest's numbers set most checks of a frame, and its signer chooses them. Each number that can weaken a check has
its limit here, far beyond what calibration gives. Not here: numbers that the golden frames prove with the engine itself
(means, deviations, weights, the networks' constants), since a bundle that misuses them does not pass the gate.
"""

from __future__ import annotations

import math
from statistics import stdev

from asperity.runtime.errors import BundleError
from asperity.runtime.manifest import LEVEL_FIGURE, Decision, Geometry, Manifest, silhouette_figures

TOLERANCE_STD = 0.2
"""``golden_tolerance`` in standard deviations of the calibration scores; calibration gives 0.1."""
FRAME_P99_MS = 30_000.0
"""``frame_p99_ms``; receivers wait three times that for a heartbeat. The slowest profile seen took 5 s on two cores."""
MOVED_SHARE = 0.75
"""``geometry.moved_share`` where there is a plane; calibration gives no more."""
OFF_PLANE_SHARE = 0.1
"""``geometry.plane_cut_mm`` and ``moved_mm`` as a share of the view's side; calibration gives at most 0.06."""
LEAST_POINTS = 64
"""``geometry.min_points``; calibration gives no less."""
RANGE_RATIO = 10.0
"""Highest over lowest area, length and width of a good part. Beyond it the range tells no missing material."""
MISSING_SHARE = 0.9
"""Highest ``missing_share`` of a good part."""


def check_ceilings(manifest: Manifest) -> None:
    """Raises BundleError naming the field, its value and the limit."""
    _at_most("frame_p99_ms", manifest.frame_p99_ms, FRAME_P99_MS)
    _check_tolerance(manifest)
    _check_geometry(manifest.geometry)
    _check_silhouette(manifest)


def threshold_refusal(threshold: float, decision: Decision, manifest: Manifest, proven: float) -> str:
    """Why an operator may not have parts judged by ``threshold``; empty: allowed. ``proven``: the engine's own.

    The spoiled golden frames prove that the networks see: a threshold that lets one of them pass proves nothing. And at
    their highest score all normal frames of calibration pass: a higher threshold can only let more defects pass.
    """
    if decision.timing_only:
        return f"recipe {manifest.recipe} is for timing only; no threshold gives it a verdict"
    spoiled = {g.name: g.score for g in manifest.golden if g.kind.startswith("spoiled")}
    passing = [f"{name} (score {score:.4g})" for name, score in spoiled.items() if score <= threshold]
    if passing:
        return f"a threshold of {threshold:.4g} would pass spoiled golden frames: {', '.join(passing)}"
    scores = decision.calibration_scores
    highest = max(scores, default=-math.inf)
    if not threshold <= highest:
        return (
            f"threshold is {threshold:.6g}; the maximum is {highest:.6g}, the highest score of the {len(scores)} "
            f"normal frames of calibration (the proven threshold is {proven:.6g}); where good parts score higher, "
            "calibrate again with such parts"
        )
    return ""


def _at_most(field: str, value: float, ceiling: float, why: str = "") -> None:
    if not value <= ceiling:
        raise BundleError(f"field {field} is {value:.6g}, above the maximum of {ceiling:.6g}{why}")


def _check_tolerance(manifest: Manifest) -> None:
    scores, tolerance = manifest.decision.calibration_scores, manifest.golden_tolerance
    ceiling = TOLERANCE_STD * stdev(scores) if len(scores) > 1 else 0.0
    _at_most("golden_tolerance", tolerance, ceiling, f" ({TOLERANCE_STD} standard deviations of calibration_scores)")
    if manifest.decision.timing_only:
        return
    for golden in manifest.golden:
        off = abs(golden.score - manifest.decision.threshold)
        why = f" (what golden frame {golden.name} is off the threshold)"
        _at_most("golden_tolerance", tolerance, off, why)


def _check_geometry(geometry: Geometry) -> None:
    least = geometry.min_points
    if not least >= LEAST_POINTS:
        raise BundleError(f"field geometry.min_points is {least}, below the minimum of {LEAST_POINTS}")
    if geometry.plane is None:
        return
    _at_most("geometry.moved_share", geometry.moved_share, MOVED_SHARE)
    ceiling = OFF_PLANE_SHARE * _view_mm(geometry)
    for name in ("plane_cut_mm", "moved_mm"):
        _at_most(f"geometry.{name}", getattr(geometry, name), ceiling, f" ({OFF_PLANE_SHARE} of the view's side)")


def _check_silhouette(manifest: Manifest) -> None:
    ranges = {each.figure: each for each in manifest.silhouette}
    needed = silhouette_figures(manifest.geometry)
    if len(manifest.silhouette) != len(needed) or ranges.keys() != set(needed):
        found = ", ".join(each.figure for each in manifest.silhouette) or "none"
        raise BundleError(
            f"field silhouette has the figures {found}; each of {', '.join(needed)} once: calibrate and export again"
        )
    _at_most("silhouette missing_share high", ranges["missing_share"].high, MISSING_SHARE)
    for name in ("area_mm2", "length_mm", "width_mm"):
        low, high = ranges[name].low, ranges[name].high
        _at_most(f"silhouette {name} high", high, RANGE_RATIO * low, f" ({RANGE_RATIO:g} x its low, {low:.6g})")
    # A part cannot be higher than the view is wide: it would hide everything else.
    height = ranges["height_mm"].high
    _at_most("silhouette height_mm high", height, _view_mm(manifest.geometry), " (the view's side)")
    if level := ranges.get(LEVEL_FIGURE):
        span = level.high - level.low
        _at_most(f"silhouette {LEVEL_FIGURE} span", span, _view_mm(manifest.geometry), " (the view's side)")


def _view_mm(geometry: Geometry) -> float:
    """Side of a square as large as the view, on the part."""
    return geometry.mm_per_px * math.sqrt(geometry.height_px * geometry.width_px)
