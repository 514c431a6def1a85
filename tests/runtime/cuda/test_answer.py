"""Placing, checking and packing on the CPU stand-in, against numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asperity.runtime.cuda.answer import Packed, Piece
from asperity.runtime.cuda.checks import answer as checks
from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError

CASES = [(entry, kind) for entry in checks.ENTRIES for kind in entry.kinds]


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("answer")


@pytest.mark.parametrize(("entry", "kind"), CASES, ids=lambda value: getattr(value, "name", value))
def test_results_are_numpys(device: ShimDevice, entry: KernelEntry, kind: str) -> None:
    for number, shape in enumerate(entry.small):
        device.order = (0, 1, 7)[(len(kind) + number) % 3]
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == [], shape


def test_the_checks_see_a_wrong_output(device: ShimDevice) -> None:
    placed = checks.CheckedPlace(device, {"tokens": 64}, "random", np.random.default_rng(0))
    placed.enqueue()
    device.write(placed.placed, np.array([99.0], dtype=np.float32))
    assert placed.problems() != []
    finite = checks.CheckedFinite(device, {"count": 64}, "nan", np.random.default_rng(0))
    assert finite.problems() != []
    pack = checks.CheckedPack(device, {"nbytes": 64}, "random", np.random.default_rng(0))
    pack.enqueue()
    device.write(pack.packed.out, pack.arrays[0] ^ 1)
    assert pack.problems() != []


def test_a_piece_outside_of_its_buffer_is_refused(device: ShimDevice) -> None:
    with pytest.raises(EngineError, match="not in its buffer"):
        Packed(device, {"all": Piece(device.alloc(16), (5,), np.float32)})
