"""Benchmarks of parts check what they time."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.benchmarks.parts import parts
from asperity.runtime.errors import DataError
from asperity.runtime.vision.nearest import MemoryBank


def test_a_search_is_measured_beside_its_matrix_product() -> None:
    report = parts.run_knn(None, (parts.Shape(40, 300, 16),), repeats=8, threads=1)
    search, product = report["cases"]
    assert search["latency"]["count"] == 8 == len(product["latencies_us"])
    assert search["share_of_product"] > 0 and search["queries"] == 40 and report["versions"]["numpy"]


def test_a_search_that_finds_other_rows_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_row(self: MemoryBank, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(queries)), np.zeros(len(queries), int)

    monkeypatch.setattr(MemoryBank, "nearest", first_row)
    with pytest.raises(DataError, match="its timing is void"):
        parts.run_knn(None, (parts.Shape(70, 300, 16),), repeats=6, threads=1)


def test_a_search_below_the_clock_s_resolution_has_no_rate() -> None:
    shape = parts.Shape(1, 1, 1)
    assert parts._rate(shape, [0, 0, 1]) is None and parts._rate(shape, [2, 2, 2]) == 0.0
