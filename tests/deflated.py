"""A compression bomb, without compressing all of it: a piece that refers to nothing before it, again and again."""

from __future__ import annotations

import zlib

PIECE_NBYTES = 2**24


def deflated_zeros(pieces: int) -> bytes:
    """A whole zlib stream that inflates to ``pieces`` times 16 MiB of zeros."""
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    piece = deflate.compress(bytes(PIECE_NBYTES)) + deflate.flush(zlib.Z_FULL_FLUSH)
    adler = (pieces * PIECE_NBYTES % 65521) << 16 | 1
    return b"\x78\xda" + pieces * piece + b"\x03\x00" + adler.to_bytes(4, "big")
