"""The rows of the shifted set's table: banks of the fit frames, of more rows, and of their views."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from asperity.benchmarks.accuracy.shifted import FIT, FRAMES, SHIFTS, Cached, load, make, roles
from asperity.calibration.auroc import auroc, wins
from asperity.calibration.banks.coreset import bank_rows
from asperity.calibration.banks.reference import OwnedBanks, make_bank
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.features.views import VIEWS
from asperity.calibration.profiles import profile
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.maps import pixel_map
from asperity.runtime.vision.scoring import conformal_threshold

ALPHA = 0.05
BANK_CAP = 2048
"""Rows of either bank at most: a bank of views is hardly larger than that of the frames alone (1568)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method."""

    bank_views: bool = False
    rows_like_views: bool = False
    """The bank has as many rows as one of views."""
    fit: int = 20


ROWS: dict[str, Row] = {
    "frozen": Row(),
    "frozen-large": Row(rows_like_views=True),
    "frozen-views": Row(bank_views=True),
}
ROWS |= {f"frozen-{n}": Row(fit=n) for n in (5, 10)}
ROWS |= {f"frozen-large-{n}": Row(rows_like_views=True, fit=n) for n in (5, 10)}
ROWS |= {f"frozen-views-{n}": Row(bank_views=True, fit=n) for n in (5, 10)}


FEW = ("none", "half")
"""Shifts on which rows of fewer frames are judged."""


class Judged(msgspec.Struct, frozen=True):
    """A row on one product from one seed. Scores of the shifted frames as standard deviations above the threshold."""

    good: dict[str, list[float]]
    spoiled: dict[str, list[float]]
    select: list[float]
    """Image AUROC of the selecting frames: colour, geometry, both."""


def judge(cached: Cached, row: Row, seed: int) -> Judged:
    """Everything of one row, product and seed."""
    use = roles(seed, row.fit)
    fit = cached.sets["normal"].subset(use.fit)
    owners = np.array(use.fit)
    if row.bank_views:
        seen = cached.sets["views"].subset(cached.views(use.fit))
        fit, owners = _joined(fit, seen), np.concatenate([owners, np.repeat(owners, VIEWS)])
    frames = len(use.fit) * (1 + VIEWS if row.bank_views or row.rows_like_views else 1)
    banks = _banks(fit, owners, frames)

    def scores(patches: PatchSet) -> NDArray[np.float64]:
        return _distances(patches, banks)

    tune = scores(cached.sets["normal"].subset(use.tune))
    mean, std = tune.mean(axis=0), tune.std(axis=0, ddof=1)

    def fused(patches: PatchSet) -> NDArray[np.float64]:
        return np.asarray(((scores(patches) - mean) / std).mean(axis=1))

    calm = fused(cached.sets["normal"].subset(use.calibrate))
    limit = conformal_threshold(calm, ALPHA)
    select = fused(cached.sets["normal"].subset(use.select))
    spoiled = fused(cached.sets["select"])
    told = [auroc(select, values) for values in (spoiled[1::2], spoiled[::2], spoiled)]

    def above(name: str) -> list[float]:
        return [round(float(value), 4) for value in fused(cached.sets[name]) - limit]

    names = SHIFTS if row.fit == FIT else FEW
    return Judged(
        {name: above(f"{name}-good") for name in names}, {name: above(f"{name}-spoiled") for name in names}, told
    )


def _joined(first: PatchSet, second: PatchSet) -> PatchSet:
    return PatchSet(
        {name: np.concatenate([one, second.features[name]]) for name, one in first.features.items()},
        np.concatenate([first.nonempty, second.nonempty]),
    )


def _banks(fit: PatchSet, owners: NDArray[np.int64], frames: int) -> OwnedBanks:
    chosen = profile("lite")
    filled = fit.nonempty.reshape(len(fit), -1)
    own = np.repeat(owners, filled.sum(axis=1))
    return {
        name: make_bank(name, values[filled], own, min(bank_rows(chosen, frames)[name], BANK_CAP), chosen)
        for name, values in fit.features.items()
    }


def _distances(patches: PatchSet, banks: OwnedBanks) -> NDArray[np.float64]:
    """Image distances, frames x 2: ``runtime.vision.distances`` of all frames at once."""
    filled = patches.nonempty.reshape(len(patches), -1)
    found = np.zeros((len(patches), 2))
    for modality, name in enumerate(banks):
        bank = banks[name].bank
        distances, index = _nearest(bank.standardised(patches.features[name][filled]), bank.memory.rows)
        assert bank.usual is not None
        maps = np.zeros(filled.shape, np.float32)
        maps[filled] = bank.usual.local(distances, index)
        side = patches.grid
        found[:, modality] = [pixel_map(one.reshape(side, side)).max() for one in maps]
    return found


def _nearest(queries: FloatArray, rows: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    bank = torch.from_numpy(np.ascontiguousarray(rows))
    half = 0.5 * bank.square().sum(1)
    distances, indices = [], []
    for start in range(0, len(queries), 2048):
        block = torch.from_numpy(queries[start : start + 2048])
        index = torch.addmm(half, block, bank.T, alpha=-1.0).argmin(1)
        distances.append((block - bank[index]).double().square().sum(1).sqrt())
        indices.append(index)
    return torch.cat(distances).numpy(), torch.cat(indices).numpy()


Trials = dict[str, Judged]
"""By \"product seed\"."""
BARS = ("none", "half", "all")


