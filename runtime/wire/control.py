"""Control: JSON ``{v, id, op, ...}`` -> ``{v, id, ok, code, ...}`` on ROUTER/DEALER, one part each way.

An empty part before the JSON (as REQ sockets send it) is allowed and repeated in the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from asperity.runtime.errors import WireError
from asperity.runtime.wire.common import (
    MAX_CONTROL_BYTES,
    MAX_EVENT_TEXT,
    U8,
    VERSION,
    Count,
    Id,
    Name,
    NameOrEmpty,
    NonZeroU32,
    Offset,
    Part,
    Positive,
    Text,
    UuidOrEmpty,
    as_bytes_view,
    check_part,
    fields_of,
    read_json,
    require_finite,
    write_json,
)
from asperity.runtime.wire.result import ReceivedResult, decode_result_body
from asperity.runtime.wire.state import StationState, check_state

MAX_RESULTS_PER_REPLY = 24
"""24 x 2 KiB and the rest stay below the 64 KiB of a control message; a client asks again for more."""

CODES: dict[str, str] = {
    "OK": "done",
    "ACCEPTED": "started; the outcome is in a state message, or for a trigger in its result",
    "BUSY": "another trigger or long operation is in progress; try again later",
    "BAD_REQUEST": "the request violates the protocol; text names the field",
    "UNKNOWN_OP": "this side does not know the operation",
    "WRONG_STATION": "no station of this name here, or no name was given and there are several",
    "WRONG_STATE": "not possible in the current state",
    "REFUSED": "understood and refused; text gives the reason (a recipe that does not open, a threshold out of range)",
    "UNSUPPORTED": "a known operation that this version does not support",
    "TOO_OLD": "older than [control] request_age_max_ms on arrival, or from an earlier session: it was not executed",
    "NOT_ALLOWED": "the sender's role does not permit it (with CURVE)",
    "FAILED": "tried and failed; text gives the reason",
}
"""Code of a reply -> meaning. Only OK and ACCEPTED come with ``ok`` true."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table of operations."""

    meaning: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    long: bool = False
    """Answered ACCEPTED at once; ends in a state message."""


_BATCH = ("lot", "order", "shift")
_TRIGGER = ("trigger_id", "timeout_ms"), ("part_id", "recipe", *_BATCH, "position", "view")
_EXPECT = ("trigger_id",), ("part_id", "recipe", "timeout_ms", *_BATCH, "position", "view")
OPERATIONS: dict[str, Operation] = {
    "get_state": Operation("the state message, in the reply's state"),
    "get_result": Operation(f"results from the journal, at most {MAX_RESULTS_PER_REPLY} per reply", ("from",), ("to",)),
    "trigger": Operation("expose now; accepted or busy at once, then exactly one result", *_TRIGGER),
    "expect": Operation(
        "a hard-wired trigger fires now: the exposure within [hard_wired] early_ms and late_ms is this part's", *_EXPECT
    ),
    "prepare_recipe": Operation("verify, open and warm up a recipe; it becomes active between two "
                                "frames", ("recipe",), (), True),
    "unprepare_recipe": Operation("close the recipe", (), ("recipe",), True),
    "start": Operation(
        "judge every frame (ContinuousExecution); mode `single`: the frame of one trigger", (), ("mode",)
    ),
    "stop": Operation("finish the frames being processed, then Ready"),
    "halt": Operation("go to Halted; needs reset"),
    "abort": Operation("answer the frames being processed ABORTED at once, then Ready"),
    "reset": Operation("leave Halted or Error; can always be called", (), (), True),
    "set_threshold": Operation("another threshold for the active recipe", ("threshold",)),
    "self_test": Operation("score the golden frames again", (), (), True),
    "set_batch": Operation(
        "lot, order and shift of the parts from now on, until changed, also after a restart; one that is absent stays, "
        "an empty one is removed", (), _BATCH
    ),
    "reset_counters": Operation("count results from 0 again; what had been counted is in the audit file"),
    "shutdown": Operation(
        "answer every admitted frame, then end the process with all its stations; if there are several, "
        "the request must not name one",
        (), (), True,
    ),
}
"""Every operation, its fields besides ``v id op station`` and what it does: the source of the table in docs/wire.md."""


