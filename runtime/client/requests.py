"""The client's control socket: sends requests, repeats each with the same bytes, and receives the answers."""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

import zmq

from asperity.runtime.errors import StationError, WireError
from asperity.runtime.security.curve_keys import receive
from asperity.runtime.wire import Reply, Request, decode_reply, encode_request, split_envelope


class Pending(NamedTuple):
    """A pending request."""

    request: Request
    body: bytes
    """Empty: it was not sent yet, since no state was received that it could repeat."""
    tries: int
    again_s: float
    """``time.monotonic()`` at which it is sent again; of what was not sent yet, at which it is given up."""
    asked: tuple[int, int] = (0, 0)
    """First and last id, of ``get_result``."""


class Asking:
    """Requests and answers by id. A thin layer; the caller decides how often to ask."""

    def __init__(self, timeout_ms: int) -> None:
        """``timeout_ms``: then it is asked again."""
        self._socket: zmq.Socket[bytes] | None = None
        self._timeout_ms = timeout_ms
        self._awaited: set[str] = set()
        self._replies: dict[str, Reply] = {}

    def use(self, socket: zmq.Socket[bytes] | None) -> None:
        """Continue with this DEALER; the previous one is closed. None: there is no control endpoint."""
        if self._socket is not None:
            self._socket.close(0)
        self._socket = socket

    def ask(self, request: Request) -> Pending:
        """Send a request. Raises StationError without an endpoint, WireError on one that breaks the contract."""
        body = self._check(request)
        self._awaited.add(request.id)
        return self.send(Pending(request, body, 0, 0.0))

    def hold(self, request: Request, patience_ms: int) -> Pending:
        """A request that is not sent yet. Raises as ``ask`` does."""
        self._check(request)
        return Pending(request, b"", 0, time.monotonic() + patience_ms / 1000)

    def send(self, pending: Pending) -> Pending:
        """Send once more, the same bytes; what a full socket refuses is sent at the next try."""
        assert self._socket is not None
        with contextlib.suppress(zmq.Again):
            self._socket.send(pending.body, zmq.NOBLOCK)
        again_s = time.monotonic() + self._timeout_ms / 1000
        return pending._replace(tries=pending.tries + 1, again_s=again_s)

    def answer(self, pending: Pending) -> Reply | None:
        """The answer, once."""
        return self._replies.pop(pending.request.id, None)

    def forget(self, pending: Pending) -> None:
        """Stop waiting for its answer."""
        self._awaited.discard(pending.request.id)

    def take_in(self) -> int:
        """Keep the answers that are waited for, at most one for each id. Returns how many messages were malformed."""
        malformed = 0
        while self._socket is not None:
            try:
                reply = decode_reply(split_envelope(receive(self._socket))[1])
            except zmq.Again:
                break
            except WireError:
                malformed += 1
                continue
            if reply.id in self._awaited:
                self._awaited.discard(reply.id)
                self._replies[reply.id] = reply
        return malformed

    def _check(self, request: Request) -> bytes:
        if self._socket is None:
            raise StationError(f"{request.op} needs a control endpoint; pass one to StationClient")
        return encode_request(request)
