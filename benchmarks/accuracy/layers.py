"""Which blocks of a backbone should feed the colour bank, chosen by faint pseudo-defects of normal frames alone.

    python -m asperity.benchmarks.accuracy.layers dinov2 PRODUCT... -o FILE --cache FOLDER

Each product's folder gives 20 normal frames to fill the bank with and 20 held-out ones, each of which is spoiled three
times at the camera's resolution: a soft tint, a turned piece of the part, and both. No frame of ``test`` is read.
"""

from __future__ import annotations

import argparse
import math
import shlex
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from asperity.benchmarks.published_form.mac_count import torch_macs
from asperity.benchmarks.results_tools.reports import write_result
from asperity.benchmarks.results_tools.statistics import times_drawn
from asperity.calibration.auroc import Array, weighted_auroc, wins
from asperity.calibration.banks.coreset import bank_rows
from asperity.calibration.banks.reference import make_bank
from asperity.calibration.frames.prepare_normals import prepare_normals
from asperity.calibration.networks.efficientnet_lite0 import EfficientNetLite0
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.networks.vit import VisionTransformer
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import Profile, network_for, profile
from asperity.runtime.errors import CalibrationError
from asperity.runtime.files import replacing
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Prepared
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.distances import modality_scores
from asperity.runtime.vision.features import normalised_image
from asperity.runtime.vision.missing_points import as_declared
from asperity.runtime.vision.points import FILLED_MIN
from asperity.runtime.vision.preprocess import find_part, prepare

KINDS = ("tint", "piece", "both")
FIT, HELD_OUT = 20, 20
RADIUS_SHARE = (0.02, 0.07)
"""Of the window's side, drawn log-uniformly."""
TINT_LEVELS = (4.0, 24.0)
"""Change of a channel (of 255) at the centre, drawn log-uniformly."""
SEEN_LEVELS = 2.0
"""Changes below this, after smoothing, do not make a patch defective."""
DEFECT_SHARE = 0.3
"""A patch is defective where so much of it is changed."""
DRAWS = 2000
EACH: Array = np.ones(HELD_OUT)


def spoil(image: ByteArray, part: BoolArray, kind: str, side_px: int, rng: np.random.Generator) -> ByteArray:
    """One faint change of colour with a soft edge at a random place of the part, at the camera's resolution."""
    rows, columns = np.nonzero(part)
    row, column, from_row, from_column = (int(axis[rng.integers(len(rows))]) for axis in (rows, columns) * 2)
    radius = float(np.exp(rng.uniform(*np.log(RADIUS_SHARE)))) * side_px
    tint = rng.choice((-1.0, 1.0), 3) * np.exp(rng.uniform(*np.log(TINT_LEVELS))) * rng.uniform(0.5, 1.0, 3)
    turns = int(rng.integers(1, 4))
    reach = int(radius) + 3
    offsets = np.arange(-reach, reach + 1)
    edge = np.clip(0.5 + (radius - np.hypot(offsets[:, None], offsets)) / 2.0, 0.0, 1.0)
    on = _around(part, row, column, reach)
    content = _around(image, row, column, reach).astype(np.float64)
    changed = content
    if kind != "tint":
        piece = np.rot90(_around(image, from_row, from_column, reach), turns)
        on = on & np.rot90(_around(part, from_row, from_column, reach), turns)
        changed = piece.astype(np.float64)
    if kind != "piece":
        changed = changed + tint
    mixed = content + (edge * on)[:, :, None] * (changed - content)
    spoiled = image.copy()
    inside = (slice(max(0, reach - row), None), slice(max(0, reach - column), None))
    target = spoiled[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
    target[:] = np.clip(np.round(mixed[inside][: target.shape[0], : target.shape[1]]), 0, 255)
    return spoiled


def _around(array: NDArray[Any], row: int, column: int, reach: int) -> NDArray[Any]:
    padded = np.pad(array, [(reach, reach)] * 2 + [(0, 0)] * (array.ndim - 2))
    return padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]


@dataclass(frozen=True, slots=True)
class Frames:
    """One product: fit frames, held-out frames, then those again spoiled in each way (kind by kind)."""

    prepared: list[Prepared]
    geometry: Geometry
    scored: BoolArray  # n x grid x grid
    defective: BoolArray  # n x grid x grid, the changed patches of the spoiled frames


