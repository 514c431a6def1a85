"""Requests on the control socket: permissions, repeats and age limits. A repeated id is answered again, not carried
out again.

A request that changes something is done only while recent (``_too_old``) and audited with its sender.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.errors import StateError, WireError
from asperity.runtime.inspector import combined_operations
from asperity.runtime.inspector.combined_station import CombinedStation
from asperity.runtime.inspector.operations import OPERATIONS, reply
from asperity.runtime.inspector.station import Station
from asperity.runtime.records.audit import Actor, Audit
from asperity.runtime.settings.station_toml import Control
from asperity.runtime.sockets.access import Access

READ_ONLY = frozenset({"get_state", "get_result"})
"""Operations that change nothing: answered afresh each time, and not kept."""
AUDITED = ("trigger_id", "part_id", "recipe", "threshold", "mode", "lot", "order", "shift", "position", "view")
"""Fields of a request that the audit file keeps."""
OF_PARTS = frozenset({"trigger", "expect"})
"""Operations that come with every part: in the audit file only where a role forbids them. Results are the journal's."""


class ReplyCache:
    """The last replies by request id: at most ``size``."""

    def __init__(self, size: int) -> None:
        self.forgotten_ns: int | None = None
        """When the youngest reply was given that is kept no more: a request made before may be one that was done."""
        self._size = size
        self._kept: OrderedDict[str, tuple[bytes, bytes, int]] = OrderedDict()

    def get(self, request_id: str) -> tuple[bytes, bytes] | None:
        """(request, reply) of an id that was answered before."""
        kept = self._kept.get(request_id)
        return None if kept is None else kept[:2]

    def keep(self, request_id: str, request: bytes, reply: bytes, now_ns: int) -> None:
        """Remember a reply."""
        self._kept[request_id] = request, reply, now_ns
        while len(self._kept) > self._size:
            _, (_, _, self.forgotten_ns) = self._kept.popitem(last=False)


