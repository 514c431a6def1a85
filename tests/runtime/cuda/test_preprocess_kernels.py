"""A frame's preprocessing on the CPU stand-in, against the runtime's."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from scipy import ndimage

from asperity.runtime.cuda.checks import preprocess
from asperity.runtime.cuda.checks.clouds import EMPTY, clear_fault
from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.launch import Launch
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.errors import EngineError

ORDERS = (0, 1, 7)


@pytest.fixture
def device(shim_of: Callable[..., ShimDevice]) -> ShimDevice:
    return shim_of("preprocess", "window")


@pytest.mark.parametrize("entry", preprocess.ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("kind", preprocess.KINDS)
def test_a_frame_becomes_what_the_runtime_makes_of_it(device: ShimDevice, entry: KernelEntry, kind: str) -> None:
    for number, shape in enumerate(entry.small):
        device.order = ORDERS[(len(kind) + number) % len(ORDERS)]
        prepared = entry.prepare(device, shape, kind, np.random.default_rng(number + 10))
        prepared.enqueue()
        assert prepared.problems() == [], shape
        prepared.enqueue()  # nothing of the frame before may be left
        assert prepared.problems() == [], shape


def spiral(size: int) -> np.ndarray:
    """One arm of one pixel's width: the longest way from end to end."""
    mask = np.zeros((size, size), dtype=bool)
    top, bottom, left, right = 0, size - 1, 0, size - 1
    while top <= bottom and left <= right:
        mask[top, max(left - 1, 0) : right + 1] = True
        mask[top : bottom + 1, right] = True
        mask[bottom, left : right + 1] = True
        mask[top + 2 : bottom + 1, left] = True
        top, bottom, left, right = top + 2, bottom - 2, left + 2, right - 2
    return mask


MASKS = {
    "none": np.zeros((9, 40), dtype=bool),
    "all": np.ones((33, 47), dtype=bool),
    "checkerboard": np.indices((21, 50)).sum(axis=0) % 2 == 0,
    "spiral": spiral(41),
    "comb": np.indices((25, 70))[1] % 2 == np.minimum(np.indices((25, 70))[0], 1) * (np.indices((25, 70))[1] % 2),
    **{
        f"random {share}": np.random.default_rng(int(share * 100)).random((31, 77)) < share
        for share in (0.3, 0.45, 0.6, 0.9)
    },
}


def labelled(
    device: ShimDevice, mask: np.ndarray, diagonal: bool, inverted: bool, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    width = mask.shape[1]
    parent, sizes, best = (
        device.alloc(4 * mask.size),
        device.alloc(4 * mask.size),
        device.upload(np.zeros(1, np.uint64)),
    )
    grid, block, pixels = (-(mask.size // -64), 1, 1), (64, 1, 1), np.int32(mask.size)
    shown, weight = device.upload(mask.astype(np.uint8)), device.upload(counted.astype(np.uint8))
    device.launch(Launch("label_start", grid, block), shown, np.int32(inverted), pixels, np.int32(width), parent, sizes)
    device.launch(Launch("label_join", grid, block), pixels, np.int32(width), np.int32(diagonal), parent)
    device.launch(Launch("label_settle", grid, block), weight, pixels, parent, sizes)
    device.launch(Launch("largest_label", (3, 1, 1), block), sizes, pixels, best)
    key = int(device.download(best, (1,), np.uint64)[0])
    return (
        device.download(parent, mask.shape, np.int32),
        device.download(sizes, (mask.size,), np.int32),
        ~key & 0xFFFFFFFF if key else -1,
    )


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("inverted", [True, False])
def test_components_are_scipys(device: ShimDevice, name: str, diagonal: bool, inverted: bool) -> None:
    mask = MASKS[name]
    device.order = ORDERS[len(name) % len(ORDERS)]
    counted = np.random.default_rng(1).random(mask.shape) < 0.5
    seen, sizes, best = labelled(device, mask, diagonal, inverted, counted)
    labels, count = ndimage.label(mask != inverted, structure=np.ones((3, 3)) if diagonal else None)
    flat = labels.ravel()
    firsts = np.full(count + 1, -1)
    firsts[flat[::-1]] = np.arange(flat.size)[::-1]  # the first pixel of every component
    firsts[0] = -1
    assert np.array_equal(seen, firsts[labels])
    weights = np.bincount(flat[counted.ravel()], minlength=count + 1)
    weights[0] = 0
    assert np.array_equal(sizes[firsts[1:]], weights[1:])
    assert best == (firsts[weights.argmax()] if weights.any() else -1)


def test_what_the_kernels_cannot_do_is_refused(device: ShimDevice) -> None:
    shape = preprocess.ENTRIES[0].small[0]
    geometry, network = preprocess.geometry_of("random", 60, 83, 47), preprocess.network_of(shape)
    for wrong in ({"method": "published"}, {"plane": None}, {"method": "none"}):
        with pytest.raises(EngineError, match="name to cpu"):
            Preprocess(device, msgspec.structs.replace(geometry, **wrong), network, None)


def test_an_empty_frame_leaves_no_number_that_looks_good(device: ShimDevice) -> None:
    shape = preprocess.ENTRIES[0].small[0]
    prepared = preprocess.CheckedPreprocess(device, shape, "empty", np.random.default_rng(0))
    prepared.enqueue()
    assert int(device.download(prepared.fault, (1,), np.uint32)[0]) == EMPTY
    silhouette = prepared.stage.download_figures().silhouette
    assert np.isnan([silhouette.length_mm, silhouette.width_mm, silhouette.height_mm, silhouette.missing_share]).all()


@pytest.mark.parametrize("damage", ["image", "cloud", "filled", "part", "heights", "window", "inspect"])
def test_the_check_sees_a_wrong_output(device: ShimDevice, damage: str) -> None:
    shape = preprocess.ENTRIES[0].small[0]
    prepared = preprocess.CheckedPreprocess(device, shape, "masked", np.random.default_rng(10))
    prepared.enqueue()
    buffer = getattr(prepared.stage, damage)
    raw = device.download(buffer, (buffer.nbytes,), np.uint8)
    raw[0 if damage == "window" else raw.size // 2 if damage != "heights" else 14] ^= 1
    device.write(buffer, raw)
    assert prepared.problems() != []


def test_the_fault_word_is_kept(device: ShimDevice) -> None:
    prepared = preprocess.CheckedPreprocess(device, preprocess.ENTRIES[0].small[0], "random", np.random.default_rng(0))
    prepared.fault = device.upload(np.array([64], dtype=np.uint32))
    prepared.enqueue()
    assert device.download(prepared.fault, (1,), np.uint32)[0] == 64
    assert device.download(clear_fault(device), (1,), np.uint32)[0] == 0
