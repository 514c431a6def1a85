"""Train `points_lite` for what scoring does: at made-up stations, defects must lie farther than normal places.

At every step one station is seen: a few normal frames fill a bank, and the patches of further frames are measured by
their distance to the nearest bank row, after the same pooling of tokens to patches as at inference. Wanted is an order:
the patches under a defect above the normal ones (``rank``), and above the worst normal ones (``tail``), since a frame
is judged by its worst patch; every defect counts alike, however many patches it covers. Noise, sampling of the centres
and the part's pose differ from frame to frame, so what they change must not move a patch; a faint bump must. Each token
also predicts the noiseless surface under it (``surface``, see ``pretrain_surface``), so every token has something to
learn from at every step.

Of the distances only the logarithm counts: the order of patches does not depend on the features' scale.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.pretraining.stations import StationFrame, make_station
from asperity.calibration.pretraining.surface_targets import TARGETS, surface_loss, turned

CURVE_STEPS = 25
"""Steps that a row of the loss curve is the mean of."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

_FLOOR = 1e-3
"""Distances below this are as good as none."""
_EMA_START = 10


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """What determines the weights; all of it is written next to them."""

    seed: int = 0
    steps: int = 2600
    stations: int = 400
    """Kept to draw from; the oldest leave."""
    first_stations: int = 8
    fresh_every: int = 4
    """Steps between two stations made."""
    fresh_share: float = 0.3
    """Share of steps at the newest station; the others at a random one."""
    bank_frames: int = 3
    normal_frames: int = 1
    spoiled_frames: int = 3
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 50
    falling: float = 0.8
    """Last share of the steps over which the learning rate falls, to a twentieth."""
    averaging: float = 0.995
    """The weights that are kept are a running average with this memory."""
    temperature: float = 0.2
    """Of differences of log distances."""
    tail_share: float = 0.02
    """Share of normal patches, the worst, that the tail is."""
    rank_weight: float = 1.0
    tail_weight: float = 1.0
    surface_weight: float = 0.5


class StationTrainer(nn.Module):
    """The encoder with the linear layer that predicts the surface."""

    def __init__(self, encoder: PointsLite) -> None:
        super().__init__()
        self.encoder: PointsLite = encoder
        self.surface = nn.Linear(encoder.channels, TARGETS)


def train_at_stations(
    encoder: PointsLite, config: PretrainConfig, progress: Progress | None = None
) -> tuple[PointsLite, list[dict[str, float]]]:
    """Train from the config's seed, starting with ``encoder``; returns the averaged one and the curve.

    Only parameters are averaged: BatchNorm's running statistics stay as they were, to be fitted afterwards.
    """
    rng = np.random.default_rng(config.seed)
    stations: list[list[StationFrame]] = [_station(rng, config) for _ in range(config.first_stations)]
    torch.manual_seed(config.seed)
    model = StationTrainer(encoder).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    parameters: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, config))
    curve: list[dict[str, float]] = []
    recent: dict[str, list[float]] = {}
    step = 0
    while step < config.steps:
        if step % config.fresh_every == 0:
            stations = [*stations[-config.stations + 1 :], _station(rng, config)]
        newest = rng.random() < config.fresh_share
        terms = station_terms(model, stations[-1 if newest else int(rng.integers(len(stations)))], config, rng)
        if not terms:
            stations[-1 if newest else 0] = _station(rng, config)
            continue
        loss = (
            config.rank_weight * terms["rank"]
            + config.tail_weight * terms["tail"]
            + config.surface_weight * terms["surface"]
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        step += 1
        _blend(average, model, min(config.averaging, step / (step + _EMA_START)))
        for name, term in terms.items():
            recent.setdefault(name, []).append(float(term.detach()))
        if step % CURVE_STEPS == 0 or step == config.steps:
            curve.append({"step": step, **{name: round(float(np.mean(v)), 5) for name, v in recent.items()}})
            recent.clear()
        if progress:
            progress("stations", step, config.steps)
    return average.encoder, curve


def rate(step: int, config: PretrainConfig) -> float:
    """Share of the learning rate at a step: rises over ``warmup``, stays, falls over the last steps."""
    left = (1 - step / config.steps) / config.falling
    return min((step + 1) / config.warmup, 1.0, max(left, 0.05))


def station_terms(
    model: StationTrainer, frames: list[StationFrame], config: PretrainConfig, rng: Generator
) -> dict[str, Tensor]:
    """``rank``, ``tail``, ``surface`` and the AUROC of one station; empty when no defect lies under a filled patch."""
    batch = turned(
        {
            name: torch.from_numpy(np.stack([getattr(frame, name) for frame in frames]))
            for name in ("groups", "centres", "surface", "known")
        },
        *(bool(b) for b in rng.integers(2, size=3)),
    )
    tests = frames[config.bank_frames :]
    label = np.concatenate([frame.label[frame.filled] for frame in tests])
    owner = np.repeat(np.arange(len(tests)), [int(frame.filled.sum()) for frame in tests])
    spoiled, normal = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    if not (len(spoiled) and len(normal)):
        return {}
    # Matrix products in half precision, distances and losses in full.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = model.encoder(batch["groups"], batch["centres"])
    tokens = tokens.float()
    told = model.surface(tokens)
    patches = [
        torch.from_numpy(frame.to_patches[np.flatnonzero(frame.filled)].toarray()) @ token
        for frame, token in zip(frames, tokens, strict=True)
    ]
    distance = log_distances(torch.cat(patches[config.bank_frames :]), torch.cat(patches[: config.bank_frames]))
    far, near = distance[spoiled], distance[normal]
    worst = near.topk(max(1, int(config.tail_share * len(near)))).values
    share = 1.0 / np.bincount(owner[spoiled])[owner[spoiled]]
    counts = torch.from_numpy((share / share.sum()).astype(np.float32))
    return {
        "rank": order_loss(near, far, counts, config.temperature),
        "tail": order_loss(worst, far, counts, config.temperature),
        "surface": surface_loss(told, batch["surface"], batch["known"]),
        "auroc": (far[:, None] > near[None]).float().mean(),
    }


def log_distances(queries: Tensor, bank: Tensor) -> Tensor:
    """Logarithm of the distance of each query (n, C) to its nearest bank row (m, C), (n,)."""
    with torch.no_grad():
        nearest = torch.cdist(queries, bank).argmin(dim=1)
    squared = (queries - bank[nearest]).square().sum(dim=1)
    return 0.5 * squared.clamp_min(_FLOOR**2).log()


def order_loss(below: Tensor, above: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """Mean of softplus((below - above) / temperature) over all ``below``, weighted mean over ``above``.

    Small when every ``above`` lies higher; ``counts``, one for each ``above``, sum to 1.
    """
    pairs = functional.softplus((below[None] - above[:, None]) / temperature)
    return (pairs.mean(dim=1) * counts).sum()


def _station(rng: Generator, config: PretrainConfig) -> list[StationFrame]:
    return make_station(rng, config.bank_frames + config.normal_frames, config.spoiled_frames)


@torch.no_grad()
def _blend(average: nn.Module, model: nn.Module, keep: float) -> None:
    for kept, value in zip(average.parameters(), model.parameters(), strict=True):
        kept.mul_(keep).add_(value, alpha=1 - keep)
