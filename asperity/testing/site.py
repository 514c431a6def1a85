"""One inspector in a temporary folder: its ``station.toml``, endpoints, keys, log and processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import StationError
from asperity.runtime.process.child import Child
from asperity.runtime.security.curve_keys import ClientKeys, Role
from asperity.runtime.states import JUDGING
from asperity.runtime.wire import StationState

STATION = "st1"
CAMERA = "cam1"
PATIENCE_S = 60.0
"""Longest wait for anything; for a crowded machine, and not a measurement."""
PORT_SHARES = 64
"""The range of free ports is divided into this many parts; a process uses one of them."""
PATIENCE_MS = round(1000 * PATIENCE_S)
UNHURRIED = ClientLimits(request_tries=round(PATIENCE_MS / ClientLimits().request_timeout_ms), patience_ms=PATIENCE_MS)
"""An inspector that a crowded machine does not let run is asked again, and answers then; no gap is named before."""
COMPLETE_MS = 600_000
"""Of a combined station: above any sum of a timeout and a deadline that a test sets."""
LOG_SHOWN = 10_000
"""Characters of a log, the last ones, that an error shows."""
ENDS = ("frames", "results", "bulk", "control")
ASPERITY = (
    "from asperity.runtime.process.child import end_with_parent; end_with_parent(); "
    "import sys; sys.argv[0] = 'asperity'; from asperity.runtime.cli import main; main()"
)
PATIENT: dict[str, dict[str, Any]] = {
    # A process that stood still is no pulled cable, and its last words reach who stands still meanwhile.
    "sockets": {"heartbeat_timeout_ms": PATIENCE_MS, "linger_ms": PATIENCE_MS // 2},
    # A request is no older because a crowded machine let nobody read it.
    "control": {"request_age_max_ms": 600_000},
}
S = TypeVar("S", bound="Site")


class Site:
    """An inspector that is started, stopped, killed and restarted on the same folder. For a ``with``."""

    def __init__(
        self,
        script: str = "ok",
        curve: bool = False,
        names: Sequence[str] = (),
        *,
        combined: str = "",
        bundle: Path | None = None,
        tcp: bool = False,
        patient: bool = True,
        log: Path | None = None,
        **sections: Mapping[str, Any],
    ) -> None:
        """Make the folder; nothing runs yet.

        ``script``: what the simulated engine says of frame after frame that says nothing itself, ``"ok ng"`` in turn,
        ``"ok=200"`` after 200 ms (docs/station.md). ``bundle``: inspect by it instead, with ``engine={"name": ...}``.
        ``curve``: with keys for a camera, a recorder (read) and a client (administer). ``names``: of several stations
        in the one process, whose cameras are called the same. ``combined``: of a combined station whose views they are,
        with software triggers. ``tcp``: free ports of this computer instead of ipc.
        ``patient``: with waits that suit a crowded machine; False: station.toml's defaults. ``log``: file for what the
        inspector prints, instead of one per start in the folder. ``sections``: tables of station.toml.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="asp-"))
        self.keys: dict[str, Path] = {}
        """Client's name -> its key file."""
        self.names = tuple(names) or (STATION,)
        self.cameras = {name: name for name in names} or {STATION: CAMERA}
        """Station's name -> its camera's."""
        self.all_names = (*self.names, combined) if combined else self.names
        """With the combined station, last."""
        self.bundle, self.patient = bundle, patient
        self.processes: list[subprocess.Popen[bytes]] = []
        """Processes that end with the site; one started by the test may be added."""
        self._inspector: Child | None = None
        self._log = log
        self._numbers = count(1)
        where = _free_ports() if tcp else {name: f"ipc://{self.folder}/{name}" for name in ENDS}
        self.ends = where | {name: end for name, end in sections.get("sockets", {}).items() if name in ENDS and end}
        values: dict[str, dict[str, Any]] = {"sockets": dict(self.ends)}
        if not names:
            values |= {
                "station": {"name": STATION, "camera": CAMERA}, "journal": {"path": str(self.folder / "journal")}
            }  # fmt: skip
        if bundle is None:
            values["engine"] = {"name": "simulated", "script": script}
        if curve:
            self.admit("camera", Role.CAMERA, Role.READ)
            self.admit("recorder", Role.READ)
            self.admit("client", Role.ADMINISTER)
            values["security"] = {"curve": True, "keys": str(self.folder / "keys"), "reload_ms": 100}
        for more in (PATIENT if patient else {}, sections):
            for section, entries in more.items():
                values[section] = {**values.get(section, {}), **entries}
        several = [
            {"name": name, "number": number, "camera": name, "journal": str(self.folder / f"{name}.journal")}
            | ({"triggers": "software"} if combined else {})
            for number, name in enumerate(names, start=1)
        ]
        above = {"name": combined, "views": list(names), "journal": str(self.folder / f"{combined}.journal"),
                 "complete_ms": COMPLETE_MS}  # fmt: skip
        self.config = self.folder / "station.toml"
        tables = [_table(name, entries) for name, entries in values.items()]
        self.config.write_text("".join([*tables, *(_table("[stations]", station) for station in several),
                                       *([_table("[combined]", above)] if combined else [])]))  # fmt: skip

    def admit(self, name: str, *roles: Role) -> Path:
        """Give a client a key; its file is ``keys[name]``."""
        path = ClientKeys(self.folder / "keys").admit(name, roles)[1]
        assert path is not None
        self.keys[name] = path
        return path

    def revoke(self, name: str) -> None:
        """Shut a client out."""
        ClientKeys(self.folder / "keys").revoke(name)

    def command(self, *arguments: str) -> list[str]:
        """The command line that ``start`` runs."""
        judge = () if self.bundle is None else (str(self.bundle),)
        return [sys.executable, "-c", ASPERITY, "run", *judge, "--config", str(self.config), *arguments]

    def start(self, *arguments: str) -> Child:
        """Start the inspector, with more arguments of ``asperity run``; ``await_running`` waits for it."""
        self._inspector = self._spawn(self.command(*arguments), "inspector", self._log)
        return self._inspector

    @property
    def inspector(self) -> Child:
        """The inspector started last. Raises StationError when none was."""
        if self._inspector is None:
            raise StationError("the inspector was not started; call start()")
        return self._inspector

    def asperity(self, *arguments: str) -> Child:
        """Start another command of ``asperity``, such as ``gateway`` or ``watch``."""
        return self._spawn([sys.executable, "-c", ASPERITY, *arguments], arguments[0])

    def spawn(self, *command: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start any program; what it prints is its ``log()``. It ends with the ``with``."""
        return self._spawn(command, Path(command[0]).name, environment=environment)

    def kill(self) -> None:
        """kill -9 of the inspector."""
        self.inspector.kill()

    def stop(self) -> int:
        """End the inspector in order; its exit code, 0 where all is well."""
        return self.inspector.end(PATIENCE_S)

    def log(self) -> str:
        """Output of the last started inspector."""
        return self._inspector.log() if self._inspector is not None else ""

    def await_running(self, timeout_s: float = PATIENCE_S) -> list[StationState]:
        """Wait until every station judges; returns the states. Raises StationError if it ends or time is up."""
        states = []
        for name in self.all_names:
            with self.client(station=name) as client:
                states.append(self.await_judging(client, timeout_s))
        return states

    def await_judging(self, client: StationClient, timeout_s: float = PATIENCE_S) -> StationState:
        """Wait until a client sees its station judge. Raises as ``await_running``."""

        def judges() -> bool:
            if self.inspector.poll() is not None:
                code = self.inspector.returncode
                raise StationError(f"the inspector ended with exit code {code}; its log:\n{self._said()}")
            client.poll(50)
            return client.state is not None and client.state.state in JUDGING

        self.wait(judges, f"a running station {client.station}", timeout_s)
        return client.await_state(0)

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until ``condition`` holds. Raises StationError when it never does."""
        ends_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > ends_s:
                raise StationError(f"{what} did not come in {timeout_s:.0f} s; the inspector's log:\n{self._said()}")
            self.listen(20)

    def listen(self, timeout_ms: int) -> None:
        """Let time pass between two checks of a condition."""
        time.sleep(timeout_ms / 1000)

    def client(self, since: int | None = None, station: str = "") -> StationClient:
        """A customer's client of a station, the first unless one is named."""
        limits = UNHURRIED if self.patient else None
        ends = self.ends["results"], self.ends["control"]
        key = self.keys.get("client")
        return StationClient(*ends, station=station or self.names[0], since=since, limits=limits, key=key)

    def close(self) -> None:
        """End every process and remove the folder."""
        for process in self.processes:
            process.kill()
            with process:  # waits, and closes its pipes
                pass
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _said(self) -> str:
        return self.log()[-LOG_SHOWN:]

    def _spawn(
        self, command: Sequence[str], name: str, log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Child:
        log = log or self.folder / f"{name}{next(self._numbers)}.log"
        process = Child(command, log=log, environment=environment)
        self.processes.append(process)
        return process


def _free_ports() -> dict[str, str]:
    return {name: f"tcp://127.0.0.1:{free_port()}" for name in ENDS}


_ports = count(random.SystemRandom().randrange(10_000))


def free_port() -> int:
    """A free TCP port outside the kernel's automatic range.

    Processes look in different parts of it, each from one port to the next, so that no two are given the same port
    before it is bound.
    """
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = kernels // 2 // PORT_SHARES
    first = kernels // 2 + os.getpid() % PORT_SHARES * ports
    while True:
        port = first + next(_ports) % ports
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _table(name: str, entries: Mapping[str, Any]) -> str:
    """A table of TOML; its plain values are written as JSON's are."""
    rows = "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
    return f"[{name}]\n{rows}"
