"""Requests that arrive over MQTT: validated, carried out once, always answered."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from asperity.runtime.errors import StationError, WireError
from asperity.runtime.gateways.link import Link
from asperity.runtime.gateways.mqtt.messages import Message, Refused, id_of
from asperity.runtime.gateways.parts import Parts
from asperity.runtime.gateways.requests import NOT_FROM_A_GATEWAY, fields_to_ask, request_of
from asperity.runtime.wire import Reply, encode_reply

ID_RULE = "send JSON with each key once and an id of 1 to 64 characters from A-Z a-z 0-9 _ -"
NO_ID = "none"
"""Where a request without an id that can be read is answered."""
REPLIES_KEPT = 256
PARTS_KEPT = 1000
"""Results of which it is known whether they may still pass for what was requested; older ones have expired."""
REPLIES_WAITING_MAX = 64
"""With so many waiting for the broker no further request is looked at."""
THOUGH_FOREIGN = frozenset({"get_state", "get_result", "stop", "halt", "abort"})
"""What is forwarded although another client speaks for the station: it only reads, or stops the line."""
ACTOR_MAX = 64
AUDIT_LINES_MAX = 20
AUDIT_WITHIN_S = 60.0
"""Lines about requests that are not allowed from here; the others are counted."""

log = logging.getLogger("asperity.gateway")

Answered = tuple[str, bytes]
"""Id and JSON of a reply."""


class Commands:
    """All requests of one gateway."""

    def __init__(self, link: Link, station: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._station = station
        self._clock = clock
        self.replies: deque[Answered] = deque()
        """What is to be published, in order."""
        self.parts = Parts(PARTS_KEPT)
        """Which results are not a pass for what was requested here."""
        self._asked: OrderedDict[str, Future[Reply] | bytes] = OrderedDict()
        self._audit_s = 0.0
        self._audited = 0

    def serve(self, requests: deque[Message], refused: deque[Refused], foreign: str) -> None:
        """Take requests while there is room for their replies; each gets one, in ``replies``."""
        while requests and len(self.replies) < REPLIES_WAITING_MAX:
            message = requests.popleft()
            answer = self.take_in(message.topic.rpartition("/")[2], message.body, message.retained, foreign)
            if answer is not None:
                self.replies.append(answer)
        while refused and len(self.replies) < REPLIES_WAITING_MAX:
            self.replies.append(unread(*refused.popleft()))
        self.replies.extend(self.answers())

    def take_in(self, op: str, body: bytes, retained: bool, foreign: str = "") -> Answered | None:
        """One request. The reply if it is known already; else ``answers`` gives it.

        ``foreign``: who else publishes for this station, as text.
        """
        request_id = id_of(body)
        if not request_id:
            return unread("", "BAD_REQUEST", ID_RULE)
        known = self._asked.get(request_id)
        if known is not None:
            # MQTT may deliver a message twice; it is done once.
            return (request_id, known) if isinstance(known, bytes) else None
        refusal = self._may_not_be(op, request_id, retained, foreign)
        if refusal is not None:
            return self._keep(request_id, _refusal(request_id, *refusal))
        try:
            request = request_of(op, body)
        except WireError as error:
            return self._keep(request_id, _refusal(request_id, "BAD_REQUEST", str(error)))
        if request.station not in ("", self._station):
            text = f"the request is for station {request.station}, this gateway's is {self._station}"
            return self._keep(request_id, _refusal(request_id, "WRONG_STATION", text))
        # MQTT does not say who published. The id leads to the broker's own log.
        actor = f"mqtt id={request_id}"[:ACTOR_MAX]
        if op == "prepare_recipe" and request.recipe:
            self.parts.asked_for(request.recipe)
        self._asked[request_id] = future = self._link.ask(op, actor=actor, **fields_to_ask(request))
        if request.trigger_id:
            self.parts.triggered(request.trigger_id, future)
        self._forget()
        return None

    def _may_not_be(self, op: str, request_id: str, retained: bool, foreign: str) -> tuple[str, str] | None:
        """Code and text of what is refused whatever its fields are."""
        if retained:
            return "REFUSED", "a retained message is not accepted as a request"
        if op in NOT_FROM_A_GATEWAY:
            self._audit(op, request_id)
            return "NOT_ALLOWED", (
                f"{op} is not available over MQTT, which does not identify the sender; do it at the station"
            )
        if foreign and op not in THOUGH_FOREIGN:
            return "REFUSED", f"{op} is not forwarded while it is unclear which gateway owns the topics: {foreign}"
        return None

    def _audit(self, op: str, request_id: str) -> None:
        """A line for each, AUDIT_LINES_MAX within AUDIT_WITHIN_S."""
        if self._clock() - self._audit_s >= AUDIT_WITHIN_S:
            if self._audited > AUDIT_LINES_MAX:
                log.warning("MQTT: %d more such requests were refused", self._audited - AUDIT_LINES_MAX)
            self._audit_s, self._audited = self._clock(), 0
        self._audited += 1
        if self._audited <= AUDIT_LINES_MAX:
            log.warning("MQTT: %s was requested (id %s) and refused: not allowed over MQTT", op, request_id)

    def answers(self) -> list[Answered]:
        """Replies that have come since."""
        found = []
        for request_id, future in list(self._asked.items()):
            if isinstance(future, Future) and future.done():
                found.append(self._keep(request_id, _reply(request_id, future)))
        return found

    def _keep(self, request_id: str, body: bytes) -> Answered:
        self._asked[request_id] = body
        self._forget()
        return request_id, body

    def _forget(self) -> None:
        """The oldest answered ones; the link bounds pending ones."""
        for request_id in list(self._asked)[: max(0, len(self._asked) - REPLIES_KEPT)]:
            if isinstance(self._asked[request_id], bytes):
                del self._asked[request_id]


def unread(request_id: str, code: str, text: str) -> Answered:
    """The answer to a request of which nothing but the id was read. It may be asked again with the same id."""
    return request_id or NO_ID, _refusal(request_id, code, text)


def too_long(request_id: str, nbytes: int, limit_nbytes: int) -> bytes:
    """In place of a reply that the broker does not take."""
    text = f"the reply has {nbytes} bytes and the broker takes {limit_nbytes}; ask for less"
    return _refusal("" if request_id == NO_ID else request_id, "FAILED", text)


def _reply(request_id: str, future: Future[Reply]) -> bytes:
    try:
        return encode_reply(msgspec.structs.replace(future.result(), id=request_id))
    except (StationError, WireError) as error:
        return _refusal(request_id, "FAILED", str(error))


def _refusal(request_id: str, code: str, text: str) -> bytes:
    return encode_reply(Reply(id=request_id, ok=False, code=code, text=text[:500]))
