"""Processes of Asperity as forks of one that has imported everything: a start of Python costs up to a CPU second.

For tests of what processes do, not of how the interpreter starts: the fixture ``forked_starts`` makes each
``subprocess.Popen`` of this interpreter a fork, with the arguments, folder, variables, streams, session and processors
that a start would have. What a fork cannot have (options or variables of the interpreter, more files) is started.
Real starts: ``tests/runtime/process``, ``tests/runtime/commands``, ``tests/system/test_nothing_leaves.py``, the rows
marked real of ``tests/system/environments.py``.

    python -m tests.forked SOCKET everything            # serves requests on an inherited socket until it is closed
    python -m tests.forked SOCKET tests tests/system    # and has imported the tests of these files and folders
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fork_imports import import_everything, import_libraries, import_tests
from tests.places import ROOT

LONGEST_REQUEST = 1 << 20
PROGRAMS = ("-c", "-m")
AT_IMPORT = ("PYTHON", "LD_", "OMP_", "OPENBLAS_", "MKL_", "MALLOC_", "ORT_", "LANG", "LC_", "TZ", "CUDA_")
"""Variables that an interpreter or a library reads when it starts: a fork would not see that they differ."""
PLAIN: dict[str, Any] = {
    "executable": None, "preexec_fn": None, "pass_fds": (), "shell": False, "gid": None, "gids": None, "uid": None,
    "umask": -1,
}  # fmt: skip
"""What ``Popen`` can be asked for and a fork is not given."""
_start, _poll, _wait = (getattr(subprocess.Popen, name) for name in ("_execute_child", "_internal_poll", "_try_wait"))


class Server:
    """The test's side: the process that forks, started with the first request. ``imports``: what it imports first."""

    def __init__(self, *imports: str) -> None:
        self._imports = imports or ("everything",)
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def fits(self, command: Any, asked: Mapping[str, Any], environment: Mapping[Any, Any]) -> bool:
        """Whether a fork would be what a start is."""
        words = command if isinstance(command, (list, tuple)) else ()
        plain = all(isinstance(word, str) for word in words) and all(
            isinstance(text, str) for pair in environment.items() for text in pair
        )
        if not plain or not words or words[0] != sys.executable:
            return False
        begin = 2 if words[1:2] == ["-u"] or words[1:2] == ("-u",) else 1
        if len(words) < begin + 2 or words[begin] not in PROGRAMS:
            return False
        mine = self._environment or os.environ
        differing = {name for name in {*mine, *environment} if mine.get(name) != environment.get(name)}
        return all(asked[name] == value for name, value in PLAIN.items()) and not any(
            name.startswith(AT_IMPORT) for name in differing - {"PYTHONPATH"}
        )

    def fork(self, command: list[str], environment: Mapping[str, str], folder: Any, own_session: bool,
             streams: list[int]) -> tuple[int, int]:  # fmt: skip
        """A process's number, and a file from which its status can be read when it has ended."""
        ended, tell = os.pipe2(os.O_CLOEXEC)
        request = {
            "command": command, "environment": dict(environment), "own_session": own_session,
            "folder": os.fspath(folder) if folder is not None else str(Path.cwd()),
            "processors": sorted(os.sched_getaffinity(0)), "umask": _umask(),
        }  # fmt: skip
        try:
            with self._lock:
                connection = self._socket or self._begin()
                socket.send_fds(connection, [json.dumps(request).encode()], [*streams, tell])
                pid, fault = json.loads(connection.recv(LONGEST_REQUEST))
        finally:
            os.close(tell)
        if fault:
            os.close(ended)
            raise OSError(fault, os.strerror(fault), request["folder"])
        return pid, ended

    def _begin(self) -> socket.socket:
        self._environment = dict(os.environ)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST_REQUEST)
        with theirs, tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno()), *self._imports], cwd=ROOT,
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        return self._socket

    def close(self) -> None:
        """End it; its forks are left to those who asked for them."""
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()


def _umask() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:"))
    return int(line.split()[1], 8)


@contextmanager
def forked(server: Server) -> Iterator[None]:
    """Within it, ``Popen`` and all that are derived from it fork."""
    import inspect

    names = list(inspect.signature(_start).parameters)[1:]

    def start(self: Any, *given: Any) -> None:
        asked = dict(zip(names, given, strict=True))
        environment = os.environ if asked["env"] is None else asked["env"]
        if not server.fits(asked["args"], asked, environment):
            _start(self, *given)
            return
        children = [(asked["p2cread"], 0), (asked["c2pwrite"], 1), (asked["errwrite"], 2)]
        streams = [end if end != -1 else own for end, own in children]
        try:
            self.pid, self._ended = server.fork(
                list(asked["args"]), environment, asked["cwd"], asked["start_new_session"], streams
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(*(asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread",
                                                            "errwrite")))  # fmt: skip

    def poll(self: Any, *given: Any, **more: Any) -> Any:
        if not hasattr(self, "_ended"):
            return _poll(self, *given, **more)
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = try_wait(self, os.WNOHANG)
                if pid and self.returncode is None:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def try_wait(self: Any, flags: int) -> tuple[int, int]:
        if not hasattr(self, "_ended"):
            status: tuple[int, int] = _wait(self, flags)
            return status
        if self._ended == -1 or (flags & os.WNOHANG and not select.select([self._ended], [], [], 0)[0]):
            return 0, 0
        said = os.read(self._ended, 4)
        os.close(self._ended)
        self._ended = -1
        return self.pid, struct.unpack("i", said)[0] if said else signal.SIGKILL

    with pytest.MonkeyPatch.context() as patch:
        for name, instead in (("_execute_child", start), ("_internal_poll", poll), ("_try_wait", try_wait)):
            patch.setattr(subprocess.Popen, name, instead)
        yield


