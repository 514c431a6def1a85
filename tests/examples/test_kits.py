"""The client kits against a live station: they print what the Python client saw, and what they send is judged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from asperity.runtime import wire
from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from asperity.runtime.wire import ReceivedResult
from asperity.testing import CAMERA, PATIENCE_S, Line
from tests.places import EXAMPLES

pytestmark = pytest.mark.usefixtures("forked_starts")

LINES = 250
"""More than a kit may find waiting that a crowded machine did not let run: what has waited is not let pass."""
DROP_EACH = 7
"""Of so many results one does not reach the kits."""
SCRIPT = "ok ng shape ok STALE ok LOST nan DUPLICATE_SEQ ok REFUSED_MESSAGE WRONG_RECIPE ok TOO_FEW_POINTS ok"
KITS = ["python", pytest.param("node", marks=pytest.mark.foreign), pytest.param("c", marks=pytest.mark.foreign)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c")


def command(kit: str, program: str, built: Path) -> list[str]:
    """How the kit's program is started; skips where its toolchain is absent."""
    if kit == "python":
        return [sys.executable, str(EXAMPLES / "python" / f"{program}.py")]
    if kit == "node":
        if shutil.which("node") is None or not (EXAMPLES / "node" / "node_modules" / "zeromq").exists():
            pytest.skip("node or its zeromq is not there: make foreign-tools")
        return ["node", str(EXAMPLES / "node" / f"{program}.mjs")]
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is there: make foreign-tools")
    probe = subprocess.run(
        [compiler, "-E", "-x", "c", "-"], input=b"#include <zmq.h>\n", capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip("zmq.h is not there: make foreign-tools (libzmq3-dev)")
    warnings = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", f"-I{EXAMPLES / 'generated'}"]
    source = EXAMPLES / "c" / f"{program}.c"
    subprocess.run([compiler, *warnings, str(source), "-lzmq", "-o", str(built / program)], check=True)
    return [str(built / program)]


class Lossy(threading.Thread):
    """Passes the station's messages on and loses some results, as PUB may."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__(daemon=True)
        self.context = zmq.Context()
        self.sub, self.pub = self.context.socket(zmq.SUB), self.context.socket(zmq.PUB)
        self.sub.subscribe(b"")
        for socket in (self.sub, self.pub):
            socket.set_hwm(100_000)
            socket.setsockopt(zmq.LINGER, 0)
        self.sub.connect(source)
        self.pub.bind(target)
        self.records: dict[int, wire.Record] = {}
        self.ending = False

    def run(self) -> None:
        while not self.ending:
            if not self.sub.poll(20):
                continue
            parts = self.sub.recv_multipart()
            result_id = 0
            if parts[0].startswith(b"result/"):
                result_id = wire.decode_result(parts).result_id
            elif parts[0].startswith(b"record/"):
                record = wire.decode_record_message(parts)[1]
                result_id = record.result_id
                self.records[result_id] = record
            if result_id == 0 or result_id % DROP_EACH:
                self.pub.send_multipart(parts)

    def close(self) -> None:
        self.ending = True
        self.join()
        self.context.destroy(linger=0)


class Simulated:
    """`asperity simulate` in a folder of its own, a lossy link beside it, and what the Python client saw."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="asp-"))
        self.ends = {name: f"ipc://{self.folder}/{name}" for name in ("frames", "results", "bulk", "control", "lossy")}
        where = [f"--{name}={end}" for name, end in self.ends.items() if name != "lossy"]
        start = [sys.executable, "-m", "asperity.runtime.cli", "simulate", "--log-level=error", "--rate=100", *where]
        self.process = subprocess.Popen([*start, f"--script={SCRIPT}", "--deadline-ms=5000"], stdout=subprocess.PIPE)
        self.lossy = Lossy(self.ends["results"], self.ends["lossy"])
        self.lossy.start()
        self.client = StationClient(self.ends["results"], self.ends["control"], station="st1", since=1)
        self.seen: dict[int, ReceivedResult] = {}

    def listen_until(self, ended: subprocess.Popen[bytes]) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while ended.poll() is None:
            assert time.monotonic() < ends_s, "the kit does not end"
            self.listen(20)

    def listen(self, timeout_ms: int) -> None:
        for item in self.client.poll(timeout_ms):
            assert not isinstance(item, Gap), item
            self.seen[item.result_id] = item

    def close(self) -> None:
        self.client.close()
        self.lossy.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def station() -> Iterator[Simulated]:
    made = Simulated()
    yield made
    made.close()


@pytest.mark.parametrize("kit", KITS)
def test_a_subscriber_shows_every_result_once_as_the_python_client_saw_it(
    kit: str, station: Simulated, built: Path
) -> None:
    start = command(kit, "subscribe", built)
    where = [station.ends["lossy"]] + ([] if kit == "c" else [station.ends["control"]])
    with (station.folder / kit).open("wb") as out:
        process = subprocess.Popen([*start, *where, "st1", str(LINES), "simulated"], stdout=out)
    try:
        station.listen_until(process)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    lines = [json.loads(line) for line in (station.folder / kit).read_text().splitlines()]
    last_id = max(line.get("result_id", 0) for line in lines)
    ends_s = time.monotonic() + PATIENCE_S
    while last_id not in station.seen or last_id not in station.lossy.records:
        station.listen(20)
        assert time.monotonic() < ends_s
    results = [line for line in lines if "result_id" in line]
    told = [line["result_id"] if "result_id" in line else line["gap"] for line in lines]
    assert len(results) >= LINES - (kit != "c") * 5 and len(set(told)) == len(told), "none twice"
    unnamed = set(range(min(told), max(told) + 1)) - set(told)
    still = {number for number in unnamed if number % DROP_EACH == 0 or number > max(told) - 20}
    assert unnamed == still, "what the link lost and is still asked for, or what was in work at the end"
    assert not unnamed & {line["result_id"] for line in results}
    for line in results:
        (_same_record if kit == "c" else _same_result)(line, station)
    assert any(line["pass"] for line in results), "a good part of a trusted station"
    assert all(line["reason_code"] == Reason.GOOD for line in results if line["pass"])
    dropped = [number for number in told if number % DROP_EACH == 0]
    assert dropped, "the link lost some"
    gaps = [line["gap"] for line in lines if "gap" in line]
    if kit == "c":  # without the journal; what was in work as it joined may have been told just before
        assert {gap for gap in gaps if gap > results[0]["result_id"]} <= set(dropped), "only what the link lost"
    else:
        assert gaps == [], "the journal brings back what the link lost"


def _same_result(line: dict[str, Any], station: Simulated) -> None:
    line = dict(line)
    line.pop("pass")
    assert wire.decode_result_body(json.dumps(line).encode()) == station.seen[line["result_id"]]
    published = json.loads(wire.encode_result_body(station.seen[line["result_id"]]))
    assert line == published, "every field that was published"


def _same_record(line: dict[str, Any], station: Simulated) -> None:
    record = station.lossy.records[line["result_id"]]
    result = station.seen[line["result_id"]]
    for name in wire.Record.__dataclass_fields__:
        assert line[name] == getattr(record, name), name
    assert (line["verdict"], line["seq"], line["trigger_id"]) == (result.verdict, result.seq, result.trigger_id)
    assert line["reason"] == result.reason.name


def test_a_subscriber_lets_nothing_simulated_pass(station: Simulated, built: Path) -> None:
    start = [*command("python", "subscribe", built), station.ends["lossy"], station.ends["control"], "st1", "40"]
    lines = subprocess.run(start, capture_output=True, timeout=PATIENCE_S, check=True).stdout.splitlines()
    assert len(lines) >= 40, "one reply of the journal may bring several at the end"
    assert not any(json.loads(line).get("pass") for line in lines)


@pytest.mark.parametrize("kit", KITS)
def test_a_sender_s_frames_are_judged(kit: str, built: Path) -> None:
    start = command(kit, "send", built)
    with Line("ok ng", limits={"deadline_ms": 30_000, "max_age_ms": 30_000, "queue_length": 16}) as line:
        line.start()
        line.await_state(State.CONTINUOUS_EXECUTION)
        process = subprocess.Popen([*start, line.ends["frames"], CAMERA, "12", "25"], stdout=subprocess.PIPE)
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        told = json.loads(out)
        line.wait(lambda: bool(line.heard.results), "a result")
        line.wait(lambda: line.heard.states[-1].received == told["sent"], "every frame that was sent")
        line.wait(lambda: line.heard.states[-1].in_flight == 0, "every answer")
        assert line.heard.states[-1].balanced
        assert told["exposures"] == 12 and told["sent"] >= 3
        results = {result.seq: result for result in line.journal().values()}
    assert {result.camera_session for result in results.values()} == {told["camera_session"]}
    judged = {seq: result for seq, result in results.items() if result.reason is not Reason.LOST}
    assert len(judged) == told["sent"]
    for seq, result in judged.items():
        assert result.reason is (Reason.SCORE_ABOVE_THRESHOLD if seq % 2 else Reason.GOOD)
        assert (result.part_id, result.camera) == (f"P{seq}", CAMERA)
        assert abs(result.t_exposure_us - result.t_done_us) < 60_000_000
