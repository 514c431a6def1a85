"""A line for tests: inspector, cameras and watchers as real processes over real sockets in a folder of their own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from asperity.runtime import wire
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.frame import Frame, Result
from asperity.runtime.security.curve_keys import ClientKeys, Role, secure
from asperity.runtime.wire import StationState

CAMERA = "cam1"
STATION = "st1"
PATIENCE_S = 60.0
"""For a crowded machine; nothing here is a measurement."""
PATIENCE_MS = round(1000 * PATIENCE_S)
UNHURRIED = ClientLimits(request_tries=round(PATIENCE_MS / ClientLimits().request_timeout_ms), patience_ms=PATIENCE_MS)
"""An inspector that a crowded machine does not let run is asked again, and answers then; no gap is named before."""


class Line:
    """``station.toml``, endpoints and every process that was started; all end with the test."""

    def __init__(
        self, script: str = "ok", curve: bool = False, names: Sequence[str] = (), **sections: dict[str, Any]
    ) -> None:
        """``curve``: with keys for a camera, the recorder (read) and the customer's client (administer).

        ``names``: of several stations in the one process, whose cameras are called the same.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="asp-"))
        self.keys: dict[str, Path] = {}
        if curve:
            self.admit("camera", Role.CAMERA, Role.READ)
            self.admit("recorder", Role.READ)
            self.admit("client", Role.ADMINISTER)
            security = {"curve": True, "keys": str(self.folder / "keys"), "reload_ms": 100}
            sections = {"security": {**security, **sections.get("security", {})}, **_without(sections, "security")}
        self.ends = {name: f"ipc://{self.folder}/{name}" for name in ("frames", "results", "bulk", "control")}
        values: dict[str, dict[str, Any]] = {
            "station": {"name": STATION, "camera": CAMERA},
            "engine": {"name": "simulated", "script": script},
            # A process that stood still is no pulled cable, and its last words reach who stands still meanwhile.
            "sockets": {**self.ends, "heartbeat_timeout_ms": PATIENCE_MS, "linger_ms": PATIENCE_MS // 2},
            "journal": {"path": str(self.folder / "journal")},
            # A request is no older because a crowded machine let nobody read it.
            "control": {"request_age_max_ms": 600_000},
        }
        several = ""
        if names:
            values = _without(_without(values, "station"), "journal")
            hosted = (
                {"name": name, "number": number, "camera": name, "journal": str(self.folder / f"{name}.journal")}
                for number, name in enumerate(names, start=1)
            )
            several = "".join(_table("[stations]", station) for station in hosted)
        for section, entries in sections.items():
            values[section] = {**values.get(section, {}), **entries}
        self.config = self.folder / "station.toml"
        self.config.write_text("".join(_table(name, entries) for name, entries in values.items()) + several)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.names = tuple(names) or (STATION,)
        self.heard_of = {name: Recorder(self.ends["results"], self.keys.get("recorder"), name) for name in self.names}
        self.heard = self.heard_of[self.names[0]]
        self.starts = 0

    def admit(self, name: str, *roles: Role) -> Path:
        """Give a client a key; its file is ``keys[name]``."""
        path = ClientKeys(self.folder / "keys").admit(name, roles)[1]
        assert path is not None
        self.keys[name] = path
        return path

    def revoke(self, name: str) -> None:
        """Shut a client out."""
        ClientKeys(self.folder / "keys").revoke(name)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the inspector; its log goes to ``log``."""
        self.starts += 1
        log = (self.folder / f"log{self.starts}").open("wb")
        command = [sys.executable, "-m", "asperity.runtime.cli", "run", "--config", str(self.config), *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        self.processes.append(process)
        return process

    def log(self) -> str:
        """What the inspector started last has written."""
        return (self.folder / f"log{self.starts}").read_text()

    def child(self, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Another process, of Python source. Nobody need read what it prints: there is room for minutes of it."""
        command = [sys.executable, "-u", "-c", code, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, pipesize=1 << 20)
        self.processes.append(process)
        return process

    def await_state(self, number: int, session: str = "", station: str = "") -> StationState:
        """The first state message in this state (of a session other than ``session``), of the first station or one."""
        found: list[StationState] = []

        def come() -> bool:
            for state in self.heard_of[station or self.names[0]].states[-3:]:
                if state.state == number and state.session != session:
                    found.append(state)
            return bool(found)

        self.wait(come, f"state {number}")
        return found[-1]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Until ``condition`` holds, listening meanwhile. Fails when it never does or the inspector died."""
        ends_s = time.monotonic() + PATIENCE_S
        while not condition():
            self.listen(20)
            assert time.monotonic() < ends_s, f"{what} did not come; log:\n{self.log() if self.starts else ''}"

    def listen(self, timeout_ms: int) -> None:
        """Take in what the stations publish."""
        self.heard.listen(timeout_ms)
        for recorder in self.heard_of.values():
            recorder.listen(0)

    def client(self, since: int | None = None, station: str = "") -> StationClient:
        """The customer's subscriber."""
        key = self.keys.get("client")
        name = station or self.names[0]
        ends = self.ends["results"], self.ends["control"]
        return StationClient(*ends, station=name, since=since, limits=UNHURRIED, key=key)

    def ask(self, op: str, station: str = "", **fields: Any) -> wire.Reply:
        """One request to a station, the first unless one is named."""
        with self.client(station=station) as client:
            return client.request(op, **fields)

    def journal(self, station: str = "") -> dict[int, Result]:
        """Every result that a station's journal has, of the running inspector."""
        with self.client(station=station) as client:
            return _journal(client)

    def settle(self, camera: Camera) -> dict[int, Result]:
        """Wait until the camera's last frame is answered; its station's journal then.

        The last frame must have been sent: of one that was not, nobody knows before the next. One connection asks a
        few times a second, which every limit allows.
        """
        results: dict[int, Result] = {}
        states = self.heard_of[camera.station].states
        with self.client(station=camera.station) as client:

            def answered() -> bool:
                time.sleep(0.1)
                results.update(_journal(client))
                return any((r.camera_session, r.seq) == (camera.camera_session, camera.seq) for r in results.values())

            self.wait(answered, "the last frame's result")
        self.wait(lambda: states[-1].last_result_id >= max(results), "a state that has counted it")
        self.wait(lambda: states[-1].in_flight == 0, "the results of the others")
        return self.journal(camera.station)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_S)
            if process.stdout is not None:
                process.stdout.close()
        for recorder in self.heard_of.values():
            recorder.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Recorder:
    """A plain subscriber to one station that keeps everything and recovers nothing."""

    def __init__(self, endpoint: str, key: Path | None = None, station: str = STATION) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        secure(self._socket, key)
        self._socket.setsockopt(zmq.RCVHWM, 100_000)
        self._socket.setsockopt(zmq.LINGER, 0)
        for kind in ("result", "state", "event"):
            self._socket.setsockopt(zmq.SUBSCRIBE, wire.topic(kind, station))
        self._socket.connect(endpoint)
        self.results: list[Result] = []
        self.states: list[StationState] = []
        self.events: list[wire.Event] = []

    def listen(self, timeout_ms: int) -> None:
        """Take in what has come, waiting at most ``timeout_ms`` for the first."""
        self._socket.poll(timeout_ms)
        while self._socket.poll(0):
            parts = self._socket.recv_multipart()
            kind = wire.split_topic(parts[0])[0]
            if kind == "result":
                self.results.append(wire.decode_result(parts))
            elif kind == "state":
                self.states.append(wire.decode_state(parts))
            else:
                self.events.append(wire.decode_event(parts))

    def close(self) -> None:
        self._context.destroy(linger=0)


