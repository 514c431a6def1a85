"""Images whose 4 x 4 pixel blocks are turned: the second view of the release's extra term (lsfa 5, 11 row 10).

Off by default: the term is in the release and not in the paper's description. The backbone is frozen, so the second
view's tokens are cached like the first's: one turning an image, where the release draws again at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.runtime.frame import ByteArray, FloatArray, Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.features import StageClock, rgb_tokens

BLOCK_PX = 4


def rotate_blocks(image: ByteArray, rng: np.random.Generator) -> ByteArray:
    """H x W x 3 u8 -> the same, every whole 4 x 4 block turned by a random multiple of 90 degrees."""
    turned: ByteArray = image.copy()
    rows, columns = image.shape[0] // BLOCK_PX, image.shape[1] // BLOCK_PX
    inside = turned[: rows * BLOCK_PX, : columns * BLOCK_PX]
    blocks = inside.reshape(rows, BLOCK_PX, columns, BLOCK_PX, 3).transpose(0, 2, 1, 3, 4).copy()
    quarters = rng.integers(4, size=(rows, columns))
    for quarter in range(1, 4):
        here = quarters == quarter
        blocks[here] = np.rot90(blocks[here], quarter, axes=(1, 2))
    inside[:] = blocks.transpose(0, 2, 1, 3, 4).reshape(inside.shape)
    return turned


def rotated_tokens(prepared: Sequence[Prepared], network: Network, networks: TorchNetworks, seed: int) -> FloatArray:
    """RGB tokens of the frames with turned blocks: n x rgb_grid^2 x C. Raises EngineError as ``frozen_patches``."""
    tokens = [
        rgb_tokens(
            replace(one, image=rotate_blocks(one.image, np.random.default_rng([seed, 3, index]))),
            network, networks, StageClock(),
        )
        for index, one in enumerate(prepared)
    ]  # fmt: skip
    return np.stack(tokens)
