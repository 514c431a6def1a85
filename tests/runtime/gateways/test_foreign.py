"""Ten thousand results of `asperity simulate` through each gateway, read by a client and a broker that others wrote."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asperity.runtime.frame import Verdict
from asperity.testing import STATION, Line
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.mqtt.mqtt_floor import MOSQUITTO, Broker, lies

NODE = Path(__file__).parent / "node"
COUNT = 10_000
RATE_HZ = 200
SOAK_S = 300
GATEWAY = "[gateway]\naccept_simulated = true\n"


class Reader:
    """Lines of JSON that a program prints."""

    def __init__(self, line: Line, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=NODE)
        line.processes.append(self.process)
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append((time.monotonic(), msgspec.json.decode(text)))

    def of(self, key: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at_s, body) for at_s, body in list(self.lines) if key in body]


def simulate(line: Line) -> None:
    ends = [word for name, end in line.ends.items() for word in (f"--{name}", end)]
    words = ("--rate", str(RATE_HZ), "--script", "ok ok ng nan shape")
    line.asperity("simulate", *words, "--station", STATION, *ends)


def listen_until(line: Line, condition: Any) -> None:
    """The journal holds 4096 results; so what the station said is heard beside it, by a subscriber of its own."""
    ends_s = time.monotonic() + SOAK_S
    while not condition():
        line.heard.listen(20)
        assert time.monotonic() < ends_s


def in_a_row(numbers: list[int], gaps: list[tuple[int, int]]) -> int:
    """How many are missing, all of them named; none comes twice or out of order."""
    assert numbers == sorted(set(numbers))
    named = {number for first, last in gaps for number in range(first, last + 1)}
    missing = set(range(numbers[0], numbers[-1] + 1)) - set(numbers)
    assert missing <= named
    return len(missing)


@pytest.mark.soak
@pytest.mark.foreign
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    not shutil.which("node") or not (NODE / "node_modules").is_dir(), reason="run: make foreign-tools"
)
def test_ten_thousand_results_over_opcua_to_node_opcua() -> None:
    with Line() as line:
        toml = f"{GATEWAY}[opcua]\ncertificate_folder = '{line.folder}'\n"
        gateway = GatewayProcess(line, "opcua", toml, "--port", "0")
        reader = Reader(line, "node", "listen.js", f"opc.tcp://127.0.0.1:{gateway.port()}", str(COUNT))
        until(lambda: bool(reader.of("ready")), "the client")
        simulate(line)
        listen_until(line, lambda: reader.process.poll() is not None)
        assert reader.process.returncode == 0
        events, tags = reader.of("id"), reader.of("tag")
        took_s = events[-1][0] - events[0][0]
        judged = {result.result_id: result.verdict for result in line.heard.results}
        numbers = [body["id"] for _, body in events]
        missing = in_a_row(numbers, [(body["first"], body["last"]) for _, body in reader.of("first")])
        accepted = [body["id"] for _, body in events if body["accept"]]
        seen = [body["tag"] for _, body in tags if body["tag"][0]]
        print(
            f"OPC UA: {len(numbers)} results in {took_s:.1f} s ({len(numbers) / took_s:.0f}/s), {missing} missing, "
            f"{len(accepted)} accepted in events, {len(seen)} of {len(tags)} reads with accept"
        )
        assert accepted and all(judged[number] is Verdict.OK for number in accepted)
        assert seen and all(judged[first] is Verdict.OK and first == copy for _, _, first, copy in seen)
        assert {body["tag"][2] == body["tag"][3] for _, body in tags} == {True}
        assert all(body["verdict"] == judged[body["id"]] for _, body in events)
        assert len(numbers) >= COUNT and len(numbers) / took_s >= 100


@pytest.mark.soak
@pytest.mark.foreign
@pytest.mark.timeout(600)
@pytest.mark.skipif(MOSQUITTO is None or not shutil.which("mosquitto_sub"), reason="mosquitto is not installed")
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_ten_thousand_results_over_mqtt_to_mosquitto_sub(version: str) -> None:
    with Line() as line:
        broker = Broker(line, "mosquitto")
        toml = f'{GATEWAY}[mqtt]\nversion = "{version}"\nstate_file = "{line.folder}/state"\n'
        command = ["mosquitto_sub", "-p", str(broker.port), "-q", "1", "-t", f"asperity/{STATION}/#", "-F", "%j"]
        reader = Reader(line, *command)
        GatewayProcess(line, "mqtt", toml, "--port", str(broker.port)).port()
        until(lambda: bool(reader.lines), "the gateway's first words")
        simulate(line)

        counted = [0, 0]

        def enough() -> bool:
            while counted[0] < len(reader.lines):
                counted[1] += topic(reader.lines[counted[0]][1]) == "result"
                counted[0] += 1
            return counted[1] >= COUNT

        def topic(body: dict[str, Any]) -> str:
            return str(body["topic"]).rpartition("/")[2]

        listen_until(line, enough)
        told = [(at_s, topic(body), msgspec.json.decode(body["payload"])) for at_s, body in list(reader.lines)]
        results = [(at_s, body) for at_s, name, body in told if name == "result"]
        took_s = results[-1][0] - results[0][0]
        numbers = [body["result_id"] for _, body in results]
        gaps = [(body["first_id"], body["last_id"]) for _, name, body in told if name == "gap"]
        missing = in_a_row(numbers, gaps)
        listen_until(line, lambda: line.heard.results[-1].result_id >= numbers[-1])
        judged: dict[int, Any] = {result.result_id: result for result in line.heard.results}
        accepted = sum(body["accept"] for _, body in results)
        print(
            f"MQTT {version}: {len(numbers)} results in {took_s:.1f} s ({len(numbers) / took_s:.0f}/s), "
            f"{missing} missing, {accepted} accepted"
        )
        assert accepted and not lies([(name, body) for _, name, body in told], judged)
        assert len(numbers) >= COUNT and len(numbers) / took_s >= 100
