"""A fork of ``tests/forked.py`` is what a start of the interpreter would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Server, forked

SHOW = """
import os, signal, sys
caught = {each.name: str(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
files = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
for each in (sys.argv, os.getcwd(), sys.path[:2], sys.stdin.read(), caught, __name__, files,
             os.getsid(0) == os.getpid(),
             sorted(os.sched_getaffinity(0)), os.umask(0), sys.stdout.encoding, *sorted(os.environ.items())):
    print(each)
print("to stderr", file=sys.stderr)
"""
PROGRAMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "all that it is given": (("-c", SHOW, "one", "--two"), {"env": {**os.environ, "OWN": "1"}, "input": "said"}),
    "a session of its own": (("-c", SHOW), {"start_new_session": True, "env": {**os.environ}, "input": ""}),
    "a path of its own": (("-c", SHOW), {"env": {**os.environ, "PYTHONPATH": "/nowhere:/else"}, "input": ""}),
    "unbuffered": (("-u", "-c", "import os; print('out'); os._exit(3)"), {}),
    "an exit code": (("-c", "raise SystemExit(7)"), {}),
    "a last word": (("-c", "raise SystemExit('no')"), {}),
    "a signal": (("-c", "import os; os.kill(os.getpid(), 9)"), {}),
    "at the end": (("-c", "import atexit; atexit.register(print, 'end')"), {}),
    "a command": (("-m", "asperity.runtime.cli", "--version"), {}),
    "a command that fails": (("-m", "asperity.runtime.cli", "watch", "--seconds=0.01", "--results=ipc:///none/x"), {}),
}


@pytest.fixture(scope="module")
def fork_server() -> Any:
    server = Server()
    yield server
    server.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fork_ends_and_says_what_a_start_does(name: str, fork_server: Server, tmp_path: Path) -> None:
    program, given = PROGRAMS[name]
    command: list[str] = [sys.executable, *program]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, **given)

    started = run()
    with forked(fork_server):
        assert fork_server.fits(command, asked(**given), given.get("env", os.environ))
        again = run()
    assert again.stdout.splitlines() == started.stdout.splitlines()
    assert (again.returncode, again.stderr) == (started.returncode, started.stderr)


def asked(**given: Any) -> dict[str, Any]:
    """What ``Popen`` is asked for, where nothing else is said."""
    nothing = {"executable": None, "preexec_fn": None, "pass_fds": (), "shell": False}
    return {**nothing, "gid": None, "gids": None, "uid": None, "umask": -1, **given}


def test_a_fork_is_waited_for_ended_and_killed_as_a_child_is(fork_server: Server, tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; print('on', flush=True); time.sleep(600)"]
    with forked(fork_server):
        with subprocess.Popen(sleeper, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"on\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.terminate()
            assert process.wait(60) == -signal.SIGTERM == process.poll()
        with pytest.raises(FileNotFoundError):
            subprocess.Popen(sleeper, cwd=tmp_path / "absent")


def test_what_a_fork_cannot_be_is_started(fork_server: Server) -> None:
    command, usual = [sys.executable, "-c", "pass"], dict(os.environ)
    assert fork_server.fits(command, asked(), usual)
    for other in ([sys.executable, "-I", "-c", "pass"], [sys.executable, "file.py"], ["true"], "true"):
        assert not fork_server.fits(other, asked(), usual)
    for more in ({"PYTHONUTF8": "0"}, {"OMP_NUM_THREADS": "7"}, {"LC_ALL": "tr_TR"}):
        assert not fork_server.fits(command, asked(), {**usual, **more})
    assert not fork_server.fits(command, asked(pass_fds=(5,)), usual)
