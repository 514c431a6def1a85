"""Passwords are checked off the loop, few at once, and nobody waits for another's wrong ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asperity.runtime.gateways.config import Users
from asperity.runtime.gateways.log_ins import checks as log_ins
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.gateways.log_ins.checks import BusyError, LogIns
from asperity.testing import PATIENCE_S

HOST = "192.0.2.7"


class Checks:
    """In place of ``users.check_password``: right is right, and it lasts as long as the test wants."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.begun: list[str] = []
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, known: dict[str, users.User], name: str, password: str) -> users.User | None:
        with self._lock:
            self.begun.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go.wait(PATIENCE_S)
        with self._lock:
            self.running -= 1
        return known.get(name) if password == "right" else None


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checks]:
    checks = Checks()
    monkeypatch.setattr(users, "check_password", checks)
    yield checks
    checks.go.set()


@pytest.fixture(scope="module")
def known() -> dict[str, users.User]:
    return {name: users.User(name, "read", (2, 8, 1), b"s", b"d") for name in ("plc", "hmi", *"abcdefgh")}


async def soon(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), PATIENCE_S)


def config(**own: Any) -> Users:
    return Users(**{"wait_ms": 600_000, "delay_ms": 10, "delay_max_ms": 10, **own})


def test_the_loop_turns_while_passwords_are_checked_and_few_are_at_once(
    checks: Checks, known: dict[str, users.User]
) -> None:
    async def play() -> None:
        log_ins, loop = LogIns(known, config(checks=2)), asyncio.get_running_loop()
        checks.go.clear()
        tries = [asyncio.create_task(log_ins.check(name, "right", HOST)) for name in "abcdefgh"]
        await soon(lambda: checks.running == 2)
        loop.call_soon(checks.go.set)  # only a loop that turns lets them go on
        found = await asyncio.gather(*tries)
        assert [user.name for user in found if user] == list("abcdefgh")
        assert checks.most == 2
        log_ins.close()

    asyncio.run(play())


def test_after_a_wrong_password_that_name_and_address_waits_and_nobody_else(
    checks: Checks, known: dict[str, users.User]
) -> None:
    async def play() -> None:
        log_ins = LogIns(known, config(delay_ms=60_000, delay_max_ms=600_000, wait_ms=2000))
        assert await log_ins.check("plc", "wrong", HOST) is None
        more = (log_ins.check("plc", password, HOST) for password in ("wrong", "right"))
        assert [type(each) for each in await asyncio.gather(*more, return_exceptions=True)] == [BusyError] * 2
        assert checks.begun == ["plc"], "what was refused busy was never checked"
        assert await log_ins.check("hmi", "right", HOST) is not None
        assert await log_ins.check("plc", "right", "192.0.2.8") is not None
        log_ins.close()

    asyncio.run(play())


def test_the_pause_doubles_up_to_its_bound_and_a_right_password_ends_it(
    checks: Checks, known: dict[str, users.User], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, waited_s, sleep = 1000.0, [], asyncio.sleep

    async def skip(delay_s: float) -> None:
        nonlocal now_s
        waited_s.append(round(delay_s, 3))
        now_s += delay_s
        await sleep(0)

    async def play() -> None:
        log_ins_ = LogIns(known, config(delay_ms=1000, delay_max_ms=4000))
        for password in ("wrong", "wrong", "wrong", "wrong", "right", "right"):
            await log_ins_.check("plc", password, HOST)
        log_ins_.close()

    monkeypatch.setattr(log_ins.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(log_ins.asyncio, "sleep", skip)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(play())
    loop.close()
    assert waited_s == [0, 1, 2, 4, 4, 0]


def test_a_crowd_of_one_name_holds_up_no_other_name(checks: Checks, known: dict[str, users.User]) -> None:
    async def play() -> None:
        log_ins = LogIns(known, config(checks=1))
        checks.go.clear()
        crowd = [asyncio.create_task(log_ins.check("plc", "right", HOST)) for _ in range(200)]
        await soon(lambda: checks.running == 1)
        other = asyncio.create_task(log_ins.check("hmi", "right", HOST))
        await asyncio.sleep(0)
        checks.go.set()
        await other
        assert checks.begun.index("hmi") <= 2, "it came after the one under way, and at most one more"
        assert all(await asyncio.gather(*crowd))
        log_ins.close()

    asyncio.run(play())


def test_who_hangs_up_frees_no_slot_before_his_check_ends_and_what_it_finds_counts(
    checks: Checks, known: dict[str, users.User]
) -> None:
    async def play() -> None:
        log_ins = LogIns(known, config(checks=1))
        lane = log_ins._lane("plc", HOST)
        lane.failures = 3
        checks.go.clear()
        gone = asyncio.create_task(log_ins.check("plc", "right", HOST))
        await soon(lambda: checks.running == 1)
        gone.cancel()
        await soon(gone.done)
        other = asyncio.create_task(log_ins.check("hmi", "right", HOST))
        for _ in range(20):
            await asyncio.sleep(0)
        assert log_ins._pool._work_queue.qsize() == 0, "nothing waits in the pool, where nothing bounds it"
        checks.go.set()
        assert await other is not None
        assert lane.failures == 0 and not lane.turn.locked()
        log_ins.close()

    asyncio.run(play())


def test_invented_names_share_few_lanes_and_lanes_are_bounded(checks: Checks, known: dict[str, users.User]) -> None:
    async def play() -> None:
        mine = LogIns(known, config())
        for number in range(500):
            mine._lane(f"nobody{number}", HOST)
        assert len(mine._lanes) <= log_ins.UNKNOWN_LANES
        for number in range(3 * log_ins.LANES_MAX):
            mine._lane("plc", f"2001:db8::{number:x}")
        assert len(mine._lanes) == log_ins.LANES_MAX
        mine.close()

    asyncio.run(play())
