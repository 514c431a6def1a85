"""Which held-out normal frames go into the bundle for the parity gate (architecture, "Bundle")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NORMAL = 3
"""Candidates of ordinary score; the exporter needs two."""
FEWEST = 3
"""The near one and two ordinary ones."""
CLEAR_TOLERANCES = 2.5
"""The near one is at least this many golden tolerances off the threshold, so that rounding cannot turn its verdict."""


def choose_golden(scores: Sequence[float], threshold: float, tolerance: float) -> tuple[int, list[int]]:
    """(the frame nearest to the threshold, ordinary frames), as positions in ``scores`` of held-out normal frames.

    Ordinary ones lie about the lower quartile to the median, all different. The near one is the nearest that is clear
    of the threshold, or the nearest at all when none is.
    """
    values = np.asarray(scores)
    away = np.abs(values - threshold)
    clear = np.flatnonzero(away > CLEAR_TOLERANCES * tolerance)
    near = int(clear[away[clear].argmin()]) if clear.size else int(away.argmin())
    ascending = [int(i) for i in np.argsort(values, kind="stable") if int(i) != near]
    ranks = np.linspace(0.1, 0.5, NORMAL) * (len(ascending) - 1)
    return near, [ascending[i] for i in sorted({round(rank) for rank in ranks})]
