"""The station's alarms as conditions of OPC 10000-9: active, acknowledged, retained; acknowledged by users who operate.

Conditions are not in the address space, which OPC 10000-9 leaves open: clients know them by their events and by
ConditionRefresh. They live as long as the gateway: what was acknowledged before it started is to be acknowledged again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.address_space import AddressSpace
from asyncua.server.subscription_service import SubscriptionService

from asperity.runtime.gateways.opcua.companion.events import SERVER, Fields, make_event, new_event_id
from asperity.runtime.gateways.opcua.companion.instances import Instances
from asperity.runtime.gateways.opcua.companion.nodeset import add_node, number, refer, status
from asperity.runtime.gateways.opcua.session import CALLER, Client, Session
from asperity.runtime.gateways.opcua.tags import Moment
from asperity.runtime.records.audit import Actor
from asperity.runtime.states import ALARMS, State

Type, Ids, Status, Attribute = ua.VariantType, ua.ObjectIds, ua.StatusCodes, ua.AttributeIds
LINK = "LINK"
LINK_TEXT = "the station is silent, so its alarms are not known: check the inspector and its sockets"
STOPPING = frozenset({"ENGINE", "ENGINE_LOST", "JOURNAL", "SELF_TEST", "STUCK", LINK})
"""Alarms after which no part is judged until a person has done something."""
CONDITIONS_MAX = 64
EVENTS_KEPT = 8
"""Ids of its last events by which a condition may be acknowledged."""
COMMENT_MAX = 1000
WARNING, PERSISTENT = 1034, 1036
"""VisionWarningConditionType and VisionPersistentErrorConditionType in the node set."""
WARNING_SEVERITY, STOPPING_SEVERITY, GONE_SEVERITY = 500, 900, 100
WORDS = {
    "EnabledState": ("Disabled", "Enabled"), "ActiveState": ("Inactive", "Active"),
    "AckedState": ("Unacknowledged", "Acknowledged"),
}  # fmt: skip


@dataclass(slots=True)
class Condition:
    """One alarm."""

    kind: str
    node_id: ua.NodeId
    active: bool = False
    acked: bool = True
    stopped: bool = False
    """The station is in Error."""
    severity: int = GONE_SEVERITY
    last_severity: int = GONE_SEVERITY
    comment: str = ""
    user: str = ""
    times: dict[str, datetime] = field(default_factory=dict)
    """Of the last change of each state, the severity and the comment."""
    event_ids: deque[bytes] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    time: datetime = datetime(1970, 1, 1, tzinfo=timezone.utc)
    """Of its last event."""

    @property
    def retain(self) -> bool:
        return self.active or not self.acked

    @property
    def text(self) -> str:
        """What it means and what to do."""
        return LINK_TEXT if self.kind == LINK else ALARMS.get(self.kind, self.kind)


class Conditions:
    """All of one gateway, and the methods that clients call on them."""

    def __init__(self, subscriptions: SubscriptionService, record: Callable[[str, Actor, str, str, str], None]) -> None:
        """``record`` writes an acknowledgement to the audit: op, actor, code, alarm, comment."""
        self._subscriptions = subscriptions
        self._record = record
        self._all: dict[str, Condition] = {}
        self._heard = False
        """Anything from the station yet."""
        self._silent = False

    def build(self, space: AddressSpace, own: int, vision: int, system: ua.NodeId, station: str) -> None:
        """The types: the companion's, with ActiveState."""
        self._own, self._source, self._emitters = own, (system, station), (system, SERVER)
        self._types = {
            stopping: self._make_type(space, name, number(base, vision))
            for stopping, name, base in ((False, "WarningType", WARNING), (True, "PersistentErrorType", PERSISTENT))
        }
        for kind in self._types.values():
            for emitter in self._emitters:
                refer(space, emitter, number(Ids.GeneratesEvent), kind, inverse=False)

    async def update(self, moment: Moment) -> None:
        """What the station reports now. While it is silent its alarms stay as they were, and ``LINK`` is active."""
        state = moment.view.state
        self._silent = not moment.heard or state is None
        if self._silent or state is None:
            await self._set(LINK, True, False)
            return
        stopped = state.state == State.ERROR
        if not self._heard and LINK in self._all:
            self._all[LINK].acked = True  # that a gateway has just begun needs nobody's attention
        self._heard = True
        await self._set(LINK, False, stopped)
        for kind in dict.fromkeys((*self._all, *state.alarms)):
            if kind != LINK:
                await self._set(kind, kind in state.alarms, stopped)

    async def call(self, session: Session, request: ua.CallMethodRequest) -> ua.CallMethodResult | None:
        """Answers a call of a condition's method; None: it is another one's."""
        if request.MethodId.NamespaceIndex != 0 or request.MethodId.Identifier not in _METHODS:
            return None
        kinds, method = _METHODS[request.MethodId.Identifier]
        values = request.InputArguments or []
        if len(values) != len(kinds):
            return _result(Status.BadArgumentsMissing if len(values) < len(kinds) else Status.BadTooManyArguments)
        for value, kind in zip(values, kinds, strict=True):
            if value.is_array or value.VariantType is not kind or value.Value is None:
                return _result(Status.BadInvalidArgument)
        try:
            return _result(await method(self, session, request.ObjectId, *(value.Value for value in values)))
        except ServiceError as error:
            return _result(error.code)

    async def acknowledge(
        self, session: Session, condition_id: ua.NodeId, event_id: bytes, comment: ua.LocalizedText
    ) -> int:
        """By its node and the id of one of its last events."""
        return await self._note("acknowledge", condition_id, event_id, comment)

    async def add_comment(
        self, session: Session, condition_id: ua.NodeId, event_id: bytes, comment: ua.LocalizedText
    ) -> int:
        """The same, and it stays unacknowledged."""
        return await self._note("comment", condition_id, event_id, comment)

    async def refresh(self, session: Session, of: ua.NodeId, subscription_id: int) -> int:
        """Every retained condition again, for one subscription of the caller's."""
        return await self._refresh(session, subscription_id, None)

    async def refresh_item(self, session: Session, of: ua.NodeId, subscription_id: int, item_id: int) -> int:
        """The same for one monitored item."""
        return await self._refresh(session, subscription_id, item_id)

    # ------------------------------------------------------------------

    async def _note(self, op: str, condition_id: ua.NodeId, event_id: bytes, comment: ua.LocalizedText) -> int:
        found = next((each for each in self._all.values() if each.node_id == condition_id), None)
        if found is None:
            return int(Status.BadNodeIdUnknown)
        caller, text = CALLER.get(), comment.Text or ""
        code = self._refusal(op, found, event_id, text, caller)
        name = caller.name if caller is not None else None
        actor = Actor(says="anonymous") if name is None else Actor(name=name)
        self._record(op, actor, ua.StatusCode(ua.UInt32(code)).name, found.kind, text[:COMMENT_MAX])
        if code != Status.Good:
            return code
        found.comment, found.user = text, name or "anonymous"
        found.times["Comment"] = _now()
        if op == "acknowledge":
            found.acked, found.times["AckedState"] = True, _now()
        await self._tell(found)
        return code

    def _refusal(self, op: str, found: Condition, event_id: bytes, text: str, caller: Client | None) -> int:
        if caller is None or not caller.may_operate:
            return int(Status.BadUserAccessDenied)
        if event_id not in found.event_ids:
            return int(Status.BadEventIdUnknown)
        if len(text) > COMMENT_MAX:
            return int(Status.BadInvalidArgument)
        if op == "acknowledge" and found.acked:
            return int(Status.BadConditionBranchAlreadyAcked)
        return int(Status.Good)

    async def _refresh(self, session: Session, subscription_id: int, item_id: int | None) -> int:
        service = session.own(subscription_id).monitored_item_srv
        emitters: tuple[ua.NodeId, ...] = self._emitters
        if item_id is not None:
            item = service._monitored_items.get(item_id)
            if item is None or item.read_value_id.AttributeId != Attribute.EventNotifier:
                return int(Status.BadMonitoredItemIdInvalid)
            emitters = tuple(each for each in emitters if each == item.read_value_id.NodeId)
        for emitter in emitters:
            begin, end = number(Ids.RefreshStartEventType), number(Ids.RefreshEndEventType)
            source = (SERVER, "Server")
            events = [make_event(emitter, begin, source, GONE_SEVERITY, "refresh", {})]
            events += [self._event(emitter, each) for each in self._all.values() if each.retain]
            events += [make_event(emitter, end, source, GONE_SEVERITY, "refreshed", {})]
            for event in events:
                await service.trigger_event(event, item_id)
        return int(Status.Good)

    async def _set(self, kind: str, active: bool, stopped: bool) -> None:
        found = self._all.get(kind)
        if found is None:
            if not active:
                return
            self._make_room()
            found = Condition(kind, ua.NodeId(ua.String(f"Alarms.{kind}"), ua.Int16(self._own)))
            self._all[kind] = found
        stopped = stopped and active and kind in STOPPING
        if (found.active, found.stopped) == (active, stopped):
            return
        if active and not found.active:
            found.acked, found.comment, found.user = False, "", ""
            found.event_ids.clear()  # nobody acknowledges this time by an event of the last
            found.times["AckedState"] = _now()
        if active != found.active:
            found.times["ActiveState"] = _now()
        found.active, found.stopped = active, stopped
        severity = (STOPPING_SEVERITY if kind in STOPPING else WARNING_SEVERITY) if active else GONE_SEVERITY
        if severity != found.severity:
            found.last_severity, found.severity = found.severity, severity
            found.times["LastSeverity"] = _now()
        await self._tell(found)

    def _make_room(self) -> None:
        """Active ones are few: a state has 16 alarms at most."""
        while len(self._all) >= CONDITIONS_MAX:
            gone = min(self._all.values(), key=lambda each: (each.active, not each.acked, each.time))
            del self._all[gone.kind]

    async def _tell(self, found: Condition) -> None:
        found.event_ids.append(new_event_id())
        found.time = _now()
        for emitter in self._emitters:
            await self._subscriptions.trigger_event(self._event(emitter, found))

    def _event(self, emitter: ua.NodeId, found: Condition) -> Any:
        """Its last event, with its id then."""
        long_ago = found.time
        quality = Status.BadNoCommunication if self._silent and found.kind != LINK else Status.Good
        states = {"EnabledState": True, "ActiveState": found.active, "AckedState": found.acked}
        fields: Fields = {
            "NodeId": (found.node_id, Type.NodeId),
            "BranchId": (ua.NodeId(), Type.NodeId),
            "ConditionClassId": (number(Ids.SystemConditionClassType), Type.NodeId),
            "ConditionClassName": (ua.LocalizedText("System"), Type.LocalizedText),
            "ConditionName": (found.kind, Type.String),
            "Retain": (found.retain, Type.Boolean),
            "Quality": (status(quality), Type.StatusCode),
            "Quality/SourceTimestamp": (long_ago, Type.DateTime),
            "LastSeverity": (found.last_severity, Type.UInt16),
            "LastSeverity/SourceTimestamp": (found.times.get("LastSeverity", long_ago), Type.DateTime),
            "Comment": (ua.LocalizedText(found.comment), Type.LocalizedText),
            "Comment/SourceTimestamp": (found.times.get("Comment", long_ago), Type.DateTime),
            "ClientUserId": (found.user, Type.String),
            "ErrorString": (found.kind, Type.String),
            "StopReaction": (found.stopped, Type.Boolean),
            "BlockReaction": (found.stopped, Type.Boolean),
        }
        for name, holds in states.items():
            fields[name] = (ua.LocalizedText(WORDS[name][holds]), Type.LocalizedText)
            fields[f"{name}/Id"] = (holds, Type.Boolean)
            fields[f"{name}/TransitionTime"] = (found.times.get(name, long_ago), Type.DateTime)
        kind = self._types[found.kind in STOPPING]
        return make_event(
            emitter, kind, self._source, found.severity, found.text, fields, found.event_ids[-1], found.time
        )

    def _make_type(self, space: AddressSpace, name: str, base: ua.NodeId) -> ua.NodeId:
        made = ua.NodeId(ua.String(name), ua.Int16(self._own))
        add_node(
            space, made,
            {
                Attribute.NodeClass: ua.Variant(ua.NodeClass.ObjectType, Type.Int32),
                Attribute.BrowseName: ua.Variant(ua.QualifiedName(name, self._own), Type.QualifiedName),
                Attribute.DisplayName: ua.Variant(ua.LocalizedText(name), Type.LocalizedText),
                Attribute.IsAbstract: ua.Variant(False, Type.Boolean),
            },
        )  # fmt: skip
        refer(space, base, number(Ids.HasSubtype), made)
        # ActiveState as AlarmConditionType declares it.
        path, declared = f"{name}.ActiveState", number(Ids.AlarmConditionType_ActiveState)
        own = Instances(space, lambda path: ua.NodeId(ua.String(path), ua.Int16(self._own)), {f"{path}.TransitionTime"})
        for node_id in own.make(path, ua.QualifiedName("ActiveState", 0), declared, made).values():
            refer(space, node_id, number(Ids.HasModellingRule), number(Ids.ModellingRule_Mandatory), inverse=False)
        return made


_EVENT_ID, _TEXT, _NUMBER = Type.ByteString, Type.LocalizedText, Type.UInt32
_METHODS: dict[int, tuple[tuple[ua.VariantType, ...], Callable[..., Any]]] = {
    Ids.AcknowledgeableConditionType_Acknowledge: ((_EVENT_ID, _TEXT), Conditions.acknowledge),
    Ids.ConditionType_AddComment: ((_EVENT_ID, _TEXT), Conditions.add_comment),
    Ids.ConditionType_ConditionRefresh: ((_NUMBER,), Conditions.refresh),
    Ids.ConditionType_ConditionRefresh2: ((_NUMBER, _NUMBER), Conditions.refresh_item),
}


def _result(code: int) -> ua.CallMethodResult:
    return ua.CallMethodResult(StatusCode=status(code))


def _now() -> datetime:
    return datetime.now(timezone.utc)
