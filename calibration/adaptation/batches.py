"""Mini-batches of cached patches as the losses take them, and features divided by their own spread."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from asperity.calibration.features.patches import PatchSet


@dataclass(frozen=True, slots=True)
class Batch:
    """Patches of a few images as the losses take them: no empty patch, no RGB token twice."""

    rgb: Tensor  # B x rgb_grid^2 x C
    points: Tensor  # B x S x Cp: non-empty patches first, then zero tokens
    counts: Tensor  # B x S: how many patches each slot stands for (lsfa 11 "Static shapes")
    filled: Tensor  # B x S bool: slots that hold a non-empty patch
    parents: Tensor  # (n,) RGB token of each non-empty patch, in the order of points[filled], counted over the batch
    images: Tensor  # (n,) image of each non-empty patch


def make_batch(patches: PatchSet, indices: np.ndarray[tuple[int], np.dtype[np.int64]], device: str = "cpu") -> Batch:
    """Gather the images at ``indices``. Empty patches are merged: S is one more than the largest number of non-empty
    ones, and each spare slot holds a zero token that counts for its share of the empty patches."""
    total = patches.grid**2
    tokens = patches.rgb_grid**2
    nonempty = patches.nonempty[indices].reshape(len(indices), total)
    filled_counts = nonempty.sum(1)
    slots = min(total, int(filled_counts.max()) + 1)
    filled = np.arange(slots)[None, :] < filled_counts[:, None]
    image, patch = np.nonzero(nonempty)
    points = np.zeros((len(indices), slots, patches.features["points"].shape[2]), np.float32)
    points[filled] = patches.features["points"][indices[image], patch]
    spare = np.maximum(slots - filled_counts, 1)
    counts = np.where(filled, 1.0, ((total - filled_counts) / spare)[:, None]).astype(np.float32)
    return Batch(
        rgb=torch.from_numpy(patches.features["rgb"][indices]).to(device),
        points=torch.from_numpy(points).to(device),
        counts=torch.from_numpy(counts).to(device),
        filled=torch.from_numpy(filled).to(device),
        parents=torch.from_numpy(image * tokens + patches.parents()[patch]).to(device),
        images=torch.from_numpy(image).to(device),
    )


def feature_scales(patches: PatchSet) -> tuple[float, float]:
    """(RGB, points): standard deviation of all entries of all tokens, and of all non-empty patches."""
    filled = patches.nonempty.reshape(len(patches), -1)
    rgb, points = patches.features["rgb"], patches.features["points"]
    return float(rgb.std(dtype=np.float64)), float(points[filled].std(dtype=np.float64))


def scaled(batch: Batch, rgb: float, points: float) -> Batch:
    """The batch with its features divided by so much."""
    return replace(batch, rgb=batch.rgb / rgb, points=batch.points / points)


def unscaled(state: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights of the adaptor of plain features, from those of features divided by ``scale``: each branch sees them
    through a LayerNorm, so only what it adds is multiplied."""
    added = ("block.attn.proj.", "block.mlp.fc2.")
    return {name: value * scale if name.startswith(added) else value for name, value in state.items()}
