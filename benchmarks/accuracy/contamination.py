"""Defective frames among the normal ones: how many of them does a calibration propose to exclude, how many good ones?

    python -m asperity.benchmarks.accuracy.contamination CACHE --out benchmarks/results/accuracy/contamination.json

Of each virtual product 60 normal frames, and the twin of each with one surface defect: same part, pose, light and
noise. A draw replaces a share of the frames by their twins, faint and clear ones by turns, splits, fills banks and
measures every frame without the rows of its own part, as ``asperity calibrate`` does. 0 % is the control. Features are
computed once and kept in CACHE.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from asperity.benchmarks.accuracy.ablation import SETS
from asperity.benchmarks.results_tools.reports import write_result
from asperity.calibration.banks.reference import FrameDistances, Reference
from asperity.calibration.features.embedding import embed
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.frames.split import split_frames
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.outcome.suspects import LIMIT, suspects
from asperity.calibration.profiles import Profile, network_for, profile
from asperity.calibration.record import SplitName
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.frame import MODALITIES, ModalityScores, Prepared, Silhouette, Window
from asperity.runtime.manifest import Network
from asperity.runtime.vision.preprocess import prepare

SEED = 61
FRAMES = 60
KINDS = ("bump", "dent", "scratch", "hole", "stain")
STRENGTHS = {"faint": 1.0, "clear": 3.0}
"""As multiples of the strength of the set ``hard``."""
SHARES = (0.0, 0.02, 0.05, 0.1)
DRAWS = 20
NOTHING = np.zeros((1, 1), np.float32)
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


def draws(name: str, cache: Path) -> dict[str, NDArray[Any]]:
    """All draws of a product, from the cache as far as they are there: SHARE/SEED/WHAT."""
    path = cache / f"draws-{name}.npz"
    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    product, found = read_product(name, cache), {}
    for share in SHARES:
        for seed in range(DRAWS):
            for key, value in draw(product, share, seed).items():
                found[f"{share}/{seed}/{key}"] = np.asarray(value)
    arrays: dict[str, Any] = dict(found)
    np.savez(path, **arrays)
    return found


def row(name: str, share: float, found: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """What ``suspects`` proposes of a product's draws at one share."""
    proposed: dict[int, list[bool]] = {-1: [], **{index: [] for index in range(len(STRENGTHS))}}
    false = []
    for seed in range(DRAWS):
        one = {key.split("/")[2]: value for key, value in found.items() if key.startswith(f"{share}/{seed}/")}
        distances = [
            FrameDistances(
                {each: ModalityScores(NOTHING, float(one[each][i])) for each in MODALITIES if each in one}, NOTHING > 0
            )
            for i in range(FRAMES)
        ]
        splits: list[SplitName] = ["fit" if inside else "calibrate" for inside in one["inside"]]
        named = {int(each.name) for each in suspects([str(i) for i in range(FRAMES)], splits, distances)}
        for index, kind in enumerate(one["kind"]):
            proposed[int(kind)].append(index in named)
        false.append(sum(one["kind"][index] < 0 for index in named))
    labelled = [(label, proposed[i]) for i, label in enumerate(STRENGTHS) if proposed[i]]
    shares = {f"found_{label}": round(float(np.mean(hits)), 3) for label, hits in labelled}
    return {
        "product": name, "share": share, "bad": math.ceil(share * FRAMES), **shares,
        "falsely_proposed": round(float(np.mean(false)), 2), "falsely_proposed_most": int(max(false)),
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """All products, one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for name in SETS["hard"]:
        found = draws(name, chosen.cache)
        rows += [row(name, share, found) for share in SHARES]
    report = {
        "command": shlex.join(["python", "-m", "asperity.benchmarks.accuracy.contamination", *arguments]),
        "seed": SEED, "frames": FRAMES, "draws": DRAWS, "limit": LIMIT, "bank_rows": BANK_ROWS,
        "strengths_of_hard": STRENGTHS, "kinds": KINDS, "rows": rows,
    }  # fmt: skip
    write_result(chosen.out, report)
    for each in rows:
        print(each)


if __name__ == "__main__":
    main(sys.argv[1:])
