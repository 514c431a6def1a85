"""Train the small point encoder `points_lite` on procedurally made clouds, in minutes on one CPU core.

Three objectives, added:

* Masked groups, as Point-MAE (lsfa 2.2) has it: 60 % of the groups are hidden, and a small decoder must put their
  points back from the visible ones (Chamfer distance).
* Clean surface: each visible token must tell, through one linear layer, the noiseless surface of its own group: its
  slope and 5 x 5 heights about that slope, one cell apart. Masked prediction alone rewards what can be guessed from the
  neighbourhood; a bump is what cannot. The heights pass through asinh(h / 0.1 cell): a faint bump counts beside a step.
* Metric: two tokens must lie as far apart as their surfaces differ. Scoring is by nearest neighbour, which sees tokens
  through their distances alone; a surface that could be read off a token, but hardly moves it, would not be found.

On most steps nothing is hidden, since at inference nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.networks.blocks import Block
from calibration.networks.point_mae import PointEncoder, points_lite
from calibration.procedural import CLOUD_PX, Instance, any_pose, make_product, render
from calibration.profiles import network_for, profile
from runtime.frame import FloatArray
from runtime.manifest import Geometry, Network
from runtime.points import farthest_points, nearest_neighbours, valid_points

_REACH = 2
"""The clean surface is told on a square of 2 * 2 + 1 cells a side."""
_SIDE = 2 * _REACH + 1
TARGETS = 2 + _SIDE**2
_HEIGHT_UNIT = 0.1  # cells
_SLOPE_UNIT = 0.2
_MIN_KNOWN = 15
"""A group with fewer known cells of those 25 tells no surface."""

CURVE_STEPS = 25
"""Steps that a row of the loss curve is the mean of."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """What makes the weights what they are; all of it is written beside them."""

    seed: int = 0
    clouds: int = 1200
    steps: int = 1000
    batch: int = 8
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup: int = 50
    mask_ratio: float = 0.6
    masked_share: float = 0.3
    """Share of steps with hidden groups; on the others only surface and metric are asked for."""
    chamfer_weight: float = 0.5
    surface_weight: float = 1.0
    metric_weight: float = 3.0
    metric_scale: float = 3.0
    """Surfaces that differ by much more than this (unit: ``surface_distance``) are just different."""
    metric_tokens: int = 384
    """Tokens of a batch, drawn at random, that the metric is asked of in pairs."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Clouds as the encoder sees them, with what the tokens must tell. First axis: clouds."""

    groups: FloatArray  # n x G x K x 3
    centres: FloatArray  # n x G x 3
    surface: FloatArray  # n x G x TARGETS: slope in x, in y, then 5 x 5 heights (rows along y)
    known: FloatArray  # same shape: 1 where the target exists


def cell_network() -> Network:
    """The constants of `lite` on a station where one cell is one millimetre: lengths here are in cells."""
    geometry = Geometry(
        method="none", why="procedural", unit="mm", height_px=CLOUD_PX, width_px=CLOUD_PX, plane=None, plane_cut_mm=0.0,
        point_spacing_mm=1.0, plane_noise_mm=0.0, cluster_gap_px=1, side_px=CLOUD_PX, mm_per_px=1.0, min_points=100,
        moved_share=1.0, moved_mm=1.0,
    )  # fmt: skip
    return network_for(profile("lite"), geometry, "none")


def make_samples(count: int, rng: Generator, progress: Progress | None = None) -> Samples:
    """``count`` clouds, each of a product of its own."""
    network = cell_network()
    rows: list[tuple[FloatArray, ...]] = []
    while len(rows) < count:
        instance = render(make_product(rng), any_pose(rng), rng)
        if np.isfinite(instance.clean).sum() < 2 * network.groups:
            continue
        rows.append(sample_of(instance, network))
        if progress:
            progress("clouds", len(rows), count)
    return Samples(*(np.stack(column) for column in zip(*rows, strict=True)))


