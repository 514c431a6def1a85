"""An inspector with the simulated engine as a separate process, which can be killed and restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from asperity.runtime.errors import AsperityError, StationError
from asperity.runtime.settings.station_toml import StationConfig, hosted, restore, save

RECIPE = "simulated"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Scores are 28 x 28: threads that wait for each other would take longer over them than the sums themselves."""
END_S = 30.0
"""Longest wait for a process that was asked to stop; then it is killed."""


class StationProcess:
    """One inspector at a time. It ends with this process, however that ends."""

    def __init__(self, config: StationConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: StationConfig | None = None) -> None:
        """Start it, perhaps by another configuration; the one before has ended."""
        # A session of its own: an interrupt from the keyboard reaches this process, which ends the other in order.
        process = subprocess.Popen(
            [sys.executable, "-m", "asperity.runtime.simulation.inspector_process"],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **ONE_THREAD},
        )
        self._process = process
        assert process.stdin is not None
        process.stdin.write(save(config or self._config) + b"\n")
        process.stdin.flush()

    def check(self) -> None:
        """Raises StationError when it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            self._process = None
            raise StationError(f"the simulated inspector exited unexpectedly with code {code}; see its log above")

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        process, self._process = self._process, None
        process.kill()
        process.wait(END_S)
        _close(process)

    def wait(self, timeout_s: float) -> None:
        """Until it has ended as it was asked to. Raises StationError when it does not."""
        assert self._process is not None
        process, self._process = self._process, None
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait(END_S)
            raise StationError(f"the simulated inspector did not end in {timeout_s:.0f} s and was killed") from error
        finally:
            _close(process)

    def end(self) -> None:
        """Tell it to end, and wait."""
        if self._process is not None:
            self._process.terminate()
            self.wait(END_S)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _child() -> int:
    """Ends when its standard input, on which the configuration comes first, is closed."""
    from asperity.runtime.inspector.serving import inspect
    from asperity.runtime.settings import log_lines

    config = restore(sys.stdin.buffer.readline())

    def end_with_the_parent() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not through the buffer, whose lock would be held at the end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_the_parent, name="parent", daemon=True).start()
    log_lines.begin(config.log)
    try:
        inspect(config, [RECIPE for _ in hosted(config)])
    except AsperityError as error:
        print(f"asperity: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_child())
