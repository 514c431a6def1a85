"""Ranges of the silhouette's figures: missing material leaves no patch that could be scored (lsfa 11).

Ranges are learnt on fit and tuning frames: lowest to highest, widened on both sides by half of that. The calibration
frames then lie inside, as a rule, and the conformal promise covers score and shape together: count a frame outside as
one of infinite score, and the rule "k-th highest of n" does not change. Where a calibration frame lies outside, the
ranges are widened to hold it, and that costs one rank of the promise (docs/decisions/false-reject-budget.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import Silhouette
from asperity.runtime.manifest import (
    LEVEL_FIGURE,
    SILHOUETTE_FIGURES,
    Geometry,
    SilhouetteRange,
    silhouette_figures,
)

FIGURES = (*SILHOUETTE_FIGURES, LEVEL_FIGURE)
WIDENING = 0.5
"""Share of a figure's span that is added on either side."""
LEAST_SHARE = 0.0025
"""Added on either side at least: this share of the median, and what the station resolves (``_least_margins``)."""
LEAST_MISSING = 0.003
"""The same for ``missing_share``, absolute."""
ROUNDING = 1e-9
"""A frame that sets an end of a range must lie inside it whatever the rounding."""
USUAL_TIMES = 5.0
VIEW_SHARE = 0.1
VIEW_TIMES = 1.5
"""A normal frame's length, width or height is implausible above this many times the usual one (and that plus this share
of the view's diagonal), and above this many diagonals in any case."""
MISSING, LEVEL = FIGURES.index("missing_share"), FIGURES.index(LEVEL_FIGURE)
LEVEL_PX = 0.5
"""Added on either side of the level at least, pixels' size: a sheet on a table must be thicker than that."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The ranges, and what they rest on."""

    ranges: tuple[SilhouetteRange, ...]
    widened_for: tuple[int, ...]
    """Calibration frames (their position) that lay outside and for which the ranges were widened."""

    @property
    def widened(self) -> bool:
        """Whether a rank of the promise is spent on the shape."""
        return bool(self.widened_for)


def figures(silhouettes: Sequence[Silhouette]) -> NDArray[np.float64]:
    """(n, 6) float64, columns as FIGURES."""
    rows = [[getattr(silhouette, name) for name in FIGURES] for silhouette in silhouettes]
    return np.array(rows, dtype=np.float64).reshape(-1, len(FIGURES))


def learn_shape(learn: Sequence[Silhouette], calibrate: Sequence[Silhouette], geometry: Geometry) -> Shape:
    """Ranges from the fit and tuning frames, widened for calibration frames that lie outside.

    A low share of missing points is judged as well: through holes that are not there lower it. Raises CalibrationError
    when there is no frame to learn from or a figure is not finite.
    """
    names = silhouette_figures(geometry)
    known, held = figures(learn)[:, : len(names)], figures(calibrate)[:, : len(names)]
    if not len(known):
        raise CalibrationError("no normal frame is left to learn the silhouette from")
    if not (np.isfinite(known).all() and np.isfinite(held).all()):
        raise CalibrationError("a normal frame's silhouette holds a figure that is not finite; check its points")
    low, high = known.min(axis=0), known.max(axis=0)
    margin = np.maximum(WIDENING * (high - low), _least_margins(np.median(known, axis=0), geometry))
    # One number a frame: how many margins it lies beyond the learnt span. All figures are widened alike, since then
    # "beyond every calibration frame" is one event and costs one rank; each figure for itself would cost up to ten.
    beyond = (np.maximum(low - held, held - high) / margin).max(axis=1, initial=0.0)
    factor = max(1.0, float(beyond.max(initial=0.0)))
    low, high = low - factor * margin, high + factor * margin
    low[:LEVEL] = np.maximum(low[:LEVEL], 0.0)
    high[MISSING] = min(high[MISSING], 1.0)
    ranges = tuple(
        SilhouetteRange(name, float(a) * (1 - math.copysign(ROUNDING, a)), float(b) * (1 + math.copysign(ROUNDING, b)))
        for name, a, b in zip(names, low, high, strict=True)
    )
    return Shape(ranges, tuple(int(i) for i in np.flatnonzero(beyond > 1.0)))


def refuse_implausible(names: Sequence[str], silhouettes: Sequence[Silhouette], geometry: Geometry) -> None:
    """Raises CalibrationError for a length, width or height that no part of this station has: its points are not its
    own, and the range learnt from it would let everything pass. Nothing is refused with ``--invalid none``.
    """
    if geometry.invalid == ():
        return
    view_mm = geometry.mm_per_px * float(np.hypot(geometry.height_px, geometry.width_px))
    found = figures(silhouettes)
    for name in ("length_mm", "width_mm", "height_mm"):
        values = found[:, FIGURES.index(name)]
        usual = float(np.median(values)) if len(values) else 0.0
        most = min(max(USUAL_TIMES * usual, usual + VIEW_SHARE * view_mm), VIEW_TIMES * view_mm)
        odd = [int(i) for i in np.flatnonzero(~(values <= most))]
        if odd:
            shown = ", ".join(f"{names[i]}: {values[i]:.4g}" for i in odd[:3])
            raise CalibrationError(
                f"{name} of {len(odd)} of {len(values)} normal frames ({shown}{', ...' if len(odd) > 3 else ''}) is "
                f"beyond {most:.4g}, where {usual:.4g} is usual and the view is {view_mm:.4g} mm across: points of "
                "other things, or of nothing, count as the part. Declare missing points with --invalid, let the camera "
                "filter stray ones, or leave the frames out with --exclude (--invalid none: every point is measured)"
            )


def _least_margins(median: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float64]:
    """What a few alike frames cannot show: one pixel of length, an eighth of one all around, the noise of heights."""
    resolved = np.zeros(len(median))
    resolved[FIGURES.index("area_mm2")] = 0.5 * geometry.mm_per_px * np.sqrt(median[FIGURES.index("area_mm2")])
    resolved[[FIGURES.index("length_mm"), FIGURES.index("width_mm")]] = geometry.mm_per_px
    resolved[FIGURES.index("height_mm")] = 2.0 * geometry.plane_noise_mm
    least = np.maximum(LEAST_SHARE * np.abs(median), resolved)
    least[MISSING] = LEAST_MISSING
    least[LEVEL:] = LEVEL_PX * geometry.mm_per_px
    return least
