"""Events as the companion and OPC 10000-9 define them, made field by field."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import Any

from asyncua import ua
from asyncua.common.events import Event
from asyncua.server.subscription_service import SubscriptionService

from asperity.runtime.gateways.opcua.companion.nodeset import number

Type = ua.VariantType
Fields = dict[str, tuple[Any, ua.VariantType]]
"""Path of a field, joined with ``/`` -> value and type."""
SERVER = number(ua.ObjectIds.Server)


def new_event_id() -> bytes:
    """An id that no other event has."""
    return uuid.uuid4().bytes


def make_event(
    emitter: ua.NodeId, kind: ua.NodeId, source: tuple[ua.NodeId, str], severity: int, message: str, fields: Fields,
    event_id: bytes = b"", time: datetime | None = None,
) -> Event:  # fmt: skip
    """An event that subscribers of ``emitter`` get."""
    now = datetime.now(timezone.utc)
    event = Event(emitter)
    every: Fields = {
        "EventId": (event_id or new_event_id(), Type.ByteString),
        "EventType": (kind, Type.NodeId),
        "SourceNode": (source[0], Type.NodeId),
        "SourceName": (source[1], Type.String),
        "Time": (time or now, Type.DateTime),
        "ReceiveTime": (now, Type.DateTime),
        "LocalTime": (ua.TimeZoneDataType(), Type.ExtensionObject),
        "Message": (ua.LocalizedText(message), Type.LocalizedText),
        "Severity": (severity, Type.UInt16),
        **fields,
    }
    for name, (value, variant) in every.items():
        event.add_property(name, value, variant)
    return event


async def tell(
    subscriptions: SubscriptionService, emitters: tuple[ua.NodeId, ...], kind: ua.NodeId, source: tuple[ua.NodeId, str],
    severity: int, message: str, fields: Fields, event_id: bytes = b"",
) -> None:  # fmt: skip
    """To every subscriber of each emitter, as one event."""
    event_id = event_id or new_event_id()
    for emitter in emitters:
        event = make_event(emitter, kind, source, severity, message, fields, event_id)
        await subscriptions.trigger_event(event)
