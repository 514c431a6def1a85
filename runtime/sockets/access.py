"""Access control: the live list of clients, their roles and limits. Independent of the sockets.

With CURVE every connection is accepted or refused here by its public key and its socket, and every request and frame
is checked again against the current list, so a revoked key stops working at the next check. Open connections outlive
their key; ``Access.changed`` says which sockets must be bound again to close them.

Without CURVE anyone who can reach a socket may use it: the endpoint (loopback, or ipc in a folder of one user) is the
limit.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from asperity.runtime.clock import MS, Now, look
from asperity.runtime.errors import AccessError
from asperity.runtime.records.audit import Actor
from asperity.runtime.security.curve_keys import CLIENTS_MAX, AllowedKey, ClientKeys, Role
from asperity.runtime.settings.station_toml import Security

SECOND_NS = 1000 * MS
NEWS_MAX = 64
"""Refusals waiting to be reported; beyond it they are only counted."""

_READER = frozenset({"results", "bulk", "control"})
SOCKETS_OF: dict[Role, frozenset[str]] = {
    Role.CAMERA: frozenset({"frames"}),
    Role.READ: _READER,
    Role.OPERATE: _READER,
    Role.ADMINISTER: _READER,
}
_READS = frozenset({"get_state", "get_result"})
_OPERATES = _READS | {
    "trigger", "expect", "prepare_recipe", "unprepare_recipe", "start", "stop", "halt", "abort", "reset", "self_test",
    "set_batch", "reset_counters",
}  # fmt: skip
OPERATIONS_OF: dict[Role, frozenset[str]] = {
    Role.CAMERA: frozenset(),
    Role.READ: _READS,
    Role.OPERATE: _OPERATES,
    Role.ADMINISTER: _OPERATES | {"set_threshold", "shutdown"},
}

REFUSALS = {
    "HANDSHAKE": "it did not use CURVE, used another station's key, or sent invalid data",
    "UNKNOWN_KEY": "its key is not in the list",
    "REVOKED_KEY": "its key was revoked",
    "WRONG_SOCKET": "its roles do not permit this socket",
    "BOUNDS": "it exceeded a connection limit or did not speak ZMTP; it was disconnected",
    "CONNECTIONS": "too many connections, or too many connection attempts",
    "ROLE": "its roles do not permit the request",
    "RATE": "it exceeds the permitted request rate",
    "KEYS": "the key folder failed its permission check; all connections are refused",
}
"""Why a client was refused: reason -> text."""


class Decision(NamedTuple):
    """The answer to a connection, as ZAP has it (https://rfc.zeromq.org/spec/27/)."""

    status: str
    """200: admit. 300: not now. Never 400: after it libzmq's client gives up permanently, and a gateway would have to
    be restarted after its key was corrected. After 300 it tries again once ``handshake_ms`` are over."""
    reason: str
    user_id: str = ""
    """The key's id: a name may be given to another key later."""

    @property
    def refused(self) -> bool:
        return self.status != "200"


@dataclass(slots=True)
class _Bucket:
    """What a client may still use: refilled steadily, at most one second's (minute's) worth."""

    left: float
    since_ns: int

    def take(self, amount: float, rate: float, burst: float, now_ns: int) -> bool:
        """True if ``amount`` was there. ``rate`` per second."""
        self.left = min(burst, self.left + rate * (now_ns - self.since_ns) / SECOND_NS)
        self.since_ns = now_ns
        if amount > self.left:
            return False
        self.left -= amount
        return True


class Access:
    """The gate of one station. Raises AccessError at start when the key folder fails its check."""

    def __init__(self, config: Security, clock: Callable[[], Now] = look) -> None:
        self.curve = config.curve
        self.refused: Counter[str] = Counter()
        """Reason -> connections and requests refused for it, since the start."""
        self.logged_in: Callable[[str, Actor, str, str], None] = lambda socket, who, refusal, peer: None
        """Called for each connection that was decided on: socket, who, why not (empty: admitted), and from where."""
        self._config = config
        self._clock = clock
        self._keys = ClientKeys(Path(config.keys) if config.keys else None)
        self._problem = ""
        self._news: deque[tuple[str, str, str]] = deque(maxlen=NEWS_MAX)
        self._stamp: object = None
        self._look_ns = 0
        self._clients: dict[str, AllowedKey] = {}
        self._revoked: dict[str, AllowedKey] = {}
        self._granted: dict[str, set[str]] = {"frames": set(), "results": set(), "bulk": set()}
        self._buckets: OrderedDict[tuple[str, object], _Bucket] = OrderedDict()
        if self.curve:
            self.station_key = self._keys.station()
            self._read()

    # ------------------------------------------------------------------ the list

    def changed(self) -> set[str]:
        """Read the list, at most every ``reload_ms``: sockets with a connection whose key is no longer allowed."""
        now_ns = self._clock().ns
        if not self.curve or now_ns < self._look_ns:
            return set()
        self._look_ns = now_ns + self._config.reload_ms * MS
        try:
            self._read()
            self._problem = ""
        except AccessError as error:
            self._problem, self._stamp = str(error), None
            self._clients = {}
        stale = {
            socket
            for socket, key_ids in self._granted.items()
            if not all(self._opens(key_id, socket) for key_id in key_ids)
        }
        for socket in stale:
            self._granted[socket].clear()
        return stale

    def _read(self) -> None:
        try:
            stamp = self._keys.stamp()  # before the list, so that a change meanwhile shows at the next look
        except OSError as error:
            raise AccessError(f"key folder {self._keys.folder} cannot be read ({error.strerror})") from None
        if stamp != self._stamp:
            clients, revoked = self._keys.allowed(), self._keys.revoked()
            self._clients = {key.key_id: key for key in clients.values()}
            self._revoked = revoked
            self._stamp = stamp

    def _opens(self, key_id: str, socket: str) -> bool:
        key = self._clients.get(key_id)
        return key is not None and any(socket in SOCKETS_OF[role] for role in key.roles)

    # ------------------------------------------------------------------ decisions

    def connects(self, socket: str, public_key: bytes, address: str, connections: int) -> Decision:
        """May this key connect to ``socket`` (frames, results, bulk, control), which has so many connections?"""
        key_id = _key_id(public_key)
        decision = self._connects(socket, key_id, address, connections)
        self.logged_in(socket, self.actor(key_id), decision.reason if decision.refused else "", address[:64])
        return decision

    def _connects(self, socket: str, key_id: str, address: str, connections: int) -> Decision:
        who = f"{self._name(key_id)} from {address[:64]}"
        if self._problem:
            return self._refuse("KEYS", socket, who)
        if key_id in self._revoked:
            return self._refuse("REVOKED_KEY", socket, who)
        if key_id not in self._clients:
            return self._refuse("UNKNOWN_KEY", socket, who)
        if not self._opens(key_id, socket):
            return self._refuse("WRONG_SOCKET", socket, who)
        a_minute = self._config.connects_per_min
        if connections >= self._config.connections or not self._take("connects", key_id, 1, a_minute / 60, a_minute):
            return self._refuse("CONNECTIONS", socket, who)
        if socket in self._granted:
            self._granted[socket].add(key_id)
        return Decision("200", "OK", key_id)

    def sends_frames(self, client: str) -> bool:
        """May a message on the frames socket be looked at at all?"""
        if not self.curve or self._opens(client, "frames"):
            return True
        self._count("REVOKED_KEY", "frames", self._name(client))  # it was let in, so its key was good then
        return False

    def asks(self, client: str, op: str) -> str:
        """Why ``client`` may not ask ``op``; empty: it may."""
        if not self.curve:
            return ""
        key = self._clients.get(client)
        if key is None:
            reason = "KEYS" if self._problem else "REVOKED_KEY" if client in self._revoked else "UNKNOWN_KEY"
        elif not any(op in OPERATIONS_OF[role] for role in key.roles):
            reason = "ROLE"
        else:
            return ""
        self._count(reason, f"control ({op})", self._name(client))
        return REFUSALS[reason]

    def overasks(self, client: str, sender: bytes, nbytes: int) -> str:
        """Why a request of this size is too much for now; empty: it is not. ``sender``: who it is without CURVE."""
        config, who = self._config, client or sender
        often, much = config.requests_per_s, config.request_nbytes_per_s
        if self._take("requests", who, 1, often, often) and self._take("nbytes", who, nbytes, much, much):
            return ""
        self._count("RATE", "control", self._name(client))
        return f"more than {often} requests or {much} bytes per second; send requests less often"

    def actor(self, client: str, says: str = "") -> Actor:
        """The sender: ``client`` is the key's id as CURVE proved it, ``says`` what the request claims."""
        key = self._clients.get(client) or self._revoked.get(client)
        return Actor(name=key.name if key else "", key=client, says=says)

    def failed_handshake(self, socket: str) -> None:
        """A connection ended before it was one."""
        self._count("HANDSHAKE", socket, "somebody")

    def cut(self, reason: str, socket: str, address: str, why: str) -> None:
        """A connection was refused or cut; ``why`` as text, if there is more to report."""
        who = f"a client from {address[:64]}" if address else "somebody"
        self._count(reason, socket, f"{who} ({why[:128]})" if why else who)

    def news(self) -> Iterator[tuple[str, str, str]]:
        """Refusals since the last call: kind, text and client."""
        while self._news:
            yield self._news.popleft()

    @property
    def problem(self) -> str:
        """Why no client is admitted; empty: the key folder passed its check."""
        return f"all connections are refused: {self._problem}" if self._problem else ""

    # ------------------------------------------------------------------

    def _take(self, what: str, who: object, amount: float, rate: float, burst: float) -> bool:
        now_ns = self._clock().ns
        bucket = self._buckets.setdefault((what, who), _Bucket(burst, now_ns))
        self._buckets.move_to_end((what, who))
        while len(self._buckets) > 3 * CLIENTS_MAX:
            self._buckets.popitem(last=False)
        return bucket.take(amount, rate, burst, now_ns)

    def _refuse(self, reason: str, socket: str, who: str) -> Decision:
        self._count(reason, socket, who)
        return Decision("300", reason)

    def _count(self, reason: str, where: str, who: str) -> None:
        self.refused[reason] += 1
        name = who.split(" ", 1)[0]
        text = f"{who} was refused at {where}: {REFUSALS[reason]}"
        self._news.append((f"REFUSED {reason} {name}"[:64], text, who.split(" from ", 1)[0][:64]))

    def _name(self, key_id: str) -> str:
        key = self._clients.get(key_id) or self._revoked.get(key_id)
        if key is not None:
            return f"{key.name} (key {key_id})"
        return f"key {key_id}" if key_id else "somebody"


def _key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]
