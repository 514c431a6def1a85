"""Memory banks: greedy k-centre coresets of the fit frames' patches (lsfa 7.1, 11 row 15).

The selection is the plain greedy one, row for row: start at index 0, then again and again the row farthest from all
chosen ones, lowest index first among equals. Only its arithmetic is rearranged, in two ways that change no result:

* Rounds. Chosen rows do not act on all rows at once. The ``POOL`` farthest rows are played against each other by their
  mutual distances. As long as the farthest of them is still farther than any row outside was before, it is what the
  plain loop would choose next, since distances only fall. Then all choices of the round act on the other rows in
  matrix products, which are bound by arithmetic where the plain loop is bound by memory.
* Lower bounds. Features of parts vary in few directions. With V some orthonormal directions (the leading principal
  ones) and rho(x) the length of x outside them, |x - c|^2 >= |V(x - c)|^2 + (rho(x) - rho(c))^2. Only the few pairs
  whose bound lies below the row's present distance are measured in full: some in 1000 on real features.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asperity.calibration.profiles import Profile
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import FloatArray, ModalityName

IntArray = NDArray[np.int64]

POOL = 512
"""Rows played against each other in one round."""
BLOCK_VALUES = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Distances held at once, by kind of device: on a CPU they should stay in its cache."""
BLOCK_PAIRS = 1 << 11
"""Pairs whose difference is formed at once: of some hundred channels these stay in a core's cache."""
DENSE_SHARE = 0.03
"""With more pairs than this left by the bound, the whole product is cheaper than single pairs."""
SKETCH_ENERGY, SKETCH_LEAST, SKETCH_MOST, SKETCH_ROWS = 0.995, 8, 128, 16_384
"""Directions of the bound: as many as hold this share of the variance of so many rows, within these limits and half
of all. With 128 directions in place of 64 a quarter of the pairs is left to measure (benchmarks.parts.coreset)."""
SKETCH_WORTH = 0.9
"""Directions that hold less of the variance bound nothing: then whole products."""
ROUNDING = 1e-5
"""Float32 may miss a squared distance by this share of the squared norms; the bound leaves as much room."""


