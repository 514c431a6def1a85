"""A station that asks everybody for a key: who may is served as before, who may not is refused, logged and counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from asperity.runtime import wire
from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import AccessError, StationError
from asperity.runtime.frame import Frame, Result
from asperity.runtime.security.curve_keys import ClientKeys, Role, read_client_key
from asperity.testing import CAMERA, PATIENCE_MS, STATION, UNHURRIED, Camera, Line

pytestmark = pytest.mark.usefixtures("forked_starts")

RUNNING = 8
HASTY = ClientLimits(request_timeout_ms=300, request_tries=2)
PATIENT = {"deadline_ms": 60_000, "max_age_ms": 60_000, "queue_length": 16}
MIXED = "ok ok ng shape ok nan"


def judged(line: Line, count: int) -> list[tuple[object, ...]]:
    """What the customer's client is told of ``count`` frames: everything that does not depend on the clock."""
    with line.client() as station, Camera(line, seed=4) as camera:
        station.await_state(PATIENCE_MS)
        line.await_state(RUNNING)
        assert camera.wait_connected(PATIENCE_MS)
        line.stream(camera, count, interval_ms=30)
        told: list[Result] = []
        for item in station.results(idle_timeout_s=30):
            assert not isinstance(item, Gap)
            told.append(item)
            if len(told) == count:
                break
    return [(r.result_id, r.seq, r.verdict, r.reason, r.score, r.threshold, r.region, r.accept) for r in told]


def test_results_over_curve_are_those_of_a_plain_station() -> None:
    rows = []
    for curve in (False, True):
        with Line(MIXED, curve=curve, limits=PATIENT) as line:
            line.start()
            rows.append(judged(line, 12))
    assert rows[0] == rows[1]
    assert len({row[3] for row in rows[0]}) > 2


class Attempt:
    """One more socket, with any key or none."""

    def __init__(self, kind: int, endpoint: str, key: Path | None) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        if kind == zmq.PUSH:
            self.socket.setsockopt(zmq.IMMEDIATE, 1)
        elif kind == zmq.SUB:
            self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        if key is not None:
            read_client_key(key).secure(self.socket)
        self.socket.connect(endpoint)

    def close(self) -> None:
        self.context.destroy(linger=0)


def stranger(folder: Path, line: Line) -> Path:
    """A key of which this station never heard, but which knows the station's."""
    path = ClientKeys(folder / "elsewhere").admit("plc1", (Role.ADMINISTER, Role.CAMERA))[1]
    assert path is not None
    content = json.loads(path.read_text())
    content["station_key"] = ClientKeys(line.folder / "keys").station().public_key
    path.write_text(json.dumps(content))
    return path


def test_whoever_may_not_is_refused_logged_and_counted_and_the_station_goes_on(tmp_path: Path) -> None:
    with Line("ok", curve=True, limits=PATIENT) as line, Camera(line) as camera:
        gone = line.admit("gone", Role.ADMINISTER, Role.CAMERA)
        reader = line.admit("reader", Role.READ)
        unknown = stranger(tmp_path, line)
        line.revoke("gone")
        line.start()
        line.await_state(RUNNING)
        assert camera.wait_connected(PATIENCE_MS)
        attempts = [
            Attempt(kind, line.ends[name], key)
            for key in (None, unknown, gone)
            for kind, name in ((zmq.PUSH, "frames"), (zmq.SUB, "results"), (zmq.SUB, "bulk"))
        ]
        attempts.append(Attempt(zmq.PUSH, line.ends["frames"], reader))
        for name in ("results", "bulk"):
            attempts.append(Attempt(zmq.SUB, line.ends[name], line.admit(f"camera-{name}", Role.CAMERA)))
        for key in (None, unknown, gone, line.keys["camera-bulk"]):
            ends = line.ends["results"], line.ends["control"]
            with StationClient(*ends, station=STATION, limits=HASTY, key=key) as client:
                with pytest.raises(StationError, match="no answer to get_state"):
                    client.request("get_state")
                assert client.state is None
        ends = line.ends["results"], line.ends["control"]
        with StationClient(*ends, station=STATION, limits=UNHURRIED, key=reader) as client:
            for op in ("stop", "shutdown", "halt", "abort"):
                reply = client.request(op)
                assert (reply.ok, reply.code) == (False, "NOT_ALLOWED")
            reply = client.request("set_threshold", threshold=1e6)
            assert (reply.ok, reply.code) == (False, "NOT_ALLOWED")
            assert client.request("get_state").ok
        line.stream(camera, 10, interval_ms=20)

        def counted() -> bool:
            refused = line.heard.states[-1].access_refused if line.heard.states else {}
            wanted = {"HANDSHAKE": 4, "UNKNOWN_KEY": 4, "REVOKED_KEY": 4, "WRONG_SOCKET": 3, "ROLE": 5}
            return all(refused.get(reason, 0) >= count for reason, count in wanted.items())

        line.wait(counted, "every refusal in the state")
        line.wait(lambda: line.heard.states[-1].ok == 10, "every frame judged")
        assert line.heard.states[-1].state == RUNNING and line.heard.states[-1].balanced
        for attempt in attempts:
            assert not attempt.socket.poll(0, zmq.POLLIN if attempt.socket.type == zmq.SUB else zmq.POLLOUT)
            attempt.close()
        log = line.log()
        for words in ("UNKNOWN_KEY", "REVOKED_KEY gone", "WRONG_SOCKET reader", "ROLE reader", "HANDSHAKE somebody"):
            assert f"REFUSED {words}" in log, log
        codes = {event.code for event in line.heard.events}
        assert "REFUSED ROLE reader" in codes
        secrets = [read_client_key(key).secret_key for key in [*line.keys.values(), unknown]]
        secrets.append(ClientKeys(line.folder / "keys").station().secret_key)
        heard = log + repr(line.heard.states) + repr(line.heard.events)
        assert len(set(secrets)) == 9 and not [secret for secret in secrets if secret in heard]


