"""The nearest points of each centre, on the CPU stand-in, against a float64 search of all points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asperity.runtime.cuda.checks import grouping
from asperity.runtime.cuda.checks.clouds import INDEX, KINDS, NOT_FINITE, clear_fault
from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.points import Grouping, GroupScale
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.points import nearest_neighbours, valid_points

ORDERS = (0, 1, 7)
SCALE = GroupScale(2.0, 10.0, False)


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("grouping")


@pytest.mark.parametrize("entry", grouping.ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_those_of_float64(device: ShimDevice, entry: KernelEntry, kind: str) -> None:
    for number, shape in enumerate(entry.small):
        device.order = ORDERS[(len(kind) + number) % len(ORDERS)]
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == [], shape


def run(device: ShimDevice, cloud: FloatArray, centres: FloatArray, k: int) -> tuple[np.ndarray, int]:
    stage, fault = Grouping(device, len(cloud), len(centres), k, SCALE), clear_fault(device)
    nowhere = device.upload(np.full(3, np.nan))
    stage.enqueue(device.upload(cloud), device.upload(centres), nowhere, fault)
    members = device.download(stage.members, (len(centres), k), np.int32)
    return members, int(device.download(fault, (1,), np.uint32)[0])


def test_neighbours_far_away_on_the_grid_are_found(device: ShimDevice) -> None:
    # The grid says nothing of where points lie: the nearest ones are spread over all of it.
    rng = np.random.default_rng(1)
    cloud = rng.integers(1, 60, (40, 40, 3)).astype(np.float32)
    points, _ = valid_points(cloud)
    chosen = rng.integers(0, 1600, 5)
    centres = np.concatenate([points[chosen], chosen[:, None]], axis=1).astype(np.float32)
    members, fault = run(device, cloud, centres, 20)
    assert fault == 0
    assert np.array_equal(members, nearest_neighbours(points, points[chosen], 20)[0])


def test_where_the_search_starts_changes_nothing(device: ShimDevice) -> None:
    rng = np.random.default_rng(2)
    cloud = rng.normal(size=(33, 33, 3)).astype(np.float32)
    centre = np.concatenate([cloud[20, 20], [0.0]]).astype(np.float32)
    seen = set()
    for device.order in ORDERS:
        for pixel in (0, 20 * 33 + 20, 33 * 33 - 1):
            centre[3] = pixel
            seen.add(run(device, cloud, centre[None], 50)[0].tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("pixel", [-1.0, 900.0, np.nan])
def test_a_centre_from_nowhere_is_a_fault(device: ShimDevice, pixel: float) -> None:
    cloud = np.ones((30, 30, 3), dtype=np.float32)
    assert run(device, cloud, np.array([[1, 1, 1, pixel]], dtype=np.float32), 4)[1] == INDEX


def test_a_centre_that_is_no_number_is_a_fault(device: ShimDevice) -> None:
    cloud = np.ones((30, 30, 3), dtype=np.float32)
    assert run(device, cloud, np.array([[1, np.nan, 1, 3]], dtype=np.float32), 4)[1] & NOT_FINITE


def test_groups_too_large_are_refused(device: ShimDevice) -> None:
    with pytest.raises(EngineError, match="1 to 128"):
        Grouping(device, 30, 4, 129, SCALE)


def test_the_check_sees_a_wrong_member() -> None:
    points = np.random.default_rng(4).normal(size=(60, 3))
    members = nearest_neighbours(points, points[:3], 9)[0]
    assert grouping.member_problems(points, points[:3], members) == []
    farther = nearest_neighbours(points, points[:3], 10)[0]
    assert grouping.member_problems(points, points[:3], np.delete(farther, 4, axis=1)) != []
    assert grouping.member_problems(points, points[:3], members[:, ::-1]) != []
