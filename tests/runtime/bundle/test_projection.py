"""Banks of projected features in a bundle: their tensors, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from asperity.runtime.bundle.banks import bank_shapes, bank_tensors, read_banks
from asperity.runtime.bundle.checks import check_banks, check_manifest
from asperity.runtime.errors import BundleError
from asperity.runtime.frame import FloatArray
from asperity.runtime.manifest import Manifest, Modality
from tests.bundle_factory import POINTS_CHANNELS, RGB_CHANNELS, toy_manifest

COLUMNS = 3


def manifest(projected: int = COLUMNS) -> Manifest:
    whole = toy_manifest("none")
    assert whole.decision.rgb is not None
    rgb = msgspec.structs.replace(whole.decision.rgb, projected=projected)
    return msgspec.structs.replace(whole, decision=msgspec.structs.replace(whole.decision, rgb=rgb))


def tensors() -> dict[str, FloatArray]:
    rng = np.random.default_rng(0)
    return {
        name: np.abs(rng.normal(size=shape)).astype(np.float32) + 0.1
        for name, shape in bank_shapes(manifest().network, manifest().decision).items()
    }


def test_a_projected_bank_has_rows_of_its_columns_and_comes_back_as_it_was() -> None:
    found = tensors()
    assert found["rgb"].shape[1] == COLUMNS and found["rgb_projection"].shape == (RGB_CHANNELS, COLUMNS)
    assert found["points"].shape[1] == POINTS_CHANNELS and "points_projection" not in found
    check_banks(found, manifest())
    banks = read_banks(found, manifest().decision)
    again = bank_tensors(banks)
    assert again.keys() == found.keys()
    assert all(np.array_equal(again[name], values) for name, values in found.items())
    features = np.random.default_rng(1).normal(size=(5, RGB_CHANNELS)).astype(np.float32)
    expected = (features.astype(float) - 0.1) / 0.9 @ found["rgb_projection"]
    np.testing.assert_allclose(banks["rgb"].standardised(features), expected, rtol=1e-4, atol=1e-5)


def test_a_bundle_without_projections_says_nothing_of_them() -> None:
    plain = msgspec.json.encode(toy_manifest("none").decision.rgb)
    assert b"projected" not in plain
    assert msgspec.json.decode(plain, type=Modality).projected == 0


def _drop(found: dict[str, NDArray[Any]]) -> None:
    del found["rgb_projection"]


def _widen(found: dict[str, NDArray[Any]]) -> None:
    found["rgb_projection"] = found["rgb_projection"][:, :2]


def _poison(found: dict[str, NDArray[Any]]) -> None:
    found["rgb_projection"][0, 0] = np.nan


def _blind(found: dict[str, NDArray[Any]]) -> None:
    found["rgb_projection"][:, 1] = 0.0


@pytest.mark.parametrize("change", [_drop, _widen, _poison, _blind])
def test_a_projection_that_cannot_be_right_is_refused(change: Callable[[dict[str, NDArray[Any]]], None]) -> None:
    found: dict[str, NDArray[Any]] = dict(tensors())
    change(found)
    with pytest.raises(BundleError, match="rgb_projection"):
        check_banks(found, manifest())


def test_a_negative_width_is_refused() -> None:
    with pytest.raises(BundleError, match=r"decision\.rgb\.projected is -1"):
        check_manifest(manifest(-1))
