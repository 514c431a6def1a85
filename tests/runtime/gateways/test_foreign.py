"""Ten thousand results of `asperity simulate` through each gateway, read by a client and a broker that others wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from asperity.runtime.frame import Verdict
from asperity.testing import STATION, Line
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.io.io_module import Module
from tests.runtime.gateways.mqtt.mqtt_floor import MOSQUITTO, Broker, lies
from tests.runtime.gateways.sparkplug.sparkplug_decoder import decoded

NODE = Path(__file__).parent / "node"
COUNT = 10_000
RATE_HZ = 200
SOAK_S = 800
GATEWAY = "[gateway]\naccept_simulated = true\n"
OUTPUTS_HZ = 20
"""Of outputs: each edge is held for 4 ms or more, for an input's filter to follow, and each write is a request to the
module; so a result takes 24 ms and some cycles. It is not the 100/s of the other protocols."""
OUTPUTS = (
    "[io]\nkind = 'modbus'\nready = 0\nbusy = 1\naccept = 2\nreject = 3\nstrobe = 4\naccept_proof = 'watchdog'\n"
    "watchdog_register = 20\nwatchdog_value = 5\nmodule_timeout_ms = 10_000\nqueue_max = 1000\n"
    "setup_ms = 4\nstrobe_ms = 8\nhold_ms = 16\ngap_ms = 8\ncycle_ms = 2\n"
)


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


def simulate(line: Line, rate_hz: int = RATE_HZ) -> None:
    ends = [word for name, end in line.ends.items() for word in (f"--{name}", end)]
    words = ("--rate", str(rate_hz), "--script", "ok ok ng nan shape")
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


def report(what: str, numbers: list[int], took_s: float, missing: int, accepted: int) -> None:
    print(
        f"{what}: {len(numbers)} results in {took_s:.1f} s ({len(numbers) / took_s:.0f}/s), {missing} missing, "
        f"{accepted} accepted"
    )


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_results_over_http_to_urllib() -> None:
    with Line() as line:
        gateway = GatewayProcess(line, "http", f"{GATEWAY}[http]\nport = 0\n")
        url = f"http://127.0.0.1:{gateway.port()}/api/v1/results"
        simulate(line)
        items: list[dict[str, Any]] = []
        times_s: list[float] = []

        def enough() -> bool:
            last = items[-1].get("result_id") or items[-1]["last_id"] if items else 0
            with urllib.request.urlopen(f"{url}?since={last + 1}" if items else url, timeout=SOAK_S) as answer:
                items.extend(json.load(answer)["items"])
            times_s.append(time.monotonic())
            return len(items) >= COUNT + 100

        listen_until(line, enough)
        results = [item for item in items if item["kind"] == "result"]
        numbers = [item["result_id"] for item in results]
        gaps = [(item["first_id"], item["last_id"]) for item in items if item["kind"] == "gap"]
        missing, took_s = in_a_row(numbers, gaps), times_s[-1] - times_s[0]
        listen_until(line, lambda: line.heard.results[-1].result_id >= numbers[-1])
        judged = {result.result_id: result.verdict for result in line.heard.results}
        accepted = [item["result_id"] for item in results if item["accept"]]
        report("HTTP", numbers, took_s, missing, len(accepted))
        assert accepted and all(judged[number] is Verdict.OK for number in accepted)
        assert all(item["verdict"] == judged[item["result_id"]] for item in results if item["result_id"] in judged)
        assert len(numbers) >= COUNT and len(numbers) / took_s >= 100


@pytest.mark.soak
@pytest.mark.foreign
@pytest.mark.timeout(600)
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_ten_thousand_results_over_sparkplug_to_an_independent_decoder() -> None:
    with Line() as line:
        broker = Broker(line, "mosquitto")
        heard: list[tuple[float, str, bytes]] = []
        host = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        host.on_connect = lambda client, *rest: client.subscribe("spBv1.0/#", qos=0)
        host.on_message = lambda client, data, message: heard.append(
            (time.monotonic(), message.topic, message.payload)
        )
        host.connect("127.0.0.1", broker.port)
        host.loop_start()
        GatewayProcess(line, "sparkplug", GATEWAY, "--port", str(broker.port))
        until(lambda: bool(heard), "the birth")
        simulate(line)
        seen, found = [0], list[tuple[float, dict[str, Any]]]()
        seqs: list[int | None] = []

        def enough() -> bool:
            for at_s, topic, body in heard[seen[0] : len(heard)]:
                seen[0] += 1
                seq, values, historical = decoded(body)
                seqs.append(seq)
                assert "/NBIRTH/" not in topic or not seqs[:-1], "one birth, at the beginning"
                assert not historical
                found.append((at_s, values))
            return sum(values.get("Result/Id") is not None for _, values in found[-200:]) > 0 and len(found) > COUNT

        listen_until(line, lambda: enough() and ids_of(found, "Result/Id")[0][-1] >= COUNT + 1)
        numbers, at_s = ids_of(found, "Result/Id")
        first_ids, last_ids = ids_of(found, "Gap/FirstId")[0], ids_of(found, "Gap/LastId")[0]
        missing, took_s = in_a_row(numbers, list(zip(first_ids, last_ids, strict=True))), at_s[-1] - at_s[0]
        listen_until(line, lambda: line.heard.results[-1].result_id >= numbers[-1])
        judged = {result.result_id: int(result.verdict) for result in line.heard.results}
        told = {values["Result/Id"]: values["Result/Verdict"] for _, values in found if values.get("Result/Id")}
        report("Sparkplug", numbers, took_s, missing, 0)
        assert seqs == [number % 256 for number in range(len(seqs))], "no message is missing, by the sequence"
        assert all(judged[number] == verdict for number, verdict in told.items() if number in judged)
        assert len(numbers) + missing >= COUNT and len(numbers) / took_s >= 100
        host.disconnect()
        host.loop_stop()


def ids_of(found: list[tuple[float, dict[str, Any]]], name: str) -> tuple[list[int], list[float]]:
    """Values of a metric and when they came."""
    told = [(values[name], at_s) for at_s, values in found if values.get(name)]
    return [value for value, _ in told], [at_s for _, at_s in told]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_thousand_strobes_of_a_module_are_those_of_the_results() -> None:
    module = Module()
    with Line() as line:
        toml = f"{GATEWAY}accept_hold_ms = 3_600_000\n{OUTPUTS}"  # a crowded machine may let parts wait
        gateway = GatewayProcess(line, "io", toml, "--port", str(module.port))
        until(lambda: bool(module.coils), "the outputs")
        simulate(line, OUTPUTS_HZ)
        strobes: list[tuple[float, bool]] = []
        seen, before = 0, False

        def enough() -> bool:
            nonlocal seen, before
            while seen < len(module.coils):
                _, _, accept, reject, strobe = module.coils[seen]
                seen += 1
                assert not (accept and reject)
                if strobe and not before:
                    strobes.append((time.monotonic(), accept))
                before = strobe
            assert gateway.process.poll() is None, gateway.log()
            return len(strobes) >= COUNT

        listen_until(line, enough)
        took_s = strobes[-1][0] - strobes[0][0]
        heard = {result.result_id: result for result in line.heard.results}
        first = min(heard)
        accepted = [first + at for at, (_, accept) in enumerate(strobes) if accept]
        rejected = [first + at for at, (_, accept) in enumerate(strobes) if not accept]
        withheld = sum(number in heard and heard[number].verdict is Verdict.OK for number in rejected)
        report("outputs", list(range(len(strobes))), took_s, 0, len(accepted))
        print(f"{withheld} good parts were rejected, at moments without trust")
        assert all(heard[number].verdict is Verdict.OK for number in accepted)
        assert withheld <= len(accepted) // 100
        assert len(strobes) / took_s >= 0.9 * OUTPUTS_HZ
    module.close()
