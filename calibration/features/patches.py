"""Cached frozen patches of one product: what adaptation, memory banks and the sweep work on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import DataError
from asperity.runtime.frame import BoolArray, FloatArray, ModalityName


@dataclass(frozen=True, slots=True)
class PatchSet:
    """Frozen patches of n frames on one grid. The point patches' grid is a whole multiple of the RGB tokens' grid.

    Where grid is twice rgb_grid, the published form repeats each RGB token four times; here it is kept once and its
    multiplicity is ``child_counts`` (lsfa 11 row 18).
    """

    features: dict[ModalityName, FloatArray]
    """By modality: rgb n x rgb_grid^2 x C, points n x grid^2 x Cp with zero rows where empty, row-major cells."""
    nonempty: BoolArray  # n x grid x grid

    def __post_init__(self) -> None:
        n, grid, width = self.nonempty.shape
        for name, values in self.features.items():
            own_grid = math.isqrt(values.shape[1])
            if width != grid or values.shape[0] != n or own_grid**2 != values.shape[1] or grid % own_grid:
                raise DataError(
                    f"patches do not fit together: {name} {values.shape}, nonempty {self.nonempty.shape}; needed "
                    "n x cells^2 x channels and n x grid x grid with grid a multiple of cells"
                )

    def __len__(self) -> int:
        return int(self.nonempty.shape[0])

    @property
    def grid(self) -> int:
        """Cells along a side of the patch grid."""
        return int(self.nonempty.shape[1])

    @property
    def rgb_grid(self) -> int:
        """Cells along a side of the RGB tokens' own grid."""
        return math.isqrt(self.features["rgb"].shape[1])

    def subset(self, indices: Sequence[int] | NDArray[np.int64] | slice) -> PatchSet:
        """The frames at ``indices``, in that order."""
        return PatchSet({name: one[indices] for name, one in self.features.items()}, self.nonempty[indices])

    def parents(self) -> NDArray[np.int64]:
        """RGB token (row-major on rgb_grid) under each patch of the grid: (grid^2,) int64."""
        factor = self.grid // self.rgb_grid
        cell = np.arange(self.grid) // factor
        return (cell[:, None] * self.rgb_grid + cell[None, :]).reshape(-1).astype(np.int64)


def child_counts(selected: BoolArray, rgb_grid: int) -> FloatArray:
    """w_j of lsfa 11 row 18: how many of the selected patches lie on each RGB token.

    ``selected``: n x grid x grid -> n x rgb_grid^2 float32.
    """
    n, grid, _ = selected.shape
    factor = grid // rgb_grid
    blocks = selected.reshape(n, rgb_grid, factor, rgb_grid, factor)
    counts: FloatArray = blocks.sum(axis=(2, 4)).reshape(n, rgb_grid * rgb_grid).astype(np.float32)
    return counts
