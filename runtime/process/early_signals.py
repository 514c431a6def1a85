"""SIGTERM while a process starts: it closes what it has opened and ends.

The signal raises SystemExit. Where Python happens to be in a callback that nothing may leave (a weak reference's, in
the middle of an import), it prints the exception and drops it; so the signal is remembered as well, and the code that
installs the handlers of a running process checks for it.

What the program that started this one blocked or ignored is undone where it would do harm: blocked, no signal ends the
process; with SIGCHLD ignored the system keeps no exit codes, and Python takes each child for one that ended well.

A terminal that is closed (SIGHUP) ends a process in the same way, now and later, unless it was started under ``nohup``.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM

_told = False


def install() -> None:
    """End at SIGTERM from now on. For the main thread, before anything slow is imported."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def told() -> bool:
    """The process was asked to stop while it started."""
    return _told


def _end(number: int, frame: FrameType | None) -> None:
    global _told  # noqa: PLW0603 - a signal handler has no other place
    _told = True
    sys.exit(EXIT_CODE)


def _hang_up(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # whatever that means by now
