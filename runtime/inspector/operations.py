"""What a station does on request: one function per operation of the control socket."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asperity.runtime import wire
from asperity.runtime.inspector.combined_station import CombinedStation
from asperity.runtime.inspector.giving import (
    batch_of,
    batch_refusal,
    give_trigger,
    own_refusal,
    trigger_busy,
    trigger_refusal,
)
from asperity.runtime.inspector.station import Station
from asperity.runtime.records.audit import Actor
from asperity.runtime.settings.combined_stations import view_of
from asperity.runtime.states import Cause, State, step

TEXT_MAX = 512


def get_state(station: Station | CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    """The state message."""
    return wire.Reply(id=request.id, ok=True, code="OK", state=station.state_message(station.clock()))


def get_result(station: Station | CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    """Results from the journal."""
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
    controller = station.controller
    step(controller.state, Cause.TRIGGER)
    assert request.trigger_id is not None  # the wire requires it
    refusal = own_refusal(station, request) or trigger_refusal(station, request, hard_wired)
    busy = trigger_busy(station, request.trigger_id)
    if controller.state is State.SINGLE_EXECUTION and controller.single_trigger_id is not None:
        busy = f"trigger {controller.single_trigger_id} already belongs to this single execution"
    if refusal or busy:
        station.triggers.follow(request.trigger_id, request.part_id or "", station.clock().ns)
        return reply(request.id, "REFUSED" if refusal else "BUSY", refusal or busy)
    give_trigger(station, request, hard_wired, batch_of(request, station.counting.batch))
    if controller.state is State.SINGLE_EXECUTION:
        controller.single_trigger_id = request.trigger_id
    return reply(request.id, "ACCEPTED")


def _expect(station: Station, request: wire.Request) -> wire.Reply:
    return _trigger(station, request, hard_wired=True)


def _prepare_recipe(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    controller = station.controller
    if controller.busy:
        return reply(request.id, "BUSY", controller.busy)
    if request.recipe not in station.config.recipes:
        known = ", ".join(station.config.recipes) or "none"
        return reply(request.id, "REFUSED", f"there is no recipe {request.recipe}; available in [recipes]: {known}")
    return begun(request.id, controller.prepare(request.recipe, actor))


def _unprepare_recipe(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    controller = station.controller
    if controller.busy:
        return reply(request.id, "BUSY", controller.busy)
    in_force = controller.recipe.name if controller.recipe else "none"
    if request.recipe not in (None, in_force):
        return reply(request.id, "REFUSED", f"recipe {request.recipe} is not active; the active recipe is {in_force}")
    return begun(request.id, controller.unprepare(actor))


def _start(station: Station, request: wire.Request, actor: Actor) -> wire.Reply:
    if request.mode == "single" and station.config.station.triggers == "free_run":
        return reply(request.id, "REFUSED", "mode single waits for a trigger, but [station] triggers is free_run")
    if request.mode == "single" and view_of(station.config):
        return reply(request.id, "REFUSED", f"{station.name} is a view, which its combined station triggers")
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
    if too_long := batch_refusal(station.config, request):
        return reply(request.id, "REFUSED", too_long)
    station.counting.set_batch(batch_of(request, station.counting.batch))
    return reply(request.id, "OK")


def reset_counters(station: Station | CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    """Count from 0 again; what had been counted goes into the audit file."""
    before = station.counting.reset(station.clock())
    station.record(
        "counters_reset", actor, "done", since_us=before.since_us, ok=before.ok, ng=before.ng, unknown=before.unknown,
        by_reason=dict(before.by_reason),
    )  # fmt: skip
    return reply(request.id, "OK")


OPERATIONS: dict[str, Callable[[Station, wire.Request, Actor], wire.Reply]] = {
    "get_state": get_state,
    "get_result": get_result,
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
    "reset_counters": reset_counters,
    "set_threshold": _set_threshold,
}


def begun(request_id: str, change: int) -> wire.Reply:
    """A change of recipe has begun; the state reports its outcome."""
    return wire.Reply(id=request_id, ok=True, code="ACCEPTED", recipe_change=change)


def reply(request_id: str, code: str, text: str = "") -> wire.Reply:
    """A reply of that code; ``text`` is cut to TEXT_MAX."""
    return wire.Reply(id=request_id, ok=code in ("OK", "ACCEPTED"), code=code, text=text[:TEXT_MAX])
