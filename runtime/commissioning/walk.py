"""Walks through the rows: does what each needs, waits for what must be seen, and records what was."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NoReturn

from asperity.runtime.commissioning.line import LineSide, NotChecked, NotNeeded
from asperity.runtime.commissioning.plc import Plc
from asperity.runtime.commissioning.plc_side import TAKEN, NoAnswer, PlcSide, Reading, Shown
from asperity.runtime.commissioning.protocol import FAILED, NOT_CHECKED, NOT_NEEDED, PASSED, RowOutcome
from asperity.runtime.errors import AsperityError
from asperity.runtime.frame import Verdict
from asperity.runtime.wire import ReceivedResult, StationState

TURN_MS = 20
SETTLED = 10
"""Readings after which something that has not changed counts as staying so."""
IDS = 2_000_000_000
GOOD_PARTS = 5
"""Attempts at a simulated line: on a crowded machine the heartbeat may just have come too late for one."""


class RowFailed(Exception):
    """A row failed; ``args[0]`` is what was seen."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the check list: of the program, and of docs/plc.md."""

    key: str
    title: str
    does: str
    """What is done for it; at a real line a person is asked for what the program cannot do."""
    expected: str
    check: Callable[[Walk], str]
    """Returns what was seen. Raises RowFailed, NotChecked, NotNeeded and what the program's parts raise."""
    settings: Mapping[str, Any] | None = field(default_factory=dict)
    """Of ``[gateway]``, where they differ from its usual ones; None: as they are."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Longest waits."""

    patience_s: float = 60.0
    """For what is not measured."""
    fall_s: float | None = None
    """For accept to fall after its cause; None: the station's ``beat_timeout_ms`` and ``FALL_SLACK_S``."""


FALL_SLACK_S = 0.4
"""A cycle of the PLC, one of the gateway, and the network."""


