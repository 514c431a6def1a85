"""A frame's histograms of its surface against ``runtime.vision.grid_descriptor``."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.checks.clouds import EMPTY, fault_problems
from asperity.runtime.cuda.checks.surface import KINDS, SeenSurface
from asperity.runtime.cuda.descriptor import SurfaceHistograms
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.manifest import GridDescriptor
from asperity.runtime.vision.grid_descriptor import BINS, DIMENSION, describe

MOVED = 0.02
"""Share of a histogram's pairs that may lie on the other side of a bin's edge, where either side rounds another way."""


class CheckedHistograms(SeenSurface):
    """The modality ``descriptor`` of one frame."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        self.chosen = GridDescriptor(shape["box"], ((0.03, 0.02, 0.01), (0.02, 0.03, 0.01), (0.02, 0.05, 0.02)))
        super().__init__(device, shape, kind, rng, "descriptor", descriptor=self.chosen)
        self.stage = SurfaceHistograms(self.surface, self.chosen, self.network.grid)
        cells = self.surface.size**2
        self.work = Cost(flop=60 * 24 * cells, bytes=32 * cells + 4 * DIMENSION * self.network.grid**2)

    def enqueue(self) -> None:
        """Launches only."""
        super().enqueue()
        self.stage.enqueue(self.fault)

    def problems(self) -> list[str]:
        """Shares of pairs, bin by bin."""
        told = fault_problems(self.device, self.fault, EMPTY if self.kind == "empty" else 0)
        grid = self.network.grid
        features = self.get(self.stage.features, (grid**2, DIMENSION), np.float32)
        if self.kind == "empty":
            return told + (["histograms of nothing"] if features.any() else [])
        expected = describe(self.wanted()[1], self.chosen.usual, grid)
        shares, wanted = (np.square(one.astype(np.float64)).reshape(-1, BINS) for one in (features, expected))
        moved = 0.5 * np.abs(shares - wanted).sum(axis=1)
        if not moved.max() <= MOVED or not np.allclose(shares.sum(axis=1), wanted.sum(axis=1), atol=1e-5):
            told.append(f"{moved.max():.3f} of a histogram's pairs lie in other bins")
        if not (expected > 0).any():
            told.append("there is nothing to see in the histograms")
        return told


_SIZES = {"image": 28, "cloud": 14, "nearest": 0}
_LITE: Shape = {"height": 480, "width": 640, "side": 400, "grid": 28, "box": 3, **_SIZES}

ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="descriptor",
        source="descriptor",
        prepare=CheckedHistograms,
        shapes=(_LITE, {**_LITE, "height": 900, "width": 1000, "side": 801}, {**_LITE, "grid": 52}),
        small=({"height": 60, "width": 83, "side": 47, "grid": 7, "box": 3, **_SIZES},),
        kinds=KINDS,
        timed=(_LITE,),
    ),
)