class Requests:
    """Answers what comes in on the control socket, for all stations of a process."""

    def __init__(
        self,
        stations: Sequence[Station],
        access: Access,
        audit: Audit,
        config: Control,
        on_shutdown: Callable[[], None],
        clock: Callable[[], Now],
        combined: Sequence[CombinedStation] = (),
    ) -> None:
        """``on_shutdown``: ends the process. ``combined``: stations that stand above others."""
        self._stations: list[Station | CombinedStation] = [*stations, *combined]
        self._by_name = {station.name: station for station in self._stations}
        self._access = access
        self._audit_file = audit
        self._config = config
        self._on_shutdown = on_shutdown
        self._clock = clock
        self._session, self._started_ns = stations[0].session, stations[0].started_ns
        self.replies = ReplyCache(config.reply_cache)

    def answer(self, sender: list[bytes], parts: Sequence[bytes], client: str = "") -> tuple[list[bytes], bytes]:
        """The reply to a message on the control socket: (envelope, body). Never raises for what a client sent.

        ``client``: the key id of the sender; with CURVE nothing is allowed without one.
        """
        access = self._access
        try:
            envelope, body = wire.split_envelope(parts)
        except WireError as error:
            return sender, wire.encode_reply(reply("", "BAD_REQUEST", str(error)))
        back = [*sender, *envelope]
        too_much = access.overasks(client, sender[0], len(body))
        if too_much:
            return back, wire.encode_reply(reply(wire.peek_request_id(body), "BUSY", too_much))
        try:
            request = wire.decode_request(body)
        except WireError as error:
            return back, wire.encode_reply(reply(wire.peek_request_id(body), "BAD_REQUEST", str(error)))
        actor = access.actor(client, request.actor)
        forbidden = access.asks(client, request.op)
        if forbidden:
            refusal = reply(request.id, "NOT_ALLOWED", f"{request.op}: {forbidden}")
            self._audit(request, refusal, actor)
            return back, wire.encode_reply(refusal)
        return back, self._answer_once(request, bytes(body), actor)

    def _answer_once(self, request: wire.Request, body: bytes, actor: Actor) -> bytes:
        if request.op in READ_ONLY:
            return wire.encode_reply(self._do(request, actor))
        kept = self.replies.get(request.id)
        if kept is not None:
            if kept[0] == body:
                return kept[1]
            refusal = "this id was used for another request; use a new id for each request"
            return wire.encode_reply(reply(request.id, "BAD_REQUEST", refusal))
        answer = self._too_old(request) or self._do(request, actor)
        encoded = wire.encode_reply(answer)
        self.replies.keep(request.id, body, encoded, self._clock().ns)
        if request.op not in OF_PARTS:
            self._audit(request, answer, actor)
        return encoded

    def _too_old(self, request: wire.Request) -> wire.Reply | None:
        """The refusal of a request whose sender may have given it up; None: it is of now, or does not say of when.

        ``session`` and ``uptime_ms`` are those of the last state that the sender received when it asked.
        """
        if not request.session and request.uptime_ms is None:
            return None
        if not request.session or request.uptime_ms is None:
            text = "session and uptime_ms belong together: repeat both from the last state message"
            return reply(request.id, "BAD_REQUEST", text)
        if request.session != self._session:
            text = f"it is from session {request.session}; the current one is {self._session}"
            return reply(request.id, "TOO_OLD", text)
        limit_ms = self._config.request_age_max_ms
        age_ms = (self._clock().ns - self._started_ns) // MS - request.uptime_ms
        if not 0 <= age_ms <= limit_ms:
            when = f"{age_ms} ms ago" if age_ms > 0 else f"{-age_ms} ms from now"
            limit = f"[control] request_age_max_ms is {limit_ms}"
            text = f"it was sent {when}; {limit}: check the station's state and send it again"
            return reply(request.id, "TOO_OLD", text)
        forgotten_ns = self.replies.forgotten_ns
        if forgotten_ns is not None and self._started_ns + request.uptime_ms * MS <= forgotten_ns:
            text = (
                f"it may already have been answered: more than {self._config.reply_cache} requests have arrived since"
            )
            return reply(request.id, "TOO_OLD", f"{text} ([control] reply_cache)")
        return None

    def _audit(self, request: wire.Request, answer: wire.Reply, actor: Actor) -> None:
        """Into the audit file, and an event: who asked what, and what was answered."""
        given = {name: getattr(request, name) for name in AUDITED}
        fields = {name: value for name, value in given.items() if value not in (None, wire.UNSET)}
        self._audit_file.record(
            request.station or (self._stations[0].name if len(self._stations) == 1 else ""),
            request.op, actor, answer.code, answer.text, refused=not answer.ok, id=request.id, **fields,
        )  # fmt: skip
        if answer.code == "NOT_ALLOWED":
            return  # ``Access.news`` says so
        said = ", ".join(f"{name} {value}" for name, value in fields.items())
        why = f": {answer.text}" if answer.text else ""
        station = self._by_name.get(request.station, self._stations[0])
        kind = f"COMMAND {request.op} OK" if answer.ok else f"COMMAND {answer.code}"
        text = f"{request.op}{f' ({said})' if said else ''}: {answer.code}{why}"
        station.notice("info" if answer.ok else "warning", kind, text, actor=actor.text, of=actor.key)

    def _do(self, request: wire.Request, actor: Actor) -> wire.Reply:
        if request.op == "shutdown":
            return self._shutdown(request)
        station = self._station_of(request.station)
        if isinstance(station, str):
            return reply(request.id, "WRONG_STATION", station)
        if request.op not in OPERATIONS:
            return reply(request.id, "UNKNOWN_OP", f"there are: {', '.join((*OPERATIONS, 'shutdown'))}")
        try:
            if isinstance(station, CombinedStation):
                return combined_operations.OPERATIONS[request.op](station, request, actor)
            return OPERATIONS[request.op](station, request, actor)
        except StateError as error:
            return reply(request.id, "WRONG_STATE", str(error))

    def _station_of(self, name: str) -> Station | CombinedStation | str:
        """The station that a request means, or why there is none. With one station the name may be left out."""
        if name in self._by_name:
            return self._by_name[name]
        if len(self._stations) == 1:
            return self._stations[0] if name == "" else f"this is station {self._stations[0].name}"
        here = ", ".join(self._by_name)
        return f"the stations of this process are {here}" + ("" if name else "; name the station in the field station")

    def _shutdown(self, request: wire.Request) -> wire.Reply:
        """Of the process, so of all its stations: a client must not end others by naming its own."""
        if request.station and request.station not in self._by_name:
            return reply(request.id, "WRONG_STATION", str(self._station_of(request.station)))
        if request.station and len(self._stations) > 1:
            here = ", ".join(self._by_name)
            text = f"shutdown ends the whole process with the stations {here}"
            text += f": leave station out, or halt {request.station}"
            return reply(request.id, "REFUSED", text)
        self._on_shutdown()
        return reply(request.id, "ACCEPTED")
