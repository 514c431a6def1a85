"""What a group of points says of the surface, worked out inside the encoder's graph: heights and relief.

A dent 0.2 cells deep is a fortieth of a group's extent; given raw coordinates, a network spends its training on finding
out that heights above the local plane are what matters. Only operators that every engine has are used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

POSITION_CELLS, GROUP_CELLS = 56.0, 4.0
"""Cells in one unit of the centres and of the groups (``calibration.profiles.network_for``, cloud of 112 cells)."""
HEIGHTS = 2
"""Values that ``with_heights`` adds to each point."""
_REACH = (0.12, 0.25)
"""Standard deviations of the surroundings that relief is measured against, in units of the centres: 7 and 14 cells."""
_RELIEF = 2 * len(_REACH) + 6
_SOFT = 0.04
"""u / sqrt(u^2 + this) is u stretched for small u, and its sign for large."""
_HEIGHT_UNIT = 8.0
"""Heights within a group are told in half cells: 4 cells a unit, times this."""


def plane(x: Tensor, y: Tensor, z: Tensor, weights: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """z = a x + b y + c by weighted least squares over the last axis; ``weights`` sum to 1. Shapes (..., K) -> (...).

    ``ridge`` is added to the variances of x and y, so that points on a line still have a plane.
    """
    mean_x, mean_y, mean_z = ((weights * v).sum(-1, keepdim=True) for v in (x, y, z))
    dx, dy, dz = x - mean_x, y - mean_y, z - mean_z
    xx, yy = (weights * dx * dx).sum(-1) + ridge, (weights * dy * dy).sum(-1) + ridge
    xy, xz, yz = ((weights * v).sum(-1) for v in (dx * dy, dx * dz, dy * dz))
    determinant = xx * yy - xy * xy
    a, b = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    return a, b, (mean_z - a[..., None] * mean_x - b[..., None] * mean_y).squeeze(-1)


def heights(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Groups (..., K, 3) -> heights (..., K) above the group's own plane in the groups' unit, and its slopes (...)."""
    x, y, z = groups.unbind(-1)
    a, b, c = plane(x, y, z, torch.full_like(z, 1.0 / z.shape[-1]), ridge=0.01)
    return z - a[..., None] * x - b[..., None] * y - c[..., None], a, b


def with_heights(groups: Tensor) -> Tensor:
    """(..., K, 3) -> (..., K, 5): each point with its height above the plane, enlarged, and the same compressed."""
    above = _HEIGHT_UNIT * heights(groups)[0]
    return torch.cat([groups, above[..., None], _compressed(above)[..., None]], dim=-1)


class Relief(nn.Module):
    """How a group's surface lies to the groups around it: what its own 32 points cannot tell of a wide, low bump."""

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(_RELIEF, hidden), nn.Linear(hidden, width)

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        """(B, G, K, 3) and (B, G, 3) -> (B, G, width), to be added to the groups' vectors."""
        token: Tensor = self.fc2(nn.functional.gelu(self.fc1(self.measured(groups, centres))))
        return token

    def measured(self, groups: Tensor, centres: Tensor) -> Tensor:
        """(B, G, 10): height above the surroundings' plane (two reaches, plain and compressed), and of the group itself
        its slopes, roughness, extent and mean offset."""
        means = groups.mean(dim=-2) * (GROUP_CELLS / POSITION_CELLS) + centres
        # Differences first: coordinates squared would lose a height of a hundredth of a cell in half precision.
        dx, dy, dz = (means[:, None, :, :] - means[:, :, None, :]).unbind(-1)
        squared = dx * dx + dy * dy + dz * dz
        rows = []
        for reach in _REACH:
            weights = torch.softmax(squared * (-0.5 / reach**2), dim=-1)
            _, _, c = plane(dx / reach, dy / reach, dz / reach, weights, ridge=0.02)
            height = c * (-reach * POSITION_CELLS)
            rows += [2.0 * height, _compressed(height)]
        above, a, b = heights(groups)
        x, y = groups[..., 0], groups[..., 1]
        roughness = torch.sqrt((above * above).mean(-1) + 1e-6) * (2.0 * _HEIGHT_UNIT)
        extent = torch.sqrt((x * x + y * y).mean(-1) + 1e-6)
        return torch.stack([*rows, a, b, roughness, extent, x.mean(-1), y.mean(-1)], dim=-1)


def _compressed(value: Tensor) -> Tensor:
    return value / torch.sqrt(value * value + _SOFT)
