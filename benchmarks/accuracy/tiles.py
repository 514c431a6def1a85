"""Tiles of the window: how they are merged and searched (by pseudo-defects), and what they find (rendered defects).

    python -m asperity.benchmarks.accuracy.tiles frames              # render into build/tiles
    python -m asperity.benchmarks.accuracy.tiles features            # frozen features of every tile, cached
    python -m asperity.benchmarks.accuracy.tiles choose              # merging, banks, blur: by pseudo-defects alone
    python -m asperity.benchmarks.accuracy.tiles table               # present and half size, control, 200 splits

Frames of 1024 px, and of 256 px enlarged to 1024 px as the control that has nothing to gain. Defects have the strength
of the ``hard`` set and its size, or half of it in the same place. Features are profile ``lite``'s, frozen.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from asperity.benchmarks.accuracy.ablation import SETS
from asperity.benchmarks.results_tools.reports import write_result
from asperity.calibration.auroc import auroc
from asperity.calibration.banks.reference import make_bank
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.profiles import network_for, profile, tiled
from asperity.calibration.tuning.frame_defects import FrameDefect, Kind, spoil_frame
from asperity.runtime.cameras.virtual.camera import GOOD, VirtualCamera
from asperity.runtime.frame import FloatArray, Frame, ModalityName
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.distances import ModalityBank
from asperity.runtime.vision.features import StageClock, normalised_image, point_groups, point_patches
from asperity.runtime.vision.maps import BLUR_SIGMA_PX, own_blur_px, pixel_map
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.scoring import conformal_threshold
from asperity.runtime.vision.tiles import Tiling, of_window, scorable

PRODUCTS, SEED = ("nameplate",), 81
KINDS: tuple[Kind, ...] = ("bump", "dent", "scratch", "hole", "stain")
NORMALS, FIT, EACH, PSEUDO = 80, 20, 12, 8
SCALES = (1.0, 0.5)
ALPHA, SPLITS = 0.05, 200
VARIANTS = ((1024, 1, 2), (1024, 1, 1), (256, 1, 1), (256, 4, 2))
"""Rendered pixels, enlarged by, tiles per side."""
NAMES: tuple[ModalityName, ModalityName] = ("rgb", "points")
SPANS: Mapping[Kind, tuple[tuple[float, float], tuple[float, float]]] = {
    "bump": ((0.02, 0.06), (0.08, 0.3)), "dent": ((0.02, 0.06), (0.08, 0.3)), "scratch": ((0.08, 0.25), (0.1, 0.3)),
    "hole": ((0.01, 0.03), (0.3, 1.0)), "stain": ((0.02, 0.06), (0.05, 0.2)),
}  # fmt: skip
"""Pseudo-defects: size as a share of the window's side, strength in mm (of a stain, opacity)."""
DATA = Path(__file__).resolve().parents[2] / "build" / "tiles"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "accuracy" / "tiles"

Grid = NDArray[np.float64]
Scored = dict[str, dict[ModalityName, FloatArray]]


def plan() -> Iterator[tuple[str, float, int]]:
    """Kind, scale and number of every frame."""
    yield from ((GOOD, 1.0, number) for number in range(NORMALS))
    for order, kind in enumerate(KINDS):
        yield from ((kind, scale, 1000 + 50 * order + j) for j in range(EACH) for scale in SCALES)


def render(data: Path, product: str, size_px: int) -> None:
    """The frames that are not there yet."""
    (data / "frames").mkdir(parents=True, exist_ok=True)
    severity = SETS["hard"][product]
    cameras = {
        scale: VirtualCamera(product, SEED, size_px, severity=severity, scale=scale, unit="mm") for scale in SCALES
    }
    for kind, scale, number in plan():
        path = data / "frames" / f"{product}-{size_px}-{kind}-{scale}-{number}.npz"
        if not path.exists():
            frame = cameras[scale].frame(number, None if kind == GOOD else kind).frame
            assert frame.xyz is not None
            np.savez(path, rgb=frame.rgb, z=frame.xyz[..., 2])


