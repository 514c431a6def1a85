"""Fusions and whitening judged by pseudo-defects on held-out good frames: the tables of docs/decisions/fusion.md.

    python -m asperity.benchmarks.accuracy.fusion_study PRODUCT... -o FILE [--limit 70]

A product's folder is read for its good frames alone. Held-out frames (tune and calibrate) and their spoiled copies are
judged; standardisation and weights come from the folds of fit frames, as in a calibration. Noise: one modality's
distances are those of another frame, drawn by chance, so that it says nothing and is spread as before.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from scipy import ndimage

from asperity.benchmarks.accuracy.metrics import pixel_figures
from asperity.calibration.auroc import auroc
from asperity.calibration.banks.folds import judge_folds
from asperity.calibration.banks.left_out import SpoiledDistances, leave_out
from asperity.calibration.banks.reference import FrameDistances, OwnedBanks, Reference, fit_decision
from asperity.calibration.features.embedding import embed, frame_of
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.prepare_normals import Normals, fit_first, prepare_normals, split_normals
from asperity.calibration.frames.split import Split
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import Profile, network_for, profile
from asperity.calibration.tuning.frame_defects import GEOMETRY_KINDS
from asperity.calibration.tuning.spoiled_normals import SpoiledNormal, spoiler
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Decision, Network
from asperity.runtime.vision.features import Patches
from asperity.runtime.vision.scoring import fused_map, fused_score

BLUR_PATCHES = 0.5
"""``maps.BLUR_SIGMA_PX`` on a grid of 28."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product's good frames and their spoiled copies, as frozen patches."""

    normals: Normals
    split: Split
    network: Network
    networks: TorchNetworks
    frozen: PatchSet
    made: list[tuple[int, SpoiledNormal]]
    """Good frame and the outcome of it."""
    patches: PatchSet
    """Of ``made``."""

    def fill(self, frames: Sequence[int], chosen: Profile) -> OwnedBanks:
        banks = Reference(self.network, self.networks, self.frozen, self.normals.prepared)
        banks.fit_banks(frames, chosen, seed=0, projection=False, device="cpu", progress=lambda *_: None)
        return banks.banks

    def good(self, index: int, owned: OwnedBanks) -> FrameDistances:
        return self._against(frame_of(self.frozen, index), self.normals.prepared[index].inspect, owned)

    def bad(self, index: int, owned: OwnedBanks) -> list[tuple[SpoiledNormal, FrameDistances]]:
        rows = [row for row, (frame, _) in enumerate(self.made) if frame == index]
        spoiled = [self.made[row][1] for row in rows]
        patches = [frame_of(self.patches, row) for row in rows]
        found = zip(spoiled, patches, strict=True)
        return [(one, self._against(own, one.prepared.inspect, owned)) for one, own in found]

    def _against(self, patches: Patches, inspect: BoolArray, owned: OwnedBanks) -> FrameDistances:
        reference = Reference(self.network, self.networks, self.frozen, self.normals.prepared)
        return reference.measured(patches, inspect, {name: one.bank for name, one in owned.items()})


@dataclass(frozen=True, slots=True)
class Judged:
    """Everything measured with one set of banks."""

    good: dict[int, FrameDistances]
    spoiled: list[tuple[SpoiledNormal, FrameDistances]]
    seen: dict[int, FrameDistances]
    seen_spoiled: list[SpoiledDistances]


def load(folder: Path, limit: int | None) -> Product:
    """Read, prepare, spoil and embed a folder's good frames."""
    lite = profile("lite")
    networks = build(lite)
    normals = prepare_normals(folder, CalibrateOptions(limit=limit), lite, lambda *_: None)
    normals, split = fit_first(normals, split_normals(normals, "split", 0))
    network = network_for(lite, normals.geometry, "none")
    spoil = spoiler(normals, network, seed=0)
    made = [(index, one) for index in range(len(normals.items)) for one in spoil(index)]
    patches = embed([one.prepared for _, one in made], network, networks, lambda *_: None)
    frozen = embed(normals.prepared, network, networks, lambda *_: None)
    return Product(normals, split, network, networks, frozen, made, patches)


def study(product: Product, draws: int = 20) -> dict[str, object]:
    """One product's rows."""
    rows: dict[str, object] = {
        "fit": len(product.split.fit), "held_out": len(product.split.tune) + len(product.split.calibrate)
    }  # fmt: skip
    for label, shrinkage in (("plain", None), ("whitened", profile("lite").whitening)):
        rows |= {f"{label}: {name}": row for name, row in _rows(product, shrinkage, draws).items()}
    return rows


