"""The memory bank's search against float64, ties and damage."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asperity.runtime.errors import EngineError
from asperity.runtime.vision import nearest as knn
from asperity.runtime.vision.nearest import MemoryBank


def oracle(queries: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direct float64 differences; ``argmin`` takes the lowest index of equal ones."""
    squared = np.stack([((rows.astype(np.float64) - query) ** 2).sum(axis=1) for query in queries.astype(np.float64)])
    return np.sqrt(squared.min(axis=1)), squared.argmin(axis=1)


@pytest.mark.parametrize("far_mm", [0.0, 300.0])
def test_index_and_distance_are_those_of_float64(far_mm: float) -> None:
    """Rows far from the origin are where an uncentred float32 product goes wrong."""
    random = np.random.default_rng(1)
    rows = (far_mm + random.normal(size=(900, 40))).astype(np.float32)
    queries = (far_mm + random.normal(size=(300, 40))).astype(np.float32)
    distances, index = MemoryBank(rows).nearest(queries)
    expected, expected_index = oracle(queries, rows)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)


def test_plain_float32_product_would_fail_here() -> None:
    """Control: near-ties that a float32 matrix product alone cannot order, and the bank does."""
    random = np.random.default_rng(2)
    base = random.normal(size=(1, 64)) * 5
    rows = (base + random.normal(size=(400, 64)) * 1e-3).astype(np.float32)
    rows[0] = -50.0  # keeps the centre away from the cluster, as an outlier does
    queries = (base + random.normal(size=(200, 64)) * 1e-3).astype(np.float32)
    _, expected = oracle(queries, rows)
    plain = (0.5 * (rows**2).sum(axis=1) - queries @ rows.T).argmin(axis=1)
    assert (plain != expected).any()
    np.testing.assert_array_equal(MemoryBank(rows).nearest(queries)[1], expected)


def test_a_query_far_from_every_row_still_finds_the_nearest() -> None:
    """A strange patch lies thousands of times farther out than the rows lie from each other."""
    random = np.random.default_rng(4)
    rows = random.normal(size=(300, 6)).astype(np.float32)
    queries = (random.normal(size=(100, 6)) * 1e5).astype(np.float32)
    distances, index = MemoryBank(rows).nearest(queries)
    expected, expected_index = oracle(queries, rows)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    rows=hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(-2, 2).map(float)),
    queries=hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.integers(-2, 2).map(float)),
)
def test_ties_go_to_the_lowest_index(rows: np.ndarray, queries: np.ndarray) -> None:
    """Points of a coarse lattice tie all the time."""
    distances, index = MemoryBank(rows).nearest(queries)
    expected, expected_index = oracle(queries, rows)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distances, expected, atol=1e-12)
    for k in (1, 3, 20):
        near, order = MemoryBank(rows).nearest_rows(queries[0], k)
        squared = ((rows.astype(np.float64) - queries[0]) ** 2).sum(axis=1)
        np.testing.assert_array_equal(order, np.lexsort((np.arange(len(rows)), squared))[:k])
        np.testing.assert_allclose(near, np.sqrt(squared[order]), atol=1e-12)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of one query at a time gives what one block of all gives."""
    random = np.random.default_rng(3)
    rows, queries = (random.normal(size=(n, 8)).astype(np.float32) for n in (70, 33))
    whole = MemoryBank(rows).nearest(queries)
    monkeypatch.setattr(knn, "BLOCK_BYTES", 1)
    single = MemoryBank(rows).nearest(queries)
    np.testing.assert_array_equal(whole[1], single[1])
    np.testing.assert_array_equal(whole[0], single[0])


def test_a_busy_helper_is_not_waited_for() -> None:
    """The other thread may still be in the longer branch: its half is then searched here, with the same answer."""
    random = np.random.default_rng(5)
    rows, queries = (random.normal(size=(n, 8)).astype(np.float32) for n in (70, 33))
    bank, release = MemoryBank(rows), threading.Event()
    alone = bank.nearest(queries)
    with ThreadPoolExecutor(1) as helper:
        free = bank.nearest(queries, helper)
        helper.submit(release.wait, 60)
        busy = bank.nearest(queries, helper)
        assert not release.is_set()
        release.set()
    for answer in (free, busy):
        np.testing.assert_array_equal(answer[1], alone[1])
        np.testing.assert_array_equal(answer[0], alone[0])


def test_no_query_gives_no_distance() -> None:
    """An empty set of patches is no error of the bank."""
    distances, index = MemoryBank(np.ones((2, 4), np.float32)).nearest(np.zeros((0, 4), np.float32))
    assert distances.shape == index.shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e15, -3e38])
def test_a_query_that_is_not_finite_never_gets_a_distance(value: float) -> None:
    """NaN compares False with everything: unchecked it would find some row."""
    bank = MemoryBank(np.eye(4, dtype=np.float32))
    queries = np.zeros((3, 4), np.float32)
    queries[1, 2] = value
    with pytest.raises(EngineError, match="finite"):
        bank.nearest(queries)
    with pytest.raises(EngineError, match="finite"):
        bank.nearest_rows(queries[1], 2)


@pytest.mark.parametrize(
    "rows", [np.zeros((0, 3)), np.zeros(3), np.full((2, 3), np.nan), np.full((2, 3), 1e20), np.zeros((2, 0))]
)
def test_a_bank_that_cannot_be_searched_is_refused(rows: np.ndarray) -> None:
    """Empty, flat or damaged tables."""
    with pytest.raises(EngineError):
        MemoryBank(rows.astype(np.float32))


def test_queries_of_another_width_are_refused() -> None:
    """A network and a bank of different profiles."""
    with pytest.raises(EngineError, match="4 channels"):
        MemoryBank(np.eye(4, dtype=np.float32)).nearest(np.zeros((1, 5), np.float32))
