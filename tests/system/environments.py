"""The table of environments, and the commands that are run in each."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.environment_box import Box

Change = Callable[[Box], object]
End = tuple[int, str]
"""Exit code, and a word of the sentence."""


@dataclass(frozen=True)
class Command:
    """One command, which ends with ``code`` where nothing is odd."""

    arguments: tuple[str, ...]
    end: End = (0, "")
    serves: bool = False
    """It runs until SIGTERM, which it gets when it is ready."""
    quick: bool = False
    """It runs in each environment of `make test`; the others run in `make environments`."""


NOBODY = "tcp://127.0.0.1:1"
"""An endpoint without an inspector; at the usual one somebody may run one."""
SOCKETS = ("--frames", "ipc://{folder}/run/frames", "--results", "ipc://{folder}/run/results",
           "--bulk", "ipc://{folder}/run/bulk", "--station", "{station}")  # fmt: skip
WRITE = ("camera", "virtual", "--write", "{folder}/tmp/data", "--train", "1", "--test", "0", "--size", "32")
FOLDER = ("folder", "--set", "path={normals}", "--set", "points=xyz/*.tiff", "--set", "colour=rgb/*.png", "--set",
          "before=take", "--set", "max_age_ms=0", "--set", "live.inspector_wait_ms=0", "--set", "stable_ms=10",
          "--set", f"camera.frames={NOBODY}", "--set", f"camera.results={NOBODY}", "--frames", "1")  # fmt: skip
SEND = ("--frames", "1", "--wait-s", "0", "--frames-endpoint", NOBODY, "--results-endpoint", NOBODY)
RECORD = ("--write", "{folder}/tmp/made", "--every", "0")
OF_FOLDER = ("camera check", "camera live", "camera record")


def gateway(name: str, port: str) -> tuple[str, ...]:
    """A gateway of the case's station."""
    return "gateway", name, "--port", port, "--station", "{station}"


COMMANDS = {
    "version": Command(("--version",), quick=True),
    "help": Command(("--help",)),
    "help of run": Command(("run", "--help")),
    "doctor": Command(("doctor",), quick=True),
    "keys list": Command(("keys", "list")),
    "keys new": Command(("keys", "new")),
    "inspect": Command(("inspect", "{bundle}", "--keys", "{folder}/keys")),
    "inspect, own keys": Command(("inspect", "{bundle}", "--no-gate"), (5, "trust")),
    "score": Command(("score", "{bundle}", "{normals}", "--keys", "{folder}/keys", "--limit", "1")),
    "run": Command(("run", "--engine", "simulated", *SOCKETS), serves=True, quick=True),
    "gateway modbus": Command(gateway("modbus", "0"), serves=True),
    "gateway ethernetip": Command((*gateway("ethernetip", "0"), "--host", "127.0.0.9"), serves=True),
    "gateway http": Command(gateway("http", "0"), serves=True),
    "gateway opcua": Command(gateway("opcua", "0"), serves=True),
    "gateway mqtt": Command(gateway("mqtt", "1"), serves=True),
    "gateway sparkplug": Command(gateway("sparkplug", "1"), serves=True),
    "gateway io": Command(gateway("io", "1"), (3, "[io] names no output")),
    "camera": Command(("camera", "virtual", *SEND), (10, "asperity run")),
    "camera replay": Command(("camera", "replay", "{normals}", *SEND), (10, "asperity run")),
    "camera, data set": Command(WRITE),
    "camera list": Command(("camera", "list"), (0, "folder")),
    "camera check": Command(("camera", "check", *FOLDER), (0, "exposures")),
    "camera live": Command(("camera", "live", *FOLDER), (10, "asperity run")),
    "camera record": Command(("camera", "live", *FOLDER, *RECORD, "--set", "unit=m"), (0, "1 frames")),
    "watch": Command(("watch", "--seconds", "0.05", "--results", NOBODY), (11, "inspector")),
    "simulate": Command(("simulate", "--count", "1", "--rate", "100", *SOCKETS)),
    "calibrate": Command(("calibrate", "{normals}", "-o", "{folder}/tmp/made", "--limit", "3"), (6, "frames")),
    "refit": Command(("refit", "{calibration}", "{normals}", "-o", "{folder}/tmp/more", "--unselected",
                       "--exclude-earlier", "none"), (4, "names no one frame")),
    "export": Command(("export", "{folder}/none", "-o", "{folder}/tmp/made"), (4, "calibration.json")),
    "evaluate": Command(("evaluate", "{normals}", "--json", "{folder}/tmp/made.json"), (4, "train")),
    "engines": Command(("engines", "list")),
}


