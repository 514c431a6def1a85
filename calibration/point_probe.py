"""Is a point encoder any good? Bumps and dents on procedural parts, told from normal patches by nearest neighbours.

For each held-out product a bank is filled with patch features of normal instances; patches of further instances, with
and without a bump or a dent, are scored by their distance to the bank, as the runtime does. The figure is the AUROC
of defective against normal patches: 0.5 is chance. Everything passes through ``runtime.points``, as a real frame would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import rankdata

from calibration.networks.point_mae import PointEncoder
from calibration.pretrain_points import cell_network
from calibration.procedural import (
    CLOUD_PX,
    Field,
    Instance,
    Product,
    bump,
    make_product,
    place_on,
    render,
    station_pose,
)
from runtime.manifest import Network
from runtime.points import PointGroups, group

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """Sizes of the probe; lengths in cells."""

    seed: int = 1_000_003
    """Far from any training seed: its products are held out."""
    products: int = 12
    bank_frames: int = 10
    normal_frames: int = 4
    defect_frames: int = 6
    radius: tuple[float, float] = (2.0, 6.0)
    amplitude: tuple[float, float] = (0.15, 1.0)
    noise: tuple[float, float] = (0.01, 0.08)


@dataclass(frozen=True, slots=True)
class ProbeFrame:
    """A frame ready for any encoder. ``label``: 1 under the defect, 0 normal, -1 neither (rim, or near the defect)."""

    groups: PointGroups
    label: NDArray[np.int8]  # grid x grid
    kind: str


ProbeProduct = tuple[list[ProbeFrame], list[ProbeFrame]]
"""Bank frames and test frames of one product."""


def make_probe(config: ProbeConfig) -> list[ProbeProduct]:
    """The products that no training seed made."""
    rng = np.random.default_rng(config.seed)
    network = cell_network()
    probe: list[ProbeProduct] = []
    while len(probe) < config.products:
        product = make_product(rng)
        noise = float(rng.uniform(*config.noise))
        try:
            frames = _frames(product, noise, config, network, rng)
        except ValueError:
            continue  # a part too narrow to carry a defect
        probe.append((frames[: config.bank_frames], frames[config.bank_frames :]))
    return probe


def run_probe(encoder: PointEncoder, probe: list[ProbeProduct]) -> dict[str, float]:
    """Mean over products of the AUROC of bumps, of dents, and of both against normal patches."""
    encoder.eval()
    rows: dict[str, list[float]] = {"bump": [], "dent": [], "both": []}
    for bank_frames, test_frames in probe:
        bank = np.concatenate([_features(encoder, frame)[frame.groups.nonempty.ravel()] for frame in bank_frames])
        distances = [_nearest(_features(encoder, frame), bank) for frame in test_frames]
        labels = [np.where(frame.groups.nonempty, frame.label, -1).ravel() for frame in test_frames]
        normal = np.concatenate([d[label == 0] for d, label in zip(distances, labels, strict=True)])
        for kind, row in rows.items():
            chosen = [
                d[label == 1]
                for frame, d, label in zip(test_frames, distances, labels, strict=True)
                if frame.kind == kind or (kind == "both" and frame.kind != "normal")
            ]
            row.append(auroc(np.concatenate(chosen), normal))
    return {kind: round(float(np.mean(row)), 4) for kind, row in rows.items()}


def auroc(positive: Array, negative: Array) -> float:
    """Probability that a positive score lies above a negative one, ties counting half."""
    ranks = rankdata(np.concatenate([positive, negative]))
    total = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(total / (len(positive) * len(negative)))


def _frames(
    product: Product, noise: float, config: ProbeConfig, network: Network, rng: Generator
) -> list[ProbeFrame]:
    normal = config.bank_frames + config.normal_frames
    kinds = ["normal"] * normal + [("bump", "dent")[i % 2] for i in range(config.defect_frames)]
    frames = []
    for kind in kinds:
        field: Field | None = None
        if kind != "normal":
            radius = float(rng.uniform(*config.radius))
            size = float(np.exp(rng.uniform(*np.log(config.amplitude))))
            where = place_on(product, rng, margin=2.0)
            field = bump(rng, where, radius, size if kind == "bump" else -size)
        instance = render(product, station_pose(rng, noise), rng, field)
        if np.isfinite(instance.clean).sum() < 2 * network.groups:
            raise ValueError("the part is too small")
        frames.append(ProbeFrame(group(instance.cloud, network), _label(instance, network), kind))
    return frames


def _label(instance: Instance, network: Network) -> NDArray[np.int8]:
    """1 where a patch reaches half of the defect's height; 0 where the whole frame is normal; -1 elsewhere."""
    cells = CLOUD_PX // network.grid
    moved = np.abs(instance.defect).reshape(network.grid, cells, network.grid, cells).max(axis=(1, 3))
    if moved.max() == 0:
        return np.zeros(moved.shape, dtype=np.int8)
    return np.where(moved >= 0.5 * moved.max(), 1, -1).astype(np.int8)


@torch.no_grad()
def _features(encoder: PointEncoder, frame: ProbeFrame) -> Array:
    tokens = encoder(torch.from_numpy(frame.groups.groups)[None], torch.from_numpy(frame.groups.centres)[None])
    return np.asarray(frame.groups.to_patches @ tokens[0].numpy(), dtype=np.float64)


def _nearest(rows: Array, bank: Array) -> Array:
    return torch.cdist(torch.from_numpy(rows), torch.from_numpy(bank)).amin(dim=1).numpy()
