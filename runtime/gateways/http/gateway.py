"""``asperity gateway http``: ``/livez /readyz /metrics`` for machines, ``/`` for people, ``/api/v1`` for programs.

On asyncio instead of starlette and uvicorn: a few paths with bounded input need no framework, uvicorn (0.54) lets a
client that never finishes its request stay forever, and its ``limit_concurrency`` turns away the newcomer, which is
the probe. Each connection is one request, bounded in bytes and time; when there are too many, a silent one is closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST

from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.connection_limit import one_to_close
from asperity.runtime.gateways.http.api import COMMANDS, PREFIX, Api
from asperity.runtime.gateways.http.log_in import CHALLENGE, Doorkeeper
from asperity.runtime.gateways.http.metrics import Metrics
from asperity.runtime.gateways.http.openapi import document
from asperity.runtime.gateways.http.page import LOG_IN, Reader, page, why_not
from asperity.runtime.gateways.http.plant_time import zone_of
from asperity.runtime.gateways.http.requests import (
    HTML,
    Answer,
    Request,
    RequestRefused,
    encode,
    not_allowed,
    problem,
    read_request,
)
from asperity.runtime.gateways.link import Item, Link
from asperity.runtime.gateways.log_ins.users import User
from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.gateways.process import cannot_listen, check_host, hold_more, run

log = logging.getLogger("asperity.gateway")

TAKE_AT_ONCE = 1000
"""Items taken from the link in one turn."""
ACCEPTED_PART = 4
"""A fourth of all connections may come between two turns of the loop, so that none is closed before it was heard."""
PROBES = ("/livez", "/readyz")
"""Always answered, to any client."""
@dataclass(eq=False)
class _Client:
    """One connection."""

    task: asyncio.Task[None]
    writer: asyncio.StreamWriter
    host: str
    asked: bool = False
    since_s: float = field(default_factory=time.monotonic)

    def end(self) -> None:
        """Close it at once; what was not sent is dropped."""
        self.task.cancel()
        self.writer.transport.abort()


class HttpGateway:
    """The protocol's part of the process."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        """Raises ConfigError for a host off loopback without ``insecure_lan``, and a time zone that is not known."""
        check_host("http", config.http.host, config.http.insecure_lan)
        self._station = config.station.name
        self._config = config.http
        self._link = link
        self._zone = zone_of(config.http.time_zone)
        self._plc = PlcClock(config.clocks)
        self._commands = config.gateway.commands
        self._doorkeeper = Doorkeeper(config.users)
        self._metrics = Metrics(link, lambda: self._doorkeeper.refused, self._plc)
        self._api = Api(config, link, lambda: document(PREFIX, self._api.routes, COMMANDS), self._plc)
        self._last: deque[Item] = deque(maxlen=config.http.results_shown)
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()
        self._pages: dict[str, Callable[[User | None], Answer]] = {
            "/": self._page, LOG_IN: self._page, "/livez": lambda _: self._live(), "/readyz": lambda _: self._ready(),
            "/metrics": lambda _: self._scrape(),
        }  # fmt: skip

    async def open(self) -> str:
        """As ``Gateway.open``."""
        config = self._config
        at_once = max(1, config.connections_max // ACCEPTED_PART)
        try:
            self._server = await asyncio.start_server(
                self._client, config.host, config.port, limit=config.header_max_nbytes, backlog=at_once
            )
        except OSError as error:
            raise cannot_listen("http", config.host, config.port, error) from error
        hold_more(self._server)
        host = f"[{config.host}]" if ":" in config.host else config.host  # RFC 3986: an IPv6 address in a URL
        return f"http://{host}:{self._server.sockets[0].getsockname()[1]}/"

    @property
    def problem(self) -> str:
        """For the process's status."""
        return self._plc.problem

    def refresh(self) -> None:
        """As ``Gateway.refresh``."""
        for item in self._api.take(self._link.take(TAKE_AT_ONCE) if self._api.room else []):
            self._metrics.count(item)
            self._last.appendleft(item)

    async def close(self) -> None:
        """As ``Gateway.close``."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.task.cancel()
        self._doorkeeper.close()
        await asyncio.gather(*(client.task for client in self._clients), return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one answer."""
        task = asyncio.current_task()
        assert task is not None
        client = _Client(task, writer, str((writer.get_extra_info("peername") or ("?",))[0]))
        self._admit(client)
        try:
            # Cancelled: closed for a newcomer. It ends here, or asyncio would log it as an error.
            with suppress(asyncio.TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._converse(client, reader, writer)
        finally:
            self._clients.discard(client)
            # What was written and not taken within request_ms is dropped.
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def _admit(self, client: _Client) -> None:
        if len(self._clients) >= self._config.connections_max:
            other = one_to_close(self._clients)
            log.info(
                "too many HTTP clients: closing a connection from %s to make room for a new one; if all are needed, "
                "raise [http] connections_max", other.host,
            )  # fmt: skip
            self._clients.discard(other)
            other.end()
        self._clients.add(client)

    async def _converse(self, client: _Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config, wait_s = self._config, self._config.request_ms / 1000
        try:
            read = read_request(reader, config.header_max_nbytes, config.body_max_nbytes)
            request = await asyncio.wait_for(read, wait_s)
        except RequestRefused as refused:
            writer.write(encode(refused.args[0], head_only=False))
            return
        client.asked = True
        try:
            answer = await asyncio.wait_for(self._answer(request, client.host), wait_s)
        except asyncio.TimeoutError:
            answer = problem(504, f"there was no answer within {config.request_ms} ms ([http] request_ms)")
        writer.write(encode(answer, head_only=request.method == "HEAD"))
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), wait_s)

    async def _answer(self, request: Request, host: str) -> Answer:
        """The answer to a request of a client at ``host``."""
        try:
            if request.path.startswith(PREFIX + "/"):
                return await self._api_answer(request, host)
            make = self._pages.get(request.path)
            if make is None:
                return Answer(404, f"there are / {LOG_IN} /livez /readyz /metrics {PREFIX}/openapi.json\n".encode())
            if request.method not in ("GET", "HEAD"):
                return not_allowed("GET", "HEAD")
            user = None if request.path in PROBES else await self._doorkeeper.user(request, host)
            if request.path == LOG_IN and user is None and self._doorkeeper.known:
                return problem(401, "log in with a user and a password", CHALLENGE)
            return make(user)
        except RequestRefused as refused:
            found: Answer = refused.args[0]
            return found

    async def _api_answer(self, request: Request, host: str) -> Answer:
        """Below PREFIX. Raises RequestRefused."""
        user = await self._doorkeeper.user(request, host)
        found = self._api.route(request)
        if isinstance(found, Answer):
            return found
        route, value = found
        if route.commands:
            if not self._commands:
                return problem(403, "[gateway] commands is false, so requests are not forwarded")
            if not self._doorkeeper.known:
                return problem(403, "commands need a user: set [users] file (asperity gateway user)")
            if user is None:
                return problem(401, "commands need a user and a password", CHALLENGE)
            if not user.may_operate:
                return problem(403, f"user {user.name} may only read; give the role operate (asperity gateway user)")
        return await route.call(request, user, value)

    def _page(self, user: User | None) -> Answer:
        reader = Reader(self._access(user), bool(self._doorkeeper.known) and user is None, self._zone)
        text = page(self._station, self._link.view(), self._last, self._config.refresh_s, reader, self._plc)
        return Answer(200, text, HTML)

    def _access(self, user: User | None) -> str:
        """Who that is, and what they may do."""
        if user is None:
            return "nobody is logged in: read only"
        if user.may_operate and self._commands:
            return f"{user.name}, operate: may command the station by {PREFIX}/commands; this page only reads"
        return f"{user.name}, {user.role}: read only"

    def _live(self) -> Answer:
        return Answer(200, b"the gateway turns\n")

    def _ready(self) -> Answer:
        reason = why_not(self._link.view())
        return Answer(503, f"not ready: {reason}\n".encode()) if reason else Answer(200, b"ready\n")

    def _scrape(self) -> Answer:
        self.refresh()
        return Answer(200, self._metrics.text(), CONTENT_TYPE_LATEST)


def serve(config: GatewayConfig) -> None:
    """Run the gateway until SIGTERM. For the main thread. Raises ConfigError and GatewayError."""
    run(config, lambda link: HttpGateway(config, link))
