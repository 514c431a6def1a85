"""How good are a station's point features? Defects on procedural parts against normal patches, by nearest neighbours.

For each held-out product a bank is filled with patch features of normal instances, as calibration does it; further
instances, with and without a defect, are scored as the runtime does it, in both its ways (``SCORINGS``): distance of
each patch to the bank, published or local, and the whole frame's. The figures are AUROCs: 0.5 is chance. Only filled
patches take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from asperity.calibration.auroc import wins
from asperity.calibration.banks.coreset import bank_rows
from asperity.calibration.banks.reference import make_bank
from asperity.calibration.networks.points_lite import PointsLite
from asperity.calibration.pretraining.clouds import (
    CLOUD_PX,
    Instance,
    Product,
    make_product,
    place_on,
    render,
    station_pose,
)
from asperity.calibration.pretraining.defects import KINDS, make_defect
from asperity.calibration.pretraining.stations import cell_network
from asperity.calibration.profiles import profile
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Network
from asperity.runtime.vision.distances import ModalityBank, modality_scores
from asperity.runtime.vision.points import PointGroups, group

Array = NDArray[np.float64]

NORMAL = "normal"

SCORINGS = ("published", "local")
"""Distances of lsfa 7.3, and the product's own (docs/decisions/local-distances.md)."""

VALIDATION_SEED = 2_000_003
"""Choices about the encoder look at the probe of this seed; the default seed's products are for reporting."""


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """Sizes of the probe; lengths in cells."""

    seed: int = 1_000_003
    """Far from any training seed: its products are held out."""
    products: int = 24
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of S spoiled frames against those of N normal ones, pair by pair.

    ``wins`` (S, N): pairs of a patch under the defect and a normal patch in which the first lies higher, ties counting
    half; ``pairs`` (S, N): how many there are. ``image`` (S, N): 1, 0.5 or 0, the same for the frames themselves.
    """

    kinds: NDArray[np.str_]  # S
    wins: Array
    pairs: Array
    image: Array

    def auroc(self, level: str, kind: str) -> float:
        """``level`` patch or image, ``kind`` one of the defects or ``all``. NaN where nothing is compared."""
        wins, pairs = (self.wins, self.pairs) if level == "patch" else (self.image, np.ones_like(self.image))
        rows = (self.kinds == kind) | (kind == "all")
        total = float(pairs[rows].sum())
        return float(wins[rows].sum()) / total if total else float("nan")


def run_probe(features: Features, probe: list[ProbeProduct]) -> dict[str, Figures]:
    """Means over the products, for each of ``SCORINGS``."""
    found = [compare(features, bank, tests) for bank, tests in probe]
    return {scoring: figures([product[scoring] for product in found]) for scoring in SCORINGS}


def compare(features: Features, bank_frames: list[ProbeFrame], tests: list[ProbeFrame]) -> dict[str, Comparison]:
    """One product's frames, scored in each of ``SCORINGS``."""
    local = _bank(features, bank_frames)
    banks = {"published": replace(local, usual=None), "local": local}
    made = [features(frame) for frame in tests]
    return {scoring: _compared(made, tests, banks[scoring]) for scoring in SCORINGS}


def figures(found: list[Comparison]) -> Figures:
    """Mean of each figure over the products that have it, to four digits."""
    kinds = (*dict.fromkeys(str(kind) for product in found for kind in product.kinds), "all")

    def means(level: str) -> dict[str, float]:
        return {kind: round(float(np.nanmean([product.auroc(level, kind) for product in found])), 4) for kind in kinds}

    return Figures(means("patch"), means("image"))


def _compared(features: list[FloatArray], tests: list[ProbeFrame], bank: ModalityBank) -> Comparison:
    scored = [modality_scores(f, t.groups.nonempty, bank) for f, t in zip(features, tests, strict=True)]

    def patches(index: int, label: int) -> Array:
        frame = tests[index]
        rows = scored[index].distance_map[frame.groups.nonempty & (frame.label == label)]
        return np.sort(rows.astype(np.float64))

    good = [i for i, frame in enumerate(tests) if frame.kind == NORMAL]
    bad = [i for i, frame in enumerate(tests) if frame.kind != NORMAL]
    below, above = [patches(i, 0) for i in good], [patches(i, 1) for i in bad]
    patch_wins = [
        [0.5 * float((np.searchsorted(b, a) + np.searchsorted(b, a, side="right")).sum()) for b in below] for a in above
    ]
    image = np.array([scores.image_distance for scores in scored])
    return Comparison(
        kinds=np.array([tests[i].kind for i in bad]),
        wins=np.array(patch_wins),
        pairs=np.array([[float(len(a) * len(b)) for b in below] for a in above]),
        image=wins(image[good], image[bad]).T,
    )


def encoder_features(encoder: PointsLite) -> Features:
    """The encoder's tokens, pooled to patches."""
    encoder.eval()

    @torch.no_grad()
    def features(frame: ProbeFrame) -> FloatArray:
        tokens = encoder(torch.from_numpy(frame.groups.groups)[None], torch.from_numpy(frame.groups.centres)[None])
        return np.asarray(frame.groups.to_patches @ tokens[0].numpy(), dtype=np.float32)

    return features


def _bank(features: Features, frames: list[ProbeFrame]) -> ModalityBank:
    """The frames' filled patches, standardised by two scalars and thinned to the share that `lite` keeps."""
    filled = [frame.groups.nonempty.ravel() for frame in frames]
    rows = np.concatenate([features(frame)[mask] for frame, mask in zip(frames, filled, strict=True)])
    owners = np.repeat(np.arange(len(frames)), [int(mask.sum()) for mask in filled])
    wanted = bank_rows(profile("lite"), len(frames))["points"]
    return make_bank("point", rows, owners, wanted, replace(profile("lite"), whitening=None)).bank


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