def test_a_revoked_client_is_cut_off_and_nobody_else_misses_a_result() -> None:
    with Line("ok", curve=True) as line, Camera(line) as camera, line.client() as station:
        spy = line.admit("spy", Role.READ)
        thief = line.admit("thief", Role.CAMERA)
        operator = line.admit("operator", Role.OPERATE)
        line.start()
        line.await_state(RUNNING)
        station.await_state(PATIENCE_MS)
        assert camera.wait_connected(PATIENCE_MS)
        subscriber, pusher = Attempt(zmq.SUB, line.ends["results"], spy), Camera(line, key="thief")
        ends = line.ends["results"], line.ends["control"]
        asker = StationClient(*ends, station=STATION, limits=UNHURRIED, key=operator)
        assert thief.exists() and asker.request("get_state").ok
        line.wait(lambda: bool(subscriber.socket.poll(0)), "the spy to hear something")
        assert pusher.wait_connected(PATIENCE_MS)
        line.stream(camera, 10, interval_ms=20)

        line.revoke("spy")
        line.revoke("thief")
        line.revoke("operator")
        # Whoever is refused has been cut off, and then has all that it was sent before.
        lines = [f"REFUSED REVOKED_KEY {name}" for name in ("spy", "thief")]
        line.stream(camera, 3000, interval_ms=20, until=lambda: all(text in line.log() for text in lines))
        assert all(text in line.log() for text in lines), "they did not come back to be refused"
        while subscriber.socket.poll(0):
            subscriber.socket.recv_multipart()
        assert not pusher.wait_connected(0)
        line.wait(lambda: asker.request("get_state").code == "NOT_ALLOWED", "the refusal of the request")
        line.stream(camera, 20, interval_ms=20)
        assert not subscriber.socket.poll(500), "the revoked subscriber still hears"
        assert not pusher.send(pusher.picture())

        wanted = line.settle(camera)
        told = []
        for item in station.results(idle_timeout_s=30):
            told.append(item)
            if not isinstance(item, Gap) and item.seq == camera.seq:
                break
        assert not [item for item in told if isinstance(item, Gap)]
        assert [item.result_id for item in told if not isinstance(item, Gap)] == sorted(wanted)
        assert {r.camera_session for r in wanted.values()} == {camera.camera_session}
        for end in (subscriber, pusher, asker):
            end.close()


def test_a_new_key_of_an_old_name_does_not_revive_the_old_connection() -> None:
    with Line("ok", curve=True) as line:
        old = line.admit("plc1", Role.OPERATE)
        line.start()
        line.await_state(RUNNING)
        ends = line.ends["results"], line.ends["control"]
        with StationClient(*ends, station=STATION, limits=UNHURRIED, key=old) as client:
            assert client.request("get_state").ok
            line.revoke("plc1")
            old.rename(old.with_suffix(".old"))
            new = line.admit("plc1", Role.OPERATE)
            line.wait(lambda: client.request("get_state").code == "NOT_ALLOWED", "the refusal of the old key")
            # If it connects before the station has read its key it is let in after handshake_ms.
            with StationClient(*ends, station=STATION, limits=UNHURRIED, key=new) as successor:
                line.wait(lambda: successor.request("get_state").ok, "the new key's answer")
            assert client.request("get_state").code == "NOT_ALLOWED"


def test_a_key_folder_that_cannot_be_believed_lets_nobody_in_until_it_is_repaired() -> None:
    with Line("ok", curve=True) as line:
        line.start()
        line.await_state(RUNNING)
        allowed = line.folder / "keys" / "transport" / "allowed"
        with line.client() as client:
            assert client.request("get_state").ok
            allowed.chmod(0o770)
            line.wait(lambda: client.request("get_state").code == "NOT_ALLOWED", "the refusal")
            line.wait(lambda: "all connections are refused" in line.log(), "a line that says why")
            allowed.chmod(0o700)
            line.wait(lambda: client.request("get_state").ok, "the answer")
            repaired = client.request("get_state").state
            assert repaired is not None
        # A state from before it was cut off may be unread still.
        line.wait(lambda: line.heard.states[-1].beat > repaired.beat, "the recorder to be let in again")
        assert "KEYS" not in line.heard.states[-1].alarms


