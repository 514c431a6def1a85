"""A station without sockets, threads or real time: the test hands in messages, lets the bench work, moves the clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from runtime import wire
from runtime.access import Access
from runtime.clock import MS, Now
from runtime.config import Security, StationConfig
from runtime.frame import Frame, Result
from runtime.inspector import Inspector
from runtime.journal import Journal
from runtime.recipes import Opened, open_recipe
from runtime.states import State

CAMERA = "cam1"
SESSION = "6f1c3b0e-0f5a-4c57-9a53-111111111111"


class FakeSockets:
    """What the desk would publish, in lists."""

    def __init__(self, security: Security) -> None:
        self.access = Access(security)
        self.published: list[list[bytes]] = []
        self.bulk: list[Any] = []
        self.connected = True
        self.closed = False

    def make_bell(self) -> Callable[[], None]:
        return lambda: None

    def wait(self, timeout_ms: float) -> None:
        pass

    def frames(self) -> Iterator[list[memoryview]]:
        return iter(())

    def requests(self) -> Iterator[tuple[list[bytes], list[bytes], str]]:
        return iter(())

    def reply(self, envelope: list[bytes], body: bytes) -> None:
        pass

    def publish(self, parts: list[bytes]) -> None:
        self.published.append(parts)

    def publish_bulk(self, parts: Any) -> None:
        self.bulk.append(parts)

    def camera_connected(self) -> bool:
        return self.connected

    def close(self, linger_ms: int) -> None:
        self.closed = True


class Floor:
    """One station and everything around it."""

    def __init__(self, journal: Path, script: str = "ok", ready: bool = True, **sections: dict[str, Any]) -> None:
        values: dict[str, Any] = {
            "engine": {"name": "simulated"},
            "recipes": {"a": f"script:{script}", "b": "script:ng"},
            "journal": {"slots": 512},
            **sections,
        }
        self.config = msgspec.convert(values, StationConfig)
        self.now = Now(1_000_000 * MS, 1_700_000_000_000_000)
        self.sockets = FakeSockets(self.config.security)
        self.journal = Journal.open(journal, self.config.station.name, slots=self.config.journal.slots)
        self.desk = Inspector(self.config, self.journal, self.sockets, lambda: self.now)  # type: ignore[arg-type]
        self.desk.bench.start = lambda: None  # type: ignore[method-assign]
        self.opening: list[str] = []
        loader = self.desk.operation._loader
        loader.start = lambda name, in_child_first: self.opening.append(name)  # type: ignore[method-assign]
        loader.opened = self._opened  # type: ignore[method-assign]
        self.numbers = itertools.count(1)
        self.ids = itertools.count(1)
        self.rng = np.random.default_rng(0)
        self.desk.begin("a")
        if ready:
            self.settle()
            assert self.desk.operation.state is State.CONTINUOUS_EXECUTION

    def _opened(self) -> Opened | None:
        if not self.opening:
            return None
        name = self.opening.pop(0)
        return Opened(name, recipe=open_recipe(name, self.config, lambda stage: None))

    # ------------------------------------------------------------------ what a test does

    def serve(self, count: int = 1) -> None:
        """Let the bench see to ``count`` frames or errands, and the desk to what came of it."""
        for _ in range(count):
            self.desk.bench.serve(0.0)
            self.desk.turn()

    def settle(self) -> None:
        """Until nothing waits any more."""
        self.desk.turn()
        while self.desk.bench.serve(0.0):
            self.desk.turn()
        self.desk.turn()

    def pass_ms(self, ms: float) -> None:
        """Let time go by while an idle bench ticks."""
        self.now = Now(self.now.ns + round(ms * MS), self.now.wall_us + round(ms * 1000))
        self.desk.turn()

    def frame(self, seq: int | None = None, **fields: Any) -> Frame:
        """The camera's next frame, or one of a given ``seq``."""
        return Frame(
            **{
                "camera": CAMERA,
                "camera_session": SESSION,
                "seq": next(self.numbers) if seq is None else seq,
                "rgb": self.rng.integers(0, 256, (8, 9, 3), dtype=np.uint8),
                "xyz": self.rng.normal(size=(8, 9, 3)).astype(np.float32),
                "t_exposure_us": self.now.wall_us,
                "clock": "realtime",
                **fields,
            }
        )

    def send(self, seq: int | None = None, **fields: Any) -> Frame:
        """The frame arrives."""
        frame = self.frame(seq, **fields)
        self.desk.on_frame(wire.encode_frame(frame))
        return frame

    def ask(self, op: str, **fields: Any) -> wire.Reply:
        """A request and its reply."""
        from runtime import control

        request = wire.Request(op=op, **{"id": f"r{next(self.ids)}", **fields})
        envelope, body = control.answer(self.desk, [b"client"], [wire.encode_request(request)])
        assert envelope == [b"client"]
        return wire.decode_reply(body)

    # ------------------------------------------------------------------ what a test sees

    def of_kind(self, kind: str) -> list[list[bytes]]:
        return [parts for parts in self.sockets.published if parts[0].startswith(kind.encode() + b"/")]

    @property
    def results(self) -> list[Result]:
        return [wire.decode_result(parts) for parts in self.of_kind("result")]

    @property
    def reasons(self) -> list[str]:
        return [result.reason.name for result in self.results]

    @property
    def state(self) -> wire.StationState:
        """As a receiver sees it now."""
        self.desk.turn()
        state = self.ask("get_state").state
        assert state is not None
        return state

    @property
    def events(self) -> list[wire.Event]:
        return [wire.decode_event(parts) for parts in self.of_kind("event")]

    def close(self) -> None:
        self.journal.close()
