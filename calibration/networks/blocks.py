"""The pre-norm transformer block that the ViTs, the point encoders and the adaptors share (lsfa 2.1, 2.2, 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention of any inner width: ``heads`` must divide ``inner``."""

    def __init__(self, width: int, heads: int, inner: int, qkv_bias: bool) -> None:
        super().__init__()
        if inner % heads:
            raise ValueError(f"{heads} heads do not divide the inner width {inner}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * inner, bias=qkv_bias)
        self.proj = nn.Linear(inner, width)

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """``x`` (B, S, width); ``key_bias`` (B, S) is added to every query's logits before the softmax."""
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if key_bias is None else key_bias[:, None, None, :].expand(-1, -1, tokens, -1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))
        return out


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """One learned factor per channel (DINOv2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + MHSA(LN(x)), then x + MLP(LN(x)). Names of parameters are timm's."""

    def __init__(
        self, width: int, heads: int, *, inner: int | None = None, mlp_ratio: int = 4, qkv_bias: bool = False,
        eps: float = 1e-5, layer_scale: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, inner or width, qkv_bias)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_ratio * width)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """(B, S, width) -> the same shape; ``key_bias`` as in ``Attention``."""
        x = x + self.ls1(self.attn(self.norm1(x), key_bias))
        x = x + self.ls2(self.mlp(self.norm2(x)))
        return x