@dataclass(frozen=True)
class Row:
    """One environment. Every command works in it, but those of ``ends``: they say what to set, and end with a code."""

    name: str
    changes: tuple[Change, ...]
    ends: Mapping[str, End] = field(default_factory=dict)
    """Command (``*``: all that is not named) -> how it ends."""
    real: bool = False
    """The start of the interpreter itself matters: no fork. Slower, so fewer commands run in `make test`."""
    silent: bool = False
    """Nobody sees what the command says."""
    also: tuple[str, ...] = ()
    """Commands that run in `make test` too."""


# ---------------------------------------------------------------------------------------------------- changes


def env(**values: str | None) -> Change:
    """Set variables; None: unset."""

    def change(box: Box) -> None:
        for name, value in values.items():
            box.env.pop(name, None)
            if value is not None:
                box.env[name] = value.format(folder=box.folder)

    return change


def user(box: Box) -> None:
    """A user without an entry in passwd."""
    box.other_user()


def plain_user(box: Box) -> None:
    """Not root, whom modes do not stop."""
    if os.geteuid() == 0:
        box.other_user()


def last(does: Callable[[Box], object]) -> Change:
    """What would keep the other changes from being made."""
    return lambda box: box.last.append(lambda: does(box))


def limit(kind: int, most: int) -> Change:
    """A limit of the process, soft and hard."""
    return last(lambda box: resource.setrlimit(kind, (most, most)))


def closed(*numbers: int) -> Change:
    """Without these standard streams."""
    return last(lambda box: [os.close(number) for number in numbers])


def to(number: int, path: str) -> Change:
    """A standard stream to a file or device."""
    flags = os.O_RDONLY if number == 0 else os.O_WRONLY
    return lambda box: os.dup2(os.open(path, flags), number)


def broken_pipe(number: int) -> Change:
    """A standard stream to a pipe that nobody reads."""

    def change(box: Box) -> None:
        reader, writer = os.pipe()
        os.dup2(writer, number)
        os.close(reader)
        os.close(writer)

    return change


def folder(name: str, mode: int) -> Change:
    """A folder of the case, with a mode."""

    def change(box: Box) -> None:
        (box.folder / name).mkdir(exist_ok=True)
        (box.folder / name).chmod(mode)

    return change


def read_only(*names: str) -> Change:
    """Folders of the case that nobody can write."""
    return lambda box: [box.read_only(str(box.folder / name)) for name in names]


def full_disk(name: str) -> Change:
    """A folder of the case without room."""
    return lambda box: box.small_disk(str(box.folder / name), "4k")


def modules_in_working_folder(box: Box) -> None:
    """Files with the names of modules, where `python -m` looks first."""
    for name in ("json", "random", "types", "numpy", "zmq", "asperity", "runtime"):
        (box.folder / "cwd" / f"{name}.py").write_text("raise SystemExit('this is no module of Asperity')")


def clock(year: int) -> Change:
    """Python's wall clock at the start of a year."""

    def change(box: Box) -> None:
        shift_ns = round((year - 1970) * 365.2425 * 86400e9) - time.time_ns() + 10**9
        real_s, real_ns = time.time, time.time_ns
        time.time = lambda: real_s() + shift_ns / 1e9
        time.time_ns = lambda: real_ns() + shift_ns

    return change


def ignored(number: int) -> Change:
    """A signal that was ignored by whoever started the process."""
    return lambda box: signal.signal(number, signal.SIG_IGN)


def no_temporary_folder(box: Box) -> None:
    """Neither TMPDIR nor the system's can be written."""
    box.env["TMPDIR"] = str(box.folder / "gone")
    for path in ("/var/tmp", "/usr/tmp"):
        if Path(path).is_dir():
            box.without(path)
    box.keep_only_case_in_tmp()


# ------------------------------------------------------------------------------------------------------ table

OF_KEYS = ("keys list", "keys new", "inspect, own keys", "calibrate", "refit", "export")


def no_folder(keys: str, state: str, cache: str, runtime: str = "", code: int = 3) -> dict[str, End]:
    """Ends where a folder is not known: the word that the sentence of each has."""
    ends: dict[str, End] = {**dict.fromkeys(OF_KEYS, (code, keys)), "gateway mqtt": (code, state), "run": (code, state),
                            "gateway opcua": (code, ""), "engines": (code, cache), "doctor": (1, state),
                            **dict.fromkeys(OF_FOLDER, (code, state))}  # fmt: skip
    if runtime:
        others = ("gateway modbus", "gateway ethernetip", "gateway http", "gateway sparkplug", "simulate")
        ends |= dict.fromkeys(others, (code, runtime))
    return ends


