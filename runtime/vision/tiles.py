"""A window whose picture is seen by n x n network inputs that overlap: resolution as a choice.

The picture is resized once, as large as all tiles need, and each tile is a slice of it. Overlaps are a margin of
context and nothing else: a patch takes its features from the tile that sees it farthest from its edge, so behind the
networks there is one grid of patches, one map and one score. The cloud stays whole: finer cells average fewer points,
and what they gain for narrow defects they lose for shallow ones (docs/decisions/tiles.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.points import filled_patches

MOST_TILES = 4
"""Per side: 16 network inputs a frame."""
OVERLAP = 7
"""Tiles overlap by one in so many patches of a tile's side."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How tiles x tiles tiles of grid x grid patches cover a window."""

    tiles: int
    grid: int

    @classmethod
    def of(cls, network: Network) -> Tiling:
        """A recipe's tiling. Raises EngineError where its sizes allow none."""
        if fault := tiles_fault(network):
            raise EngineError(f"{fault}; calibrate again with this version")
        return cls(network.tiles, network.grid)

    @property
    def step(self) -> int:
        """Patches from one tile to the next."""
        return self.grid - self.grid // OVERLAP

    @property
    def window_grid(self) -> int:
        """Patches along the window's side."""
        return self.grid + (self.tiles - 1) * self.step

    def cut(self, prepared: Prepared) -> list[Prepared]:
        """The tiles of a window, row by row."""
        if self.tiles == 1:
            return [prepared]
        return [self._tile(prepared, row, column) for row, column in self._corners()]

    def own(self, index: int) -> BoolArray:
        """grid x grid: the patches of this tile whose features are taken from it."""
        return np.asarray(self.of_tile(_owners(self), index) == index)

    def of_tile(self, values: NDArray[Any], index: int) -> NDArray[Any]:
        """A tile's part of values on the window's grid, a view."""
        row, column = self._corners()[index]
        return values[row : row + self.grid, column : column + self.grid]

    def merged(self, tiles: Sequence[NDArray[Any] | None], channels: int) -> FloatArray:
        """Features of every tile (grid^2 x channels) as those of the window; zeros where a tile has none."""
        if self.tiles == 1 and tiles[0] is not None:
            return tiles[0]
        window = np.zeros((self.window_grid, self.window_grid, channels), dtype=np.float32)
        for index, tile in enumerate(tiles):
            if tile is not None:
                own = self.own(index)
                self.of_tile(window, index)[own] = tile[own.ravel()]
        return window.reshape(-1, channels)

    def _corners(self) -> list[tuple[int, int]]:
        starts = [self.step * index for index in range(self.tiles)]
        return [(row, column) for row in starts for column in starts]

    def _tile(self, prepared: Prepared, row: int, column: int) -> Prepared:
        """Of the window its pictures alone: all that a colour network sees."""

        def part(picture: ByteArray) -> ByteArray:
            cells = len(picture) // self.window_grid
            rows, columns = (slice(at * cells, (at + self.grid) * cells) for at in (row, column))
            return picture[rows, columns]

        surface = None if prepared.geometry is None else part(prepared.geometry)
        return replace(prepared, image=part(prepared.image), geometry=surface)


def scorable(tiling: Tiling, prepared: Prepared, network: Network) -> list[Prepared | None]:
    """The tiles of a window; None where a tile has no patch of its own that is filled: no network need see it.

    What is left out is what would not be scored anyway: no patch of a part is lost with a tile. A window of one tile is
    never left out.
    """
    tiles = tiling.cut(prepared)
    if tiling.tiles == 1:
        return list(tiles)
    filled = filled_patches(prepared.cloud, of_window(network))
    return [
        tile if (tiling.own(index) & tiling.of_tile(filled, index)).any() else None for index, tile in enumerate(tiles)
    ]


def of_window(network: Network) -> Network:
    """The recipe's sizes for the whole window: those of ``Prepared``, of features, maps and banks. One tile: as is."""
    if network.tiles == 1:
        return network
    grid = Tiling.of(network).window_grid
    image_px = grid * network.image_px // network.grid
    return msgspec.structs.replace(network, image_px=image_px, grid=grid, rgb_grid=grid, tiles=1)


def tiles_fault(network: Network) -> str:
    """Why no recipe can have so many tiles with this network; empty: it can."""
    if network.tiles == 1:
        return ""
    if not 1 < network.tiles <= MOST_TILES:
        return f"network.tiles {network.tiles}, not 1 to {MOST_TILES}"
    if network.adaptor != "none":
        return f"network.tiles {network.tiles} with an adaptor, which is trained on whole windows"
    if network.pooling != "valid_mean" or network.rgb_grid != network.grid:
        return f"network.tiles {network.tiles} with the published form of profile {network.profile}"
    most = 1 + (network.cloud_px - network.grid) // (network.grid - network.grid // OVERLAP)
    if network.tiles > most or network.image_px % network.grid:
        return f"network.tiles {network.tiles}: more patches in a row than the cloud's {network.cloud_px} cells"
    return ""


@lru_cache(maxsize=4)
def _owners(tiling: Tiling) -> NDArray[np.int64]:
    """window_grid x window_grid: the tile, row by row, in whose middle each patch lies nearest."""
    middles = tiling.step * np.arange(tiling.tiles) + (tiling.grid - 1) / 2
    nearest = np.abs(np.arange(tiling.window_grid)[:, None] - middles[None]).argmin(axis=1)
    return np.asarray(nearest[:, None] * tiling.tiles + nearest[None, :])