def read_frames(folder: Path, chosen: Profile, seed: int) -> Frames:
    """Raises DataError and CalibrationError as a calibration does."""
    normals = prepare_normals(folder, CalibrateOptions(limit=FIT + HELD_OUT), chosen, lambda *_: None)
    network = network_for(chosen, normals.geometry, "none")
    order = np.random.default_rng(seed).permutation(len(normals.items))
    prepared = [normals.prepared[i] for i in order]
    changes: list[BoolArray] = [np.zeros((chosen.grid, chosen.grid), np.bool_)] * len(prepared)
    for kind in KINDS:
        for index in order[FIT:]:
            frame = normals.items[index].frame(seq=int(index))
            part = find_part(as_declared(frame, normals.geometry), normals.geometry).part
            rng = np.random.default_rng([seed, zlib.crc32(f"{folder.name} {index} {kind}".encode())])
            for _ in range(50):
                image = spoil(frame.rgb, part, kind, normals.geometry.side_px, rng)
                moved = gaussian_filter(image.astype(np.float64) - frame.rgb, (1.5, 1.5, 0.0))
                seen = np.repeat(255 * (np.abs(moved).max(axis=2, keepdims=True) >= SEEN_LEVELS), 3, axis=2)
                placed = prepare(replace(frame, rgb=seen.astype(np.uint8)), normals.geometry, network, normals.masks)
                changed = _cells(placed.image[:, :, 0] > 127, chosen.grid) >= DEFECT_SHARE
                if (changed & _filled(placed, chosen.grid)).any():
                    break
            else:
                raise CalibrationError(f"{normals.items[index].name} takes no pseudo-defect")
            prepared.append(prepare(replace(frame, rgb=image), normals.geometry, network, normals.masks))
            changes.append(changed)
    scored = np.stack([_filled(one, chosen.grid) for one in prepared])
    return Frames(prepared, normals.geometry, scored, np.stack(changes) & scored)


def _filled(prepared: Prepared, grid: int) -> BoolArray:
    return np.asarray((_cells((prepared.cloud != 0).any(axis=2), grid) >= FILLED_MIN) & prepared.inspect)


