"""asyncua's server with bounds for a shop floor: which services it offers, who may log in, how many sessions."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession, SessionState
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.ua_binary import struct_from_binary

from asperity.runtime.gateways.config import Opcua, Users
from asperity.runtime.gateways.connection_limit import one_to_close
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.gateways.log_ins.checks import BusyError, LogIns
from asperity.runtime.gateways.opcua.access import CHECKED, Accounts
from asperity.runtime.gateways.opcua.session import Calls, Client, Session, Subscriptions, new_session

log = logging.getLogger("asperity.gateway")

PASSWORD_MAX_NBYTES = 1024
PENDING_MAX = 200
"""Requests of a connection that wait; one more closes it."""
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
"""Refused to everyone; not even decoded."""


class RefusedError(ServiceError):
    """Refused, counted and logged already."""


class BoundedServer(InternalServer):
    """The library's server, with bounds and the count of what they refused."""

    def __init__(self, config: Opcua, accounts: Users) -> None:
        manager = Accounts(accounts)
        super().__init__(user_manager=manager)
        self.subscription_service = self.isession.subscription_service = Subscriptions(self.aspace, iserver=self)
        self.bounds = config
        self.log_ins = None if manager.known is None else LogIns(manager.known, accounts)
        self.refused = 0
        """Log-ins, requests and connections."""
        self.on_log_in: Callable[[str, str, str], None] = lambda name, peer, refusal: None
        """Called for each log-in with a user name; ``refusal``: why not, empty: it was admitted."""
        self.others: Calls | None = None
        """Methods of nodes that are not in the address space."""
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
        return new_session(session, self.bounds, self.others)

    def register_external_session(self, session: InternalSession) -> None:
        """As the library's, with a token that cannot be guessed: its holder can take over the session."""
        session.auth_token = ua.NodeId(ua.ByteString(os.urandom(32)), ua.Int16(1), ua.NodeIdType.ByteString)
        super().register_external_session(session)

    async def setup_nodes(self) -> None:
        """As the library's, with the limits that are active."""
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
            log.info("too many OPC UA sessions: closing one from %s to make room for a new one", other.host)
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
                self.iserver.refuse("a request", peer_text(self.name), ua.StatusCode(ua.UInt32(error.code)).name)
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
        peer, shown = peer_text(self.name), ascii((name or "")[: users.NAME_MAX])
        self.at_the_door = True
        try:
            user = await log_ins.check(name or "", password or "", session.host)
        except BusyError:
            self._refuse_log_in(shown, peer, "too many log-ins from that name and address")
            raise RefusedError(ua.StatusCodes.BadTooManyOperations) from None
        finally:
            self.at_the_door = False
        if user is None:
            self._refuse_log_in(shown, peer, "name or password is wrong")
            raise RefusedError(ua.StatusCodes.BadUserAccessDenied)
        self.iserver.on_log_in(user.name, peer, "")
        return Client(UserRole.User, user.name, may_operate=user.may_operate)

    def _refuse_log_in(self, shown: str, peer: str, why: str) -> None:
        self.iserver.refuse(f"the log-in {shown}", peer, why)
        self.iserver.on_log_in(shown, peer, why)

    async def close(self) -> None:
        """As the library's, which keeps a session with subscriptions for a client that comes back."""
        await super().close()  # type: ignore[no-untyped-call]
        if isinstance(self.session, Session):
            self.session.connected = False


def peer_text(name: Any) -> str:
    """The address and port of a client, for people."""
    return ":".join(str(part) for part in name[:2]) if isinstance(name, tuple) else ascii(str(name)[:64])
