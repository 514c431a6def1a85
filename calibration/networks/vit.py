"""DINO ViT-B/8 at 224 px and DINOv2 ViT-S/14 at 392 px (lsfa 2.1): patch tokens of the chosen blocks, 28 x 28.

Parameter names are timm's; checkpoints of DINO, DINOv2 (same names), timm and Hugging Face are mapped to them.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from asperity.calibration.networks.blocks import Block


class PatchEmbed(nn.Module):
    """Non-overlapping patches -> vectors."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        patches: Tensor = self.proj(image).flatten(2).transpose(1, 2)
        return patches


class VisionTransformer(nn.Module):
    """(B, 3, I, I) normalised -> (B, (I / patch)^2, channels): row-major patch tokens of ``taps``, next to each other.

    ``depth``: blocks of the checkpoint. ``taps``: some of them in ascending order, from 0, or () for the last; those
    behind the last tap do not exist here. ``norm``: the tokens pass the checkpoint's final LayerNorm.
    The position table is held at the size of use (``load`` interpolates a checkpoint's); nothing is resized later.
    """

    def __init__(
        self, *, image_px: int, patch: int, width: int, depth: int, heads: int, layer_scale: bool,
        taps: tuple[int, ...] = (), norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if image_px % patch:
            raise ValueError(f"an image of {image_px} px is not a whole number of patches of {patch} px")
        self.grid = image_px // patch
        self.depth = depth
        self.taps = taps or (depth - 1,)
        self.widths = (width,) * len(self.taps)
        self.channels = sum(self.widths)
        self.patch_embed = PatchEmbed(patch, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid**2, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, qkv_bias=True, eps=1e-6, layer_scale=layer_scale) for _ in range(self.taps[-1] + 1)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6) if norm else nn.Identity()
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        tapped = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                tapped.append(self.norm(x[:, 1:]))
        return torch.cat(tapped, dim=2) if len(tapped) > 1 else tapped[0]

    def load(self, checkpoint: dict[str, Tensor]) -> None:
        """Load a checkpoint under any of the known names; what lies behind the last tap is left out.

        Raises RuntimeError naming missing or misfitting keys.
        """
        state = {key: value for key, value in vit_state(checkpoint).items() if not self._unused(key)}
        if "pos_embed" in state:
            state["pos_embed"] = resize_positions(state["pos_embed"], self.grid)
        self.load_state_dict(state)

    def _unused(self, key: str) -> bool:
        name, _, rest = key.partition(".")
        behind = name == "blocks" and len(self.blocks) <= int(rest.partition(".")[0]) < self.depth
        return behind or (name == "norm" and isinstance(self.norm, nn.Identity))


def dino_vitb8(taps: tuple[int, ...] = (), *, norm: bool = True) -> VisionTransformer:
    """The paper's RGB backbone; as published, the last of 12 blocks: 85.81 M parameters, 768 channels."""
    return VisionTransformer(
        image_px=224, patch=8, width=768, depth=12, heads=12, layer_scale=False, taps=taps, norm=norm
    )  # fmt: skip


def dinov2_vits14(taps: tuple[int, ...] = (), *, norm: bool = True) -> VisionTransformer:
    """`edge`: 392 / 14 = 28 patches a side, 384 channels a tap, LayerScale; 12 blocks."""
    return VisionTransformer(
        image_px=392, patch=14, width=384, depth=12, heads=6, layer_scale=True, taps=taps, norm=norm
    )  # fmt: skip


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """(1, 1 + n^2, width) -> (1, 1 + grid^2, width): bicubic, as DINO, DINOv2 and Hugging Face do."""
    side = math.isqrt(table.shape[1] - 1)
    if side**2 + 1 != table.shape[1]:
        raise ValueError(f"a position table of {table.shape[1]} rows is not a class token and a square grid")
    if side == grid:
        return table
    patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = functional.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], patches.permute(0, 2, 3, 1).reshape(1, grid**2, -1)], dim=1)


_HUGGING_FACE = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)
_IGNORED = re.compile(r"^(head|heads|fc_norm|pooler|classifier|decoder|embeddings\.mask_token|mask_token)(\.|$)")


def vit_state(checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DINO, DINOv2, timm or Hugging Face (ViTModel, Dinov2Model) state dict -> this module's names.

    Heads and mask tokens are dropped; query, key and value are joined.
    """
    state: dict[str, Tensor] = {}
    for name, value in checkpoint.items():
        key = re.sub(r"^(module\.|backbone\.|vit\.|dinov2\.|model\.)+", "", name)
        if _IGNORED.match(key):
            continue
        for old, new in _HUGGING_FACE:
            key = re.sub(old, new, key)
        state[key] = value
    for key in [key for key in state if ".attention.attention.query." in key]:
        parts = [state.pop(key.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        state[key.replace(".attention.attention.query.", ".attn.qkv.")] = torch.cat(parts)
    return state
