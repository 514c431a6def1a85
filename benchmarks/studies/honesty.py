"""Does the stated rate of false rejects hold? Many calibrations on normal frames, each judged on frames it never saw.

    asperity bench honesty --frames 1000 --splits 200

Normal frames of a virtual product are drawn once, some of as many parts as frames, some of parts seen several times.
Their patches (shipped point encoder, every second row and column of the grid) and the distance of every patch to every
other frame's nearest patch are cached, so that a calibration is: draw ``CHOSEN`` frames, split them as the product does
(``frames.split``), take the largest distance of a frame to the fit frames' patches as its score, and the threshold
by ``outcome.threshold``. All other frames are then judged. The memory bank is not thinned: what is asked is whether
the arithmetic of the threshold keeps its word, which does not depend on how good the scores are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.frames.split import split_frames
from asperity.calibration.networks.weights import POINTS_LITE, sha256_of
from asperity.calibration.outcome.threshold import Rate, choose_rate, threshold
from asperity.calibration.pretraining.run import load_encoder
from asperity.calibration.profiles import network_for, profile
from asperity.calibration.record import HeldOut
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.errors import UsageError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.points import group
from asperity.runtime.vision.preprocess import prepare

Array = NDArray[np.float64]

CHOSEN = 200
"""Normal frames of one calibration."""
VIEWS = 4
"""Frames of each part, where parts are seen several times."""
SEVERAL = 400
"""Frames of such parts: half are calibrated from, half judged."""
SEED = 91
GEOMETRY_FRAMES = 40
"""Of parts that nothing else shows: the geometry is the same for every calibration and favours no frame."""
STRIDE = 2

Mode = Literal["split", "leave-one-out", "grouped", "parts ignored"]
MODES: tuple[Mode, ...] = ("split", "leave-one-out", "grouped", "parts ignored")
"""``split`` and ``leave-one-out``: one frame a part. ``grouped``: parts seen several times, split and ranked by part as
the product does; a rate below what so few parts attain becomes the lowest that they do. ``parts ignored``: the same
frames split one by one, the control: fit and calibrate then share parts."""


@dataclass(frozen=True, slots=True)
class Population:
    """Normal frames: how far each patch lies from every other frame."""

    distances: FloatArray  # frames x patches; infinite from a frame to its own patches
    starts: NDArray[np.int64]  # frames: where each frame's patches begin
    parts: tuple[str, ...]

    def scores(self, fit: NDArray[np.int64]) -> FloatArray:
        """Each frame's score (frames,): the largest distance of its patches to the nearest patch of the fit frames.

        A fit frame's own patches are left out of what it is compared with.
        """
        return np.maximum.reduceat(self.distances[fit].min(axis=0), self.starts)


@dataclass(frozen=True, slots=True)
class Honesty:
    """One way to calibrate, over many splits."""

    mode: str
    asked: float
    stated: float
    """Mean of the rates promised (k / (n + 1))."""
    observed: float
    """Mean of the rates observed on frames that took no part; where the rate is of parts, the share of unseen parts
    with any frame rejected."""
    observed_frames: float
    """The same of single frames."""
    standard_error: float
    above_bound: float
    """Share of splits whose observed rate lies above the 95 % point of Beta(k, n + 1 - k)."""
    bound: float
    calibrate_frames: float
    rates: list[float]

    @property
    def keeps_its_word(self) -> bool:
        """Mean at most two standard errors above what is stated."""
        return self.observed <= self.stated + 2 * self.standard_error


def population(patches: list[FloatArray], parts: tuple[str, ...]) -> Population:
    """From each frame's patches (n_i, C). Frames without patches cannot be scored: raises UsageError."""
    sizes = [len(rows) for rows in patches]
    if not all(sizes):
        raise UsageError(f"frame {sizes.index(0)} has no filled patch to score; take another product or seed")
    every = np.concatenate(patches).astype(np.float32)
    every -= every.mean(axis=0)
    squares = np.einsum("nc,nc->n", every, every)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    distances = np.empty((len(patches), len(every)), np.float32)
    for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        own = slice(start, start + size)
        product = every[own] @ every.T
        squared = (squares[own, None] - 2 * product).min(axis=0) + squares
        distances[index] = np.sqrt(np.maximum(squared, 0))
        distances[index, own] = np.inf
    return Population(distances, starts, parts)


def judge(people: Population, mode: Mode, asked: float, splits: int, seed: int = 0, chosen: int = CHOSEN) -> Honesty:
    """Calibrate and judge ``splits`` times."""
    rng = np.random.default_rng(seed)
    held_out: HeldOut = "leave_one_out" if mode == "leave-one-out" else "split"
    stated, rates, above, bounds, frames, single = [], [], [], [], [], []
    for _ in range(splits):
        picked = _draw(people.parts, chosen, rng)
        ids = [people.parts[i] if mode != "parts ignored" else str(i) for i in picked]
        made = split_frames(ids, held_out=held_out, seed=int(rng.integers(2**31)))
        scores = people.scores(picked[list(made.fit)])
        rate = _rate(len(made.calibrate), made.calibrate_parts, asked)
        held = picked[list(made.calibrate)]
        limit = threshold(scores[held].tolist(), rate, [people.parts[i] for i in held])
        unseen = np.setdiff1d(np.arange(len(people.parts)), picked)
        rejected = scores[unseen] > limit
        observed = _of_parts(rejected, [people.parts[i] for i in unseen]) if rate.of_parts else float(rejected.mean())
        single.append(float(rejected.mean()))
        stated.append(rate.alpha)
        rates.append(round(observed, 5))
        bounds.append(rate.bound())
        above.append(observed > rate.bound())
        frames.append(len(made.calibrate))
    return Honesty(
        mode=mode, asked=asked, stated=float(np.mean(stated)), observed=float(np.mean(rates)),
        standard_error=float(np.std(rates, ddof=1) / np.sqrt(splits)), above_bound=float(np.mean(above)),
        bound=float(np.mean(bounds)), observed_frames=float(np.mean(single)),
        calibrate_frames=float(np.mean(frames)), rates=rates,
    )  # fmt: skip


