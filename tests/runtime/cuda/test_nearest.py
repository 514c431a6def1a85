"""Nearest neighbours on the device against float64, on the CPU stand-in."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asperity.runtime.cuda.device_bank import Path, bank_arrays
from asperity.runtime.cuda.nearest import NearestPlan, NearestResult, NearestSearch
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.distances import image_distance
from asperity.runtime.vision.nearest import MemoryBank

SOURCES = (
    "nearest_prepare",
    "nearest_tensor",
    "nearest_wgmma",
    "nearest_settle",
    "nearest_exact",
    "nearest_product",
    "neighbours",
)
PATHS: tuple[Path, ...] = ("tensor", "wgmma", "product", "float32")

# M, N, D: one row, one query, sizes that fill no tile, several splits, every width of the profiles.
SHAPES = (
    (1, 1, 152),
    (3, 5, 192),
    (130, 1, 384),
    (1, 300, 768),
    (129, 257, 152),
    (65, 700, 192),
    (40, 129, 1152),
)


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of(*SOURCES, "neighbours")


def search(
    device: ShimDevice,
    queries: FloatArray,
    bank: FloatArray,
    path: Path,
    mask: np.ndarray | None = None,
    multiprocessors: int = 2,
    mean: float = 0.0,
    std: float = 1.0,
) -> NearestResult:
    device.forget()
    found = NearestSearch(device, bank, len(queries), mean, std, path, multiprocessors)
    chosen = None if mask is None else device.upload(mask.astype(np.uint8))
    rows = len(queries) if mask is None else int(mask.sum())
    found.enqueue(device.upload(queries), chosen, rows)
    found.enqueue_image_distance()
    return found.result()


def oracle(queries: FloatArray, bank: FloatArray) -> tuple[np.ndarray, np.ndarray]:
    squared = np.square(queries.astype(np.float64)[:, None] - bank.astype(np.float64)[None]).sum(axis=2)
    return np.sqrt(squared.min(axis=1)), squared.argmin(axis=1)


def sample(seed: int, m: int, n: int, d: int, offset: float = 0.3) -> tuple[FloatArray, FloatArray]:
    """Bank rows around a few places, and queries near rows, as features are."""
    rng = np.random.default_rng(seed)
    bank = rng.normal(size=(4, d))[rng.integers(0, 4, n)] + 0.5 * rng.normal(size=(n, d)) + offset
    queries = bank[rng.integers(0, n, m)] + 0.4 * rng.normal(size=(m, d))
    return queries.astype(np.float32), bank.astype(np.float32)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_float64(device: ShimDevice, shape: tuple[int, int, int], path: Path) -> None:
    queries, bank = sample(sum(shape), *shape)
    distance, index = oracle(queries, bank)
    found = search(device, queries, bank, path)
    assert not found.damaged
    assert (found.index == index).all()
    assert np.allclose(found.distance, distance, rtol=2e-7, atol=0)


@pytest.mark.parametrize("path", PATHS)
def test_chosen_tokens_are_standardised_and_searched(device: ShimDevice, path: Path) -> None:
    queries, bank = sample(3, 150, 90, 152)
    mask = np.random.default_rng(4).random(150) < 0.4
    mask[:5] = [True, False, True, True, False]
    found = search(device, 3.0 * queries + 7.0, bank, path, mask, mean=7.0, std=3.0)
    standardised = ((3.0 * queries + 7.0 - np.float32(7.0)) * np.float32(1 / 3.0)).astype(np.float32)
    distance, index = oracle(standardised[mask], bank)
    assert (found.index == index).all()
    assert np.allclose(found.distance, distance, rtol=2e-7)


@pytest.mark.parametrize("path", PATHS)
def test_the_split_and_the_order_of_threads_change_nothing(device: ShimDevice, path: Path) -> None:
    queries, bank = sample(5, 70, 600, 152)
    bank[300:400] = bank[10]  # many rows at one place: lists of candidates overflow with ties
    seen = set()
    for multiprocessors, order in ((1, 0), (2, 1), (7, 2), (50, 3)):
        device.order = order
        found = search(device, queries, bank, path, multiprocessors=multiprocessors)
        seen.add((found.distance.tobytes(), found.index.tobytes(), found.image_distance))
    device.order = 0
    assert len(seen) == 1


@pytest.mark.parametrize("path", PATHS)
def test_ties_go_to_the_lowest_index(device: ShimDevice, path: Path) -> None:
    queries, bank = sample(6, 20, 400, 152)
    bank[150] = bank[390] = bank[7]
    queries[3] = bank[7]
    queries[4] = bank[7] + np.float32(0.01)
    found = search(device, queries, bank, path)
    assert found.index[3] == 7 and found.distance[3] == 0
    assert found.index[4] == 7


@pytest.mark.parametrize("path", PATHS)
def test_a_bank_of_equal_rows(device: ShimDevice, path: Path) -> None:
    bank = np.full((300, 152), 0.7, dtype=np.float32)
    queries = np.full((10, 152), 0.7, dtype=np.float32) + np.arange(10, dtype=np.float32)[:, None]
    found = search(device, queries, bank, path)
    assert (found.index == 0).all()
    assert np.allclose(found.distance, oracle(queries, bank)[0], rtol=2e-7)
    assert not found.damaged


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_a_distance(device: ShimDevice, path: Path, value: float) -> None:
    queries, bank = sample(7, 20, 200, 192)
    queries[11, 191] = value
    found = search(device, queries, bank, path)
    assert found.damaged and found.not_finite == 1
    assert np.isnan(found.distance[11]) and found.index[11] == -1
    assert np.isnan(found.image_distance)
    others = np.arange(20) != 11
    assert (found.index[others] == oracle(queries[others], bank)[1]).all()


@pytest.mark.parametrize("path", PATHS)
def test_values_beyond_half(device: ShimDevice, path: Path) -> None:
    queries, bank = sample(8, 9, 150, 152)
    queries[2] *= 1e6
    queries[3, 5] = 3e38  # its squared distance is beyond float32: an infinite distance is told, not hidden
    found = search(device, queries, bank, path)
    distance, index = oracle(queries, bank)
    small = np.arange(9) != 3
    assert (found.index[small] == index[small]).all()
    assert np.allclose(found.distance[small], distance[small], rtol=2e-7)
    assert found.distance[3] == np.inf or np.isclose(found.distance[3], distance[3])


@pytest.mark.parametrize("factor", [1e-12, 1e9])
def test_features_of_any_size(device: ShimDevice, factor: float) -> None:
    queries, bank = sample(9, 30, 200, 192)
    queries, bank = queries * np.float32(factor), bank * np.float32(factor)
    found = search(device, queries, bank, "tensor")
    assert (found.index == oracle(queries, bank)[1]).all()
    assert found.unsettled == 0


def test_rows_that_half_cannot_tell_apart_are_settled_in_float32(device: ShimDevice) -> None:
    rng = np.random.default_rng(10)
    # Two crowds far apart: their centre is far from both, so what tells members apart is lost in half.
    bank = np.sign(np.arange(300) - 149.5)[:, None] * rng.normal(size=152) + 1e-4 * rng.normal(size=(300, 152))
    bank = bank.astype(np.float32)
    queries = (bank[100:140] + 1e-4 * rng.normal(size=(40, 152))).astype(np.float32)
    found = search(device, queries, bank, "tensor")
    assert found.unsettled == 40
    assert (found.index == oracle(queries, bank)[1]).all()
    rounded = bank_arrays(bank).halves[:300, :152].astype(np.float64)
    own = bank_arrays(bank)
    moved = ((queries - own.centre) * own.scale).astype(np.float16).astype(np.float64)
    control = np.square(moved[:, None] - rounded[None]).sum(axis=2).argmin(axis=1)
    assert (control != found.index).any(), "half alone would have been right: this test proves nothing"


def test_no_query_at_all(device: ShimDevice) -> None:
    queries, bank = sample(11, 10, 50, 152)
    for path in PATHS:
        found = search(device, queries, bank, path, mask=np.zeros(10, bool))
        assert len(found.distance) == 0
        assert np.isnan(found.image_distance), "nothing searched must not look like a distance of 0"


@pytest.mark.parametrize("shape", [(30, 200, 152), (5, 3, 192), (9, 40, 1152)], ids=str)
def test_the_image_distance_is_the_cpus(device: ShimDevice, shape: tuple[int, int, int]) -> None:
    queries, bank = sample(12, *shape)
    memory = MemoryBank(bank)
    distance, index = memory.nearest(queries)
    worst = int(distance.argmax())
    found = search(device, queries, bank, "tensor")
    expected = image_distance(queries[worst], float(distance[worst]), int(index[worst]), memory)
    assert math.isclose(found.image_distance, expected, rel_tol=1e-6)
    assert (found.neighbours == memory.nearest_rows(bank[index[worst]], 3)[1]).all()


def test_the_frame_before_leaves_nothing_behind(device: ShimDevice) -> None:
    queries, bank = sample(15, 20, 100, 152)
    device.forget()
    found = NearestSearch(device, bank, 20)
    features = device.upload(queries)
    found.enqueue(features)
    found.enqueue_image_distance()
    before = found.result()
    assert np.isfinite(before.image_distance)
    few = np.zeros(20, np.uint8)
    few[[3, 4]] = 1
    found.enqueue(features, device.upload(few))
    after = found.result()
    assert len(after.distance) == 2 and (after.index == before.index[[3, 4]]).all()
    assert np.isnan(after.image_distance) and (after.neighbours == -1).all()


def test_too_few_rows_to_reweight_give_no_image_distance(device: ShimDevice) -> None:
    queries, bank = sample(13, 4, 2, 152)
    assert np.isnan(search(device, queries, bank, "tensor").image_distance)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    m=st.integers(1, 140),
    n=st.integers(1, 300),
    d=st.integers(1, 70),
    seed=st.integers(0, 2**31),
    path=st.sampled_from(PATHS),
)
def test_any_small_search(device: ShimDevice, m: int, n: int, d: int, seed: int, path: Path) -> None:
    rng = np.random.default_rng(seed)
    bank = rng.integers(-2, 3, (n, d)).astype(np.float32)  # whole numbers: many exact ties
    queries = rng.integers(-2, 3, (m, d)).astype(np.float32)
    found = search(device, queries, bank, path, multiprocessors=int(rng.integers(1, 9)))
    distance, index = oracle(queries, bank)
    assert (found.index == index).all()
    assert np.allclose(found.distance, distance, rtol=2e-7)


@pytest.mark.parametrize("rows", [np.zeros((0, 5)), np.zeros(7), np.array([[1.0, np.nan]]), np.array([[np.inf]])])
def test_banks_that_cannot_be(rows: np.ndarray) -> None:
    with pytest.raises(EngineError, match="memory bank"):
        bank_arrays(rows.astype(np.float32))


def test_the_bound_of_rounding_holds_for_every_row() -> None:
    _, bank = sample(14, 1, 500, 152)
    arrays = bank_arrays(bank)
    moved = (bank.astype(np.float64) - arrays.centre) * arrays.scale
    lost = np.linalg.norm(moved - arrays.halves[:500, :152].astype(np.float64), axis=1)
    assert lost.max() <= arrays.error < 2 * lost.max()
    assert len(arrays.halves) == 512 and np.isinf(arrays.half_norms[500:]).all() and not arrays.halves[500:].any()


@pytest.mark.parametrize("m", [1, 784, 3136])
@pytest.mark.parametrize("multiprocessors", [1, 16, 132])
def test_plans_fit_every_split(m: int, multiprocessors: int) -> None:
    plan = NearestPlan(m, 83292, 1152, multiprocessors, "tensor")
    lists = plan.buffers()["keys"] // 32
    for rows in {1, m // 2 + 1, m}:
        for tile_rows, blocks in ((128, plan.tensor_blocks), (64, plan.exact_blocks)):
            tiles = -(-rows // tile_rows)
            splits = min(max(1, blocks // tiles), -(-plan.n // tile_rows))
            assert tiles * splits * tile_rows <= lists
    if multiprocessors == 132 and m == 784:
        busy = 7 * (plan.tensor_blocks // 7) / plan.tensor_blocks
        assert busy > 0.95, "784 queries leave a large GPU idle"
