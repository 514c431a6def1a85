"""Fused map, its worst spot and image distances against the runtime's and float64."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.cuda.checks.clouds import EMPTY, NOT_FINITE, clear_fault, fault_problems
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.cuda.maps import (
    FUSED,
    SCORED,
    ImageDistance,
    LocalDistances,
    Maps,
    Peak,
    neighbour_table,
    peak_values,
)
from asperity.runtime.frame import FloatArray, ModalityName, ModalityScores
from asperity.runtime.manifest import Decision, Modality
from asperity.runtime.vision.distances import image_distance
from asperity.runtime.vision.maps import BLUR_SIGMA_PX, MAP_PX, own_blur_px, pixel_map
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.scoring import fused_map

MAP_ROUNDING = 2e-6
"""Of a map's value, relative to the largest magnitude: two float32 sums of up to 56 terms, and the CPU's float32."""

DISTANCE_ROUNDING = 1e-12
"""Of an image distance: float64 sums in another order."""

DECISION = Decision(
    engine="check", precision="float32", rgb=Modality(0.0, 1.0, 5.0, 0.7, 4.0, 0.9, 0.5, 10),
    points=Modality(0.0, 1.0, 6.0, 0.8, 5.0, 1.1, 0.45, 10), fusion="average", threshold=3.0, alpha=0.02,
    alpha_total=0.02, calibration_scores=(1.0,),
)  # fmt: skip

SQUARES = msgspec.structs.replace(
    DECISION, fusion="squares", rgb=Modality(0.0, 1.0, 5.0, 0.7, 4.0, 0.9, 1.0, 10),
    points=Modality(0.0, 1.0, 6.0, 0.8, 5.0, 1.1, 1.0, 10),
)  # fmt: skip
LEFT_OUT = msgspec.structs.replace(SQUARES, points=Modality(0.0, 1.0, 6.0, 0.8, 5.0, 1.1, 0.0, 10))
"""The points count for nothing, but their damage does."""
THREE = msgspec.structs.replace(SQUARES, geometry=Modality(0.0, 1.0, 5.0, 0.7, 3.0, 0.6, 1.0, 10))
NO_POINTS = msgspec.structs.replace(THREE, points=None, height=Modality(0.0, 1.0, 5.0, 0.7, 2.0, 0.5, 1.0, 10))
DECISIONS = {
    "squares": SQUARES, "three": THREE, "three_nan": THREE, "left_out": LEFT_OUT, "left_out_nan": LEFT_OUT,
    "no_points": NO_POINTS,
}  # fmt: skip
"""By kind of input; otherwise ``DECISION``."""


def maps_of(device: Device, grid: int, rgb_grid: int, slots: int, decision: Decision = DECISION) -> Maps:
    """A stage whose distances nobody gives."""
    rows = max(rgb_grid**2, slots, grid**2)
    return Maps(
        device, grid, rgb_grid, slots, decision, {name: device.alloc(4 * rows) for name in decision.modalities()}
    )


class CheckedMaps:
    """Distances of one frame through the map's kernels."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        self.grid, self.rgb_grid, self.kind, self.device = shape["grid"], shape["rgb_grid"], kind, device
        self.decision, self.damaged = DECISIONS.get(kind, DECISION), kind.endswith("nan")
        grid, patches = self.grid, self.grid**2
        nonempty = rng.random(patches) < (0.0 if kind == "empty" else 0.6)
        self.inspect = rng.random(patches) < 0.9
        self.count = int(nonempty.sum())
        numbers = np.where(nonempty, np.cumsum(nonempty) - 1, -1).astype(np.int32)
        self.slots = max(self.count, 1)
        distances = rng.gamma(4.0, 1.5, self.slots).astype(np.float32)
        tokens, surface = (rng.gamma(4.0, 1.2, self.rgb_grid**2).astype(np.float32) for _ in range(2))
        if kind == "flat":
            distances[:], tokens[:] = 3.0, 3.0
            nonempty[:], self.inspect[:] = True, True
            numbers = np.arange(patches, dtype=np.int32)
            distances, self.slots, self.count = np.full(patches, 3.0, np.float32), patches, patches
        self.scored = ((numbers >= 0) & self.inspect).reshape(grid, grid)
        if self.damaged:
            at = int(np.flatnonzero(self.scored.ravel())[3])
            repeat = grid // self.rgb_grid
            token = at // grid // repeat * self.rgb_grid + at % grid // repeat
            surface[token] = np.nan
            if not self.decision.geometry:
                distances[numbers[at]] = np.nan
        self.distances, self.tokens, self.surface, self.numbers = distances, tokens, surface, numbers
        self.patch_distances = rng.gamma(4.0, 1.1, (grid, grid)).astype(np.float32)
        given: dict[ModalityName, FloatArray] = {
            "rgb": tokens, "points": distances, "geometry": surface, "height": self.patch_distances,
        }  # fmt: skip
        sources = {name: device.upload(given[name]) for name in self.decision.modalities()}
        self.blur_px = 2.0 if kind == "no_points" else BLUR_SIGMA_PX
        self.stage = Maps(device, grid, self.rgb_grid, self.slots, self.decision, sources, self.blur_px)
        self.inputs = device.upload(numbers), device.upload(self.inspect.astype(np.uint8))
        self.threads = shape.get("threads", 1024)
        self.fault = clear_fault(device)
        planes = self.stage.count
        flop = 2 * planes * MAP_PX * grid * (grid + MAP_PX)
        self.work = Cost(flop=flop, bytes=4 * planes * (MAP_PX**2 + grid**2))

    def enqueue(self) -> None:
        """Launches only."""
        self.stage.enqueue(*self.inputs, self.fault)
        self.stage.enqueue_region(self.fault, self.threads)

    def problems(self) -> list[str]:
        """Against scoring.fused_map, maps.pixel_map, and the region's rule on the device's own map."""
        told = fault_problems(self.device, self.fault, NOT_FINITE if self.damaged else 0)
        peaks = self.stage.download_peaks()
        if self.damaged:
            # Damage must stay in sight of everybody who looks.
            damaged = [FUSED, self.stage.plane_of["geometry" if self.decision.geometry else "points"]]
            return told + ([] if np.isnan(peaks[damaged]).all() else ["NaN did not reach the peaks"])
        grid, repeat = self.grid, self.grid // self.rgb_grid
        rgb, surface = (
            tokens.reshape(self.rgb_grid, -1).repeat(repeat, axis=0).repeat(repeat, axis=1)
            for tokens in (self.tokens, self.surface)
        )
        points = self.distances[np.maximum(self.numbers, 0)].reshape(grid, grid)
        laid: dict[ModalityName, FloatArray] = {
            "rgb": rgb, "points": points, "geometry": surface, "height": self.patch_distances,
        }  # fmt: skip
        modalities = {
            name: ModalityScores(np.where(self.scored, laid[name], np.float32(0)), 0.0)
            for name in self.decision.modalities()
        }
        wanted = {FUSED: fused_map(modalities, self.decision), SCORED: self.scored.astype(np.float32)}
        wanted |= {self.stage.plane_of[name]: one.distance_map for name, one in modalities.items()}
        count = self.stage.count
        planes = self.device.download(self.stage.planes, (count, grid, grid), np.float32)
        pixels = self.device.download(self.stage.pixels, (count, MAP_PX, MAP_PX), np.float32)
        for plane, expected in wanted.items():
            limit = MAP_ROUNDING * max(float(np.abs(expected).max()), 1e-9)
            if np.abs(planes[plane] - expected).max() > limit:
                told.append(f"plane {plane} is off by {np.abs(planes[plane] - expected).max()}")
            off = np.abs(pixels[plane] - pixel_map(expected, self.blur_px)).max()
            if off > limit:
                told.append(f"the pixels of plane {plane} are off by {off}")
        if not np.array_equal(peaks, pixels.max(axis=(1, 2))):
            told.append(f"the peaks are {peaks}")
        tokens = self.scored.reshape(self.rgb_grid, repeat, self.rgb_grid, repeat).any(axis=(1, 3)).ravel()
        slots = self.scored.ravel()[self.numbers >= 0]
        for name, buffer, flags in (
            ("scored", self.stage.scored, self.scored.ravel()),
            ("token_scored", self.stage.token_scored, tokens),
            ("slot_scored", self.stage.slot_scored, slots),
        ):
            if not np.array_equal(self.device.download(buffer, flags.shape, np.uint8).astype(bool), flags):
                told.append(f"{name} differs")
        spot = self.device.download(self.stage.spot, (6,), np.int32)
        expected_spot = spot_of(pixels[FUSED], pixels[SCORED])
        if not np.array_equal(spot, expected_spot):
            told.append(f"the spot is {spot} and must be {expected_spot}")
        return told

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


