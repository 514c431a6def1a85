"""Mutated messages over the real sockets of a live inspector: do the counters add up, is every request answered?

Half are frames on the frames socket, half requests on the control socket. Every message starts as a valid one and gets
one to three mutations. Everything follows from the seed, except how the two sockets' messages interleave.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from asperity.benchmarks.line.rig import CAMERA, STATION, Line
from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.runtime import wire
from asperity.runtime.errors import StationError
from asperity.runtime.frame import Frame
from asperity.runtime.states import JUDGING, State

SCRIPT = "ok ok ng"
REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("get_state", {}),
    ("get_result", {"from_": 1, "to": 3}),
    ("trigger", {"trigger_id": 7, "timeout_ms": 50, "part_id": "P7"}),
    ("expect", {"trigger_id": 8, "timeout_ms": 50}),
    ("prepare_recipe", {"recipe": "simulated"}),
    ("set_threshold", {"threshold": 1.0}),
    ("start", {"mode": "continuous"}),
    ("reset", {}),
)
"""Requests that mutation starts from. None ends the process or leaves it halted permanently."""
WINDOW = 64
"""Requests in flight at once, and frames sent between two reads of the results."""
SETTLE_S = 120.0
WARM_UP_SHARE = 0.2
"""Share of the messages sent before memory and handles are first measured."""
MUTATIONS = (b'":9', b"null", b"-1", b"1e999", b'""', b"[[[", b"\xff\xfe")
Step = Callable[[int, int], None]


@dataclass(slots=True)
class Counts:
    """What was sent and what was received."""

    frames: int = 0
    requests: int = 0
    replies: int = 0
    refused: int = 0
    """Replies with ``ok`` false."""


def mutated(parts: list[bytes], rng: random.Random) -> list[bytes]:
    """The message with one to three things wrong with it: bits, lengths, parts, values."""
    changed = [bytearray(part) for part in parts]
    for _ in range(rng.randrange(1, 4)):
        if not changed:
            break
        at = rng.randrange(len(changed))
        part = changed[at]
        kind = rng.randrange(6)
        where = rng.randrange(len(part)) if part else 0
        if kind == 0 and part:
            part[where] ^= rng.randrange(1, 256)
        elif kind == 1:
            del part[where:]
        elif kind == 2:
            del changed[at]
        elif kind == 3:
            changed.insert(at, bytearray(rng.randbytes(rng.randrange(40))))
        elif kind == 4 and part:
            value = rng.choice(MUTATIONS)
            part[where : where + len(value)] = value
        elif at == 1:
            changed[1] = bytearray(part.replace(b'"seq":', b'"seq":' + str(rng.randrange(10**17)).encode()))
    return [bytes(part) for part in changed]


def run_rubbish(messages: int, seed: int, log: Path, step: Step = lambda done, total: None) -> dict[str, Any]:
    """Send ``messages`` and report the outcome.

    Raises StationError when the inspector dies, its counters do not add up, a message is not accounted for, a request
    has no answer, or a valid frame is no longer judged.
    """
    rng = random.Random(seed)
    began_s = time.monotonic()
    sections: dict[str, Any] = {
        "engine": {"script": SCRIPT},
        "limits": {"deadline_ms": 60_000, "max_age_ms": 60_000},
        "security": {"requests_per_s": 1_000_000, "request_nbytes_per_s": 2**30},
    }
    with ExitStack() as stack:
        line = stack.enter_context(Line(None, log, **sections))
        context = zmq.Context()
        stack.callback(context.destroy, linger=0)
        frames, control = _Frames(context, line, rng), _Requests(context, line, rng)
        memory_kb: list[int] = []
        handles: list[int] = []
        for number in range(messages):
            (frames if number % 2 else control).send()
            if number % 1000 == 0:
                if not line.alive:
                    raise StationError(f"the inspector died after {number} messages of seed {seed}; its log is {log}")
                if number >= WARM_UP_SHARE * messages:
                    memory_kb.append(_memory_kb(line.pid))
                    handles.append(len(list(Path(f"/proc/{line.pid}/fd").iterdir())))
                step(number, messages)
        control.settle()
        state = frames.settle()
        if not state.balanced or "LAW" in state.alarms:
            raise StationError(f"accounting error after {messages} messages of seed {seed}: {state}")
        frames.prove_alive(control)
        log_lines = log.read_text(errors="replace").count("\n")
    counts = Counts(frames.sent, control.sent, control.answered, control.refused)
    return {
        "messages": messages,
        "seed": seed,
        "seconds": round(time.monotonic() - began_s, 1),
        "frames": counts.frames,
        "requests": counts.requests,
        "replies": counts.replies,
        "requests_refused": counts.refused,
        "received": state.received,
        "lost": state.lost,
        "ok": state.ok,
        "ng": state.ng,
        "unknown": state.unknown,
        "unknown_by_reason": dict(sorted(state.unknown_by_reason.items())),
        "memory_kb": {"first": memory_kb[0], "last": memory_kb[-1], "most": max(memory_kb)} if memory_kb else {},
        "handles": {"first": handles[0], "last": handles[-1], "most": max(handles)} if handles else {},
        "log_lines": log_lines,
        "machine": machine(),
        "commit": commit(),
    }


class _Frames:
    """Sends mutated frames and looks at the station's states."""

    def __init__(self, context: zmq.Context[Any], line: Line, rng: random.Random) -> None:
        self.sent = 0
        self._line, self._rng = line, rng
        self._noise = np.random.default_rng(rng.randrange(2**32))
        self._session = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self._push = context.socket(zmq.PUSH)
        self._push.setsockopt(zmq.SNDHWM, WINDOW)
        self._push.setsockopt(zmq.SNDTIMEO, round(1000 * SETTLE_S))
        self._push.connect(line.ends["frames"])
        self._sub = context.socket(zmq.SUB)
        self._sub.setsockopt(zmq.SUBSCRIBE, wire.topic("state", STATION))
        self._sub.connect(line.ends["results"])
        self._state: wire.StationState | None = None
        self._seq = 0

    def send(self) -> None:
        """One frame, mutated; a message of no parts cannot be sent and is not counted."""
        parts = mutated([bytes(part) for part in wire.encode_frame(self._frame())], self._rng)
        if parts:
            self._push.send_multipart(parts)
            self.sent += 1
        if self.sent % WINDOW == 0:
            self._listen(0)

    def settle(self) -> wire.StationState:
        """The first state that has counted and answered every message."""
        ends_s = time.monotonic() + SETTLE_S
        while time.monotonic() < ends_s:
            self._listen(100)
            state = self._state
            if state is not None and state.received == self.sent and state.in_flight == 0:
                return state
        raise StationError(f"{self.sent} frame messages were sent; after {SETTLE_S:.0f} s the state says {self._state}")

    def prove_alive(self, control: _Requests) -> None:
        """A valid frame must still be judged."""
        judged = None
        ends_s = time.monotonic() + SETTLE_S
        self._session, self._seq = str(uuid.uuid4()), 0
        while time.monotonic() < ends_s:
            state = self.settle()
            judged = state.ok + state.ng if judged is None else judged
            if state.ok + state.ng > judged:
                return
            if state.state in (State.ERROR, State.HALTED):
                control.plain("reset")
            elif state.state not in JUDGING:
                control.plain("start", mode="continuous")
            self._push.send_multipart(wire.encode_frame(self._frame()))
            self.sent += 1
            self._listen(100)
        raise StationError(f"after the mutated messages valid frames are no longer judged: {self._state}")

    def _frame(self) -> Frame:
        self._seq += 1
        return Frame(
            camera=CAMERA, camera_session=self._session, seq=self._seq, unit="mm",
            rgb=self._noise.integers(0, 256, (8, 10, 3), dtype=np.uint8),
            xyz=self._noise.normal(size=(8, 10, 3)).astype(np.float32),
            t_exposure_us=time.time_ns() // 1000, clock="realtime",
        )  # fmt: skip

    def _listen(self, timeout_ms: int) -> None:
        self._sub.poll(timeout_ms)
        while self._sub.poll(0):
            self._state = wire.decode_state(self._sub.recv_multipart())


