"""The surface's picture on the CPU stand-in, against the runtime's."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from asperity.runtime.cuda.checks import surface as checks
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.cuda.surface import SurfaceImage
from asperity.runtime.errors import EngineError
from asperity.runtime.vision import surface_grid

ENTRY = checks.ENTRIES[0]


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("preprocess", "window", "surface")


@pytest.mark.parametrize("kind", ENTRY.kinds)
def test_pictures_are_the_runtimes(device: ShimDevice, kind: str) -> None:
    for number, shape in enumerate(ENTRY.small):
        device.order = (0, 1, 7)[(len(kind) + number) % 3]
        prepared = ENTRY.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == [], shape


def test_a_large_window_is_averaged_in_blocks_first(device: ShimDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """47 pixels in blocks of 5: the last is cut, and cells lie where whole blocks put them."""
    monkeypatch.setattr(surface_grid, "MOST_PX", 10)
    for seed, kind in enumerate(("random", "holes")):
        prepared = checks.CheckedSurface(device, ENTRY.small[0], kind, np.random.default_rng(seed))
        assert (prepared.stage.block, prepared.stage.size) == (5, 10)
        prepared.enqueue()
        assert prepared.problems() == []


def test_the_check_sees_a_wrong_output(device: ShimDevice) -> None:
    prepared = checks.CheckedSurface(device, ENTRY.small[0], "random", np.random.default_rng(0))
    prepared.enqueue()
    for name, at, value in (("means", 4 * 1100, 1.0), ("normals", 4 * 1100, 0.3), ("network_image", 9, 7.0)):
        buffer = getattr(prepared.stage, name)
        right = device.download(buffer, (buffer.nbytes // 4,), np.float32)
        wrong = right.copy()
        wrong[at] += value
        device.write(buffer, wrong)
        assert prepared.problems() != [], name
        device.write(buffer, right)
    assert prepared.problems() == []


def test_what_cannot_be_pictured_is_refused(device: ShimDevice) -> None:
    made = checks.CheckedSurface(device, ENTRY.small[0], "random", np.random.default_rng(0))
    bare = Preprocess(device, msgspec.structs.replace(made.geometry, method="none", plane=None), made.network, None)
    with pytest.raises(EngineError, match=r"above a plane only.*cpu engine"):
        SurfaceImage(bare)
    with pytest.raises(EngineError, match="how its surface is pictured"):
        SurfaceImage(Preprocess(device, made.geometry, msgspec.structs.replace(made.network, picture=None), None))
