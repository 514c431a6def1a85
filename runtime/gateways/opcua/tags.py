"""The flat tags of the OPC UA gateway: name, type and meaning in one table, and the value of each at one moment.

Pure: ``Moment`` is what is known, ``data_value`` what a client sees of it. A tag is computed whenever it is read,
so nothing that hangs can keep one true.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from asyncua import ua

from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.link import Delivered, Item, View, synced
from asperity.runtime.gateways.opcua.clock_tags import OF_PLC, OF_STATION
from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.states import State
from asperity.runtime.wire import Counters, ReceivedResult, RecipeChange, StationState, encode_counters

Type = ua.VariantType
Status = ua.StatusCodes


class Of(Enum):
    """What a tag describes, which determines when it is bad."""

    RESULT = "result"
    STATION = "station"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Moment:
    """All that the tags are computed from."""

    view: View
    shown: Item | None
    """The item whose tags are shown; None: none yet."""
    accept: bool
    """``Link.may_pass`` of ``shown``, and not cleared between two results."""
    heard: bool
    """A state came within ``beat_timeout_ms``."""
    ending: bool
    transition: str
    """Name of the last change of state that was seen; empty: none yet."""
    now_s: float
    """``time.time()``"""
    refused: int = 0
    """What the server refused since the gateway started."""
    recipe: str = ""
    """The recipe that clients of this gateway asked for last; empty: none."""
    plc: PlcClock | None = None

    @property
    def result(self) -> ReceivedResult | None:
        return self.shown.result if isinstance(self.shown, Delivered) else None

    @property
    def why(self) -> str:
        """Why results are not good, as text; empty when they are."""
        if self.ending:
            return "the gateway is shutting down"
        return self.view.why


@dataclass(frozen=True, slots=True)
class Tag:
    """One variable. ``value`` is asked with the moment; None stands for the type's zero."""

    name: str
    type: ua.VariantType
    of: Of
    meaning: str
    value: Callable[[Moment], Any]


def status_code(of: Of, moment: Moment) -> int:
    """The OPC UA status of a tag: good only for what is known and holds now."""
    if of is Of.GATEWAY:
        return int(Status.Good)
    if moment.ending:
        return int(Status.BadShutdown)
    if not moment.heard:
        return int(Status.BadNoCommunication)
    if of is Of.STATION:
        return int(Status.Good)
    if not moment.view.good:
        return int(Status.BadOutOfService)
    return int(Status.BadWaitingForInitialData if moment.shown is None else Status.Good)


def data_value(tag: Tag, moment: Moment) -> ua.DataValue:
    """Value, status and source time. With a bad status the value stays there, and is false or 0 where it could pass."""
    value = tag.value(moment)
    return ua.DataValue(
        Value=ua.Variant(ZEROS[tag.type] if value is None else value, tag.type),
        StatusCode=ua.StatusCode(ua.UInt32(status_code(tag.of, moment))),
        SourceTimestamp=_source_time(tag, moment),
        ServerTimestamp=ua.DateTime.fromtimestamp(moment.now_s, datetime.timezone.utc),
    )


def differs(last: ua.DataValue | None, now: ua.DataValue) -> bool:
    """Would a subscriber want to know? Times alone are not news."""
    return last is None or last.StatusCode != now.StatusCode or last.Value != now.Value


def _source_time(tag: Tag, moment: Moment) -> ua.DateTime:
    result = moment.result
    own = tag.of is Of.RESULT and result is not None and status_code(tag.of, moment) == Status.Good
    at_s = result.t_done_us / 1e6 if own and result is not None else moment.now_s
    return ua.DateTime.fromtimestamp(at_s, datetime.timezone.utc)


def _result(take: Callable[[ReceivedResult], Any]) -> Callable[[Moment], Any]:
    return lambda moment: None if moment.result is None else take(moment.result)


def _state(take: Callable[[StationState], Any]) -> Callable[[Moment], Any]:
    return lambda moment: None if moment.view.state is None else take(moment.view.state)


def _counters(take: Callable[[Counters], Any]) -> Callable[[Moment], Any]:
    return lambda moment: None if moment.view.counters is None else take(moment.view.counters)


def _plc(take: Callable[[PlcClock], Any]) -> Callable[[Moment], Any]:
    return lambda moment: None if moment.plc is None else take(moment.plc)


def _json(counters: Counters) -> str:
    return encode_counters(counters)[1].decode()


