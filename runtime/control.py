"""Requests on the control socket: one function an operation. A repeated id is answered again, not done again."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from runtime import wire
from runtime.clock import MS
from runtime.errors import StateError, WireError
from runtime.frame import Result
from runtime.reasons import Reason
from runtime.states import Cause, State, step
from runtime.triggers import PendingTrigger

if TYPE_CHECKING:
    from runtime.inspector import Inspector
    from runtime.station import Station

TEXT_MAX = 512
READ_ONLY = frozenset({"get_state", "get_result"})
"""Operations that change nothing: answered afresh each time, and not kept."""


class ReplyCache:
    """The last replies by request id: at most ``size``."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    def get(self, request_id: str) -> tuple[bytes, bytes] | None:
        """(request, reply) of an id that was answered before."""
        return self._kept.get(request_id)

    def keep(self, request_id: str, request: bytes, reply: bytes) -> None:
        """Remember a reply."""
        self._kept[request_id] = request, reply
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)


def answer(desk: Inspector, sender: list[bytes], parts: Sequence[bytes], client: str = "") -> tuple[list[bytes], bytes]:
    """The reply to a message on the control socket: (envelope, body). Never raises for what a client sent.

    ``client``: the key's id of who asks; with CURVE nobody without one is allowed anything.
    """
    access = desk.sockets.access
    try:
        envelope, body = wire.split_envelope(parts)
    except WireError as error:
        return sender, _reply("", "BAD_REQUEST", str(error))
    too_much = access.overasks(client, sender[0], len(body))
    if too_much:
        return [*sender, *envelope], _reply(wire.peek_request_id(body), "BUSY", too_much)
    try:
        request = wire.decode_request(body)
    except WireError as error:
        return [*sender, *envelope], _reply(wire.peek_request_id(body), "BAD_REQUEST", str(error))
    forbidden = access.asks(client, request.op)
    if forbidden:
        return [*sender, *envelope], _reply(request.id, "NOT_ALLOWED", f"{request.op}: {forbidden}")
    return [*sender, *envelope], _answer_once(desk, request, bytes(body))


def _answer_once(desk: Inspector, request: wire.Request, body: bytes) -> bytes:
    kept = desk.replies.get(request.id)
    if kept is not None and request.op not in READ_ONLY:
        if kept[0] == body:
            return kept[1]
        return _reply(request.id, "BAD_REQUEST", "this id was used for another request; give each request its own")
    reply = _do(desk, request)
    if request.op not in READ_ONLY:
        desk.replies.keep(request.id, body, reply)
    return reply


def _do(desk: Inspector, request: wire.Request) -> bytes:
    if request.op == "shutdown":
        return _shutdown(desk, request)
    station = _station_of(desk, request.station)
    if isinstance(station, str):
        return _reply(request.id, "WRONG_STATION", station)
    operation = _OPERATIONS.get(request.op)
    if operation is None:
        return _reply(request.id, "UNKNOWN_OP", f"there are: {', '.join((*_OPERATIONS, 'shutdown'))}")
    try:
        return operation(station, request)
    except StateError as error:
        return _reply(request.id, "WRONG_STATE", str(error))


def _station_of(desk: Inspector, name: str) -> Station | str:
    """The station that a request means, or why there is none. The name may be left out where there is one station."""
    if name in desk.by_name:
        return desk.by_name[name]
    if len(desk.stations) == 1:
        return desk.stations[0] if name == "" else f"this is station {desk.stations[0].name}"
    here = ", ".join(desk.by_name)
    return f"the stations here are {here}" + ("" if name else "; name the one you mean in station")


def _shutdown(desk: Inspector, request: wire.Request) -> bytes:
    """Of the process, so of all its stations: nobody may end another's by naming his own."""
    if request.station and request.station not in desk.by_name:
        return _reply(request.id, "WRONG_STATION", str(_station_of(desk, request.station)))
    if request.station and len(desk.stations) > 1:
        here = ", ".join(desk.by_name)
        text = (
            f"shutdown ends the whole process, with the stations {here}: leave station out, or halt {request.station}"
        )
        return _reply(request.id, "REFUSED", text)
    desk.ending = True
    return _reply(request.id, "ACCEPTED")


def _get_state(station: Station, request: wire.Request) -> bytes:
    from runtime.status import state_message

    return wire.encode_reply(
        wire.Reply(id=request.id, ok=True, code="OK", state=state_message(station, station.clock()))
    )


def _get_result(station: Station, request: wire.Request) -> bytes:
    journal, most = station.journal, station.config.control.results_per_reply
    last_id = min(request.to or journal.last_id, journal.last_id)
    found: list[msgspec.Raw] = []
    next_id = None
    for result_id in range(max(request.from_ or 1, journal.oldest_id), last_id + 1):
        if len(found) == most:
            next_id = result_id
            break
        body = journal.get(result_id)
        if body is not None:
            found.append(msgspec.Raw(body))
    return wire.encode_reply(
        wire.Reply(
            id=request.id,
            ok=True,
            code="OK",
            results=tuple(found),
            first_result_id=journal.oldest_id,
            last_result_id=station.last_published_id,
            next_result_id=next_id,
        )
    )


