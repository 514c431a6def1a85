"""What every message kind shares: limits, topics, names and the only JSON encoding and decoding.

Nothing here opens a socket. Every limit of the contract has its name here and its row in ``docs/wire.md``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from asperity.runtime.errors import WireError
from asperity.runtime.text.formats import TextRefused, check_keys, keys_twice
from asperity.runtime.text.part_identity import batch_text_fault, part_id_fault

VERSION = 1
"""Major version ``v``. Within it fields are only added; another version is refused."""

MAX_PARTS = 8
MAX_HEADER_BYTES = 16 * 1024
MAX_RESULT_BYTES = 2 * 1024
MAX_STATE_BYTES = 8 * 1024
MAX_EVENT_BYTES = 2 * 1024
MAX_TRIGGER_BYTES = 1024
MAX_CONTROL_BYTES = 64 * 1024
MAX_INTEGER = 2**53 - 1
"""Node and many JSON readers round above it."""
MAX_U32 = 2**32 - 1
MAX_TEXT = 64
MAX_EVENT_TEXT = 512
MAX_ALARMS = 16
VIEWS_MAX = 8
"""Views of one part."""

TOPIC_KINDS = frozenset(
    {"frame", "result", "record", "state", "event", "trigger", "counters", "shadow", "map", "picture"}
)

_NAME = r"[a-z0-9_-]{1,32}"
_PRINTABLE = r"[\x20-\x7e]"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

# \A and \Z because $ also matches before a newline at the end.
Name = Annotated[str, msgspec.Meta(pattern=rf"\A{_NAME}\Z")]
NameOrEmpty = Annotated[str, msgspec.Meta(pattern=rf"\A({_NAME})?\Z")]
Text = Annotated[str, msgspec.Meta(pattern=rf"\A{_PRINTABLE}{{0,{MAX_TEXT}}}\Z")]
Id = Annotated[str, msgspec.Meta(pattern=rf"\A{_PRINTABLE}{{1,{MAX_TEXT}}}\Z")]
Uuid = Annotated[str, msgspec.Meta(pattern=rf"\A{_UUID}\Z")]
UuidOrEmpty = Annotated[str, msgspec.Meta(pattern=rf"\A({_UUID})?\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Offset = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
NonZeroU32 = Annotated[int, msgspec.Meta(ge=1, le=MAX_U32)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=MAX_U32)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
U8 = Annotated[int, msgspec.Meta(ge=0, le=255)]

Part = bytes | bytearray | memoryview
"""One part of a message. Of a ``zmq.Frame`` pass its ``.buffer``: a view, not a copy."""

T = TypeVar("T")

_TOPIC = re.compile(rf"([a-z]+)/({_NAME})/\Z", re.ASCII)
_name = re.compile(rf"{_NAME}\Z", re.ASCII)


class _Versioned(msgspec.Struct):
    """Any message, as far as its version: the types' own ``v`` has a default for those who build one, this has none."""

    v: int


_versioned = msgspec.json.Decoder(_Versioned)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def topic(kind: str, name: str) -> bytes:
    """``b"result/st1/"``: ends in ``/`` because subscriptions are byte prefixes. Raises WireError on a bad name."""
    if kind not in TOPIC_KINDS:
        raise WireError(f"topic kind {show(kind)} is not one of {', '.join(sorted(TOPIC_KINDS))}")
    if not _name.match(name):
        raise WireError(f"name {show(name)} must be 1 to 32 characters from a-z 0-9 _ -")
    return f"{kind}/{name}/".encode()


def split_topic(part: Part) -> tuple[str, str]:
    """``(kind, name)`` of a topic part. Raises WireError where it is none."""
    view = as_bytes_view(part, "topic")
    match = _TOPIC.match(view[:64].tobytes().decode("ascii", "replace")) if view.nbytes <= 64 else None
    if match is None or match[1] not in TOPIC_KINDS:
        raise WireError(f"topic {show(view[:64].tobytes())} is not of the form kind/name/")
    return match[1], match[2]


def body_of(parts: Sequence[Part], kind: str) -> tuple[str, Part]:
    """``(name in the topic, body)`` of a two-part message of ``kind``. Raises WireError."""
    if len(parts) != 2:
        raise WireError(f"a {kind} message has 2 parts (topic, body), not {len(parts)}")
    found, name = split_topic(parts[0])
    if found != kind:
        raise WireError(f"topic {found}/{name}/ does not belong to a {kind} message")
    return name, parts[1]


