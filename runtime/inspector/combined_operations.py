"""What a combined station does on request: what concerns its views is done in all of them, or in none."""

from __future__ import annotations

from collections.abc import Callable, Collection

from asperity.runtime import wire
from asperity.runtime.errors import StateError
from asperity.runtime.inspector.combined_station import CombinedStation
from asperity.runtime.inspector.controller import Controller
from asperity.runtime.inspector.giving import batch_of, batch_refusal, mode_refusal
from asperity.runtime.inspector.operations import begun, get_result, get_state, reply, reset_counters
from asperity.runtime.inspector.station import Station
from asperity.runtime.reasons import Reason
from asperity.runtime.records.audit import Actor
from asperity.runtime.states import Cause, State, step


def _trigger(combined: CombinedStation, request: wire.Request, hard_wired: bool = False) -> wire.Reply:
    """One trigger for all views, or for the one that it names. What is not taken leaves no trigger at any view."""
    views, at = combined.seen_by, (request.view or 0) - 1
    if combined.rules.triggered == "one_by_one" and 0 <= at < len(views):
        views = [views[at]]
    try:
        step(combined.state, Cause.TRIGGER)
        answer = _refused(combined, request, hard_wired, at, views)
    except StateError:
        combined.follow(request, views)
        raise
    if answer is not None:
        combined.follow(request, views)
        return answer
    assert request.trigger_id is not None  # the wire requires it
    part = combined.parts.get(request.trigger_id) or combined.open(request, hard_wired)
    if combined.rules.triggered == "one_by_one":
        combined.give(part, at, request)
    else:
        for station in combined.stations:
            combined.give(part, combined.seen_by.index(station), request)
    return reply(request.id, "ACCEPTED")


def _refused(
    combined: CombinedStation, request: wire.Request, hard_wired: bool, at: int, views: list[Station]
) -> wire.Reply | None:
    """Why a trigger is not taken; None: each view that it is for can take it."""
    assert request.trigger_id is not None  # the wire requires it
    refusal = mode_refusal(combined.config, request, hard_wired) or batch_refusal(combined.config, request)
    if not refusal and combined.rules.triggered == "one_by_one":
        refusal = _view_refusal(combined, request, at)
    elif not refusal and at >= 0:
        refusal = f"view is {request.view}, but the views of {combined.name} are triggered together: leave it out"
    refusal = refusal or combined.refusal(request, hard_wired, views)
    if refusal:
        return reply(request.id, "REFUSED", refusal)
    goes_on = at > 0 and combined.rules.triggered == "one_by_one"
    busy = ("" if goes_on else combined.parts.busy(request.trigger_id)) or combined.busy(request.trigger_id, views)
    return reply(request.id, "BUSY", busy) if busy else None


def _view_refusal(combined: CombinedStation, request: wire.Request, at: int) -> str:
    """Why this view of this part is not exposed; empty: it may be. A part of which one comes twice is over."""
    assert request.trigger_id is not None  # the wire requires it
    views, part = combined.seen_by, combined.parts.get(request.trigger_id)
    if not 0 <= at < len(views):
        return f"the views of {combined.name} are triggered one by one: give view, 1 to {len(views)}"
    if part is None:
        first = f"no part of trigger {request.trigger_id} is open: begin with view 1"
        return "" if at == 0 else first
    why = ""
    if part.due.views[at].ticket in part.given:
        why = f"view {at + 1} was triggered twice"
    elif request.part_id and request.part_id != part.due.part_id:
        why = f"view {at + 1} was triggered for another part_id"
    if why:
        part.end(Reason.VIEW_CONFLICT, why)
    return why


def _prepare_recipe(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    assert request.recipe is not None  # the wire requires it
    if combined.recipes.busy:
        return reply(request.id, "BUSY", combined.recipes.busy)
    if refusal := combined.recipes.refusal(request.recipe):
        return reply(request.id, "REFUSED", refusal)
    step(combined.state, Cause.PREPARE_RECIPE)
    return begun(request.id, combined.recipes.prepare(request.recipe, actor))


def _unprepare_recipe(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    if combined.recipes.busy:
        return reply(request.id, "BUSY", combined.recipes.busy)
    active = combined.recipe.name if combined.recipe else "none"
    if request.recipe not in (None, active):
        return reply(request.id, "REFUSED", f"recipe {request.recipe} is not active; the active recipe is {active}")
    return begun(request.id, combined.recipes.unprepare(actor))


def _each(
    combined: CombinedStation, cause: Cause, act: Callable[[Controller], None], there: Collection[State] = ()
) -> None:
    """Do it in every view, except where it is so already. Raises StateError before anything is done."""
    todo = [station.controller for station in combined.stations if station.controller.state not in there]
    if not todo:
        step(combined.state, cause)
    for controller in todo:
        step(controller.state, cause)
    for controller in todo:
        act(controller)


def _start(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    if request.mode == "single":
        return reply(request.id, "REFUSED", "a combined station judges continuously: start without mode, then trigger")
    _each(
        combined, Cause.START_CONTINUOUS, lambda controller: controller.start(single=False),
        {State.CONTINUOUS_EXECUTION},
    )  # fmt: skip
    return reply(request.id, "OK")


def _stop(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    _each(combined, Cause.STOP, Controller.stop, {State.READY})
    return reply(request.id, "OK")


def _abort(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    _each(combined, Cause.ABORT, Controller.abort, {State.READY})
    combined.drop_parts(Reason.ABORTED, "an operator aborted it")
    return reply(request.id, "OK")


def _halt(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    _each(combined, Cause.HALT, Controller.halt)
    combined.drop_parts(Reason.ABORTED, "an operator halted the station")
    return reply(request.id, "OK")


def _reset(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    _each(combined, Cause.RESET, Controller.reset)
    combined.drop_parts(Reason.ABORTED, "an operator reset the station")
    combined.reset()
    return reply(request.id, "ACCEPTED")


def _self_test(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    _each(combined, Cause.SELF_TEST, Controller.self_test)
    return reply(request.id, "ACCEPTED")


def _set_threshold(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    views = ", ".join(station.name for station in combined.stations)
    return reply(request.id, "REFUSED", f"each view has a threshold: set it at the station of that view ({views})")


def _set_batch(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    if too_long := batch_refusal(combined.config, request):
        return reply(request.id, "REFUSED", too_long)
    batch = batch_of(request, combined.counting.batch)
    combined.counting.set_batch(batch)
    for station in combined.stations:
        station.counting.set_batch(batch)
    return reply(request.id, "OK")


def _reset_counters(combined: CombinedStation, request: wire.Request, actor: Actor) -> wire.Reply:
    for station in combined.stations:
        reset_counters(station, request, actor)
    return reset_counters(combined, request, actor)


OPERATIONS: dict[str, Callable[[CombinedStation, wire.Request, Actor], wire.Reply]] = {
    "get_state": get_state,
    "get_result": get_result,
    "trigger": lambda combined, request, actor: _trigger(combined, request),
    "expect": lambda combined, request, actor: _trigger(combined, request, hard_wired=True),
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