# ------------------------------------------------------------------------------------------- the process that forks


IMPORTS = {"everything": import_everything, "libraries": import_libraries, "tests": import_tests}


def fill_address_space() -> None:
    """The 6000 nodes that every OPC UA server of the library begins with: a fork has them already."""
    with suppress(ImportError):
        from asyncua.server.address_space import AddressSpace, NodeManagementService
        from asyncua.server.internal_server import InternalServer
        from asyncua.server.standard_address_space import standard_address_space

        space = AddressSpace()
        standard_address_space.fill_address_space(NodeManagementService(space))

        async def load(server: Any, shelf_file: Path | None = None) -> None:
            server.aspace._nodes.update(space._nodes)

        InternalServer.load_standard_address_space = load


def become_environment(environment: Mapping[str, str], *, unbuffered: bool = False) -> None:
    """The variables, the standard streams as the interpreter opens them, and nothing left of the process before."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    encoding, _, errors = environment.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
            raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
            through = unbuffered and number > 0
            buffered: Any = io.BufferedReader(raw) if number == 0 else raw if through else io.BufferedWriter(raw)
            usual = "backslashreplace" if number == 2 else "strict"
            stream = io.TextIOWrapper(
                buffered, encoding or "utf-8", errors or usual, line_buffering=number == 2,
                write_through=through,
            )  # fmt: skip
        except OSError:
            stream = None  # type: ignore[assignment]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns what was asked for in each fork, and None at the end of the connection."""
    running: dict[int, int] = {}
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    filled = False
    while True:
        ready = select.select([connection, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _tell_ended(running)
        if connection not in ready:
            continue
        data, files, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 4)
        if not data:
            return None
        *streams, tell = files
        request: dict[str, Any] = json.loads(data)
        if "opcua" in request["command"] and not filled:
            filled = True
            fill_address_space()
            gc.freeze()
        try:
            os.chdir(request["folder"])
        except OSError as error:  # as a start would fail
            answer = [0, error.errno]
        else:
            pid = os.fork()
            if pid == 0:
                connection.detach()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become_streams(streams)
                return request
            running[pid] = os.dup(tell)
            answer = [pid, 0]
        for file in (*streams, tell):
            os.close(file)
        os.chdir(ROOT)
        connection.send(json.dumps(answer).encode())


def _tell_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with suppress(BrokenPipeError):
            os.write(running[pid], struct.pack("i", status))
        os.close(running.pop(pid))


def _become_streams(streams: list[int]) -> None:
    """These are standard input, output and error; no other file is open."""
    most = max(*streams, 2)
    for number, file in enumerate(streams):
        os.dup2(file, most + 1 + number)
    for number in range(3):
        os.dup2(most + 1 + number, number)
    os.closerange(3, 1024)


def become(request: dict[str, Any]) -> tuple[str, str]:
    """Everything a start would bring; the kind of program, and the program."""
    if request["own_session"]:
        os.setsid()
    os.sched_setaffinity(0, request["processors"])
    os.umask(request["umask"])
    words = request["command"][1:]
    unbuffered = words[0] == "-u"
    kind, program, *arguments = words[unbuffered:]
    before, after = (variables.get("PYTHONPATH", "").split(":") for variables in (os.environ, request["environment"]))
    rest = [path for path in sys.path[1:] if path not in before]
    sys.path[:] = ["" if kind == "-c" else request["folder"], *filter(None, after), *rest]
    set_by_us = {name: value for name, value in os.environ.items() if name.startswith("ORT_")}
    unbuffered |= bool(request["environment"].get("PYTHONUNBUFFERED"))
    become_environment({**request["environment"], **set_by_us}, unbuffered=unbuffered)
    sys.orig_argv = request["command"]
    sys.argv = [kind, *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return kind, program


def run(kind: str, program: str) -> None:
    """What ``python -c`` or ``python -m`` does."""
    if kind == "-c":
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.modules.pop(program, None)  # else runpy warns that it runs a module twice
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def exit_code(program: Callable[[], object]) -> int:
    """Run a program to its end; the exit code that the interpreter would end with, all of its output written."""
    code = 0
    try:
        program()
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = 120
    return code


def main() -> None:
    """Serve; a fork ends without taking to pieces what the process before it has imported."""
    gc.disable()
    IMPORTS[sys.argv[2]](*sys.argv[3:])
    gc.freeze()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        gc.enable()
        code = 70
        try:
            code = exit_code(lambda: run(*become(request)))
        finally:
            os._exit(code)


if __name__ == "__main__":
    main()
