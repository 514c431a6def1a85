"""Defective frames among the normal ones: how many of them does a calibration propose to exclude, how many good ones?

    python -m asperity.benchmarks.accuracy.contamination CACHE --out benchmarks/results/accuracy/contamination.json

Of each virtual product 60 normal frames, and the twin of each with one surface defect: same part, pose, light and
noise. A draw replaces a share of the frames by their twins, faint and clear ones by turns, splits, fills banks and
measures every frame without the rows of its own part, as ``asperity calibrate`` does. 0 % is the control. Features are
computed once and kept in CACHE.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from asperity.benchmarks.accuracy.ablation import SETS
from asperity.calibration.banks.reference import Reference
from asperity.calibration.features.embedding import embed
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.frames.split import split_frames
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.profiles import Profile, network_for, profile
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.frame import Prepared, Silhouette, Window
from asperity.runtime.manifest import Network
from asperity.runtime.vision.preprocess import prepare

SEED = 61
FRAMES = 60
KINDS = ("bump", "dent", "scratch", "hole", "stain")
STRENGTHS = {"faint": 1.0, "clear": 3.0}
"""As multiples of the strength of the set ``hard``."""
SHARES = (0.0, 0.02, 0.05, 0.1)
DRAWS = 20
BANK_ROWS = 1024
"""Rows of either bank at most: a draw takes seconds instead of ten."""


@dataclass(frozen=True, slots=True)
class Product:
    """Frames 0..59 are good; then as many twins of each strength, in the order of STRENGTHS."""

    network: Network
    networks: TorchNetworks
    patches: PatchSet
    blank: Prepared
    """What banks and scores need of any frame's inputs: no mask hides a patch."""


def read_product(name: str, cache: Path) -> Product:
    """Render the frames and compute their features, or take both from the cache."""
    chosen, path = profile("lite"), cache / f"{name}.npz"
    if not path.exists():
        _render(name, chosen, path)
    with np.load(path) as kept:
        network = msgspec.json.decode(kept["network"].tobytes(), type=Network)
        features = {one: kept[one].astype(np.float32) for one in network.modalities}
        patches = PatchSet(features, kept["nonempty"])
    grid, size = network.grid, network.cloud_px
    blank = Prepared(
        np.zeros((network.image_px, network.image_px, 3), np.uint8), np.zeros((size, size, 3), np.float32),
        np.ones((grid, grid), np.bool_), Window(0, 0, size), Silhouette(0, 0, 0, 0, 0),
    )  # fmt: skip
    return Product(network, build(chosen), patches, blank)


def _render(name: str, chosen: Profile, path: Path) -> None:
    frames = [VirtualCamera(name, SEED).frame(index).frame for index in range(FRAMES)]
    for strength in STRENGTHS.values():
        camera = VirtualCamera(name, SEED, severity=SETS["hard"][name] * strength)
        frames += [camera.frame(index, KINDS[index % len(KINDS)]).frame for index in range(FRAMES)]
    geometry = fit_geometry(frames[:FRAMES])
    network = network_for(chosen, geometry, "none")
    made = embed(
        [prepare(frame, geometry, network) for frame in frames], network, build(chosen), lambda done, total: None
    )  # fmt: skip
    arrays: dict[str, Any] = {one: values.astype(np.float16) for one, values in made.features.items()}
    arrays |= {"nonempty": made.nonempty, "network": np.frombuffer(msgspec.json.encode(network), np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def draw(product: Product, share: float, seed: int) -> dict[str, Any]:
    """One contaminated calibration: distances of every frame, which served the banks, which are defective."""
    rng = np.random.default_rng([SEED, seed, round(1000 * share)])
    members = rng.permutation(FRAMES)
    kind = np.full(FRAMES, -1)
    spoiled = rng.permutation(FRAMES)[: math.ceil(share * FRAMES)]
    kind[spoiled] = (np.arange(len(spoiled)) + seed) % len(STRENGTHS)
    members = members + FRAMES * (kind + 1)
    split = split_frames([str(i) for i in range(FRAMES)], seed=seed)
    reference = Reference(
        product.network, product.networks, product.patches.subset(members), [product.blank] * FRAMES
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
        rows: dict[str, Any] = {}
        for share in SHARES:
            for seed in range(DRAWS):
                found = draw(product, share, seed)
                for key, value in found.items():
                    rows[f"{share}/{seed}/{key}"] = np.asarray(value)
            print(name, share, time.process_time() - begin, flush=True)
            np.savez(cache / f"draws-{name}.npz", **rows)
