"""What a station says of itself, the state message five times a second; and what systemd is told of the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.states import READY_STATES

if TYPE_CHECKING:
    from asperity.runtime.inspector.desk import Inspector
    from asperity.runtime.inspector.station import Station


def state_message(station: Station, now: Now) -> wire.StationState:
    """The station's state now."""
    operation, ledger, recipe = station.operation, station.ledger, station.operation.recipe
    engine = operation.engine
    return wire.StationState(
        station=station.name,
        session=station.session,
        uptime_ms=(now.ns - station.started_ns) // MS,
        beat=station.place.beat,
        beat_timeout_ms=operation.beat_timeout_ms(),
        state=int(operation.state),
        ready=operation.state in READY_STATES and operation.tested and station.camera_alive(now),
        autostart=station.config.station.autostart,
        triggers=station.config.station.triggers,
        synced=station.line.synced if station.line is not None else None,
        recipe=recipe.name if recipe else "",
        recipe_change=operation.changes.last,
        bundle=recipe.bundle if recipe else "",
        threshold=recipe.decision.threshold if recipe else None,
        engine=wire.EngineMessage(engine.name[:64], engine.device[:64], engine.precision[:64]),
        last_result_id=station.last_published_id,
        expected_rate_hz=station.config.station.expected_rate_hz or None,
        alarms=tuple(operation.alarms),
        received=ledger.received,
        lost=ledger.lost,
        ok=ledger.ok,
        ng=ledger.ng,
        unknown=ledger.unknown,
        in_flight=len(station.work),
        unknown_by_reason={reason.name: count for reason, count in ledger.unknown_by_reason.items()},
        deadline_missed=ledger.deadline_missed,
        late=ledger.late,
        access_refused=dict(station.sockets.access.refused),
    )


def tell_supervisor(desk: Inspector) -> None:
    """Ready once every first recipe has judged its golden frames, or failed to (without one: the bench is alive).

    After that the watchdog is fed by the bench's beat alone.
    """
    operations, supervision = [station.operation for station in desk.stations], desk.supervision
    waiting = [operation for operation in operations if operation.failure is None]
    if waiting and all(operation.tested and not operation.opening_first for operation in waiting):
        supervision.ready()
    elif any(operation.opening_first and operation.busy for operation in waiting):
        supervision.opening()
    supervision.progress(desk.bench.beat)
    supervision.status("; ".join(_in_words(station, len(operations) > 1) for station in desk.stations))


def _in_words(station: Station, named: bool) -> str:
    operation = station.operation
    recipe = operation.recipe.name if operation.recipe else operation.busy or "no recipe"
    alarms = f"; alarms: {', '.join(operation.alarms)}" if operation.alarms else ""
    name = f"{station.name}: " if named else ""
    return f"{name}{int(operation.state)} {operation.state.name}, {recipe}{alarms}"