class Request(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A request. The same ``id`` asked again gets the same answer and is not done twice."""

    v: int = VERSION
    id: Id
    op: Id
    station: NameOrEmpty = ""
    """May be left out where the process hosts one station."""
    from_: Positive | None = None
    to: Positive | None = None
    trigger_id: NonZeroU32 | None = None
    part_id: str | None = None
    recipe: Name | None = None
    timeout_ms: NonZeroU32 | None = None
    threshold: float | None = None
    mode: Literal["continuous", "single"] | None = None
    session: UuidOrEmpty = ""
    """Of the last state that the sender received, with its ``uptime_ms``: the station knows by them how old this is."""
    uptime_ms: Count | None = None
    actor: Text = ""
    """On whose behalf: gateway, user and peer; for the audit file and events."""
    lot: str | None = None
    order: str | None = None
    shift: str | None = None
    """Of this part, or with ``set_batch`` of all from now on."""
    position: Offset | None = None
    """Counts of the line's encoder at the trigger; the result carries it on."""
    view: U8 | msgspec.UnsetType = msgspec.UNSET
    """The view that is exposed now, from 1; absent or 0: all of them, or the station has none."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the request of the same ``id``. ``id`` is empty where the request had none to repeat."""

    v: int = VERSION
    id: Text
    ok: bool
    code: Id
    text: Annotated[str, msgspec.Meta(max_length=MAX_EVENT_TEXT)] = ""
    state: StationState | None = None
    results: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_RESULTS_PER_REPLY)] | None = None
    """Bodies of result messages, ascending by ``result_id``; ``reply_results`` reads them."""
    first_result_id: Positive | None = None
    """Oldest id of the journal, published or still in work: what was asked for before it is gone. What was asked for
    from it on and is not in ``results`` has not been published yet, or did not fit: ask again."""
    last_result_id: Count | None = None
    """Highest ``result_id`` published so far."""
    next_result_id: Positive | None = None
    """Where the reply was cut: ask again from here. Null: everything asked for was looked at."""
    recipe_change: Positive | None = None
    """Number of the change of recipe that was begun; the state's ``recipe_change`` reports its outcome."""


_request = msgspec.json.Decoder(Request)
_reply = msgspec.json.Decoder(Reply)
_id = msgspec.json.Decoder(Id)


def encode_request(request: Request) -> bytes:
    """JSON of a request. Raises WireError when it breaks the contract."""
    check_request(request)
    return write_json(_request, request, MAX_CONTROL_BYTES, "request")


def decode_request(body: Part) -> Request:
    """The request of a JSON body; fields its operation needs are there. Raises WireError and nothing else.

    An operation that is not known is not an error here: it is answered UNKNOWN_OP.
    """
    request = read_json(_request, body, MAX_CONTROL_BYTES, "request")
    check_request(request)
    return request


def check_request(request: Request) -> None:
    """Raises WireError when a field that the operation requires is absent or a number is none."""
    require_finite("request", threshold=request.threshold)
    check_part(f"request {request.op}", request.part_id, request.lot, request.order, request.shift)
    operation = OPERATIONS.get(request.op)
    for field in operation.required if operation else ():
        if getattr(request, "from_" if field == "from" else field) is None:
            raise WireError(f"request {request.op}: {field} is missing; it is required (docs/wire.md, Control)")
    if request.from_ is not None and request.to is not None and request.to < request.from_:
        raise WireError(f"request {request.op}: to = {request.to} is less than from = {request.from_}")


def peek_request_id(body: Part) -> str:
    """The ``id`` of a request that may be malformed, for the reply; empty where there is none. Never raises."""
    try:
        view = as_bytes_view(body, "request")
        return _id.decode(fields_of(view)["id"]) if view.nbytes <= MAX_CONTROL_BYTES else ""
    except (WireError, KeyError, msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def encode_reply(reply: Reply) -> bytes:
    """JSON of a reply. Raises WireError when it breaks the contract."""
    _check_reply(reply)
    return write_json(_reply, reply, MAX_CONTROL_BYTES, "reply")


def decode_reply(body: Part) -> Reply:
    """The reply of a JSON body. Raises WireError and nothing else."""
    reply = read_json(_reply, body, MAX_CONTROL_BYTES, "reply")
    _check_reply(reply)
    return reply


def reply_results(reply: Reply) -> list[ReceivedResult]:
    """The results in a reply. Raises WireError when one of them is malformed."""
    return [decode_result_body(bytes(raw)) for raw in reply.results or ()]


def split_envelope(parts: Sequence[Part]) -> tuple[list[bytes], Part]:
    """``(what precedes the JSON, JSON)`` of a control message; the first is repeated before the reply.

    Raises WireError when there is anything but routing ids and one empty part before the JSON.
    """
    if not 1 <= len(parts) <= 3:
        raise WireError(f"a control message has 1 part of JSON, optionally after an empty one, not {len(parts)} parts")
    return [bytes(part) for part in parts[:-1]], parts[-1]


def _check_reply(reply: Reply) -> None:
    if reply.ok and reply.code not in ("OK", "ACCEPTED"):
        raise WireError(f"reply {reply.id}: ok is true with code {reply.code}; only OK and ACCEPTED may have ok true")
    if reply.state is not None:
        check_state(reply.state)
