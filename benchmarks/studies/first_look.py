"""The cheap question: do adapted features beat frozen ones? Run before anything is polished.

    python -m asperity.benchmarks.studies.first_look sweep     # settings after each other; adds rows to each
    product's results file python -m asperity.benchmarks.studies.first_look seeds     # the default under several seeds
    python -m asperity.benchmarks.studies.first_look noise     # frozen features, fit frames in other orders: what
    chance does python -m asperity.benchmarks.studies.first_look table     # the tables of docs/lsfa-first-look.md

Three virtual products; of each, 32 normal frames to fit on, 40 held out (and spoiled, see calibration/pseudo_defects),
100 good test frames and 102 with surface defects. Everything follows from SEED. Frames are rendered and their frozen
patches cached once under build/; caches and results are kept by the digest of the point encoder's weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.studies.first_look_table import read, tables
from asperity.calibration.adaptation.settings import AdaptationConfig, default_config
from asperity.calibration.auroc import auroc
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.networks.weights import POINTS_LITE, sha256_of
from asperity.calibration.profiles import Profile, network_for, profile
from asperity.calibration.tuning.tune import (
    Distances,
    Judge,
    Trial,
    TuneSet,
    cache_patches,
    image_scale,
    make_tune_set,
    patch_scale,
    try_config,
)
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.files import replacing
from asperity.runtime.frame import BoolArray, Frame, Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.preprocess import prepare

SEED = 20
PRODUCTS = ("bracket", "nameplate", "roll")
FIT, HELD_OUT, GOOD, DEFECTIVE = 32, 40, 100, 102
DEFECTS = ("bump", "dent", "scratch", "hole", "stain", "combined")
"""Defects on the surface, in turn. Missing material and wrong parts are the silhouette's."""
TRUTH_SHARE = 0.25
"""A patch is defective when the defect covers at least this share of it."""
ENCODER = sha256_of(POINTS_LITE)[:8]
"""Other point weights are another question: they have their own caches and results."""
RESULTS = Path(__file__).resolve().parents[1] / "results" / "first_look" / ENCODER
CACHE = Path(__file__).resolve().parents[2] / "build" / "first_look"


class TestFigures(msgspec.Struct, frozen=True):
    """AUROCs on real test frames. Never looked at when choosing."""

    image_auroc: float
    rgb_image_auroc: float
    points_image_auroc: float
    patch_auroc: float
    by_defect: dict[str, float]
    """Fused image AUROC of the good frames against each defect."""
    good_scores: tuple[float, ...] = ()
    defective_scores: tuple[float, ...] = ()
    """Fused image scores by frame, for paired comparisons."""


class Row(msgspec.Struct, frozen=True):
    """One line of a results file."""

    trial: Trial
    test: TestFigures | None


class Cached(msgspec.Struct, frozen=True):
    """Everything of one product."""

    tune_set: TuneSet
    good: PatchSet
    defective: PatchSet
    truth: BoolArray  # DEFECTIVE x grid x grid


SEEDS = (0, 1, 2, 3)
ORDERS = 5
SWEEP_BASE = AdaptationConfig(
    temperature=0.2, start="identity", compactness=0.9, learning_rate=2e-3, epochs=4, local_alignment=1.0
)
"""What the sweep varies, written out so that another default does not change it."""


def settings(base: AdaptationConfig) -> list[AdaptationConfig | None]:
    """Frozen; the grid of T x start x compactness; and around ``base`` two learning rates and compactness alone."""
    change = msgspec.structs.replace
    grid = [
        change(base, temperature=temperature, start=start, compactness=weight)
        for weight in (0.9, 0.3, 0.0)
        for start in ("identity", "default")
        for temperature in (0.2, 1.0, 0.07)
    ]
    others = [change(base, learning_rate=rate) for rate in (3e-4, 6e-3)]
    others.append(change(base, local_alignment=0.0, global_alignment=0.0))
    return [None, *grid[:6], *others, *grid[6:]]


def seeds(base: AdaptationConfig) -> list[AdaptationConfig | None]:
    """Frozen, and one setting under several seeds: how much is chance?"""
    return [None, *(msgspec.structs.replace(base, seed=seed) for seed in SEEDS)]


