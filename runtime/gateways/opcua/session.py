"""A client's session at the OPC UA gateway: what it may hold, and that it reaches nothing of another's."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User
from asyncua.server.internal_session import InternalSession
from asyncua.server.subscription_service import SubscriptionService

from asperity.runtime.gateways.config import Opcua
from asperity.runtime.gateways.opcua.where import Where

log = logging.getLogger("asperity.gateway")

PUBLISH_MAX_MS = 3_600_000
ANSWER_MAX_NBYTES = 2 * 1024 * 1024
"""Strings in the answer to one Read."""
REFERENCES_MAX = 2000
"""In the answer to one Browse."""
PATH_MAX = 16
"""Elements of a browse path."""
CLAUSES_MAX = 128
"""Fields that an event's subscriber may select. Displays of alarms select more than half of them."""
CLAUSES_QUEUED = 64
"""With more of them a queue is half as long, so that none holds more fields than before."""
CONDITIONS_MAX, OPERANDS_MAX = 8, 64
"""Elements of an event filter's where clause, and operands of each."""


@dataclass
class Client(User):
    """The client's role. None may write a value or change the address space."""

    may_operate: bool = False


CALLER: ContextVar[Client | None] = ContextVar("caller", default=None)
"""Who calls the method that is being run."""


class Subscriptions(SubscriptionService):
    """The library's, which notifies no other client of an event once one client's filter has failed on it."""

    async def trigger_event(self, event: Any, subscription_id: int | None = None) -> None:
        """To every subscriber."""
        for number in list(self.subscriptions) if subscription_id is None else [subscription_id]:
            try:
                await super().trigger_event(event, number)
            except Exception as error:  # noqa: BLE001 - a client's own filter
                log.warning("a subscriber of events could not be notified: %r", error)


class Calls(Protocol):
    """Methods of nodes that are not in the address space."""

    async def call(self, session: Session, request: ua.CallMethodRequest) -> ua.CallMethodResult | None:
        """The answer; None: it is none of these."""


