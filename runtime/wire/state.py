"""What a station publishes about itself: state, event and trigger messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

from asperity.runtime.errors import WireError
from asperity.runtime.states import READY_STATES
from asperity.runtime.wire.clocks import Clocks
from asperity.runtime.wire.common import (
    MAX_ALARMS,
    MAX_EVENT_BYTES,
    MAX_EVENT_TEXT,
    MAX_STATE_BYTES,
    MAX_TRIGGER_BYTES,
    U8,
    VIEWS_MAX,
    Count,
    Id,
    Name,
    NameOrEmpty,
    NonZeroU32,
    Part,
    Positive,
    Text,
    Uuid,
    body_of,
    check_part,
    read_json,
    require_finite,
    topic,
    write_json,
)


class EngineMessage(msgspec.Struct, frozen=True):
    """What scores."""

    name: Text
    device: Text
    precision: Text


class RecipeChange(msgspec.Struct, frozen=True):
    """The last recipe change that was begun, and its outcome."""

    number: Count
    """Counts changes from 1 in each session; the reply to ``prepare_recipe`` names it."""
    recipe: NameOrEmpty
    """The recipe that was asked for; empty: none (``unprepare_recipe``)."""
    status: Text
    """``under_way``, ``done`` or ``failed``. What a receiver does not know is not done."""
    text: Annotated[str, msgspec.Meta(max_length=MAX_EVENT_TEXT)] = ""
    """Why it failed."""


class StationState(msgspec.Struct, frozen=True, kw_only=True):
    """State message: 5 times per second and on each change. Whatever a sender leaves out reads as not ready."""

    v: int = 1
    station: Name
    session: Uuid
    uptime_ms: Count = 0
    """The inspector's monotonic clock since its session began: a request repeats the last one received."""
    beat: Count = 0
    beat_timeout_ms: Positive = 600
    state: U8 = 0
    ready: bool = False
    autostart: bool = False
    triggers: Text = ""
    """``free_run``, ``software`` or ``hard_wired``: whether a frame needs a trigger to be judged."""
    synced: bool | None = None
    """With hard-wired triggers: announcements and exposures are matched; while they are not, no part is accepted."""
    recipe: NameOrEmpty = ""
    recipe_change: RecipeChange | None = None
    bundle: Text = ""
    threshold: float | None = None
    """Active; null: there is no recipe."""
    engine: EngineMessage | None = None
    last_result_id: Count = 0
    """Highest ``result_id`` published so far."""
    expected_rate_hz: float | None = None
    alarms: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_ALARMS)] = ()
    received: Count = 0
    lost: Count = 0
    ok: Count = 0
    ng: Count = 0
    unknown: Count = 0
    in_flight: Count = 0
    unknown_by_reason: Annotated[dict[Text, Count], msgspec.Meta(max_length=64)] = {}
    """Reason's name -> count; sums up to ``unknown``."""
    deadline_missed: Count = 0
    late: Count = 0
    """Frames that came after their exposure had been answered LOST; they have no second result."""
    gpu: Annotated[dict[Text, float | Text | None], msgspec.Meta(max_length=16)] | None = None
    clocks: Clocks | None = None
    access_refused: Annotated[dict[Text, Count], msgspec.Meta(max_length=64)] = {}
    """Why connections and requests of clients were refused -> count."""
    lot: str = ""
    order: str = ""
    shift: str = ""
    """What ``set_batch`` set for the station: of parts whose trigger names no other."""
    view_of: NameOrEmpty | msgspec.UnsetType = msgspec.UNSET
    """The combined station of which this station is a view: no result of it accepts a part."""
    views: Annotated[tuple[Name, ...], msgspec.Meta(max_length=VIEWS_MAX)] | msgspec.UnsetType = msgspec.UNSET
    """Of a combined station: the stations that see the part, in the order of the views."""
    parts_open: Count | msgspec.UnsetType = msgspec.UNSET
    """Of a combined station: parts that were triggered and have no result yet."""

    @property
    def can_judge(self) -> bool:
        """Ready, and in a state known to be one in which it may be."""
        return self.ready and self.state in READY_STATES

    @property
    def balanced(self) -> bool:
        """Accounting: received + lost = ok + ng + unknown + in_flight, and every unknown has its reason."""
        fates = self.ok + self.ng + self.unknown + self.in_flight
        return self.received + self.lost == fates and self.unknown == sum(self.unknown_by_reason.values())


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should know, as text. Never needed to judge a part."""

    v: int = 1
    station: Name
    session: Uuid
    t_us: Count
    severity: Literal["info", "warning", "alarm"]
    code: Id
    """A reason's name, or the name of what happened."""
    text: Annotated[str, msgspec.Meta(max_length=MAX_EVENT_TEXT)] = ""
    result_id: Positive | None = None
    camera: NameOrEmpty = ""
    seq: Count | None = None
    actor: Text = ""
    """Who asked for it, as far as that is known: key, gateway, user and peer."""


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """Tells the camera to expose. It copies ``trigger_id``, ``promise`` and ``part_id`` into the frame."""

    v: int = 1
    station: Name
    session: Uuid
    trigger_id: NonZeroU32
    promise: Count = 0
    """A number that the station made for this trigger alone: a used id given again is another promise."""
    part_id: str = ""
    recipe: Name | None = None
    timeout_ms: NonZeroU32
    t_us: Count = 0