def _rate(frames: int, parts: int, asked: float) -> Rate:
    """Of so many calibration frames and parts; the lowest attainable one where ``asked`` is below it."""
    witnesses = parts if 0 < parts < frames else frames
    return choose_rate(frames, max(asked, 1 / (witnesses + 1)), parts=parts)


def _of_parts(rejected: NDArray[np.bool_], parts: list[str]) -> float:
    """Share of the parts with any frame rejected."""
    _, index = np.unique(parts, return_inverse=True)
    return float((np.bincount(index, weights=rejected) > 0).mean())


def _draw(parts: tuple[str, ...], count: int, rng: Generator) -> NDArray[np.int64]:
    """Frames of whole parts in random order, until there are ``count``."""
    names = np.array(parts)
    order = rng.permutation(np.unique(names))
    picked: list[int] = []
    for name in order:
        if len(picked) >= count:
            break
        picked.extend(np.flatnonzero(names == name).tolist())
    return np.array(sorted(picked), dtype=np.int64)


@torch.no_grad()
def draw_patches(product: str, parts: list[int], seed: int = SEED) -> list[FloatArray]:
    """Patches (n, C) of a normal frame for each entry of ``parts``, the number of its physical part."""
    camera = VirtualCamera(product, seed)
    first = max(parts) + 1
    geometry = fit_geometry([camera.frame(10**6 + i, part=first + i).frame for i in range(GEOMETRY_FRAMES)])
    network = network_for(profile("lite"), geometry, "none")
    encoder = load_encoder(POINTS_LITE)
    kept = np.zeros((network.grid, network.grid), bool)
    kept[::STRIDE, ::STRIDE] = True
    found = []
    for index, part in enumerate(parts):
        frame = prepare(camera.frame(index, part=part).frame, geometry, network)
        made = group(frame.cloud, network)
        tokens = encoder(torch.from_numpy(made.groups)[None], torch.from_numpy(made.centres)[None])[0].numpy()
        wanted = (kept & made.nonempty & frame.inspect).ravel()
        found.append(np.asarray(made.to_patches[np.flatnonzero(wanted)] @ tokens, dtype=np.float32))
    return found


def cached(path: Path, product: str, parts: list[int]) -> Population:
    """``draw_patches`` and ``population``, from ``path`` where it holds them for these weights."""
    key = np.array([sha256_of(POINTS_LITE), product, str(SEED), str(STRIDE), str(parts)])
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            if np.array_equal(stored["key"], key):
                rows = np.split(stored["rows"], stored["starts"][1:])
                return population(rows, tuple(str(part) for part in parts))
    patches = draw_patches(product, parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in patches])[:-1]])
    np.savez(path, key=key, rows=np.concatenate(patches), starts=starts)
    return population(patches, tuple(str(part) for part in parts))


def measure(product: str, frames: int, splits: int, alphas: tuple[float, ...], cache: Path) -> dict[str, Any]:
    """All modes at all rates. ``frames`` of one part each, and ``SEVERAL`` of parts with ``VIEWS`` frames."""
    rows: list[dict[str, Any]] = []
    for views, count, modes in ((1, frames, MODES[:2]), (VIEWS, SEVERAL, MODES[2:])):
        people = cached(cache / f"{product}-{count}-{views}.npz", product, [i // views for i in range(count)])
        for mode in modes:
            for asked in alphas:
                found = judge(people, mode, asked, splits)
                rows.append({**asdict(found), "keeps_its_word": found.keeps_its_word})
        del people
    return {
        "product": product, "frames": frames, "views": VIEWS, "frames_of_several_views": SEVERAL,
        "chosen": CHOSEN, "splits": splits, "seed": SEED,
        "weights_sha256": sha256_of(POINTS_LITE), "rows": rows,
    }  # fmt: skip


def plot(report: dict[str, Any], path: Path) -> None:
    """Observed rates of all splits by mode, with what was stated. Needs matplotlib."""
    from matplotlib.figure import Figure

    rows = report["rows"]
    figure = Figure(figsize=(1.6 * len(rows) + 2, 4), layout="constrained")
    axes = figure.subplots()
    axes.boxplot([row["rates"] for row in rows], whis=(5, 95), showfliers=False)
    for place, row in enumerate(rows, start=1):
        axes.plot([place - 0.4, place + 0.4], [row["stated"]] * 2, color="tab:green")
        axes.plot([place - 0.4, place + 0.4], [row["bound"]] * 2, color="tab:red", linestyle=":")
    axes.set_xticks(range(1, len(rows) + 1), [f"{row['mode']}\nasked {row['asked']:.0%}" for row in rows])
    axes.set_ylabel("false rejects on unseen frames")
    axes.set_title(f"{report['splits']} calibrations each: stated (green), 95 % bound (red), boxes with 5 to 95 %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
