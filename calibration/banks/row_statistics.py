"""How far normal patches lie from each row of a memory bank: what makes distances local.

A rim, a hole or an engraving is never seen twice the same, so normal patches there lie far from the bank; those of a
plain surface lie near. A distance that is large for one place is usual at another. The figures behind this are in
docs/decisions/local-distances.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.distances import RowStatistics
from asperity.runtime.vision.nearest import MemoryBank

NEIGHBOURS = 16
"""A row's figures are pooled over so many rows nearest to it, itself included: few patches meet one row alone."""
PRIOR_PATCHES = 30
"""The whole bank's mean and spread count as so many patches at every row."""
LEAST_STD_SHARE = 0.1
"""A row's standard deviation is at least this share of the whole bank's."""
LEAST_SPREAD = 1e-6
"""Distances that differ less than by this share of their mean are those of copies."""
_BLOCK_ROWS = 1024


class Tally:
    """What the frames' patches said of a bank's rows, each frame's part apart, so that any one can be left out."""

    def __init__(
        self, bank: FloatArray, bank_owners: NDArray[np.int64], patches: FloatArray, owners: NDArray[np.int64]
    ) -> None:
        """From the patches that the bank's rows were chosen from, each against the rows of other frames.

        ``bank`` (N, D) standardised rows, ``bank_owners`` (N,) the frame of each, ``patches`` (n, D) and ``owners``
        (n,) likewise.
        """
        self._frames = np.unique(owners)
        self._sums = np.zeros((len(self._frames), 3, len(bank)))  # patches met, their distances, the squares
        self._neighbours = _neighbours(bank)
        for sums, frame in zip(self._sums, self._frames, strict=True):
            others = np.flatnonzero(bank_owners != frame)
            if not len(others):
                continue
            distances, index = MemoryBank(bank[others]).nearest(patches[owners == frame])
            for row, values in zip(sums, (np.ones(len(distances)), distances, distances**2), strict=True):
                np.add.at(row, others[index], values)
        self._total = self._sums.sum(axis=0)

    def usual(self, leave_out: int | None = None) -> RowStatistics:
        """The rows' figures, by all frames or all but one.

        Raises CalibrationError when all distances are equal or none is known.
        """
        known = self._total
        if leave_out is not None:
            known = known - self._sums[self._frames == leave_out].sum(axis=0)
        met, total, squares = known.sum(axis=1)
        mean = total / met if met else 0.0
        variance = squares / met - mean**2 if met else 0.0
        if not variance > LEAST_SPREAD**2 * mean**2:
            raise CalibrationError("normal patches all lie equally far from the bank; are the frames copies of one?")
        count, total, squares = known[:, self._neighbours].sum(axis=2)
        weight = count + PRIOR_PATCHES
        row_mean = (total + PRIOR_PATCHES * mean) / weight
        row_variance = (squares + PRIOR_PATCHES * (variance + mean**2)) / weight - row_mean**2
        std = np.sqrt(np.maximum(row_variance, LEAST_STD_SHARE**2 * variance))
        return RowStatistics(row_mean.astype(np.float32), std.astype(np.float32))


def _neighbours(bank: FloatArray) -> NDArray[np.int64]:
    """The NEIGHBOURS nearest rows of each row, itself among them: N x k."""
    k = min(NEIGHBOURS, len(bank))
    half_norms = 0.5 * np.einsum("nd,nd->n", bank, bank)
    found = []
    for start in range(0, len(bank), _BLOCK_ROWS):
        ranked = half_norms - bank[start : start + _BLOCK_ROWS] @ bank.T
        found.append(np.argpartition(ranked, k - 1, axis=1)[:, :k])
    return np.concatenate(found).astype(np.int64)