def table(found: dict[str, Trials], against: str = "frozen") -> str:
    """Markdown of the finished rows. ``found``: row -> "product seed" -> what it did."""
    head = [
        "row",
        "select",
        "shuffled",
        *(f"{name}: rejects, finds, AUROC" for name in SHIFTS),
        f"less {against}: rejects, finds, AUROC [95 %]",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, trials in found.items():
        cells = [row, f"{np.mean([one.select[2] for one in trials.values()]):.4f}", f"{_shuffled(trials.values()):.3f}"]
        for name in SHIFTS:
            told = [f"{value:.3f}" for value in _figures(trials, name)] if _all_have(name, trials) else ["-"]
            cells.append(", ".join(told))
        gap = ""
        if row != against and against in found:
            told = [f"{name}: {_interval(found[against], trials, name)}" for name in BARS if _all_have(name, trials)]
            gap = "; ".join(told)
        lines.append("| " + " | ".join([*cells, gap]) + " |")
    return "\n".join(lines)


def _base(row: str) -> str:
    few = [n for n in ("5", "10") if row.endswith(f"-{n}")]
    return f"frozen-{few[0]}" if few else "frozen"


def _shuffled(trials: Iterable[Judged]) -> float:
    """The control that must lie near .5: AUROC of each trial's unshifted frames with their labels shuffled."""
    rng = np.random.default_rng(0)
    mixed = [rng.permutation([*one.good["none"], *one.spoiled["none"]]) for one in trials]
    return float(np.mean([auroc(one[:FRAMES], one[FRAMES:]) for one in mixed]))


def _all_have(name: str, trials: Trials) -> bool:
    return all(name in one.good for one in trials.values())


def _figures(trials: Trials, name: str, drawn: dict[str, NDArray[np.int64]] | None = None) -> NDArray[np.float64]:
    """Share of good frames rejected, of spoiled ones found, and AUROC; means of the trials. ``drawn``: by product."""
    rows = []
    for trial, one in trials.items():
        good, bad = np.array(one.good[name]), np.array(one.spoiled[name])
        if drawn is not None:
            frames = drawn[trial.split()[0]]
            good, bad = good[frames], bad[frames]
        rows.append([(good > 0).mean(), (bad > 0).mean(), wins(good, bad).mean()])
    return np.asarray(np.mean(rows, axis=0))


def _interval(base: Trials, other: Trials, name: str, rounds: int = 500) -> str:
    """Paired differences on one shift: seeds, and each product's frames, resampled."""
    rng = np.random.default_rng(0)
    shared = sorted(set(base) & set(other))
    seeds = sorted({trial.split()[1] for trial in shared})

    def less(trials: Sequence[str], drawn: dict[str, NDArray[np.int64]] | None) -> NDArray[np.float64]:
        # A seed drawn twice counts twice: numbered, so that its trials stay apart.
        first, second = ({f"{one} {i}": of[one] for i, one in enumerate(trials)} for of in (base, other))
        return _figures(second, name, drawn) - _figures(first, name, drawn)

    found = []
    for _ in range(rounds):
        picked = rng.choice(seeds, len(seeds))
        drawn = {product: rng.integers(FRAMES, size=FRAMES) for product in sorted({one.split()[0] for one in shared})}
        found.append(less([one for seed in picked for one in shared if one.split()[1] == seed], drawn))
    low, high = np.percentile(found, (2.5, 97.5), axis=0)
    return ", ".join(f"{a:+.3f} [{b:+.3f}, {c:+.3f}]" for a, b, c in zip(less(shared, None), low, high, strict=True))


def main() -> None:
    """See ``shifted``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("make", "run", "table"))
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path, help="make: the data set; else the file of the results")
    parser.add_argument("row", nargs="*", help="of " + ", ".join(ROWS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--products", default="bracket,nameplate,roll")
    given = parser.parse_args()
    if given.action == "make":
        make(given.out, given.cache, 61)
        return
    found: dict[str, dict[str, Judged]] = {}
    if given.out.exists():
        found = msgspec.json.decode(given.out.read_bytes(), type=dict[str, dict[str, Judged]])
    if given.action == "table":
        for against in ("frozen", *(f"frozen-{n}" for n in (5, 10))):
            print(table({row: one for row, one in found.items() if _base(row) == against}, against))
        return
    for product in given.products.split(","):
        cached = load(given.cache / product)
        for row in given.row or ROWS:
            for seed in given.seeds:
                done = found.setdefault(row, {})
                if f"{product} {seed}" in done:
                    continue
                begin = time.process_time()
                one = done[f"{product} {seed}"] = judge(cached, ROWS[row], seed)
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_bytes(msgspec.json.encode(found))
                told = " ".join(
                    f"{name} " + "/".join(f"{value:.2f}" for value in _figures({product: one}, name))
                    for name in one.good
                )
                print(f"{product} {seed} {row}: {one.select[2]:.3f} {told} "
                      f"({time.process_time() - begin:.0f} s)", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
