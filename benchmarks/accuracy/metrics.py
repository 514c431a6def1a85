"""The figures of anomaly detection, exact over all thresholds. Pure: scores and truths in, numbers out.

AUROC and average precision are those of the usual definitions, ties counting half. AUPRO is the area under the
per-region overlap curve up to a false-positive rate (MVTec AD; lsfa 7.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.integrate import trapezoid

from asperity.calibration.auroc import auroc, finite
from asperity.runtime.errors import DataError
from asperity.runtime.frame import BoolArray, FloatArray

Array = NDArray[np.float64]

REGIONS = np.ones((3, 3), dtype=int)
"""Pixels that touch at a corner belong to one region, as in the data sets' own evaluation code."""


@dataclass(frozen=True, slots=True)
class PixelFigures:
    """Figures of a set of maps. Never NaN: a figure that cannot be computed is None."""

    p_auroc: float | None
    aupro30: float | None
    aupro05: float | None
    regions: int
    """Number of defect regions counted."""


def auroc_standard_error(normal: int, defective: int) -> float:
    """Standard error of an AUROC of 0.5 under chance (Mann-Whitney): what shuffled labels may differ by."""
    return float(np.sqrt((normal + defective + 1) / (12 * normal * defective)))


def average_precision(normal: Sequence[float] | Array, defective: Sequence[float] | Array) -> float:
    """Sum over thresholds of (recall step) x precision; equal scores are one threshold. Raises as ``auroc``."""
    normal, defective = finite(normal), finite(defective)
    scores = np.concatenate([defective, normal])
    order = np.argsort(-scores, kind="stable")
    hit = (order < len(defective)).astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found, shown = np.cumsum(hit)[last], last + 1.0
    return float((np.diff(found, prepend=0.0) / len(defective) * (found / shown)).sum())


def detection_rate(normal: Sequence[float] | Array, defective: Sequence[float] | Array, rate: float) -> float:
    """Share of defective scores above the lowest threshold that rejects at most ``rate`` of the normal ones."""
    normal, defective = np.sort(finite(normal))[::-1], finite(defective)
    threshold = normal[min(int(np.floor(rate * len(normal) + 1e-9)), len(normal) - 1)]
    return float((defective > threshold).mean())


def pixel_figures(
    maps: Sequence[FloatArray], truths: Sequence[BoolArray], wheres: Sequence[BoolArray] | None = None,
    thresholds: int | None = None,
) -> PixelFigures:  # fmt: skip
    """P-AUROC and AUPRO of maps (H x W each, finite) against truths (same shapes, all False for good frames).

    ``wheres``: pixels that count, of the same shapes; a region without such a pixel is left out, and a region is
    measured by the pixels that count. ``thresholds``: this many thresholds instead of all, chosen as the data sets'
    code does (equidistant ranks of the normal pixels). Raises DataError on a map with a value that is not finite.
    """
    scores, weights, defective, regions = _flatten(maps, truths, wheres)
    normal = ~defective
    if not regions or not normal.any():
        return PixelFigures(None, None, None, regions)
    if thresholds is None:
        fpr, pro, tpr = _curve(scores, weights, defective, regions)
        area = float(trapezoid(tpr, fpr))
    else:
        fpr, pro = _sampled_curve(scores, weights, normal, regions, thresholds)
        area = auroc(scores[normal], scores[defective])
    return PixelFigures(area, area_to(fpr, pro, 0.3), area_to(fpr, pro, 0.05), regions)


def _flatten(
    maps: Sequence[FloatArray], truths: Sequence[BoolArray], wheres: Sequence[BoolArray] | None
) -> tuple[NDArray[np.float32], Array, BoolArray, int]:
    """All counting pixels: scores, weight of each defective pixel (1 / pixels of its region), and how many regions."""
    scores, weights, regions = [], [], 0
    for index, (one, truth) in enumerate(zip(maps, truths, strict=True)):
        where = np.ones(truth.shape, dtype=bool) if wheres is None else wheres[index]
        if not np.isfinite(one).all():
            raise DataError(f"anomaly map {index} holds a value that is not finite; it cannot be evaluated")
        labels, _ = ndimage.label(truth, structure=REGIONS)
        labels = np.asarray(labels)[where]
        sizes = np.bincount(labels)
        sizes[0] = 0
        regions += int((sizes > 0).sum())
        scores.append(np.asarray(one, dtype=np.float32)[where])
        weights.append(np.divide(1.0, sizes, out=np.zeros(len(sizes)), where=sizes > 0)[labels])
    flat = np.concatenate(weights)
    return np.concatenate(scores), flat, np.asarray(flat > 0), regions


def _curve(scores: NDArray[np.float32], weights: Array, defective: BoolArray, regions: int) -> tuple[Array, ...]:
    """(false-positive rate, mean overlap, true-positive rate) at every distinct score, high to low, from (0, 0, 0)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hit = defective[order]
    found = np.cumsum(hit)[last].astype(np.float64)
    false = last + 1.0 - found
    overlap = np.cumsum(weights[order])[last] / regions
    start = np.zeros(1)
    return (
        np.concatenate([start, false / false[-1]]),
        np.concatenate([start, overlap]),
        np.concatenate([start, found / found[-1]]),
    )


def _sampled_curve(
    scores: NDArray[np.float32], weights: Array, normal: BoolArray, regions: int, thresholds: int
) -> tuple[Array, Array]:
    """The curve at equidistant ranks of the normal pixels; a pixel counts when it is above the threshold."""
    background = np.sort(scores[normal])
    positions = np.linspace(0, len(background) - 1, thresholds).astype(int)
    order = np.argsort(scores[~normal], kind="stable")
    ordered, own = scores[~normal][order], weights[~normal][order]
    above = np.append(np.cumsum(own[::-1])[::-1], 0.0)
    pro = above[np.searchsorted(ordered, background[positions], side="right")] / regions
    fpr = 1.0 - (positions + 1) / len(background)
    return np.append(fpr[::-1], 1.0), np.append(pro[::-1], 1.0)


def area_to(fpr: Array, pro: Array, limit: float) -> float:
    """Area under the curve from 0 to ``limit``, over ``limit``; the curve is linear between its points."""
    inside = fpr <= limit
    x, y = fpr[inside], pro[inside]
    if x[-1] < limit:
        x, y = np.append(x, limit), np.append(y, np.interp(limit, fpr, pro))
    return float(trapezoid(y, x) / limit)
