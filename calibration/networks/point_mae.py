"""The Point-MAE encoder (lsfa 2.2) at any size: mini-PointNet a group, transformer over groups, taps through one norm.

The published one is 1024 groups x 128 points, 12 blocks x 384, taps 3, 7, 11 (1152 channels, 21.83 M parameters).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asperity.calibration.networks.blocks import Block

PointBn = Literal["batch", "running", "station"]


class MiniPointNet(nn.Module):
    """Points of a group -> one vector (lsfa 2.2 item 3): two shared MLPs, each followed by a max over the points.

    ``first`` = (a, b): 3 -> a -> b; ``second`` = (c, d): 2b -> c -> d.
    """

    def __init__(self, first: tuple[int, int], second: tuple[int, int], point_bn: PointBn) -> None:
        super().__init__()
        (a, b), (c, d) = first, second
        self.linear1, self.bn1, self.linear2 = nn.Linear(3, a), nn.BatchNorm1d(a), nn.Linear(a, b)
        self.linear3, self.bn2, self.linear4 = nn.Linear(2 * b, c), nn.BatchNorm1d(c), nn.Linear(c, d)
        self.point_bn: PointBn = point_bn
        self.folded = False

    def forward(self, groups: Tensor) -> Tensor:
        """(B, G, K, 3) -> (B, G, d). The pooled half of the concat layer comes once a group (lsfa 10.2 item 3)."""
        local = self.linear2(functional.relu(self._normalise(self.bn1, self.linear1(groups))))
        pooled = local.amax(dim=2)
        weight, half = self.linear3.weight, local.shape[-1]
        hidden = functional.linear(local, weight[:, half:])
        hidden = hidden + functional.linear(pooled, weight[:, :half], self.linear3.bias)[:, :, None]
        hidden = self.linear4(functional.relu(self._normalise(self.bn2, hidden)))
        token: Tensor = hidden.amax(dim=2)
        return token

    def forward_plain(self, groups: Tensor) -> Tensor:
        """The published form, with the concatenation written out: the oracle of ``forward``."""
        local = self.linear2(functional.relu(self._normalise(self.bn1, self.linear1(groups))))
        pooled = local.amax(dim=2, keepdim=True).expand_as(local)
        hidden = self.linear3(torch.cat([pooled, local], dim=-1))
        hidden = self.linear4(functional.relu(self._normalise(self.bn2, hidden)))
        token: Tensor = hidden.amax(dim=2)
        return token

    def _normalise(self, bn: nn.BatchNorm1d, x: Tensor) -> Tensor:
        if self.folded:
            return x
        if self.training:
            normalised: Tensor = bn(x.reshape(-1, x.shape[-1])).reshape(x.shape)
            return normalised
        if self.point_bn == "batch":
            # Statistics of one sample, as M3DM has them: it never leaves training mode and runs with batch 1.
            mean = x.mean(dim=(1, 2), keepdim=True)
            variance = (x - mean).square().mean(dim=(1, 2), keepdim=True)
        else:
            mean, variance = _buffer(bn.running_mean), _buffer(bn.running_var)
        scale = bn.weight * torch.rsqrt(variance + bn.eps)
        return x * scale + (bn.bias - mean * scale)

    @torch.no_grad()
    def fit_statistics(self, frames: Sequence[Tensor]) -> None:
        """Take both BatchNorms' statistics from a station's normal frames, each (G, K, 3) (lsfa 11 row 17).

        The second layer's statistics depend on the first's, so the frames are gone through twice.
        """
        if not frames:
            raise ValueError("no frames to take BatchNorm statistics from")
        _set(self.bn1, [_moments(self.linear1(groups)) for groups in frames])
        moments = []
        for groups in frames:
            local = self.linear2(functional.relu(_apply(self.bn1, self.linear1(groups))))
            pooled = local.amax(dim=1, keepdim=True).expand_as(local)
            moments.append(_moments(self.linear3(torch.cat([pooled, local], dim=-1))))
        _set(self.bn2, moments)

    @torch.no_grad()
    def fold(self) -> None:
        """Put both BatchNorms into the linear layer before them, leaving identities: same function, for export."""
        if self.point_bn == "batch":
            raise ValueError("point_bn = batch has no fixed statistics to fold")
        for linear, bn in ((self.linear1, self.bn1), (self.linear3, self.bn2)):
            scale = bn.weight * torch.rsqrt(_buffer(bn.running_var) + bn.eps)
            linear.bias.copy_((linear.bias - _buffer(bn.running_mean)) * scale + bn.bias)
            linear.weight.mul_(scale[:, None])
        self.folded = True


class PointEncoder(nn.Module):
    """Groups and their centres -> one token a group; attention over all groups of a frame."""

    def __init__(
        self, *, first: tuple[int, int], second: tuple[int, int], depth: int, heads: int, taps: tuple[int, ...],
        position_hidden: int = 128, point_bn: PointBn = "running",
    ) -> None:  # fmt: skip
        super().__init__()
        width = second[1]
        self.encoder = MiniPointNet(first, second, point_bn)
        self.pos_embed = nn.Sequential(nn.Linear(3, position_hidden), nn.GELU(), nn.Linear(position_hidden, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.taps = taps
        self.width = width
        self.apply(_initialise)

    @property
    def channels(self) -> int:
        """Channels of a token."""
        return len(self.taps) * self.width

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        """``groups`` (B, G, K, 3) relative to their centres, ``centres`` (B, G, 3) -> tokens (B, G, channels)."""
        return torch.cat([self.norm(tap) for tap in self.hidden(self.encoder(groups), centres)], dim=-1)

    def hidden(self, x: Tensor, centres: Tensor) -> list[Tensor]:
        """Outputs of the tapped blocks, before the norm; the position is added again before every block."""
        position = self.pos_embed(centres)
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x + position)
            if index in self.taps:
                kept.append(x)
        return kept


def point_mae(point_bn: PointBn) -> PointEncoder:
    """The published encoder: 21.83 M parameters, 1152 channels (lsfa 2.2)."""
    return PointEncoder(first=(128, 256), second=(512, 384), depth=12, heads=6, taps=(3, 7, 11), point_bn=point_bn)


def point_mae_state(checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the official checkpoint's ``base_model`` -> names of ``PointEncoder``; other parts are left out."""
    names = {
        "encoder.first_conv.0": "encoder.linear1", "encoder.first_conv.1": "encoder.bn1",
        "encoder.first_conv.3": "encoder.linear2", "encoder.second_conv.0": "encoder.linear3",
        "encoder.second_conv.1": "encoder.bn2", "encoder.second_conv.3": "encoder.linear4",
        "blocks.blocks": "blocks",
    }  # fmt: skip
    state = {}
    for name, value in checkpoint.items():
        key = name.removeprefix("module.")
        if not key.startswith("MAE_encoder."):
            continue
        key = key.removeprefix("MAE_encoder.")
        for old, new in names.items():
            if key.startswith(old + "."):
                key = new + key[len(old) :]
                break
        # Convolutions of width 1 are linear layers.
        state[key] = value.squeeze(-1) if value.ndim == 3 else value
    return state


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _buffer(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("BatchNorm without running statistics")
    return value


def _apply(bn: nn.BatchNorm1d, x: Tensor) -> Tensor:
    return (x - _buffer(bn.running_mean)) * torch.rsqrt(_buffer(bn.running_var) + bn.eps) * bn.weight + bn.bias


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.reshape(-1, x.shape[-1]).double()
    return flat.mean(dim=0), flat.var(dim=0, unbiased=False)


def _set(bn: nn.BatchNorm1d, moments: list[tuple[Tensor, Tensor]]) -> None:
    """Pool the frames' statistics, each frame counting the same: mean of variances + variance of means."""
    means = torch.stack([mean for mean, _ in moments])
    variances = torch.stack([variance for _, variance in moments])
    _buffer(bn.running_mean).copy_(means.mean(dim=0))
    _buffer(bn.running_var).copy_(variances.mean(dim=0) + means.var(dim=0, unbiased=False))
