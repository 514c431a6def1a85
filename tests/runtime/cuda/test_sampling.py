"""Farthest point sampling and the list of points, on the CPU stand-in, against float64 and the runtime's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asperity.runtime.cuda.checks import sampling
from asperity.runtime.cuda.checks.clouds import COUNT, EMPTY, KINDS, NOT_FINITE, SHAPE, clear_fault
from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.launch import Launch
from asperity.runtime.cuda.points import Sampling, SamplingPlan
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.vision.points import farthest_points

ORDERS = (0, 1, 7)


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("sampling")


@pytest.mark.parametrize("entry", sampling.ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("kind", KINDS)
def test_choices_are_those_of_float64(device: ShimDevice, entry: KernelEntry, kind: str) -> None:
    for number, shape in enumerate(entry.small):
        device.order = ORDERS[(len(kind) + number) % len(ORDERS)]
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == []


def run(
    device: ShimDevice, points: np.ndarray, groups: int, plan: SamplingPlan, count: int | None = None
) -> tuple[np.ndarray, int]:
    stage, fault = Sampling(device, 16, groups, plan), clear_fault(device)
    listed = np.zeros((256, 4), dtype=np.float32)
    listed[: len(points), :3] = points
    device.write(stage.points, listed)
    device.write(stage.count, np.array([len(points) if count is None else count], dtype=np.int32))
    stage.enqueue_farthest(fault)
    return device.download(stage.chosen, (groups,), np.int32), int(device.download(fault, (1,), np.uint32)[0])


@pytest.mark.parametrize("n", [1, 2, 31, 33, 127, 128, 129, 255, 256])
def test_any_number_of_points(device: ShimDevice, n: int) -> None:
    points = np.random.default_rng(n).integers(-20, 20, (n, 3)).astype(np.float32)
    chosen, fault = run(device, points, 12, SamplingPlan(256, "block", 1, 1))
    assert fault == 0
    assert np.array_equal(chosen, farthest_points(points.astype(np.float64), 12))


def test_every_choice_does_not_depend_on_the_order_of_threads(device: ShimDevice) -> None:
    points = np.random.default_rng(3).normal(size=(200, 3)).astype(np.float32)
    seen = set()
    for device.order in ORDERS:
        for plan in (
            SamplingPlan(256, "block", 1, 2),
            SamplingPlan(256, "cluster", 2, 1),
            SamplingPlan(256, "large", 1, 1),
        ):
            seen.add(run(device, points, 30, plan)[0].tobytes())
    assert len(seen) == 1


def test_the_check_sees_a_wrong_choice() -> None:
    points = np.random.default_rng(4).normal(size=(60, 3))
    chosen = farthest_points(points, 20)
    assert sampling.choice_problems(points, chosen) == []
    chosen[7] = chosen[6]
    assert sampling.choice_problems(points, chosen) != []


@pytest.mark.parametrize("count", [-1, 0, 257])
def test_a_count_that_cannot_be_is_a_fault(device: ShimDevice, count: int) -> None:
    chosen, fault = run(device, np.ones((3, 3), np.float32), 5, SamplingPlan(256, "block", 1, 2), count)
    assert fault == (EMPTY if count == 0 else COUNT)
    assert (chosen == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_coordinate_that_is_none_is_a_fault(device: ShimDevice, value: float) -> None:
    points = np.random.default_rng(5).normal(size=(150, 3)).astype(np.float32)
    points[131, 2] = value
    assert run(device, points, 8, SamplingPlan(256, "block", 1, 2))[1] == NOT_FINITE


class Chip:
    """As much of a device as a plan asks for."""

    def __init__(self, kib: int, most_cluster: int) -> None:
        self.most_shared_bytes, self.most_cluster = kib * 1024, most_cluster


@pytest.mark.parametrize(
    ("kib", "most_cluster", "capacity", "form"),
    [
        (227, 8, 50_176, "block"),  # sm_90, sm_100
        (99, 8, 50_176, "cluster"),  # sm_120
        (163, 1, 50_176, "large"),  # sm_80, sm_87
        (163, 1, 12_544, "block"),
        (64, 1, 12_544, "large"),  # sm_75
        (64, 1, 8_000, "block"),
    ],
)
def test_each_chip_gets_a_plan_that_it_can_run(kib: int, most_cluster: int, capacity: int, form: str) -> None:
    chip = Chip(kib, most_cluster)
    plan = SamplingPlan.fitting(chip, capacity)  # type: ignore[arg-type]
    assert plan.form == form
    assert plan.rounds * plan.warps * plan.blocks * 128 >= capacity
    assert plan.form == "large" or plan.distance_bytes < chip.most_shared_bytes - 13 * 1024


def test_a_plan_that_cannot_hold_the_cloud_is_refused(device: ShimDevice) -> None:
    with pytest.raises(EngineError, match="take more warps"):
        SamplingPlan(50_176, "block", 1, 8)
    with pytest.raises(EngineError, match="take more warps"):
        SamplingPlan(50_176, "cluster", 9, 8)
    stage, fault = Sampling(device, 16, 4, SamplingPlan(256, "block", 1, 1)), clear_fault(device)
    device.write(stage.count, np.array([9], dtype=np.int32))
    device.launch(
        Launch("farthest_points", (1, 1, 1), (32, 1, 1), 512),
        stage.points, stage.count, np.int32(128 * 33), np.int32(4), stage.chosen, stage.centres, fault, fault,
    )  # fmt: skip
    assert device.download(fault, (1,), np.uint32)[0] == SHAPE
