"""A little station for tests of clients: it publishes what it is told and answers from a journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from asperity.runtime import wire
from asperity.runtime.client.station_client import Gap, StationClient
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason

SESSION = "7d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
OTHER = "8d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
WAIT_S = 20.0


class FakeStation:
    """Publishes what it is told and answers ``get_result`` from its journal, in a thread of its own."""

    def __init__(self, folder: Path, silent: bool = False) -> None:
        self.results, self.control = f"ipc://{folder}/results", f"ipc://{folder}/control"
        self.journal: dict[int, bytes] = {}
        self.session = SESSION
        self.beat = 0
        self.beating = True
        self.answering = True
        self.reading = True
        """False: requests lie on the socket until it is true again."""
        self.silent = silent
        self.deaf_to = 0  # so many requests are lost
        self.in_flight = 0
        self.last_id = 0
        self.oldest_id = 1
        self.ready = True
        self.requests: list[wire.Request] = []
        self.beat_timeout_ms = 10_000
        self.triggers = "free_run"
        self.state_interval_s = 0.01
        self.forge: Callable[[wire.Reply], wire.Reply] = lambda reply: reply
        """What somebody else on the control socket makes of an answer to ``get_result``."""
        self.request_age_max_ms = 3_600_000
        self.done: list[str] = []
        """Operations that were carried out."""
        self.began_s = time.monotonic()
        self.lock = threading.RLock()
        """Held: what is published meanwhile comes before the next state."""
        self._outbox: list[list[bytes]] = []
        self._stop = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._bound.wait(WAIT_S)

    def publish(
        self,
        number: int,
        *,
        lost: bool = False,
        journal: bool = True,
        verdict: Verdict = Verdict.OK,
        trigger_id: int = 0,
    ) -> None:
        result = made(number, self.session, verdict, trigger_id)
        with self.lock:
            if journal:
                self.journal[number] = wire.encode_result_body(result)
            if not lost:
                self._outbox.append(wire.encode_result(result))
            self.last_id = max(self.last_id, number)

    def send(self, parts: list[bytes]) -> None:
        with self.lock:
            self._outbox.append(parts)

    def state(self) -> wire.StationState:
        return wire.StationState(
            station="st1",
            session=self.session,
            beat=self.beat,
            beat_timeout_ms=self.beat_timeout_ms,
            state=8 if self.ready else 3,
            ready=self.ready,
            triggers=self.triggers,
            uptime_ms=self.uptime_ms(),
            last_result_id=self.last_id,
            in_flight=self.in_flight,
        )

    def open_control(self) -> str:
        """The same control socket by TCP, where nothing says whose it is."""
        return f"tcp://127.0.0.1:{self._port}"

    def uptime_ms(self) -> int:
        return int((time.monotonic() - self.began_s) * 1000)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)

    def _run(self) -> None:
        context = zmq.Context()
        pub, router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        pub.bind(self.results)
        router.bind(self.control)
        self._port = router.bind_to_random_port("tcp://127.0.0.1")
        self._bound.set()
        state_due_s = 0.0
        while not self._stop.is_set():
            with self.lock:
                messages, self._outbox = self._outbox, []
                if time.monotonic() >= state_due_s:
                    self.beat += self.beating
                    state_due_s = time.monotonic() + self.state_interval_s
                    if not self.silent:
                        messages.append(wire.encode_state(self.state()))
            for message in messages:
                pub.send_multipart(message)
            waits = router.poll(10)
            with self.lock:  # held by the test: nothing is read meanwhile
                parts = router.recv_multipart() if waits and self.reading else []
            if waits and not self.reading:
                time.sleep(0.01)
            elif parts:
                envelope, body = wire.split_envelope(parts)
                request = wire.decode_request(body)
                self.requests.append(request)
                self.deaf_to -= 1
                if self.answering and self.deaf_to < 0:
                    router.send_multipart([*envelope, wire.encode_reply(self._answer(request))])
        context.destroy(linger=0)

    def _answer(self, request: wire.Request) -> wire.Reply:
        if request.op == "get_state":
            return wire.Reply(id=request.id, ok=True, code="OK", state=self.state())
        if request.op != "get_result" or request.from_ is None:
            return wire.Reply(id=request.id, ok=(code := self._do(request)) == "OK", code=code)
        with self.lock:
            wanted = [key for key in sorted(self.journal) if request.from_ <= key <= (request.to or self.last_id)]
            given = wanted[:3]
            reply = wire.Reply(
                id=request.id,
                ok=True,
                code="OK",
                results=tuple(msgspec.Raw(self.journal[key]) for key in given),
                first_result_id=self.oldest_id,
                last_result_id=self.last_id,
                next_result_id=wanted[3] if len(wanted) > 3 else None,
            )
            return self.forge(reply)

    def _do(self, request: wire.Request) -> str:
        """As docs/wire.md says: done only within ``request_age_max_ms`` of the state that it repeats."""
        told = request.session != "" and request.uptime_ms is not None
        if told and request.session != self.session:
            return "TOO_OLD"
        if told and self.uptime_ms() - (request.uptime_ms or 0) > self.request_age_max_ms:
            return "TOO_OLD"
        self.done.append(request.op)
        return "OK"


def made(
    number: int, session: str = SESSION, verdict: Verdict = Verdict.OK, trigger_id: int = 0, station: str = "st1"
) -> Result:
    """A result: good, or unknown."""
    judged = verdict is Verdict.OK
    return Result(
        station=station,
        session=session,
        result_id=number,
        trigger_id=trigger_id,
        verdict=verdict,
        reason=Reason.GOOD if judged else Reason.DEADLINE,
        score=1.0 if judged else None,
        threshold=2.0 if judged else None,
    )


def until(
    condition: Callable[[], bool], client: StationClient, items: list[int | tuple[int, int]] | None = None
) -> None:
    """Poll the client until ``condition``, collecting ids and gaps."""
    ends_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_s, f"not within {WAIT_S} s; got {items}"
        for item in client.poll(20):
            if items is not None:
                items.append((item.first_id, item.last_id) if isinstance(item, Gap) else item.result_id)


def received(client: StationClient, count: int) -> list[wire.ReceivedResult]:
    """The next ``count`` results, while no gap is expected."""
    items: list[wire.ReceivedResult] = []
    ends_s = time.monotonic() + WAIT_S
    while len(items) < count:
        assert time.monotonic() < ends_s
        for item in client.poll(20):
            assert not isinstance(item, Gap)
            items.append(item)
    return items


def collect(client: StationClient, count: int) -> list[int | tuple[int, int]]:
    """The next ``count`` ids and gaps."""
    items: list[int | tuple[int, int]] = []
    until(lambda: len(items) >= count, client, items)
    return items
