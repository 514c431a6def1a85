"""What a station says of itself: the state message five times a second, and what systemd is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime import wire
from runtime.clock import Now
from runtime.states import READY_STATES

if TYPE_CHECKING:
    from runtime.inspector import Inspector


def state_message(desk: Inspector, now: Now) -> wire.StationState:
    """The station's state now."""
    operation, ledger, recipe = desk.operation, desk.ledger, desk.operation.recipe
    engine = operation.engine
    return wire.StationState(
        station=desk.config.station.name,
        session=desk.session,
        beat=desk.bench.beat,
        beat_timeout_ms=operation.beat_timeout_ms(),
        state=int(operation.state),
        ready=operation.state in READY_STATES and operation.tested and desk.camera_alive(now),
        autostart=desk.config.station.autostart,
        recipe=recipe.name if recipe else "",
        bundle=recipe.bundle if recipe else "",
        engine=wire.EngineMessage(engine.name[:64], engine.device[:64], engine.precision[:64]),
        last_result_id=desk.last_published_id,
        expected_rate_hz=desk.config.station.expected_rate_hz or None,
        alarms=tuple(operation.alarms),
        received=ledger.received,
        lost=ledger.lost,
        ok=ledger.ok,
        ng=ledger.ng,
        unknown=ledger.unknown,
        in_flight=len(desk.work),
        unknown_by_reason={reason.name: count for reason, count in ledger.unknown_by_reason.items()},
        deadline_missed=ledger.deadline_missed,
        access_refused=dict(desk.sockets.access.refused),
    )


def tell_supervisor(desk: Inspector) -> None:
    """Ready once the first recipe has judged its golden frames (without one: once the bench is proven alive).

    After that the watchdog is fed by the bench's beat alone.
    """
    operation, supervision = desk.operation, desk.supervision
    if operation.tested and not operation.opening_first:
        supervision.ready()
    elif operation.opening_first and operation.busy:
        supervision.opening()
    supervision.progress(desk.bench.beat)
    recipe = operation.recipe.name if operation.recipe else operation.busy or "no recipe"
    alarms = f"; alarms: {', '.join(operation.alarms)}" if operation.alarms else ""
    supervision.status(f"{int(operation.state)} {operation.state.name}, {recipe}{alarms}")