def _change(take: Callable[[RecipeChange], Any]) -> Callable[[Moment], Any]:
    return _state(lambda state: None if state.recipe_change is None else take(state.recipe_change))


def _result_id(moment: Moment) -> int:
    shown = moment.shown
    if shown is None:
        return 0
    return shown.result.result_id if isinstance(shown, Delivered) else shown.last_id


def _verdict(moment: Moment) -> int:
    """0 whenever the result is not good: a client that reads only the value must not take an old 1 for a pass."""
    holds = status_code(Of.RESULT, moment) == Status.Good and moment.result is not None
    return int(moment.result.verdict if holds and moment.result is not None else Verdict.UNKNOWN)


def _reason(moment: Moment) -> str | None:
    shown = moment.shown
    if shown is None:
        return None
    return shown.result.reason.name if isinstance(shown, Delivered) else f"missing: {shown.why}"


def _time(us: int) -> ua.DateTime:
    return ua.DateTime.fromtimestamp(us / 1e6, datetime.timezone.utc)


def _state_name(state: StationState) -> str:
    return State(state.state).name if state.state in _STATES else "UNKNOWN"


_STATES = {int(state) for state in State}

ZEROS: dict[ua.VariantType, Any] = {
    Type.Boolean: False,
    Type.Byte: 0,
    Type.UInt16: 0,
    Type.UInt32: 0,
    Type.UInt64: 0,
    Type.Int64: 0,
    Type.Double: 0.0,
    Type.String: "",
    Type.LocalizedText: ua.LocalizedText(""),
    Type.DateTime: ua.DateTime.fromtimestamp(0, datetime.timezone.utc),
}

