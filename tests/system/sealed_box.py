"""A network, a home and a /tmp of its own for a command; afterwards, whom it called there and what it left behind.

Needs Linux's namespaces: root, or a user who may make them. Every address of the world is this box's own (a local route
for all), so that whatever is sent anywhere travels over the loopback and is seen there, and nobody answers.

    python -m tests.system.sealed_box FOLDER COMMAND ...    # within the namespaces: one JSON object on stdout, a Seen
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

from tests.places import ROOT

NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
FOLDERS = ("home", "config", "state", "cache", "run", "tmp", "out")
COVERED = ("/run", "/tmp", "/var/tmp", "/var/cache", "/dev/shm")
"""Where a library may write whatever the environment says; the home folder that the system knows of is one more."""
KEEP = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
"""Must stay visible where it lies below a covered folder."""
MS_BIND, MS_REC = 4096, 16384
ETH_P_ALL, PACKET_OUTGOING, SOL_PACKET, PACKET_STATISTICS, SO_ATTACH_FILTER = 3, 4, 263, 6, 26
TCP, UDP, DNS_PORT = 6, 17, 53
OPENING_PACKETS = (
    # One of a connection (TCP with SYN and without ACK), and all that is not TCP: so few that none is lost.
    (0x30, 0, 0, 0), (0x74, 0, 0, 4), (0x15, 0, 5, 4),  # A = version; not 4: to the line marked 6
    (0x30, 0, 0, 9), (0x15, 0, 8, TCP), (0xB1, 0, 0, 0), (0x50, 0, 0, 13), (0x05, 0, 0, 3),  # IPv4: A = flags of TCP
    (0x30, 0, 0, 6), (0x15, 0, 3, TCP), (0x30, 0, 0, 53),  # 6
    (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0),  # SYN alone: take it
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What a command did. ``code``: its exit status, ``said``: its output."""

    code: int
    said: str
    calls: list[str]
    """Each once, in order: ``tcp 127.0.0.1:5560``, ``udp 10.0.0.1:53 example.com`` (a look-up), ``58 ff02::16``."""
    lost: int
    """Packets that the recorder had no room for: with one, ``calls`` proves nothing."""
    left: list[str]
    """Files and empty folders, relative to the box's folder; those of covered folders begin with ``covered/``."""


def why_not() -> str:
    """Why no box can be had here; empty: it can."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"{program} is not there"
    tried = subprocess.run([*_unshare(), "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


def run(folder: Path, command: Sequence[str], limit_s: float) -> Seen:
    """Run ``command`` in a new box; ``folder``: an empty one, where the box's home and so on will lie.

    The command starts in ``FOLDER/out``. Its environment is the box's alone: a variable by which a pipeline is known
    would already turn some telemetry off.
    """
    inside = [*_unshare(), sys.executable, "-m", "tests.system.sealed_box", str(folder), *command]
    done = subprocess.run(inside, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
    assert done.returncode == 0, done.stderr
    return Seen(**json.loads(done.stdout))


def _unshare() -> list[str]:
    return ["unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), *NAMESPACES]


def _inside(folder: Path, command: Sequence[str]) -> Seen:
    """In the namespaces already."""
    for name in FOLDERS:
        (folder / name).mkdir(mode=0o700)
    own = {folder / name for name in FOLDERS} | _cover(folder)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for family in ("-4", "-6") if Path("/proc/net/if_inet6").exists() else ("-4",):
        subprocess.run(["ip", family, "route", "add", "local", "default", "dev", "lo"], check=True)
    recorder = Recorder()
    environment = {
        "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        **{f"XDG_{name.upper()}_HOME": str(folder / name) for name in ("config", "state", "cache")},
        "XDG_RUNTIME_DIR": str(folder / "run"),
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=folder / "out", env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    return Seen(done.returncode, done.stdout, *recorder.end(), _left(folder, own))


def _cover(folder: Path) -> set[Path]:
    """Put an empty folder over each of ``COVERED``; the empty ones, and in them the places of what stays visible."""
    mount = ctypes.CDLL(None, use_errno=True).mount
    handles = {path: os.open(path, os.O_PATH) for path in (folder, *KEEP)}

    def bind(source: str, target: Path) -> None:
        if mount(source.encode(), str(target).encode(), None, MS_BIND | MS_REC, None):
            raise OSError(ctypes.get_errno(), f"cannot put {source} over {target}")

    made = set()
    for covered in {Path(name).resolve() for name in (*COVERED, pwd.getpwuid(os.getuid()).pw_dir)}:
        if not covered.is_dir() or covered == Path("/"):
            continue
        instead = folder / "covered" / covered.relative_to("/")
        instead.mkdir(parents=True)
        made.add(instead)
        below = [path for path in handles if path.is_relative_to(covered)]
        bind(str(instead), covered)
        for path in below:
            path.mkdir(parents=True, exist_ok=True)
            bind(f"/proc/self/fd/{handles[path]}", path)
            made.add(folder / "covered" / path.relative_to("/"))
    return made


def _left(folder: Path, own: set[Path]) -> list[str]:
    """Every file and every folder without entries, but ``own``, which the box itself made."""
    leaves = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink() or not any(path.iterdir()))
    return sorted(str(path.relative_to(folder)) for path in leaves if path not in own)


class Recorder:
    """Writes down every packet by which somebody is called."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in OPENING_PACKETS))
        program = struct.pack("HP", len(OPENING_PACKETS), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        self._socket.settimeout(0.2)
        self._calls: dict[str, None] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def end(self) -> tuple[list[str], int]:
        """Calls and lost packets."""
        self._ending.set()
        self._thread.join()
        _, lost = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        return list(self._calls), lost

    def _listen(self) -> None:
        while True:
            try:
                packet, (_, _, kind, *_) = self._socket.recvfrom(65535)
            except TimeoutError:
                if self._ending.is_set():
                    return
                continue
            if kind != PACKET_OUTGOING:  # on the loopback each comes by twice
                self._calls[call_of(packet)] = None


def call_of(packet: bytes) -> str:
    """Protocol, destination and, of a look-up, the name, of an IP packet."""
    if packet[0] >> 4 == 4:
        protocol, destination, payload = packet[9], packet[16:20], packet[4 * (packet[0] & 15) :]
    else:
        protocol, destination, payload = packet[6], packet[24:40], packet[40:]
    address = str(ip_address(destination))
    if protocol not in (TCP, UDP):
        return f"{protocol} {address}"
    port = int.from_bytes(payload[2:4], "big")
    said = f"{'tcp' if protocol == TCP else 'udp'} {address}:{port}"
    return f"{said} {_question(payload[20:])}" if protocol == UDP and port == DNS_PORT else said


def _question(rest: bytes) -> str:
    """The name that a DNS message asks for, its header taken off."""
    labels = []
    while rest and rest[0]:
        labels.append(rest[1 : 1 + rest[0]].decode("ascii", "replace"))
        rest = rest[1 + rest[0] :]
    return ".".join(labels)


if __name__ == "__main__":
    json.dump(asdict(_inside(Path(sys.argv[1]), sys.argv[2:])), sys.stdout)