def spot_of(pixels: FloatArray, cover: FloatArray) -> NDArray[np.int64]:
    """The rule of ``runtime.vision.maps.worst_region`` on the map and the cover as they are."""
    part = pixels[cover > 0.5]
    peak = float(pixels.max())
    level = 0.5 * (peak + float(np.median(part if part.size else pixels)))
    if not peak > level:
        return np.zeros(6, dtype=np.int64)
    labels, _ = ndimage.label(pixels > level, structure=np.ones((3, 3)))
    rows, columns = np.nonzero(labels == labels.flat[int(pixels.argmax())])
    return np.array([1, rows.min(), rows.max(), columns.min(), columns.max(), len(rows)])


class CheckedImageDistance:
    """One modality's distances and its re-weighted image distance; local distances beside it."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator, half: bool) -> None:
        rows, bank_rows, dimension = shape["rows"], shape["bank"], shape["dimension"]
        self.device, self.kind, self.count = device, kind, 0 if kind == "empty" else rows - rows // 5
        dtype = np.float16 if half else np.float32
        self.bank: NDArray[np.floating] = rng.standard_normal((bank_rows, dimension), np.float32).astype(dtype)
        self.queries: NDArray[np.floating] = rng.normal(scale=1.3, size=(rows, dimension)).astype(dtype)
        self.nearest = rng.integers(0, bank_rows, rows).astype(np.int32)
        self.scored = rng.random(rows) < 0.8
        self.scored[: min(rows, 3)] = True
        difference = self.queries.astype(np.float64) - self.bank[self.nearest].astype(np.float64)
        self.distances = np.sqrt((difference**2).sum(axis=1)).astype(np.float32)
        if kind == "ties":
            self.distances[:] = self.distances.max()
        if kind == "nan":
            self.distances[min(2, self.count - 1)] = np.nan
        self.memory = MemoryBank(self.bank.astype(np.float32))
        table = np.zeros((bank_rows, 2), dtype=np.int32)
        if bank_rows <= 64:
            table = neighbour_table(self.memory)
        else:  # a whole table of a large bank would take minutes here: only the row that will be asked for
            candidates = np.where(self.scored[: self.count], self.distances[: self.count], -1)
            match = self.nearest[candidates.argmax()] if self.count else 0
            table[match] = self.memory.nearest_rows(self.memory.rows[match], 3)[1][1:]
        self.stage = ImageDistance(device, device.upload(self.bank), table, dimension, half)
        self.mean = rng.gamma(4.0, 1.0, bank_rows).astype(np.float32)
        self.std = rng.gamma(4.0, 0.2, bank_rows).astype(np.float32)
        self.local, self.most = LocalDistances(device, self.mean, self.std, 3.0), rows
        self.device_distances, self.device_local = device.upload(self.distances), device.upload(self.distances)
        count = np.array([self.count], dtype=np.int32)
        self.inputs = (device.upload(self.nearest), device.upload(self.scored.astype(np.uint8)), device.upload(count))
        self.device_queries, self.fault = device.upload(self.queries), clear_fault(device)
        self.work = Cost(flop=6 * dimension, bytes=9 * rows + 3 * self.bank.itemsize * dimension)

    def enqueue(self) -> None:
        """Launches only. Local distances work in place, so theirs are written again."""
        nearest, scored, count = self.inputs
        self.device.write(self.device_local, self.distances)
        self.local.enqueue(self.device_local, nearest, count, self.most, self.fault)
        self.stage.enqueue(self.device_distances, nearest, scored, count, self.most, self.device_queries, self.fault)

    def problems(self) -> list[str]:
        """Against ``runtime.vision.distances``."""
        expected = {"nan": NOT_FINITE, "empty": EMPTY}.get(self.kind, 0)
        told = fault_problems(self.device, self.fault, expected)
        found = float(self.device.download(self.stage.out, (1,), np.float64)[0])
        worst = int(self.device.download(self.stage.worst, (1,), np.int32)[0])
        local = self.device.download(self.device_local, (self.most,), np.float32)
        deviation = (self.distances - self.mean[self.nearest].astype(np.float64)) / self.std[self.nearest]
        wanted_local = np.maximum(0.0, 3.0 + deviation)[: self.count].astype(np.float32)
        if not np.array_equal(local[: self.count], wanted_local, equal_nan=True):
            told.append("local distances differ")
        if not np.array_equal(local[self.count :], self.distances[self.count :], equal_nan=True):
            told.append("distances behind the last one were touched")
        if self.kind in ("nan", "empty"):
            return told + ([] if np.isnan(found) else [f"an image distance of {found} where none can be"])
        candidates = np.where(self.scored[: self.count], self.distances[: self.count], -1)
        row = int(candidates.argmax())
        query = self.queries[row].astype(np.float32)
        wanted = image_distance(query, float(self.distances[row]), int(self.nearest[row]), self.memory)
        if worst != row or not abs(found - wanted) <= DISTANCE_ROUNDING * max(1.0, abs(wanted)):
            told.append(f"the image distance is {found} of row {worst} and must be {wanted} of row {row}")
        return told

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


class CheckedPeak:
    """One map on the tokens' own grid and its largest pixel: the colour's local image distance."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        self.device, grid = device, shape["rgb_grid"]
        self.map = np.where(rng.random((grid, grid)) < 0.4, rng.gamma(3.0, 1.0, (grid, grid)), 0.0).astype(np.float32)
        if kind == "flat":
            self.map[:] = 1.5
        if kind == "nan":
            self.map[grid // 2, grid // 3] = np.nan
        self.expected_fault = NOT_FINITE if kind == "nan" else 0
        self.stage, self.fault, self.device_map = Peak(device, grid), clear_fault(device), device.upload(self.map)
        self.work = Cost(flop=2 * MAP_PX * grid * (grid + MAP_PX), bytes=4 * (grid**2 + MAP_PX**2))

    def enqueue(self) -> None:
        """Launches only."""
        self.stage.enqueue(self.device_map, self.fault)

    def problems(self) -> list[str]:
        """Against ``runtime.vision.maps.pixel_map`` in float64."""
        told = fault_problems(self.device, self.fault, self.expected_fault)
        found = float(peak_values(self.device.download(self.stage.peak, (1,), np.uint64))[0])
        wanted = float(pixel_map(self.map, own_blur_px(len(self.map))).max())
        if np.isnan(wanted) != np.isnan(found) or abs(found - wanted) > MAP_ROUNDING * max(1.0, abs(wanted)):
            told.append(f"the peak is {found} and must be {wanted}")
        return told

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


def _distance_entry(half: bool) -> KernelEntry:
    shapes: tuple[Shape, ...] = (
        {"rows": 3136, "bank": 20_000, "dimension": 1152},
        {"rows": 784, "bank": 8329, "dimension": 768},
        {"rows": 333, "bank": 3, "dimension": 77},
    )
    return KernelEntry(
        name="image_distance_f16" if half else "image_distance_f32",
        source="maps",
        prepare=lambda device, shape, kind, rng: CheckedImageDistance(device, shape, kind, rng, half),
        shapes=shapes,
        small=({"rows": 700, "bank": 40, "dimension": 77}, {"rows": 5, "bank": 3, "dimension": 1}),
        kinds=("random", "ties", "nan", "empty"),
        timed=shapes[:2],
    )


_PAPER: Shape = {"grid": 56, "rgb_grid": 28}
_LITE: Shape = {"grid": 28, "rgb_grid": 28}

ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="maps",
        source="maps",
        prepare=CheckedMaps,
        shapes=(_PAPER, _LITE, {"grid": 21, "rgb_grid": 7, "threads": 256}),
        small=({"grid": 12, "rgb_grid": 6, "threads": 256},),
        kinds=("random", "flat", "nan", "empty", *DECISIONS),
    ),
    KernelEntry(
        name="own_peak",
        source="maps",
        prepare=CheckedPeak,
        shapes=(_PAPER, {"grid": 21, "rgb_grid": 7}),
        small=({"grid": 12, "rgb_grid": 6}, {"grid": 32, "rgb_grid": 32}),
        kinds=("random", "flat", "nan"),
    ),
    _distance_entry(True),
    _distance_entry(False),
)
