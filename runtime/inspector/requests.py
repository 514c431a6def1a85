"""Requests on the control socket: one function an operation. A repeated id is answered again, not done again.

What changes something is done only while it is young (``_too_old``), and is written into the audit file with who asked.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from asperity.runtime import wire
from asperity.runtime.clock import MS
from asperity.runtime.errors import StateError, WireError
from asperity.runtime.frame import Result
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.reasons import Reason
from asperity.runtime.records.audit import Actor
from asperity.runtime.records.journal import PROMISES_MAX
from asperity.runtime.states import Cause, State, step

if TYPE_CHECKING:
    from asperity.runtime.inspector.desk import Inspector
    from asperity.runtime.inspector.station import Station

TEXT_MAX = 512
READ_ONLY = frozenset({"get_state", "get_result"})
"""Operations that change nothing: answered afresh each time, and not kept."""
OF_PARTS = frozenset({"trigger", "expect"})
"""Operations that come with every part: in the audit file only where a role forbids them. Results are the journal's."""


class ReplyCache:
    """The last replies by request id: at most ``size``."""

    def __init__(self, size: int) -> None:
        self.forgotten_ns: int | None = None
        """When the youngest reply was given that is kept no more: a request made before may be one that was done."""
        self._size = size
        self._kept: OrderedDict[str, tuple[bytes, bytes, int]] = OrderedDict()

    def get(self, request_id: str) -> tuple[bytes, bytes] | None:
        """(request, reply) of an id that was answered before."""
        kept = self._kept.get(request_id)
        return None if kept is None else kept[:2]

    def keep(self, request_id: str, request: bytes, reply: bytes, now_ns: int) -> None:
        """Remember a reply."""
        self._kept[request_id] = request, reply, now_ns
        while len(self._kept) > self._size:
            _, (_, _, self.forgotten_ns) = self._kept.popitem(last=False)


def answer(desk: Inspector, sender: list[bytes], parts: Sequence[bytes], client: str = "") -> tuple[list[bytes], bytes]:
    """The reply to a message on the control socket: (envelope, body). Never raises for what a client sent.

    ``client``: the key's id of who asks; with CURVE nobody without one is allowed anything.
    """
    access = desk.sockets.access
    try:
        envelope, body = wire.split_envelope(parts)
    except WireError as error:
        return sender, wire.encode_reply(_reply("", "BAD_REQUEST", str(error)))
    back = [*sender, *envelope]
    too_much = access.overasks(client, sender[0], len(body))
    if too_much:
        return back, wire.encode_reply(_reply(wire.peek_request_id(body), "BUSY", too_much))
    try:
        request = wire.decode_request(body)
    except WireError as error:
        return back, wire.encode_reply(_reply(wire.peek_request_id(body), "BAD_REQUEST", str(error)))
    actor = access.actor(client, request.actor)
    forbidden = access.asks(client, request.op)
    if forbidden:
        reply = _reply(request.id, "NOT_ALLOWED", f"{request.op}: {forbidden}")
        _audit(desk, request, reply, actor)
        return back, wire.encode_reply(reply)
    return back, _answer_once(desk, request, bytes(body), actor)


def _answer_once(desk: Inspector, request: wire.Request, body: bytes, actor: Actor) -> bytes:
    if request.op in READ_ONLY:
        return wire.encode_reply(_do(desk, request, actor))
    kept = desk.replies.get(request.id)
    if kept is not None:
        if kept[0] == body:
            return kept[1]
        refusal = "this id was used for another request; give each request its own"
        return wire.encode_reply(_reply(request.id, "BAD_REQUEST", refusal))
    reply = _too_old(desk, request) or _do(desk, request, actor)
    encoded = wire.encode_reply(reply)
    desk.replies.keep(request.id, body, encoded, desk.clock().ns)
    if request.op not in OF_PARTS:
        _audit(desk, request, reply, actor)
    return encoded


def _too_old(desk: Inspector, request: wire.Request) -> wire.Reply | None:
    """The refusal of a request whose sender may have given it up; None: it is of now, or does not say of when.

    ``session`` and ``uptime_ms`` are those of the last state that the sender had heard when it asked.
    """
    if not request.session and request.uptime_ms is None:
        return None
    if not request.session or request.uptime_ms is None:
        return _reply(request.id, "BAD_REQUEST", "session and uptime_ms belong together: repeat both of the last state")
    if request.session != desk.session:
        return _reply(request.id, "TOO_OLD", f"it is of session {request.session}; the present one is {desk.session}")
    limit_ms, age_ms = desk.config.control.request_age_max_ms, desk.uptime_ms - request.uptime_ms
    if not 0 <= age_ms <= limit_ms:
        when = f"{age_ms} ms ago" if age_ms > 0 else f"{-age_ms} ms from now"
        text = f"it is of {when}; [control] request_age_max_ms is {limit_ms}: look at the station's state and ask again"
        return _reply(request.id, "TOO_OLD", text)
    forgotten_ns = desk.replies.forgotten_ns
    if forgotten_ns is not None and desk.started_ns + request.uptime_ms * MS <= forgotten_ns:
        text = f"it may have been answered before: more than {desk.config.control.reply_cache} requests came since"
        return _reply(request.id, "TOO_OLD", f"{text} ([control] reply_cache)")
    return None


