"""Memory banks: greedy k-centre coresets of the fit frames' patches (lsfa 7.1, 11 row 15).

The selection is the plain greedy one, row for row: start at index 0, then again and again the row farthest from all
chosen ones, lowest index first among equals. Only its arithmetic is rearranged. Chosen rows do not act on all rows at
once: the ``POOL`` farthest rows are played against each other by their mutual distances. As long as the farthest of
them is still farther than any row outside was before, it is what the plain loop would choose next, since distances only
fall. Then all choices of the round act on the other rows in one matrix product, which is bound by arithmetic where the
plain loop is bound by memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.profiles import Profile
from runtime.errors import CalibrationError
from runtime.frame import FloatArray

IntArray = NDArray[np.int64]

POOL = 1024
"""Rows played against each other in one round."""
BLOCK_ROWS = 8192
"""Rows that meet the choices of a round in one matrix product: bounds the buffer."""


def coreset(
    features: FloatArray, rows: int, *, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> IntArray:
    """Greedy k-centre selection in Euclidean distance, float32.

    ``features`` (N, D) f4; ``rows`` wanted. Returns the chosen indices in order of choice, (k,) int64, starting with 0,
    k = min(rows, distinct rows). ``progress(done, total)`` is called after each round.

    Raises CalibrationError when there is no row, a value that is none, or ``rows`` < 1.
    """
    if features.ndim != 2 or features.shape[0] == 0:
        raise CalibrationError(f"features have shape {features.shape}; a memory bank needs at least one patch")
    if rows < 1:
        raise CalibrationError(f"a memory bank of {rows} rows was asked for; it needs at least one")
    if not np.isfinite(features).all():
        raise CalibrationError("features hold values that are not finite; look at the weights and the frames")
    distinct = _distinct(features)
    total = min(rows, distinct.size)
    data = torch.from_numpy(np.ascontiguousarray(features[distinct])).to(device)
    chosen = _Selection(data, total).run(progress)
    return distinct[chosen]


def _distinct(features: FloatArray) -> IntArray:
    """Indices of the first occurrence of each distinct row, ascending."""
    plain = np.ascontiguousarray(features, dtype=np.float32) + np.float32(0.0)  # -0.0 equals 0.0
    keys = plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()
    _, first = np.unique(keys, return_index=True)
    return np.sort(first).astype(np.int64)


class _Selection:
    """State of one greedy run over distinct rows."""

    def __init__(self, data: Tensor, total: int) -> None:
        # A shift by whole numbers keeps distances and lets the squared norms, and with them the rounding, be small.
        self.data = data - data.mean(0).round()
        self.norms = self.data.square().sum(1)
        self.total = total
        self.chosen: list[int] = [0]
        self.nearest = torch.full((data.shape[0],), math.inf, dtype=data.dtype, device=data.device)
        """Squared distance to the nearest chosen row; -1 once chosen."""
        self._update([0])

    def run(self, progress: Callable[[int, int], None] | None) -> IntArray:
        while len(self.chosen) < self.total:
            fresh = self._round(self.total - len(self.chosen))
            self.chosen.extend(fresh)
            self._update(fresh)
            if progress is not None:
                progress(len(self.chosen), self.total)
        return np.asarray(self.chosen, dtype=np.int64)

    def _round(self, wanted: int) -> list[int]:
        """The next choices of the plain loop, at least one."""
        pool, outside = self._pool()
        distances = self._between(self.data[pool], self.norms[pool], self.data[pool], self.norms[pool]).cpu().numpy()
        nearest = self.nearest[pool].cpu().numpy()
        names = pool.cpu().numpy()
        fresh: list[int] = []
        while len(fresh) < wanted:
            best = int(nearest.argmax())
            if fresh and nearest[best] <= outside:
                break
            fresh.append(int(names[best]))
            np.minimum(nearest, distances[best], out=nearest)
            nearest[best] = -1.0
        return fresh

    def _pool(self) -> tuple[Tensor, float]:
        """The farthest rows in ascending order of index, and the largest distance among all others."""
        count = self.nearest.shape[0]
        if count <= POOL:
            return torch.arange(count, device=self.data.device), -1.0
        values, rows = torch.topk(self.nearest, POOL + 1, sorted=True)
        outside = float(values[-1])
        rows = rows[:-1]
        first = self.nearest.argmax().reshape(1)  # among equals the lowest index must be in
        return torch.unique(torch.cat([rows, first]), sorted=True), outside

    def _update(self, fresh: list[int]) -> None:
        """Let newly chosen rows act on all."""
        index = torch.tensor(fresh, device=self.data.device)
        centres, norms = self.data[index], self.norms[index]
        for start in range(0, self.data.shape[0], BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            near = self._between(self.data[block], self.norms[block], centres, norms).amin(1)
            torch.minimum(self.nearest[block], near, out=self.nearest[block])
        self.nearest[index] = -1.0

    @staticmethod
    def _between(rows: Tensor, row_norms: Tensor, centres: Tensor, centre_norms: Tensor) -> Tensor:
        """Squared distances (rows, centres), never below 0."""
        product = torch.addmm(centre_norms, rows, centres.T, alpha=-2.0)
        return product.add_(row_norms[:, None]).clamp_min_(0.0)


def bank_rows(chosen: Profile, frames: int) -> tuple[int, int]:
    """Rows wanted of the RGB and the point bank for so many fit frames (lsfa 11 row 15): share of the grid, capped."""
    rgb = int(chosen.rgb_bank_share * frames * chosen.rgb_grid**2)
    points = int(chosen.points_bank_share * frames * chosen.grid**2)
    return max(1, min(rgb, chosen.rgb_bank_cap)), max(1, min(points, chosen.points_bank_cap))


def projected(features: FloatArray, seed: int, eps: float = 0.9) -> FloatArray:
    """The published option (lsfa 7.1): a sparse random projection for choosing rows; the rows kept stay whole.

    ``features`` (N, D) f4 -> (N, d) f4 with d by Johnson-Lindenstrauss for ``eps``; unchanged where D <= d.
    """
    from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

    width = int(johnson_lindenstrauss_min_dim(features.shape[0], eps=eps))
    if features.shape[1] <= width:
        return features
    reduce = SparseRandomProjection(n_components=width, random_state=seed)
    return np.asarray(reduce.fit_transform(features), dtype=np.float32)