def test_a_client_that_floods_is_answered_busy_and_the_others_are_served() -> None:
    limits = {"requests_per_s": 50}
    with (
        Line("ok", curve=True, security=limits, limits=PATIENT) as line,
        Camera(line) as camera,
        line.client() as client,
    ):
        flooder = line.admit("flooder", Role.READ)
        line.start()
        line.await_state(RUNNING)
        assert camera.wait_connected(PATIENCE_MS)
        with closing(Attempt(zmq.DEALER, line.ends["control"], flooder)) as attempt:
            codes = set()
            for number in range(2000):
                attempt.socket.send(wire.encode_request(wire.Request(id=f"f{number}", op="get_state")))
                if number % 100 == 0:
                    assert camera.send(camera.picture(), wait_ms=PATIENCE_MS)
                    assert client.request("get_state").ok

            def told() -> bool:
                while attempt.socket.poll(0):
                    codes.add(wire.decode_reply(attempt.socket.recv_multipart()[-1]).code)
                return len(codes) >= 2

            line.wait(lambda: line.heard.states[-1].access_refused.get("RATE", 0) > 1000, "the count of the flood")
            line.wait(told, "answers of both kinds")
            assert codes == {"OK", "BUSY"}
            assert client.request("get_state").ok
        results = line.settle(camera)
        assert {result.reason.name for result in results.values()} <= {"GOOD", "OVERLOAD"}


def test_a_frame_of_20_mb_comes_through() -> None:
    with Line("ok", curve=True, limits=PATIENT) as line, Camera(line) as camera:
        line.start()
        line.await_state(RUNNING)
        assert camera.wait_connected(PATIENCE_MS)
        rng = np.random.default_rng(1)
        large = Frame(
            camera=CAMERA,
            camera_session=camera.camera_session,
            seq=0,
            rgb=rng.integers(0, 256, (1024, 1280, 3), dtype=np.uint8),
            xyz=rng.normal(size=(1024, 1280, 3)).astype(np.float32),
            unit="mm",
            t_exposure_us=time.time_ns() // 1000,
            clock="realtime",
        )
        assert camera.send(large)
        line.wait(lambda: bool(line.heard.results), "the result")
        assert line.heard.results[0].reason.name == "GOOD"


def test_commands_take_a_key_file_and_never_the_key_itself(tmp_path: Path) -> None:
    cli = [sys.executable, "-m", "asperity.runtime.cli"]
    watch = [*cli, "watch", "state", "--count", "1", "--json", "--seconds", "30"]
    with Line("ok", curve=True) as line:
        line.start()
        line.await_state(RUNNING)
        ends = ["--results", line.ends["results"], "--bulk", line.ends["bulk"]]
        environment = {**os.environ, "ASPERITY_CLIENT_KEY": str(line.keys["recorder"])}
        said = subprocess.run([*watch, *ends], env=environment, capture_output=True, timeout=60, check=True).stdout
        assert json.loads(said)["station"] == STATION
        missing = str(tmp_path / "nobody.key")
        ended = subprocess.run([*watch, *ends, "--key", missing], capture_output=True, timeout=60, check=False)
        assert ended.returncode == AccessError.exit_code and missing.encode() in ended.stderr
        exposed = tmp_path / "exposed.key"
        exposed.write_bytes(line.keys["camera"].read_bytes())
        exposed.chmod(0o644)
        camera = [*cli, "camera", "virtual", "--frames", "1", "--key", str(exposed)]
        ended = subprocess.run(camera, capture_output=True, timeout=60, check=False)
        assert ended.returncode == AccessError.exit_code and b"chmod 600" in ended.stderr
        assert read_client_key(line.keys["camera"]).secret_key.encode() not in ended.stderr + ended.stdout


def test_a_station_does_not_start_with_a_key_that_others_can_read() -> None:
    with Line("ok", curve=True) as line:
        (line.folder / "keys" / "transport" / "station.key").chmod(0o640)
        assert line.start().wait(60) == AccessError.exit_code
        assert "others could pose as this station" in line.log()


def test_the_audit_file_says_who_asked_what_and_outlives_the_inspector() -> None:
    with Line("ok", curve=True, limits=PATIENT) as line:
        path = line.folder / f"{STATION}.audit.jsonl"
        process = line.start()
        line.await_state(RUNNING)
        with line.client() as station:
            assert station.request("stop", actor="opcua ann").ok

        def stopped() -> list[dict[str, Any]]:
            return [entry for entry in map(json.loads, path.read_text().splitlines()) if entry["op"] == "stop"]

        line.wait(lambda: bool(stopped()), "the entry")
        process.kill()
        (entry,) = stopped()
        assert (entry["code"], entry["station"]) == ("OK", STATION)
        assert (entry["actor"]["name"], entry["actor"]["says"]) == ("client", "opcua ann") and entry["actor"]["key"]
        logged_in = {entry["actor"]["name"] for entry in map(json.loads, path.read_text().splitlines())}
        assert {"client", "recorder"} <= logged_in
        assert path.stat().st_mode & 0o777 == 0o600
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
        process = line.start()
        assert process.wait(PATIENCE_MS / 1000) == 19
        assert "is a link; remove it" in line.log() and "Traceback" not in line.log()
