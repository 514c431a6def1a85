"""Surface measures of groups of points, computed inside the encoder's graph: nothing here is learned.

A dent 0.2 cells deep is a fortieth of a group's extent; given raw coordinates, a network spends its training on finding
out that heights above the local plane, slopes and bends are what matters. Only operators that every engine has are
used. Lengths are cells throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

POSITION_CELLS, GROUP_CELLS = 56.0, 4.0
"""Cells in one unit of the centres and of the groups (``calibration.profiles.network_for``, cloud of 112 cells)."""
REACHES = (3.5, 7.0, 14.0)
"""Standard deviations of the surroundings that a group is measured against, cells."""
POINT_MEASURES = 17
_OF_REACH = 14
RELIEF_MEASURES = _OF_REACH * len(REACHES) + 8
_SMOOTHING = 1.2
"""Standard deviation of the neighbourhood that a point's own plane is fitted to, cells."""
_TINY = 1e-4
"""Under a square root, so that it stays finite in half precision and has a slope at 0."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where each group's mean point sees those of the others: (B, G, G), row the seeing one."""

    dx: Tensor
    dy: Tensor
    dz: Tensor
    weights: tuple[Tensor, ...]
    """Gaussian weights of each of ``REACHES``, every row's sum 1."""


def surroundings(groups: Tensor, centres: Tensor) -> Surroundings:
    """``groups`` (B, G, K, 3) and ``centres`` (B, G, 3) in the encoder's units -> differences in cells."""
    means = groups.mean(dim=-2) * GROUP_CELLS + centres * POSITION_CELLS
    # Differences first: coordinates squared would lose a height of a hundredth of a cell in half precision.
    dx, dy, dz = (means[:, None, :, :] - means[:, :, None, :]).unbind(-1)
    squared = dx * dx + dy * dy + dz * dz
    weights = tuple(torch.softmax(squared * (-0.5 / reach**2), dim=-1) for reach in REACHES)
    return Surroundings(dx, dy, dz, weights)


