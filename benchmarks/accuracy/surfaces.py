"""What each modality of the surface sees of pseudo-defects on source frames, alone and beside others; no test frame.

    python -m asperity.benchmarks.accuracy.surfaces PRODUCT_FOLDER... -o FOLDER

Per product: 20 frames to learn from, 20 held out, each spoiled once in every kind of
``calibration.tuning.frame_defects``.
Controls: random weights of the colour network for the picture (``geometry random``), the largest height residual of a
patch (``height trivial``), Open3D's FPFH at the camera's resolution (``--fpfh``), shuffled labels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from asperity.calibration.auroc import auroc
from asperity.calibration.banks.reference import make_bank
from asperity.calibration.features.surfaces import fit_surface
from asperity.calibration.frames.prepare_normals import Normals, prepare_normals
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import Profile, profile
from asperity.calibration.tuning.frame_defects import (
    COLOUR_KINDS,
    GEOMETRY_KINDS,
    changed_patches,
    depth_noise_mm,
    draw_defect,
    spoil_frame,
)
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import BoolArray, FloatArray, Frame, ModalityName, Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.distances import modality_scores
from asperity.runtime.vision.features import frozen_patches, normalised
from asperity.runtime.vision.height_residual import LARGEST, HeightModel
from asperity.runtime.vision.preprocess import find_part, prepare

FRAMES = 20
SEED = 24
KINDS = (*GEOMETRY_KINDS, *COLOUR_KINDS)
MODALITIES: tuple[ModalityName, ...] = ("rgb", "points", "geometry", "height", "descriptor")
SETS = (
    ("rgb", "points"), ("rgb", "points", "geometry"), ("rgb", "points", "height"), ("rgb", "points", "descriptor"),
    ("rgb", "geometry"), ("rgb", "descriptor"), ("rgb", "geometry", "descriptor"),
    ("rgb", "points", "geometry", "descriptor"), ("rgb", "geometry", "height", "descriptor"), MODALITIES,
)  # fmt: skip


class Shown:
    """Every frame's features by modality, its kind, and which patches were scored and changed."""

    def __init__(self) -> None:
        self.features: dict[str, list[FloatArray]] = {}
        self.kinds: list[str] = []
        self.scored: list[BoolArray] = []
        self.changed: list[BoolArray] = []

    def add(self, kind: str, features: dict[str, FloatArray], scored: BoolArray, changed: BoolArray | None) -> None:
        for name, values in features.items():
            self.features.setdefault(name, []).append(values)
        self.kinds.append(kind)
        self.scored.append(scored)
        self.changed.append(np.zeros_like(scored) if changed is None else changed)


def show(source: Path, chosen: Profile, networks: TorchNetworks, fpfh: bool) -> tuple[Shown, dict[str, Any]]:
    """Learn the surface's constants from 20 frames, spoil 20 others."""
    normals = prepare_normals(source, CalibrateOptions(profile=chosen.name), chosen, lambda *_: None)
    picked = np.linspace(0, len(normals.items) - 1, 2 * FRAMES).astype(int)
    fit, held_out = picked[0::2], picked[1::2]
    network, heights, refused = _constants(normals, [int(i) for i in fit])
    noise_mm = depth_noise_mm([normals.items[i].frame() for i in fit[:5]], normals.geometry)
    rng, shown = np.random.default_rng(SEED), Shown()
    blind = build(chosen, seeded=True, seed=SEED)

    def add(kind: str, frame: Frame, changed: BoolArray | None = None) -> None:
        ready = prepare(frame, normals.geometry, network, heights=heights)
        patches = frozen_patches(ready, network, networks)
        features: dict[str, FloatArray] = {str(name): values for name, values in patches.features.items()}
        assert ready.geometry is not None
        features["geometry random"] = blind.rgb(normalised(ready.geometry, network))
        if fpfh:
            features["fpfh"] = _fpfh(frame, ready, normals)
        part = find_part(frame, normals.geometry).part
        hit = None if changed is None else changed_patches(changed, part, ready.window, network.grid)
        shown.add(kind, features, patches.nonempty & ready.inspect, hit)

    for index in fit:
        add("fit", normals.items[index].frame())
    for index in held_out:
        frame = normals.items[index].frame()
        add("good", frame)
        for kind in KINDS:
            made = spoil_frame(frame, normals.geometry, draw_defect(kind, normals.geometry, noise_mm, rng), rng)
            add(kind, made.frame, made.changed)
    assert network.picture is not None
    told = {"noise_mm": round(noise_mm, 4), "width": network.picture.width, "height_refused": refused}
    return shown, told


def _constants(normals: Normals, fit: list[int]) -> tuple[Network, HeightModel | None, str]:
    frames = [normals.items[i].frame() for i in fit]
    windows = [normals.prepared[i].window for i in fit]
    try:
        return *fit_surface(normals.network, MODALITIES, frames, windows, normals.geometry), ""
    except CalibrationError as error:
        without = tuple(name for name in MODALITIES if name != "height")
        return *fit_surface(normals.network, without, frames, windows, normals.geometry), str(error)


