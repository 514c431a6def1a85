"""Frame messages: ``[frame/<camera>/][header JSON][buffer 0][buffer 1]``.

Colour and 3D of one exposure are one message, so that they can never be mispaired. Everything is checked before a pixel
is touched, and the arrays of a decoded frame are read-only views of the received buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import FrameRefused, WireError
from asperity.runtime.frame import MAX_BUFFER_BYTES, Clock, Frame, Intrinsics, Unit, frame_size_fault
from asperity.runtime.reasons import Reason
from asperity.runtime.text.part_identity import part_id_fault
from asperity.runtime.wire.common import (
    MAX_HEADER_BYTES,
    MAX_PARTS,
    U32,
    VERSION,
    Count,
    Name,
    Part,
    Positive,
    Text,
    Uuid,
    as_bytes_view,
    check_part,
    fields_of,
    read_json,
    require_finite,
    show,
    split_topic,
    topic,
    write_json,
)

STREAM_DTYPES = {"rgb": ("u1",), "xyz": ("f4",), "depth": ("u2", "f4")}
"""Which stored types each stream may have: u1 uint8, u2 uint16, f4 float32, all little endian."""
STREAM_CHANNELS = {"rgb": (3,), "xyz": (3,), "depth": ()}
"""What follows (rows, columns) in the stream's shape."""
_NUMPY: dict[str, np.dtype[Any]] = {"u1": np.dtype("<u1"), "u2": np.dtype("<u2"), "f4": np.dtype("<f4")}
MAX_DISTORTION = 16


class Stream(msgspec.Struct, frozen=True):
    """One buffer of a frame. ``unit, scale, offset, invalid`` are read of the 3D stream only."""

    name: Literal["rgb", "xyz", "depth"]
    dtype: Literal["u1", "u2", "f4"]
    shape: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=2, max_length=3)]
    buffer: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PARTS)]
    nbytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_BUFFER_BYTES)]
    unit: Unit | None = None
    scale: float = 1.0
    offset: float = 0.0
    invalid: float | None = None
    encoding: str | msgspec.UnsetType | None = msgspec.UNSET
    """Reserved. A frame that sets it is refused: its bytes would be read as raw pixels."""


class IntrinsicsMessage(msgspec.Struct, frozen=True):
    """Pinhole camera, pixels; ``dist`` are the coefficients of ``model``."""

    fx: float
    fy: float
    cx: float
    cy: float
    model: Name = "pinhole"
    dist: Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_DISTORTION)] = ()


class FrameHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Header of a frame message, as ``docs/wire.md`` tables it."""

    v: int
    camera: Name
    camera_session: Uuid
    seq: Count
    trigger_id: U32 = 0
    promise: Count = 0
    part_id: str = ""
    recipe: Name | None = None
    t_exposure_us: Count
    t_sent_us: Count
    clock: Clock
    streams: Annotated[tuple[Stream, ...], msgspec.Meta(min_length=1, max_length=MAX_PARTS - 2)]
    intrinsics: IntrinsicsMessage | None = None
    sensor: Text = ""
    encoding: str | msgspec.UnsetType | None = msgspec.UNSET
    """Reserved, as in a stream."""


@dataclass(frozen=True, slots=True)
class FrameIdentity:
    """Whose frame it is, as far as a message says: for the result of a message that was refused."""

    camera: str = ""
    camera_session: str = ""
    seq: int | None = None
    trigger_id: int = 0
    part_id: str = ""
    t_exposure_us: int = 0
    promise: int = 0


_header = msgspec.json.Decoder(FrameHeader)
_camera = msgspec.json.Decoder(Name)
_uuid = msgspec.json.Decoder(Uuid)
_count = msgspec.json.Decoder(Count)
_u32 = msgspec.json.Decoder(U32)
_part_id = msgspec.json.Decoder(str)


def encode_frame(frame: Frame) -> list[bytes | memoryview]:
    """``[topic, header, rgb, xyz or depth]``; C-contiguous little-endian arrays are not copied.

    Send with ``copy=False`` and leave the arrays alone afterwards: the socket reads them later.
    Raises WireError when the frame could not be sent legally (the receiver would refuse it).
    """
    geometry = _only_geometry(frame)
    require_finite("frame", scale=frame.scale, offset=frame.offset, invalid=frame.invalid)
    arrays: tuple[tuple[Literal["rgb", "xyz", "depth"], NDArray[Any]], ...] = (("rgb", frame.rgb), geometry)
    streams = []
    buffers: list[memoryview] = []
    for name, array in arrays:
        dtype = _dtype_name(name, array)
        stored = np.ascontiguousarray(array, dtype=_NUMPY[dtype])
        stream = Stream(name, dtype, stored.shape, len(buffers), stored.nbytes)
        if name != "rgb":
            stream = msgspec.structs.replace(
                stream, unit=frame.unit, scale=frame.scale, offset=frame.offset, invalid=frame.invalid
            )
        streams.append(stream)
        buffers.append(_flat(name, stored))
    header = FrameHeader(
        v=VERSION,
        camera=frame.camera,
        camera_session=frame.camera_session,
        seq=frame.seq,
        trigger_id=frame.trigger_id,
        promise=frame.promise,
        part_id=frame.part_id,
        recipe=frame.recipe,
        t_exposure_us=frame.t_exposure_us,
        t_sent_us=frame.t_sent_us,
        clock=frame.clock,
        streams=tuple(streams),
        intrinsics=_intrinsics_message(frame.intrinsics),
        sensor=frame.sensor,
    )
    body = write_json(_header, header, MAX_HEADER_BYTES, "frame header")
    _check(header, buffers)
    return [topic("frame", frame.camera), body, *buffers]


def decode_frame(parts: Sequence[Part]) -> Frame:
    """The frame of a message, its arrays read-only views of ``parts`` (copied only where memory is misaligned).

    Raises FrameRefused(REFUSED_MESSAGE) and nothing else.
    """
    try:
        return _decode(parts)
    except WireError as error:
        raise FrameRefused(Reason.REFUSED_MESSAGE, str(error)) from error


def peek_identity(parts: Sequence[Part]) -> FrameIdentity:
    """What can be determined of a message's identity, each field checked separately; never raises.

    A field that is absent or illegal keeps its default; for a header of another version only the topic is trusted.
    """
    try:
        camera = split_topic(parts[0])[1]
    except (WireError, IndexError):
        camera = ""
    try:
        view = as_bytes_view(parts[1], "frame header")
        fields = fields_of(view) if view.nbytes <= MAX_HEADER_BYTES else {}
        known = _count.decode(fields["v"]) == VERSION
    except (WireError, IndexError, KeyError, msgspec.MsgspecError, ValueError, RecursionError):
        known = False
    if not known:
        return FrameIdentity(camera=camera)
    part_id = _field(fields, "part_id", _part_id, "")
    return FrameIdentity(
        camera=_field(fields, "camera", _camera, camera),
        camera_session=_field(fields, "camera_session", _uuid, ""),
        seq=_field(fields, "seq", _count, None),
        trigger_id=_field(fields, "trigger_id", _u32, 0),
        part_id="" if part_id_fault(part_id) else part_id,
        t_exposure_us=_field(fields, "t_exposure_us", _count, 0),
        promise=_field(fields, "promise", _count, 0),
    )


def identity(frame: Frame) -> FrameIdentity:
    """The identity of a decoded frame."""
    return FrameIdentity(
        frame.camera,
        frame.camera_session,
        frame.seq,
        frame.trigger_id,
        frame.part_id,
        frame.t_exposure_us,
        frame.promise,
    )


def _decode(parts: Sequence[Part]) -> Frame:
    if not 2 < len(parts) <= MAX_PARTS:
        raise WireError(f"a frame message has 3 to {MAX_PARTS} parts (topic, header, buffers), not {len(parts)}")
    kind, camera = split_topic(parts[0])
    if kind != "frame":
        raise WireError(f"topic {kind}/{camera}/ does not belong to a frame message")
    header = read_json(_header, parts[1], MAX_HEADER_BYTES, "frame header")
    if header.camera != camera:
        raise WireError(f"topic names camera {camera}, the header {header.camera}; both must be the same")
    buffers = [as_bytes_view(part, f"buffer {index}") for index, part in enumerate(parts[2:])]
    streams = _check(header, buffers)
    solid = streams["xyz"] if "xyz" in streams else streams["depth"]
    lens = header.intrinsics
    return Frame(
        camera=header.camera,
        camera_session=header.camera_session,
        seq=header.seq,
        rgb=_view(streams["rgb"], buffers),
        xyz=_view(solid, buffers) if solid.name == "xyz" else None,
        depth=_view(solid, buffers) if solid.name == "depth" else None,
        intrinsics=Intrinsics(lens.fx, lens.fy, lens.cx, lens.cy, lens.model, lens.dist) if lens else None,
        unit=solid.unit,
        scale=solid.scale,
        offset=solid.offset,
        invalid=solid.invalid,
        trigger_id=header.trigger_id,
        promise=header.promise,
        part_id=header.part_id,
        recipe=header.recipe,
        t_exposure_us=header.t_exposure_us,
        t_sent_us=header.t_sent_us,
        clock=header.clock,
        sensor=header.sensor,
    )


def _check(header: FrameHeader, buffers: Sequence[memoryview]) -> dict[str, Stream]:
    """The streams by name, after every rule that the header's types do not state. Touches no pixel."""
    check_part("frame header", header.part_id)
    streams: dict[str, Stream] = {stream.name: stream for stream in header.streams}
    if len(streams) != len(header.streams):
        raise WireError("streams: a name occurs twice; send each stream once")
    if "rgb" not in streams or ("xyz" in streams) == ("depth" in streams):
        raise WireError(f"streams are {', '.join(streams)}; send rgb and exactly one of xyz and depth")
    if sorted(stream.buffer for stream in header.streams) != list(range(len(buffers))):
        raise WireError(f"streams[].buffer must name each of the {len(buffers)} buffers once, counted from 0")
    for stream in header.streams:
        _check_stream(stream, buffers[stream.buffer].nbytes)
    sizes = {stream.shape[:2] for stream in header.streams}
    if len(sizes) != 1:
        raise WireError(f"streams differ in size: {show(sorted(sizes))}; colour and 3D must be aligned pixel by pixel")
    if isinstance(header.encoding, str):
        raise WireError(f"encoding {show(header.encoding)} is reserved; send raw buffers and leave it out")
    if "depth" in streams and header.intrinsics is None:
        raise WireError("intrinsics are absent; depth needs fx, fy, cx, cy")
    if header.intrinsics is not None:
        lens = header.intrinsics
        require_finite("intrinsics", fx=lens.fx, fy=lens.fy, cx=lens.cx, cy=lens.cy)
        require_finite("intrinsics", **{f"dist[{index}]": value for index, value in enumerate(lens.dist)})
        if lens.fx <= 0 or lens.fy <= 0:
            raise WireError(f"intrinsics: fx = {lens.fx}, fy = {lens.fy}; focal lengths must be above 0 pixels")
    return streams


