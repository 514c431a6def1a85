"""Tokens to patches, on the CPU stand-in, against the runtime's sparse map in float64."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from asperity.runtime.cuda.checks import interpolation
from asperity.runtime.cuda.checks.clouds import COUNT, EMPTY, INDEX, KINDS, NOT_FINITE, clear_fault, cloud_of
from asperity.runtime.cuda.checks.preprocess import network_of
from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.launch import Launch
from asperity.runtime.cuda.points import Interpolation
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.cuda.tables import pool_table
from asperity.runtime.errors import EngineError
from asperity.runtime.vision.features import merged_tokens
from asperity.runtime.vision.points import _pooling, patch_map, valid_points

ORDERS = (0, 1, 7)


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("interpolation")


@pytest.mark.parametrize("entry", interpolation.ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_the_runtimes(device: ShimDevice, entry: KernelEntry, kind: str) -> None:
    for number, shape in enumerate(entry.small):
        device.order = ORDERS[(len(kind) + number) % len(ORDERS)]
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == [], shape


@pytest.mark.parametrize(("cloud_px", "grid"), [(112, 28), (224, 56), (30, 7), (29, 7), (9, 7)])
@pytest.mark.parametrize("pooling", ["published", "valid_mean"])
def test_windows_are_the_runtimes(cloud_px: int, grid: int, pooling: str) -> None:
    first, weights = pool_table(cloud_px, grid, pooling)  # type: ignore[arg-type]
    axis = np.zeros((grid, cloud_px))
    for cell in range(grid):
        kept = np.flatnonzero(weights[cell])
        axis[cell, first[cell] + kept] = weights[cell, kept]
    values = np.random.default_rng(0).random((cloud_px, cloud_px))
    pooled = (_pooling(cloud_px, grid, pooling) @ values.ravel()).reshape(grid, grid)
    assert np.allclose(axis @ values @ axis.T, pooled, rtol=1e-6)


def test_a_pooling_that_is_not_known_is_refused() -> None:
    with pytest.raises(EngineError, match="median"):
        pool_table(30, 7, "median")  # type: ignore[arg-type]


def mapped(device: ShimDevice) -> tuple[Interpolation, np.ndarray]:
    stage = Interpolation(device, 28, 7, 5, "valid_mean", 49)
    cloud = cloud_of("lattice", 28, 0, np.random.default_rng(0))
    centres = np.zeros((5, 4), dtype=np.float32)
    centres[:, :3] = cloud[[0, 5, 13, 20, 27], [0, 20, 13, 3, 27]]
    stage.enqueue(device.upload(cloud), device.upload(centres), clear_fault(device))
    return stage, centres


def fault_of_pool(device: ShimDevice, stage: Interpolation, tokens: np.ndarray, slots: int = 49) -> int:
    fault, out = clear_fault(device), device.alloc(4 * 49 * tokens.shape[1])
    stage.enqueue_pool(device.upload(tokens), tokens.shape[1], tokens.dtype == np.float16, slots, out, fault)
    return int(device.download(fault, (1,), np.uint32)[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_token_that_is_no_number_is_a_fault(device: ShimDevice, dtype: type, value: float) -> None:
    stage, _ = mapped(device)
    tokens = np.ones((5, 34), dtype=dtype)
    assert fault_of_pool(device, stage, tokens) == 0
    tokens[3, 33] = value
    assert fault_of_pool(device, stage, tokens) == NOT_FINITE


def test_a_damaged_map_is_a_fault(device: ShimDevice) -> None:
    stage, _ = mapped(device)
    tokens = np.ones((5, 8), dtype=np.float32)
    assert fault_of_pool(device, stage, tokens, slots=48) == COUNT
    device.write(stage.count, np.array([-1], dtype=np.int32))
    assert fault_of_pool(device, stage, tokens) == COUNT
    device.write(stage.count, np.array([49], dtype=np.int32))
    device.write(stage.columns, np.array([5], dtype=np.int32))
    assert fault_of_pool(device, stage, tokens) & INDEX
    fault = clear_fault(device)
    device.write(stage.nearest, np.array([7], dtype=np.int32))
    stage.enqueue_rows(fault)
    assert device.download(fault, (1,), np.uint32)[0] == INDEX


def test_centres_that_float32_cannot_tell_apart_are_told_apart(device: ShimDevice) -> None:
    # Two centres whose squared distances from the point are 81 + 2e-7 and 81: one number in float32.
    stage, fault = Interpolation(device, 4, 1, 5, "valid_mean", 1), clear_fault(device)
    cloud = np.zeros((4, 4, 3), dtype=np.float32)
    cloud[2, 1] = (0.0, 0.0, 100.0)
    tiny = np.float32(4.5e-4)
    centres = np.array([[9, tiny, 100], [0, 9, 100], [1, 0, 100], [0, 2, 100], [0, 0, 140]], dtype=np.float32)
    listed = np.concatenate([centres, np.zeros((5, 1), np.float32)], axis=1)
    stage.enqueue_nearest(device.upload(cloud), device.upload(listed), fault)
    nearest = device.download(stage.nearest, (16, 3), np.int32)[9]
    squared = ((centres.astype(np.float64) - [0, 0, 100]) ** 2).sum(axis=1)
    assert squared[0] > squared[1]
    assert np.float32(squared[0]) == np.float32(squared[1])
    assert list(nearest) == [2, 3, 1]


@pytest.mark.parametrize("present", [17, 18, 19])
def test_a_patch_filled_to_the_very_limit_counts(device: ShimDevice, present: int) -> None:
    # 20 pixels, of which 0.9 are 18.
    cloud = np.zeros((9, 9, 3), dtype=np.float32)
    cloud[:, :, 2] = 40.0
    cloud.reshape(-1, 3)[[row * 9 + 5 + column for row in range(5) for column in range(4)][present:]] = 0.0
    points, pixels = valid_points(cloud)
    centres = np.concatenate([points[:4], np.zeros((4, 1))], axis=1).astype(np.float32)
    stage, fault = Interpolation(device, 9, 2, 4, "valid_mean", 4), clear_fault(device)
    stage.enqueue(device.upload(cloud), device.upload(centres), fault)
    nonempty = device.download(stage.nonempty, (2, 2), np.uint8).astype(bool)
    assert nonempty[0, 1] == (present >= 18)
    assert np.array_equal(nonempty, patch_map(points, pixels, points[:4], 9, 2, "valid_mean")[1])


@pytest.mark.parametrize(("filled", "slots"), [(9, 9), (5, 4), (4, 4), (3, 8), (9, 12), (8, 9), (0, 4)])
def test_slots_are_the_runtimes(device: ShimDevice, filled: int, slots: int) -> None:
    present = np.zeros(9, dtype=bool)
    present[np.random.default_rng(filled).permutation(9)[:filled]] = True
    of_patch, of_slot, count, larger = (device.alloc(36) for _ in range(4))
    multiplicity, fault = device.alloc(4 * slots), clear_fault(device)
    device.launch(
        Launch("number_patches", (1, 1, 1), (32, 1, 1)),
        device.upload(present.astype(np.uint8)), np.int32(9), np.int32(slots), of_patch, of_slot, count, multiplicity,
        larger, fault,
    )  # fmt: skip
    network = msgspec.structs.replace(network_of({"image": 8, "grid": 3, "cloud": 9, "nearest": 1}), points_slots=slots)
    _, counts = merged_tokens(np.ones((9, 1), dtype=np.float32), present.reshape(3, 3), network)
    needs_larger = len(counts) != slots
    assert int(device.download(larger, (1,), np.int32)[0]) == needs_larger
    assert int(device.download(count, (1,), np.int32)[0]) == filled
    assert list(device.download(of_slot, (9,), np.int32)[:filled]) == list(np.flatnonzero(present))
    if not needs_larger:
        assert np.array_equal(device.download(multiplicity, (slots,), np.float32), counts)
    assert int(device.download(fault, (1,), np.uint32)[0]) == (EMPTY if filled == 0 else 0)