def _trigger(station: Station, request: wire.Request, hard_wired: bool = False) -> bytes:
    operation, config, line = station.operation, station.config, station.line
    step(operation.state, Cause.TRIGGER)
    assert request.trigger_id is not None  # the wire requires it
    mode, needed = config.station.triggers, "hard_wired" if hard_wired else "software"
    if mode != needed:
        return _reply(request.id, "REFUSED", f"[station] triggers is {mode}; {request.op} needs {needed}")
    longest_ms, timeout_ms = config.triggers.timeout_max_ms, request.timeout_ms or 0
    if timeout_ms > longest_ms:
        return _reply(request.id, "REFUSED", f"timeout_ms is {timeout_ms}, the most is {longest_ms}")
    recipe = operation.recipe.name if operation.recipe else ""
    if request.recipe is not None and request.recipe != recipe:
        return _reply(request.id, "REFUSED", f"recipe {request.recipe} is asked for and {recipe} is in force")
    unclear = line.refusal(request.trigger_id) if line is not None else ""
    if unclear:
        return _reply(request.id, "REFUSED", unclear)
    busy = station.triggers.refusal(request.trigger_id)
    if operation.state is State.SINGLE_EXECUTION and operation.single_trigger_id is not None:
        busy = f"trigger {operation.single_trigger_id} is the one of this single execution"
    if busy:
        return _reply(request.id, "BUSY", busy)
    now = station.clock()
    owed = Result(
        station=station.name,
        session=station.session,
        result_id=station.journal.last_id + 1,
        camera=station.camera,
        trigger_id=request.trigger_id,
        part_id=request.part_id or "",
        recipe=recipe,
        reason=Reason.RESTARTED,
        t_done_us=now.wall_us,
    )
    entry = station.journal.promise(wire.encode_result_body(owed))
    promise = 0 if hard_wired else secrets.randbelow(wire.MAX_INTEGER) + 1
    expires_ns = None if hard_wired else now.ns + timeout_ms * MS
    station.triggers.add(
        PendingTrigger(request.trigger_id, request.part_id or "", request.recipe, promise, expires_ns, entry)
    )
    if operation.state is State.SINGLE_EXECUTION:
        operation.single_trigger_id = request.trigger_id
    if line is not None:
        line.announce(request.trigger_id, now)
    if not hard_wired or config.engine.name == "simulated":  # whose camera is fired by the announcement itself
        station.sockets.publish(
            wire.encode_trigger(
                wire.Trigger(
                    station=station.name,
                    session=station.session,
                    trigger_id=request.trigger_id,
                    promise=promise,
                    part_id=request.part_id or "",
                    recipe=request.recipe,
                    timeout_ms=max(1, timeout_ms),
                    t_us=now.wall_us,
                )
            )
        )
    return _reply(request.id, "ACCEPTED")


def _expect(station: Station, request: wire.Request) -> bytes:
    return _trigger(station, request, hard_wired=True)


def _prepare_recipe(station: Station, request: wire.Request) -> bytes:
    operation = station.operation
    if operation.busy:
        return _reply(request.id, "BUSY", operation.busy)
    if request.recipe not in station.config.recipes:
        known = ", ".join(station.config.recipes) or "none"
        return _reply(request.id, "REFUSED", f"there is no recipe {request.recipe}; [recipes] has: {known}")
    operation.prepare(request.recipe)
    return _reply(request.id, "ACCEPTED")


def _unprepare_recipe(station: Station, request: wire.Request) -> bytes:
    operation = station.operation
    if operation.busy:
        return _reply(request.id, "BUSY", operation.busy)
    in_force = operation.recipe.name if operation.recipe else "none"
    if request.recipe not in (None, in_force):
        return _reply(request.id, "REFUSED", f"recipe {request.recipe} is not in force; in force is {in_force}")
    operation.unprepare()
    return _reply(request.id, "ACCEPTED")


def _start(station: Station, request: wire.Request) -> bytes:
    if request.mode == "single" and station.config.station.triggers == "free_run":
        return _reply(request.id, "REFUSED", "mode single awaits a trigger, and [station] triggers is free_run")
    station.operation.start(single=request.mode == "single")
    return _reply(request.id, "OK")


def _stop(station: Station, request: wire.Request) -> bytes:
    station.operation.stop()
    return _reply(request.id, "OK")


def _abort(station: Station, request: wire.Request) -> bytes:
    station.operation.abort()
    return _reply(request.id, "OK")


def _halt(station: Station, request: wire.Request) -> bytes:
    station.operation.halt()
    return _reply(request.id, "OK")


def _reset(station: Station, request: wire.Request) -> bytes:
    station.operation.reset()
    return _reply(request.id, "ACCEPTED")


def _self_test(station: Station, request: wire.Request) -> bytes:
    station.operation.self_test()
    return _reply(request.id, "ACCEPTED")


def _set_threshold(station: Station, request: wire.Request) -> bytes:
    operation = station.operation
    assert request.threshold is not None  # the wire requires it
    if operation.busy:
        return _reply(request.id, "BUSY", operation.busy)
    refusal = operation.threshold_refusal(request.threshold)
    if refusal:
        return _reply(request.id, "REFUSED", refusal)
    operation.set_threshold(request.threshold)
    return _reply(request.id, "ACCEPTED")


_OPERATIONS: dict[str, Callable[[Station, wire.Request], bytes]] = {
    "get_state": _get_state,
    "get_result": _get_result,
    "trigger": _trigger,
    "expect": _expect,
    "prepare_recipe": _prepare_recipe,
    "unprepare_recipe": _unprepare_recipe,
    "start": _start,
    "stop": _stop,
    "abort": _abort,
    "halt": _halt,
    "reset": _reset,
    "self_test": _self_test,
    "set_threshold": _set_threshold,
}


def _reply(request_id: str, code: str, text: str = "") -> bytes:
    good = code in ("OK", "ACCEPTED")
    return wire.encode_reply(wire.Reply(id=request_id, ok=good, code=code, text=text[:TEXT_MAX]))