class Source:
    """Frames of one product and size, enlarged by a whole factor."""

    def __init__(self, data: Path, product: str, size_px: int, enlarged: int) -> None:
        self.data, self.product, self.size_px, self.enlarged = data, product, size_px, enlarged

    def frame(self, kind: str, scale: float, number: int) -> Frame:
        """One frame: colour bicubic, depth bilinear where all four neighbours lie on one level."""
        stored = np.load(self.data / "frames" / f"{self.product}-{self.size_px}-{kind}-{scale}-{number}.npz")
        rgb, depth, side = stored["rgb"], stored["z"], self.size_px * self.enlarged
        if self.enlarged > 1:
            rgb = np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC))
            depth = _enlarged(depth, self.enlarged)
        rays = VirtualCamera(self.product, SEED, side)._directions
        return Frame("virtual", "", number, rgb, xyz=(rays * depth[..., None]).astype(np.float32), unit="mm")


class _Normals(Sequence[Frame]):
    def __init__(self, source: Source, count: int) -> None:
        self.source, self.frames = source, count

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, index: Any) -> Any:
        return self.source.frame(GOOD, 1.0, range(self.frames)[index])


def _enlarged(depth: FloatArray, factor: int) -> FloatArray:
    size = len(depth)
    at = (np.arange(size * factor) + 0.5) / factor - 0.5
    low = np.clip(np.floor(at).astype(int), 0, size - 2)
    share = np.clip(at - low, 0, 1).astype(np.float32)
    corners = np.stack([depth[np.ix_(low + i, low + j)] for i in (0, 1) for j in (0, 1)])
    upper = corners[0] * (1 - share) + corners[1] * share
    lower = corners[2] * (1 - share) + corners[3] * share
    near = depth[np.ix_(np.arange(size * factor) // factor, np.arange(size * factor) // factor)]
    level = (corners > 0).all(axis=0) & (np.ptp(corners, axis=0) < 1.0)
    return np.where(level, upper * (1 - share[:, None]) + lower * share[:, None], near).astype(np.float32)


def embed(data: Path, product: str, variant: tuple[int, int, int], networks: TorchNetworks) -> None:
    """Frozen features of every tile of every frame, and of held-out normals with pseudo-defects."""
    size_px, enlarged, tiles = variant
    source, folder = Source(data, product, size_px, enlarged), _folder(data, product, variant)
    folder.mkdir(parents=True, exist_ok=True)
    geometry = fit_geometry(_Normals(source, 12))
    network = network_for(tiled(profile("lite"), tiles), geometry, "none")
    for kind, scale, number in plan():
        own = number if kind == GOOD else (number - 1000) % 50
        _keep(folder / f"{kind}-{scale}-{own}.npz", source.frame, (kind, scale, number),
              geometry, network, networks)  # fmt: skip
    for order, j in itertools.product(range(len(KINDS)), range(PSEUDO if enlarged == 1 else 0)):
        number = NORMALS - 1 - (j + 4 * order) % 30
        _keep(folder / f"pseudo_{KINDS[order]}-{number}-{j}.npz", lambda *at: _spoiled(source, geometry, *at),
              (number, order, j), geometry, network, networks)  # fmt: skip


def _spoiled(source: Source, geometry: Geometry, number: int, order: int, j: int) -> Frame:
    rng, (sizes, strengths) = np.random.default_rng([7, order, j]), SPANS[KINDS[order]]
    size_mm = float(np.exp(rng.uniform(*np.log(sizes)))) * geometry.side_px * geometry.mm_per_px
    defect = FrameDefect(KINDS[order], size_mm, float(rng.uniform(*strengths)))
    return spoil_frame(source.frame(GOOD, 1.0, number), geometry, defect, rng).frame


def _keep(
    path: Path, make: Callable[..., Frame], at: tuple[Any, ...], geometry: Geometry, network: Network,
    networks: TorchNetworks,
) -> None:  # fmt: skip
    if path.exists():
        return
    prepared, clock = prepare(make(*at), geometry, network), StageClock()
    tiles = scorable(Tiling.of(network), prepared, network)
    none = np.zeros((network.grid**2, network.rgb_channels), np.float32)
    rgb = [none if tile is None else networks.rgb(normalised_image(tile, network)) for tile in tiles]
    grouped = point_groups(prepared, of_window(network), clock)
    points = point_patches(grouped, network, networks, clock)
    np.savez(path, r=np.stack(rgb).astype(np.float16), p=points.astype(np.float16), e=grouped.nonempty)


class Cached:
    """Cached features of one product and variant."""

    def __init__(self, data: Path, product: str, variant: tuple[int, int, int]) -> None:
        self.folder, self.tiling = _folder(data, product, variant), Tiling(variant[2], 28)

    def of(self, name: str) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """RGB of every tile (tiles x patches x channels), points on the window's grid, and which patches have any."""
        stored, grid = np.load(self.folder / f"{name}.npz"), self.tiling.window_grid
        points = stored["p"].astype(np.float32).reshape(grid**2, -1)
        return stored["r"].astype(np.float32), points, stored["e"].reshape(grid, grid)

    def names(self, prefix: str) -> list[str]:
        """Frames of this kind."""
        return sorted(path.stem for path in self.folder.glob(f"{prefix}-*.npz"))


Banks = tuple[list[ModalityBank], ModalityBank]


def fit(cached: Cached, names: Sequence[str], positional: bool, every: bool) -> Banks:
    """Colour banks of every tile, one for all or one of the tile's own place, and the points' bank.

    ``every``: overlaps are banked from every tile that sees them.
    """
    lite, tiling, share = profile("lite"), cached.tiling, 0.1 * len(names) * cached.tiling.window_grid**2
    rows, owners, places, shape, shape_owners = [], [], [], [], []
    for owner, frame in enumerate(names):
        rgb, points, nonempty = cached.of(frame)
        shape.append(points[nonempty.ravel()])
        shape_owners.append(np.full(int(nonempty.sum()), owner))
        for tile in range(tiling.tiles**2):
            taken = tiling.of_tile(nonempty, tile) & (True if every else tiling.own(tile))
            rows.append(rgb[tile][taken.ravel()])
            owners.append(np.full(int(taken.sum()), owner))
            places.append(np.full(int(taken.sum()), tile))
    wanted = min(int(share), lite.rgb_bank_cap)
    table, own, place = np.concatenate(rows), np.concatenate(owners), np.concatenate(places)
    if positional:
        each = [place == tile for tile in range(tiling.tiles**2)]
        colour = [make_bank("rgb", table[one], own[one], wanted // len(each), lite).bank for one in each]
    else:
        colour = [make_bank("rgb", table, own, wanted, lite).bank] * tiling.tiles**2
    cap = min(int(share), lite.points_bank_cap)
    return colour, make_bank("points", np.concatenate(shape), np.concatenate(shape_owners), cap, lite).bank


def measured(cached: Cached, names: Sequence[str], banks: Banks, merge: str) -> tuple[Scored, float]:
    """Every frame's map of each modality on the window's grid, and the processor's ms a frame.

    ``merge`` of overlaps: ``own`` (the tile in whose middle a patch lies), ``min`` or ``mean`` of all that see it.
    """
    tiling, grid, begin = cached.tiling, cached.tiling.window_grid, time.process_time()
    scored: Scored = {}
    for frame in names:
        rgb, points, nonempty = cached.of(frame)
        stack = np.full((tiling.tiles**2, grid, grid), np.nan, np.float32)
        for tile in range(tiling.tiles**2):
            seen = tiling.of_tile(nonempty, tile) & (tiling.own(tile) if merge == "own" else True)
            tiling.of_tile(stack[tile], tile)[seen] = _local(rgb[tile][seen.ravel()], banks[0][tile])
        stack[:, ~nonempty] = 0.0
        shape = np.zeros((grid, grid), np.float32)
        shape[nonempty] = _local(points[nonempty.ravel()], banks[1])
        merged = np.nanmin(stack, axis=0) if merge == "min" else np.nanmean(stack, axis=0)
        scored[frame] = {"rgb": merged, "points": shape}
    return scored, 1000 * (time.process_time() - begin) / max(1, len(names))


def _local(features: FloatArray, bank: ModalityBank) -> Grid:
    assert bank.usual is not None
    return bank.usual.local(*bank.memory.nearest(bank.standardised(features))) if len(features) else np.zeros(0)


def scores(scored: Scored, held_out: Sequence[str], sigma_px: float) -> dict[str, float]:
    """The mean of both modalities' standardised image distances, by frame."""
    peaks = {
        frame: np.array([float(pixel_map(found[name], sigma_px).max()) for name in NAMES])
        for frame, found in scored.items()
    }
    calm = np.stack([peaks[frame] for frame in held_out])
    return {frame: float(((peak - calm.mean(0)) / calm.std(0)).mean()) for frame, peak in peaks.items()}


def _folder(data: Path, product: str, variant: tuple[int, int, int]) -> Path:
    return data / "cache" / f"{product}-{variant[0]}x{variant[1]}-{variant[2]}"


def _held_out() -> list[str]:
    return [f"{GOOD}-1.0-{number}" for number in range(NORMALS // 2, NORMALS)]


def _fitted() -> list[str]:
    return [f"{GOOD}-1.0-{number}" for number in range(FIT)]


def choose(data: Path) -> list[dict[str, Any]]:
    """One row per way of merging, searching and blurring, 2 x 2 tiles, by pseudo-defects on held-out normals."""
    rows = []
    for product, (positional, merge) in itertools.product(
        PRODUCTS, ((False, "own"), (True, "own"), (False, "min"), (False, "mean"))
    ):
        cached = Cached(data, product, (1024, 1, 2))
        pseudo = [name for kind in KINDS for name in cached.names(f"pseudo_{kind}")]
        scored, ms = measured(cached, _held_out() + pseudo, fit(cached, _fitted(), positional, merge != "own"), merge)
        for sigma_px in (BLUR_SIGMA_PX, own_blur_px(cached.tiling.window_grid)):
            found = scores(scored, _held_out(), sigma_px)
            good = np.array([found[name] for name in _held_out()])
            row = {"product": product, "positional": positional, "merge": merge, "blur_px": round(sigma_px, 2)}
            row |= {"cpu_ms_search": round(ms), "auroc": _auroc(good, found, pseudo)}
            row |= {kind: _auroc(good, found, cached.names(f"pseudo_{kind}")) for kind in KINDS}
            print(row, flush=True)
            rows.append(row)
    return rows


def _auroc(good: Grid, found: Mapping[str, float], names: Sequence[str]) -> float:
    return round(auroc(good, np.array([found[name] for name in names])), 3)


def table(data: Path) -> list[dict[str, Any]]:
    """Per variant: rendered defects of present and half size found, and the promise over splits of held-out frames."""
    rows = []
    for product, variant in itertools.product(PRODUCTS, VARIANTS):
        cached = Cached(data, product, variant)
        if len(cached.names(GOOD)) < NORMALS:
            print(variant, "has no features yet", flush=True)
            continue
        spoiled = {scale: [f"{kind}-{scale}-{j}" for kind in KINDS for j in range(EACH)] for scale in SCALES}
        names = _held_out() + [name for some in spoiled.values() for name in some]
        scored, ms = measured(cached, names, fit(cached, _fitted(), False, False), "own")
        sigma_px = own_blur_px(cached.tiling.window_grid)
        found = scores(scored, _held_out(), sigma_px)
        good = np.array([found[name] for name in _held_out()])
        limit = conformal_threshold(good, ALPHA)
        row: dict[str, Any] = {
            "product": product,
            "rendered_px": variant[0],
            "enlarged": variant[1],
            "tiles": variant[2],
        }
        row |= {"cpu_ms_search": round(ms), **_promise(good)}
        for scale, some in spoiled.items():
            seen = np.array([found[name] > limit for name in some])
            row[f"found_{scale}"] = round(float(seen.mean()), 3)
            row[f"auroc_{scale}"] = _auroc(good, found, some)
            row[f"by_kind_{scale}"] = {
                kind: round(float(seen[EACH * order : EACH * (order + 1)].mean()), 2)
                for order, kind in enumerate(KINDS)
            }
            row[f"scores_{scale}"] = [round(found[name], 3) for name in some]
        print({key: value for key, value in row.items() if not key.startswith("scores")}, flush=True)
        rows.append(row)
    return rows


def _promise(good: Grid) -> dict[str, float]:
    """Mean rate of good frames above a threshold set by the others, over random halves, beside what is promised."""
    rng, half, rates = np.random.default_rng(0), len(good) // 2, []
    for _ in range(SPLITS):
        order = rng.permutation(len(good))
        rates.append(float((good[order[half:]] > conformal_threshold(good[order[:half]], ALPHA)).mean()))
    promised = int((half + 1) * ALPHA + 1e-9) / (half + 1)
    return {"promised": round(promised, 4), "observed": round(float(np.mean(rates)), 4), "splits": SPLITS}


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("frames", "features", "choose", "table"))
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    command = f"python -m asperity.benchmarks.accuracy.tiles {given.action}"
    torch.set_num_threads(1)
    if given.action == "frames":
        for product, size_px in itertools.product(PRODUCTS, sorted({variant[0] for variant in VARIANTS})):
            render(given.data, product, size_px)
    elif given.action == "features":
        networks = build(profile("lite"))
        for product, variant in itertools.product(PRODUCTS, VARIANTS):
            embed(given.data, product, variant, networks)
    else:
        rows = choose(given.data) if given.action == "choose" else table(given.data)
        write_result(RESULTS / f"{given.action}.json", {"command": command, "rows": rows})


if __name__ == "__main__":
    main()
