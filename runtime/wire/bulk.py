"""Bulk messages: anomaly maps and pictures for people. ``[map|picture/<station>/][header JSON][buffer]``.

A subscriber may lose them; no verdict depends on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import WireError
from asperity.runtime.frame import MAX_BUFFER_BYTES, Window, frame_size_fault
from asperity.runtime.wire.common import (
    MAX_HEADER_BYTES,
    MAX_INTEGER,
    VERSION,
    Count,
    Name,
    NameOrEmpty,
    Part,
    Positive,
    Uuid,
    as_bytes_view,
    read_json,
    require_finite,
    show,
    split_topic,
    topic,
    write_json,
)

_FORM: dict[str, tuple[str, np.dtype[Any], tuple[int, ...]]] = {
    "map": ("f4", np.dtype("<f4"), ()),
    "picture": ("u1", np.dtype("u1"), (3,)),
}


@dataclass(frozen=True, slots=True)
class Bulk:
    """A map (rows x columns f4, standardised distance, higher is stranger) or picture (rows x columns x 3 u1, RGB)."""

    kind: Literal["map", "picture"]
    station: str
    session: str
    result_id: int
    array: NDArray[Any]
    camera: str = ""
    seq: int = 0
    window: Window | None = None
    """The square of the source frame that the array covers; None: the whole frame."""
    threshold: float | None = None
    """The value above which a cell of a map looks defective; for colouring only."""


class WindowMessage(msgspec.Struct, frozen=True):
    """Square of the source frame, pixels; may reach beyond its edge."""

    x_px: Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
    y_px: Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
    side_px: Positive


class BulkHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Header of a bulk message."""

    v: int = VERSION
    station: Name
    session: Uuid
    result_id: Positive
    camera: NameOrEmpty = ""
    seq: Count = 0
    dtype: Literal["u1", "f4"]
    shape: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=2, max_length=3)]
    nbytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_BUFFER_BYTES)]
    window: WindowMessage | None = None
    threshold: float | None = None
    encoding: str | msgspec.UnsetType | None = msgspec.UNSET
    """Reserved; a receiver refuses a message that sets it."""


_header = msgspec.json.Decoder(BulkHeader)


def encode_bulk(bulk: Bulk) -> list[bytes | memoryview]:
    """``[topic, header, buffer]``; a C-contiguous little-endian array is not copied. Raises WireError."""
    name, dtype, _ = _FORM[bulk.kind]
    array = bulk.array
    if (array.dtype.kind, array.dtype.itemsize) != (dtype.kind, dtype.itemsize) or array.size == 0:
        raise WireError(f"{bulk.kind} is {array.dtype} of shape {array.shape}; it must be {name} and not empty")
    require_finite(bulk.kind, threshold=bulk.threshold)
    stored = np.ascontiguousarray(array, dtype=dtype)
    window = bulk.window
    header = BulkHeader(
        station=bulk.station,
        session=bulk.session,
        result_id=bulk.result_id,
        camera=bulk.camera,
        seq=bulk.seq,
        dtype=name,  # type: ignore[arg-type]  # _FORM holds only these
        shape=stored.shape,
        nbytes=stored.nbytes,
        window=WindowMessage(window.x_px, window.y_px, window.side_px) if window else None,
        threshold=bulk.threshold,
    )
    body = write_json(_header, header, MAX_HEADER_BYTES, f"{bulk.kind} header")
    buffer = stored.data.cast("B")
    _check(bulk.kind, header, buffer.nbytes)
    _check_finite(bulk.kind, stored)
    return [topic(bulk.kind, bulk.station), body, buffer]


def decode_bulk(parts: Sequence[Part]) -> Bulk:
    """The map or picture of a message, its array a read-only view. Raises WireError and nothing else."""
    if len(parts) != 3:
        raise WireError(f"a bulk message has 3 parts (topic, header, buffer), not {len(parts)}")
    kind, station = split_topic(parts[0])
    if kind not in _FORM:
        raise WireError(f"topic {kind}/{station}/ does not belong to a bulk message")
    header = read_json(_header, parts[1], MAX_HEADER_BYTES, f"{kind} header")
    if header.station != station:
        raise WireError(f"topic names station {station}, the header {header.station}; both must be the same")
    view = as_bytes_view(parts[2], "buffer")
    _check(kind, header, view.nbytes)
    array: NDArray[Any] = np.frombuffer(view, dtype=_FORM[kind][1]).reshape(header.shape)
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    _check_finite(kind, array)
    window = header.window
    return Bulk(
        kind="map" if kind == "map" else "picture",
        station=station,
        session=header.session,
        result_id=header.result_id,
        array=array,
        camera=header.camera,
        seq=header.seq,
        window=Window(window.x_px, window.y_px, window.side_px) if window else None,
        threshold=header.threshold,
    )


def _check(kind: str, header: BulkHeader, received_bytes: int) -> None:
    name, dtype, channels = _FORM[kind]
    rows, columns = header.shape[:2]
    if header.dtype != name or header.shape[2:] != channels:
        raise WireError(f"{kind}: {header.dtype} of shape {show(header.shape)} is not a {kind}")
    if fault := frame_size_fault(rows, columns):
        raise WireError(f"{kind} is {fault}")
    expected_bytes = rows * columns * (3 if channels else 1) * dtype.itemsize
    if not expected_bytes == header.nbytes == received_bytes:
        raise WireError(f"{kind}: {expected_bytes} bytes by shape, nbytes {header.nbytes}, received {received_bytes}")
    if isinstance(header.encoding, str):
        raise WireError(f"{kind}: encoding {show(header.encoding)} is reserved")
    require_finite(kind, threshold=header.threshold)


def _check_finite(kind: str, array: NDArray[Any]) -> None:
    if kind == "map" and not bool(np.isfinite(array).all()):
        raise WireError("map: a cell is not finite; cells that were not scored are 0")
