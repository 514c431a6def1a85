"""Bounds on what one OPC UA request may make the library decode, whatever lengths it claims.

asyncua (2.1) believes every length in a message: an array of two thousand million Nulls that takes five bytes, strings
of negative length that move back and are read again, matrices of 200 000 dimensions. Its decoders have no hook, so four
of its functions are replaced here. They bound only what is decoded under ``DECODING``, which a connection of the
gateway sets; a client in the same process decodes as usual.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer, NotEnoughData, ServiceError
from asyncua.ua import ua_binary

READS_PER_OPERATION = 40
"""A node to read is 7 fields, a monitored item without a filter 17."""

Decoder = Callable[[Any], Any]


class Budget:
    """What one request may still cost."""

    def __init__(self, operations_max: int) -> None:
        self._operations_max = operations_max
        self._left = 0
        self.begin()

    def begin(self) -> None:
        """The next request."""
        self._left = self._operations_max * READS_PER_OPERATION

    def take(self, count: int = 1) -> None:
        """So many fields or elements. Raises ServiceError."""
        self._left -= count
        if self._left < 0:
            raise ServiceError(ua.StatusCodes.BadEncodingLimitsExceeded)

    def take_array(self, length: int) -> None:
        """An array that claims so many elements. Raises ServiceError."""
        if length > self._operations_max:
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)
        self.take(max(0, length))


DECODING: ContextVar[Budget | None] = ContextVar("decoding", default=None)


def _bounded_reads(plain: Callable[[Buffer, int], bytes]) -> Callable[[Buffer, int], bytes]:
    def read(self: Buffer, size: int) -> bytes:
        if size < 0:
            raise NotEnoughData(f"a field of {size} bytes")
        budget = DECODING.get()
        if budget is not None:
            budget.take()
        return plain(self, size)

    return read


def _bounded_arrays(make: Callable[[Any], Decoder]) -> Callable[[Any], Decoder]:
    @functools.cache
    def bounded(element: Any) -> Decoder:
        plain = make(element)

        def decode(data: Any) -> Any:
            budget = DECODING.get()
            if budget is not None:
                budget.take_array(ua_binary.Primitives.Int32.unpack(data.copy(4)))
            return plain(data)

        return decode

    return bounded


def _no_matrices(plain: Callable[[list[Any], list[int]], list[Any]]) -> Callable[[list[Any], list[int]], list[Any]]:
    def reshape(flat: list[Any], dimensions: list[int]) -> list[Any]:
        if DECODING.get() is not None:
            raise ServiceError(ua.StatusCodes.BadEncodingLimitsExceeded)
        return plain(flat, dimensions)

    return reshape


_REPLACED: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (Buffer, "read", _bounded_reads),
    (ua_binary, "_create_list_deserializer", _bounded_arrays),
    (ua_binary, "_create_uatype_array_deserializer", _bounded_arrays),
    (ua_binary, "_reshape", _no_matrices),
)
for _place, _name, _bound in _REPLACED:
    setattr(_place, _name, _bound(getattr(_place, _name)))
for _made in ("_create_type_deserializer", "_create_dataclass_deserializer", "_create_uatype_deserializer"):
    getattr(ua_binary, _made).cache_clear()  # what was made before holds on to what was replaced
