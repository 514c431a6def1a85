"""Adaptors trained on views of the fit frames: whitened features, places instead of positions, spoiled tokens apart.

Per modality, with x an adapted token of unit scale:

    view       distance to the token of the same place in another view of the frame (its gradient stopped)
    place      distance to the nearest token within REACH cells of the place in another frame (likewise)
    margin     max(0, m - distance of a spoiled token to its nearest normal one), m a multiple of the frozen normal one

and between the modalities InfoNCE, without the negatives that show the same place of another frame or whose frozen
features agree to SAME in either modality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asperity.calibration.adaptation.batches import make_batch
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.networks.adaptor import Adaptor, new_adaptors
from asperity.calibration.profiles import Profile
from asperity.runtime.frame import BoolArray, FloatArray

SHRINKAGE = 0.1
SAME = 0.9


@dataclass(frozen=True)
class ViewsConfig:
    """Choices of the training."""

    alignment: float = 0.5
    view: float = 1.0
    place: float = 1.0
    margin: float = 1.0
    margin_at: float = 2.0
    temperature: float = 0.2
    reach: float = 2.5
    frames: int = 3
    steps: int = 30
    learning_rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Whitening:
    """Tokens of both modalities, whitened and of length sqrt(channels); zero where empty."""

    rgb: tuple[FloatArray, FloatArray]  # mean (C,), matrix (C, C)
    points: tuple[FloatArray, FloatArray]

    def __call__(self, patches: PatchSet) -> PatchSet:
        filled = patches.nonempty.reshape(*patches.features["points"].shape[:2], 1)
        rgb, points = patches.features["rgb"], patches.features["points"]
        return PatchSet(
            {"rgb": _white(rgb, *self.rgb), "points": _white(points, *self.points) * filled}, patches.nonempty
        )


def _white(tokens: FloatArray, mean: FloatArray, matrix: FloatArray) -> FloatArray:
    found = (tokens - mean) @ matrix
    length = np.sqrt(np.einsum("nsc,nsc->ns", found, found))[:, :, None]
    return np.asarray(found * (math.sqrt(tokens.shape[2]) / np.maximum(length, 1e-6)), dtype=np.float32)


def fit_whitening(patches: PatchSet) -> Whitening:
    """PCA whitening with shrinkage, from the tokens that are scored."""
    filled = patches.nonempty.reshape(len(patches), -1)

    def of(tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean = tokens.mean(axis=0, dtype=np.float64)
        centred = tokens - mean.astype(np.float32)
        values, vectors = np.linalg.eigh((centred.T @ centred / len(tokens)).astype(np.float64))
        shrunk = (1 - SHRINKAGE) * np.maximum(values, 0) + SHRINKAGE * values.mean()
        return mean.astype(np.float32), ((vectors / np.sqrt(shrunk)) @ vectors.T).astype(np.float32)

    return Whitening(of(patches.features["rgb"][filled]), of(patches.features["points"][filled]))


@dataclass(frozen=True, slots=True)
class ViewSet:
    """n whitened fit frames, their views in order, and spoiled copies: of each frame one of either kind."""

    frames: PatchSet
    views: PatchSet
    cells: FloatArray  # views x grid^2 x 2
    lattice: PatchSet  # 2 n: geometry (even), colour (odd)
    defective: BoolArray  # 2 n x grid x grid


class _Step:
    """One batch: two shots of each chosen frame, and two spoiled frames, through both adaptors."""

    def __init__(self, shown: ViewSet, config: ViewsConfig, number: int) -> None:
        rng = np.random.default_rng([config.seed, number])
        count, per = len(shown.frames), len(shown.views) // len(shown.frames)
        grid = shown.frames.grid
        own = np.stack(np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij"), -1).reshape(-1, 2)
        shots: list[tuple[PatchSet, int]] = []
        places: list[NDArray[Any]] = []
        owners: list[int] = []
        for frame in rng.permutation(count)[: int(config.frames)]:
            for shot in rng.permutation(per + 1)[:2]:
                plain = shot == per
                shots.append((shown.frames, int(frame)) if plain else (shown.views, int(frame * per + shot)))
                places.append(own if plain else shown.cells[frame * per + shot])
                owners.append(int(frame))
        spoiled = [2 * int(rng.integers(count)), 2 * int(rng.integers(count)) + 1]
        shots += [(shown.lattice, i) for i in spoiled]
        joined = PatchSet(
            {name: np.stack([of.features[name][i] for of, i in shots]) for name in shown.frames.features},
            np.stack([of.nonempty[i] for of, i in shots]),
        )  # fmt: skip
        self.batch = make_batch(joined, np.arange(len(shots)))
        self.good = 2 * int(config.frames)
        filled = joined.nonempty.reshape(len(shots), -1)
        image, patch = np.nonzero(filled)
        self.image = torch.from_numpy(image)
        normal = image < self.good
        self.normal = torch.from_numpy(normal)
        place = np.stack(places)[image[normal], patch[normal]].astype(np.float32)
        self.owner = torch.tensor(owners)[self.image[self.normal]]
        self.shot = self.image[self.normal]
        self.apart = torch.cdist(torch.from_numpy(place), torch.from_numpy(place))
        defective = shown.defective[spoiled].reshape(2, -1)
        self.spoiled = [
            torch.from_numpy((image == self.good + kind) & defective[kind][patch]) for kind in range(2)
        ]  # geometry, colour


def adapt_views(shown: ViewSet, profile: Profile, config: ViewsConfig) -> tuple[Adaptor, Adaptor]:
    """Train the adaptors. Equal seeds give equal results."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        adaptors = dict(zip(("rgb", "points"), new_adaptors(profile, identity_start=True), strict=True))
        width = min(profile.rgb_channels, profile.points_channels)
        heads = {"rgb": nn.Linear(profile.rgb_channels, width), "points": nn.Linear(profile.points_channels, width)}
    trained = nn.ModuleList([*adaptors.values(), *heads.values()])
    optimiser = torch.optim.AdamW(trained.parameters(), lr=config.learning_rate, betas=(0.9, 0.95))
    scale: dict[str, float] = {}
    for number in range(int(config.steps)):
        step = _Step(shown, config, number)
        warm = min(1.0, (number + 1) / (0.1 * config.steps + 1))
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * number / config.steps))
        loss = _loss(step, adaptors, heads, scale, config)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return adaptors["rgb"].eval(), adaptors["points"].eval()