class _Requests:
    """Sends mutated requests and counts the answers: one for each message."""

    def __init__(self, context: zmq.Context[Any], line: Line, rng: random.Random) -> None:
        self.sent = self.answered = self.refused = 0
        self._rng = rng
        self._dealer = context.socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.SNDTIMEO, round(1000 * SETTLE_S))
        self._dealer.connect(line.ends["control"])

    def send(self) -> None:
        """One request, mutated; never more than WINDOW in flight."""
        op, fields = self._rng.choice(REQUESTS)
        body = wire.encode_request(wire.Request(id=f"r{self.sent}", op=op, **fields))
        envelope = [b""] if self._rng.random() < 0.5 else []
        parts = mutated([*envelope, body], self._rng) or [b""]
        self._dealer.send_multipart(parts)
        self.sent += 1
        while self.sent - self.answered >= WINDOW:
            self._take()

    def settle(self) -> None:
        """Wait until every request is answered. Raises StationError."""
        while self.answered < self.sent:
            self._take()

    def plain(self, op: str, **fields: Any) -> None:
        """A valid request is answered."""
        self._dealer.send(wire.encode_request(wire.Request(id=str(uuid.uuid4()), op=op, **fields)))
        self.sent += 1
        self.settle()

    def _take(self) -> None:
        if not self._dealer.poll(round(1000 * SETTLE_S)):
            raise StationError(f"{self.sent - self.answered} of {self.sent} requests have no answer")
        reply = wire.decode_reply(wire.split_envelope(self._dealer.recv_multipart())[1])
        self.answered += 1
        self.refused += not reply.ok


def _memory_kb(pid: int) -> int:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("Pss:")).split()[1])