def _fpfh(frame: Frame, ready: Prepared, normals: Normals) -> FloatArray:
    """Open3D's FPFH of the part's points at the camera's resolution, meaned over each patch."""
    from asperity.runtime.cameras.virtual.open3d_scene import load_open3d

    o3d, geometry, grid = load_open3d(), normals.geometry, ready.inspect.shape[0]
    found = find_part(frame, geometry)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(found.points[found.part].astype(np.float64)))
    cell = geometry.mm_per_px
    cloud.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(2 * 2.0 * cell, 30))
    cloud.orient_normals_towards_camera_location(np.zeros(3))
    search = o3d.geometry.KDTreeSearchParamHybrid(2 * 5.0 * cell, 100)
    histograms = np.asarray(o3d.pipelines.registration.compute_fpfh_feature(cloud, search).data).T
    rows, columns = (
        at - start for at, start in zip(np.nonzero(found.part), (ready.window.y_px, ready.window.x_px), strict=True)
    )
    inside = (rows >= 0) & (rows < ready.window.side_px) & (columns >= 0) & (columns < ready.window.side_px)
    patch = (rows * grid // ready.window.side_px) * grid + columns * grid // ready.window.side_px
    total = np.zeros((grid * grid, histograms.shape[1]))
    np.add.at(total, patch[inside], histograms[inside])
    counts = np.bincount(patch[inside], minlength=grid * grid)
    return (total / np.maximum(counts, 1)[:, None]).astype(np.float32)


def measured(name: str, shown: Shown, chosen: Profile) -> tuple[NDArray[np.float64], FloatArray]:
    """Image distances and maps of every frame by one modality's own bank of the fit frames."""
    features, scored = shown.features[name], shown.scored
    fit = [i for i, kind in enumerate(shown.kinds) if kind == "fit"]
    rows = np.concatenate([features[i][scored[i].ravel()] for i in fit])
    owners = np.concatenate([np.full(int(scored[i].sum()), i) for i in fit])
    bank = make_bank(name, rows, owners, min(len(rows), chosen.grid**2 * len(fit) // 10), chosen).bank
    seen = [modality_scores(one, where, bank) for one, where in zip(features, scored, strict=True)]
    return np.array([one.image_distance for one in seen]), np.stack([one.distance_map for one in seen])


def trivial(shown: Shown) -> tuple[NDArray[np.float64], FloatArray]:
    """The largest height residual of each patch and frame: what everything learned must beat."""
    values = [
        np.abs(one).max(axis=1).reshape(where.shape)
        for one, where in zip(shown.features["height"], shown.scored, strict=True)
    ]
    maps = np.stack([np.where(where & (v < LARGEST), v, 0.0) for v, where in zip(values, shown.scored, strict=True)])
    return maps.max(axis=(1, 2)).astype(np.float64), maps.astype(np.float32)


def figures(image: NDArray[np.float64], maps: FloatArray | None, shown: Shown) -> dict[str, float]:
    """AUROC of held-out normal frames against each kind, of geometry, of colour, and of geometry's patches."""
    kinds, scored, changed = np.array(shown.kinds), np.stack(shown.scored), np.stack(shown.changed)
    good = image[kinds == "good"]
    groups: dict[str, Sequence[str]] = {kind: (kind,) for kind in KINDS}
    groups |= {"geometry": GEOMETRY_KINDS, "colour": COLOUR_KINDS, "all": KINDS}
    found = {name: auroc(good, image[np.isin(kinds, members)]) for name, members in groups.items()}
    if maps is not None:
        shape = np.isin(kinds, GEOMETRY_KINDS)
        normal = maps[kinds == "good"][scored[kinds == "good"]]
        found["geometry patches"] = auroc(normal, maps[shape][(scored & changed)[shape]])
    rng = np.random.default_rng(SEED)
    mixed = rng.permutation(image[kinds != "fit"])
    found["shuffled"] = auroc(mixed[: len(good)], mixed[len(good) :])
    return {name: round(float(value), 4) for name, value in found.items()}


def study(source: Path, chosen: Profile, networks: TorchNetworks, fpfh: bool) -> dict[str, Any]:
    """One product's row."""
    since = time.process_time()
    shown, told = show(source, chosen, networks, fpfh)
    alone = {name: measured(name, shown, chosen) for name in shown.features}
    if "height" in alone:
        alone["height trivial"] = trivial(shown)
    kinds = np.array(shown.kinds)

    def positive(image: NDArray[np.float64]) -> NDArray[np.float64]:
        good = image[kinds == "good"]
        return np.asarray(np.maximum((image - good.mean()) / good.std(ddof=1), 0.0) ** 2)

    rows = {name: figures(image, maps, shown) for name, (image, maps) in alone.items()}
    for names in SETS:
        there = [name for name in names if name in alone]
        rows[" + ".join(names)] = figures(np.sum([positive(alone[name][0]) for name in there], axis=0), None, shown)
    return {
        "product": source.name,
        "set": source.parent.name,
        **told,
        "cpu_s": round(time.process_time() - since, 1),
        "rows": rows,
    }


def main(say: Callable[[str], None] = print) -> None:
    """Study each product and write its file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--profile", default="lite")
    parser.add_argument("--fpfh", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = profile(options.profile)
    networks = build(chosen)
    options.output.mkdir(parents=True, exist_ok=True)
    for source in options.products:
        made = study(source, chosen, networks, options.fpfh)
        rows = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in made.pop("rows").items())
        head = json.dumps({"command": "python -m asperity.benchmarks.accuracy.surfaces", **made})
        text = f'{head[:-1]},\n "rows": {{\n  {rows}\n }}}}\n'
        msgspec.json.decode(text.encode())
        (options.output / f"{made['set']}-{made['product']}.json").write_text(text)
        say(f"{made['product']}: {made['cpu_s']} s")


if __name__ == "__main__":
    main()
