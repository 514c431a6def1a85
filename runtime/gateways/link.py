"""A station as every gateway sees it: results in order, the station's own heartbeat, and an ``accept`` that expires.

    link = Link(config, on_news=wake)      # a separate thread talks to the station
    link.start()
    for item in link.take(100):            # Delivered or Gap, in order, none twice
        ...
    link.view().accept                     # computed when asked, so a stuck link thread cannot keep it true
    future = link.ask("trigger", trigger_id=7, timeout_ms=500)

``view`` and ``take`` may be called from any thread. The link thread owns the sockets; a gateway's own thread or event
loop owns its protocol. No heartbeat is made here: a gateway shows the inspector's, or an old one with bad
quality.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.presence import nobody_at
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import StationError, WireError
from asperity.runtime.gateways.config import GatewayConfig, client_key, control_of
from asperity.runtime.wire import Counters, ReceivedResult, Reply, StationState

log = logging.getLogger("asperity.gateway")

QUIET_S = 5.0
"""How often it is looked whether anyone listens at the station's endpoints."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A result as it is handed on."""

    result: ReceivedResult
    accept: bool
    """Might the part pass when it was delivered: a good result of the trusted, present session. ``Link.may_pass`` says
    whether it still may."""
    at_s: float
    """``time.monotonic()`` of delivery."""


Item = Delivered | Gap


@dataclass(frozen=True, slots=True)
class View:
    """What a gateway may show at one moment. Reading only ``accept`` is safe."""

    accept: bool
    """``may_pass`` of the last item."""
    good: bool
    """Quality: the station is ready and its heartbeat advances."""
    why: str
    """Why not good, as text; empty when good."""
    state: StationState | None
    """The last state heard, however old; None: never heard."""
    last: Item | None
    """The last item handed on."""
    results: int
    """Results handed on since the gateway started."""
    gaps: int
    """Gaps named since then."""
    missing: int
    """Results in those gaps."""
    counters: Counters | None = None
    """The last counters heard, however old; None: never heard. For people and statistics."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Written whole by the link thread, read whole by any other."""

    state: StationState | None = None
    trusted_since_s: float = 0.0
    trusted_until_s: float = 0.0
    why: str = "nothing has been received from the station yet"
    last: Item | None = None
    results: int = 0
    gaps: int = 0
    missing: int = 0
    counters: Counters | None = None


