"""A loop that does not turn ends its process; one that turns, however slowly it was let run, does not."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from asperity.runtime.errors import GatewayError
from asperity.runtime.gateways.watch_loop import CHECKS, TurnWatch

PATIENCE_S = 60

STUCK_ASYNCIO = """
import asyncio, time
from asperity.runtime.gateways.watch_loop import TurnWatch
async def main():
    watch = TurnWatch(lambda: 1000)
    turning = asyncio.create_task(watch.keep_turning())
    watch.start()
    await asyncio.sleep(1.5)
    print("turned", flush=True)
    time.sleep(60)
asyncio.run(main())
"""


def test_a_stuck_asyncio_loop_ends_its_process_with_the_exit_code_of_gateways() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUCK_ASYNCIO], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == GatewayError.exit_code, ended
    assert ended.stdout.split() == ["turned"] and "was blocked" in ended.stderr


class Looks:
    """In place of the watch's clock: no look waits, and before each so many looks the loop turns."""

    def __init__(self, watch: TurnWatch, looks_a_turn: int) -> None:
        self._watch, self._looks_a_turn, self._looks = watch, looks_a_turn, 0

    def wait(self, timeout_s: float) -> bool:
        self._looks += 1
        if self._looks % self._looks_a_turn == 0:
            self._watch.turned()
        return self._looks > 100


@pytest.mark.parametrize(("looks_a_turn", "stuck"), [(1, False), (CHECKS, False), (CHECKS + 1, True)])
def test_a_loop_that_turns_in_time_is_let_be(looks_a_turn: int, stuck: bool) -> None:
    said: list[str] = []
    watch = TurnWatch(lambda: 400, said.append)
    watch._ending = Looks(watch, looks_a_turn)  # type: ignore[assignment]
    watch._run()
    assert bool(said) == stuck


def test_a_closed_watch_says_nothing() -> None:
    said: list[str] = []
    watch = TurnWatch(lambda: 400, said.append)
    watch.start()
    watch.close()
    watch._thread.join(PATIENCE_S)
    assert not watch._thread.is_alive() and not said


def test_a_loop_that_stops_turning_is_told_once() -> None:
    said: list[str] = []
    done = threading.Event()

    def stuck(text: str) -> None:
        said.append(text)
        done.set()

    watch = TurnWatch(lambda: 80, stuck)
    watch.start()
    assert done.wait(PATIENCE_S)
    assert len(said) == 1 and "was blocked" in said[0]