def sample_of(instance: Instance, network: Network) -> tuple[FloatArray, ...]:
    """Groups, centres, surface targets and their mask of one cloud; groups as ``runtime.points.group`` makes them."""
    points, pixels = valid_points(instance.cloud)
    chosen = farthest_points(points, network.groups)
    centres = points[chosen]
    members, _ = nearest_neighbours(points, centres, network.group_size)
    surface, known = surface_targets(instance.clean, pixels[chosen])
    groups = ((points[members] - centres[:, None]) / network.group_scale_mm).astype(np.float32)
    return groups, ((centres - points.mean(axis=0)) / network.position_scale_mm).astype(np.float32), surface, known


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


class Pretrainer(nn.Module):
    """The encoder with the parts that only pre-training needs."""

    def __init__(self, encoder: PointEncoder, group_size: int, decoder_depth: int = 2) -> None:
        super().__init__()
        width = encoder.width
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.position = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.decoder = nn.ModuleList(Block(width, 6) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(width)
        self.points = nn.Linear(width, 3 * group_size)
        self.surface = nn.Linear(encoder.channels, TARGETS)

    def forward(self, groups: Tensor, centres: Tensor, order: Tensor, visible: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and surfaces of the visible groups, and the points of the hidden ones.

        ``order`` (B, G) is a permutation whose first ``visible`` groups are seen. Returns (B, visible, channels),
        (B, visible, TARGETS) and (B, G - visible, K, 3), in that order of groups.
        """
        seen, hidden = order[:, :visible], order[:, visible:]
        tokens = self.encoder(take(groups, seen), take(centres, seen))
        told = self.surface(tokens)
        if not hidden.shape[1]:
            return tokens, told, groups[:, :0]
        # The decoder starts from the last tap, which is the transformer's normed output, as in Point-MAE.
        last = tokens[..., -self.encoder.width :]
        x = torch.cat([last, self.mask_token.expand(*hidden.shape, -1)], dim=1)
        position = self.position(take(centres, order))
        for block in self.decoder:
            x = block(x + position)
        rebuilt = self.points(self.norm(x[:, visible:]))
        return tokens, told, rebuilt.reshape(*hidden.shape, -1, 3)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, n) of ``values`` (B, G, ...)."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance to the nearest point of the other set, both ways; (..., K, 3) each."""
    squared = (a[..., :, None, :] - b[..., None, :, :]).square().sum(dim=-1)
    return squared.amin(dim=-1).mean() + squared.amin(dim=-2).mean()


def surface_loss(told: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Smooth absolute error over the known targets."""
    error = functional.smooth_l1_loss(told, target, beta=0.5, reduction="none")
    return (error * known).sum() / known.sum().clamp_min(1.0)


def surface_distance(surfaces: Tensor) -> Tensor:
    """How much surfaces (n, TARGETS) differ, (n, n): root mean square over the heights, slopes counting half."""
    scaled = torch.cat([0.5 * surfaces[:, :2], surfaces[:, 2:] / _SIDE], dim=1)
    return torch.cdist(scaled, scaled)


def metric_loss(tokens: Tensor, surfaces: Tensor, scale: float) -> Tensor:
    """Tokens (n, C) against surfaces (n, TARGETS), over all pairs.

    Wanted is |a - b| / sqrt(C) = sqrt(2 - 2 exp(-d^2 / 2 scale^2)): proportional to the surfaces' distance d while that
    is small, and sqrt(2), which is what unrelated normalised tokens have, when it is large.
    """
    kernel = torch.exp(-(surface_distance(surfaces) ** 2) / (2 * scale**2))
    wanted = torch.sqrt(2 - 2 * kernel + 1e-6)
    return functional.smooth_l1_loss(torch.cdist(tokens, tokens) / tokens.shape[1] ** 0.5, wanted, beta=0.1)


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


def train(
    config: PretrainConfig, samples: Samples, progress: Progress | None = None
) -> tuple[Pretrainer, list[dict[str, float]]]:
    """Train from the config's seed; returns the trained parts in eval mode and the loss curve, means of 25 steps."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = Pretrainer(points_lite("running"), samples.groups.shape[2]).train()
    parameters: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _schedule(step, config))
    weights = {"surface": config.surface_weight, "metric": config.metric_weight, "chamfer": config.chamfer_weight}
    tensors = _tensors(samples)
    count, groups = samples.groups.shape[:2]
    curve: list[dict[str, float]] = []
    recent: dict[str, list[float]] = {}
    for step in range(config.steps):
        chosen = torch.from_numpy(rng.integers(count, size=config.batch))
        batch = turned({k: v[chosen] for k, v in tensors.items()}, *(bool(b) for b in rng.integers(2, size=3)))
        masked = rng.random() < config.masked_share
        visible = groups - int(groups * config.mask_ratio) if masked else groups
        order = torch.from_numpy(np.argsort(rng.random((config.batch, groups)), axis=1))
        terms = losses(model, batch, order, visible, config)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        for name, term in terms.items():
            recent.setdefault(name, []).append(float(term.detach()))
        if (step + 1) % CURVE_STEPS == 0 or step + 1 == config.steps:
            means = {name: round(float(np.mean(values)), 5) for name, values in recent.items()}
            curve.append({"step": step + 1, **means})
            recent.clear()
        if progress:
            progress("steps", step + 1, config.steps)
    model.encoder.encoder.fit_statistics([tensors["groups"][i] for i in range(min(count, 256))])
    return model.eval(), curve


def losses(
    model: Pretrainer, batch: dict[str, Tensor], order: Tensor, visible: int, config: PretrainConfig
) -> dict[str, Tensor]:
    """Terms by name: ``surface`` and ``metric`` of visible groups, ``chamfer`` of hidden ones if there are any."""
    tokens, told, rebuilt = model(batch["groups"], batch["centres"], order, visible)
    seen, hidden = order[:, :visible], order[:, visible:]
    surface, known = take(batch["surface"], seen), take(batch["known"], seen)
    # The order is random already, so the first groups of every cloud are a random draw.
    drawn = torch.nonzero(known[..., 0].T.flatten()).flatten()[: config.metric_tokens]
    some_tokens, some_surfaces = (rows.transpose(0, 1).flatten(0, 1)[drawn] for rows in (tokens, surface))
    terms = {
        "surface": surface_loss(told, surface, known),
        "metric": metric_loss(some_tokens, some_surfaces, config.metric_scale),
    }
    if visible < order.shape[1]:
        terms["chamfer"] = chamfer(rebuilt, take(batch["groups"], hidden))
    return terms


@torch.no_grad()
def held_out(model: Pretrainer, samples: Samples, config: PretrainConfig) -> dict[str, float]:
    """The terms on clouds that training never saw, with the config's mask ratio."""
    model.eval()
    tensors = _tensors(samples)
    count, groups = samples.groups.shape[:2]
    order = torch.from_numpy(np.argsort(np.random.default_rng(1).random((count, groups)), axis=1))
    visible = groups - int(groups * config.mask_ratio)
    rows = [
        losses(model, {k: v[i : i + 8] for k, v in tensors.items()}, order[i : i + 8], visible, config)
        for i in range(0, count, 8)
    ]
    return {name: round(float(torch.stack([row[name] for row in rows]).mean()), 5) for name in rows[0]}


def untrained(samples: Samples, seed: int) -> Pretrainer:
    """The control: the same network from a seed, with its BatchNorm statistics fitted so that it is not blind."""
    torch.manual_seed(seed)
    model = Pretrainer(points_lite("running"), samples.groups.shape[2])
    model.encoder.encoder.fit_statistics(list(torch.from_numpy(samples.groups[:64])))
    return model.eval()


def _schedule(step: int, config: PretrainConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return float(0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done)))


def _tensors(samples: Samples) -> dict[str, Any]:
    return {
        "groups": torch.from_numpy(samples.groups), "centres": torch.from_numpy(samples.centres),
        "surface": torch.from_numpy(samples.surface), "known": torch.from_numpy(samples.known),
    }  # fmt: skip
