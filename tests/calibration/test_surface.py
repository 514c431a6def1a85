"""Heights and relief that the small encoder works out of its groups: against least squares written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calibration.networks.point_mae import points_lite
from calibration.networks.surface import GROUP_CELLS, POSITION_CELLS, Relief, heights, plane, with_heights

BATCH, GROUPS, POINTS = 2, 24, 16


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(BATCH, GROUPS, POINTS, 3, generator=generator, dtype=torch.float64) * 0.4
    return groups, torch.randn(BATCH, GROUPS, 3, generator=generator, dtype=torch.float64) * 0.4


def fitted(x: np.ndarray, y: np.ndarray, z: np.ndarray, w: np.ndarray, ridge: float) -> np.ndarray:
    """The same plane as the minimum of sum w (z - a x - b y - c)^2 + ridge (a^2 + b^2)."""
    design = np.stack([x, y, np.ones_like(x)], axis=1)
    normal = design.T @ (w[:, None] * design) + np.diag([ridge, ridge, 0.0])
    return np.linalg.solve(normal, design.T @ (w * z))


def test_the_plane_is_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y, z, w = rng.normal(size=(4, 5, 12))
    w = np.exp(w) / np.exp(w).sum(axis=1, keepdims=True)
    found = plane(*(torch.from_numpy(v) for v in (x, y, z, w)), ridge=0.03)
    expected = np.stack([fitted(*row, 0.03) for row in zip(x, y, z, w, strict=True)], axis=1)
    np.testing.assert_allclose(np.stack([f.numpy() for f in found]), expected, rtol=1e-9, atol=1e-12)


def test_heights_do_not_see_a_shift_and_grow_with_a_bump() -> None:
    groups, _ = clouds()
    above = heights(groups)[0]
    np.testing.assert_allclose(above.sum(-1), 0, atol=1e-12)
    np.testing.assert_allclose(heights(groups + torch.tensor([0.3, -0.2, 7.0]))[0], above, atol=1e-12)
    flat = groups.clone()
    flat[..., 2] = 0.0
    assert float(with_heights(flat)[..., 3:].abs().max()) == 0.0
    flat[0, 0, 3, 2] = 0.05  # a fifth of a cell
    told = with_heights(flat)[0, 0, 3]
    assert 0.25 < float(told[3]) < 0.4 and 0.7 < float(told[4]) < 1.0
    assert float(with_heights(flat)[0, 1:, :, 3:].abs().max()) == 0.0


def test_relief_is_the_height_above_the_surroundings_plane() -> None:
    groups, centres = clouds()
    found = Relief(8).double().measured(groups, centres).numpy()
    means = groups.mean(dim=2).numpy() * GROUP_CELLS / POSITION_CELLS + centres.numpy()
    for column, reach in ((0, 0.12), (2, 0.25)):
        for batch, group in ((0, 0), (1, 5)):
            d = (means[batch] - means[batch, group]) / reach
            w = np.exp(-0.5 * (d**2).sum(axis=1))
            c = fitted(d[:, 0], d[:, 1], d[:, 2], w / w.sum(), 0.02)[2]
            height = -c * reach * POSITION_CELLS
            np.testing.assert_allclose(found[batch, group, column], 2 * height, rtol=1e-6)
            np.testing.assert_allclose(found[batch, group, column + 1], height / np.hypot(height, 0.2), rtol=1e-6)


@pytest.mark.parametrize("case", ["one point", "a line", "a wall"])
def test_degenerate_groups_give_finite_tokens(case: str) -> None:
    encoder = points_lite().eval()
    groups, centres = torch.zeros(1, 256, 32, 3), torch.zeros(1, 256, 3)
    if case == "a line":
        groups[..., 0] = torch.linspace(-1, 1, 32)
        centres[..., 0] = torch.linspace(-1, 1, 256)
    if case == "a wall":
        groups[..., 2] = torch.linspace(-1, 1, 32) * 20
    with torch.no_grad():
        assert torch.isfinite(encoder(groups, centres)).all()
