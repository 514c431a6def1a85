"""What each token must predict while the point encoder is trained: the noiseless surface of its own group.

Its slope, and 5 x 5 heights about that slope, one cell apart. Heights pass through asinh(h / 0.1 cell), so that a faint
bump counts beside a step.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from asperity.runtime.frame import FloatArray

_REACH = 2
"""The clean surface is given on a square of 2 * 2 + 1 cells a side."""
_SIDE = 2 * _REACH + 1
TARGETS = 2 + _SIDE**2
_HEIGHT_UNIT = 0.1  # cells
_SLOPE_UNIT = 0.2
_MIN_KNOWN = 15
"""A group with fewer known cells of those 25 has no target."""


def surface_targets(clean: NDArray[np.float64], pixels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """The noiseless surface about each pixel: (n, TARGETS) and its mask.

    A plane is fitted to the square's known heights; told are its slope, asinh(s / 0.2), and the heights above it,
    asinh(h / 0.1 cell).
    """
    padded = np.pad(clean, _REACH, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_SIDE, _SIDE))
    heights = windows[pixels // clean.shape[1], pixels % clean.shape[1]].reshape(len(pixels), -1)
    valid = np.isfinite(heights)
    enough = valid.sum(axis=1) >= _MIN_KNOWN
    offset = np.arange(-_REACH, _REACH + 1, dtype=np.float64)
    y, x = (axis.ravel() for axis in np.meshgrid(offset, offset, indexing="ij"))
    design = np.stack([x, y, np.ones_like(x)], axis=1)
    weighted = valid[:, :, None] * design
    normal = np.einsum("nki,kj->nij", weighted, design) + 1e-9 * np.eye(3)
    right = np.einsum("nki,nk->ni", weighted, np.where(valid, heights, 0.0))
    plane = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    above = np.where(valid, heights - plane @ design.T, 0.0)
    target = np.concatenate([np.arcsinh(plane[:, :2] / _SLOPE_UNIT), np.arcsinh(above / _HEIGHT_UNIT)], axis=1)
    mask = np.concatenate([np.ones((len(pixels), 2), dtype=bool), valid], axis=1) & enough[:, None]
    return (target * mask).astype(np.float32), mask.astype(np.float32)


def surface_loss(told: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Smooth absolute error over the known targets."""
    error = functional.smooth_l1_loss(told, target, beta=0.5, reduction="none")
    return (error * known).sum() / known.sum().clamp_min(1.0)


def turned(batch: dict[str, Tensor], transpose: bool, flip_x: bool, flip_y: bool) -> dict[str, Tensor]:
    """The batch mirrored and turned by quarters: one cloud gives eight."""
    groups, centres = batch["groups"].clone(), batch["centres"].clone()
    surface, known = batch["surface"].clone(), batch["known"].clone()
    square = (*surface.shape[:-1], _SIDE, _SIDE)
    slopes, heights, mask = surface[..., :2], surface[..., 2:].reshape(square), known[..., 2:].reshape(square)
    for axis, (flip, dim) in enumerate(((flip_x, -1), (flip_y, -2))):
        if flip:
            groups[..., axis].neg_()
            centres[..., axis].neg_()
            slopes[..., axis].neg_()
            heights, mask = heights.flip(dim), mask.flip(dim)
    if transpose:
        groups, centres = groups[..., [1, 0, 2]], centres[..., [1, 0, 2]]
        slopes, heights, mask = slopes[..., [1, 0]], heights.transpose(-1, -2), mask.transpose(-1, -2)
    return {
        "groups": groups, "centres": centres,
        "surface": torch.cat([slopes, heights.flatten(-2)], dim=-1),
        "known": torch.cat([known[..., :2], mask.flatten(-2)], dim=-1),
    }  # fmt: skip