def _audit(desk: Inspector, request: wire.Request, reply: wire.Reply, actor: Actor) -> None:
    """Into the audit file, and an event: who asked what, and what was answered."""
    given = {name: getattr(request, name) for name in ("trigger_id", "part_id", "recipe", "threshold", "mode")}
    fields = {name: value for name, value in given.items() if value is not None}
    desk.audit.record(
        request.station or (desk.stations[0].name if len(desk.stations) == 1 else ""),
        request.op, actor, reply.code, reply.text, refused=not reply.ok, id=request.id, **fields,
    )  # fmt: skip
    if reply.code == "NOT_ALLOWED":
        return  # ``Access.report`` says so
    said = ", ".join(f"{name} {value}" for name, value in fields.items())
    why = f": {reply.text}" if reply.text else ""
    station = desk.by_name.get(request.station, desk.stations[0])
    kind = f"COMMAND {request.op} OK" if reply.ok else f"COMMAND {reply.code}"
    text = f"{request.op}{f' ({said})' if said else ''}: {reply.code}{why}"
    station.notice("info" if reply.ok else "warning", kind, text, actor=actor.text, of=actor.key)


def _do(desk: Inspector, request: wire.Request, actor: Actor) -> wire.Reply:
    if request.op == "shutdown":
        return _shutdown(desk, request)
    station = _station_of(desk, request.station)
    if isinstance(station, str):
        return _reply(request.id, "WRONG_STATION", station)
    operation = _OPERATIONS.get(request.op)
    if operation is None:
        return _reply(request.id, "UNKNOWN_OP", f"there are: {', '.join((*_OPERATIONS, 'shutdown'))}")
    try:
        return operation(station, request, actor)
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


def _shutdown(desk: Inspector, request: wire.Request) -> wire.Reply:
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


def _get_state(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    from asperity.runtime.status import state_message

    return wire.Reply(id=request.id, ok=True, code="OK", state=state_message(station, station.clock()))


def _get_result(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
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
    return wire.Reply(
        id=request.id,
        ok=True,
        code="OK",
        results=tuple(found),
        first_result_id=journal.oldest_id,
        last_result_id=station.last_published_id,
        next_result_id=next_id,
    )


def _trigger(station: Station, request: wire.Request, hard_wired: bool = False) -> wire.Reply:
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
    elif not busy and station.promised >= PROMISES_MAX:
        busy = f"{PROMISES_MAX} triggers await their results"
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
    # With a hard-wired trigger a frame that is there already may be this part's.
    from_id = min(station.work, default=0) if hard_wired else 0
    entry = station.journal.promise(wire.encode_result_body(owed), from_id)
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


def _expect(station: Station, request: wire.Request) -> wire.Reply:
    return _trigger(station, request, hard_wired=True)


def _prepare_recipe(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    operation = station.operation
    if operation.busy:
        return _reply(request.id, "BUSY", operation.busy)
    if request.recipe not in station.config.recipes:
        known = ", ".join(station.config.recipes) or "none"
        return _reply(request.id, "REFUSED", f"there is no recipe {request.recipe}; [recipes] has: {known}")
    return _begun(request.id, operation.prepare(request.recipe, actor))


def _unprepare_recipe(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    operation = station.operation
    if operation.busy:
        return _reply(request.id, "BUSY", operation.busy)
    in_force = operation.recipe.name if operation.recipe else "none"
    if request.recipe not in (None, in_force):
        return _reply(request.id, "REFUSED", f"recipe {request.recipe} is not in force; in force is {in_force}")
    return _begun(request.id, operation.unprepare(actor))


def _start(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    if request.mode == "single" and station.config.station.triggers == "free_run":
        return _reply(request.id, "REFUSED", "mode single awaits a trigger, and [station] triggers is free_run")
    station.operation.start(single=request.mode == "single")
    return _reply(request.id, "OK")


def _stop(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.operation.stop()
    return _reply(request.id, "OK")


def _abort(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.operation.abort()
    return _reply(request.id, "OK")


def _halt(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.operation.halt()
    return _reply(request.id, "OK")


def _reset(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.operation.reset()
    return _reply(request.id, "ACCEPTED")


def _self_test(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.operation.self_test()
    return _reply(request.id, "ACCEPTED")


def _set_threshold(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    operation = station.operation
    assert request.threshold is not None  # the wire requires it
    if operation.busy:
        return _reply(request.id, "BUSY", operation.busy)
    refusal = operation.threshold_refusal(request.threshold)
    if refusal:
        return _reply(request.id, "REFUSED", refusal)
    operation.set_threshold(request.threshold, actor)
    return _reply(request.id, "ACCEPTED")


_OPERATIONS: dict[str, Callable[[Station, wire.Request, Actor], wire.Reply]] = {
    "get_state": _get_state,
    "get_result": _get_result,
    "trigger": lambda station, request, actor: _trigger(station, request),
    "expect": lambda station, request, actor: _expect(station, request),
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


def _begun(request_id: str, change: int) -> wire.Reply:
    """A change of recipe is under way; the state says what becomes of it."""
    return wire.Reply(id=request_id, ok=True, code="ACCEPTED", recipe_change=change)


def _reply(request_id: str, code: str, text: str = "") -> wire.Reply:
    return wire.Reply(id=request_id, ok=code in ("OK", "ACCEPTED"), code=code, text=text[:TEXT_MAX])
