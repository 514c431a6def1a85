"""Is a frame identical to another? Separate from ``vision.preprocess``, so that the I/O thread needs no scipy."""

from __future__ import annotations

import zlib

import numpy as np

from asperity.runtime.frame import Frame


def frame_digest(frame: Frame) -> int:
    """CRC-32 over the frame's colour and 3D bytes: a repeat has the same, another exposure by a chance of 1 in 2^32.

    The caller compares it with the previous frame: FROZEN_IMAGE.
    """
    digest = 0
    for array in (frame.rgb, frame.xyz, frame.depth):
        if array is not None:
            digest = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), digest)
    return digest
