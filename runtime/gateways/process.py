"""The process of an asyncio gateway: one link, one loop, one end. Accept is 0 before the first news and after the last.

    class Gateway:                       # a protocol's own part
        async def open(self) -> str      # begin to serve; the address, as text
        def refresh(self) -> None        # take items from the link: after news, and every tick_ms
        async def close(self) -> None    # end every connection

    run(config, lambda link: Gateway(config, link))
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.link import Link
from asperity.runtime.gateways.watch_loop import TurnWatch, beat_timeout_ms
from asperity.runtime.process import early_signals
from asperity.runtime.process.systemd import Supervision
from asperity.runtime.settings.listening import Place, why_not_bound

log = logging.getLogger("asperity.gateway")

CLOSE_S = 1.0
"""At the end, longest wait for the protocol's connections; then the process ends anyway."""


BACKLOG = 128
"""Connections that the system holds until they are accepted."""


class Gateway(Protocol):
    """A protocol's own part. All of it runs in the loop."""

    async def open(self) -> str:
        """Begin to serve; returns the address as text. Raises GatewayError."""

    def refresh(self) -> None:
        """Take over the link's items; never blocks."""

    async def close(self) -> None:
        """End every connection."""


def run(config: GatewayConfig, make: Callable[[Link], Gateway], since: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT. For the main thread; ``since``: as ``Link``. Raises ConfigError, GatewayError."""
    asyncio.run(_serve(config, make, since))


async def _serve(config: GatewayConfig, make: Callable[[Link], Gateway], since: int | None) -> None:
    loop, news, ending = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def end() -> None:
        ending.set()
        news.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if early_signals.told():
        end()

    def wake() -> None:
        loop.call_soon_threadsafe(news.set)

    link = Link(config, on_news=wake, since=since)
    try:
        gateway, supervision = make(link), Supervision()
    except BaseException:
        link.close()
        raise
    watch = TurnWatch(beat_timeout_ms(link))
    try:
        where = await gateway.open()
        link.start()
        watch.start()
        log.info("station %s is served at %s", config.station.name, where)
        supervision.ready()
        turns = 0
        while not ending.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(news.wait(), config.gateway.tick_ms / 1000)
            news.clear()
            gateway.refresh()
            turns += 1
            watch.turned()
            supervision.progress(turns)
            supervision.status(_status(config.station.name, link, gateway))
            if not link.alive:
                raise GatewayError("the gateway's connection to the station has ended; the process exits so that it "
                                   "is restarted")
        supervision.stopping()
    finally:
        watch.close()
        link.close()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(gateway.close(), CLOSE_S)


def _status(station: str, link: Link, gateway: Gateway) -> str:
    """For ``systemctl status``. ``problem`` of a gateway: what is wrong on its other side, if it has one."""
    said = [f"station {station}: {link.view().why or 'trusted'}", getattr(gateway, "problem", "")]
    return "; ".join(text for text in said if text)


def check_host(table: str, host: str, insecure_lan: bool) -> None:
    """Raises ConfigError for an address that others on the network reach, unless that is wanted."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise ConfigError(f"[{table}] host is {host!r}; use an IP address, for example 127.0.0.1") from error
    if not loopback and not insecure_lan:
        raise ConfigError(
            f"[{table}] host is {host}, which other hosts on the network could reach and use; "
            "set 127.0.0.1, or insecure_lan = true if that network is trusted"
        )


def cannot_listen(table: str, host: str, port: int, error: OSError) -> GatewayError:
    """What to raise when an address cannot be listened on."""
    why = why_not_bound(error, Place(host, port), "another gateway")
    return GatewayError(f"[{table}] cannot listen on {host} port {port}: {why}")


def hold_more(server: asyncio.Server) -> None:
    """Let the system hold ``BACKLOG`` connections until they are accepted.

    asyncio has one number for that and for how many it accepts in a turn. Where the latter is small, so that no crowd
    is accepted at once, the system would drop what comes meanwhile, and a client tries again only after a second.
    """
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(BACKLOG)