def truth_patches(mask: BoolArray, prepared: Prepared, grid: int) -> BoolArray:
    """The defect's mask of the source frame (H x W) on the patch grid."""
    window = prepared.window
    centres = (np.arange(window.side_px) * grid) // window.side_px
    covered, counts = np.zeros((grid, grid)), np.zeros((grid, grid))
    padded = np.pad(mask, window.side_px)
    top, left = window.y_px + window.side_px, window.x_px + window.side_px
    crop = padded[top : top + window.side_px, left : left + window.side_px]
    np.add.at(covered, (centres[:, None], centres[None, :]), crop)
    np.add.at(counts, (centres[:, None], centres[None, :]), 1.0)
    return np.asarray(covered / counts >= TRUTH_SHARE)


def make_cache(product: str, chosen: Profile) -> Cached:
    """Render, prepare and embed one product's frames."""
    camera = VirtualCamera(product, SEED)

    def frames(first: int, count: int) -> list[Frame]:
        return [camera.frame(index).frame for index in range(first, first + count)]

    fit = frames(0, FIT)
    geometry = fit_geometry(fit)
    network, networks = network_for(chosen, geometry, "none"), build(chosen)
    if any(origin.seeded for origin in networks.origins):
        raise SystemExit("the profile's weights are not all here; random ones answer no question")

    def ready(given: list[Frame]) -> list[Prepared]:
        return [prepare(frame, geometry, network) for frame in given]

    tune_set = make_tune_set(product, ready(fit), ready(frames(FIT, HELD_OUT)), network, networks, SEED)
    good = cache_patches(ready(frames(FIT + HELD_OUT, GOOD)), network, networks)
    defective, truth = _spoiled(camera, FIT + HELD_OUT + GOOD, geometry, network, networks)
    return Cached(tune_set, good, defective, truth)


def _spoiled(
    camera: VirtualCamera, first: int, geometry: Any, network: Network, networks: TorchNetworks
) -> tuple[PatchSet, BoolArray]:
    prepared, truth = [], []
    for index in range(DEFECTIVE):
        shot = camera.frame(first + index, DEFECTS[index % len(DEFECTS)])
        prepared.append(prepare(shot.frame, geometry, network))
        truth.append(truth_patches(shot.mask, prepared[-1], network.grid))
    return cache_patches(prepared, network, networks), np.stack(truth)


def load_cache(product: str, chosen: Profile) -> Cached:
    """From build/ if it is there, else made and kept."""
    path = CACHE / f"{chosen.name}-{product}-{SEED}-{FIT}-{ENCODER}.npz"
    if not path.exists():
        begin = time.monotonic()
        made = make_cache(product, chosen)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=0o644) as file:
            np.savez(file, **dict(_arrays(made)))
        print(f"{product}: rendered and embedded in {time.monotonic() - begin:.0f} s", flush=True)
    arrays = np.load(path)

    def patches(name: str) -> PatchSet:
        return PatchSet(arrays[f"{name}.rgb"], arrays[f"{name}.points"], arrays[f"{name}.nonempty"])

    tune_set = TuneSet(
        name=product,
        fit=patches("fit"),
        held_out=patches("held_out"),
        pseudo={"geometry": patches("geometry"), "colour": patches("colour")},
        defective={"geometry": arrays["geometry.defective"], "colour": arrays["colour.defective"]},
    )
    return Cached(tune_set, patches("good"), patches("defective"), arrays["truth"])


def _arrays(cached: Cached) -> Iterator[tuple[str, Any]]:
    sets: dict[str, PatchSet] = {"fit": cached.tune_set.fit, "held_out": cached.tune_set.held_out}
    sets |= {"good": cached.good, "defective": cached.defective}
    sets |= {str(kind): patches for kind, patches in cached.tune_set.pseudo.items()}
    for name, patches in sets.items():
        yield f"{name}.rgb", patches.rgb
        yield f"{name}.points", patches.points
        yield f"{name}.nonempty", patches.nonempty
    for kind, defective in cached.tune_set.defective.items():
        yield f"{kind}.defective", defective
    yield "truth", cached.truth