@dataclass
class Walk:
    """One commissioning under way."""

    plc: Plc
    line: LineSide
    limits: Limits = field(default_factory=Limits)
    plc_timeout_s: float = 1.0
    """The PLC's own, after which it rejects. A simulated line waits longer wherever that is not what is checked."""
    good_recipe: str = ""
    failing_recipe: str = ""
    _next_id: int = field(default_factory=lambda: secrets.randbelow(IDS))
    """Of the last trigger. It counts up from a number that another run hardly used."""
    _gateway: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the gateway's usual ones."""

    def do(self, row: Row) -> RowOutcome:
        """One row."""
        began, began_s = datetime.now(timezone.utc), time.monotonic()
        try:
            if row.settings is not None:
                self.gateway(**row.settings)
            status, seen = PASSED, row.check(self)
        except RowFailed as error:
            status, seen = FAILED, str(error)
        except NotChecked as error:
            status, seen = NOT_CHECKED, str(error)
        except NotNeeded as error:
            status, seen = NOT_NEEDED, str(error)
        except AsperityError as error:
            status, seen = FAILED, str(error)
        self.plc.holding = False
        if status in (FAILED, NOT_CHECKED):
            self.line.repair()
            self._gateway = {"unknown": True} if self.line.simulated else {}
        ms = round((time.monotonic() - began_s) * 1000)
        return RowOutcome(row.key, row.title, row.expected, seen, status, began.isoformat(timespec="milliseconds"), ms)

    # ------------------------------------------------------------------ waiting

    @property
    def fall_s(self) -> float:
        """Longest time for accept to fall after the last beat."""
        if self.limits.fall_s is not None:
            return self.limits.fall_s
        return self.state.beat_timeout_ms / 1000 + FALL_SLACK_S

    @property
    def state(self) -> StationState:
        """The station's last."""
        self.until(lambda: self.line.witness.state is not None, "a state of the station")
        assert self.line.witness.state is not None
        return self.line.witness.state

    def until(self, condition: Callable[[], bool], what: str, within_s: float | None = None) -> float:
        """Wait for a condition; returns the seconds it took. Raises RowFailed."""
        began_s = time.monotonic()
        within_s = self.limits.patience_s if within_s is None else within_s
        while not condition():
            if self.plc.failure:
                fail(f"the reading failed: {self.plc.failure}")
            if time.monotonic() - began_s > within_s:
                fail(f"{what}: not within {within_s:.1f} s{f' ({self.plc.silence})' if self.plc.silence else ''}")
            self.line.listen(TURN_MS)
        return time.monotonic() - began_s

    def reads(self, condition: Callable[[Reading], bool], what: str, within_s: float | None = None) -> float:
        """Wait for a reading."""

        def so() -> bool:
            reading = self.plc.reading
            return reading is not None and condition(reading)

        return self.until(so, what, within_s)

    def settle(self) -> None:
        """Until the PLC has read often enough for what has not changed to count as staying."""
        last = self.plc.readings
        self.until(lambda: self.plc.readings >= last + SETTLED, f"{SETTLED} readings")

    # ------------------------------------------------------------------ the gateway

    def gateway(self, **settings: Any) -> None:
        """Have a gateway with these settings, restarted only if it has others."""
        if not self.line.simulated:
            settings.pop("accept_hold_ms", None)  # a real one has its own
        if settings == self._gateway:
            return
        self.line.start_gateway(**settings)
        self._gateway = settings
        self.greet()

    def greet(self) -> None:
        """The gateway was restarted: begin with it as a PLC does."""
        self.plc.again()

        def begun() -> bool:
            try:
                self.plc.ask(lambda side: side.again())
            except NoAnswer:
                return False
            return True

        self.until(begun, "the gateway's first answer")
        self.reads(lambda reading: reading.quality, "quality 1")

    # ------------------------------------------------------------------ parts

    def trigger(self, part_id: str | None = None, timeout_ms: int = 30_000) -> tuple[int, str]:
        """Trigger a part with an id that was not used before; its id and the outcome."""
        self._next_id += 1
        trigger_id = self._next_id
        name = str(trigger_id) if part_id is None else part_id
        code = self.plc.ask(lambda side: side.trigger(trigger_id, name, timeout_ms))
        return self.trigger(part_id, timeout_ms) if code == "TOO_OLD" else (trigger_id, code)

    def command(self, do: Callable[[PlcSide], str]) -> str:
        """Have something done that came too late at the station on a crowded machine, which then did not do it."""
        ends_s = time.monotonic() + self.limits.patience_s
        while (code := self.plc.ask(do)) == "TOO_OLD" and time.monotonic() < ends_s:
            self.line.listen(TURN_MS)
        return code

    def part(self, word: str = "ok", part_id: str | None = None, *, hold: bool = False) -> Shown:
        """A part from trigger to result. ``hold``: it stays shown, not acknowledged."""
        self.line.place(word)
        self.reads(lambda reading: reading.quality, "quality 1")
        self.drained()
        self.plc.holding = hold
        trigger_id, code = self.trigger(part_id)
        if code not in TAKEN:
            fail(f"the trigger was not taken: {code}")
        self.line.expose(trigger_id, word)
        return self.shown(lambda shown: shown.trigger_id == trigger_id, f"the result of trigger {trigger_id}")

    def held(self) -> Shown:
        """A good part that is shown and accepted now, and not acknowledged."""
        for _ in range(GOOD_PARTS if self.line.simulated else 1):
            number = (shown := self.part(hold=True)).number
            if shown.verdict != Verdict.OK:
                fail(f"a good part is needed for this; the result is {shown.reason}")
            self.reads(lambda reading: reading.shown is not None and reading.shown.number == number, "its result")  # noqa: B023
            if number in self.plc.passed:
                return shown
        fail(f"accept was 0 for the good part, result {number}")

    def drained(self) -> None:
        """Every result that the station has published was shown and taken."""
        self.plc.holding = False
        if self.plc.side.handshake:
            self.reads(lambda reading: reading.shown is None, "no result left to acknowledge")

    def shown(self, which: Callable[[Shown], bool], what: str, since: int = 0) -> Shown:
        """The first result that was shown so, from ``since`` on; compared with the station's own."""
        found: list[Shown] = []

        def come() -> bool:
            found.extend(each.shown for each in self.plc.recorded[since:] if which(each.shown))
            return bool(found)

        self.until(come, what)
        self.compare(found[0])
        return found[0]

    def truth(self, shown: Shown) -> ReceivedResult:
        """What the station says of it."""
        published = self.line.witness.published
        self.until(lambda: shown.number in published, f"result {shown.number} from the station itself")
        return published[shown.number]

    def compare(self, shown: Shown) -> None:
        """It is what the station said. Raises RowFailed."""
        wrong = differences(shown, self.truth(shown))
        if wrong:
            fail(f"result {shown.number}: {'; '.join(wrong)}")

    def must_not_have_passed(self, shown: Shown) -> None:
        """Accept was never 1 for it, and is not now."""
        self.settle()
        if shown.number in self.plc.passed:
            fail(f"accept was 1 for result {shown.number}, {shown.reason}")

    def falls(self, shown: Shown, why: str, within_s: float | None = None) -> float:
        """Accept is 0 from some moment on; the seconds that took."""
        number = shown.number

        def accepted(reading: Reading) -> bool:
            return reading.accept and reading.shown is not None and reading.shown.number == number

        limit_s = self.fall_s if within_s is None else within_s
        return self.reads(lambda reading: not accepted(reading), f"accept stayed 1 {why}: accept 0", limit_s)

    def stays_fallen(self, shown: Shown, when: str) -> None:
        """Accept, which has fallen, does not come back for this result."""
        fallen = self.plc.readings
        self.settle()
        if self.plc.accepted_at.get(shown.number, 0) > fallen:
            fail(f"accept became 1 {when}, for result {shown.number}")


def differences(shown: Shown, truth: ReceivedResult) -> list[str]:
    """What a protocol shows of a result against what the station said, in words."""
    pairs = [
        ("verdict", shown.verdict, int(truth.verdict)),
        ("reason", shown.reason, truth.reason.name),
        ("trigger_id", shown.trigger_id, truth.trigger_id),
        ("part_id", shown.part_id, truth.part_id),
        ("lot", shown.lot, truth.lot),
        ("order", shown.order, truth.order),
        ("shift", shown.shift, truth.shift),
        ("simulated", shown.simulated, truth.simulated),
    ]
    if shown.recipe:
        pairs.append(("recipe", shown.recipe, truth.recipe))
    return [f"{name} is {seen!r}, the station says {wanted!r}" for name, seen, wanted in pairs if seen != wanted]


def names(values: Iterable[object]) -> str:
    """A few of them, for a text."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def fail(seen: str) -> NoReturn:
    """The row failed."""
    raise RowFailed(seen)
