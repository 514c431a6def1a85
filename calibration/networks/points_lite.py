"""The small point encoder of `lite` and `edge`: measures of the surface, a few learned layers, no attention.

Point-MAE's form (``point_mae``) leaves it to training to find out what a surface is and which groups lie near each
other. Here both are given: the layers see measures of the surface (``surface``), and groups exchange features
through fixed weights of their distance. A group does not know where in the part it lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from asperity.calibration.networks.surface import (
    POINT_MEASURES,
    REACHES,
    RELIEF_MEASURES,
    Surroundings,
    point_measures,
    relief_measures,
    surroundings,
)

HEARING = REACHES[:2]
"""By whose weights groups hear from each other; each also by x and y."""


class Standardise(nn.Module):
    """(x - mean) * scale by channel, with statistics taken once."""

    running_mean: Tensor
    running_scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_scale", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) * self.running_scale

    def fit(self, rows: Tensor) -> None:
        """Take the statistics of rows (n, C)."""
        self.running_mean.copy_(rows.mean(dim=0))
        self.running_scale.copy_(1.0 / (rows.std(dim=0) + 1e-3))


class GroupLayers(nn.Module):
    """Measures of a group's points -> one vector: a shared MLP, mean and maximum over the points, another MLP.

    The mean matters: which 32 points a group happens to hold changes a maximum more than a faint dent does.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.measures, self.pooled = Standardise(POINT_MEASURES), Standardise(4 * hidden)
        self.linear1, self.linear2 = nn.Linear(POINT_MEASURES, hidden), nn.Linear(hidden, 2 * hidden)
        self.linear3, self.linear4 = nn.Linear(4 * hidden, width), nn.Linear(width, width)

    def pool(self, measures: Tensor) -> Tensor:
        """(..., K, POINT_MEASURES) -> (..., 4 hidden)."""
        hidden = functional.relu(self.linear2(functional.relu(self.linear1(self.measures(measures)))))
        return torch.cat([hidden.mean(dim=-2), hidden.amax(dim=-2)], dim=-1)

    def forward(self, measures: Tensor) -> Tensor:
        """(..., K, POINT_MEASURES) -> (..., width)."""
        token: Tensor = self.linear4(functional.gelu(self.linear3(self.pooled(self.pool(measures)))))
        return token


class ReliefLayers(nn.Module):
    """Measures of a group against its surroundings -> one vector."""

    def __init__(self, width: int, hidden: int = 96) -> None:
        super().__init__()
        self.measures = Standardise(RELIEF_MEASURES)
        self.linear1, self.linear2 = nn.Linear(RELIEF_MEASURES, hidden), nn.Linear(hidden, width)

    def forward(self, measures: Tensor) -> Tensor:
        """(..., RELIEF_MEASURES) -> (..., width)."""
        token: Tensor = self.linear2(functional.gelu(self.linear1(self.measures(measures))))
        return token


class HearingBlock(nn.Module):
    """x + MLP of the group's own vector and of what it hears from around."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width * (1 + 3 * len(HEARING)), hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, kernels: list[Tensor]) -> Tensor:
        """``x`` (B, G, width), ``kernels`` (B, G, G) each -> (B, G, width)."""
        own = self.norm(x)
        heard = torch.cat([own, *(kernel @ own for kernel in kernels)], dim=-1)
        out: Tensor = x + self.linear2(functional.gelu(self.linear1(heard)))
        return out


class PointsLite(nn.Module):
    """Groups and their centres -> one token a group: ``taps`` say after how many blocks a token is taken."""

    def __init__(
        self, *, width: int = 192, hidden: int = 256, depth: int = 3, taps: tuple[int, ...] = (1, 3), points: int = 32
    ) -> None:
        super().__init__()
        self.groups, self.relief = GroupLayers(width, points), ReliefLayers(width)
        blocks = [HearingBlock(width, hidden) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.taps = taps
        self.width = width
        self.apply(_initialise)
        for block in blocks:
            nn.init.normal_(block.linear2.weight, std=0.02)
            nn.init.zeros_(block.linear2.bias)

    @property
    def channels(self) -> int:
        """Channels of a token."""
        return len(self.taps) * self.width

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        """``groups`` (B, G, K, 3) relative to their centres, ``centres`` (B, G, 3) -> tokens (B, G, channels).

        Measures are taken in the inputs' precision, layers run in that of the weights.
        """
        of_points, relief, seen = measured(groups, centres)
        dtype = self.norm.weight.dtype
        x = self.groups(of_points.to(dtype)) + self.relief(relief.to(dtype))
        kernels = [kernel.to(dtype) for kernel in _kernels(seen)]
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1], kernels))
        return torch.cat([self.norm(states[tap]) for tap in self.taps], dim=-1)

    @torch.no_grad()
    def fit_statistics(self, frames: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take the statistics of the measures from frames, each groups (G, K, 3) and centres (G, 3)."""
        if not frames:
            raise ValueError("no frames to take statistics from")
        found = [measured(groups[None], centres[None]) for groups, centres in frames]
        self.groups.measures.fit(torch.cat([f[0].flatten(0, -2) for f in found]))
        self.groups.pooled.fit(torch.cat([self.groups.pool(f[0]).flatten(0, -2) for f in found]))
        self.relief.measures.fit(torch.cat([f[1].flatten(0, -2) for f in found]))


def measured(groups: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Surroundings]:
    """``point_measures``, ``relief_measures`` and the surroundings, in full precision whatever the layers run in."""
    with torch.autocast(groups.device.type, enabled=False):
        seen = surroundings(groups, centres)
        return point_measures(groups), relief_measures(groups, seen), seen


def _kernels(seen: Surroundings) -> list[Tensor]:
    kernels = []
    for reach, weights in zip(HEARING, seen.weights, strict=False):
        kernels += [weights, weights * (seen.dx / reach), weights * (seen.dy / reach)]
    return kernels


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        nn.init.normal_(module.bias, std=0.3)
