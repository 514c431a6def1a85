"""A window's picture through the colour network on the device: as it is, or tile by tile.

The CPU counterpart is ``vision.tiles``; kernels: ``tiles.cu``. Every tile is seen, also one without a patch to score,
whose tokens nobody searches: what is recorded is the same for every frame.
"""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.launch import Buffer, Device, Enqueue, Launch
from asperity.runtime.manifest import Network
from asperity.runtime.vision.tiles import Tiling, of_window

BLOCK = 256


class ColourPass:
    """``tokens`` of the window, rgb_grid^2 x C f4, out of ``output`` of a network that sees ``input``.

    Of one tile ``input`` is the picture and ``output`` are the window's tokens.
    """

    def __init__(self, device: Device, network: Network, picture: Buffer) -> None:
        """``network``: the recipe's, with the sizes of one tile; ``picture`` 3 x I x I f4 of the whole window."""
        self.device, self._tiling, self._picture = device, Tiling.of(network), picture
        window = of_window(network)
        self._sizes, self._window = (network.image_px, network.rgb_grid, network.rgb_channels), window
        self.count = network.rgb_grid**2 * network.rgb_channels
        """Values of ``output``."""
        self.tokens = device.alloc(4 * window.rgb_grid**2 * window.rgb_channels)
        self.input, self.output = picture, self.tokens
        if network.tiles > 1:
            self.input, self.output = device.alloc(12 * network.image_px**2), device.alloc(4 * self.count)
            owner = np.zeros((window.grid, window.grid), dtype=np.uint8)
            for index in range(network.tiles**2):
                self._tiling.of_tile(owner, index)[self._tiling.own(index)] = index
            self._owner = device.upload(owner)

    def enqueue(self, network: Enqueue) -> None:
        """``network``: one run of it."""
        if self._tiling.tiles == 1:
            network()
            return
        (image_px, grid, channels), window = self._sizes, self._window
        cell, step = image_px // grid, self._tiling.step
        for index in range(self._tiling.tiles**2):
            row, column = (step * place for place in divmod(index, self._tiling.tiles))
            self._launch(
                "cut_tile", 3 * image_px**2, self._picture,
                *(np.int32(n) for n in (window.image_px, image_px, row * cell, column * cell)), self.input,
            )  # fmt: skip
            network()
            self._launch(
                "place_tile", self.count, self.output, np.int32(grid), np.int32(channels), self._owner,
                *(np.int32(n) for n in (index, window.grid, row, column)), self.tokens,
            )  # fmt: skip

    def _launch(self, kernel: str, count: int, *arguments: Buffer | np.generic) -> None:
        self.device.launch(Launch(kernel, (-(count // -BLOCK), 1, 1), (BLOCK, 1, 1)), *arguments)
