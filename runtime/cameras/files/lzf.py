"""LZF, as PCL compresses clouds with: runs of bytes as they are, and copies of what came before."""

from __future__ import annotations

from asperity.runtime.errors import DataError

_DAMAGED = "is damaged: its points cannot be decompressed"


def decompress(data: bytes, nbytes: int) -> bytes:
    """The ``nbytes`` bytes that ``data`` holds; never more than these are made. Raises DataError."""
    out = bytearray()
    at, end = 0, len(data)
    try:
        while at < end:
            control = data[at]
            at += 1
            if control < 32:
                literal = data[at : at + control + 1]
                if len(literal) != control + 1:
                    raise DataError(_DAMAGED)
                out += literal
                at += control + 1
            else:
                length = control >> 5
                if length == 7:
                    length += data[at]
                    at += 1
                length += 2
                start = len(out) - ((control & 31) << 8) - data[at] - 1
                at += 1
                if start < 0:
                    raise DataError(_DAMAGED)
                copy = out[start : start + length]
                if len(copy) < length:  # it overlaps itself: the bytes from start on repeat
                    copy = (copy * (length // len(copy) + 1))[:length]
                out += copy
            if len(out) > nbytes:
                raise DataError(_DAMAGED)
    except IndexError:
        raise DataError(_DAMAGED) from None
    if len(out) != nbytes:
        raise DataError(_DAMAGED)
    return bytes(out)
