"""Defective frames among the normal ones: how many of them does a calibration propose to exclude, how many good ones?

    python -m asperity.benchmarks.accuracy.contamination CACHE --out benchmarks/results/accuracy/contamination.json

Of each virtual product 100 normal frames, and the twin of each with one surface defect: same part, pose, light and
noise. A draw replaces a share of the frames by their twins, faint and clear ones by turns, splits, fills banks and
measures every frame without the rows of its own part, as ``asperity calibrate`` does. 0 % is the control. Features are
computed once and kept in CACHE.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asperity.benchmarks.accuracy.ablation import SETS
from asperity.calibration.banks.reference import Reference
from asperity.calibration.features.embedding import embed
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.frames.split import split_frames
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.profiles import network_for, profile
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.preprocess import prepare

SEED = 61
FRAMES = 100
KINDS = ("bump", "dent", "scratch", "hole", "stain")
STRENGTHS = {"faint": 1.0, "clear": 3.0}
"""As multiples of the strength of the set ``hard``."""
SHARES = (0.0, 0.02, 0.05, 0.1)
DRAWS = 20
BANK_ROWS = 2048
"""Rows of either bank at most: a draw takes seconds instead of ten."""


@dataclass(frozen=True, slots=True)
class Product:
    """Frames 0..99 are good; then as many twins of each strength, in the order of STRENGTHS."""

    name: str
    network: Network
    networks: TorchNetworks
    patches: PatchSet
    prepared: tuple[Prepared, ...]
    strength_mm: tuple[float, ...]
    """Of each twin's defect; 0: a stain."""


def read_product(name: str, cache: Path) -> Product:
    """Render the frames; features from the cache where it has them."""
    chosen = profile("lite")
    shots = [VirtualCamera(name, SEED).frame(index) for index in range(FRAMES)]
    frames, strength_mm = [shot.frame for shot in shots], []
    for strength in STRENGTHS.values():
        camera = VirtualCamera(name, SEED, severity=SETS["hard"][name] * strength)
        for index in range(FRAMES):
            shot = camera.frame(index, KINDS[index % len(KINDS)])
            assert shot.defect is not None
            frames.append(shot.frame)
            strength_mm.append(shot.defect.strength_mm)
    geometry = fit_geometry(frames[:FRAMES])
    network, networks = network_for(chosen, geometry, "none"), build(chosen)
    prepared = tuple(prepare(frame, geometry, network) for frame in frames)
    path = cache / f"{name}.npz"
    if not path.exists():
        made = embed(prepared, network, networks, lambda done, total: None)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(
            path, nonempty=made.nonempty,
            **{name: values.astype(np.float16) for name, values in made.features.items()},
        )  # fmt: skip
    with np.load(path) as kept:
        features = {name: kept[name].astype(np.float32) for name in network.modalities}
        patches = PatchSet(features, kept["nonempty"])
    return Product(name, network, networks, patches, prepared, tuple(strength_mm))


def draw(product: Product, share: float, seed: int) -> dict[str, Any]:
    """One contaminated calibration: distances of every frame, which served the banks, which are defective."""
    rng = np.random.default_rng([SEED, seed, round(1000 * share)])
    members = rng.permutation(FRAMES)
    kind = np.full(FRAMES, -1)
    spoiled = rng.permutation(FRAMES)[: round(share * FRAMES)]
    kind[spoiled] = (np.arange(len(spoiled)) + seed) % len(STRENGTHS)
    members = members + FRAMES * (kind + 1)
    split = split_frames([str(i) for i in range(FRAMES)], seed=seed)
    reference = Reference(
        product.network, product.networks, product.patches.subset(members), [product.prepared[i] for i in members]
    )
    small = replace(profile("lite"), rgb_bank_cap=BANK_ROWS, points_bank_cap=BANK_ROWS)
    reference.fit_banks(split.fit, small, seed=0, projection=False, device="cpu", progress=lambda *_: None)
    inside = np.isin(np.arange(FRAMES), split.fit)
    found = [reference.distances(i, leave_out=bool(inside[i])) for i in range(FRAMES)]
    return {
        **{name: [one.image_distances()[name] for one in found] for name in product.network.modalities},
        "inside": inside, "kind": kind, "member": members,
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    cache = Path(sys.argv[1])
    for name in SETS["hard"]:
        begin = time.process_time()
        product = read_product(name, cache)
        print(name, "features", time.process_time() - begin, flush=True)
        rows = {}
        for share in SHARES:
            for seed in range(DRAWS):
                found = draw(product, share, seed)
                for key, value in found.items():
                    rows[f"{share}/{seed}/{key}"] = np.asarray(value)
            print(name, share, time.process_time() - begin, flush=True)
        np.savez(cache / f"draws-{name}.npz", **rows)
