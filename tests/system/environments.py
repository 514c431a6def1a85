"""The table of environments, and the commands that are run in each."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.environment_box import CLONE_NEWNET, CLONE_NEWUTS, MNT_DETACH, Box, CannotMake, libc

Change = Callable[[Box], None]


@dataclass(frozen=True)
class Command:
    """One command, which ends with ``code`` where nothing is odd."""

    arguments: tuple[str, ...]
    code: int = 0
    says: str = ""
    """A word of its sentence where the code is not 0."""
    serves: bool = False
    """It runs until SIGTERM, once it has said that it is ready."""


SOCKETS = ("--frames", "ipc://{folder}/run/frames", "--results", "ipc://{folder}/run/results",
           "--bulk", "ipc://{folder}/run/bulk")  # fmt: skip
COMMANDS = {
    "version": Command(("--version",)),
    "help": Command(("--help",)),
    "help of run": Command(("run", "--help")),
    "doctor": Command(("doctor",)),
    "keys list": Command(("keys", "list")),
    "keys new": Command(("keys", "new")),
    "inspect": Command(("inspect", "{bundle}", "--keys", "{folder}/keys")),
    "inspect, own keys": Command(("inspect", "{bundle}", "--no-gate"), 5, "trust"),
    "score": Command(("score", "{bundle}", "{normals}", "--keys", "{folder}/keys", "--limit", "1")),
    "run": Command(("run", "--engine", "simulated", *SOCKETS), serves=True),
    "gateway modbus": Command(("gateway", "modbus", "--port", "0"), serves=True),
    "gateway http": Command(("gateway", "http", "--port", "0"), serves=True),
    "gateway opcua": Command(("gateway", "opcua", "--port", "0"), serves=True),
    "gateway mqtt": Command(("gateway", "mqtt", "--port", "1"), serves=True),
    "camera": Command(("camera", "virtual", "--frames", "1", "--wait-s", "0"), 10, "asperity run"),
    "camera, data set": Command(
        ("camera", "virtual", "--write", "{folder}/tmp/data", "--train", "1", "--test", "0", "--size", "32")
    ),
    "watch": Command(("watch", "--seconds", "0.05"), 11, "inspector"),
    "simulate": Command(("simulate", "--count", "1", "--rate", "100", *SOCKETS)),
    "calibrate": Command(("calibrate", "{normals}", "-o", "{folder}/tmp/made", "--limit", "3"), 6, "frames"),
    "engines": Command(("engines", "list")),
}
SERVERS = tuple(name for name, command in COMMANDS.items() if command.serves)


@dataclass(frozen=True)
class Row:
    """One environment. Every command works in it, but those of ``ends``: they say what to set, and end with a code."""

    name: str
    changes: tuple[Change, ...]
    ends: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Command (``*``: all that is not named) -> exit code and a word of the sentence."""
    real: bool = False
    """The start of the interpreter itself matters: no fork."""
    only: tuple[str, ...] = ()
    """The commands to run; empty: all."""


def env(**values: str | None) -> Change:
    """Set variables; None: unset."""

    def change(box: Box) -> None:
        for name, value in values.items():
            box.env.pop(name, None)
            if value is not None:
                box.env[name] = value.format(folder=box.folder)

    return change


def limit(kind: int, most: int) -> Change:
    """A limit of the process, soft and hard."""
    return lambda box: box.last.append(lambda: resource.setrlimit(kind, (most, most)))


def closed(*numbers: int) -> Change:
    """Without these standard streams."""
    return lambda box: box.last.append(lambda: [os.close(number) for number in numbers])


def to(number: int, path: str) -> Change:
    """A standard stream to a file or device."""
    return lambda box: os.dup2(os.open(path, os.O_RDWR), number) and None


def broken_pipe(number: int) -> Change:
    """A standard stream to a pipe that nobody reads."""

    def change(box: Box) -> None:
        reader, writer = os.pipe()
        os.dup2(writer, number)
        os.close(reader)
        os.close(writer)

    return change


def user(box: Box) -> None:
    """Another user."""
    box.other_user()


def made(path: str, *, mode: int = 0o755, file: bool = False) -> Change:
    """A folder or a file."""

    def change(box: Box) -> None:
        place = Path(path.format(folder=box.folder))
        if file:
            place.touch()
        else:
            place.mkdir()
        box.last.append(lambda: None)
        box.last.insert(0, lambda: place.chmod(mode))

    return change


def in_box(does: Callable[[Box], object]) -> Change:
    """Any other change."""
    return lambda box: does(box) and None


