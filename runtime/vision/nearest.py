"""Exact nearest neighbours in a memory bank, on the CPU (lsfa 7.2, 10.2 point 6).

A float32 matrix product ranks all rows; any row that rounding could have confused with the winner is measured again in
float64, so the index returned is the float64 one and ties go to the lowest index. Nothing of size queries x rows is
kept beyond one block.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray

BLOCK_BYTES = 32 * 2**20
"""Upper bound of the block of distances held at once."""

LARGEST = 1e15
"""Largest magnitude of a feature. Squares and sums of such features keep well within float32; beyond, infinities would
take part in the comparison. Standardised features are a few units large."""

_ROUNDING = float(np.finfo(np.float32).eps) / 2


def checked_rows(rows: FloatArray) -> FloatArray:
    """The rows of a memory bank, N x D, as contiguous float32. Raises EngineError where they cannot be searched."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if rows.ndim != 2 or 0 in rows.shape:
        raise EngineError(f"a memory bank needs a table of rows, not shape {rows.shape}; calibrate again")
    if not bounded(rows):
        raise EngineError(f"a memory bank row holds a value that is not finite or beyond {LARGEST:g}; calibrate again")
    return rows


def bounded(features: FloatArray) -> bool:
    """Whether every feature is finite and within ``LARGEST``; so is an array without any."""
    return bool(features.min(initial=0.0) >= -LARGEST and features.max(initial=0.0) <= LARGEST)


class MemoryBank:
    """Rows of standardised features that normal parts showed, searched for the nearest one.

    ``rows``: N x D float32, within ``LARGEST``. Raises EngineError otherwise, or when there is no row.
    """

    def __init__(self, rows: FloatArray) -> None:
        rows = self.rows = checked_rows(rows)
        # Centring shrinks the norms, and with them the rounding error of the matrix product.
        self._centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = rows - self._centre
        self._centred_t = np.ascontiguousarray(centred.T)
        norms = np.einsum("nd,nd->n", centred, centred, dtype=np.float64)
        self._half_norms = (0.5 * norms).astype(np.float32)
        self._largest_norm = float(np.sqrt(norms.max()))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """D, the number of channels of a row."""
        return int(self.rows.shape[1])

    def nearest(
        self, queries: FloatArray, beside: Executor | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Euclidean distance to the nearest row, and that row's index, for each of M x D queries.

        With an executor ``beside`` half of the queries are searched there, if it is free by the time the others are
        done.

        Returns (M,) float64 distances and (M,) int64 indices, equal to a float64 search with ties to the lowest index.
        Raises EngineError where a query is not finite, beyond ``LARGEST`` or of another width: no distance is made up.
        """
        queries = self._checked(queries)
        if beside is None:
            index = self._nearest_index(queries)
        else:
            first, second = queries[: len(queries) // 2], queries[len(queries) // 2 :]
            half = beside.submit(self._nearest_index, first)
            rest = self._nearest_index(second)
            index = np.concatenate([self._nearest_index(first) if half.cancel() else half.result(), rest])
        difference = queries.astype(np.float64) - self.rows[index]
        return np.sqrt(np.einsum("md,md->m", difference, difference)), index

    def nearest_rows(self, query: FloatArray, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The ``k`` nearest rows of one query (D,), nearest first, ties to the lowest index: distances and indices.

        Returns fewer where the bank has fewer rows. Raises EngineError as ``nearest``.
        """
        queries = self._checked(query[None])
        k = min(k, len(self))
        ranked, margin = self._ranked(queries)
        kth = np.partition(ranked[0], k - 1)[k - 1]
        candidates = np.flatnonzero(ranked[0] <= kth + margin[0])
        squared = self._squared_distances(queries[0], candidates)
        order = np.lexsort((candidates, squared))[:k]
        return np.sqrt(squared[order]), candidates[order]

    def _checked(self, queries: FloatArray) -> FloatArray:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise EngineError(f"features of shape {queries.shape} do not fit a bank of {self.dimension} channels")
        if not bounded(queries):
            raise EngineError(f"a feature is not finite or beyond {LARGEST:g}; the network or its input is damaged")
        return queries

    def _ranked(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Half squared distances less the query's own half norm (M x N), and how far rounding may move two apart."""
        centred = queries - self._centre
        ranked = centred @ self._centred_t
        np.subtract(self._half_norms, ranked, out=ranked)
        # Rounding moves a value by at most u ((D + 10) |b| (|q| + |b| / 2) + (|q| + |b|)^2): D products and their sum,
        # norm, difference and comparison in the first term, the centring of query and row in the second.
        norms = np.sqrt(np.einsum("md,md->m", centred, centred, dtype=np.float64))
        largest = self._largest_norm
        error = _ROUNDING * ((self.dimension + 10) * largest * (norms + 0.5 * largest) + (norms + largest) ** 2)
        return ranked, (2.0 * error).astype(np.float32)

    def _nearest_index(self, queries: FloatArray) -> NDArray[np.int64]:
        index = np.empty(len(queries), dtype=np.int64)
        step = max(1, BLOCK_BYTES // (4 * len(self)))
        for start in range(0, len(queries), step):
            index[start : start + step] = self._nearest_in_block(queries[start : start + step])
        return index

    def _nearest_in_block(self, queries: FloatArray) -> NDArray[np.int64]:
        ranked, margin = self._ranked(queries)
        every = np.arange(len(queries))
        index: NDArray[np.int64] = ranked.argmin(axis=1)
        best = ranked[every, index]
        ranked[every, index] = np.inf
        unsure = np.flatnonzero(ranked.min(axis=1) <= best + margin)
        ranked[every, index] = best
        for query in unsure:
            candidates = np.flatnonzero(ranked[query] <= best[query] + margin[query])
            index[query] = candidates[self._squared_distances(queries[query], candidates).argmin()]
        return index

    def _squared_distances(self, query: FloatArray, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        difference = query.astype(np.float64) - self.rows[indices]
        squared: NDArray[np.float64] = np.einsum("nd,nd->n", difference, difference)
        return squared
