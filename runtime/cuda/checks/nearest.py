"""Nearest neighbours in a memory bank, by each path, and the re-weighted image distance, against float64."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.device_bank import Path
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Prepared, Shape
from asperity.runtime.cuda.launch import Device, Enqueue
from asperity.runtime.cuda.nearest import REWEIGHTING_ROWS, NearestSearch
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.nearest import MemoryBank

MARGIN = 1e-6
"""Two distances this much apart (relative) are distinguished; nearer ones may be answered by either row."""

BRUTE_ROWS = 8
"""Queries of a large search that are also measured against every bank row. All are held to ``vision.nearest``, which is
exact in float64 by its own tests."""
BRUTE_WORK = 2**28

KINDS = ("random", "equal_rows", "duplicates", "crowded", "nan", "infinite", "huge", "masked", "none")

# The sizes of the profiles (lsfa 7.1): RGB and points banks, all patches and 40 % of them.
LARGE: tuple[Shape, ...] = (
    {"m": 3136, "n": 83292, "d": 1152},
    {"m": 1254, "n": 83292, "d": 1152},
    {"m": 784, "n": 83292, "d": 768},
    {"m": 784, "n": 8329, "d": 768},
    {"m": 784, "n": 113209, "d": 1152},
    {"m": 784, "n": 8192, "d": 152},
    {"m": 784, "n": 4096, "d": 384},
    {"m": 784, "n": 20000, "d": 384},
)
ODD: tuple[Shape, ...] = (
    {"m": 1, "n": 1, "d": 1152},
    {"m": 1, "n": 83292, "d": 1152},
    {"m": 129, "n": 1, "d": 768},
    {"m": 785, "n": 8191, "d": 152},
    {"m": 3135, "n": 1009, "d": 192},
    {"m": 127, "n": 12345, "d": 385},
)
SMALL: tuple[Shape, ...] = (
    {"m": 1, "n": 1, "d": 152},
    {"m": 130, "n": 3, "d": 192},
    {"m": 65, "n": 300, "d": 152},
)


class CheckedSearch:
    """One bank and one frame's tokens."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator, path: Path) -> None:
        self.device, self.kind = device, kind
        m, n, d = shape["m"], shape["n"], shape["d"]
        self.features, self.bank = tokens_and_bank(kind, m, n, d, rng)
        mask = np.ones(m, dtype=np.uint8)
        if kind == "masked":
            mask[rng.random(m) < 0.6] = 0
        if kind == "none":
            mask[:] = 0
        self.chosen = np.flatnonzero(mask)
        self._best: dict[int, tuple[float, int]] = {}
        self.search = NearestSearch(device, self.bank, m, path=path)
        self._features, self._mask = device.upload(self.features), device.upload(mask)
        rows, stride = len(self.chosen), self.search.plan.stride
        if path == "float32":
            self.work = Cost(flop=3 * rows * n * d, bytes=4 * (rows + n) * d, precision="float32")
        else:
            self.work = Cost(flop=2 * rows * n * d, bytes=2 * (rows + n) * stride, precision="float16")

    def enqueue(self) -> None:
        """One search."""
        self.search.enqueue(self._features, self._mask, len(self.chosen))

    def parts(self) -> dict[str, Enqueue]:
        """The search's steps by name, to be timed apart after a whole run."""
        return self.search.parts(self._features, self._mask, len(self.chosen))

    def problems(self) -> list[str]:
        """Every query, or a spread sample of a large search, against float64."""
        found = self.search.result()
        rows = len(self.chosen)
        told = []
        if len(found.distance) != rows:
            return [f"{len(found.distance)} queries were searched where {rows} are chosen"]
        damaged = ~np.isfinite(self.features[self.chosen]).all(axis=1)
        if found.not_finite != damaged.sum() or found.no_candidate:
            told.append(f"{found.not_finite} queries not finite (must be {damaged.sum()}), {found.no_candidate} lost")
        if not (np.isnan(found.distance[damaged]).all() and (found.index[damaged] == -1).all()):
            told.append("a query that is not finite got a distance")
        sound = np.flatnonzero(~damaged)
        self._find_best(sound)
        for row in sound.tolist():
            told += self._wrong(row, float(found.distance[row]), int(found.index[row]))
            if len(told) > 5:
                break
        return told

    def _find_best(self, sound: NDArray[np.int64]) -> None:
        """The nearest row of every sound query in float64, once for these inputs."""
        if self._best or not len(sound):
            return
        large = len(sound) * self.bank.size > BRUTE_WORK
        if large:
            nearest, index = MemoryBank(self.bank).nearest(self.features[self.chosen[sound]])
            self._best = dict(zip(sound.tolist(), zip(nearest.tolist(), index.tolist(), strict=True), strict=True))
        for row in sound[:: -(-len(sound) // BRUTE_ROWS)].tolist() if large else sound.tolist():
            exact = distances(self.features[self.chosen[row]], self.bank)
            best = int(exact.argmin())
            if large and exact[self._best[row][1]] > exact[best] * (1 + 1e-12):
                raise EngineError(f"the oracle itself is wrong: query {row}, rows {self._best[row][1]} and {best}")
            self._best[row] = float(exact[best]), best

    def _wrong(self, row: int, distance: float, index: int) -> list[str]:
        nearest, best = self._best[row]
        if not 0 <= index < len(self.bank):
            return [f"query {row} got bank row {index} of {len(self.bank)}"]
        exact = float(distances(self.features[self.chosen[row]], self.bank[index : index + 1])[0])
        if not abs(distance - exact) <= 2e-6 * exact:
            return [f"query {row}: distance {distance} to row {index}, in float64 {exact}"]
        if exact > nearest * (1 + MARGIN):
            return [f"query {row}: row {index} at {exact}, but row {best} lies at {nearest}"]
        if exact == nearest and index != best:
            return [f"query {row}: of equal rows {best} and {index} the higher one"]
        return []

    def figures(self) -> dict[str, float]:
        """Shares of the queries."""
        found = self.search.result()
        rows = max(1, len(self.chosen))
        return {"unsettled": found.unsettled / rows, "within_margin": found.within_margin / rows}


class CheckedNeighbours:
    """The re-weighted image distance behind one search."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        self._inner = CheckedSearch(device, shape, kind, rng, "tensor")
        self._inner.enqueue()
        n, d = self._inner.bank.shape
        self.work = Cost(flop=3 * n * d, bytes=4 * n * d)

    def enqueue(self) -> None:
        """From distances to the image distance."""
        self._inner.search.enqueue_image_distance()

    def problems(self) -> list[str]:
        """The image distance and m*'s neighbours against float64."""
        inner = self._inner
        found = inner.search.result()
        expected = image_distance(found.distance, found.index, inner.features[inner.chosen], inner.bank)
        if expected is None:
            return [] if np.isnan(found.image_distance) else [f"image distance {found.image_distance} of damaged input"]
        if not abs(found.image_distance - expected) <= 1e-5 * abs(expected) + 1e-12:
            return [f"image distance {found.image_distance}, in float64 {expected}"]
        return []

    def figures(self) -> dict[str, float]:
        """None."""
        return {}


def tokens_and_bank(kind: str, m: int, n: int, d: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """(m, d) tokens and (n, d) bank rows, float32: rows around a few places, tokens near rows."""
    bank = rng.standard_normal((n, d), dtype=np.float32)
    bank *= np.float32(0.5)
    bank += rng.standard_normal((8, d), dtype=np.float32)[rng.integers(0, 8, n)]
    tokens = bank[rng.integers(0, n, m)] + np.float32(0.4) * rng.standard_normal((m, d), dtype=np.float32)
    if kind == "equal_rows":
        bank[:] = bank[0]
    elif kind == "duplicates":
        bank[n // 2 :] = bank[: n - n // 2]
        tokens[: m // 2] = bank[rng.integers(0, n, m // 2)]
    elif kind == "crowded":  # two far crowds whose members half cannot tell apart
        bank = np.sign(np.arange(n) - n / 2 + 0.5, dtype=np.float32)[:, None] * bank[0] + np.float32(1e-4) * bank
        tokens = bank[rng.integers(0, n, m)] + np.float32(1e-4) * tokens
    elif kind == "nan":
        tokens[m // 2, d // 2] = np.nan
    elif kind == "infinite":
        tokens[m - 1, d - 1] = -np.inf
    elif kind == "huge":
        tokens[0] *= np.float32(1e7)
    elif kind not in ("random", "masked", "none"):
        raise ValueError(f"no kind of input {kind!r}")
    return tokens, bank


def distances(query: FloatArray, bank: FloatArray) -> NDArray[np.float64]:
    """Euclidean distances of one query to every row in float64, in blocks that fit a cache."""
    exact = np.empty(len(bank))
    for start in range(0, len(bank), 8192):
        difference = bank[start : start + 8192].astype(np.float64) - query
        exact[start : start + 8192] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    return exact


def image_distance(
    distance: FloatArray, index: NDArray[np.int32], queries: FloatArray, bank: FloatArray
) -> float | None:
    """lsfa 7.3 in float64 from the distances found; None where there must be none."""
    if len(distance) == 0 or not np.isfinite(distance).all() or len(bank) < REWEIGHTING_ROWS:
        return None
    worst = int(distance.argmax())
    order = np.argsort(distances(bank[index[worst]], bank), kind="stable")[1:REWEIGHTING_ROWS]
    exact = distances(queries[worst], bank[[int(index[worst]), *order]])
    weight = 1.0 - 1.0 / np.exp((exact[1:] - exact[0]) / np.sqrt(bank.shape[1])).sum()
    return float(weight * exact[0])


def _search(path: Path, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> Prepared:
    return CheckedSearch(device, shape, kind, rng, path)


def _entry(path: Path, source: str, shapes: tuple[Shape, ...] = LARGE + ODD) -> KernelEntry:
    chip = (9, 0)
    return KernelEntry(
        name=f"nearest_{path}",
        source=source,
        prepare=partial(_search, path),
        shapes=shapes,
        small=SMALL,
        kinds=KINDS,
        timed=LARGE,
        hard=ODD[2:],
        least=chip if path == "wgmma" else (7, 5),
        most=chip if path == "wgmma" else (99, 9),
    )


ENTRIES = (
    _entry("tensor", "nearest_tensor"),
    _entry("wgmma", "nearest_wgmma"),
    _entry("product", "nearest_product"),
    _entry("float32", "nearest_exact", LARGE[1:4] + ODD),
    KernelEntry(
        name="neighbours",
        source="neighbours",
        prepare=CheckedNeighbours,
        shapes=LARGE + ODD,
        small=SMALL,
        kinds=("random", "nan", "none"),
        timed=LARGE,
        hard=ODD[2:],
    ),
)
