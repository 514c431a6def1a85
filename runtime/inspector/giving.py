"""A trigger is given to a station: why it is not taken, or its promise, and the message to the camera."""

from __future__ import annotations

import secrets

from asperity.runtime import wire
from asperity.runtime.clock import MS
from asperity.runtime.frame import Result
from asperity.runtime.inspector.station import Station
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.reasons import Reason
from asperity.runtime.records.journal import PROMISES_MAX
from asperity.runtime.settings.combined_stations import view_of
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.text.part_identity import Batch


def trigger_refusal(station: Station, request: wire.Request, hard_wired: bool) -> str:
    """Why a trigger is not taken, however often it is repeated; empty: it may be."""
    config, timeout_ms = station.config, request.timeout_ms or 0
    recipe = station.controller.recipe.name if station.controller.recipe else ""
    if refusal := mode_refusal(config, request, hard_wired):
        return refusal
    if timeout_ms > config.triggers.timeout_max_ms:
        return f"timeout_ms is {timeout_ms}; the maximum is {config.triggers.timeout_max_ms}"
    if request.recipe is not None and request.recipe != recipe:
        return f"recipe {request.recipe} was requested, but {recipe} is active"
    if too_long := batch_refusal(config, request):
        return too_long
    assert request.trigger_id is not None  # the wire requires it
    return station.line.refusal(request.trigger_id) if station.line is not None else ""


def mode_refusal(config: StationConfig, request: wire.Request, hard_wired: bool) -> str:
    """Why this station takes no such trigger; empty: it does."""
    mode, needed = config.station.triggers, "hard_wired" if hard_wired else "software"
    return f"[station] triggers is {mode}; {request.op} needs {needed}" if mode != needed else ""


def own_refusal(station: Station, request: wire.Request) -> str:
    """Why a client's trigger is not for this station by itself; empty: it is."""
    whole = view_of(station.config)
    if whole:
        return f"{station.name} is a view of the combined station {whole}: trigger that one"
    return f"view is {request.view}, but {station.name} is not a combined station" if request.view else ""


def trigger_busy(station: Station, trigger_id: int) -> str:
    """Why a trigger is not taken now; empty: it is."""
    busy = station.triggers.refusal(trigger_id)
    if not busy and station.promised >= PROMISES_MAX:
        busy = f"{PROMISES_MAX} triggers are waiting for their results"
    return busy


def give_trigger(station: Station, request: wire.Request, hard_wired: bool, batch: Batch, ticket: int = 0) -> None:
    """Take a trigger that is neither refused nor busy. ``ticket``: of the part's view that its result is."""
    assert request.trigger_id is not None  # the wire requires it
    recipe, timeout_ms, now = station.controller.recipe, request.timeout_ms or 0, station.clock()
    owed = Result(
        station=station.name,
        session=station.session,
        result_id=station.journal.last_id + 1,
        camera=station.camera,
        trigger_id=request.trigger_id,
        part_id=request.part_id or "",
        recipe=recipe.name if recipe else "",
        reason=Reason.RESTARTED,
        t_done_us=now.wall_us,
        position=request.position,
        view_of=view_of(station.config),
        **batch._asdict(),
    )
    # With a hard-wired trigger a frame that is there already may be this part's.
    from_id = min(station.work, default=0) if hard_wired else 0
    entry = station.journal.promise(wire.encode_result_body(owed), from_id)
    promise = 0 if hard_wired else secrets.randbelow(wire.MAX_INTEGER) + 1
    station.triggers.add(
        PendingTrigger(
            request.trigger_id,
            request.part_id or "",
            request.recipe,
            promise,
            None if hard_wired else now.ns + timeout_ms * MS,
            entry,
            batch,
            request.position,
            given_ns=now.ns,
            ticket=ticket,
        )
    )
    if station.line is not None:
        station.line.announce(request.trigger_id, now)
    if not hard_wired or station.config.engine.name == "simulated":  # whose camera is fired by the announcement itself
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


def batch_refusal(config: StationConfig, request: wire.Request) -> str:
    """Why this lot, order or shift is not taken; empty: it is."""
    most = config.parts.text_max_nbytes
    for name in Batch._fields:
        nbytes = len((getattr(request, name) or "").encode())
        if nbytes > most:
            return f"{name} has {nbytes} bytes; [parts] text_max_nbytes is {most}: shorten it"
    return ""


def batch_of(request: wire.Request, of_station: Batch) -> Batch:
    """As the request says, and of what it does not say as the station has it."""
    given = {name: getattr(request, name) for name in Batch._fields if getattr(request, name) is not None}
    return of_station._replace(**given)