def clock(year: int) -> Change:
    """Python's wall clock at the start of a year."""

    def change(box: Box) -> None:
        shift_ns = round((year - 1970) * 365.2425 * 86400e9) - time.time_ns() + 10**9
        real, real_ns = time.time, time.time_ns
        time.time = lambda: real() + shift_ns / 1e9
        time.time_ns = lambda: real_ns() + shift_ns

    return change


def no_host_name(box: Box) -> None:
    """An empty host name."""
    box.own_namespaces(CLONE_NEWUTS)
    if libc.sethostname(b"", 0):
        raise CannotMake("sethostname")


def without_proc(box: Box) -> None:
    """/proc is not mounted."""
    box.without("/proc")


def umount(path: str) -> Change:
    def change(box: Box) -> None:
        box.own_namespaces()
        if libc.umount2(path.encode(), MNT_DETACH):
            raise CannotMake(os.strerror(ctypes.get_errno()))

    return change


def stray(box: Box) -> None:
    """The working folder is deleted."""
    (box.folder / "cwd").rmdir()


def unreadable(box: Box) -> None:
    (box.folder / "cwd").chmod(0)


def ignored(number: int) -> Change:
    return lambda box: signal.signal(number, signal.SIG_IGN) and None


NO_XDG = dict.fromkeys(("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"))
TABLE = [
    Row("usual", ()),
    Row("usual, real", (), real=True),
    Row("no HOME, no entry in passwd", (user, env(HOME=None))),
    Row("no HOME, no entry in passwd, real", (user, env(HOME=None)), real=True),
    Row("HOME empty", (user, env(HOME=""))),
    Row("HOME does not exist", (user, env(HOME="/nonexistent"))),
    Row("HOME is a file", (made("{folder}/file", file=True), env(HOME="{folder}/file"))),
    Row("HOME is relative", (env(HOME="home"),)),
    Row("HOME is /", (user, env(HOME="/"))),
    Row("HOME not writable", (user, made("{folder}/locked", mode=0o555), env(HOME="{folder}/locked"))),
    Row("HOME of another user", (user, env(HOME="/root"))),
    Row("HOME read-only", (in_box(lambda box: box.read_only(str(box.folder / "home"))),)),
    Row("HOME on a full disk", (in_box(lambda box: box.small_disk(str(box.folder / "home"), "4k")),)),
    Row("XDG variables relative", (env(XDG_STATE_HOME="s", XDG_CONFIG_HOME="c", XDG_CACHE_HOME="k", XDG_RUNTIME_DIR="r"),)),
    Row("XDG variables empty", (env(XDG_STATE_HOME="", XDG_CONFIG_HOME="", XDG_CACHE_HOME="", XDG_RUNTIME_DIR=""),)),
    Row("XDG variables lead nowhere", (user, env(XDG_STATE_HOME="/nonexistent/s", XDG_CONFIG_HOME="/nonexistent/c", XDG_CACHE_HOME="/nonexistent/k", XDG_RUNTIME_DIR="/nonexistent/r"))),
    Row("a service of systemd", (user, env(HOME=None, XDG_RUNTIME_DIR=None, STATE_DIRECTORY="{folder}/tmp/st", CACHE_DIRECTORY="{folder}/tmp/ca", RUNTIME_DIRECTORY="{folder}/tmp/ru", CONFIGURATION_DIRECTORY="{folder}/tmp/co"))),
    Row("stdin closed", (closed(0),)),
    Row("stdout closed", (closed(1),)),
    Row("stderr closed", (closed(2),)),
    Row("all closed", (closed(0, 1, 2),)),
    Row("all closed, real", (closed(0, 1, 2),), real=True),
    Row("stdout a closed pipe", (broken_pipe(1),)),
    Row("stderr a closed pipe", (broken_pipe(2),)),
    Row("stdout full", (to(1, "/dev/full"),)),
    Row("stderr full", (to(2, "/dev/full"),)),
    Row("stdout full, real", (to(1, "/dev/full"),), real=True),
    Row("stdin a folder", (to_folder := in_box(lambda box: os.dup2(os.open("/", os.O_RDONLY), 0)),)),
    Row("LANG=C", (env(LANG="C", LC_ALL="C"),), real=True),
    Row("POSIX, no UTF-8", (env(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),), real=True),
    Row("LC_ALL garbage", (env(LC_ALL="xx_YY.garbage"),), real=True),
    Row("PYTHONIOENCODING=ascii", (env(PYTHONIOENCODING="ascii"),)),
    Row("no /dev/shm", (umount("/dev/shm"),)),
    Row("all read-only", (in_box(lambda box: [box.read_only(str(box.folder / name)) for name in ("home", "tmp", "run", "cwd")]),)),
    Row("TMPDIR missing", (env(TMPDIR="/nonexistent/tmp"),)),
    Row("no temporary folder", (in_box(lambda box: [box.read_only(str(box.folder / "tmp"))]), in_box(lambda box: [box.without(p) for p in ("/var/tmp", "/usr/tmp") if os.path.isdir(p)]), user, env(HOME="{folder}/home"))),
    Row("TMPDIR full", (in_box(lambda box: box.small_disk(str(box.folder / "tmp"), "4k")),)),
    Row("umask 0777", (user, in_box(lambda box: box.last.append(lambda: os.umask(0o777))))),
    Row("umask 0", (in_box(lambda box: os.umask(0)),)),
    Row("working folder deleted", (stray,)),
    Row("working folder not readable", (user, unreadable)),
    Row("no TERM", (env(TERM=None),)),
    Row("TERM=dumb, NO_COLOR, COLUMNS=1", (env(TERM="dumb", NO_COLOR="1", COLUMNS="1", LINES="0"),)),
    Row("COLUMNS garbage", (env(COLUMNS="-5", LINES="x", FORCE_COLOR="1"),)),
    Row("a long variable", (env(LONG="x" * 100_000, XDG_DATA_DIRS=":" * 100_000),)),
    Row("long HOME", (env(HOME="/tmp/" + "x" * 4000),)),
    Row("16 files", (limit(resource.RLIMIT_NOFILE, 16),)),
    Row("64 files", (limit(resource.RLIMIT_NOFILE, 64),)),
    Row("no memory", (limit(resource.RLIMIT_AS, 400 << 20),), real=True),
    Row("no locked memory, no core", (limit(resource.RLIMIT_MEMLOCK, 0), limit(resource.RLIMIT_CORE, 0))),
    Row("small files only", (limit(resource.RLIMIT_FSIZE, 4096),)),
    Row("no more threads", (user, limit(resource.RLIMIT_NPROC, 1))),
    Row("small stacks", (limit(resource.RLIMIT_STACK, 256 << 10),), real=True),
    Row("python -OO", (env(PYTHONOPTIMIZE="2", PYTHONDONTWRITEBYTECODE="1"),), real=True),
    Row("PYTHONWARNINGS=error", (env(PYTHONWARNINGS="error"),), real=True),
    Row("PYTHONDEVMODE", (env(PYTHONDEVMODE="1"),), real=True),
    Row("SIGPIPE default", (in_box(lambda box: signal.signal(signal.SIGPIPE, signal.SIG_DFL)),)),
    Row("nohup", (ignored(signal.SIGINT), ignored(signal.SIGHUP))),
    Row("SIGTERM ignored", (ignored(signal.SIGTERM),)),
    Row("TZ garbage", (env(TZ="Mars/Olympus:/../\x01"),), real=True),
    Row("clock at 1970", (clock(1970),)),
    Row("clock at 2100", (clock(2100),)),
    Row("clock before 1970", (clock(1960),)),
    Row("no network", (in_box(lambda box: box.own_namespaces(CLONE_NEWNET)),)),
    Row("no host name", (no_host_name,)),
    Row("OMP_NUM_THREADS=0", (env(OMP_NUM_THREADS="0", OPENBLAS_NUM_THREADS="-1", MKL_NUM_THREADS="x"),), real=True),
    Row("OMP_NUM_THREADS huge", (env(OMP_NUM_THREADS="1000000", OPENBLAS_NUM_THREADS="1000000"),), real=True),
    Row("garbage for libraries", (env(CUDA_VISIBLE_DEVICES="x,y", LD_LIBRARY_PATH="/nonexistent:::", MALLOC_ARENA_MAX="x", OMP_WAIT_POLICY="?"),), real=True),
    Row("NOTIFY_SOCKET garbage", (env(NOTIFY_SOCKET="/nonexistent/" + "x" * 200, WATCHDOG_USEC="9" * 5000),)),
    Row("WATCHDOG_USEC=0", (env(WATCHDOG_USEC="0", WATCHDOG_PID="x"),)),
    Row("without /proc", (without_proc,)),
    Row("one CPU", (in_box(lambda box: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),)),
    Row("nice 19", (in_box(lambda box: os.nice(19)),)),
]  # fmt: skip
ROWS = {row.name: row for row in TABLE}