_state = msgspec.json.Decoder(StationState)
_event = msgspec.json.Decoder(Event)
_trigger = msgspec.json.Decoder(Trigger)


def encode_state(state: StationState) -> list[bytes]:
    """``[topic, JSON]``. Raises WireError when the state breaks the contract."""
    check_state(state)
    return [topic("state", state.station), write_json(_state, state, MAX_STATE_BYTES, "state")]


def decode_state(parts: Sequence[Part]) -> StationState:
    """The state of a message. Raises WireError and nothing else."""
    state = _addressed(_state, parts, "state", MAX_STATE_BYTES)
    check_state(state)
    return state


def check_state(state: StationState) -> None:
    """Check what the types do not express. Raises WireError."""
    require_finite("state", expected_rate_hz=state.expected_rate_hz, threshold=state.threshold)
    numbers = {name: value for name, value in (state.gpu or {}).items() if isinstance(value, (int, float))}
    require_finite("state", **{f"gpu.{name}": value for name, value in numbers.items()})
    if state.clocks is not None:
        require_finite("state", **state.clocks.numbers())
    check_part("state", None, state.lot, state.order, state.shift)


def encode_event(event: Event) -> list[bytes]:
    """``[topic, JSON]``. Raises WireError when the event breaks the contract."""
    return [topic("event", event.station), write_json(_event, event, MAX_EVENT_BYTES, "event")]


def decode_event(parts: Sequence[Part]) -> Event:
    """The event of a message. Raises WireError and nothing else."""
    return _addressed(_event, parts, "event", MAX_EVENT_BYTES)


def encode_trigger(trigger: Trigger) -> list[bytes]:
    """``[topic, JSON]``. Raises WireError when the trigger breaks the contract."""
    check_part("trigger", trigger.part_id)
    return [topic("trigger", trigger.station), write_json(_trigger, trigger, MAX_TRIGGER_BYTES, "trigger")]


def decode_trigger(parts: Sequence[Part]) -> Trigger:
    """The trigger of a message. Raises WireError and nothing else."""
    trigger = _addressed(_trigger, parts, "trigger", MAX_TRIGGER_BYTES)
    check_part("trigger", trigger.part_id)
    return trigger


M = TypeVar("M", StationState, Event, Trigger)


def _addressed(decoder: msgspec.json.Decoder[M], parts: Sequence[Part], kind: str, limit_bytes: int) -> M:
    station, body = body_of(parts, kind)
    message = read_json(decoder, body, limit_bytes, kind)
    if message.station != station:
        raise WireError(f"topic names station {station}, the {kind} {message.station}; both must be the same")
    return message
