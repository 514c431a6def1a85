"""A request to the station out of what a client of a gateway sent as JSON."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from asperity.runtime.errors import WireError
from asperity.runtime.text.formats import check_keys
from asperity.runtime.wire import MAX_INTEGER, UNSET, Request, decode_request
from asperity.runtime.wire.common import fields_of

FIELDS = ("from_", "to", "trigger_id", "part_id", "recipe", "timeout_ms", "mode", "lot", "order", "shift", "position",
          "view")  # fmt: skip
NOT_FROM_A_GATEWAY = frozenset({"shutdown", "set_threshold"})
"""A gateway's client ends no inspector and does not move the line between good and bad."""

_WITH_POINT = re.compile(rb"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def request_of(op: str, body: bytes, own: dict[str, Any] | None = None) -> Request:
    """The request ``op`` with the fields of a JSON object. Raises WireError.

    ``own``: fields that the gateway sets, which the client must leave out. ``7.0`` is 7, as in JSON Schema.
    """
    try:
        check_keys(str(body, "utf-8"))
        fields = {name: _as_integer(value) for name, value in fields_of(body).items()}
        named = msgspec.json.encode(op)
        if "op" in fields and bytes(fields["op"]) != named:
            raise WireError(f"the address names the operation {op} and the message another; leave op out of it")
        taken = sorted(set(own or {}) & set(fields))
        if taken:
            raise WireError(f"{taken[0]} is set by the gateway; leave it out")
        given = {"v": msgspec.Raw(b"1"), **fields, **(own or {}), "op": msgspec.Raw(named)}
        return decode_request(msgspec.json.encode(given))
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(str(error)) from error


def fields_to_ask(request: Request) -> dict[str, Any]:
    """What ``Link.ask`` takes of it."""
    given = {name: getattr(request, name) for name in FIELDS}
    values = {name: value for name, value in given.items() if value not in (None, UNSET)}
    if request.session or request.uptime_ms is not None:
        # Both, so that never one of ours goes with one of theirs.
        values |= {"session": request.session, "uptime_ms": request.uptime_ms}
    return values


def _as_integer(value: msgspec.Raw) -> msgspec.Raw:
    """An integer that was written with a point or an exponent, as one; anything else as it is."""
    number = float(bytes(value)) if _WITH_POINT.fullmatch(bytes(value)) else 0.5
    return msgspec.Raw(b"%d" % int(number)) if abs(number) <= MAX_INTEGER and number.is_integer() else value
