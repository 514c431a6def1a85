"""Runs commands of Asperity in odd environments, each in a fork of one process that has imported everything already.

A start of Python costs half a second, a fork a hundredth of that. The child makes its environment (variables, limits,
descriptors, user, mounts), opens its standard streams as the interpreter would, and runs the command line; or it starts
a real interpreter in that environment, where the interpreter's own start is what matters.

    python -m tests.system.environment_box      # one JSON object per line: a case in, its outcome out
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.fork_imports import import_everything
from tests.forked import become_environment, exit_code, fill_address_space
from tests.places import ROOT

LIMIT_S = 60.0
"""A case that takes longer hangs."""
READY = (b" is served at ", b"READY -> CONTINUOUS_EXECUTION")
"""What a server logs when it is ready, where it cannot tell the supervisor."""
HANGS = -1000
SKIPPED = -1001
UID = 4242
"""A user without an entry in passwd."""
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x20000, 0x4000000, 0x40000000
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
CAP_DAC_READ_SEARCH, CAP_VERSION_3 = 2, 0x20080522
libc = ctypes.CDLL(None, use_errno=True)


class CannotMake(Exception):
    """This machine does not allow the environment."""


@dataclass
class Case:
    """One command in one environment."""

    row: str
    command: str
    folder: str
    """Its own, below /tmp: the paths of sockets must be short."""
    bundle: str
    keys: str
    normals: str


@dataclass
class Outcome:
    """What became of it."""

    code: int
    out: str
    err: str
    ready: bool
    streams: list[str]
    """What stdin, stdout and stderr of a server were when it was ready."""
    seconds: float

    def skipped(self) -> str:
        """Why the environment could not be made; empty: it was."""
        return self.err if self.code == SKIPPED else ""


class Box:
    """The child's side: what a row may change before the command runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env: dict[str, str] = {
            "PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8", "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "PYTHONFAULTHANDLER": "1", "NOTIFY_SOCKET": str(folder / "notify"),
        }  # fmt: skip
        self.options: list[str] = []
        """Of the interpreter, for a real start."""
        self.last: list[Callable[[], object]] = []
        """What must come last: it takes away what making the rest needs."""
        self._private = 0

    def own_namespaces(self, kind: int = CLONE_NEWNS) -> None:
        """Mounts (or the host's name, or network) that only this process has."""
        if not self._private & kind:
            self._private |= kind
            _call(libc.unshare, kind)
            if kind == CLONE_NEWNS:
                _call(libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None)

    def read_only(self, path: str) -> None:
        """A folder, and what is below it on the same file system, that cannot be written by anybody."""
        self.own_namespaces()
        name = path.encode()
        _call(libc.mount, name, name, None, MS_BIND | MS_REC, None)
        _call(libc.mount, name, name, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)

    def small_disk(self, path: str, size: str) -> None:
        """A file system of that size at ``path``."""
        self.own_namespaces()
        _call(libc.mount, b"tmpfs", path.encode(), b"tmpfs", 0, f"size={size},mode=1777".encode())

    def without(self, path: str) -> None:
        """An empty, read-only folder in the place of ``path``."""
        self.own_namespaces()
        _call(libc.mount, b"tmpfs", path.encode(), b"tmpfs", MS_RDONLY, b"size=4k")

    def keep_only_case_in_tmp(self) -> None:
        """/tmp cannot be written, but for the case's folder."""
        self.own_namespaces()
        name = str(self.folder).encode()
        _call(libc.mount, name, name, None, MS_BIND, None)
        self.read_only("/tmp")

    def own_network(self) -> None:
        """A network without interfaces; the loopback is down."""
        self.own_namespaces(CLONE_NEWNET)

    def host_name(self, name: bytes) -> None:
        """Another name of this computer."""
        self.own_namespaces(CLONE_NEWUTS)
        _call(libc.sethostname, name, len(name))

    def other_user(self) -> None:
        """As a user without an entry in passwd, to whom the case's folder belongs.

        It keeps the right to read everything, where that is possible: the interpreter may lie in a folder of root's.
        """
        if os.geteuid() != 0:
            raise CannotMake("only root can become another user")
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, UID, UID)
        self.last.append(self._become)

    def _become(self) -> None:
        header, caps = (ctypes.c_uint32 * 2)(CAP_VERSION_3, 0), (ctypes.c_uint32 * 6)()
        caps[0] = caps[1] = caps[2] = 1 << CAP_DAC_READ_SEARCH
        _call(libc.prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        try:
            _call(libc.capset, header, caps)
            _call(libc.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0)
        except CannotMake:
            if not (os.access(sys.executable, os.X_OK) and os.access(__file__, os.R_OK)):
                raise


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise CannotMake(f"{function.__name__}: {os.strerror(number)}")


class Boxes:
    """The test's side: the process that forks."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.system.environment_box"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, case: Case) -> Outcome:
        """Run a case to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(LIMIT_S)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="env", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=False)
            shutil.rmtree(folder, ignore_errors=True)


