"""Who else can reach the sockets: logged at every start; an alarm if they are open to a network."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from asperity.runtime.settings.combined_stations import names_of
from asperity.runtime.settings.paths import control_endpoint
from asperity.runtime.settings.station_toml import StationConfig

INSECURE_LAN = "INSECURE_LAN"
OPEN_TO_USERS = "OPEN_TO_USERS"
REMEDY = "create a key for each client (`asperity keys new --client NAME`) and set [security] curve = true"


def is_loopback(endpoint: str) -> bool:
    """A ``tcp://`` endpoint that only this computer reaches."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def open_to_network(config: StationConfig) -> str:
    """Text saying that clients on the network are not authenticated; empty: they are."""
    if config.security.curve or not config.sockets.insecure_lan:
        return ""
    ends = [f"{name} {endpoint}" for name, endpoint in _tcp(config) if not is_loopback(endpoint)]
    where = f": anyone who can reach {', '.join(ends)} can read, send frames or command the station" if ends else ""
    return f"[sockets] insecure_lan is set, so clients are not authenticated{where}; {REMEDY}"


def open_to_users(config: StationConfig) -> str:
    """Text saying that every user of this computer can use the sockets; empty: it is not so."""
    ends = [f"{name} {endpoint}" for name, endpoint in _tcp(config) if is_loopback(endpoint)]
    if config.security.curve or not ends:
        return ""
    return (
        f"every user of this computer can use {', '.join(ends)}, and could send frames as if they were the camera; "
        f"use ipc:// (deploy/systemd/station.toml), or {REMEDY}"
    )


def _tcp(config: StationConfig) -> list[tuple[str, str]]:
    """(name, endpoint) of the sockets that are not files."""
    sockets = config.sockets
    controls = dict.fromkeys(control_endpoint(name, sockets.control) for name in names_of(config))
    ends = [("frames", sockets.frames), ("results", sockets.results), ("bulk", sockets.bulk)]
    return [(name, end) for name, end in [*ends, *(("control", end) for end in controls)] if end.startswith("tcp://")]
