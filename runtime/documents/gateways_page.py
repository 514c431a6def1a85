"""The tables of ``docs/gateways.md``: keys of ``gateway.toml``, tags and events of OPC UA."""

from __future__ import annotations

from asperity.runtime.documents.blocks import filled
from asperity.runtime.documents.opcua_tables import events, tags
from asperity.runtime.documents.toml_keys import described
from asperity.runtime.gateways.config import GatewayConfig


def keys() -> list[str]:
    """Every key of ``gateway.toml``."""
    return described(GatewayConfig)


def page(present: str) -> str:
    """The page as it is, with its tables generated again. Raises DataError when a block is missing from it."""
    return filled(present, {"tags": tags, "events": events, "keys": keys})