def _loss(
    step: _Step, adaptors: dict[str, Adaptor], heads: dict[str, nn.Linear], scale: dict[str, float], config: ViewsConfig
) -> Tensor:
    batch = step.batch
    rgb = adaptors["rgb"](batch.rgb)
    adapted = {
        "rgb": rgb.reshape(-1, rgb.shape[2])[batch.parents],
        "points": adaptors["points"](batch.points, batch.counts)[batch.filled],
    }
    frozen = {"rgb": batch.rgb.reshape(-1, rgb.shape[2])[batch.parents], "points": batch.points[batch.filled]}
    other = step.owner[:, None] != step.owner[None, :]
    near = step.apart < config.reach
    twin = (step.shot[:, None] != step.shot[None, :]) & ~other & (step.apart < 0.75)
    total = torch.zeros(())
    for kind, name in enumerate(("points", "rgb")):
        features = adapted[name] / math.sqrt(adapted[name].shape[1])
        tokens = features[step.normal]
        with torch.no_grad():
            between = torch.cdist(tokens, tokens)
            beside = between.masked_fill(~(other & near), math.inf)
            nearest, at = beside.min(1)
            found = nearest.isfinite()
            closest, twins = step.apart.masked_fill(~twin, math.inf).min(1)
            paired = closest.isfinite()
            if name not in scale:
                scale[name] = float(nearest[found].mean())
        target = tokens.detach()
        unit = 1.0 / scale[name]
        if config.place:
            total = total + config.place * unit * _length(tokens[found] - target[at[found]]).mean()
        if config.view:
            total = total + config.view * unit * _length(tokens[paired] - target[twins[paired]]).mean()
        bad = features[step.spoiled[kind]]
        if config.margin and len(bad):
            with torch.no_grad():
                row = torch.cdist(bad, target).argmin(1)
            short = F.relu(config.margin_at - unit * _length(bad - tokens[row]))
            total = total + config.margin * short.mean()
    if config.alignment:
        with torch.no_grad():
            same = other & near
            for name in ("rgb", "points"):
                unit_rows = F.normalize(frozen[name][step.normal], dim=1)
                same |= (unit_rows @ unit_rows.T) > SAME
            same.fill_diagonal_(False)
        q = F.normalize(heads["rgb"](adapted["rgb"][step.normal]), dim=1)
        k = F.normalize(heads["points"](adapted["points"][step.normal]), dim=1)
        logits = (q @ k.T / config.temperature).masked_fill(same, -math.inf)
        each = torch.arange(len(q))
        aligned = F.cross_entropy(logits, each) + F.cross_entropy(logits.T, each)
        total = total + config.alignment * config.temperature * aligned
    return total


def _length(difference: Tensor) -> Tensor:
    return difference.square().sum(1).clamp_min(1e-12).sqrt()
