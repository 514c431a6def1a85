"""An inspector with the simulated engine as a separate process, which can be killed and restarted."""

from __future__ import annotations

import signal
import subprocess
import sys

from asperity.runtime.errors import AsperityError, StationError
from asperity.runtime.process import start
from asperity.runtime.process.child import END_S, Child, end_with_parent, of_ours
from asperity.runtime.settings.loading import restore, save
from asperity.runtime.settings.station_toml import StationConfig, hosted

MODULE = "asperity.runtime.simulation.inspector_process"
RECIPE = "simulated"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Scores are 28 x 28: threads that wait for each other would take longer over them than the sums themselves."""


class StationProcess:
    """One inspector at a time. It ends with this process, however that ends."""

    def __init__(self, config: StationConfig) -> None:
        self._config = config
        self._process: Child | None = None

    def start(self, config: StationConfig | None = None) -> None:
        """Start it, perhaps with another configuration; the previous one has ended."""
        self._process = process = Child(of_ours(MODULE), environment=ONE_THREAD, own_session=True)
        assert process.stdin is not None
        try:
            process.stdin.write(save(config or self._config) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            process.wait(END_S)
            self.check()

    @property
    def started(self) -> bool:
        """It was started and not taken down by ``kill``, ``wait`` or ``end``."""
        return self._process is not None

    def check(self) -> None:
        """Raises StationError when it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            code = self._taken().returncode
            raise StationError(f"the simulated inspector exited unexpectedly with code {code}; see its log above")

    def kill(self) -> None:
        """kill -9."""
        self._taken().kill()

    def pause(self, *, paused: bool) -> None:
        """Stop it where it stands, as a computer that hangs; or let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def wait(self, timeout_s: float) -> None:
        """Wait until it has ended as requested. Raises StationError when it does not."""
        process = self._taken()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise StationError(f"the simulated inspector did not end in {timeout_s:.0f} s and was killed") from error
        finally:
            process.hang_up()

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self._process is not None:
            self._process.terminate()
            self.wait(END_S)

    def _taken(self) -> Child:
        assert self._process is not None
        process, self._process = self._process, None
        return process


def _child() -> int:
    """Ends when its standard input, on which the configuration comes first, is closed."""
    from asperity.runtime.inspector.serving import inspect
    from asperity.runtime.settings import log_lines

    start.begin()
    config = restore(sys.stdin.buffer.readline())
    end_with_parent()
    log_lines.begin(config.log)
    try:
        inspect(config, [RECIPE for _ in hosted(config)])
    except AsperityError as error:
        print(f"asperity: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_child())
