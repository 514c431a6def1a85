"""asyncua's server with bounds for a shop floor: whatever one connection does costs that connection only.

The library decodes and answers in the gateway's loop. So each connection's requests are bounded in bytes
(``message_max_nbytes``), in what is decoded (``opcua_decoding``) and in operations; one request is begun in a turn of
the loop; and a connection that takes more than its share of the loop's time waits before its next request is begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession, SessionState
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import struct_from_binary

from runtime.gateways import users
from runtime.gateways.config import Opcua
from runtime.gateways.crowd import one_to_close
from runtime.gateways.log_ins import BusyError, LogIns
from runtime.gateways.opcua_access import CHECKED, Users
from runtime.gateways.opcua_decoding import DECODING, Budget
from runtime.gateways.opcua_session import Client, Session, Subscriptions, new_session
from runtime.gateways.process import hold_more

log = logging.getLogger("asperity.gateway")

CHUNK_MAX_NBYTES, CHUNK_MIN_NBYTES = 65_535, 8192
"""What a chunk may have, and what a client must at least take (OPC 10000-6, 7.1.2)."""
OPEN_MAX_NBYTES = 16_384
"""Of a request to open a channel; each 256 bytes of it are a private operation of RSA."""
PASSWORD_MAX_NBYTES = 1024
PENDING_MAX, PENDING_PAUSE = 200, 16
"""Requests of a connection that wait: beyond the first it is closed, beyond the second no more is read meanwhile."""
BURST_S = 0.1
"""Time of the loop that a connection may take before its share is asked for."""
ACCEPTED_PART = 4
"""A fourth of all connections may come between two turns of the loop, so that none is closed before it was heard."""
KINDS = (b"HEL", b"OPN", b"MSG", b"CLO", b"ERR")

_IDS = ua.ObjectIds
_SERVED = {
    getattr(_IDS, f"{name}Request_Encoding_DefaultBinary")
    for name in (
        *("GetEndpoints", "FindServers", "CloseSecureChannel", "CreateSession", "ActivateSession", "CloseSession"),
        *("Read", "Browse", "TranslateBrowsePathsToNodeIds", "RegisterNodes", "UnregisterNodes", "Call"),
        *("CreateSubscription", "ModifySubscription", "DeleteSubscriptions", "SetPublishingMode"),
        *("CreateMonitoredItems", "ModifyMonitoredItems", "DeleteMonitoredItems", "SetMonitoringMode"),
        *("Publish", "Republish"),
    )
}
_FORBIDDEN = {
    getattr(_IDS, f"{name}Request_Encoding_DefaultBinary")
    for name in ("Write", "AddNodes", "DeleteNodes", "AddReferences", "DeleteReferences")
}
"""Nobody may; not even decoded."""


@types.coroutine
def metered(coroutine: Coroutine[Any, Any, Any], spent: Callable[[float], None]) -> Generator[Any, Any, Any]:
    """Runs a coroutine and says what time of the processor each of its steps took, in s; what it waits for is free."""
    step, value = coroutine.send, None
    while True:
        began_s = time.thread_time()
        try:
            waits_for = step(value)
        except StopIteration as end:
            return end.value
        finally:
            spent(time.thread_time() - began_s)
        try:
            step, value = coroutine.send, (yield waits_for)
        except BaseException as error:  # noqa: BLE001 - a cancellation goes in, and comes out of the next step
            step, value = coroutine.throw, error


class RefusedError(ServiceError):
    """Refused, counted and logged already."""


class Limits(TransportLimits):
    """Of one connection."""

    def create_acknowledge_and_set_limits(self, msg: ua.Hello) -> ua.Acknowledge:
        """As the library's. Raises ServiceError for a client that would take an answer byte by byte."""
        if min(msg.ReceiveBufferSize, msg.SendBufferSize) < CHUNK_MIN_NBYTES:
            raise ServiceError(ua.StatusCodes.BadTcpNotEnoughResources)
        return super().create_acknowledge_and_set_limits(msg)

    def update_client_limits(self, msg: ua.Acknowledge) -> None:
        """A server is sent no Acknowledge; the library would let it set the limits."""
        raise ServiceError(ua.StatusCodes.BadTcpMessageTypeInvalid)


