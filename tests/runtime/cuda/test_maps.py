"""Maps and image distances on the CPU stand-in, against the runtime's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asperity.runtime.cuda.checks import maps as checks
from asperity.runtime.cuda.checks.clouds import COUNT, INDEX, NOT_FINITE, clear_fault
from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.maps import FUSED, Maps, neighbour_table
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import Window
from asperity.runtime.vision.maps import MAP_PX, worst_region
from asperity.runtime.vision.nearest import MemoryBank

ORDERS = (0, 1, 7)


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("maps")


CASES = [(entry, kind) for entry in checks.ENTRIES for kind in entry.kinds]


@pytest.mark.parametrize(("entry", "kind"), CASES, ids=lambda value: getattr(value, "name", value))
def test_results_are_the_runtimes(device: ShimDevice, entry: KernelEntry, kind: str) -> None:
    for number, shape in enumerate(entry.small):
        device.order = ORDERS[(len(kind) + number) % len(ORDERS)]
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(number))
        prepared.enqueue()
        assert prepared.problems() == [], shape
        prepared.enqueue()  # nothing of the frame before may be left
        assert prepared.problems() == [], shape


def on_device(device: ShimDevice, pixels: np.ndarray, cover: np.ndarray, threads: int = 256) -> tuple[Maps, int]:
    """A stage whose pixel maps are these: peaks as spread_columns makes them, then the region."""
    stage, fault = checks.maps_of(device, 4, 4, 1), clear_fault(device)
    device.write(stage.pixels, np.stack([pixels, cover]).astype(np.float32))
    top = int(pixels.argmax())
    bits = int(np.float32(pixels.flat[top]).view(np.uint32))
    ordered = bits ^ 0xFFFFFFFF if bits >> 31 else bits | 0x80000000
    device.write(stage.peaks, np.array([ordered << 32 | top ^ 0xFFFFFFFF], dtype=np.uint64))
    stage.enqueue_region(fault, threads)
    return stage, int(device.download(fault, (1,), np.uint32)[0])


@pytest.mark.parametrize("seed", range(4))
def test_the_spot_is_the_runtimes(device: ShimDevice, seed: int) -> None:
    rng = np.random.default_rng(seed)
    device.order = ORDERS[seed % len(ORDERS)]
    rows, columns = np.mgrid[0:MAP_PX, 0:MAP_PX]
    pixels = rng.normal(scale=0.6, size=(MAP_PX, MAP_PX)).astype(np.float32) - 1
    for _ in range(3):
        row, column, width = rng.integers(0, MAP_PX), rng.integers(0, MAP_PX), rng.integers(4, 40)
        pixels += 3 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / width**2).astype(np.float32)
    stage, fault = on_device(device, pixels, np.ones_like(pixels) if seed else np.zeros_like(pixels))
    assert fault == 0
    assert np.array_equal(device.download(stage.spot, (6,), np.int32), checks.spot_of(pixels, np.ones_like(pixels)))
    assert list(device.download(stage.levels, (2,), np.float64)) == [pixels.max(), np.median(pixels)]
    for window in (Window(-20, 30, 400), Window(500, 500, 100), Window(3, 4, 101)):
        expected = worst_region(pixels, np.ones((28, 28), dtype=bool), window, 300, 420)
        assert stage.download_region(window, 300, 420) == expected


def test_a_flat_map_has_no_spot(device: ShimDevice) -> None:
    pixels = np.full((MAP_PX, MAP_PX), -2.5, dtype=np.float32)
    stage, fault = on_device(device, pixels, np.ones_like(pixels))
    assert fault == 0
    assert stage.download_region(Window(0, 0, MAP_PX), 300, 300) is None


def test_a_map_that_is_no_number_is_a_fault(device: ShimDevice) -> None:
    pixels = np.random.default_rng(0).normal(size=(MAP_PX, MAP_PX)).astype(np.float32)
    pixels[100, 3] = np.nan
    assert on_device(device, pixels, np.ones_like(pixels))[1] == NOT_FINITE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_damage_on_one_patch_reaches_every_peak_and_the_fault_word(device: ShimDevice, value: float) -> None:
    stage, fault = checks.maps_of(device, 12, 12, 144), clear_fault(device)
    planes = np.ones((stage.count, 12, 12), dtype=np.float32)
    damaged = [FUSED, stage.plane_of["points"]]
    planes[damaged, 7, 3] = value
    device.write(stage.planes, planes)
    device.write(stage.peaks, np.zeros(stage.count, dtype=np.uint64))
    stage.enqueue_pixels(fault)
    assert device.download(fault, (1,), np.uint32)[0] == NOT_FINITE
    assert not np.isfinite(stage.download_peaks()[damaged]).any()


def test_a_negative_distance_and_a_wrong_slot_are_faults(device: ShimDevice) -> None:
    for distance, slot, expected in ((-1.0, 0, NOT_FINITE), (1.0, 5, INDEX)):
        tokens, points = device.upload(np.ones(1, np.float32)), device.upload(np.float32([distance]))
        stage = Maps(device, 2, 1, 1, checks.DECISION, {"rgb": tokens, "points": points})
        numbers, everywhere = device.upload(np.array([-1, slot, -1, -1], np.int32)), device.upload(np.ones(4, np.uint8))
        fault = clear_fault(device)
        stage.enqueue(numbers, everywhere, fault)
        assert device.download(fault, (1,), np.uint32)[0] == expected


def damaged_distance(device: ShimDevice, **changes: np.ndarray) -> tuple[int, float]:
    prepared = checks.CheckedImageDistance(
        device, checks.ENTRIES[3].small[0], "random", np.random.default_rng(0), False
    )
    for name, value in changes.items():
        device.write(prepared.inputs[("nearest", "scored", "count").index(name)], value)
    prepared.enqueue()
    fault = int(device.download(prepared.fault, (1,), np.uint32)[0])
    return fault, float(device.download(prepared.stage.out, (1,), np.float64)[0])


def test_what_cannot_be_gives_no_image_distance(device: ShimDevice) -> None:
    for changes, bit in (
        ({"nearest": np.full(700, 40, dtype=np.int32)}, INDEX),
        ({"nearest": np.full(700, -1, dtype=np.int32)}, INDEX),
        ({"count": np.array([701], dtype=np.int32)}, COUNT),
        ({"count": np.array([-1], dtype=np.int32)}, COUNT),
    ):
        fault, distance = damaged_distance(device, **changes)
        assert fault & bit
        assert np.isnan(distance)
    fault, distance = damaged_distance(device, scored=np.zeros(700, dtype=np.uint8))
    assert fault
    assert np.isnan(distance)


def test_grids_and_banks_that_do_not_fit_are_refused(device: ShimDevice) -> None:
    with pytest.raises(EngineError, match="evenly"):
        checks.maps_of(device, 28, 12, 1)
    with pytest.raises(EngineError, match="rgb do not fit a decision by rgb, points"):
        Maps(device, 12, 12, 1, checks.DECISION, {"rgb": device.alloc(4 * 144)})
    with pytest.raises(EngineError, match="do not fit"):
        Maps(device, 12, 12, 9, checks.DECISION, {"rgb": device.alloc(4 * 144), "points": device.alloc(4 * 8)})
    with pytest.raises(EngineError, match="needs 3"):
        neighbour_table(MemoryBank(np.ones((2, 4), dtype=np.float32)))


def test_the_check_sees_a_wrong_output(device: ShimDevice) -> None:
    prepared = checks.CheckedMaps(device, checks.ENTRIES[0].small[0], "random", np.random.default_rng(0))
    prepared.enqueue()
    for name, byte, bit in (
        ("planes", 2, 0x40), ("pixels", 2, 0x40), ("peaks", 7, 1), ("spot", 4, 1), ("scored", 2, 1),
        ("token_scored", 2, 1), ("slot_scored", 2, 1),
    ):  # fmt: skip
        buffer = getattr(prepared.stage, name)
        right = device.download(buffer, (buffer.nbytes,), np.uint8)
        wrong = right.copy()
        wrong[byte] ^= bit
        device.write(buffer, wrong)
        assert prepared.problems() != [], name
        device.write(buffer, right)
    assert prepared.problems() == []
