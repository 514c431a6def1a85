"""Runs pytest again and again, each time in a fork of a process that has imported what comes from others already.

Nothing of this repository is imported before the fork: each run is on a tree of its own. A start of Python with these
libraries takes longer than most of the tests that a row of docs/failsafe.md names.

    python tests/failsafe/forks.py      # one JSON object per line in: tree, environment, log, arguments; exit codes out
"""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from signal import SIGKILL

LIBRARIES = (
    "pytest", "hypothesis", "numpy", "zmq", "msgspec", "cryptography.x509", "pymodbus.client", "pycomm3", "asyncua",
    "PIL.Image", "tifffile", "typer", "rich.console", "paho.mqtt.client", "prometheus_client", "safetensors.numpy",
    "onnx", "onnxruntime", "scipy.ndimage",
)  # fmt: skip


class Forks:
    """The other side of it. For one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, tree: Path, environment: dict[str, str], arguments: Sequence[str], log: Path, limit_s: float) -> int:
        """pytest's exit code; its output is in ``log``. Raises TimeoutError when it took longer than ``limit_s``."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, start_new_session=True,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([str(tree), environment, str(log), list(arguments)]) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], limit_s)[0]:
            os.killpg(process.pid, SIGKILL)
            process.wait()
            self._process = None
            raise TimeoutError
        return int(process.stdout.readline())


def serve() -> None:
    """Until its standard input ends."""
    sys.path.pop(0)  # the folder of this file
    for library in LIBRARIES:
        with suppress(ImportError):
            import_module(library)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = _run(*json.loads(line))
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(tree: str, environment: dict[str, str], log: str, arguments: list[str]) -> int:
    import pytest

    null, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number, handle in enumerate((null, output, output)):
        os.dup2(handle, number)
    os.chdir(tree)
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.path.insert(0, tree)
    sys.argv = ["pytest", *arguments]
    try:
        return int(pytest.main(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve()