def _cells(mask: BoolArray, grid: int) -> FloatArray:
    """Share of set pixels in each cell of the grid."""
    edges = np.arange(grid) * mask.shape[0] // grid
    sums = np.add.reduceat(np.add.reduceat(mask.astype(np.float64), edges, axis=0), edges, axis=1)
    counts = np.diff(np.append(edges, mask.shape[0]))
    return np.asarray(sums / np.outer(counts, counts), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Setting:
    """Which blocks, in which form, and how several are joined."""

    blocks: tuple[int, ...]
    form: str = "raw"
    """``raw``; ``norm``: through the checkpoint's final LayerNorm; ``even``: all blocks of equal variance in sum."""
    mean: bool = False
    """The blocks' mean in place of one next to the other."""
    averaged: bool = False
    """After a mean over 3 x 3 cells."""

    def __str__(self) -> str:
        said = ("mean " if self.mean else "") + "+".join(map(str, self.blocks))
        return said + (f" {self.form}" if self.form != "raw" else "") + (" 3x3" if self.averaged else "")


class Tokens:
    """Every tapped block's tokens of one product's frames, on disk as float16."""

    def __init__(self, frames: Frames, networks: TorchNetworks, network: Network, norm: nn.Module, path: Path) -> None:
        rgb = networks.modules["rgb"]
        assert isinstance(rgb, (VisionTransformer, EfficientNetLite0))
        self.taps, self.norm, self.path = rgb.taps, norm, path
        if not path.exists():
            images = (normalised_image(one, network) for one in frames.prepared)
            tokens = np.stack([networks.rgb(image).astype(np.float16) for image in images])
            split = np.split(tokens, np.cumsum(rgb.widths)[:-1], axis=2)
            with replacing(path, mode=0o644) as file:
                np.savez(file, **{f"b{tap}": one for tap, one in zip(rgb.taps, split, strict=True)})  # type: ignore[arg-type]

    @torch.no_grad()
    def of(self, setting: Setting) -> FloatArray:
        """(frames, tokens, channels)."""
        found = []
        with np.load(self.path) as kept:
            blocks = [torch.from_numpy(kept[f"b{block}"].astype(np.float32)) for block in setting.blocks]
        for raw in blocks:
            one = raw
            if setting.form == "norm":
                one = self.norm(raw)
            elif setting.form == "even":
                one = raw / (raw[:FIT].std() * raw.shape[2] ** 0.5)
            found.append(_local_mean(one) if setting.averaged else one)
        joined: FloatArray = (torch.stack(found).mean(0) if setting.mean else torch.cat(found, dim=2)).numpy()
        return joined


def _local_mean(tokens: Tensor) -> Tensor:
    grid = math.isqrt(tokens.shape[1])
    cells = tokens.transpose(1, 2).reshape(len(tokens), -1, grid, grid)
    return functional.avg_pool2d(cells, 3, 1, 1, count_include_pad=False).flatten(2).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often spoiled lies above normal, frame by held-out frame (rows) and spoiled frame (columns)."""

    image: Array
    patch: Array
    pairs: Array
    """Comparisons behind each entry of ``patch``."""

    def figures(self, times: Array, kinds: Sequence[str] = KINDS) -> tuple[float, float]:
        """(image, patch) AUROC of these kinds with each held-out frame drawn so many times."""
        columns = np.concatenate([times * (kind in kinds) for kind in KINDS])
        return (
            weighted_auroc(self.image, times, columns),
            weighted_auroc(self.patch, times, columns, self.pairs),
        )


def judge(features: FloatArray, frames: Frames, chosen: Profile, shuffled: int | None = None) -> Outcome:
    """Fill the colour bank with the fit frames' patches and measure all others against it, as a calibration does.

    ``shuffled``: the control, the seed by which the distances are dealt out again to normal and spoiled.
    """
    scored = frames.scored.reshape(len(frames.scored), -1)
    rows = np.concatenate([features[i][scored[i]] for i in range(FIT)])
    owners = np.repeat(np.arange(FIT), scored[:FIT].sum(axis=1))
    bank = make_bank("rgb", rows, owners, bank_rows(chosen, FIT)["rgb"], chosen).bank
    found = [modality_scores(features[i], frames.scored[i], bank) for i in range(FIT, len(features))]
    images = np.array([one.image_distance for one in found])
    calm = [np.sort(one.distance_map[s]) for one, s in zip(found[:HELD_OUT], frames.scored[FIT:], strict=False)]
    hits = [one.distance_map[d] for one, d in zip(found[HELD_OUT:], frames.defective[FIT + HELD_OUT :], strict=True)]
    if shuffled is not None:
        rng = np.random.default_rng(shuffled)
        images = rng.permutation(images)
        dealt = np.split(rng.permutation(np.concatenate([*calm, *hits])), np.cumsum([len(x) for x in (*calm, *hits)]))
        calm, hits = [np.sort(one) for one in dealt[:HELD_OUT]], dealt[HELD_OUT:-1]
    above, frame = np.concatenate(hits), np.repeat(np.arange(len(hits)), [len(one) for one in hits])
    patch = [
        np.bincount(frame, 0.5 * (np.searchsorted(one, above) + np.searchsorted(one, above, "right")), len(hits))
        for one in calm
    ]
    pairs = np.outer([len(one) for one in calm], [len(one) for one in hits]).astype(np.float64)
    return Outcome(wins(images[:HELD_OUT], images[HELD_OUT:]), np.stack(patch), pairs)


def judged(path: Path, features: Callable[[], FloatArray], frames: Frames, chosen: Profile) -> Outcome:
    """As ``judge``, or what an earlier run left at ``path``."""
    if not path.exists():
        seed = zlib.crc32(path.parent.name.encode()) if path.stem == SHUFFLED else None
        made = judge(features(), frames, chosen, seed)
        with replacing(path, mode=0o644) as file:
            np.savez(file, image=made.image, patch=made.patch, pairs=made.pairs)
    with np.load(path) as kept:
        return Outcome(kept["image"], kept["patch"], kept["pairs"])


def colour_means(frames: Frames, grid: int) -> FloatArray:
    """The trivial control: mean and spread of each colour channel in each cell."""
    found = []
    for one in frames.prepared:
        image = torch.from_numpy(one.image.astype(np.float32)).permute(2, 0, 1)[None]
        mean, square = (functional.adaptive_avg_pool2d(x, grid) for x in (image, image**2))
        spread = (square - mean**2).clamp_min(0.0).sqrt()
        found.append(torch.cat([mean, spread], dim=1).flatten(2).transpose(1, 2)[0].numpy())
    return np.stack(found)


def giga_macs(chosen: Profile, last: int) -> float:
    """Multiply-accumulates of the network up to a block, in 1e9."""
    networks = build(replace(chosen, rgb_taps=(last,), rgb_norm=False), seeded=True)
    image = np.zeros((1, 3, chosen.image_px, chosen.image_px), np.float32)
    return round(torch_macs(lambda: networks.rgb(image)) / 1e9, 3)


SHUFFLED = "shuffled labels"
STUDIES: dict[str, tuple[str, tuple[int, ...], Setting, list[Setting]]] = {
    "dinov2": ("edge", (3, 4, 5, 6, 7, 8, 9, 10, 11), Setting((3,)), [
        *(Setting((block,), form) for form in ("raw", "norm") for block in (3, 4, 5, 6, 7, 8, 9, 10, 11)),
        *(Setting(blocks, mean=mean) for mean in (False, True) for blocks in ((3, 4), (4, 6))),
    ]),
    "lite": ("lite", (2, 4, 7, 10), Setting((2, 4)), [
        Setting(blocks, averaged=averaged) for averaged in (False, True)
        for blocks in ((2,), (4,), (7,), (10,), (2, 4), (4, 7), (4, 10), (7, 10), (2, 4, 10), (4, 7, 10))
    ] + [Setting(blocks, "even") for blocks in ((2, 4), (4, 7), (4, 10), (2, 4, 10))]),
}  # fmt: skip
"""Backbone -> profile, blocks kept, setting of the controls, settings tried."""


def study(backbone: str, folders: Sequence[Path], cache: Path, seed: int = 0) -> dict[str, Any]:
    name, taps, control, settings = STUDIES[backbone]
    chosen = profile(name)
    outcomes: dict[str, list[Outcome]] = {}
    networks = build(replace(chosen, rgb_taps=taps, rgb_norm=False))
    blind = build(replace(chosen, rgb_taps=control.blocks, rgb_norm=False), seeded=True)
    whole = build(replace(chosen, rgb_taps=(taps[-1],), rgb_norm=backbone == "dinov2")).modules["rgb"]
    norm = whole.norm if isinstance(whole, VisionTransformer) else nn.Identity()
    for folder in folders:
        frames = read_frames(folder, chosen, seed)
        network = network_for(chosen, frames.geometry, "none")
        path = cache / f"{folder.parent.name}-{folder.name}-{backbone}"
        path.mkdir(parents=True, exist_ok=True)
        tokens = Tokens(frames, networks, network, norm, path / "tokens.npz")
        rows: dict[str, Callable[[], FloatArray]] = {"colour means": partial(colour_means, frames, chosen.grid)}
        random = Tokens(frames, blind, network, norm, path / "random.npz")
        rows |= {f"random {control}": partial(random.of, control), SHUFFLED: partial(tokens.of, control)}
        rows |= {str(setting): partial(tokens.of, setting) for setting in settings}
        for row, features in rows.items():
            outcomes.setdefault(row, []).append(judged(path / f"{row}.npz", features, frames, chosen))
        print(folder, round(time.process_time()), "s", flush=True)
    names = list(outcomes)

    def mean(times: Sequence[Array]) -> Array:
        """settings x (image, patch)."""
        return np.array([
            np.mean([one.figures(t) for one, t in zip(outcomes[name], times, strict=True)], axis=0) for name in names
        ])  # fmt: skip

    rng = np.random.default_rng(seed)
    point = mean([EACH] * len(folders))
    drawn = np.stack([mean([times_drawn(rng, HELD_OUT) for _ in folders]) for _ in range(DRAWS)])
    best = int(point.mean(axis=1).argmax())
    behind = drawn.mean(axis=2) - drawn.mean(axis=2)[:, best, None]
    table = {}
    for at, name in enumerate(names):
        table[name] = {
            "both": round(float(point[at].mean()), 4), "image": round(float(point[at, 0]), 4),
            "patch": round(float(point[at, 1]), 4), "se": round(float(drawn[:, at].mean(axis=1).std()), 4),
            "behind_best": [round(float(x), 4) for x in np.percentile(behind[:, at], (50, 2.5, 97.5))],
            "kinds": {kind: _rounded([one.figures(EACH, (kind,)) for one in outcomes[name]]) for kind in KINDS},
            "products": [[round(x, 3) for x in one.figures(EACH)] for one in outcomes[name]],
        }  # fmt: skip
    giga = {last: giga_macs(chosen, last) for last in taps}
    return {"backbone": backbone,
            "gmac_to_block": giga, "products": [f"{f.parent.name}/{f.name}" for f in folders], "best": names[best],
            "rows": table}  # fmt: skip


def _rounded(figures: Sequence[tuple[float, float]]) -> list[float]:
    return [round(float(value), 3) for value in np.mean(figures, axis=0)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", choices=list(STUDIES))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = study(options.backbone, options.folders, options.cache)
    command = ["python", "-m", "asperity.benchmarks.accuracy.layers", options.backbone, *report["products"]]
    write_result(options.out, {"command": shlex.join([*command, "-o", "FILE", "--cache", "FOLDER"]), **report})
    for name, row in report["rows"].items():
        print(
            f"{name:16} {row['both']:.4f} +- {row['se']:.4f}  image {row['image']:.4f}  patch {row['patch']:.4f}  "
            f"{row['behind_best']}  {row['kinds']}  {row['products']}"
        )


if __name__ == "__main__":
    main()