class Session(InternalSession):
    """The library's, bounded. It looks up a subscription by its number only, whichever session owns it."""

    limits: Opcua
    others: Calls | None = None
    host = ""
    connected = True
    """Whether the connection that it came by is still there."""
    since_s = 0.0

    @property
    def asked(self) -> bool:
        """As ``crowd.Guest``: the one without a connection makes room first."""
        return self.connected

    async def close_session(self, delete_subs: bool = True) -> None:
        """As the library's; no subscription outlives its session."""
        await super().close_session(True)

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """As the library's, bounded in bytes."""
        values = await super().read(params)
        if sum(len(v.Value.Value) for v in values if v.Value and isinstance(v.Value.Value, bytes | str)) > (
            ANSWER_MAX_NBYTES
        ):
            raise ServiceError(ua.StatusCodes.BadResponseTooLarge)
        return values

    async def browse(self, params: ua.BrowseParameters) -> list[ua.BrowseResult]:
        """As the library's, node by node, so that others have their turn; bounded in references."""
        results: list[ua.BrowseResult] = []
        references = 0
        for node in params.NodesToBrowse:
            results += await super().browse(ua.BrowseParameters(NodesToBrowse=[node]))
            references += len(results[-1].References)
            if references > REFERENCES_MAX:
                raise ServiceError(ua.StatusCodes.BadResponseTooLarge)
            await asyncio.sleep(0)
        return results

    async def translate_browsepaths_to_nodeids(self, params: list[ua.BrowsePath]) -> list[ua.BrowsePathResult]:
        """As the library's, path by path, so that others have their turn."""
        results: list[ua.BrowsePathResult] = []
        for path in params:
            if not 1 <= len(path.RelativePath.Elements) <= PATH_MAX:
                results.append(ua.BrowsePathResult(StatusCode=_status(ua.StatusCodes.BadBrowseNameInvalid)))
                continue
            results += await super().translate_browsepaths_to_nodeids([path])
            await asyncio.sleep(0)
        return results

    async def call(self, params: list[ua.CallMethodRequest]) -> list[ua.CallMethodResult]:
        """As the library's, with ``CALLER`` set, and for conditions too."""
        token = CALLER.set(self.user if isinstance(self.user, Client) else None)
        try:
            results: list[ua.CallMethodResult] = []
            for request in params:
                answer = None if self.others is None else await self.others.call(self, request)
                results += await super().call([request]) if answer is None else [answer]
            return results
        finally:
            CALLER.reset(token)

    async def create_subscription(
        self, params: ua.CreateSubscriptionParameters, callback: Any, request_callback: Any | None = None
    ) -> ua.CreateSubscriptionResult:
        """As the library's, not faster than ``publish_min_ms``, not more than ``subscriptions_each``."""
        if len(self._subscriptions()) >= self.limits.subscriptions_each:
            raise ServiceError(ua.StatusCodes.BadTooManySubscriptions)
        fastest = max(float(self.limits.publish_min_ms), params.RequestedPublishingInterval)
        params.RequestedPublishingInterval = min(float(PUBLISH_MAX_MS), fastest)
        return await super().create_subscription(params, callback, request_callback)

    def modify_subscription(self, params: ua.ModifySubscriptionParameters) -> ua.ModifySubscriptionResult:
        """As the library's, for its own."""
        self.own(params.SubscriptionId)
        return super().modify_subscription(params)

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """As the library's, for its own, not more than ``items_max`` and ``events_max`` in all."""
        self.own(params.SubscriptionId)
        held = [item for sub in self._subscriptions() for item in sub.monitored_item_srv._monitored_items.values()]
        events = sum(is_event(item.read_value_id) for item in held)
        events += sum(is_event(item.ItemToMonitor) for item in params.ItemsToCreate)
        if len(held) + len(params.ItemsToCreate) > self.limits.items_max or events > self.limits.events_max:
            raise ServiceError(ua.StatusCodes.BadTooManyMonitoredItems)
        for item in params.ItemsToCreate:
            wanted = item.RequestedParameters
            self._check_filter(item.ItemToMonitor, wanted.Filter)
            wanted.QueueSize = self._queue_size(wanted.QueueSize, wanted.Filter)
        made = await super().create_monitored_items(params)
        for item in self.own(params.SubscriptionId).monitored_item_srv._monitored_items.values():
            if item.where_clause_evaluator is not None:
                item.where_clause_evaluator = Where(log, self.aspace, item.filter.WhereClause)
        return made

    async def modify_monitored_items(
        self, params: ua.ModifyMonitoredItemsParameters
    ) -> list[ua.MonitoredItemModifyResult]:
        """As the library's, for its own; the queue stays bounded and the filter of its kind."""
        items = self.own(params.SubscriptionId).monitored_item_srv._monitored_items
        for change in params.ItemsToModify:
            item, wanted = items.get(change.MonitoredItemId), change.RequestedParameters
            if item is None:
                raise ServiceError(ua.StatusCodes.BadMonitoredItemIdInvalid)
            if wanted.Filter:
                self._check_filter(item.read_value_id, wanted.Filter)
            else:
                wanted.Filter = None  # as before
            wanted.QueueSize = self._queue_size(max(1, wanted.QueueSize), wanted.Filter or item.filter)
        return await super().modify_monitored_items(params)

    async def delete_monitored_items(self, params: ua.DeleteMonitoredItemsParameters) -> list[ua.StatusCode]:
        """As the library's, for its own."""
        self.own(params.SubscriptionId)
        return await super().delete_monitored_items(params)

    async def set_monitoring_mode(self, params: ua.SetMonitoringModeParameters) -> list[ua.StatusCode]:
        """As the library's, for its own."""
        self.own(params.SubscriptionId)
        return await super().set_monitoring_mode(params)

    async def set_publishing_mode(self, params: ua.SetPublishingModeParameters) -> list[ua.StatusCode]:
        """As the library's, for its own."""
        for number in params.SubscriptionIds:
            self.own(number)
        return await super().set_publishing_mode(params)

    async def delete_subscriptions(self, ids: list[int]) -> list[ua.StatusCode]:
        """As the library's, for its own."""
        for number in ids:
            self.own(number)
        return await super().delete_subscriptions(ids)

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        """As the library's, for its own."""
        self.own(params.SubscriptionId)
        return super().republish(params)

    def publish(self, acks: Any = None) -> tuple[int, list[ua.StatusCode]]:
        """As the library's, for its own."""
        own = {sub.data.SubscriptionId for sub in self._subscriptions()}
        if not own:
            raise ServiceError(ua.StatusCodes.BadNoSubscription)
        statuses: list[ua.StatusCode] = []
        for ack in acks or []:
            known = ack.SubscriptionId in own
            statuses += super().publish([ack])[1] if known else [_status(ua.StatusCodes.BadSubscriptionIdInvalid)]
        return len(own), statuses

    def _subscriptions(self) -> list[Any]:
        return [s for s in self.subscription_service.subscriptions.values() if s.session_id == self.session_id]

    def own(self, number: int) -> Any:
        """The subscription of that number. Raises ServiceError when it is none of this session's."""
        found = self.subscription_service.subscriptions.get(number)
        if found is None or found.session_id != self.session_id:
            raise ServiceError(ua.StatusCodes.BadSubscriptionIdInvalid)
        return found

    def _queue_size(self, wanted: int, given: Any) -> int:
        """0: as many as there may be."""
        many = isinstance(given, ua.EventFilter) and len(given.SelectClauses) > CLAUSES_QUEUED
        most = max(1, self.limits.queue_max // 2) if many else self.limits.queue_max
        return min(wanted or most, most)

    def _check_filter(self, item: ua.ReadValueId, given: Any) -> None:
        """Raises ServiceError for a filter that would fail, or cost too much, whenever there is news."""
        if is_event(item):
            if not isinstance(given, ua.EventFilter) or not _plain_where(given.WhereClause.Elements):
                raise ServiceError(ua.StatusCodes.BadMonitoredItemFilterInvalid)
            if len(given.SelectClauses) > CLAUSES_MAX:
                raise ServiceError(ua.StatusCodes.BadMonitoredItemFilterInvalid)
        elif given:
            if not isinstance(given, ua.DataChangeFilter):
                raise ServiceError(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
            value = self.aspace.read_attribute_value(item.NodeId, item.AttributeId).Value
            number = value is not None and isinstance(value.Value, int | float) and not isinstance(value.Value, bool)
            if given.DeadbandType != ua.DeadbandType.None_ and not number:
                raise ServiceError(ua.StatusCodes.BadFilterNotAllowed)


def new_session(session: Session, limits: Opcua, others: Calls | None) -> Session:
    """A session just made, with its bounds; ``name`` is the address of the client, as the library has it."""
    session.limits, session.others = limits, others
    peer: Any = session.name
    session.host = str(peer[0]) if isinstance(peer, tuple) else ""
    session.since_s = time.monotonic()
    return session


def is_event(item: ua.ReadValueId) -> bool:
    """Whether a monitored item is for events."""
    return bool(item.AttributeId == ua.AttributeIds.EventNotifier)


def _plain_where(elements: list[ua.ContentFilterElement]) -> bool:
    """A small tree: each element is an operand once at most, and of one before it, so that none is evaluated twice."""
    if len(elements) > CONDITIONS_MAX:
        return False
    seen: set[int] = set()
    for number, element in enumerate(elements):
        if len(element.FilterOperands) > OPERANDS_MAX:
            return False
        for operand in element.FilterOperands:
            if isinstance(operand, ua.ElementOperand):
                if not number < operand.Index < len(elements) or operand.Index in seen:
                    return False
                seen.add(operand.Index)
    return True


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))
