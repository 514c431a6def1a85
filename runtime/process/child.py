"""Programs that this process starts, and that end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

END_S = 30.0
"""Longest wait for a process that was asked to stop; then it is killed."""


class Child(subprocess.Popen[bytes]):
    """A process with this one at the other end of its standard input: what ``end_with_parent`` watches."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        own_session: bool = False,
    ) -> None:
        """Start it. ``log``: file for what it prints, else it prints where this process does.

        ``own_session``: an interrupt from the keyboard reaches this process alone, which ends the other in order.
        """
        self.log_file = log
        with nullcontext() if log is None else log.open("wb") as output:
            super().__init__(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=own_session,
                env=None if environment is None else {**os.environ, **environment},
            )  # fmt: skip

    def log(self) -> str:
        """What it has printed so far into its file."""
        return self.log_file.read_text(errors="replace") if self.log_file is not None else ""

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        super().kill()
        self.wait(END_S)
        self.hang_up()

    def end(self, timeout_s: float = END_S) -> int:
        """Ask it to end and wait. Returns its exit code; negative if it was killed or ended by a signal."""
        self.terminate()
        try:
            self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self.hang_up()
        return self.returncode

    def hang_up(self) -> None:
        """Close its standard input."""
        if self.stdin is not None:
            self.stdin.close()


def of_ours(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as a program, with everything imported from where this process imports it.

    ``python -m`` would look into the working folder first: for a ``numpy.py`` of the user's, or of another user.
    """
    places = [str(Path(entry).absolute()) for entry in sys.path]
    code = (
        f"import sys; sys.path[:] = {places!a}; import runpy; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", code, *arguments]


def end_with_parent() -> None:
    """SIGTERM to this process when its standard input is closed, as it is when its parent ends, however that ends."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not through the buffer, whose lock would be held at the end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
