"""Are a station's point features any good? Defects on procedural parts, told from normal patches by nearest neighbours.

For each held-out product a bank is filled with patch features of normal instances, as calibration does it; further
instances, with and without a defect, are scored as the runtime does it: distance of each patch to the bank, re-weighted
distance of the worst one for the whole frame. The figures are AUROCs: 0.5 is chance. Only filled patches take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import rankdata

from calibration.memory_bank import bank_rows, coreset
from calibration.networks.point_mae import PointEncoder
from calibration.procedural import CLOUD_PX, Instance, Product, make_product, place_on, render, station_pose
from calibration.procedural_defects import KINDS, make_defect
from calibration.procedural_stations import cell_network
from calibration.profiles import profile
from runtime.distances import ModalityBank, points_scores
from runtime.frame import BoolArray, FloatArray
from runtime.knn import MemoryBank
from runtime.manifest import Network
from runtime.points import PointGroups, group

Array = NDArray[np.float64]

NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """Sizes of the probe; lengths in cells."""

    seed: int = 1_000_003
    """Far from any training seed: its products are held out."""
    products: int = 12
    bank_frames: int = 10
    normal_frames: int = 8
    defect_frames: int = 4
    """Of each kind."""
    amplitude: tuple[float, float] = (0.15, 1.0)
    noise: tuple[float, float] = (0.01, 0.08)


@dataclass(frozen=True, slots=True)
class ProbeFrame:
    """A frame ready for any encoder. ``label``: 1 under the defect, 0 normal, -1 neither (rim, or near the defect)."""

    cloud: FloatArray  # P x P x 3
    groups: PointGroups
    label: NDArray[np.int8]  # grid x grid
    kind: str


ProbeProduct = tuple[list[ProbeFrame], list[ProbeFrame]]
"""Bank frames and test frames of one product."""

Features = Callable[[ProbeFrame], FloatArray]
"""Patch features (grid^2, C) of a frame; rows of empty patches are not looked at."""


@dataclass(frozen=True, slots=True)
class Figures:
    """AUROCs by kind of defect, and of all kinds together (``all``)."""

    patch: dict[str, float]
    """Patches under a defect against patches of normal frames."""
    image: dict[str, float]
    """Frames with a defect against normal frames."""


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


def run_probe(features: Features, probe: list[ProbeProduct]) -> Figures:
    """Means over the products."""
    found = [product_figures(features, bank, tests) for bank, tests in probe]
    return mean_figures(found)


def product_figures(features: Features, bank_frames: list[ProbeFrame], tests: list[ProbeFrame]) -> Figures:
    """AUROCs of one product; a kind none of whose patches can be scored has no patch figure (NaN)."""
    bank = _bank(features, bank_frames)
    scored = [points_scores(features(frame), frame.groups.nonempty, bank) for frame in tests]

    def patches(label: int, kinds: tuple[str, ...]) -> Array:
        rows = [
            scores.distance_map[frame.groups.nonempty & (frame.label == label)]
            for frame, scores in zip(tests, scored, strict=True)
            if frame.kind in kinds
        ]
        return np.concatenate(rows).astype(np.float64)

    def images(kinds: tuple[str, ...]) -> Array:
        return np.array([s.image_distance for f, s in zip(tests, scored, strict=True) if f.kind in kinds])

    present = tuple(dict.fromkeys(frame.kind for frame in tests if frame.kind != NORMAL))
    sets = {kind: (kind,) for kind in present} | {"all": present}
    return Figures(
        patch={name: auroc(patches(1, kinds), patches(0, (NORMAL,))) for name, kinds in sets.items()},
        image={name: auroc(images(kinds), images((NORMAL,))) for name, kinds in sets.items()},
    )


def mean_figures(found: list[Figures]) -> Figures:
    """Mean of each figure over the products that have it, to four digits."""

    def mean(rows: list[dict[str, float]]) -> dict[str, float]:
        return {name: round(float(np.nanmean([row[name] for row in rows])), 4) for name in rows[0]}

    return Figures(mean([f.patch for f in found]), mean([f.image for f in found]))


def auroc(positive: Array, negative: Array) -> float:
    """Probability that a positive score lies above a negative one, ties counting half; NaN when there is none."""
    if not (len(positive) and len(negative)):
        return float("nan")
    ranks = rankdata(np.concatenate([positive, negative]))
    total = ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(total / (len(positive) * len(negative)))


def encoder_features(encoder: PointEncoder) -> Features:
    """The encoder's tokens, pooled to patches."""
    encoder.eval()

    @torch.no_grad()
    def features(frame: ProbeFrame) -> FloatArray:
        tokens = encoder(torch.from_numpy(frame.groups.groups)[None], torch.from_numpy(frame.groups.centres)[None])
        return np.asarray(frame.groups.to_patches @ tokens[0].numpy(), dtype=np.float32)

    return features


def _bank(features: Features, frames: list[ProbeFrame]) -> ModalityBank:
    """The frames' filled patches, standardised by two scalars and thinned to the share that `lite` keeps."""
    rows = np.concatenate([features(frame)[frame.groups.nonempty.ravel()] for frame in frames])
    mean, std = float(rows.mean(dtype=np.float64)), float(rows.std(dtype=np.float64)) or 1.0
    rows = (rows - np.float32(mean)) * np.float32(1.0 / std)
    _, wanted = bank_rows(profile("lite"), len(frames))
    return ModalityBank(MemoryBank(rows[coreset(rows, wanted)]), mean, std)


def _frames(product: Product, noise: float, config: ProbeConfig, network: Network, rng: Generator) -> list[ProbeFrame]:
    kinds = [NORMAL] * (config.bank_frames + config.normal_frames) + [*KINDS] * config.defect_frames
    frames = []
    for kind in kinds:
        defect = None
        if kind != NORMAL:
            defect = make_defect(kind, rng, place_on(product, rng, margin=2.0), config.amplitude)
        instance = render(product, station_pose(rng, noise), rng, defect)
        if np.isfinite(instance.clean).sum() < 2 * network.groups:
            raise ValueError("the part is too small")
        frames.append(ProbeFrame(instance.cloud, group(instance.cloud, network), patch_label(instance, network), kind))
    return frames


def patch_label(instance: Instance, network: Network) -> NDArray[np.int8]:
    """1 where a patch reaches half of the defect's height; 0 where the whole frame is normal; -1 elsewhere."""
    cells = CLOUD_PX // network.grid
    moved = np.abs(instance.defect).reshape(network.grid, cells, network.grid, cells).max(axis=(1, 3))
    if moved.max() == 0:
        return np.zeros(moved.shape, dtype=np.int8)
    hit: BoolArray = moved >= 0.5 * moved.max()
    return np.where(hit, 1, -1).astype(np.int8)
