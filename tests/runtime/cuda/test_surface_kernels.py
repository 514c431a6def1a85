"""The surface's picture, histograms and height residual on the CPU stand-in, against the runtime's."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from asperity.runtime.cuda.checks import descriptor, heights
from asperity.runtime.cuda.checks import surface as checks
from asperity.runtime.cuda.checks.clouds import NOT_FINITE
from asperity.runtime.cuda.descriptor import SurfaceHistograms
from asperity.runtime.cuda.heights import DeviceHeights
from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.cuda.shape import ShapeInputs
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.manifest import GridDescriptor
from asperity.runtime.vision import surface_grid
from asperity.runtime.vision.height_residual import LARGEST, HeightModel

ENTRY = checks.ENTRIES[0]


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("preprocess", "window", "surface", "descriptor", "heights")


CASES = [(one, kind) for module in (checks, descriptor, heights) for one in module.ENTRIES for kind in one.kinds]


@pytest.mark.parametrize(("entry", "kind"), CASES, ids=lambda value: getattr(value, "name", value))
def test_results_are_the_runtimes(device: ShimDevice, entry: KernelEntry, kind: str) -> None:
    for number, shape in enumerate(entry.small):
        device.order = (0, 1, 7)[(len(kind) + number) % 3]
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == [], shape
        prepared.enqueue()  # nothing of the frame before may be left
        assert prepared.problems() == [], shape


def heights_of(device: ShimDevice, kind: str) -> heights.CheckedHeights:
    return heights.CheckedHeights(device, heights.ENTRIES[0].small[0], kind, np.random.default_rng(0))


def features_of(prepared: heights.CheckedHeights | descriptor.CheckedHistograms) -> np.ndarray:
    prepared.enqueue()
    patches = prepared.network.grid**2
    return prepared.get(prepared.stage.features, (patches, prepared.stage.features.nbytes // 4 // patches), np.float32)


@pytest.mark.parametrize("kind", ["lost", "not a number"])
def test_a_part_in_no_pose_is_as_strange_as_can_be(device: ShimDevice, kind: str) -> None:
    """Shifted beyond the limit, or by a sum that is not a number: never a part that fits."""
    prepared = heights_of(device, "lost" if kind == "lost" else "holes")
    if kind != "lost":
        device.write(prepared.stage.model.blurred, np.array([np.nan]))
    features = features_of(prepared)
    assert not device.download(prepared.stage._both, (prepared.surface.size**2,), np.uint8).any()
    part = device.download(prepared.surface.means, (prepared.surface.size**2, 4), np.float32)[:, 3] > 0
    assert part.any() and (np.abs(features) == LARGEST).all(axis=1).sum() == (features != 0).any(axis=1).sum() > 0
    if kind != "lost":
        assert np.isnan(device.download(prepared.stage.pose, (3,), np.float64)).all()


def test_features_that_are_not_numbers_are_a_fault(device: ShimDevice) -> None:
    made = heights_of(device, "holes")
    device.write(made.stage.model.spread, np.zeros(made.model.spread.shape, np.float32))
    features_of(made)
    assert device.download(made.fault, (1,), np.uint32)[0] & NOT_FINITE
    shape, rng = descriptor.ENTRIES[0].small[0], np.random.default_rng(0)
    bent = descriptor.CheckedHistograms(device, shape, "holes", rng)
    device.write(bent.stage._usual, np.full(9, np.nan, np.float32))
    assert np.isfinite(features_of(bent)).all()
    assert device.download(bent.fault, (1,), np.uint32)[0] & NOT_FINITE


def test_a_part_of_fewer_than_three_cells_has_no_plane(device: ShimDevice) -> None:
    prepared = heights_of(device, "holes")
    device.write(prepared.stage.model.known, np.zeros(prepared.model.known.shape, np.uint8))
    features = features_of(prepared)
    assert not prepared.get(prepared.stage._left, (prepared.surface.size**2,), np.float32).any()
    assert set(np.unique(np.abs(features))) == {0.0, LARGEST}


def test_a_large_window_is_averaged_in_blocks_first(device: ShimDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """47 pixels in blocks of 5: the last is cut, and cells lie where whole blocks put them."""
    monkeypatch.setattr(surface_grid, "MOST_PX", 10)
    for seed, kind in enumerate(("random", "holes")):
        prepared = checks.CheckedSurface(device, ENTRY.small[0], kind, np.random.default_rng(seed))
        assert (prepared.points.block, prepared.stage.size) == (5, 10)
        prepared.enqueue()
        assert prepared.problems() == []


def test_the_checks_see_a_wrong_output(device: ShimDevice) -> None:
    prepared = checks.CheckedSurface(device, ENTRY.small[0], "random", np.random.default_rng(0))
    prepared.enqueue()
    for name, at, value in (("means", 4 * 1100, 1.0), ("normals", 4 * 1100, 0.3), ("network_image", 9, 7.0)):
        buffer = getattr(prepared.stage if name == "network_image" else prepared.surface, name)
        right = device.download(buffer, (buffer.nbytes // 4,), np.float32)
        wrong = right.copy()
        wrong[at] += value
        device.write(buffer, wrong)
        assert prepared.problems() != [], name
        device.write(buffer, right)
    assert prepared.problems() == []
    bent = descriptor.CheckedHistograms(device, descriptor.ENTRIES[0].small[0], "random", np.random.default_rng(0))
    for made, change in ((bent, 0.1), (heights_of(device, "random"), 0.05)):
        wrong = features_of(made)
        assert made.problems() == []
        wrong[np.unravel_index(np.abs(wrong).argmax(), wrong.shape)] -= change
        device.write(made.stage.features, wrong)
        assert made.problems() != []


def test_what_cannot_be_seen_is_refused(device: ShimDevice) -> None:
    made = checks.CheckedSurface(device, ENTRY.small[0], "random", np.random.default_rng(0))
    bare = Preprocess(device, msgspec.structs.replace(made.geometry, method="none", plane=None), made.network, None)
    with pytest.raises(EngineError, match=r"above a plane only.*cpu engine"):
        ShapeInputs(bare, None)
    for changes in ({"picture": None}, {"modalities": ("rgb", "geometry", "descriptor")}):
        other = msgspec.structs.replace(made.network, **changes)
        with pytest.raises(EngineError, match=r"constants of .* do not fit its modalities"):
            ShapeInputs(Preprocess(device, made.geometry, other, None), None)
    posed = heights_of(device, "random")
    with pytest.raises(EngineError, match="the mean part is not at hand"):
        ShapeInputs(posed.pre, None)
    model = posed.model
    small = HeightModel(model.heights[1:, 1:], model.known[1:, 1:], model.spread[:, 1:, 1:])
    with pytest.raises(EngineError, match="46 x 46 cells and the window 47 x 47"):
        ShapeInputs(posed.pre, DeviceHeights.upload(device, small))
    with pytest.raises(EngineError, match="3 x 3 numbers above 0"):
        SurfaceHistograms(posed.surface, GridDescriptor(3, ((0.0, 1.0, 1.0),) * 3), 7)
