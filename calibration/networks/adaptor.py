"""The adaptors that LSFA trains: one transformer encoder layer a modality (lsfa 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asperity.calibration.networks.blocks import Block
from asperity.calibration.profiles import Profile


class Adaptor(nn.Module):
    """tokens -> adapted tokens: no positions, no mask, no dropout; default initialisation (lsfa 3).

    ``identity_start`` zero-initialises both output projections, so that training begins at the frozen features
    (lsfa 11 "Start": this project's own idea).
    """

    def __init__(self, width: int, heads: int, inner: int, *, mlp_ratio: int = 4, identity_start: bool = False) -> None:
        super().__init__()
        self.block = Block(width, heads, inner=inner, mlp_ratio=mlp_ratio)
        if identity_start:
            for linear in (self.block.attn.proj, self.block.mlp.fc2):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor, counts: Tensor | None = None) -> Tensor:
        """``tokens`` (B, S, width); ``counts`` (B, S) > 0: how many equal tokens each one stands for.

        A key that stands for n tokens gets the bias log n, which is the same function as n copies (lsfa 10.2 item 2).
        """
        adapted: Tensor = self.block(tokens, None if counts is None else torch.log(counts))
        return adapted


def new_adaptors(profile: Profile, *, identity_start: bool = False) -> tuple[Adaptor, Adaptor]:
    """(RGB adaptor, point adaptor) of a profile's widths, freshly initialised from torch's random state."""

    def made(width: int, heads: int, inner: int) -> Adaptor:
        return Adaptor(width, heads, inner, mlp_ratio=profile.mlp_ratio, identity_start=identity_start)

    return (
        made(profile.rgb_channels, profile.rgb_heads, profile.rgb_inner),
        made(profile.points_channels, profile.points_heads, profile.points_inner),
    )
