"""A loop that does not turn ends its process; one that turns, however slowly it was let run, does not."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from runtime.errors import GatewayError
from runtime.gateways.watch_loop import TurnWatch

PATIENCE_S = 60

STUCK_ASYNCIO = """
import asyncio, time
from runtime.gateways.watch_loop import TurnWatch
async def main():
    watch = TurnWatch(lambda: 200)
    turning = asyncio.create_task(watch.keep_turning())
    watch.start()
    await asyncio.sleep(0.6)
    print("turned", flush=True)
    time.sleep(60)
asyncio.run(main())
"""


def test_a_stuck_asyncio_loop_ends_its_process_with_the_exit_code_of_gateways() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUCK_ASYNCIO], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == GatewayError.exit_code, ended
    assert ended.stdout.split() == ["turned"] and "did not turn" in ended.stderr


def test_a_turning_loop_is_let_be_and_a_closed_watch_says_nothing() -> None:
    said = threading.Event()
    watch = TurnWatch(lambda: 400, lambda text: said.set())
    watch.start()
    ends_s = time.monotonic() + 1.2
    while time.monotonic() < ends_s:
        watch.turned()
        time.sleep(0.01)
    assert not said.is_set()
    watch.close()
    assert not said.wait(1.0)


def test_a_loop_that_stops_turning_is_told_once() -> None:
    said: list[str] = []
    done = threading.Event()

    def stuck(text: str) -> None:
        said.append(text)
        done.set()

    watch = TurnWatch(lambda: 80, stuck)
    watch.start()
    assert done.wait(PATIENCE_S)
    assert len(said) == 1 and "did not turn" in said[0]
