"""The results of a station, in order, none twice, every loss reported. An example: ``asperity.client``.

A subscriber joins by subscribing, waiting for a state, and asking the journal for what PUB lost. It rejects while the
heartbeat does not advance, while the station is not ready, and until a new session has shown an advancing heartbeat.

A request that changes something repeats ``session`` and ``uptime_ms`` of the last state, and the station does it
only within ``[control] request_age_max_ms`` (1000) of that state. The client gives up after ``request_tries`` times
``request_timeout_ms`` (1500), which is longer: what it has given up is not done after that.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq
from msgspec import structs

from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.ordering import Gap, Ordering
from asperity.runtime.client.presence import nobody_at
from asperity.runtime.client.requests import Asking, Pending
from asperity.runtime.errors import StationError, WireError
from asperity.runtime.security.curve_keys import ClientKey, read_client_key, receive, secure
from asperity.runtime.security.socket_files import check_ipc
from asperity.runtime.wire import (
    MAX_COUNTERS_BYTES,
    Counters,
    ReceivedResult,
    Reply,
    Request,
    StationState,
    decode_counters,
    decode_result,
    decode_result_body,
    decode_state,
    split_topic,
    topic,
)

log = logging.getLogger("asperity.client")

READ_ONLY = frozenset({"get_state", "get_result"})
"""Operations that change nothing, so that it does not matter when they are done."""


class StationClient:
    """One station as a subscriber sees it. Not for several threads; call ``poll`` or ``results`` often."""

    def __init__(
        self,
        results_endpoint: str,
        control_endpoint: str = "",
        *,
        station: str,
        since: int | None = None,
        limits: ClientLimits | None = None,
        key: ClientKey | Path | None = None,
    ) -> None:
        """Connect. Without ``control_endpoint`` lost results are named but not recovered.

        ``since``: first ``result_id`` wanted (one more than the last one that was dealt with before a restart).
        ``key``: this client's key or its file, for a station with CURVE (role read or more).
        Raises StationError on an endpoint that cannot be or that another user could hold, WireError on a bad station's
        name, AccessError on the key.
        """
        for endpoint in (results_endpoint, control_endpoint):
            check_ipc(endpoint)
        key = read_client_key(key) if key else None
        self.station = station
        self.state: StationState | None = None
        self.counters: Counters | None = None
        self.session_changes = 0
        self.malformed = 0
        self.contradictions = 0
        """Answers of the control socket that cannot be true: after one the station is not trusted in this session."""
        self._contradicted_session = ""
        self._recovered_may_pass = key is not None or control_endpoint.startswith("ipc://")
        self._limits = limits or ClientLimits()
        self._order = Ordering(since, self._limits.held_results)
        self._beat_s: float | None = None  # earliest moment at which the last beat can have moved
        self._empty_s = time.monotonic()  # last moment at which no message was waiting
        self._recovery: Pending | None = None
        self._missing_id = 0
        self._missing_s = 0.0  # since when _missing_id has been the oldest missing one of a station that speaks
        self._heard_s = 0.0  # last state
        self._ask_s = 0.0  # not before this is the journal asked again
        self._begun: dict[str, Pending] = {}
        self._has_control = control_endpoint != ""
        self._asking = Asking(self._limits.request_timeout_ms)
        self._key = key
        self._ends = results_endpoint, control_endpoint
        self._context = zmq.Context()
        try:
            self._connect_all()
        except BaseException:
            self.close()
            raise

    @property
    def trusted(self) -> bool:
        """True only while the station is ready and its heartbeat advances; a new session starts untrusted."""
        if self.state is None or self._beat_s is None or not self.state.can_judge:
            return False
        if self.state.session == self._contradicted_session:
            return False
        return (time.monotonic() - self._beat_s) * 1000 <= self.state.beat_timeout_ms

    @property
    def trusted_until_s(self) -> float:
        """``time.monotonic()`` up to which ``trusted`` holds if nothing more is received; 0 while it does not hold."""
        if self.state is None or self._beat_s is None or not self.trusted:
            return 0.0
        return self._beat_s + self.state.beat_timeout_ms / 1000

    @property
    def missing(self) -> tuple[int, int] | None:
        """First and last id of the results that are being waited for, oldest run."""
        return self._order.missing()

    def accepts(self, result: ReceivedResult, *, simulated: bool = False) -> bool:
        """May the part pass? Only a good result of the trusted, present session; of a simulation only if told so.

        Where frames need triggers, only the answer to a trigger. What came from the journal, only over a control socket
        whose owner is proven: by CURVE, or by an ``ipc://`` path that nobody else can change.
        """
        state = self.state
        if state is None or (result.station, result.session) != (self.station, state.session) or not self.trusted:
            return False
        answers_trigger = result.trigger_id != 0 or state.triggers == "free_run"
        proven = (self._recovered_may_pass or not result.recovered) and not state.view_of
        return result.accept and answers_trigger and proven and (simulated or not result.simulated)

    def results(self, idle_timeout_s: float | None = None) -> Iterator[ReceivedResult | Gap]:
        """Results and gaps in order, as they come. Ends when none came for ``idle_timeout_s`` (None: never)."""
        heard_s = time.monotonic()
        while idle_timeout_s is None or time.monotonic() - heard_s < idle_timeout_s:
            for item in self.poll(timeout_ms=100):
                yield item
                heard_s = time.monotonic()

    def poll(self, timeout_ms: int) -> list[ReceivedResult | Gap]:
        """Return the items that are ready, waiting at most ``timeout_ms`` for a message to arrive."""
        self._pump(timeout_ms)
        items: list[ReceivedResult | Gap] = []
        while (item := self._order.take()) is not None:
            items.append(item)
        return items

    def await_state(self, timeout_ms: int) -> StationState:
        """The first state. Raises StationError when none comes."""
        ends_s = time.monotonic() + timeout_ms / 1000
        while self.state is None:
            left_ms = round((ends_s - time.monotonic()) * 1000)
            if left_ms <= 0:
                why = nobody_at(self._ends[0], "the results endpoint") or "is the inspector running?"
                raise StationError(f"station {self.station} did not send anything within {timeout_ms} ms; {why}")
            self._pump(left_ms)
        return self.state

    def request(self, op: str, **fields: Any) -> Reply:
        """Ask and wait for the answer, as often as the limits say, always with the same bytes, so it is done once.

        ``fields``: as the operation needs (``from_`` for ``from``); ``station=""`` for ``shutdown``, which is for the
        whole process. What changes something is sent once a state was received, awaited as long as an answer. One with
        ``ok`` false is returned, not raised: TOO_OLD where the last state received was old, as after a pause of the
        caller; it was not done, and may be asked again. Raises StationError where no state was received (nothing was
        asked) or no answer came (it was done in time or never will be), WireError on a request that breaks the
        contract.
        """
        request_id = self.begin(op, **fields)
        while True:
            self._pump(max(0, round((self._begun[request_id].again_s - time.monotonic()) * 1000)))
            reply = self.answer(request_id)
            if reply is not None:
                return reply

    def begin(self, op: str, **fields: Any) -> str:
        """Like ``request``, without waiting: returns the request's id, for ``answer`` between calls of ``poll``.

        Raises StationError when ``requests_at_once`` are pending, WireError on a request that breaks the contract.
        """
        self._pump(0)  # the state to repeat is the last that has come, not the last that was looked at
        if len(self._begun) >= self._limits.requests_at_once:
            raise StationError(f"{op}: {len(self._begun)} requests are pending; wait for an answer first")
        request = Request(**{"id": str(uuid.uuid4()), "op": op, "station": self.station, **fields})
        if op in READ_ONLY or self.state is not None:
            pending = self._asking.ask(self._dated(request))
        else:
            pending = self._asking.hold(request, self._limits.request_timeout_ms * self._limits.request_tries)
        self._begun[request.id] = pending
        return request.id

    def answer(self, request_id: str) -> Reply | None:
        """The answer to what ``begin`` began, once; None while it may still come.

        Asks again as the limits say. Raises StationError when no answer came at all.
        """
        pending = self._begun[request_id]
        reply = self._asking.answer(pending)
        if reply is not None:
            del self._begun[request_id]
        elif not pending.body and self.state is not None and time.monotonic() < pending.again_s:
            self._begun[request_id] = self._asking.ask(self._dated(pending.request))
        elif time.monotonic() >= pending.again_s:
            if not pending.body or pending.tries >= self._limits.request_tries:
                del self._begun[request_id]
                self._asking.forget(pending)
                waited_ms = self._limits.request_timeout_ms * self._limits.request_tries
                lacks = f"no answer to {pending.request.op}" if pending.body else f"{pending.request.op}: no state"
                why = nobody_at(self._ends[1], "the control endpoint")
                why = why or f"is the inspector of {self.station} running?"
                raise StationError(f"{lacks} in {waited_ms} ms; {why}")
            self._renew_control()
            self._begun[request_id] = self._asking.send(pending)
        return reply

    def _pump(self, timeout_ms: int) -> None:
        """Take in what waits, or the first that comes within ``timeout_ms``; then request what is missing."""
        if self._order.missing() is not None:
            timeout_ms = min(timeout_ms, self._limits.ask_again_ms)
        self._poller.poll(timeout_ms)
        for _ in range(self._limits.results_queue_messages):
            if len(self._order) >= self._limits.ready_results:
                break
            try:
                self._take_in(receive(self._sub))
            except zmq.Again:
                self._empty_s = time.monotonic()
                self._renew()
                break
            except WireError:
                # A lost result shows as a gap and is asked for; a lost state lets the beat grow old.
                self.malformed += 1
        self.malformed += self._asking.take_in()
        self._recover()

    def _take_in(self, parts: list[bytes]) -> None:
        kind = split_topic(parts[0])[0]
        if kind == "counters":
            self.counters = decode_counters(parts)
        elif kind == "result":
            result = decode_result(parts)
            if not self._order.add(result, time.monotonic()):
                self._contradict(f"result {result.result_id} differs from what the journal's reply said it was")
        else:
            self._observe(decode_state(parts))

    def _observe(self, state: StationState) -> None:
        """A message may have waited since the queue was last seen empty: its heartbeat counts from then, not now."""
        last, now_s = self.state, time.monotonic()
        if self._silent(now_s) or (last is not None and last.session != state.session):
            self._missing_s = now_s
        self._heard_s = now_s
        if last is None or last.session != state.session:
            self.session_changes += last is not None
            self._beat_s = None
        elif state.beat > last.beat:
            self._beat_s = self._empty_s
        self.state = state
        self._order.observe(state)

    def _recover(self) -> None:
        """Ask the journal for the oldest missing run: one question at a time, until it is there, gone or given up.

        Only for what is settled: what may still be published is never taken from the control socket.
        """
        now_s = time.monotonic()
        pending = self._recovery
        if pending is not None:
            reply = self._asking.answer(pending)
            if reply is not None:
                self._recovery = None
                self._ask_s = now_s + self._limits.ask_again_ms / 1000
                if reply.ok:
                    self._take_answer(reply, pending.asked, now_s)
            elif now_s >= pending.again_s:
                self._renew_control()
                self._recovery = self._asking.send(pending)
        while (missing := self._order.missing()) is not None:
            if missing[0] != self._missing_id:
                self._missing_id, self._missing_s, self._ask_s = missing[0], self._order.missed_s(now_s), now_s
            patience_ms = self._limits.restart_ms if self._silent(now_s) else self._limits.patience_ms
            if (now_s - self._missing_s) * 1000 < patience_ms:
                break
            self._order.give_up(f"neither published nor in the journal for {patience_ms} ms")
        if missing is None and self._recovery is not None:
            self._asking.forget(self._recovery)
            self._recovery = None
        asked = self._order.to_ask()
        if asked is not None and self._has_control and self._recovery is None and now_s >= self._ask_s:
            request = Request(id=str(uuid.uuid4()), op="get_result", station=self.station, from_=asked[0], to=asked[1])
            pending = self._asking.ask(request)
            self._recovery = pending._replace(asked=asked)

    def _silent(self, now_s: float) -> bool:
        return (now_s - self._heard_s) * 1000 > self._limits.silent_ms

    def _take_answer(self, reply: Reply, asked: tuple[int, int], now_s: float) -> None:
        """What the journal reports for the ids from ``asked[0]`` to ``asked[1]``, which are settled."""
        results = []
        for raw in reply.results or ():
            try:
                results.append(replace(decode_result_body(bytes(raw)), recovered=True))
            except WireError:
                self.malformed += 1
        for result in results:
            of_this_session = self.state is not None and result.session == self.state.session
            why = ""
            if not asked[0] <= result.result_id <= asked[1]:
                why = f"results {asked[0]} to {asked[1]} were requested, but the reply has {result.result_id}"
            elif result.station != self.station:
                why = f"result {result.result_id} is from station {result.station}"
            elif result.accept and of_this_session and result.result_id <= self._order.earlier_id:
                why = f"result {result.result_id} is said to be from this session, but was issued in an earlier one"
            if why:
                self._contradict(why)
                return
        looked_to = min(asked[1], reply.next_result_id - 1 if reply.next_result_id else asked[1])
        self._order.answer(results, reply.first_result_id, looked_to, now_s)

    def _contradict(self, why: str) -> None:
        """The control socket is not the station's, or is not to be relied on. One line per session."""
        self.contradictions += 1
        session = self.state.session if self.state else ""
        if session != self._contradicted_session:
            log.error(
                "station %s: %s; no part is accepted until the station is restarted: find out which process answers "
                "on the control socket", self.station, why,
            )  # fmt: skip
        self._contradicted_session = session

    def _dated(self, request: Request) -> Request:
        """With the last state received, if it changes something: by it the station knows how old the request is.

        One that says so itself, for a client that asked through a gateway, keeps what it says.
        """
        if request.op in READ_ONLY or self.state is None or request.session or request.uptime_ms is not None:
            return request
        return structs.replace(request, session=self.state.session, uptime_ms=self.state.uptime_ms)

    def _renew(self) -> None:
        """Make the sockets again where nothing waits and nothing was received for too long; requests are repeated."""
        if (time.monotonic() - max(self._heard_s, self._connected_s)) * 1000 > self._limits.renew_ms:
            self._sub.close(0)
            self._asking.use(None)
            self._connect_all()

    def _connect_all(self) -> None:
        results_endpoint, control_endpoint = self._ends
        self._connected_s = self._control_s = time.monotonic()
        self._poller = zmq.Poller()
        self._sub = self._connect(zmq.SUB, results_endpoint)
        for kind in ("result", "state", "counters"):
            self._sub.setsockopt(zmq.SUBSCRIBE, topic(kind, self.station))
        if control_endpoint:
            self._control = self._connect(zmq.DEALER, control_endpoint)
            self._asking.use(self._control)

    def _renew_control(self) -> None:
        """Make the control socket again where a request went unanswered: libzmq gives a connection up permanently where
        something else listened at the endpoint, also while results arrive. Pending requests are repeated."""
        if (time.monotonic() - self._control_s) * 1000 > self._limits.renew_ms:
            self._control_s = time.monotonic()
            self._poller.unregister(self._control)
            self._asking.use(None)
            self._control = self._connect(zmq.DEALER, self._ends[1])
            self._asking.use(self._control)

    def _connect(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_COUNTERS_BYTES)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.RCVHWM, self._limits.results_queue_messages)
        secure(socket, self._key)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise StationError(f"cannot connect to {endpoint}: {error}; give tcp://HOST:PORT or ipc://PATH") from error
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def close(self) -> None:
        """Close the sockets; nothing waits."""
        self._context.destroy(linger=0)

    def __enter__(self) -> StationClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