class Link:
    """One station, for one gateway."""

    def __init__(
        self, config: GatewayConfig, on_news: Callable[[], None] = lambda: None, since: int | None = None
    ) -> None:
        """``on_news`` is called by the link thread after each turn that brought a state or an item; it must not block.

        ``since``: first ``result_id`` wanted; None: whatever comes from now on. Raises StationError on an endpoint
        that cannot be.
        """
        bounds = config.gateway
        self._bounds = bounds
        self._on_news = on_news
        self._station = StationClient(
            config.station.results,
            control_of(config),
            station=config.station.name,
            since=since,
            limits=ClientLimits(patience_ms=bounds.patience_ms, requests_at_once=bounds.requests_max),
            key=client_key(config),
        )
        self._ends = {"[station] results": config.station.results, "[station] control": control_of(config)}
        self._absent: dict[str, str] = {}  # setting -> why nobody answers there
        self._look_s = time.monotonic() + QUIET_S
        self._seen = _Seen()
        self._items: deque[Item] = deque()
        self._lock = threading.Lock()  # over the three below, and the end
        self._asked: deque[tuple[str, dict[str, Any], Future[Reply]]] = deque()
        self._begun: dict[str, Future[Reply]] = {}
        self._ended = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, which closes its sockets; pending requests fail with StationError."""
        self._ending.set()
        if self._thread.ident is None:
            self._station.close()  # never started: nobody else closes them
        if self._thread.is_alive():
            self._thread.join(timeout=1 + self._bounds.poll_ms / 1000)

    @property
    def alive(self) -> bool:
        """False when the link thread has ended: the process should end too, and be restarted."""
        return self._thread.is_alive()

    def view(self) -> View:
        """The station at this moment."""
        seen = self._seen
        good = _trusted(seen)
        return View(
            accept=seen.last is not None and self._may_pass(seen, seen.last),
            good=good,
            why="" if good else seen.why or "the station's heartbeat has stopped",
            state=seen.state,
            last=seen.last,
            results=seen.results,
            gaps=seen.gaps,
            missing=seen.missing,
            counters=seen.counters,
        )

    def may_pass(self, item: Item) -> bool:
        """May the part still pass: accepted, delivered less than ``accept_hold_ms`` ago, station trusted ever since.

        Once false for an item it stays false.
        """
        return self._may_pass(self._seen, item)

    def _may_pass(self, seen: _Seen, item: Item) -> bool:
        if isinstance(item, Gap) or not item.accept:
            return False
        fresh = (time.monotonic() - item.at_s) * 1000 <= self._bounds.accept_hold_ms
        return fresh and _trusted(seen) and item.at_s >= seen.trusted_since_s

    def take(self, most: int) -> list[Item]:
        """At most ``most`` items in order, each once.

        What is not taken waits, ``queue_results`` at most; then the link stops listening, and the view turns bad.
        """
        taken: list[Item] = []
        while self._items and len(taken) < most:
            taken.append(self._items.popleft())
        return taken

    def ask(self, op: str, **fields: Any) -> Future[Reply]:
        """Pass a request on. ``fields``: as ``StationClient.request``; ``actor``: for whom, at most 64 characters.

        The future ends in a Reply (look at ``ok``), in StationError (no answer, too many pending, requests not
        allowed by the config) or in WireError (a field that breaks the contract).
        """
        future: Future[Reply] = Future()
        future.set_running_or_notify_cancel()  # what was asked cannot be taken back
        refusal = ""
        with self._lock:
            if not self._bounds.commands:
                refusal = "[gateway] commands is false, so requests are not forwarded"
            elif self._ended or not self.alive:
                refusal = "the gateway is not connected to the station"
            elif len(self._asked) + len(self._begun) >= self._bounds.requests_max:
                refusal = f"{self._bounds.requests_max} requests are pending; try again later"
            else:
                self._asked.append((op, fields, future))
        if refusal:
            future.set_exception(StationError(f"{op}: {refusal}"))
        return future

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                if len(self._items) < self._bounds.queue_results:
                    if self._observe(self._station.poll(self._bounds.poll_ms)):
                        self._on_news()
                else:
                    self._ending.wait(self._bounds.poll_ms / 1000)
                self._pass_on_requests()
        finally:
            # Whatever ended the thread, nothing stays accepted.
            self._seen = _Seen(why="the gateway's connection to the station has ended")
            with self._lock:
                self._ended = True
                futures = [future for _, _, future in self._asked] + list(self._begun.values())
                self._asked.clear()
                self._begun.clear()
            for future in futures:
                future.set_exception(StationError("the gateway's connection to the station has ended"))
            self._station.close()
            self._on_news()

    def _observe(self, items: list[ReceivedResult | Gap]) -> bool:
        """Take over what a poll brought; True when there is something to show."""
        seen, station, now_s = self._seen, self._station, time.monotonic()
        last, results, gaps, missing = seen.last, seen.results, seen.gaps, seen.missing
        for item in items:
            if isinstance(item, Gap):
                gaps, missing = gaps + 1, missing + item.last_id - item.first_id + 1
                last = item
                log.warning("results %d to %d are missing: %s", item.first_id, item.last_id, item.why)
            else:
                results += 1
                accept = station.accepts(item, simulated=self._bounds.accept_simulated)
                last = Delivered(item, accept and _is_of_a_part(item, station.state), now_s)
            self._items.append(last)
        state, until_s = station.state, station.trusted_until_s
        why = "" if until_s else self._distrust()
        # A poll may bring so much that a new session is trusted at its end, and no distrust was seen in between.
        same = state is None or seen.state is None or state.session == seen.state.session
        since_s = seen.trusted_since_s if same and now_s <= seen.trusted_until_s else now_s
        if now_s >= self._look_s:
            self._look_s = now_s + QUIET_S
            self._look_for_nobody(trusted=bool(until_s))
        self._seen = _Seen(state, since_s, until_s, why, last, results, gaps, missing, station.counters)
        if bool(until_s) != bool(seen.trusted_until_s):
            log.info("station %s is %s", station.station, "trusted" if until_s else f"not trusted: {why}")
        return bool(items) or state is not seen.state or station.counters is not seen.counters

    def _look_for_nobody(self, *, trusted: bool) -> None:
        """Say where nobody listens: by another XDG_RUNTIME_DIR a gateway would wait there forever."""
        for setting, endpoint in self._ends.items():
            if trusted and self._absent.get(setting) == "":
                continue
            why = nobody_at(endpoint, setting)
            if why and why != self._absent.get(setting):
                log.warning("station %s: %s", self._station.station, why)
            self._absent[setting] = why

    def _distrust(self) -> str:
        state = self._station.state
        if state is None:
            nobody = self._absent.get("[station] results")
            return "nothing has been received from the station yet" + (f": {nobody}" if nobody else "")
        if not state.can_judge:
            return "; ".join([f"the station is not ready (state {state.state})", *state.alarms])
        return "the station's heartbeat has stopped"

    def _pass_on_requests(self) -> None:
        while self._asked:
            with self._lock:
                op, fields, future = self._asked.popleft()
                try:
                    self._begun[self._station.begin(op, **fields)] = future
                    continue
                except (StationError, WireError) as error:
                    refusal = error
            future.set_exception(refusal)
        for request_id, future in list(self._begun.items()):
            try:
                reply = self._station.answer(request_id)
            except StationError as error:
                del self._begun[request_id]
                future.set_exception(error)
                continue
            if reply is not None:
                del self._begun[request_id]
                future.set_result(reply)


def synced(state: StationState) -> bool:
    """Announcements and exposures are matched, or need not be; false also where that is not known."""
    return state.triggers in ("free_run", "software") or (state.triggers == "hard_wired" and state.synced is True)


def _trusted(seen: _Seen) -> bool:
    return time.monotonic() <= seen.trusted_until_s


def _is_of_a_part(result: ReceivedResult, state: StationState | None) -> bool:
    """A result without a trigger is a part's only at a station that says it runs free: else nobody announced it."""
    return result.trigger_id != 0 or (state is not None and state.triggers == "free_run")
