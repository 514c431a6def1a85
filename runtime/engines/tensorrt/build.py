"""Networks built in the background: a child process makes them while the active engine goes on serving.

The child is `asperity engines build`, at low priority and bounded in time. What it has built goes to the cache, where
opening a recipe finds it; a child that fails or is stopped leaves the cache unchanged.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from asperity.runtime.errors import EngineError
from asperity.runtime.process.child import of_ours
from asperity.runtime.settings.paths import engine_cache
from asperity.runtime.settings.station_toml import StationConfig

NICE = 10
STOP_S = 5.0
POLL_S = 0.2
MAX_SAID_BYTES = 4096
REMEDY = "run `asperity engines build` by hand for details"


def build_command(bundle: Path, config: StationConfig) -> list[str]:
    """`asperity engines build` with everything that ``[engine]`` says of it."""
    engine = config.engine
    command = of_ours(
        "asperity.runtime.cli", "engines", "build", str(bundle), "--precision", engine.precision,
        "--gpu", str(engine.gpu), "--cache", str(engine_cache(config)), "--cache-max-mbytes",
        str(engine.cache_max_mbytes), "--memory-mbytes", str(engine.build_mbytes), "--nice", str(NICE),
    )  # fmt: skip
    return [*command, "--keys", engine.trust] if engine.trust else command


class BackgroundBuild:
    """One running build. Poll ``done``; ``stop`` when it is no longer wanted. Nothing here waits long."""

    def __init__(self, bundle: Path, config: StationConfig) -> None:
        """Starts the child. Raises EngineError when it cannot be started."""
        self._end_s = time.monotonic() + config.engine.build_s
        self._limit_s = config.engine.build_s
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        try:
            self._child = subprocess.Popen(
                build_command(bundle, config),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
            )
        except OSError as error:
            self._said.close()
            raise EngineError(f"the build of {bundle} cannot be started ({error}); {REMEDY}") from error

    def done(self) -> bool:
        """True when the networks are built.

        Raises EngineError with the child's last words when it failed, or when it was stopped for taking too long.
        """
        code = self._child.poll()
        if code is None:
            if time.monotonic() < self._end_s:
                return False
            self.stop()
            raise EngineError(
                f"building the networks took longer than {self._limit_s} s and was stopped; raise [engine] build_s"
            )
        last = self._last_words()
        self._said.close()
        if code != 0:
            raise EngineError(f"building the networks failed ({last or f'exit code {code}'}); {REMEDY}")
        return True

    def stop(self) -> None:
        """End the child: asked first, then made to. May be called twice."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(STOP_S)
        self._said.close()

    def _last_words(self) -> str:
        if self._said.closed:
            return ""
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - MAX_SAID_BYTES))
        lines = self._said.read(MAX_SAID_BYTES).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def build_networks(bundle: Path, config: StationConfig, wanted: Callable[[], bool]) -> None:
    """Build a bundle's networks for this machine in a child, and wait for it. For a thread that may wait ``build_s``.

    Raises EngineError as ``BackgroundBuild`` does, and when ``wanted`` says no; the child is ended then.
    """
    build = BackgroundBuild(bundle, config)
    try:
        while not build.done():
            if not wanted():
                raise EngineError(f"building the networks of {bundle} was stopped: the recipe is no longer needed")
            time.sleep(POLL_S)
    finally:
        build.stop()