class BoundedServer(InternalServer):
    """The library's server, with bounds and the count of what they refused."""

    def __init__(self, config: Opcua) -> None:
        manager = Users(config)
        super().__init__(user_manager=manager)
        self.subscription_service = self.isession.subscription_service = Subscriptions(self.aspace, iserver=self)
        self.bounds = config
        self.log_ins = None if manager.known is None else LogIns(manager.known, config)
        self.refused = 0
        """Log-ins, requests and connections."""
        self.allow_remote_admin = False
        self.max_connections = config.connections_max
        self.max_subscriptions = config.subscriptions_max
        self.max_monitored_item_queue_size = config.queue_max
        self.max_session_timeout_ms = config.session_idle_ms
        self.max_unacked_messages_per_subscription = 500
        self.max_pending_messages_per_connection = PENDING_MAX
        self.max_pending_activation_seconds = config.handshake_ms / 1000
        # One queue for those that are logged in, one for the others: a crowd at the door holds up nobody inside.
        self.turns = {True: asyncio.Lock(), False: asyncio.Lock()}

    def refuse(self, what: str, peer: str, why: str) -> None:
        """Count and log something that was refused."""
        self.refused += 1
        log.warning("%s of %s is refused: %s", what, peer, why)

    def create_session(self, name: str, user: User | None = None, external: bool = False) -> InternalSession:
        """A session of ours."""
        anybody = user or User(UserRole.Anonymous)
        session = Session(self, self.aspace, self.subscription_service, name, user=anybody, external=external)
        return new_session(session, self.bounds)

    def register_external_session(self, session: InternalSession) -> None:
        """As the library's, with a token that nobody can guess: whoever has it takes the session over."""
        session.auth_token = ua.NodeId(ua.ByteString(os.urandom(32)), ua.Int16(1), ua.NodeIdType.ByteString)
        super().register_external_session(session)

    async def setup_nodes(self) -> None:
        """As the library's, with the limits that are in force."""
        await super().setup_nodes()
        for name in dir(_IDS):
            if name.startswith("Server_ServerCapabilities_OperationLimits_Max"):
                limit = ua.DataValue(ua.Variant(self.bounds.operations_max, ua.VariantType.UInt32))
                await self.write_attribute_value(ua.NodeId(ua.Int32(getattr(_IDS, name))), limit)
        for dictionary in (_IDS.OpcUa_BinarySchema, _IDS.OpcUa_XmlSchema):
            # 200 and 340 KB that every client has anyway, for whoever asks for them 500 times in one request.
            empty = ua.DataValue(ua.Variant(b"", ua.VariantType.ByteString))
            await self.write_attribute_value(ua.NodeId(ua.Int32(dictionary)), empty)

    async def make_room(self, newcomer: Session) -> None:
        """Before another session is logged in. Raises ServiceError when there are enough of them."""
        while len(sessions := self._logged_in()) >= self.bounds.sessions_max:
            other = one_to_close(sessions)
            crowd = sum(session.host == other.host for session in sessions)
            if other.connected and crowd <= sum(session.host == newcomer.host for session in sessions) + 1:
                raise ServiceError(ua.StatusCodes.BadTooManySessions)
            log.info("too many OPC UA sessions: one of %s is closed for that of another", other.host)
            await other.close_session()

    def _logged_in(self) -> list[Session]:
        return [s for s in self._external_sessions.values() if isinstance(s, Session) and s.is_activated()]


