"""What each process does first: its standard streams, its umask, and the signals that end it."""

from __future__ import annotations

import ast
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

NO_STATION = {"runtime.doctor.probes.gpu", "runtime.documents.__main__", "runtime.cuda.build",
              "runtime.commands.doctor"}  # fmt: skip
"""Programs of a developer, and a probe that `doctor` starts with pipes."""


def run(code: str, *, prepare: str = "pass", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program after ``prepare`` in a process that then becomes it."""
    begin, end = "import os, signal, sys", "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    outer = f"{begin}\n{prepare}\n{end}"
    return subprocess.run(
        [sys.executable, "-c", outer, code], cwd=ROOT, env={**os.environ, **env}, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_every_entry_point_begins_with_it() -> None:
    unprepared = []
    for file in sorted((ROOT / "runtime").rglob("*.py")):
        text = file.read_text()
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if '__name__ == "__main__"' in text and name not in NO_STATION:
            calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
            if "start.begin" not in calls:
                unprepared.append(name)
    assert not unprepared


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_no_file_takes_the_place_of_a_closed_stream(gone: tuple[int, ...], tmp_path: Path) -> None:
    """A library that writes to descriptor 2 damages no journal, and a child has all three."""
    code = f"""
from asperity.runtime.process import start
start.begin()
import os, subprocess, sys
file = os.open({str(tmp_path / "journal")!r}, os.O_RDWR | os.O_CREAT)
assert file > 2
os.write(2, b"a native line")
print("said", file=sys.stderr)
print("said", flush=True)
child = subprocess.run([sys.executable, "-c", "import os; [os.fstat(number) for number in range(3)]"])
assert child.returncode == 0 and sys.stdin is not None
os.write(file, b"entry")
"""
    done = run(code, prepare=f"[os.close(number) for number in {gone}]")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "journal").read_bytes() == b"entry"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_does_not_have_stays_readable_and_json(encoding: str) -> None:
    text = "µm \u2192 \U0001f600 \udcff"  # a name of bytes that are not UTF-8, as Python shows it
    code = f"""
from asperity.runtime.process import start
start.begin()
import sys
print('{{"name": "' + {text!a} + '"}}')
print({text!a}, file=sys.stderr)
"""
    done = run(code, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding)) == {"name": text}
    assert done.stderr


def test_what_stderr_does_not_take_is_dropped() -> None:
    code = """
from asperity.runtime.process import start
start.begin()
import logging, sys
logging.basicConfig()
for _ in range(1000):
    logging.error("a line %s", "x" * 200)
    print("another", file=sys.stderr)
print("goes on")
"""
    prepare = "handle = os.open('/dev/full', os.O_WRONLY); os.dup2(handle, 2)"
    done = run(code, prepare=prepare)
    assert (done.returncode, done.stdout) == (0, b"goes on\n")
    # A terminal that somebody else made non-blocking, and that nobody reads.
    prepare = "pipe = os.pipe(); os.set_blocking(pipe[1], False); os.dup2(pipe[1], 2)"
    done = run(code, prepare=prepare)
    assert (done.returncode, done.stdout) == (0, b"goes on\n")


@pytest.mark.parametrize(("umask", "mode"), [(0o777, 0o700), (0o277, 0o700), (0o022, 0o755), (0, 0o777)])
def test_a_umask_takes_nothing_from_the_user(umask: int, mode: int, tmp_path: Path) -> None:
    code = f"""
from asperity.runtime.process import start
start.begin()
import os
os.mkdir({str(tmp_path / "made")!r})
"""
    assert run(code, prepare=f"os.umask({umask})").returncode == 0
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == mode


@pytest.mark.parametrize(("ignored", "code"), [(False, 128 + signal.SIGTERM), (True, 0)])
def test_a_closed_terminal_ends_a_process_as_sigterm_does(ignored: bool, code: int) -> None:
    """Unless it was started under nohup."""
    program = """
from asperity.runtime.process import start
start.begin()
import os, signal
os.kill(os.getpid(), signal.SIGHUP)
"""
    prepare = f"signal.signal(signal.SIGHUP, signal.{'SIG_IGN' if ignored else 'SIG_DFL'})"
    assert run(program, prepare=prepare).returncode == code


def test_a_signal_that_was_blocked_ends_a_process_all_the_same() -> None:
    program = """
from asperity.runtime.process import start
start.begin()
import os, signal
os.kill(os.getpid(), signal.SIGTERM)
"""
    prepare = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    assert run(program, prepare=prepare).returncode == 128 + signal.SIGTERM


def test_a_child_that_failed_is_known_though_sigchld_was_ignored() -> None:
    """A recipe that did not open in the child would be taken for verified."""
    program = """
from asperity.runtime.process import start
start.begin()
import subprocess, sys
print(subprocess.run([sys.executable, "-c", "raise SystemExit(5)"]).returncode)
"""
    done = run(program, prepare="signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    assert (done.returncode, done.stdout) == (0, b"5\n")