ACCEPT = Tag(
    "Accept",
    Type.Boolean,
    Of.RESULT,
    "the part of ResultId may pass now; false in case of any doubt",
    lambda m: m.accept,
)
RESULT_TAGS = (
    Tag("ResultId", Type.UInt64, Of.RESULT, "number of the result; for a gap, of its last result", _result_id),
    Tag("Verdict", Type.Byte, Of.RESULT, "0 unknown, 1 ok, 2 ng; 0 while bad", _verdict),
    Tag(
        "ReasonCode",
        Type.UInt16,
        Of.RESULT,
        "table of reasons in wire.md; 0 for a gap",
        _result(lambda r: int(r.reason)),
    ),
    Tag("Reason", Type.String, Of.RESULT, "its name; for a gap, why it is missing", _reason),
    Tag("ResultRecipe", Type.String, Of.RESULT, "the recipe that judged it", _result(lambda r: r.recipe)),
    Tag("Seq", Type.UInt64, Of.RESULT, "number of the exposure", _result(lambda r: r.seq)),
    Tag("TriggerId", Type.UInt32, Of.RESULT, "the trigger it answers; 0: none", _result(lambda r: r.trigger_id)),
    Tag("PartId", Type.String, Of.RESULT, "as given by the trigger or frame", _result(lambda r: r.part_id)),
    Tag("Lot", Type.String, Of.RESULT, "of the part, as its trigger or the station says", _result(lambda r: r.lot)),
    Tag("Order", Type.String, Of.RESULT, "likewise", _result(lambda r: r.order)),
    Tag("Shift", Type.String, Of.RESULT, "likewise", _result(lambda r: r.shift)),
    Tag("PositionGiven", Type.Boolean, Of.RESULT, "its trigger named one", _result(lambda r: r.position is not None)),
    Tag("Position", Type.Int64, Of.RESULT, "encoder counts at its trigger; 0: none", _result(lambda r: r.position)),
    Tag("Score", Type.Double, Of.RESULT, "anomaly score; 0 if there is none", _result(lambda r: r.score)),
    Tag("Threshold", Type.Double, Of.RESULT, "ok needs Score <= Threshold", _result(lambda r: r.threshold)),
    Tag(
        "Modality",
        Type.String,
        Of.RESULT,
        "what added most to the score: rgb, points, geometry, height, descriptor; empty: not said",
        _result(lambda r: r.modality),
    ),
    Tag(
        "LatencyUs", Type.UInt64, Of.RESULT, "from arrival to verdict, µs", _result(lambda r: r.latency_us.get("total"))
    ),
    Tag("Simulated", Type.Boolean, Of.RESULT, "not scored by a real engine", _result(lambda r: r.simulated)),
    Tag("TimeExposed", Type.DateTime, Of.RESULT, "of the exposure", _result(lambda r: _time(r.t_exposure_us))),
    Tag("ResultIdCopy", Type.UInt64, Of.RESULT, "ResultId again, written last before Accept", _result_id),
)
STATION_TAGS = (
    Tag("State", Type.Byte, Of.STATION, "number of the state (states.md)", _state(lambda s: s.state)),
    Tag("StateName", Type.String, Of.STATION, "its name", _state(_state_name)),
    Tag("Beat", Type.UInt64, Of.STATION, "the inspector's heartbeat counter, forwarded", _state(lambda s: s.beat)),
    Tag(
        "BeatTimeoutMs",
        Type.UInt32,
        Of.STATION,
        "heartbeat unchanged for this long: reject",
        _state(lambda s: s.beat_timeout_ms),
    ),
    Tag("Recipe", Type.String, Of.STATION, "active recipe", _state(lambda s: s.recipe)),
    Tag(
        "RecipeChangeNumber",
        Type.UInt64,
        Of.STATION,
        "last recipe change in this session, regardless of who requested it; 0: none",
        _change(lambda c: c.number),
    ),
    Tag("RecipeAskedFor", Type.String, Of.STATION, "by that change; empty: none", _change(lambda c: c.recipe)),
    Tag(
        "RecipeChangeStatus",
        Type.String,
        Of.STATION,
        "under_way, done, failed; anything else is unknown, so not done",
        _change(lambda c: c.status),
    ),
    Tag("RecipeChangeText", Type.String, Of.STATION, "why it failed", _change(lambda c: c.text)),
    Tag("ThresholdInForce", Type.Double, Of.STATION, "0: no recipe", _state(lambda s: s.threshold)),
    Tag(
        "Triggers",
        Type.String,
        Of.STATION,
        "free_run, software, hard_wired: what a frame needs in order to be judged",
        _state(lambda s: s.triggers),
    ),
    Tag(
        "Synced",
        Type.Boolean,
        Of.STATION,
        "announcements match exposures, or do not have to; false: every part is UNSYNCED, or not known",
        _state(synced),
    ),
    Tag("Session", Type.String, Of.STATION, "the inspector's run", _state(lambda s: s.session)),
    Tag("StationLot", Type.String, Of.STATION, "lot of parts whose trigger names none", _state(lambda s: s.lot)),
    Tag("StationOrder", Type.String, Of.STATION, "order of such parts", _state(lambda s: s.order)),
    Tag("StationShift", Type.String, Of.STATION, "shift of such parts", _state(lambda s: s.shift)),
    Tag("LastResultId", Type.UInt64, Of.STATION, "highest id published", _state(lambda s: s.last_result_id)),
    Tag("Received", Type.UInt64, Of.STATION, "frames that arrived", _state(lambda s: s.received)),
    Tag("Ok", Type.UInt64, Of.STATION, "count of good parts", _state(lambda s: s.ok)),
    Tag("Ng", Type.UInt64, Of.STATION, "count of bad parts", _state(lambda s: s.ng)),
    Tag("Unknown", Type.UInt64, Of.STATION, "count of parts without a verdict", _state(lambda s: s.unknown)),
    Tag("Lost", Type.UInt64, Of.STATION, "frames of which nothing arrived", _state(lambda s: s.lost)),
    Tag(
        "Late",
        Type.UInt64,
        Of.STATION,
        "frames that arrived after their exposure had been answered LOST",
        _state(lambda s: s.late),
    ),
    Tag("CountedOk", Type.UInt64, Of.STATION, "good parts since ResetCounters", _counters(lambda c: c.ok)),
    Tag("CountedNg", Type.UInt64, Of.STATION, "bad parts since then", _counters(lambda c: c.ng)),
    Tag("CountedUnknown", Type.UInt64, Of.STATION, "parts without a verdict", _counters(lambda c: c.unknown)),
    Tag("CountedSince", Type.DateTime, Of.STATION, "time of that", _counters(lambda c: _time(c.since_us))),
    Tag("CounterResets", Type.UInt64, Of.STATION, "how often they were reset", _counters(lambda c: c.resets)),
    Tag("Yield", Type.Double, Of.STATION, "share of good parts, 0 to 1; 0: none", _counters(lambda c: c.yielded)),
    Tag("Counters", Type.String, Of.STATION, "all of them as JSON (wire.md, Counters)", _counters(_json)),
    *(Tag(name, kind, Of.STATION, meaning, _state(take)) for name, kind, meaning, take in OF_STATION),
    Tag("Alarms", Type.String, Of.STATION, "conditions that need attention", _state(lambda s: "; ".join(s.alarms))),
)
MODE_STATES = {1: "Preoperational", 2: "Halted", 3: "Error", 4: "Operational"}
AUTOMATIC_STATES = {5: "Initialized", 6: "Ready", 7: "SingleExecution", 8: "ContinuousExecution"}
"""Names and numbers of OPC 40100-1; the second are inside Operational."""


