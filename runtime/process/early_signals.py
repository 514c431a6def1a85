"""SIGTERM while a process starts: it closes what it has opened and ends.

The signal raises SystemExit. Where Python happens to be in a callback that nothing may leave (a weak reference's, in
the middle of an import), it prints the exception and drops it; so the signal is remembered as well, and the code that
installs the handlers of a running process checks for it.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM

_told = False


def install() -> None:
    """End at SIGTERM from now on. For the main thread, before anything slow is imported."""
    signal.signal(signal.SIGTERM, _end)


def told() -> bool:
    """The process was asked to stop while it started."""
    return _told


def _end(number: int, frame: FrameType | None) -> None:
    global _told  # noqa: PLW0603 - a signal handler has no other place
    _told = True
    sys.exit(EXIT_CODE)
