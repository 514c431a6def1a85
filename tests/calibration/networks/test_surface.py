"""The measures of the surface that the small encoder works out: against least squares written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.networks.surface import (
    GROUP_CELLS,
    POINT_MEASURES,
    POSITION_CELLS,
    REACHES,
    RELIEF_MEASURES,
    heights,
    plane,
    point_measures,
    relief_measures,
    surroundings,
)

BATCH, GROUPS, POINTS = 2, 24, 16


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(BATCH, GROUPS, POINTS, 3, generator=generator, dtype=torch.float64) * 0.4
    return groups, torch.randn(BATCH, GROUPS, 3, generator=generator, dtype=torch.float64) * 0.2


def fitted(x: np.ndarray, y: np.ndarray, z: np.ndarray, w: np.ndarray, ridge: float) -> np.ndarray:
    """The same plane as the minimum of sum w (z - a x - b y - c)^2 + ridge (a^2 + b^2)."""
    design = np.stack([x, y, np.ones_like(x)], axis=1)
    normal = design.T @ (w[:, None] * design) + np.diag([ridge, ridge, 0.0])
    return np.linalg.solve(normal, design.T @ (w * z))


def soft(value: np.ndarray, knee: float = 0.2) -> np.ndarray:
    return value / np.hypot(value, knee)


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
    level = point_measures(flat)[..., [0, 1, 4, 5, 11, 13]]
    assert float(level.abs().max()) < 1e-12
    flat[0, 0, 3, 2] = 0.05  # a fifth of a cell
    told = point_measures(flat)
    assert float(told[0, 0, 3, 0]) > 0.05 and float(told[0, 0, 3, 10].abs()) > 0.1
    assert float(told[0, 1:, :, [0, 1, 4, 5, 11, 13]].abs().max()) < 1e-12


def test_a_points_measures_are_of_the_plane_around_it() -> None:
    groups, _ = clouds()
    found = point_measures(groups).numpy()
    assert found.shape == (BATCH, GROUPS, POINTS, POINT_MEASURES)
    above = 2 * GROUP_CELLS * heights(groups)[0].numpy()
    spread = 1.2 / GROUP_CELLS
    for batch, group, point in ((0, 0, 0), (1, 7, 5)):
        x, y = (groups[batch, group, :, axis].numpy() for axis in (0, 1))
        x, y, h = x - x.mean(), y - y.mean(), above[batch, group]
        w = np.exp(-0.5 * ((x - x[point]) ** 2 + (y - y[point]) ** 2) / spread**2)
        w /= w.sum()
        a, b, c = fitted(x, y, h, w, 0.15 * spread**2)
        smooth = a * x[point] + b * y[point] + c
        radius = np.sqrt(x[point] ** 2 + y[point] ** 2 + 0.01)
        told = found[batch, group, point]
        np.testing.assert_allclose(told[[0, 1]], [smooth, soft(smooth)], rtol=1e-6)
        np.testing.assert_allclose(told[[11, 13]], [a, b], rtol=1e-6)
        np.testing.assert_allclose(told[4], (a * x[point] + b * y[point]) / radius, rtol=1e-6)
        np.testing.assert_allclose(told[10], soft(h[point] - smooth), rtol=1e-6)
        np.testing.assert_allclose(told[[15, 16]], [x[point], y[point]], rtol=1e-6)


def test_relief_is_the_height_and_bend_against_the_surroundings() -> None:
    groups, centres = clouds()
    found = relief_measures(groups, surroundings(groups, centres)).numpy()
    assert found.shape == (BATCH, GROUPS, RELIEF_MEASURES)
    means = groups.mean(dim=2).numpy() * GROUP_CELLS + centres.numpy() * POSITION_CELLS
    _, a, b = (v.numpy() for v in heights(groups))
    for number, reach in enumerate(REACHES):
        for batch, group in ((0, 0), (1, 5)):
            d = means[batch] - means[batch, group]
            w = np.exp(-0.5 * (d**2).sum(axis=1) / reach**2)
            w /= w.sum()
            x, y = d[:, 0] / reach, d[:, 1] / reach
            pa, pb, c = fitted(x, y, d[:, 2], w, 0.04)
            told = found[batch, group, 14 * number : 14 * (number + 1)]
            np.testing.assert_allclose(told[:2], [-2 * c, soft(-c)], rtol=1e-6)
            left = d[:, 2] - pa * x - pb * y - c
            np.testing.assert_allclose(told[2], np.sqrt(w @ left**2 + 1e-4), rtol=1e-6)
            (axx, axy, _), (bxx, bxy, _) = (fitted(x, y, slope[batch], w, 0.04) for slope in (a, b))
            twist = 0.5 * (axy + bxx)
            bend = np.sqrt((axx - bxy) ** 2 + 4 * twist**2 + 1e-4)
            np.testing.assert_allclose(told[6:11], soft(np.array([axx, twist, bxy, axx + bxy, bend]), 0.1), rtol=1e-6)
            np.testing.assert_allclose(told[11], soft(a[batch, group] - pa / reach, 0.1), rtol=1e-6)


def test_tokens_hear_from_near_groups_and_not_from_where_the_part_lies() -> None:
    torch.manual_seed(0)
    encoder = PointsLite(width=24, hidden=32, points=8).double().eval()
    groups, centres = clouds()
    with torch.no_grad():
        tokens = encoder(groups, centres)
        moved = encoder(groups, centres + torch.tensor([0.3, -0.1, 0.2]))
        changed = groups.clone()
        changed[0, 0] *= 1.5
        heard = encoder(changed, centres)
    np.testing.assert_allclose(moved.numpy(), tokens.numpy(), atol=1e-9)
    difference = (heard - tokens).abs().amax(-1)
    assert float(difference[1].max()) == 0.0
    near = (centres[0] - centres[0, 0]).norm(dim=-1).argsort()
    assert float(difference[0, near[0]]) > float(difference[0, near[1]]) > float(difference[0, near[-1]])


@pytest.mark.parametrize("case", ["one point", "a line", "a wall"])
def test_degenerate_groups_give_finite_tokens(case: str) -> None:
    encoder = PointsLite().eval()
    groups, centres = torch.zeros(1, 256, 32, 3), torch.zeros(1, 256, 3)
    if case == "a line":
        groups[..., 0] = torch.linspace(-1, 1, 32)
        centres[..., 0] = torch.linspace(-1, 1, 256)
    if case == "a wall":
        groups[..., 2] = torch.linspace(-1, 1, 32) * 20
    with torch.no_grad():
        assert torch.isfinite(encoder(groups, centres)).all()