def mode(state: StationState) -> int:
    """Number of the upper state machine's state; 0 for one that is not known."""
    return 4 if state.state in AUTOMATIC_STATES else state.state if state.state in MODE_STATES else 0


def automatic(state: StationState) -> int:
    """Number of the automatic mode's state; 0 outside it."""
    return state.state if state.state in AUTOMATIC_STATES else 0


def transition_name(before: StationState, after: StationState) -> str:
    """As OPC 40100-1 names its transitions, without the suffix that names the cause."""
    if automatic(before) and automatic(after):
        return f"{AUTOMATIC_STATES[before.state]}To{AUTOMATIC_STATES[after.state]}"
    entered = AUTOMATIC_STATES[after.state] if automatic(after) else MODE_STATES.get(mode(after), "Unknown")
    return f"{MODE_STATES.get(mode(before), 'Unknown')}To{entered}"


def ended_change(before: StationState | None, after: StationState | None) -> RecipeChange | None:
    """The change of recipe that ended between two states; None: none, or ``before`` was none heard yet."""
    change = None if after is None else after.recipe_change
    if before is None or after is None or change is None or change.status not in ("done", "failed"):
        return None
    return None if (before.session, before.recipe_change) == (after.session, change) else change


def _localized(text: str) -> ua.LocalizedText:
    return ua.LocalizedText(text)


MODE_TAGS = (
    Tag(
        "CurrentState",
        Type.LocalizedText,
        Of.STATION,
        "",
        _state(lambda s: _localized(MODE_STATES.get(mode(s), "Unknown"))),
    ),
    Tag("CurrentState.Number", Type.UInt32, Of.STATION, "", _state(mode)),
    Tag("LastTransition", Type.LocalizedText, Of.STATION, "", lambda m: _localized(m.transition)),
)
AUTOMATIC_TAGS = (
    Tag(
        "CurrentState",
        Type.LocalizedText,
        Of.STATION,
        "",
        _state(lambda s: _localized(AUTOMATIC_STATES.get(s.state, ""))),
    ),
    Tag("CurrentState.Number", Type.UInt32, Of.STATION, "", _state(automatic)),
)
GATEWAY_TAGS = (
    Tag(
        "Ready",
        Type.Boolean,
        Of.GATEWAY,
        "the station is ready and its heartbeat advances",
        lambda m: m.view.good and not m.ending,
    ),
    Tag("Why", Type.String, Of.GATEWAY, "why not", lambda m: m.why),
    Tag(
        "RecipeWanted",
        Type.String,
        Of.GATEWAY,
        "the recipe PrepareRecipe was last called for: only its results can be accepted; empty: not called since the "
        "gateway started",
        lambda m: m.recipe,
    ),
    *(Tag(name, kind, Of.GATEWAY, meaning, _plc(take)) for name, kind, meaning, take in OF_PLC),
    Tag("Results", Type.UInt64, Of.GATEWAY, "results forwarded since the gateway started", lambda m: m.view.results),
    Tag("Gaps", Type.UInt64, Of.GATEWAY, "gaps reported since then", lambda m: m.view.gaps),
    Tag("Missing", Type.UInt64, Of.GATEWAY, "results in those gaps", lambda m: m.view.missing),
    Tag("Refused", Type.UInt64, Of.GATEWAY, "log-ins, requests, connections refused since then", lambda m: m.refused),
)
OTHER_TAGS = (*STATION_TAGS, *GATEWAY_TAGS, *RESULT_TAGS)
"""In the order in which they are written, after Accept was cleared and before it is set."""
TAGS = (ACCEPT, *RESULT_TAGS, *STATION_TAGS, *GATEWAY_TAGS)


def moment(
    view: View, shown: Item | None, accept: bool, heard: bool, ending: bool, transition: str, refused: int = 0,
    recipe: str = "", plc: PlcClock | None = None,
) -> Moment:
    """The moment that is now. Accept only with everything that the tags' status asks for."""
    known = Moment(view, shown, False, heard, ending, transition, time.time(), refused, recipe, plc)
    holds = accept and status_code(Of.RESULT, known) == Status.Good and known.result is not None
    return dataclasses.replace(known, accept=holds)