class Camera(FrameSender):
    """A sender of small frames, no two alike."""

    def __init__(
        self, line: Line, seed: int = 0, triggered: bool = False, key: str = "camera", station: str = STATION
    ) -> None:
        """``station``: one of several, whose camera is called the same."""
        self.station = station
        self.name = CAMERA if station == STATION else station
        super().__init__(
            self.name,
            line.ends["frames"],
            station=station,
            results_endpoint=line.ends["results"] if triggered else "",
            key=line.keys.get(key),
        )
        self._rng = np.random.default_rng(seed)

    def picture(self) -> Frame:
        return Frame(
            camera=self.name,
            camera_session=self.camera_session,
            seq=0,
            rgb=self._rng.integers(0, 256, (24, 32, 3), dtype=np.uint8),
            xyz=self._rng.normal(size=(24, 32, 3)).astype(np.float32),
            unit="mm",
            t_exposure_us=time.time_ns() // 1000,
            clock="realtime",
        )

    def deliver(self) -> None:
        """Send a frame that is taken, however slow the machine. A connection that is cut just then costs a seq more."""
        taken = False
        while not taken:
            assert self.wait_connected(PATIENCE_MS), "nobody takes frames"
            taken = self.send(self.picture())

    def stream(self, line: Line, count: int, interval_ms: int, until: Callable[[], bool] | None = None) -> None:
        """Send ``count`` frames, or until a condition holds, listening to the results meanwhile."""
        for _ in range(count):
            if until is not None and until():
                return
            self.deliver()
            ends_s = time.monotonic() + interval_ms / 1000
            while (left_s := ends_s - time.monotonic()) > 0:
                line.listen(round(1000 * left_s))


CAMERA_CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tests.system.line import Camera, Line
class Ends:
    ends = {"frames": sys.argv[2]}
    keys = {}
camera = Camera(Ends(), seed=int(sys.argv[3]))
camera.wait_connected(30000)
while True:
    camera.send(camera.picture())
    # In one piece: a kill between two writes would leave half a line.
    sys.stdout.write(f"{camera.camera_session} {camera.seq}\\n")
    time.sleep(0.02)
"""


def _journal(client: StationClient) -> dict[int, Result]:
    results: dict[int, Result] = {}
    next_id: int | None = 1
    while next_id is not None:
        reply = client.request("get_result", from_=next_id)
        assert reply.ok, reply
        for result in wire.reply_results(reply):
            results[result.result_id] = result
        next_id = reply.next_result_id
    return results


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9."""
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_S)


def _without(sections: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: entries for key, entries in sections.items() if key != name}


def _table(name: str, entries: dict[str, Any]) -> str:
    rows = "".join(f"{key} = {_value(value)}\n" for key, value in entries.items())
    return f"[{name}]\n{rows}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
