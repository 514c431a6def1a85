"""Projected features against float64."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.checks.clouds import NOT_FINITE, clear_fault, fault_problems
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.cuda.projection import DeviceProjection, Projected
from asperity.runtime.vision.distances import ModalityBank
from asperity.runtime.vision.nearest import MemoryBank

MEAN, STD = 0.3, 1.7


class CheckedProjection:
    """Features of which a part is searched, times a matrix."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        self.device, tokens, channels, columns = device, shape["tokens"], shape["channels"], shape["columns"]
        features = rng.normal(0.2, 2.0, (tokens, channels)).astype(np.float32)
        matrix = rng.normal(scale=3.0, size=(channels, columns)).astype(np.float32)
        self.mask = np.full(tokens, kind == "all") if kind in ("all", "none") else rng.random(tokens) < 0.6
        if kind not in ("all", "none"):
            self.mask[0] = True
        features[~self.mask] = np.nan  # what is not searched may be anything
        self.damaged = 0
        if kind in ("nan", "infinite"):
            self.damaged = 1
            features[0, channels // 2] = np.nan if kind == "nan" else np.inf
        bank = ModalityBank(MemoryBank(np.zeros((1, channels), np.float32)), MEAN, STD)
        standard = bank.standardised(features).astype(np.float64)
        with np.errstate(invalid="ignore"):
            self.expected = standard @ matrix
            # Each of a sum's terms is rounded at most once for every term after it, and once itself.
            self.rounding = (channels + 1) * 2.0**-24 * (np.abs(standard) @ np.abs(matrix))
        self.stage = Projected(device, DeviceProjection.upload(device, matrix), tokens, MEAN, STD)
        self.inputs = (device.upload(features), device.upload(self.mask.astype(np.uint8)))
        self.fault = clear_fault(device)
        size = tokens * (channels + columns) + channels * columns
        self.work = Cost(flop=2 * tokens * channels * columns, bytes=4 * size)

    def enqueue(self) -> None:
        """Launches only."""
        self.stage.enqueue(*self.inputs, self.fault)

    def problems(self) -> list[str]:
        """Rows of the mask within float32's rounding, all others NaN; no damaged feature has a finite row."""
        told = fault_problems(self.device, self.fault, NOT_FINITE if self.damaged else 0)
        out = self.device.download(self.stage.out, self.expected.shape, np.float32)
        if not np.isnan(out[~self.mask]).all():
            told.append("a token that is not searched has numbers")
        if np.isfinite(out[: self.damaged]).any():
            told.append("a damaged token has finite numbers")
        whole = self.mask.copy()
        whole[: self.damaged] = False
        off = np.abs(out[whole] - self.expected[whole])
        if not (off <= self.rounding[whole]).all():
            told.append(f"a value is off by {off.max()}")
        return told

    def figures(self) -> dict[str, float]:
        """Nothing further."""
        return {}


_LITE: Shape = {"tokens": 784, "channels": 384, "columns": 384}

ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="project_features",
        source="projection",
        prepare=CheckedProjection,
        shapes=(_LITE, {"tokens": 784, "channels": 64, "columns": 64}, {"tokens": 333, "channels": 77, "columns": 41}),
        small=({"tokens": 41, "channels": 37, "columns": 35}, {"tokens": 1, "channels": 3, "columns": 1}),
        kinds=("random", "all", "none", "nan", "infinite"),
        timed=(_LITE,),
    ),
)