class Processor(UaProcessor):
    """Answers the requests of one connection."""

    iserver: BoundedServer
    at_the_door = False
    """Its password is waiting to be checked."""
    _library: Any = UaProcessor._process_message

    async def _process_message(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        service = typeid.Identifier if typeid.NamespaceIndex == 0 else None
        try:
            if service in _FORBIDDEN:
                raise ServiceError(ua.StatusCodes.BadUserAccessDenied)
            if service not in _SERVED:
                raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
            held = self.session is not None and self.session.state is not SessionState.Closed
            if held and service == _IDS.CreateSessionRequest_Encoding_DefaultBinary:
                raise ServiceError(ua.StatusCodes.BadTooManySessions)
            if service == _IDS.ActivateSessionRequest_Encoding_DefaultBinary:
                return await self._activate(typeid, requesthdr, seqhdr, body)
            return await self._library(typeid, requesthdr, seqhdr, body)
        except ServiceError as error:
            if not isinstance(error, RefusedError) and error.code != ua.StatusCodes.BadNoSubscription:
                self.iserver.refuse("a request", _peer(self.name), ua.StatusCode(ua.UInt32(error.code)).name)
            raise

    async def _activate(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
        """As the library's, with the password checked off the loop."""
        session = self.session or self.iserver.lookup_external_session(requesthdr.AuthenticationToken)
        if isinstance(session, Session):
            CHECKED.set(await self._log_in(session, struct_from_binary(ua.ActivateSessionParameters, body.copy())))
            if not session.is_activated():
                await self.iserver.make_room(session)
        try:
            answered = await self._library(typeid, requesthdr, seqhdr, body)
        finally:
            CHECKED.set(None)
        if isinstance(self.session, Session):
            self.session.connected = True
        return answered

    async def _log_in(self, session: Session, params: ua.ActivateSessionParameters) -> Client | None:
        token, log_ins = params.UserIdentityToken, self.iserver.log_ins
        if log_ins is None or not isinstance(token, ua.UserNameIdentityToken):
            return None
        if len(token.Password or b"") > PASSWORD_MAX_NBYTES:
            raise ServiceError(ua.StatusCodes.BadIdentityTokenInvalid)
        try:
            name, password = self.iserver.decrypt_user_token(session, token)
        except Exception:  # noqa: BLE001 - whatever the library says of what others sent
            raise ServiceError(ua.StatusCodes.BadIdentityTokenInvalid) from None
        peer, shown = _peer(self.name), ascii((name or "")[: users.NAME_MAX])
        self.at_the_door = True
        try:
            user = await log_ins.check(name or "", password or "", session.host)
        except BusyError:
            self.iserver.refuse(f"the log-in {shown}", peer, "too many log-ins of that name and address")
            raise RefusedError(ua.StatusCodes.BadTooManyOperations) from None
        finally:
            self.at_the_door = False
        if user is None:
            self.iserver.refuse(f"the log-in {shown}", peer, "name or password is wrong")
            raise RefusedError(ua.StatusCodes.BadUserAccessDenied)
        return Client(UserRole.User, user.name, may_operate=user.may_operate)

    async def close(self) -> None:
        """As the library's, which keeps a session with subscriptions for a client that comes back."""
        await super().close()  # type: ignore[no-untyped-call]
        if isinstance(self.session, Session):
            self.session.connected = False


class Connection(OPCUAProtocol):
    """One client."""

    iserver: BoundedServer
    processor: Processor | None

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.since_s = self._logged_in_s = time.monotonic()
        self._working = False
        self._budget = Budget(self.iserver.bounds.operations_max)
        self._busy_s = 0.0
        """Time of the loop that it took beyond its share, up to ``_seen_s``."""
        self._seen_s = time.monotonic()

    @property
    def host(self) -> str:
        return str(self.peer_name[0]) if isinstance(self.peer_name, tuple) else ""

    @property
    def logged_in(self) -> bool:
        session = self.processor.session if self.processor is not None else None
        return session is not None and session.is_activated()

    @property
    def asked(self) -> bool:
        """As ``crowd.Guest``: it is logged in, or it is our turn to answer. One that guesses passwords is neither."""
        if self.logged_in or self.processor is None:
            return self.logged_in
        return (self._working or not self.messages.empty()) and not self.processor.at_the_door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Where there are too many, a silent one that is not logged in makes room; else this one is closed."""
        if len(self.clients) >= self.iserver.bounds.connections_max:
            self.peer_name = transport.get_extra_info("peername")
            other = one_to_close(cast("list[Connection]", self.clients))
            if other.asked:
                self.iserver.refuse("a connection", _peer(self.peer_name), "all others are logged in or being answered")
                transport.abort()  # type: ignore[attr-defined]
                return
            other.end("another connection wants its place")
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = Processor(self.iserver, transport, self.limits)
            self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]

    def end(self, why: str) -> None:
        """Close it at once; what was not sent is dropped."""
        if self in self.clients:
            self.clients.remove(self)
            self.iserver.refuse("a connection", _peer(self.peer_name), why)
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """As the library's, which would gather whatever length a message claims."""
        super().data_received(data)
        self.since_s = time.monotonic()
        if self._buffer and not any(kind.startswith(self._buffer[:3]) for kind in KINDS):
            self.end("what it sends is no OPC UA")
        elif len(self._buffer) > CHUNK_MAX_NBYTES:
            self.end(f"a chunk has at most {CHUNK_MAX_NBYTES} bytes")
        elif self.messages.qsize() > PENDING_PAUSE and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    async def _activation_watchdog(self) -> None:
        """Closes the connection once it has not been logged in for ``handshake_ms``, however busy it was."""
        wait_s = self.iserver.bounds.handshake_ms / 1000
        while (left_s := self._logged_in_s + wait_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, wait_s / 4))
            if self.logged_in:
                self._logged_in_s = time.monotonic()
        self.end(f"it did not log in within {self.iserver.bounds.handshake_ms} ms")

    async def _process_received_message_loop(self) -> None:
        DECODING.set(self._budget)
        await super()._process_received_message_loop()

    async def _process_one_msg(self, header: Any, buf: Any) -> bool:
        """As the library's, in its turn; whatever fails here ends the connection."""
        self._working = True
        try:
            await asyncio.sleep(self._wait_s())
            async with self.iserver.turns[self.logged_in]:
                await asyncio.sleep(0)
            return await self._answer(header, buf)
        except Exception as error:  # noqa: BLE001 - the library says in many ways that what came is no OPC UA
            self.end(f"what it sends is no OPC UA ({type(error).__name__})")
            return False
        finally:
            self._working = False

    async def _answer(self, header: Any, buf: Any) -> bool:
        if header.MessageType == ua.MessageType.SecureOpen and header.packet_size > OPEN_MAX_NBYTES:
            self.end(f"a request to open a channel has at most {OPEN_MAX_NBYTES} bytes")
            return False
        self._budget.begin()
        going_on = bool(await metered(super()._process_one_msg(header, buf), self._spend))
        if not going_on and header.MessageType == ua.MessageType.SecureMessage:
            most = self.iserver.bounds.message_max_nbytes
            self.end(f"a request has at most {most} bytes, and the first ones open a session")
        if self.transport is None or self.transport.is_closing():
            return going_on
        if self.transport.get_write_buffer_size() > self.iserver.bounds.unread_max_nbytes:
            self.end("it does not read its answers")
            return False
        if self.messages.qsize() <= PENDING_PAUSE:
            self.transport.resume_reading()
        return going_on

    def _spend(self, took_s: float) -> None:
        self._busy_s += took_s

    def _wait_s(self) -> float:
        """How long its next request must wait, so that all connections together leave the loop its time."""
        now_s, share = time.monotonic(), self.iserver.bounds.busy_share / max(1, len(self.clients))
        self._busy_s = max(0.0, self._busy_s - (now_s - self._seen_s) * share)
        self._seen_s = now_s
        return max(0.0, self._busy_s - BURST_S) / share


class Listener(BinaryServer):
    """Listens for connections of ours."""

    def _make_protocol(self) -> OPCUAProtocol:
        return Connection(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)

    async def start(self) -> None:
        """As the library's, with a bound on what comes in one turn."""
        at_once = max(1, self.iserver.max_connections // ACCEPTED_PART)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._make_protocol, self.hostname, self.port, backlog=at_once)
        hold_more(server)
        self._server = server
        self.port = server.sockets[0].getsockname()[1]
        self.cleanup_task = asyncio.create_task(self._close_task_loop())


class GatewayServer(Server):
    """The library's, with a listener of ours."""

    def __init__(self, config: Opcua) -> None:
        self.iserver: BoundedServer
        super().__init__(iserver=BoundedServer(config))
        most = config.message_max_nbytes
        self.limits = Limits(CHUNK_MAX_NBYTES, CHUNK_MAX_NBYTES, most // CHUNK_MIN_NBYTES + 1, most)

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await self._setup_server_nodes()
        await self.iserver.start()
        host, port = self._get_bind_socket_info()
        self.bserver = Listener(self.iserver, host or "", port or 0, self.limits)
        self.bserver.set_policies(self._policies)
        try:
            await self.bserver.start()
        except OSError:
            await self.iserver.stop()
            raise


def _peer(name: Any) -> str:
    return ":".join(str(part) for part in name[:2]) if isinstance(name, tuple) else ascii(str(name)[:64])