HOMELESS = no_folder("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
CANNOT_WRITE: dict[str, End] = {
    **dict.fromkeys(("keys new", "calibrate", "refit"), (2, "ASPERITY_KEYS")), "run": (9, "[journal] path"),
    "gateway opcua": (2, "cannot be written"), "gateway mqtt": (3, "[mqtt] state_file"),
    "doctor": (1, "journal"), **dict.fromkeys(OF_FOLDER, (10, "[folder] record")),
}  # fmt: skip
NO_RUNTIME_FOLDER: End = (11, "XDG_RUNTIME_DIR")
NO_ROOM: dict[str, End] = {
    **CANNOT_WRITE, "run": (9, "[journal] path"), "gateway opcua": (2, "No space left"), "doctor": (1, "free"),
    "gateway mqtt": (0, ""),
}  # fmt: skip
UNLIMITED: dict[str, End] = {name: COMMANDS[name].end for name in ("version", "help")}


AFTER_ALL = (
    "gateway io", "camera", "camera replay", "camera live", "watch", "calibrate", "refit", "export", "evaluate",
)  # fmt: skip
"""They end with an error before they say anything on stdout."""


def nobody_reads(code: int, word: str) -> dict[str, End]:
    """Ends of the commands whose answer is lost."""
    servers = {name: (0, "") for name, command in COMMANDS.items() if command.serves}
    others = {name: COMMANDS[name].end for name in AFTER_ALL}
    return {"*": (code, word), **servers, **others}


TABLE = [
    Row("usual", ()),
    Row("usual, real", (), real=True),
    # Folders
    Row("no HOME, no entry in passwd", (user, env(HOME=None)), HOMELESS, also=("simulate", "gateway mqtt", "engines")),
    Row("no HOME, no entry in passwd, real", (user, env(HOME=None)), HOMELESS, real=True),
    Row("HOME empty", (user, env(HOME="")), HOMELESS),
    Row("HOME is /", (user, env(HOME="/")), HOMELESS),
    Row("HOME is relative", (env(HOME="home"),), no_folder("HOME=home", "HOME=home", "HOME=home")),
    Row("HOME does not exist", (plain_user, env(HOME="/nonexistent")), CANNOT_WRITE),
    Row("HOME is a file", (env(HOME="{folder}/file"), lambda box: (box.folder / "file").touch()), CANNOT_WRITE),
    Row("HOME not writable", (plain_user, folder("locked", 0o555), env(HOME="{folder}/locked")), CANNOT_WRITE),
    Row("HOME read-only", (read_only("home"),), CANNOT_WRITE),
    Row("HOME on a full disk", (full_disk("home"),), NO_ROOM),
    Row("HOME too long", (env(HOME="/tmp/" + "x" * 4000),), {
        **dict.fromkeys((*OF_KEYS, "engines", "gateway opcua"), (14, "File name too long")),
        "run": (9, "[journal] path"), "inspect, own keys": (5, "File name too long"), "doctor": (14, "too long"),
        "gateway mqtt": (3, "File name too long"), "export": COMMANDS["export"].end,
        **dict.fromkeys(OF_FOLDER, (10, "File name too long")),
    }),
    Row("XDG variables relative", (env(XDG_STATE_HOME="s", XDG_CONFIG_HOME="c", XDG_CACHE_HOME="k",
                                       XDG_RUNTIME_DIR="r"),),
        no_folder("XDG_CONFIG_HOME=c", "XDG_STATE_HOME=s", "XDG_CACHE_HOME=k", "XDG_RUNTIME_DIR=r")),
    Row("XDG variables empty", (env(XDG_STATE_HOME="", XDG_CONFIG_HOME="", XDG_CACHE_HOME="", XDG_RUNTIME_DIR=""),)),
    Row("XDG variables lead nowhere", (
        plain_user, env(XDG_STATE_HOME="/nonexistent/s", XDG_CONFIG_HOME="/nonexistent/c",
                        XDG_CACHE_HOME="/nonexistent/k", XDG_RUNTIME_DIR="/nonexistent/r")),
        {**CANNOT_WRITE, "simulate": NO_RUNTIME_FOLDER}),
    Row("a service of systemd", (
        user, env(HOME=None, XDG_RUNTIME_DIR=None, STATE_DIRECTORY="{folder}/tmp/s:/nonexistent",
                  CACHE_DIRECTORY="{folder}/tmp/c", RUNTIME_DIRECTORY="{folder}/tmp/r",
                  CONFIGURATION_DIRECTORY="{folder}/tmp/k")),
        also=("simulate", "gateway mqtt")),
    Row("all read-only", (read_only("home", "tmp", "run", "cwd"),), {
        **CANNOT_WRITE, "simulate": NO_RUNTIME_FOLDER, "camera, data set": (4, "data")}),
    Row("no /dev/shm", (lambda box: box.without("/dev/shm"),)),
    Row("TMPDIR missing", (env(TMPDIR="/nonexistent/tmp"),), {
        "camera, data set": (0, ""), "calibrate": (6, "")}, also=("simulate",)),
    Row("no temporary folder", (no_temporary_folder, read_only("cwd")), {"simulate": (14, "TMPDIR")},
        also=("simulate",)),
    Row("TMPDIR full", (full_disk("tmp"),), {
        "simulate": (11, "[journal] slots"), "camera, data set": (4, "No space"), "calibrate": (6, ""),
        "camera record": (4, "No space")},
        also=("simulate",)),
    Row("umask 0777", (plain_user, last(lambda box: os.umask(0o777))), also=("simulate",)),
    Row("umask 0", (last(lambda box: os.umask(0)),)),
    Row("working folder deleted", (lambda box: (box.folder / "cwd").rmdir(),), {
        "*": (14, "working folder"), **UNLIMITED}),
    Row("working folder not readable", (plain_user, lambda box: (box.folder / "cwd").chmod(0))),
    Row("modules' names in the working folder", (modules_in_working_folder,), also=("simulate",)),
    # Standard streams
    Row("stdin closed", (closed(0),), also=("simulate",)),
    Row("stdin is a folder", (to(0, "/"),)),
    Row("stdout closed", (closed(1),), dict.fromkeys(("camera list", *OF_FOLDER), (0, "")) | {
        "camera live": COMMANDS["camera live"].end}, also=("simulate",)),
    Row("stderr closed", (closed(2),), silent=True, also=("simulate", "watch")),
    Row("all closed", (closed(0, 1, 2),), silent=True, also=("simulate", "watch")),
    Row("all closed, real", (closed(0, 1, 2),), real=True, silent=True),
    Row("stdout a closed pipe", (broken_pipe(1),), nobody_reads(1, ""), silent=True),
    Row("stderr a closed pipe", (broken_pipe(2),), silent=True, also=("watch", "camera")),
    Row("stdout full", (to(1, "/dev/full"),), nobody_reads(14, "stdout")),
    Row("stdout full, real", (to(1, "/dev/full"),), nobody_reads(14, "stdout"), real=True),
    Row("stderr full", (to(2, "/dev/full"),), silent=True, also=("watch", "camera")),
    Row("stderr full, real", (to(2, "/dev/full"),), silent=True, real=True, also=("watch",)),
    # Text
    Row("LANG=C", (env(LANG="C", LC_ALL="C"),), real=True),
    Row("POSIX, no UTF-8", (env(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),), real=True),
    Row("Turkish", (env(LC_ALL="tr_TR.UTF-8", LANG="tr_TR"),), real=True),
    Row("LC_ALL garbage", (env(LC_ALL="xx_YY.garbage"),), real=True),
    Row("PYTHONIOENCODING=ascii", (env(PYTHONIOENCODING="ascii"),), also=("inspect",)),
    Row("no TERM", (env(TERM=None),)),
    Row("TERM=dumb, NO_COLOR, COLUMNS=1", (env(TERM="dumb", NO_COLOR="1", COLUMNS="1", LINES="0"),),
        also=("help", "inspect")),
    Row("COLUMNS garbage", (env(COLUMNS="-5", LINES="x", FORCE_COLOR="1"),), also=("help",)),
    Row("long variables", (env(LONG="x" * 100_000, XDG_DATA_DIRS=":" * 100_000),)),
    # Limits
    Row("16 files", (limit(resource.RLIMIT_NOFILE, 16),), {"*": (14, "ulimit -n"), **UNLIMITED}),
    Row("255 files", (limit(resource.RLIMIT_NOFILE, 255),), {"*": (14, "LimitNOFILE"), **UNLIMITED}),
    Row("256 files", (limit(resource.RLIMIT_NOFILE, 256),)),
    Row("1 GiB of addresses", (limit(resource.RLIMIT_AS, 1 << 30),), {
        "*": (14, "ulimit -v"), **UNLIMITED}, real=True),
    Row("no more threads", (user, limit(resource.RLIMIT_NPROC, 1)), {"*": (14, "TasksMax"), **UNLIMITED}),
    Row("small files only", (limit(resource.RLIMIT_FSIZE, 2048),), {
        "run": (9, "File too large"), "simulate": (11, "File too large"), "camera, data set": (4, "File too large"),
        **dict.fromkeys(OF_FOLDER, (10, "File too large")),
        **dict.fromkeys(("doctor", "inspect", "help of run"), (14, "ulimit -f"))}),
    Row("small stacks", (limit(resource.RLIMIT_STACK, 256 << 10),), real=True),
    Row("no locked memory, no core", (limit(resource.RLIMIT_MEMLOCK, 0), limit(resource.RLIMIT_CORE, 0))),
    # The interpreter and its libraries
    Row("python -OO", (env(PYTHONOPTIMIZE="2"),), real=True),
    Row("PYTHONWARNINGS=error", (env(PYTHONWARNINGS="error"),), real=True),
    Row("PYTHONDEVMODE", (env(PYTHONDEVMODE="1"),), real=True),
    Row("OMP_NUM_THREADS=0", (env(OMP_NUM_THREADS="0", OPENBLAS_NUM_THREADS="-1", MKL_NUM_THREADS="x"),), real=True),
    Row("OMP_NUM_THREADS huge", (env(OMP_NUM_THREADS="1000000", OPENBLAS_NUM_THREADS="1000000"),), real=True),
    Row("garbage for libraries", (env(CUDA_VISIBLE_DEVICES="x,y", LD_LIBRARY_PATH="/nonexistent:::",
                                      MALLOC_ARENA_MAX="x", OMP_WAIT_POLICY="?", PYTHONHASHSEED="0"),), real=True),
    # The system
    Row("SIGPIPE default", (lambda box: signal.signal(signal.SIGPIPE, signal.SIG_DFL),)),
    Row("nohup", (ignored(signal.SIGINT), ignored(signal.SIGHUP))),
    Row("SIGTERM ignored", (ignored(signal.SIGTERM),)),
    Row("SIGCHLD ignored", (ignored(signal.SIGCHLD),), also=("simulate",)),
    Row("all signals blocked", (lambda box: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),),
        also=("simulate", "gateway http")),
    Row("TZ garbage", (env(TZ="Mars/Olympus:/../\x01"),), real=True),
    Row("clock at 1970", (clock(1970),), also=("gateway opcua",)),
    Row("clock at 2100", (clock(2100),), also=("gateway opcua",)),
    Row("no network", (lambda box: box.own_network(),), also=("watch", "camera")),
    Row("no host name", (lambda box: box.host_name(b""),), also=("gateway opcua",)),
    Row("host name of 64 letters", (lambda box: box.host_name(b"h" * 64),), also=("gateway opcua",)),
    Row("host name not ASCII", (lambda box: box.host_name("工場\n".encode()),), also=("keys new", "gateway opcua")),
    Row("host name not UTF-8", (lambda box: box.host_name(b"pr\xfcf"),), also=("keys new", "gateway opcua")),
    Row("NOTIFY_SOCKET garbage", (env(NOTIFY_SOCKET="/nonexistent/" + "x" * 200, WATCHDOG_USEC="9" * 5000),)),
    Row("WATCHDOG_USEC=0", (env(WATCHDOG_USEC="0", WATCHDOG_PID="x"),)),
    Row("without /proc", (lambda box: box.without("/proc"),), dict.fromkeys(("run", "inspect", "score"),
                                                                            (14, "mount /proc"))),
    Row("one CPU", (lambda box: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),), also=("inspect",)),
    Row("nice 19", (lambda box: os.nice(19),)),
]  # fmt: skip
ROWS = {row.name: row for row in TABLE}


def commands_of(row: Row, whole: bool) -> list[str]:
    """The commands to run in a row: all, or the quick ones (of a real start: two).

    `doctor` says more than `version` does, and passes the same doors; where it ends otherwise, both are run.
    """
    quick = {"version", "run"} if row.real else {name for name, command in COMMANDS.items() if command.quick}
    if not (row.real or row.silent or "*" in row.ends or "doctor" in row.ends):
        quick.remove("version")
    quick |= {name for name in ("keys new", "gateway modbus") if name in row.ends}
    return [name for name in COMMANDS if whole or name in quick or name in row.also]
