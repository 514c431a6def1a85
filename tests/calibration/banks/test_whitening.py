"""Whitened features: equal variance in every direction but for the shrinkage, the same for rows and queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asperity.calibration.banks.reference import OwnedBank, make_bank, whitening
from asperity.calibration.profiles import profile

RNG = np.random.default_rng(0)
PATCHES = (RNG.normal(size=(400, 6)) @ RNG.normal(size=(6, 6)) * [5, 1, 1, 1, 0.2, 0.01] + 3).astype(np.float32)
OWNERS = np.repeat(np.arange(20), 20)


def made(shrinkage: float | None) -> OwnedBank:
    return make_bank("rgb", PATCHES, OWNERS, 100, replace(profile("lite"), whitening=shrinkage))


def test_variances_are_shrunk_towards_their_mean_and_then_divided_by() -> None:
    variances = np.linalg.eigvalsh(np.cov(PATCHES.T, bias=True))
    expected = variances / (0.9 * variances + 0.1 * variances.mean())
    found = np.cov((PATCHES @ whitening(PATCHES, 0.1)).T, bias=True)
    np.testing.assert_allclose(np.diag(found), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-3)
    whole = np.cov((PATCHES @ whitening(PATCHES, 1.0)).T, bias=True)
    np.testing.assert_allclose(np.linalg.eigvalsh(whole), variances / variances.mean(), rtol=1e-3, atol=1e-4)


def test_rows_and_queries_pass_the_same_projection() -> None:
    """A patch that is in the bank lies at distance 0, and distances are those of the projected features."""
    bank = made(0.1).bank
    assert bank.projection is not None and bank.memory.rows.shape == (100, 6)
    distances, _ = bank.memory.nearest(bank.standardised(PATCHES))
    assert (distances < 1e-5).sum() >= 100
    standard = (PATCHES.astype(float) - PATCHES.mean(dtype=float)) / PATCHES.std(dtype=float)
    far = np.linalg.norm((standard @ bank.projection)[:, None] - bank.memory.rows, axis=2).min(axis=1)
    np.testing.assert_allclose(distances, far, atol=1e-4)


def test_a_bank_without_a_frame_keeps_the_projection() -> None:
    owned = made(0.1)
    assert owned.without(3).projection is owned.bank.projection
    assert made(None).bank.projection is None


@pytest.mark.parametrize("rows", [4, 40])
def test_fewer_patches_than_channels_are_whitened_too(rows: int) -> None:
    wide = np.random.default_rng(1).normal(size=(rows, 64)).astype(np.float32)
    assert np.isfinite(wide @ whitening(wide, 0.1)).all()