def test_figures(judge: Judge, cached: Cached) -> TestFigures:
    """What the chosen setting is worth on defects it never saw."""
    good, defective = judge.distances(cached.good), judge.distances(cached.defective)
    images, patches = image_scale(judge.normal), patch_scale(judge.normal)
    calm = images.fuse(good.rgb_image, good.points_image)
    alarmed = images.fuse(defective.rgb_image, defective.points_image)
    hit = defective.scored & cached.truth

    def fused(distances: Distances, where: BoolArray) -> Any:
        return patches.fuse(distances.rgb[where], distances.points[where])

    kinds = np.arange(DEFECTIVE) % len(DEFECTS)
    return TestFigures(
        image_auroc=auroc(calm, alarmed),
        rgb_image_auroc=auroc(good.rgb_image, defective.rgb_image),
        points_image_auroc=auroc(good.points_image, defective.points_image),
        patch_auroc=auroc(fused(good, good.scored), fused(defective, hit)),
        by_defect={name: auroc(calm, alarmed[kinds == i]) for i, name in enumerate(DEFECTS)},
        good_scores=tuple(round(float(score), 4) for score in calm),
        defective_scores=tuple(round(float(score), 4) for score in alarmed),
    )


def rows_of(path: Path) -> list[Row]:
    """A results file's rows, oldest first; none if it is not there."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Row) for line in path.read_text().splitlines() if '"trial"' in line]


def sweep(products: list[str], chosen: Profile, configs: list[AdaptationConfig | None]) -> None:
    """Add the rows that the results files lack, setting by setting, so that a run cut short is a whole table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    caches = {product: load_cache(product, chosen) for product in products}
    for config in configs:
        for product, cached in caches.items():
            path = RESULTS / f"{chosen.name}-{product}.jsonl"
            if msgspec.json.encode(config) in {msgspec.json.encode(row.trial.config) for row in rows_of(path)}:
                continue
            begin = time.monotonic()
            trial, judge = try_config(cached.tune_set, chosen, config)
            row = Row(trial, test_figures(judge, cached) if judge else None)
            with path.open("a") as file:
                file.write(msgspec.json.encode(row).decode() + "\n")
            print(f"{product}: {time.monotonic() - begin:.0f} s {msgspec.json.encode(trial).decode()}", flush=True)


def bank_noise(products: list[str], chosen: Profile) -> None:
    """Frozen features with the fit frames in other orders: the greedy choice of bank rows begins elsewhere, and the
    figures move by as much as chance alone moves them."""
    rows: list[dict[str, Any]] = []
    for product in products:
        cached = load_cache(product, chosen)
        for seed in range(ORDERS):
            order = np.random.default_rng(seed).permutation(FIT)
            judge = Judge(replace(cached.tune_set, fit=cached.tune_set.fit.subset(order)), chosen, None)
            test = test_figures(judge, cached)
            rows.append(
                {"product": product, "patch_auroc": judge.figures().patch_auroc, "image_auroc": test.image_auroc}
            )
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{chosen.name}.bank_noise.json").write_text(json.dumps(rows, indent=1) + "\n")
    for product in products:
        own = [row for row in rows if row["product"] == product]
        for name in ("patch_auroc", "image_auroc"):
            values = [row[name] for row in own]
            print(f"{product} {name}: mean {np.mean(values):.4f}, standard deviation {np.std(values, ddof=1):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("sweep", "seeds", "noise", "table"))
    parser.add_argument("product", nargs="*", help=f"of {', '.join(PRODUCTS)}; default all")
    parser.add_argument("--profile", default="lite")
    parser.add_argument("--config", action="append", default=[], help="these settings instead: JSON of changed fields")
    given = parser.parse_args()
    chosen = profile(given.profile)
    if given.action == "table":
        print(tables(read(RESULTS, chosen.name)))
        return
    products = given.product or list(PRODUCTS)
    if given.action == "noise":
        bank_noise(products, chosen)
        return
    base = default_config(chosen)
    configs = settings(SWEEP_BASE) if given.action == "sweep" else seeds(base)
    more: list[AdaptationConfig | None] = [msgspec.structs.replace(base, **json.loads(text)) for text in given.config]
    sweep(products, chosen, more or configs)


if __name__ == "__main__":
    main()
