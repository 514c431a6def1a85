"""Projected features on the CPU stand-in, against float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asperity.runtime.cuda.checks import projection as checks
from asperity.runtime.cuda.projection import DeviceProjection
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError

ENTRY = checks.ENTRIES[0]


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("projection")


@pytest.mark.parametrize("kind", ENTRY.kinds)
def test_results_are_float64s(device: ShimDevice, kind: str) -> None:
    for number, shape in enumerate(ENTRY.small):
        device.order = (0, 1, 7)[(len(kind) + number) % 3]
        prepared = ENTRY.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == [], shape


def test_the_check_sees_a_wrong_output(device: ShimDevice) -> None:
    prepared = checks.CheckedProjection(device, ENTRY.small[0], "random", np.random.default_rng(0))
    assert prepared.problems() != []
    prepared.enqueue()
    out = device.download(prepared.stage.out, prepared.expected.shape, np.float32)
    row = int(np.flatnonzero(prepared.mask)[-1])
    out[row, -1] *= np.float32(1 + 1e-3)
    device.write(prepared.stage.out, out)
    assert "off by" in prepared.problems()[0]
    out[~prepared.mask] = 0.0
    device.write(prepared.stage.out, out)
    assert "not searched" in prepared.problems()[0]


def test_a_matrix_that_cannot_be_is_refused(device: ShimDevice) -> None:
    for matrix in (np.zeros((0, 3), np.float32), np.zeros(3, np.float32), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(EngineError, match="not a finite matrix"):
            DeviceProjection.upload(device, matrix)
