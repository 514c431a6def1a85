"""Two methods on sets whose frames are redrawn for each seed: paired gains of every figure, with intervals.

Seeds are resampled, and within each seed and product the good and the defective frames; both methods see the same
draw, so frames that are easy or hard for both cancel out. For the AUPRO every frame keeps its own share of the curve
at fixed thresholds (``FrameCurves``): a resampled curve is then a weighted sum, and no map has to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.benchmarks.accuracy.metrics import REGIONS, area_to
from asperity.benchmarks.accuracy.trial import Figures
from asperity.benchmarks.results_tools.statistics import bootstrap, interval, times_drawn
from asperity.calibration.auroc import weighted_auroc, wins
from asperity.runtime.errors import UsageError
from asperity.runtime.frame import BoolArray, FloatArray

Array = NDArray[np.float64]

RATES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4)
"""False-positive rates of the thresholds at which a frame's curve is kept."""
FIGURES = ("i_auroc_fg", "found_at_5", "found", "aupro30_fg", "aupro05_fg")
"""``found_at_5``: above the threshold that rejects 5 % of the good test frames; ``found``: above the calibrated one."""
REPLICATES = 2000


@dataclass(frozen=True, slots=True)
class FrameCurves:
    """What each frame adds to the per-region overlap curve on the part's foreground, at the thresholds of ``RATES``."""

    false: NDArray[np.uint32]  # frames x rates: normal pixels above the threshold
    normal: NDArray[np.uint32]  # frames: normal pixels
    overlap: NDArray[np.float16]  # frames x rates: sum over the frame's regions of the share above the threshold
    regions: NDArray[np.uint32]  # frames

    @classmethod
    def of(cls, maps: Sequence[FloatArray], truths: Sequence[BoolArray], wheres: Sequence[BoolArray]) -> FrameCurves:
        """Of the maps of all frames of one product."""
        calm = [np.sort(one[where & ~truth]) for one, truth, where in zip(maps, truths, wheres, strict=True)]
        limits = np.quantile(np.concatenate(calm), 1 - np.array(RATES))
        false = [len(values) - np.searchsorted(values, limits, side="right") for values in calm]
        overlap, regions = np.zeros((len(maps), len(RATES)), np.float16), np.zeros(len(maps), np.uint32)
        for index, (one, truth, where) in enumerate(zip(maps, truths, wheres, strict=True)):
            labels, count = ndimage.label(truth, structure=REGIONS)
            inside = [one[(labels == region) & where] for region in range(1, count + 1)]
            shares = [(values[:, None] > limits).mean(axis=0) for values in inside if values.size]
            overlap[index], regions[index] = np.sum(shares, axis=0) if shares else 0, len(shares)
        return cls(np.array(false, np.uint32), np.array([len(v) for v in calm], np.uint32), overlap, regions)

    def aupro(self, weights: Array, limit: float) -> float:
        """Area under the curve of the weighted frames up to a false-positive rate."""
        false, overlap = weights @ self.false / (weights @ self.normal), weights @ self.overlap.astype(np.float64)
        pro = overlap / max(float(weights @ self.regions), 1e-9)
        return area_to(np.append(0.0, false), np.append(0.0, pro), limit)


def write_curves(path: Path, curves: Mapping[str, FrameCurves]) -> None:
    """Of every product, compressed."""
    parts = {f"{name}.{f.name}": getattr(one, f.name) for name, one in curves.items() for f in fields(one)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **parts)


def read_curves(path: Path) -> dict[str, FrameCurves]:
    """Of every product; empty where there is no such file."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        names = {key.rpartition(".")[0] for key in arrays}
        return {name: FrameCurves(*(arrays[f"{name}.{f.name}"] for f in fields(FrameCurves))) for name in names}


class Judgement:
    """One method on one product of one seed."""

    def __init__(self, figures: Figures, good: BoolArray, curves: FrameCurves | None) -> None:
        scores = np.array(figures.scores, dtype=np.float64)
        self.good, self.bad, self.curves = scores[good], scores[~good], curves
        self.is_good = good
        self.wins = wins(self.good, self.bad)
        share = figures.detection
        rejected = round(share.observed * len(self.good)) + round(share.detected * len(self.bad))
        # The calibrated threshold lies between two scores; which ones follows from how many it rejected.
        self.limit = np.sort(scores)[::-1][rejected] if rejected < len(scores) else -np.inf
        self.order = np.argsort(-self.good, kind="stable")

    def figures(self, good: Array, bad: Array) -> list[float]:
        """``FIGURES`` of the frames, each counted as often as its weight says; NaN without curves."""
        total = np.cumsum(good[self.order])
        at = min(int(np.searchsorted(total, 0.05 * total[-1] + 1e-9, side="right")), len(total) - 1)
        figures = [weighted_auroc(self.wins, good, bad)]
        figures += [float(bad @ (self.bad > limit) / bad.sum()) for limit in (self.good[self.order[at]], self.limit)]
        if self.curves is None:
            return [*figures, np.nan, np.nan]
        weights = np.empty(len(self.is_good))
        weights[self.is_good], weights[~self.is_good] = good, bad
        return [*figures, self.curves.aupro(weights, 0.3), self.curves.aupro(weights, 0.05)]


Cells = Mapping[tuple[int, str], Judgement]
"""By seed and product."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Other minus base of one figure: mean over seeds and products, and its 95 % interval."""

    mean: float
    low: float
    high: float
    products: dict[str, tuple[float, float, float]]


def gains(base: Cells, other: Cells, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Gain]:
    """Of every figure. Raises UsageError where the two do not share seeds, products and numbers of frames."""
    seeds, names = sorted({run for run, _ in base}), sorted({name for _, name in base})
    if set(base) != set(other) or len(base) != len(seeds) * len(names):
        raise UsageError("the two rows do not hold the same seeds and products; run both on the same drawings")
    if any(not np.array_equal(base[cell].is_good, other[cell].is_good) for cell in base):
        raise UsageError("the two rows do not hold the same test frames; run both on the same drawings")

    def gain(cell: tuple[int, str], good: Array, bad: Array) -> Array:
        return np.subtract(other[cell].figures(good, bad), base[cell].figures(good, bad), dtype=np.float64)

    def drawn(rng: np.random.Generator) -> Array:
        chosen = [seeds[int(index)] for index in rng.integers(len(seeds), size=len(seeds))]
        found = np.empty((len(names), len(FIGURES)))
        for place, name in enumerate(names):
            sizes = [(len(base[run, name].good), len(base[run, name].bad)) for run in chosen]
            each = [gain((run, name), times_drawn(rng, g), times_drawn(rng, b))
                    for run, (g, b) in zip(chosen, sizes, strict=True)]  # fmt: skip
            found[place] = np.mean(each, axis=0)
        return np.vstack([found, found.mean(axis=0)])

    whole = {cell: gain(cell, np.ones(len(one.good)), np.ones(len(one.bad))) for cell, one in base.items()}
    points = np.array([np.mean([whole[run, name] for run in seeds], axis=0) for name in names])
    low, high = interval(np.array(bootstrap(drawn, replicates, seed)))
    return {
        figure: Gain(
            float(points[:, at].mean()), float(low[-1, at]), float(high[-1, at]),
            {name: (float(points[k, at]), float(low[k, at]), float(high[k, at])) for k, name in enumerate(names)},
        )
        for at, figure in enumerate(FIGURES)
        if np.isfinite(points[:, at]).all()
    }  # fmt: skip