def _serve() -> None:
    gc.disable()
    import_everything()
    fill_address_space()
    _no_second_process()
    gc.freeze()  # a collection in a fork would copy every page
    gc.enable()
    for line in sys.stdin:
        case = Case(**json.loads(line))
        folder = Path(case.folder)
        for name in ("home", "tmp", "run", "cwd"):
            (folder / name).mkdir(mode=0o700)
        shutil.copytree(case.keys, folder / "keys")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(folder / "notify"))
            (folder / "notify").chmod(0o777)
            outcome = _watched(case, folder, notify)
        print(json.dumps(asdict(outcome)), flush=True)


def _watched(case: Case, folder: Path, notify: socket.socket) -> Outcome:
    from tests.system.environments import COMMANDS

    began_s = time.monotonic()
    out, err = folder / "out", folder / "err"
    out.touch()
    err.touch()
    pid = os.fork()
    if pid == 0:
        _child(case, folder, notify)
    ready, streams = False, list[str]()
    ended = os.pidfd_open(pid)
    while True:
        # Where a server cannot tell the supervisor, its log is looked at.
        asked = [ended] if ready else [ended, notify]
        heard = select.select(asked, [], [], 1.0 if streams or not COMMANDS[case.command].serves else 0.02)[0]
        if ended in heard:
            _, status = os.waitpid(pid, 0)
            break
        if notify in heard:
            ready = notify.recv(65536).startswith(b"READY=1")
        elif not ready:
            ready = any(word in err.read_bytes() for word in READY)
        if ready and COMMANDS[case.command].serves and not streams:
            streams = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)]
            os.kill(pid, signal.SIGTERM)
        if time.monotonic() - began_s > LIMIT_S:
            os.killpg(pid, signal.SIGABRT)  # faulthandler shows where it hangs
            time.sleep(0.2)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = HANGS
            break
    os.close(ended)
    code = HANGS if status == HANGS else os.waitstatus_to_exitcode(status)
    if (folder / "skipped").exists():
        code = SKIPPED
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    texts = [path.read_text(encoding="utf-8", errors="backslashreplace") for path in (out, err)]
    if code == SKIPPED:
        texts[1] = (folder / "skipped").read_text()
    return Outcome(code, *texts, ready, streams, round(time.monotonic() - began_s, 3))


def _child(case: Case, folder: Path, notify: socket.socket) -> None:
    from tests.system.environments import COMMANDS, ROWS

    code = 70
    try:
        os.setsid()
        row, command = ROWS[case.row], COMMANDS[case.command]
        box = Box(folder)
        # A station of its own: without XDG_RUNTIME_DIR all of a user share one folder for their sockets.
        names = {"folder": folder, "station": folder.name, "bundle": case.bundle, "normals": case.normals,
                 "calibration": Path(case.bundle).parent / "calibration"}  # fmt: skip
        arguments = [text.format_map(names) for text in command.arguments]
        _redirect(folder, notify)
        os.chdir(folder / "cwd")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            for change in row.changes:
                change(box)
            for change in box.last:
                change()
        except CannotMake as error:
            (folder / "skipped").write_text(str(error))
            os._exit(0)
        if row.real:
            start = [sys.executable, *box.options, "-m", "asperity.runtime.cli", *arguments]
            os.execve(sys.executable, start, box.env)
        become_environment(box.env)
        code = exit_code(lambda: _asperity(arguments))
    except BaseException:  # noqa: BLE001 - the fork of a server must not become a second one
        with (folder / "err").open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


def _redirect(folder: Path, notify: socket.socket) -> None:
    """Standard streams to /dev/null and files; nothing else stays open."""
    null = os.open("/dev/null", os.O_RDONLY)
    files = [null, *(os.open(folder / name, os.O_WRONLY | os.O_APPEND) for name in ("out", "err"))]
    for number, handle in enumerate(files):
        os.dup2(handle, number)
    os.closerange(3, 1024)


def _asperity(arguments: list[str]) -> None:
    from asperity.runtime.cli import main

    sys.argv = ["asperity", *arguments]
    main()


def _no_second_process() -> None:
    """`doctor` starts no processes to import in."""
    from asperity.runtime.doctor import world

    world._import = lambda module: world.Imported("9.9", "/site-packages/package/__init__.py")
    world._probe = lambda fatbin: world.Driver("libcuda.so.1: cannot open shared object file")


if __name__ == "__main__":
    _serve()
