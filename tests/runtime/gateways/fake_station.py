"""A station's results and control sockets without an inspector: it says and answers what a test wants, when it does."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import zmq

from asperity.runtime import wire
from asperity.runtime.frame import Result
from asperity.testing import PATIENCE_MS, STATION

STATE_MS = 20


class FakeStation:
    """Publishes its state all the time, with a beat that moves; each request waits in ``asked`` for ``answer``."""

    def __init__(self, ends: Mapping[str, str] | None = None) -> None:
        """``ends``: where it listens; None: in a folder of its own."""
        self._folder = tempfile.TemporaryDirectory(prefix="asp-")
        own = {name: f"ipc://{Path(self._folder.name)}/{name}" for name in ("results", "control")}
        self.ends = {name: (ends or own)[name] for name in own}
        self.beats = self.speaks = True
        """False: its heartbeat counter stands still; it publishes no state at all."""
        self.state = wire.StationState(
            station=STATION,
            session=str(uuid.uuid4()),
            beat_timeout_ms=PATIENCE_MS,
            state=8,
            ready=True,
            triggers="software",
            recipe="bracket",
        )
        self.asked: list[wire.Request] = []
        """Every request once, however often it was asked."""
        self._envelopes: dict[str, list[bytes]] = {}
        self._out: deque[tuple[str, Any]] = deque()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._context = zmq.Context()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, **changes: Any) -> None:
        """From the next state on."""
        with self._lock:
            self.state = msgspec.structs.replace(self.state, **changes)

    def restart(self) -> None:
        """A new session."""
        self.say(session=str(uuid.uuid4()), beat=0, recipe_change=None)

    def answer(self, request: wire.Request, code: str, recipe_change: int | None = None) -> None:
        ok = code in ("OK", "ACCEPTED")
        self._out.append((request.id, wire.Reply(id=request.id, ok=ok, code=code, recipe_change=recipe_change)))

    def publish(self, result: Result) -> None:
        self._out.append(("", replace(result, session=self.state.session)))

    def _run(self) -> None:
        results, control = self._context.socket(zmq.PUB), self._context.socket(zmq.ROUTER)
        for name, socket in (("results", results), ("control", control)):
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(self.ends[name])
        while not self._ended.is_set():
            if control.poll(STATE_MS):
                self._take_in(control.recv_multipart())
            while self._out:
                request_id, message = self._out.popleft()
                if request_id:
                    control.send_multipart([*self._envelopes[request_id], wire.encode_reply(message)])
                else:
                    results.send_multipart(wire.encode_result(message))
                    last_id = max(self.state.last_result_id, message.result_id)
                    self.say(last_result_id=last_id)
            if self.beats:
                self.say(beat=self.state.beat + 1)
            if self.speaks:
                results.send_multipart(wire.encode_state(self.state))
        results.close()
        control.close()

    def _take_in(self, parts: list[bytes]) -> None:
        request = wire.decode_request(parts[-1])
        if request.id not in self._envelopes:
            self.asked.append(request)
        self._envelopes[request.id] = parts[:-1]

    def close(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        self._context.term()
        self._folder.cleanup()
