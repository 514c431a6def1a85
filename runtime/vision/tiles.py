"""A window seen by n x n network inputs of equal size that overlap: resolution as a choice.

The window is resized once, as large as all tiles need, and each tile is a slice of it. Overlaps are a margin of
context and nothing else: a patch takes its features from the tile that sees it farthest from its edge, so behind the
networks there is one grid of patches, one map and one score, and nothing is measured twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Network

OVERLAP = 7
"""Tiles overlap by one in so many patches of a tile's side."""


@dataclass(frozen=True)
class Tiling:
    """How n x n tiles of grid x grid patches cover a window. One tile is the window itself."""

    tiles: int
    grid: int
    """Patches along a tile's side."""
    image_px: int
    cloud_px: int
    """Of a tile: what the networks take."""

    @classmethod
    def of(cls, network: Network) -> Tiling:
        """The tiling of a recipe."""
        return cls(network.tiles, network.grid, network.image_px, network.cloud_px)

    @property
    def step(self) -> int:
        """Patches from one tile to the next."""
        return self.grid - self.grid // OVERLAP

    @property
    def window_grid(self) -> int:
        """Patches along the window's side."""
        return self.grid + (self.tiles - 1) * self.step

    @property
    def window_image_px(self) -> int:
        """Pixels along the window's side."""
        return self.window_grid * self.image_px // self.grid

    @property
    def window_cloud_px(self) -> int:
        """Cells of the cloud along the window's side."""
        return self.window_grid * self.cloud_px // self.grid

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """window_grid x window_grid: the tile, row-major, whose features each patch takes."""
        middle = (self.grid - 1) / 2
        along = np.arange(self.window_grid)[:, None] - self.step * np.arange(self.tiles)[None] - middle
        nearest = np.abs(along).argmin(axis=1)
        return np.asarray(nearest[:, None] * self.tiles + nearest[None, :])

    def cut(self, prepared: Prepared) -> tuple[Prepared, ...]:
        """The tiles of a window, row by row."""
        if self.tiles == 1:
            return (prepared,)
        starts = [self.step * index for index in range(self.tiles)]
        return tuple(self._tile(prepared, row, column) for row in starts for column in starts)

    def merged(self, features: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Every tile's features (grid^2 x C) -> the window's (window_grid^2 x C)."""
        if self.tiles == 1:
            return features[0]
        window = np.zeros((self.window_grid, self.window_grid, features[0].shape[1]), dtype=features[0].dtype)
        for index, tile in enumerate(features):
            row, column = (self.step * at for at in divmod(index, self.tiles))
            own = self.owners[row : row + self.grid, column : column + self.grid] == index
            window[row : row + self.grid, column : column + self.grid][own] = tile[own.ravel()]
        return window.reshape(self.window_grid**2, -1)

    def _tile(self, prepared: Prepared, row: int, column: int) -> Prepared:
        def part(values: NDArray[Any]) -> NDArray[Any]:
            cells = len(values) // self.window_grid
            rows, columns = (slice(at * cells, (at + self.grid) * cells) for at in (row, column))
            return values[rows, columns]

        return replace(prepared, image=part(prepared.image), cloud=part(prepared.cloud), inspect=part(prepared.inspect))
