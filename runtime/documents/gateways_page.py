"""The tables of ``docs/gateways.md``: keys of ``gateway.toml``, tags and events of OPC UA, metrics of Sparkplug."""

from __future__ import annotations

from asperity.runtime.documents.blocks import filled
from asperity.runtime.documents.opcua_tables import events, tags
from asperity.runtime.documents.toml_keys import described
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.sparkplug.metrics import GAP, RESULT, STATION


def keys() -> list[str]:
    """Every key of ``gateway.toml``."""
    return described(GatewayConfig)


def sparkplug() -> list[str]:
    """One row per metric."""
    rows = [(row.name, row.type.name, row.meaning) for table in (STATION, RESULT, GAP) for row in table]
    return ["| metric | type | meaning |", "|---|---|---|", *("| {} | {} | {} |".format(*row) for row in rows)]


def page(present: str) -> str:
    """The page as it is, with its tables generated again. Raises DataError when a block is missing from it."""
    return filled(present, {"tags": tags, "events": events, "sparkplug": sparkplug, "keys": keys})
