"""What the gateways' tests stand on: a link that says what a test wants, a loop in a thread, a gateway's process."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import StationError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.link import Delivered, Item, View
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import CounterRow, Counters, ReceivedResult, Reply, StationState
from asperity.testing import PATIENCE_MS, PATIENCE_S, STATION, Line

SESSION = "6f6e9f2c-8a51-4d6f-b0f1-3c1d2e9a7b10"
T = TypeVar("T")


def result(result_id: int, verdict: Verdict = Verdict.OK, **fields: Any) -> ReceivedResult:
    """A result as a link hands it on."""
    judged: dict[str, Any] = {
        Verdict.OK: {"reason": Reason.GOOD, "score": 0.25, "threshold": 0.5},
        Verdict.NG: {"reason": Reason.SCORE_ABOVE_THRESHOLD, "score": 0.75, "threshold": 0.5},
        Verdict.UNKNOWN: {"reason": Reason.DEADLINE},
    }[verdict]
    values = {"seq": result_id + 100, "t_done_us": 1_790_000_000_000_000, **judged, **fields}
    return ReceivedResult(station=STATION, session=SESSION, result_id=result_id, verdict=verdict, **values)


COUNTERS = Counters(
    station=STATION, session=SESSION, since_us=1_790_000_000_000_000, resets=3, ok=9, ng=2, unknown=1,
    by_reason={"SHAPE_OUT_OF_RANGE": 2, "LOST": 1},
    rows=(
        CounterRow(recipe="bracket", lot="L-7\u00fc", shift="late", ok=4, ng=1, by_reason={"SHAPE_OUT_OF_RANGE": 1}),
        CounterRow(recipe="lid", ok=5, ng=1, unknown=1, by_reason={"SHAPE_OUT_OF_RANGE": 1, "LOST": 1}),
    ),
)  # fmt: skip
"""As a station whose lot is L-7ü publishes them."""


class FakeLink:
    """Says what the test wants; the surface of ``Link``."""

    def __init__(self) -> None:
        self.state: StationState | None = StationState(
            station=STATION, session=SESSION, beat=7, state=8, ready=True, triggers="free_run", recipe="bracket",
            beat_timeout_ms=PATIENCE_MS,
        )  # fmt: skip
        """Its beat moves only when a test says so, however slow the machine."""
        self.counters: Counters | None = None
        self.good = True
        self.expired: set[int] = set()
        """Ids of results that may pass no more."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.replies: deque[Reply | Exception | None] = deque()
        """What ``ask`` is answered with in turn; None: not yet."""
        self.views = 0
        """How often a view was asked for."""
        self.open_futures: list[Future[Reply]] = []
        self.alive = True
        self._items: deque[Item] = deque()
        self._results = self._gaps = self._missing = 0
        self._last: Item | None = None

    def put(self, *items: ReceivedResult | Gap) -> None:
        for item in items:
            if isinstance(item, Gap):
                self._gaps, self._missing = self._gaps + 1, self._missing + item.last_id - item.first_id + 1
                self._last = item
            else:
                self._results += 1
                self._last = Delivered(item, item.verdict is Verdict.OK, time.monotonic())
            self._items.append(self._last)

    def view(self) -> View:
        self.views += 1
        return View(
            accept=self._last is not None and self.may_pass(self._last),
            good=self.good,
            why="" if self.good else "the station's heartbeat has stopped",
            state=self.state,
            last=self._last,
            results=self._results,
            gaps=self._gaps,
            missing=self._missing,
            counters=self.counters,
        )

    def may_pass(self, item: Item) -> bool:
        return isinstance(item, Delivered) and item.accept and self.good and item.result.result_id not in self.expired

    def take(self, most: int) -> list[Item]:
        return [self._items.popleft() for _ in range(min(most, len(self._items)))]

    def ask(self, op: str, **fields: Any) -> Future[Reply]:
        self.asked.append((op, fields))
        future: Future[Reply] = Future()
        answer = self.replies.popleft() if self.replies else None
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        else:
            self.open_futures.append(future)
        return future


def reply(code: str, recipe_change: int | None = None) -> Reply:
    return Reply(id=str(uuid.uuid4()), ok=code in ("OK", "ACCEPTED"), code=code, recipe_change=recipe_change)


NO_ANSWER = StationError("no answer")


class Loop:
    """An asyncio loop in a thread, so that a blocking client can be tested against what runs in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    def call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return self.run(run())

    @contextmanager
    def standing(self) -> Iterator[None]:
        """It does not turn meanwhile, so that what is done here comes before anything it does."""
        go = threading.Event()
        self._loop.call_soon_threadsafe(go.wait)
        try:
            yield
        finally:
            go.set()

    def close(self) -> None:
        self.call(self._cancel_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}:
            task.cancel()


class GatewayProcess:
    """``asperity gateway PROTOCOL`` on a line, at a port of its own choice."""

    def __init__(self, line: Line, protocol: str, toml: str = "", *flags: str) -> None:
        number = len(list(line.folder.glob("gateway*.toml")))
        config = line.folder / f"gateway{number}.toml"
        config.write_text(toml)
        ends = ("--results", line.ends["results"], "--control", line.ends["control"], "--station", STATION)
        self.process = line.asperity("gateway", protocol, "--config", str(config), *ends, *flags)

    def log(self) -> str:
        return self.process.log()

    def port(self) -> int:
        """Awaits that it serves."""
        found: list[str] = []

        def serves() -> bool:
            assert self.process.poll() is None, self.log()
            found.extend(re.findall(r"is served at .*?(\d+)/?$", self.log(), flags=re.M))
            return bool(found)

        until(serves, "the gateway's port")
        return int(found[-1])


def until(condition: Callable[[], bool], what: str, every_s: float = 0.01) -> None:
    """Waits for a condition; fails when it never holds."""
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s, f"{what} did not come"
        time.sleep(every_s)


@contextmanager
def looping() -> Iterator[Loop]:
    loop = Loop()
    try:
        yield loop
    finally:
        loop.close()


class Closes(Protocol):
    def close(self) -> None: ...


F = TypeVar("F", bound=Closes)


@contextmanager
def floors(kind: Callable[..., F], loop: Loop) -> Iterator[Callable[..., F]]:
    """Makes gateways in the loop, ``kind(loop, **options)``, that end with the test."""
    with ExitStack() as stack:

        def new(**options: Any) -> F:
            floor = kind(loop, **options)
            stack.callback(floor.close)
            return floor

        yield new


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))
