"""The CPU stand-in for a GPU: what it computes, and that it tells of what a GPU would leave undefined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.cuda.launch import Launch
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError

ORDERS = (0, 1, 7, 8)


@pytest.fixture(scope="module")
def built() -> ShimDevice:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    return ShimDevice((), extra=Path(__file__).parent / "shim_kernels.cu")


@pytest.fixture(params=ORDERS)
def device(built: ShimDevice, request: pytest.FixtureRequest) -> ShimDevice:
    built.forget()
    built.order = request.param
    return built


def one_block(kernel: str, threads: int, shared_bytes: int = 0) -> Launch:
    return Launch(kernel, (1, 1, 1), (threads, 1, 1), shared_bytes)


def test_shared_memory_and_barriers(device: ShimDevice) -> None:
    values = np.arange(512, dtype=np.float32)
    out = device.alloc(values.nbytes)
    device.launch(Launch("reverse_in_block", (2, 1, 1), (256, 1, 1), 1024), device.upload(values), out)
    expected = 2 * values.reshape(2, 256)[:, ::-1].ravel()
    assert (device.download(out, (512,), np.float32) == expected).all()


def test_a_missing_barrier_shows_in_another_order(built: ShimDevice) -> None:
    built.forget()
    values = np.arange(1, 257, dtype=np.float32)
    seen = set()
    for order in ORDERS:
        built.order = order
        out = built.alloc(values.nbytes)
        built.launch(one_block("reverse_without_barrier", 256), built.upload(values + order), out)
        seen.add((built.download(out, (256,), np.float32) - order).tobytes())
    assert len(seen) > 1


def test_warps_exchange_and_vote(device: ShimDevice) -> None:
    values = np.random.default_rng(1).integers(-9, 9, 192).astype(np.int32)
    sums, ballots, total = device.alloc(6 * 8), device.alloc(6 * 4), device.upload(np.zeros(1, np.int32))
    device.launch(Launch("warp_sums", (2, 1, 1), (96, 1, 1)), device.upload(values), sums, ballots, total)
    warps = values.reshape(6, 32)
    expected = np.stack([warps.sum(axis=1), warps[:, 1]], axis=1)
    assert (device.download(sums, (6, 2), np.int32) == expected).all()
    odd = ((warps & 1).astype(np.int64) << np.arange(32)).sum(axis=1)
    assert (device.download(ballots, (6,), np.uint32) == odd).all()
    assert device.download(total, (1,), np.int32)[0] == values.sum()


def test_clusters_reach_each_others_memory(device: ShimDevice) -> None:
    values = np.random.default_rng(2).normal(size=(8, 64)).astype(np.float32)
    out = device.alloc(values.nbytes)
    device.launch(Launch("cluster_neighbour", (8, 1, 1), (64, 1, 1), 256, cluster=4), device.upload(values), out)
    in_clusters = values.reshape(2, 4, 64)
    from_next = np.roll(in_clusters, -1, axis=1)
    value = from_next[..., ::-1] + 2 * from_next  # each block computes this and writes it to the next
    assert (device.download(out, (2, 4, 64), np.float32) == np.roll(value, 1, axis=1)).all()


def test_a_cluster_of_one_block(device: ShimDevice) -> None:
    values = np.random.default_rng(3).normal(size=64).astype(np.float32)
    out = device.alloc(values.nbytes)
    device.launch(one_block("cluster_neighbour", 64, 256), device.upload(values), out)
    assert (device.download(out, (64,), np.float32) == values[::-1] + 2 * values).all()


def test_threads_that_returned_do_not_hold_a_barrier(device: ShimDevice) -> None:
    out = device.alloc(40 * 4)
    device.launch(one_block("early_return", 64), out)
    assert (device.download(out, (40,), np.int32) == 20).all()


def test_a_deadlock_is_told(device: ShimDevice) -> None:
    with pytest.raises(EngineError, match="deadlock in block"):
        device.launch(one_block("half_of_the_block_waits", 32), device.alloc(128))


def test_a_lane_that_left_is_told(device: ShimDevice) -> None:
    with pytest.raises(EngineError, match=r"names lane 3|deadlock"):
        device.launch(one_block("absent_lane", 32), device.alloc(128))


def test_a_write_outside_a_buffer_is_told(device: ShimDevice) -> None:
    with pytest.raises(EngineError, match="behind its end"):
        device.launch(one_block("one_too_far", 33), device.alloc(32 * 4), np.int32(5))
    device.forget()


def test_asynchronous_copies_land_when_waited_for(device: ShimDevice) -> None:
    values = np.arange(1, 129, dtype=np.float32).reshape(32, 4)
    results = []
    for wait in (0, 1):
        out = device.alloc(values.nbytes)
        device.launch(one_block("staged", 32), device.upload(values), out, np.int32(wait))
        results.append(device.download(out, (32, 4), np.float32)[::-1])
    expected = values.copy()
    expected[31, 2:] = 0
    assert (results[0] == -1).all()
    assert (results[1] == expected).all()


def test_half_rounds_as_numpy_does(built: ShimDevice) -> None:
    built.forget()
    rng = np.random.default_rng(4)
    every = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    bits = rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        between = (every[:-1] + every[1:]) / 2
    special = np.float32([65504, 65519.996, 65520, 1e9, 2**-24, 2**-25, np.nextafter(np.float32(2**-25), 1), 0, -0.0])
    values = np.concatenate([every, bits, between, special]).astype(np.float32)
    out = built.alloc(values.nbytes)
    grid = -(-len(values) // 256)
    launch = Launch("through_half", (grid, 1, 1), (256, 1, 1))
    built.launch(launch, built.upload(values), out, np.int32(len(values)))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    assert np.array_equal(built.download(out, values.shape, np.float32), expected, equal_nan=True)


def test_launches_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="1025"):
        Launch("k", (1, 1, 1), (1025, 1, 1))
    with pytest.raises(ValueError, match="does not divide"):
        Launch("k", (6, 1, 1), (32, 1, 1), cluster=4)
    with pytest.raises(ValueError, match="blocks"):
        Launch("k", (0, 1, 1), (32, 1, 1))
