"""What systemd does for ``asperity-camera@``, for a test: starts it, restarts it, and kills it for its watchdog."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

WATCHDOG_S = 8.0
"""More than a process has to end (``live_camera.END_S``), as in the unit."""


class Unit:
    """One camera process after another. ``turn`` must be called often."""

    def __init__(self, folder: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.codes: list[int] = []
        """Of each process that ended."""
        self.ready = False
        self.status = ""
        self.fed = 0
        self._folder, self.ended = folder, False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.setblocking(False)
        self._command = [sys.executable, "-m", "asperity.runtime.cli", "camera", "live", *arguments]
        own = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
        self._environment = {**os.environ, **environment, **own}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.ready, self._fed_s = False, time.monotonic()
        with (self._folder / "camera.log").open("ab") as log:
            return subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    def turn(self) -> bool:
        """Read what the process says, and do what the unit does."""
        try:
            while True:
                line = self._socket.recv(4096).decode()
                self.ready |= line == "READY=1"
                if line == "WATCHDOG=1":
                    self._fed_s, self.fed = time.monotonic(), self.fed + 1
                self.status = line.removeprefix("STATUS=") if line.startswith("STATUS=") else self.status
        except BlockingIOError:
            pass
        if self.ready and time.monotonic() - self._fed_s > WATCHDOG_S:
            self.process.kill()
        if self.process.poll() is not None and not self.ended:
            self.codes.append(self.process.returncode)
            self.process = self._start()
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the process of now."""
        self.process.send_signal(number)

    def stop(self, timeout_s: float) -> int:
        """SIGTERM, as ``systemctl stop``: it is not restarted. Its exit code."""
        self.ended = True
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def log(self) -> str:
        """What the processes said."""
        return (self._folder / "camera.log").read_text()

    def close(self) -> None:
        """End it."""
        self.ended = True
        self.process.kill()
        self.process.wait()
        self._socket.close()