def as_bytes_view(part: Part, what: str) -> memoryview:
    """The part as flat unsigned bytes, not copied. Raises WireError where it is not a contiguous buffer."""
    try:
        view = memoryview(part)
        return view if view.format == "B" and view.ndim == 1 else view.cast("B")
    except (TypeError, ValueError) as error:
        raise WireError(f"{what} is not a contiguous buffer of bytes: {show(type(part).__name__)}") from error


def read_json(decoder: msgspec.json.Decoder[T], body: Part, limit_bytes: int, what: str) -> T:
    """Decode ``body`` as ``decoder``'s type and check its ``v``. Raises WireError naming field, value and remedy."""
    view = as_bytes_view(body, what)
    if view.nbytes > limit_bytes:
        raise WireError(f"{what} is {view.nbytes} bytes long; at most {limit_bytes} are allowed")
    try:
        # msgspec skips a field it does not know without looking at its bytes, and takes the last of a key's values.
        check_keys(str(view, "utf-8"))
        if _versioned.decode(view).v != VERSION:
            raise msgspec.ValidationError("another version - at `$.v`")
        return decoder.decode(view)
    except TextRefused as error:
        raise WireError(f"{what} {error}; compare the sender with docs/wire.md") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(_explain(view, what, error)) from error


def fields_of(body: bytes | memoryview) -> dict[str, msgspec.Raw]:
    """The fields of a message that may be malformed, without those that are given twice: which one counts is unknown.

    Raises ValueError (MsgspecError, TextRefused), RecursionError.
    """
    twice = keys_twice(str(body, "utf-8"))
    return {name: value for name, value in _fields.decode(body).items() if name not in twice}


def write_json(decoder: msgspec.json.Decoder[T], message: T, limit_bytes: int, what: str) -> bytes:
    """Encode ``message`` and read it back by the receiver's rules, so that nothing illegal is ever sent.

    Raises WireError. Floats must be finite before they come here: JSON has no NaN, and msgspec would write null.
    """
    try:
        body = msgspec.json.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"{what} cannot be written as JSON: {error}") from error
    read_json(decoder, body, limit_bytes, what)
    return body


def require_finite(what: str, **values: float | None) -> None:
    """Raises WireError when a value is neither None nor a finite number."""
    for field, value in values.items():
        if value is not None and not math.isfinite(value):
            raise WireError(f"{what}: {field} is {value}; NaN and infinity must be left out (null)")


def check_part(what: str, part_id: str | None, lot: str | None = None, order: str | None = None,
               shift: str | None = None) -> None:  # fmt: skip
    """Raises WireError where one of these texts holds what it may not. None: the message has none."""
    texts = {"part_id": part_id, "lot": lot, "order": order, "shift": shift}
    for field, text in texts.items():
        fault = "" if not text else part_id_fault(text) if field == "part_id" else batch_text_fault(text)
        if fault:
            raise WireError(f"{what}: {field} = {show(text)}: {fault} (docs/wire.md, Part identity)")


def show(value: object) -> str:
    """A value of unknown origin for an error message: repr, bounded."""
    text = ascii(value[:80]) if isinstance(value, (str, bytes)) else ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _explain(view: memoryview, what: str, error: Exception) -> str:
    """One sentence from a decoding error: the version first, then field and value."""
    try:
        tree: Any = msgspec.json.decode(view)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return f"{what} is not JSON ({show(str(error))}); compare the sender with docs/wire.md"
    version = tree.get("v") if isinstance(tree, dict) else None
    if version != VERSION or isinstance(version, bool):
        return f"{what}: v is {show(version)}, this side uses version {VERSION}; update the older side"
    reason, _, path = str(error).partition(" - at `$")
    value = tree
    for step in re.findall(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]", path):
        try:
            value = value[step[0]] if step[0] else value[int(step[1])]
        except (KeyError, IndexError, TypeError):
            break
    field = path.rstrip("`").lstrip(".") or "the whole"
    return f"{what}: {field[:80]} = {show(value)}: {reason[:120]}; compare the sender with docs/wire.md"
