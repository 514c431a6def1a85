"""``asperity gateway opcua``: an OPC UA server with flat tags and a subset of OPC 40100-1 (Machine Vision).

Every value is computed when it is read. Subscribers are notified in this order: Accept false, everything else of the
next result, ResultIdCopy, Accept. So a client that sees Accept true sees the result it belongs to.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.folders import state_folder
from asperity.runtime.gateways import process
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.link import Delivered, Item, Link, View
from asperity.runtime.gateways.opcua import access as opcua_access
from asperity.runtime.gateways.opcua.address_space import Model
from asperity.runtime.gateways.opcua.connection import GatewayServer
from asperity.runtime.gateways.opcua.methods import Methods
from asperity.runtime.gateways.opcua.tags import Moment, ended_change, moment, transition_name
from asperity.runtime.gateways.parts import Parts
from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.records.audit import Actor, Audit
from asperity.runtime.settings.station_toml import Audit as AuditConfig
from asperity.runtime.wire import RecipeChange

ITEMS_AT_ONCE = 64
GOODBYE_S = 0.1
"""At the end: how long subscriptions may report that everything is bad."""

log = logging.getLogger("asperity.gateway")


def serve(config: GatewayConfig) -> None:
    """Serve until SIGTERM. Raises ConfigError, GatewayError."""
    try:
        loopback = ipaddress.ip_address(config.opcua.host).is_loopback
    except ValueError as error:
        raise ConfigError(f"[opcua] host is {config.opcua.host!r}; use an IP address, for example 127.0.0.1") from error
    opcua_access.check(config.opcua, config.users.file, loopback)
    # The library logs tracebacks of what is told in one sentence here, and every client's mistakes.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    process.run(config, lambda link: OpcuaGateway(config, link))


class OpcuaGateway:
    """The OPC UA part of the process."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        self._config = config
        self._link = link
        self._server = GatewayServer(config.opcua, config.users)
        self._audit = Audit(AuditConfig(), _audit_path(config), str(uuid.uuid4()), setting="[opcua] audit_file")
        self._server.iserver.on_log_in = self._on_log_in
        self._plc = PlcClock(config.clocks)
        self._parts = Parts(config.opcua.results_kept)
        self._model = Model(self._server, self._moment)
        self._arrived: deque[Item] = deque()  # taken from the link and not shown yet
        self._clearing = False
        self._ending = False
        self._view: View | None = None
        self._heard_s = 0.0
        self._transition = ""
        self._news = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Build the address space and listen."""
        own = self._config.opcua
        server = self._server
        server.set_endpoint(f"opc.tcp://{_bracketed(own.host)}:{own.port}")
        server.socket_address = (own.host, own.port)
        server.set_server_name(f"Asperity gateway {self._config.station.name}")
        server.manufacturer_name, server.product_uri = "Asperity", "urn:asperity:gateway"
        with _uncollected():
            await server.init()
        await opcua_access.secure(server, self._config)
        methods = Methods(self._link, self._parts, self._config.gateway.commands, self._news.set, self._plc)
        await self._model.build(methods.table(), own.recipes.split())
        self._audit.start()
        try:
            await server.start()
        except OSError as error:
            self._audit.close()
            raise process.cannot_listen("opcua", own.host, own.port, error) from error
        assert server.bserver is not None
        self._pump = asyncio.create_task(self._run())
        return f"opc.tcp://{_bracketed(own.host)}:{server.bserver.port}"

    @property
    def problem(self) -> str:
        """For the process's status."""
        return self._plc.problem

    def refresh(self) -> None:
        """Wake the task that tells subscribers. Raises GatewayError when it has ended."""
        if self._pump is not None and self._pump.done():
            error = self._pump.exception()
            raise GatewayError(f"the OPC UA gateway could not continue: {error!r}") from error
        self._audit.look()
        self._news.set()

    async def close(self) -> None:
        """Notify subscribers that everything is bad, then end every connection."""
        self._ending = True
        if self._pump is None:
            return
        self._pump.cancel()
        with suppress(asyncio.CancelledError):
            await self._pump
        await self._model.refresh(self._moment())
        await asyncio.sleep(GOODBYE_S)
        clock = self._server.iserver.time_task
        if clock is not None:
            # The library would wait up to a second for its clock.
            clock.cancel()
            self._server.iserver.time_task = None
        await self._server.stop()
        if self._server.iserver.log_ins is not None:
            self._server.iserver.log_ins.close()
        self._audit.close()

    def _on_log_in(self, name: str, peer: str, refusal: str) -> None:
        # The password proves the name to this gateway; a refused one is only what was said.
        actor = Actor(says=name) if refusal else Actor(name=name)
        self._audit.log_in("opcua", actor, refusal and "REFUSED", text=refusal, peer=peer)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            change = self._observe()
            while self._take():
                await self._show(self._arrived.popleft())
                await asyncio.sleep(0)
            await self._model.refresh(self._moment())
            if change is not None:
                await self._model.recipe_event(change)

    def _take(self) -> bool:
        """Is there an item to show? The result of a trigger that is not answered yet holds up those that follow."""
        if not self._arrived:
            self._arrived.extend(self._link.take(ITEMS_AT_ONCE))
        return bool(self._arrived) and not self._parts.waits(self._arrived[0])

    async def _show(self, item: Item) -> None:
        """One item: Accept false, then the others, then Accept, then the event."""
        self._clearing = True
        item = self._parts.show(item)  # before anything else has its turn: a trigger may be given again
        await self._model.clear(self._moment())
        await self._model.refresh(self._moment())
        self._clearing = False
        now = self._moment()
        await self._model.clear(now)
        if isinstance(item, Delivered):
            await self._model.result_event(item, now.accept)
        else:
            await self._model.gap_event(item)

    def _observe(self) -> RecipeChange | None:
        """Note when a state came, and what changed. The change of recipe that has ended since."""
        view = self._link.view()
        before, after = self._view.state if self._view else None, view.state
        if after is not None and after is not before:
            self._heard_s = time.monotonic()
            if before is not None and before.state != after.state:
                self._transition = transition_name(before, after)
        self._view = view
        return ended_change(before, after)

    def _moment(self) -> Moment:
        view, shown = self._link.view(), self._parts.shown
        accept = shown is not None and not self._clearing and self._link.may_pass(shown)
        heard = view.state is not None and (time.monotonic() - self._heard_s) * 1000 <= view.state.beat_timeout_ms
        refused, recipe = self._server.iserver.refused, self._parts.recipe
        return moment(view, shown, accept, heard, self._ending, self._transition, refused, recipe, self._plc)


@contextmanager
def _uncollected() -> Iterator[None]:
    """The library builds 6000 nodes that all stay; scanning them for garbage takes as long as building them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _audit_path(config: GatewayConfig) -> Path:
    if config.opcua.audit_file:
        return Path(config.opcua.audit_file)
    return state_folder("[opcua] audit_file") / f"{config.station.name}.opcua.audit.jsonl"