def plane(x: Tensor, y: Tensor, z: Tensor, weights: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """z = a x + b y + c by weighted least squares over the last axis; ``weights`` sum to 1. Shapes (..., K) -> (...).

    ``ridge`` is added to the variances of x and y, so that points on a line still have a plane.
    """
    mean_x, mean_y, mean_z = ((weights * v).sum(-1, keepdim=True) for v in (x, y, z))
    dx, dy, dz = x - mean_x, y - mean_y, z - mean_z
    xx, yy = (weights * dx * dx).sum(-1) + ridge, (weights * dy * dy).sum(-1) + ridge
    xy, xz, yz = ((weights * v).sum(-1) for v in (dx * dy, dx * dz, dy * dz))
    a, b = _solved(xx, xy, yy, xz, yz)
    return a, b, (mean_z - a[..., None] * mean_x - b[..., None] * mean_y).squeeze(-1)


def heights(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Groups (..., K, 3) -> heights (..., K) above the group's own plane in the groups' unit, and its slopes (...)."""
    x, y, z = groups.unbind(-1)
    a, b, c = plane(x, y, z, torch.full_like(z, 1.0 / z.shape[-1]), ridge=0.01)
    return z - a[..., None] * x - b[..., None] * y - c[..., None], a, b


def point_measures(groups: Tensor) -> Tensor:
    """(..., K, 3) -> (..., K, POINT_MEASURES): what surrounds each point within its group.

    A plane is fitted to the group's points around each one, weighted by distance: its height there, its slopes (as they
    are, along and across the direction from the group's middle), and what noise is left above it.
    """
    above = 2.0 * GROUP_CELLS * heights(groups)[0]  # half cells
    x, y = (v - v.mean(-1, keepdim=True) for v in groups.unbind(-1)[:2])
    across, down = x[..., :, None] - x[..., None, :], y[..., :, None] - y[..., None, :]
    weights = torch.softmax((across * across + down * down) * (-0.5 * (GROUP_CELLS / _SMOOTHING) ** 2), dim=-1)
    moments = weights @ torch.stack(
        [x, y, above, x * x, x * y, y * y, x * above, y * above, above * above], dim=-1
    )  # fmt: skip
    mx, my, mh, xx, xy, yy, xh, yh, hh = moments.unbind(-1)
    ridge = 0.15 * (_SMOOTHING / GROUP_CELLS) ** 2
    cov_xh, cov_yh = xh - mx * mh, yh - my * mh
    a, b = _solved(xx - mx * mx + ridge, xy - mx * my, yy - my * my + ridge, cov_xh, cov_yh)
    smooth = mh + a * (x - mx) + b * (y - my)
    rough = torch.sqrt((hh - mh * mh - a * cov_xh - b * cov_yh).clamp_min(0) + _TINY)
    radius = torch.sqrt(x * x + y * y + 0.01)
    slope = torch.sqrt(a * a + b * b + _TINY)
    along, round_ = (a * x + b * y) / radius, (a * y - b * x) / radius
    turned = torch.sqrt(round_ * round_ + _TINY)
    return torch.stack(
        [
            smooth, _soft(smooth), slope, _soft(slope), along, _soft(along), _soft(turned), rough, _soft(rough),
            radius, _soft(above - smooth), a, _soft(a), b, _soft(b), x, y,
        ],
        dim=-1,
    )  # fmt: skip


def relief_measures(groups: Tensor, seen: Surroundings) -> Tensor:
    """(B, G, K, 3) -> (B, G, RELIEF_MEASURES): how a group's surface lies to the groups around it.

    For each reach a plane is fitted to the surrounding groups' mean points and one to each of their two slopes: the
    group's height above the first, how rough that plane and the slopes are, the bends (second derivatives, their sum
    and what does not depend on the axes), the group's own slope and roughness against its surroundings'. Then what the
    group is by itself: slopes, roughness, extent, where its middle lies.
    """
    above, a, b = heights(groups)
    rough = torch.sqrt((above * above).mean(-1) + 1e-6) * (4.0 * GROUP_CELLS)
    own = torch.stack([a, b, a * a + b * b, rough], dim=-1)
    rows: list[Tensor] = []
    for reach, weights in zip(REACHES, seen.weights, strict=True):
        x, y = seen.dx * (1.0 / reach), seen.dy * (1.0 / reach)
        wx, wy = weights * x, weights * y
        mx, my, mz = wx.sum(-1), wy.sum(-1), (weights * seen.dz).sum(-1)
        xx, yy = (wx * x).sum(-1) - mx * mx + 0.04, (wy * y).sum(-1) - my * my + 0.04
        xy = (wx * y).sum(-1) - mx * my
        pa, pb = _solved(xx, xy, yy, (wx * seen.dz).sum(-1) - mx * mz, (wy * seen.dz).sum(-1) - my * mz)
        height = pa * mx + pb * my - mz
        left = seen.dz - pa[..., None] * x - pb[..., None] * y + height[..., None]
        uneven = torch.sqrt((weights * left * left).sum(-1) + _TINY)
        mean = weights @ own
        mean_a, mean_b, mean_squares, mean_rough = mean.unbind(-1)
        (ax, bx), (ay, by) = ((w @ own[..., :2]).unbind(-1) for w in (wx, wy))
        axx, axy = _solved(xx, xy, yy, ax - mx * mean_a, ay - my * mean_a)
        bxx, bxy = _solved(xx, xy, yy, bx - mx * mean_b, by - my * mean_b)
        spread = torch.sqrt((mean_squares - mean_a * mean_a - mean_b * mean_b).clamp_min(0) + _TINY)
        twist = 0.5 * (axy + bxx)
        bend = torch.sqrt((axx - bxy) * (axx - bxy) + 4.0 * twist * twist + _TINY)
        rows += [
            2.0 * height, _soft(height), uneven, _soft(uneven), spread, _soft(spread),
            _soft(axx, 0.1), _soft(twist, 0.1), _soft(bxy, 0.1), _soft(axx + bxy, 0.1), _soft(bend, 0.1),
            _soft(a - pa / reach, 0.1), _soft(b - pb / reach, 0.1), mean_rough - rough,
        ]  # fmt: skip
    x, y = groups[..., 0], groups[..., 1]
    extent = torch.sqrt((x * x + y * y).mean(-1) + 1e-6)
    slope = torch.sqrt(a * a + b * b + _TINY)
    rows += [_soft(a, 0.3), _soft(b, 0.3), rough, _soft(rough, 1.0), extent, x.mean(-1), y.mean(-1), slope]
    return torch.stack(rows, dim=-1)


def _solved(xx: Tensor, xy: Tensor, yy: Tensor, xz: Tensor, yz: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes of a plane from the covariances."""
    determinant = xx * yy - xy * xy
    return (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant


def _soft(value: Tensor, knee: float = 0.2) -> Tensor:
    """The value in units of the knee where it is small, its sign where it is large."""
    return value / torch.sqrt(value * value + knee * knee)
