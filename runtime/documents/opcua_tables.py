"""Tags and events of the OPC UA gateway as tables. Needs asyncua."""

from __future__ import annotations

from asperity.runtime.gateways.opcua.address_space import EVENT_FIELDS, PLAIN_EVENTS
from asperity.runtime.gateways.opcua.tags import TAGS


def tags() -> list[str]:
    """One row per tag."""
    rows = [f"| {tag.name} | {tag.type.name} | {tag.of.value} | {tag.meaning} |" for tag in TAGS]
    return ["| tag | type | of | meaning |", "|---|---|---|---|", *rows]


def events() -> list[str]:
    """One table per type of event."""
    fields = [(name, kind, meaning) for name, kind, meaning, _ in EVENT_FIELDS]
    lines: list[str] = []
    for title, rows in {"ResultReadyEventType": fields, **PLAIN_EVENTS}.items():
        lines += ["", f"| {title} | type | meaning |", "|---|---|---|"]
        lines += [f"| {name} | {kind.name} | {meaning} |" for name, kind, meaning in rows]
    return lines[1:]
