"""The metrics of a station: name, type and meaning in one table. Pure.

There is no accept among them: a host keeps the last value of a metric, and a part may pass for a moment only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asperity.runtime.client.ordering import Gap
from asperity.runtime.gateways.link import View, synced
from asperity.runtime.gateways.sparkplug.payload import DataType, Metric, Value
from asperity.runtime.states import State
from asperity.runtime.wire import Counters, ReceivedResult, StationState

T = TypeVar("T")
_STATES = {int(state): state.name for state in State}


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """One metric of a ``T``."""

    name: str
    type: DataType
    meaning: str
    take: Callable[[T], Any]


def _state(take: Callable[[StationState], Any]) -> Callable[[View], Any]:
    return lambda view: None if view.state is None else take(view.state)


def _counters(take: Callable[[Counters], Any]) -> Callable[[View], Any]:
    return lambda view: None if view.counters is None else take(view.counters)


STATION: tuple[Row[View], ...] = (
    Row("Station/Good", DataType.BOOLEAN, "the station is ready and its heartbeat advances", lambda view: view.good),
    Row("Station/Why", DataType.STRING, "why not", lambda view: view.why),
    Row("Station/State", DataType.UINT8, "number of the state (states.md)", _state(lambda s: s.state)),
    Row("Station/StateName", DataType.STRING, "its name", _state(lambda s: _STATES.get(s.state, "UNKNOWN"))),
    Row("Station/Session", DataType.STRING, "the inspector's run", _state(lambda s: s.session)),
    Row("Station/Recipe", DataType.STRING, "active recipe", _state(lambda s: s.recipe)),
    Row("Station/Threshold", DataType.DOUBLE, "null: no recipe", _state(lambda s: s.threshold)),
    Row("Station/Synced", DataType.BOOLEAN, "announcements match exposures, or do not have to", _state(synced)),
    Row("Station/Alarms", DataType.STRING, "conditions that need attention", _state(lambda s: "; ".join(s.alarms))),
    Row("Station/Received", DataType.UINT64, "frames that arrived", _state(lambda s: s.received)),
    Row("Station/Ok", DataType.UINT64, "count of good parts", _state(lambda s: s.ok)),
    Row("Station/Ng", DataType.UINT64, "count of bad parts", _state(lambda s: s.ng)),
    Row("Station/Unknown", DataType.UINT64, "count of parts without a verdict", _state(lambda s: s.unknown)),
    Row("Station/Lost", DataType.UINT64, "frames of which nothing arrived", _state(lambda s: s.lost)),
    Row("Station/Lot", DataType.STRING, "of parts whose trigger names none", _state(lambda s: s.lot)),
    Row("Station/Order", DataType.STRING, "likewise", _state(lambda s: s.order)),
    Row("Station/Shift", DataType.STRING, "likewise", _state(lambda s: s.shift)),
    Row("Station/CountedOk", DataType.UINT64, "good parts since the last reset", _counters(lambda c: c.ok)),
    Row("Station/CountedNg", DataType.UINT64, "bad parts since then", _counters(lambda c: c.ng)),
    Row("Station/CountedUnknown", DataType.UINT64, "parts without a verdict", _counters(lambda c: c.unknown)),
    Row("Station/CounterResets", DataType.UINT64, "how often they were reset", _counters(lambda c: c.resets)),
    Row("Station/Yield", DataType.DOUBLE, "share of good parts, 0 to 1; null: none", _counters(lambda c: c.yielded)),
    Row("Gateway/Missing", DataType.UINT64, "results in gaps since the gateway started", lambda view: view.missing),
)  # fmt: skip
RESULT: tuple[Row[ReceivedResult], ...] = (
    Row("Result/Id", DataType.UINT64, "number of the result", lambda r: r.result_id),
    Row("Result/Verdict", DataType.UINT8, "0 unknown, 1 ok, 2 ng: what was judged, never a permission to pass",
        lambda r: int(r.verdict)),
    Row("Result/ReasonCode", DataType.UINT16, "table of reasons in wire.md", lambda r: int(r.reason)),
    Row("Result/Reason", DataType.STRING, "its name", lambda r: r.reason.name),
    Row("Result/PartId", DataType.STRING, "as given by the trigger or frame", lambda r: r.part_id),
    Row("Result/Lot", DataType.STRING, "of the part; empty: none", lambda r: r.lot),
    Row("Result/Order", DataType.STRING, "likewise", lambda r: r.order),
    Row("Result/Shift", DataType.STRING, "likewise", lambda r: r.shift),
    Row("Result/Position", DataType.INT64, "encoder counts at its trigger; null: none", lambda r: r.position),
    Row("Result/TriggerId", DataType.UINT32, "the trigger it answers; 0: none", lambda r: r.trigger_id),
    Row("Result/Recipe", DataType.STRING, "the recipe that judged it", lambda r: r.recipe),
    Row("Result/Score", DataType.DOUBLE, "anomaly score; null: none", lambda r: r.score),
    Row("Result/Threshold", DataType.DOUBLE, "ok needs Score <= Threshold", lambda r: r.threshold),
    Row("Result/Modality", DataType.STRING, "what added most to the score", lambda r: r.modality),
    Row("Result/LatencyUs", DataType.UINT64, "from arrival to verdict, µs", lambda r: r.latency_us.get("total")),
    Row("Result/Simulated", DataType.BOOLEAN, "not scored by a real engine", lambda r: r.simulated),
    Row("Result/Exposed", DataType.DATETIME, "time of the exposure", lambda r: r.t_exposure_us // 1000),
)  # fmt: skip
GAP: tuple[Row[Gap], ...] = (
    Row("Gap/FirstId", DataType.UINT64, "first missing result", lambda gap: gap.first_id),
    Row("Gap/LastId", DataType.UINT64, "last of them", lambda gap: gap.last_id),
    Row("Gap/Why", DataType.STRING, "as text", lambda gap: gap.why),
)
REBIRTH = "Node Control/Rebirth"


def station_values(view: View) -> dict[str, Value]:
    """What the station's metrics are now, by name."""
    return {row.name: row.take(view) for row in STATION}


def station_metrics(values: dict[str, Value], now_ms: int) -> list[Metric]:
    """Of these values."""
    return [Metric(row.name, row.type, values[row.name], now_ms) for row in STATION if row.name in values]


def result_metrics(result: ReceivedResult, historical: bool) -> list[Metric]:
    """All of one result, at the time of its verdict."""
    at_ms = result.t_done_us // 1000
    return [Metric(row.name, row.type, row.take(result), at_ms, historical) for row in RESULT]


def gap_metrics(gap: Gap, now_ms: int) -> list[Metric]:
    """Of results that are missing."""
    return [Metric(row.name, row.type, row.take(gap), now_ms) for row in GAP]


def born_metrics(values: dict[str, Value], now_ms: int) -> list[Metric]:
    """Every metric there will ever be: the station's as they are, a result's and a gap's null until one comes."""
    return [
        Metric(REBIRTH, DataType.BOOLEAN, False, now_ms),
        *station_metrics(values, now_ms),
        *(Metric(row.name, row.type, None, now_ms) for row in RESULT),
        *(Metric(row.name, row.type, None, now_ms) for row in GAP),
    ]
