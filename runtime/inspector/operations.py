"""What a station does on request: one function per operation of the control socket."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec

from asperity.runtime import wire
from asperity.runtime.clock import MS
from asperity.runtime.frame import Result
from asperity.runtime.inspector.station import Station
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.reasons import Reason
from asperity.runtime.records.audit import Actor
from asperity.runtime.records.journal import PROMISES_MAX
from asperity.runtime.states import Cause, State, step
from asperity.runtime.text.part_identity import Batch

TEXT_MAX = 512


def _get_state(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    return wire.Reply(id=request.id, ok=True, code="OK", state=station.state_message(station.clock()))


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
        last_result_id=station.results.last_published_id,
        next_result_id=next_id,
    )


def _trigger(station: Station, request: wire.Request, hard_wired: bool = False) -> wire.Reply:
    controller, config, line = station.controller, station.config, station.line
    step(controller.state, Cause.TRIGGER)
    assert request.trigger_id is not None  # the wire requires it
    recipe, timeout_ms = controller.recipe.name if controller.recipe else "", request.timeout_ms or 0
    refusal = _trigger_refusal(station, request, hard_wired, recipe)
    if refusal:
        return reply(request.id, "REFUSED", refusal)
    busy = station.triggers.refusal(request.trigger_id)
    if controller.state is State.SINGLE_EXECUTION and controller.single_trigger_id is not None:
        busy = f"trigger {controller.single_trigger_id} already belongs to this single execution"
    elif not busy and station.promised >= PROMISES_MAX:
        busy = f"{PROMISES_MAX} triggers are waiting for their results"
    now, batch = station.clock(), _batch(station, request)
    if busy:
        station.triggers.follow(request.trigger_id, request.part_id or "", now.ns)
        return reply(request.id, "BUSY", busy)
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
        position=request.position,
        **batch._asdict(),
    )
    # With a hard-wired trigger a frame that is there already may be this part's.
    from_id = min(station.work, default=0) if hard_wired else 0
    entry = station.journal.promise(wire.encode_result_body(owed), from_id)
    promise = 0 if hard_wired else secrets.randbelow(wire.MAX_INTEGER) + 1
    expires_ns = None if hard_wired else now.ns + timeout_ms * MS
    station.triggers.add(
        PendingTrigger(
            request.trigger_id,
            request.part_id or "",
            request.recipe,
            promise,
            expires_ns,
            entry,
            batch,
            request.position,
            given_ns=now.ns,
        )
    )
    if controller.state is State.SINGLE_EXECUTION:
        controller.single_trigger_id = request.trigger_id
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
    return reply(request.id, "ACCEPTED")


def _trigger_refusal(station: Station, request: wire.Request, hard_wired: bool, recipe: str) -> str:
    """Why a trigger is not taken, however often it is repeated; empty: it may be."""
    config, timeout_ms = station.config, request.timeout_ms or 0
    mode, needed = config.station.triggers, "hard_wired" if hard_wired else "software"
    if mode != needed:
        return f"[station] triggers is {mode}; {request.op} needs {needed}"
    if timeout_ms > config.triggers.timeout_max_ms:
        return f"timeout_ms is {timeout_ms}; the maximum is {config.triggers.timeout_max_ms}"
    if request.recipe is not None and request.recipe != recipe:
        return f"recipe {request.recipe} was requested, but {recipe} is active"
    if too_long := _batch_refusal(station, request):
        return too_long
    assert request.trigger_id is not None  # the wire requires it
    return station.line.refusal(request.trigger_id) if station.line is not None else ""


def _expect(station: Station, request: wire.Request) -> wire.Reply:
    return _trigger(station, request, hard_wired=True)


def _prepare_recipe(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    controller = station.controller
    if controller.busy:
        return reply(request.id, "BUSY", controller.busy)
    if request.recipe not in station.config.recipes:
        known = ", ".join(station.config.recipes) or "none"
        return reply(request.id, "REFUSED", f"there is no recipe {request.recipe}; available in [recipes]: {known}")
    return _begun(request.id, controller.prepare(request.recipe, actor))


def _unprepare_recipe(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    controller = station.controller
    if controller.busy:
        return reply(request.id, "BUSY", controller.busy)
    in_force = controller.recipe.name if controller.recipe else "none"
    if request.recipe not in (None, in_force):
        return reply(request.id, "REFUSED", f"recipe {request.recipe} is not active; the active recipe is {in_force}")
    return _begun(request.id, controller.unprepare(actor))


def _start(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    if request.mode == "single" and station.config.station.triggers == "free_run":
        return reply(request.id, "REFUSED", "mode single waits for a trigger, but [station] triggers is free_run")
    station.controller.start(single=request.mode == "single")
    return reply(request.id, "OK")


def _stop(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.controller.stop()
    return reply(request.id, "OK")


def _abort(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.controller.abort()
    return reply(request.id, "OK")


def _halt(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.controller.halt()
    return reply(request.id, "OK")


def _reset(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.controller.reset()
    return reply(request.id, "ACCEPTED")


def _self_test(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    station.controller.self_test()
    return reply(request.id, "ACCEPTED")


def _set_threshold(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    controller = station.controller
    assert request.threshold is not None  # the wire requires it
    if controller.busy:
        return reply(request.id, "BUSY", controller.busy)
    refusal = controller.threshold_refusal(request.threshold)
    if refusal:
        return reply(request.id, "REFUSED", refusal)
    controller.set_threshold(request.threshold, actor)
    return reply(request.id, "ACCEPTED")


def _set_batch(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    if too_long := _batch_refusal(station, request):
        return reply(request.id, "REFUSED", too_long)
    station.counting.set_batch(_batch(station, request))
    return reply(request.id, "OK")


def _reset_counters(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    before = station.counting.reset(station.clock())
    station.record(
        "counters_reset", actor, "done", since_us=before.since_us, ok=before.ok, ng=before.ng, unknown=before.unknown,
        by_reason=dict(before.by_reason),
    )  # fmt: skip
    return reply(request.id, "OK")


def _batch_refusal(station: Station, request: wire.Request) -> str:
    """Why this lot, order or shift is not taken; empty: it is."""
    most = station.config.parts.text_max_nbytes
    for name in Batch._fields:
        nbytes = len((getattr(request, name) or "").encode())
        if nbytes > most:
            return f"{name} has {nbytes} bytes; [parts] text_max_nbytes is {most}: shorten it"
    return ""


def _batch(station: Station, request: wire.Request) -> Batch:
    """As the request says, and of what it does not say as the station has it."""
    given = {name: getattr(request, name) for name in Batch._fields if getattr(request, name) is not None}
    return station.counting.batch._replace(**given)


OPERATIONS: dict[str, Callable[[Station, wire.Request, Actor], wire.Reply]] = {
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
    "set_batch": _set_batch,
    "reset_counters": _reset_counters,
    "set_threshold": _set_threshold,
}


def _begun(request_id: str, change: int) -> wire.Reply:
    """A change of recipe has begun; the state reports its outcome."""
    return wire.Reply(id=request_id, ok=True, code="ACCEPTED", recipe_change=change)


def reply(request_id: str, code: str, text: str = "") -> wire.Reply:
    """A reply of that code; ``text`` is cut to TEXT_MAX."""
    return wire.Reply(id=request_id, ok=code in ("OK", "ACCEPTED"), code=code, text=text[:TEXT_MAX])