def _check_stream(stream: Stream, received_bytes: int) -> None:
    name = stream.name
    if stream.dtype not in STREAM_DTYPES[name]:
        raise WireError(f"stream {name}: dtype {stream.dtype} is not one of {', '.join(STREAM_DTYPES[name])}")
    rows, columns = stream.shape[:2]
    if stream.shape[2:] != STREAM_CHANNELS[name]:
        form = "(rows, columns, 3)" if STREAM_CHANNELS[name] else "(rows, columns)"
        raise WireError(f"stream {name}: shape {show(stream.shape)} is not {form}")
    if fault := frame_size_fault(rows, columns):
        raise WireError(f"stream {name} is {fault}")
    channels = 3 if STREAM_CHANNELS[name] else 1
    expected_bytes = rows * columns * channels * _NUMPY[stream.dtype].itemsize
    if not expected_bytes == stream.nbytes == received_bytes:
        raise WireError(
            f"stream {name}: shape {show(stream.shape)} of {stream.dtype} is {expected_bytes} bytes, "
            f"nbytes says {stream.nbytes}, the buffer has {received_bytes}; all three must be equal"
        )
    if isinstance(stream.encoding, str):
        raise WireError(f"stream {name}: encoding {show(stream.encoding)} is reserved; send raw and leave it out")
    require_finite(f"stream {name}", scale=stream.scale, offset=stream.offset, invalid=stream.invalid)
    if stream.scale <= 0:
        raise WireError(f"stream {name}: scale is {stream.scale}; it must be above 0")


def _view(stream: Stream, buffers: Sequence[memoryview]) -> NDArray[Any]:
    array: NDArray[Any] = np.frombuffer(buffers[stream.buffer], dtype=_NUMPY[stream.dtype]).reshape(stream.shape)
    if not array.flags.aligned:
        # libzmq hands out buffers of a few KiB unaligned; no camera's frame is that small.
        array = array.copy()
    array.flags.writeable = False
    return array


def _only_geometry(frame: Frame) -> tuple[Literal["xyz", "depth"], NDArray[Any]]:
    if frame.xyz is not None and frame.depth is None:
        return "xyz", frame.xyz
    if frame.depth is not None and frame.xyz is None:
        return "depth", frame.depth
    raise WireError("a frame carries exactly one of xyz and depth")


def _dtype_name(name: str, array: NDArray[Any]) -> Literal["u1", "u2", "f4"]:
    found = f"{array.dtype.kind}{array.dtype.itemsize}"
    for dtype in STREAM_DTYPES[name]:
        if dtype == found:
            return dtype  # type: ignore[return-value]  # STREAM_DTYPES holds only these
    raise WireError(f"{name} is {array.dtype}; it must be one of {', '.join(STREAM_DTYPES[name])}: convert it first")


def _flat(name: str, array: NDArray[Any]) -> memoryview:
    if array.size == 0:
        raise WireError(f"{name} has shape {array.shape}: there are no pixels to send")
    return array.data.cast("B")


def _intrinsics_message(lens: Intrinsics | None) -> IntrinsicsMessage | None:
    if lens is None:
        return None
    require_finite("intrinsics", fx=lens.fx, fy=lens.fy, cx=lens.cx, cy=lens.cy)
    require_finite("intrinsics", **{f"dist[{index}]": value for index, value in enumerate(lens.dist)})
    return IntrinsicsMessage(lens.fx, lens.fy, lens.cx, lens.cy, lens.model, lens.dist)


V = TypeVar("V")
D = TypeVar("D")


def _field(fields: dict[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[V], default: D) -> V | D:
    try:
        return decoder.decode(fields[name])
    except (KeyError, msgspec.MsgspecError, ValueError, RecursionError):
        return default