def coreset(
    features: FloatArray, rows: int, *, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> IntArray:
    """Greedy k-centre selection in Euclidean distance, float32.

    ``features`` (N, D) f4; ``rows`` wanted. Returns the chosen indices in order of choice, (k,) int64, starting with 0,
    k = min(rows, distinct rows). Where two rows' distances agree to within float32's rounding, either may come first.
    ``progress(done, total)`` is called after each round.

    Raises CalibrationError when there is no row, a value that is none, or ``rows`` < 1.
    """
    if features.ndim != 2 or features.shape[0] == 0:
        raise CalibrationError(f"features have shape {features.shape}; a memory bank needs at least one patch")
    if rows < 1:
        raise CalibrationError(f"a memory bank of {rows} rows was asked for; it needs at least one")
    if not np.isfinite(features).all():
        raise CalibrationError("features hold values that are not finite; check the weights and the frames")
    distinct = _distinct(features)
    total = min(rows, distinct.size)
    kept = features if distinct.size == len(features) else features[distinct]
    data = torch.from_numpy(np.ascontiguousarray(kept, dtype=np.float32)).to(device)
    chosen = _Selection(data, total).run(progress)
    return distinct[chosen]


def _distinct(features: FloatArray) -> IntArray:
    """Indices of the first occurrence of each distinct row, ascending."""
    plain = np.ascontiguousarray(features, dtype=np.float32) + np.float32(0.0)  # -0.0 equals 0.0
    keys = plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()
    _, first = np.unique(keys, return_index=True)
    return np.sort(first).astype(np.int64)


class _Sketch:
    """Rows in few dimensions, whose squared distances are never above the true ones: V x, and rho(x)."""

    def __init__(self, data: Tensor, norms: Tensor) -> None:
        sample = data[:: -(-data.shape[0] // SKETCH_ROWS)]
        energy, directions = torch.linalg.eigh(sample.T @ sample)
        share = energy.flip(0).cumsum(0) / energy.sum().clamp_min(1e-30)
        width = int((share < SKETCH_ENERGY).sum()) + 1
        self.width = min(max(width, SKETCH_LEAST), SKETCH_MOST, data.shape[1] // 2)
        self.energy = float(share[self.width - 1])
        leading = directions[:, -self.width :].contiguous()
        rows = torch.empty((data.shape[0], self.width + 1), dtype=data.dtype, device=data.device)
        step = 1 << 14
        for start in range(0, data.shape[0], step):
            block = data[start : start + step]
            inside = block @ leading
            rows[start : start + step, :-1] = inside
            rows[start : start + step, -1] = (block - inside @ leading.T).norm(dim=1)
        self.rows = rows
        self.half_norms = 0.5 * rows.square().sum(1)
        self.half_room = 0.5 * ROUNDING * (norms + norms.max())

    def close_pairs(self, block: slice, index: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (in the block, in ``index``) of all pairs that may be nearer than ``nearest`` (squared)."""
        # |s|^2 / 2 - s.t + |t|^2 / 2 < nearest / 2 + room / 2, arranged so that the product needs one pass.
        bounds = torch.addmm(self.half_norms[index], self.rows[block], self.rows[index].T, alpha=-1.0)
        limits = 0.5 * nearest + self.half_room[block] - self.half_norms[block]
        rows, columns = (bounds < limits[:, None]).nonzero(as_tuple=True)
        return rows, columns


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
        self.sketch = _Sketch(self.data, self.norms) if data.shape[1] > 2 * SKETCH_LEAST else None
        if self.sketch is not None and self.sketch.energy < SKETCH_WORTH:
            self.sketch = None
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
        rows, norms = self.data[pool], self.norms[pool]
        distances = _squared(rows, norms, rows, norms).cpu().numpy()
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
        step = max(1, BLOCK_VALUES.get(self.data.device.type, BLOCK_VALUES["cpu"]) // len(fresh))
        for start in range(0, self.data.shape[0], step):
            self._update_block(slice(start, start + step), index)
        self.nearest[index] = -1.0

    def _update_block(self, block: slice, index: Tensor) -> None:
        nearest = self.nearest[block]
        if self.sketch is not None and len(self.chosen) > 1:
            rows, columns = self.sketch.close_pairs(block, index, nearest)
            if rows.shape[0] <= DENSE_SHARE * nearest.shape[0] * index.shape[0]:
                self._update_pairs(rows + block.start, index[columns])
                return
        near = _squared(self.data[block], self.norms[block], self.data[index], self.norms[index]).amin(1)
        torch.minimum(nearest, near, out=nearest)

    def _update_pairs(self, rows: Tensor, others: Tensor) -> None:
        for first in range(0, rows.shape[0], BLOCK_PAIRS):
            some = rows[first : first + BLOCK_PAIRS]
            squared = (self.data[some] - self.data[others[first : first + BLOCK_PAIRS]]).square_().sum(1)
            self.nearest.scatter_reduce_(0, some, squared, "amin")


def _squared(rows: Tensor, row_norms: Tensor, centres: Tensor, centre_norms: Tensor) -> Tensor:
    """Squared distances (rows, centres), never below 0."""
    product = torch.addmm(centre_norms, rows, centres.T, alpha=-2.0)
    return product.add_(row_norms[:, None]).clamp_min_(0.0)


def bank_rows(chosen: Profile, frames: int) -> dict[ModalityName, int]:
    """Rows wanted of each modality's bank for so many fit frames (lsfa 11 row 15): share of the grid, capped."""
    rgb = int(chosen.rgb_bank_share * frames * chosen.rgb_grid**2)
    points = int(chosen.points_bank_share * frames * chosen.grid**2)
    image = max(1, min(rgb, chosen.rgb_bank_cap))
    shape = max(1, min(points, chosen.points_bank_cap))
    return {"rgb": image, "points": shape, "geometry": image, "height": shape, "descriptor": shape}


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