def _rows(product: Product, shrinkage: float | None, draws: int) -> dict[str, object]:
    chosen, split = replace(profile("lite"), whitening=shrinkage), product.split
    seen_spoiled: list[SpoiledDistances] = []

    def judge(index: int, owned: OwnedBanks) -> FrameDistances:
        seen_spoiled.extend(SpoiledDistances(index, one.kind, own) for one, own in product.bad(index, owned))
        return product.good(index, owned)

    parts = [product.normals.parts.of_frames[i] for i in split.fit]
    seen = judge_folds(split.fit, parts, lambda frames: product.fill(frames, chosen), judge)
    banks = product.fill(split.fit, chosen)
    held_out = [*split.tune, *split.calibrate]
    judged = Judged(
        {index: product.good(index, banks) for index in held_out},
        [pair for index in held_out for pair in product.bad(index, banks)], seen, seen_spoiled,
    )  # fmt: skip
    tune = [judged.good[i] for i in split.tune]
    decisions = {
        "average": fit_decision(tune, banks, "average"),
        "squares": fit_decision([*seen.values(), *tune], banks, "squares"),
    }
    kept, left = leave_out(decisions["squares"], seen, seen_spoiled)
    rows: dict[str, object] = {"left out": [one.modality for one in left]}
    for name, decision in {**decisions, "squares, as calibrated": kept}.items():
        rows[name] = _figures(judged, decision)
    for name in ("rgb", "points"):
        rows[f"{name} alone"] = _figures(judged, _alone(decisions["squares"], name))
        rows |= _noise(judged, decisions, name, draws)
    return rows


def _figures(judged: Judged, decision: Decision) -> dict[str, float]:
    good = np.array([fused_score(one.modalities, decision) for one in judged.good.values()])
    bad = np.array([fused_score(one.modalities, decision) for _, one in judged.spoiled])
    shape = np.array([made.kind in GEOMETRY_KINDS for made, _ in judged.spoiled])
    frames = [*(one for _, one in judged.spoiled), *judged.good.values()]
    truths = [made.changed for made, _ in judged.spoiled] + [np.zeros_like(frames[0].scored)] * len(judged.good)
    maps = [_blurred(fused_map(one.modalities, decision)) for one in frames]
    pixels = pixel_figures(maps, truths, [one.scored for one in frames])
    return {
        "auroc": auroc(good, bad), "geometry": auroc(good, bad[shape]), "colour": auroc(good, bad[~shape]),
        "aupro30": pixels.aupro30 or 0.0, "aupro05": pixels.aupro05 or 0.0,
    }  # fmt: skip


def _blurred(patches: FloatArray) -> FloatArray:
    return np.asarray(ndimage.gaussian_filter(patches, BLUR_PATCHES), dtype=np.float32)


def _alone(decision: Decision, name: str) -> Decision:
    others = {
        other: msgspec.structs.replace(one, weight=0.0) for other, one in decision.modalities().items() if other != name
    }
    return msgspec.structs.replace(decision, **others)


def _noise(
    judged: Judged, decisions: Mapping[str, Decision], noisy: str, draws: int
) -> dict[str, object]:  # fmt: skip
    """AUROC with one modality's distances of frames drawn by chance, and how often the rule leaves it out."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"average": [], "squares": [], "squares, as calibrated": []}
    left_out = 0
    for _ in range(draws):
        normal = {index: _drawn(one, judged.seen, noisy, rng) for index, one in judged.seen.items()}
        spoiled = [
            replace(one, distances=_drawn(one.distances, judged.seen, noisy, rng)) for one in judged.seen_spoiled
        ]
        kept, left = leave_out(decisions["squares"], normal, spoiled)
        left_out += any(one.modality == noisy for one in left)
        good = [_drawn(one, judged.good, noisy, rng) for one in judged.good.values()]
        bad = [_drawn(one, judged.good, noisy, rng) for _, one in judged.spoiled]
        for name, decision in {**decisions, "squares, as calibrated": kept}.items():
            below, above = ([fused_score(one.modalities, decision) for one in side] for side in (good, bad))
            found[name].append(auroc(below, above))
    return {
        **{f"noise for {noisy}, {name}": float(np.mean(values)) for name, values in found.items()},
        f"noise for {noisy}, left out": left_out / draws,
    }


def _drawn(
    one: FrameDistances, pool: Mapping[int, FrameDistances], noisy: str, rng: np.random.Generator
) -> FrameDistances:
    other = pool[list(pool)[int(rng.integers(len(pool)))]]
    own = {name: other.modalities[name] if name == noisy else scores for name, scores in one.modalities.items()}
    return replace(one, modalities=own)


def main(arguments: Sequence[str]) -> None:
    """Write FILE after each product, and print its rows."""
    parser = argparse.ArgumentParser(prog="python -m asperity.benchmarks.accuracy.fusion_study")
    parser.add_argument("products", nargs="+", type=Path)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args(arguments)
    command = f"python -m asperity.benchmarks.accuracy.fusion_study {' '.join(p.name for p in given.products)}"
    command += f" --limit {given.limit}" if given.limit else ""
    found: dict[str, object] = {}
    for folder in given.products:
        found[f"{folder.parent.name}/{folder.name}"] = study(load(folder, given.limit))
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(_rounded(rows))}" for name, rows in found.items())
        given.out.write_text(f'{{"command": {json.dumps(command)},\n{lines}\n}}\n', encoding="utf-8")
        print(folder, json.dumps(_rounded(found[f"{folder.parent.name}/{folder.name}"]), indent=1), flush=True)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main(sys.argv[1:])
