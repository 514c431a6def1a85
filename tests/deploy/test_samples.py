"""Every file of deploy/ is started: samples by the commands of their README, only ports and rates are changed."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from itertools import combinations

import pytest
from pymodbus.client import ModbusTcpClient

from asperity.runtime.gateways.modbus.table import STATUS, STATUS_WORDS, WRITE_ADDRESS, unpack
from asperity.runtime.wire import ReceivedResult
from asperity.testing import PATIENCE_S
from tests.deploy.sample import DEPLOY, PORT, Sample, readme_commands
from tests.places import ROOT
from tests.runtime.gateways.floor import until

pytestmark = pytest.mark.usefixtures("forked_starts")

COUNT = 20
HERE = "tests/deploy/test_samples.py"
MQTT = (
    "tests/runtime/gateways/mqtt/test_mqtt_guard.py"
    "::test_the_shipped_access_list_lets_the_gateway_alone_speak_for_the_station"
)
NODE_RED = "tests/deploy/test_node_red.py::test_node_red_shows_accept_by_the_rules_of_a_subscriber"
UNITS = "tests/runtime/process/test_systemd.py::test_systemd_reads_the_units_without_a_complaint"
STARTED = {
    **{f"one-camera/{name}": f"{HERE}::test_one_camera" for name in (
        "README.md", "station.toml", "gateway.toml", "camera.toml", "parts/1.ply", "parts/2.ply")},
    **{f"eight-stations/{name}": f"{HERE}::test_eight_stations" for name in (
        "README.md", "station.toml", "gateway.toml", "camera.toml")},
    **{f"two-views/{name}": f"{HERE}::test_two_views" for name in (
        "README.md", "station.toml", "gateway.toml", "parts/1.ply", "parts/2.ply")},
    **{f"systemd/{name}": f"{HERE}::test_the_configuration_of_the_services" for name in (
        "station.toml", "gateway.toml", "camera.toml")},
    **{f"systemd/{name}": UNITS for name in (
        "asperity-inspector.service", "asperity-gateway@.service", "asperity-camera@.service")},
    "systemd/asperity-service":
        "tests/runtime/process/test_systemd.py::test_a_command_for_the_service_has_its_user_and_its_folders",
    "mosquitto/asperity.conf": MQTT,
    "mosquitto/asperity.acl": MQTT,
    "node-red/flows.json": NODE_RED,
    "node-red/README.md": "tests/deploy/test_node_red.py::test_the_readme_names_what_the_flow_has",
}  # fmt: skip
"""File of deploy/ -> the test that starts it. (Units: systemd itself checks them.)"""


def test_every_file_is_started_by_a_test_that_exists() -> None:
    files = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()}
    assert files == set(STARTED)
    for test in set(STARTED.values()):
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test


def test_the_samples_can_run_next_to_each_other() -> None:
    """No port of one is another's, and no station: the default control socket has the station's name."""
    names = sorted(path.parent.name for path in DEPLOY.glob("*/station.toml") if path.parent.name != "systemd")
    ports, stations = {}, {}
    for name in names:
        text = (DEPLOY / name / "station.toml").read_text() + (DEPLOY / name / "gateway.toml").read_text()
        commands = "\n".join(line for block in readme_commands(name) for line in block)
        shown = set(PORT.findall(text + commands)) - {"1883"}  # one broker serves all
        ports[name] = shown
        stations[name] = set(re.findall(r'^name = "(\w+)"', text, flags=re.M)) - {"simulated", "cpu"}
        assert stations[name]
    for one, other in combinations(names, 2):
        assert not ports[one] & ports[other] and not stations[one] & stations[other], (one, other)


def read_by_modbus(port: str, count: int) -> None:
    """A PLC that takes this many results: none is missing unnamed, and none of a simulation may pass."""
    client = ModbusTcpClient("127.0.0.1", port=int(port), timeout=PATIENCE_S, retries=0)
    assert client.connect()
    taken: list[int] = []

    def read() -> bool:
        words = client.read_holding_registers(0, count=STATUS_WORDS).registers
        status = unpack(STATUS, b"".join(word.to_bytes(2, "big") for word in words))
        assert status["accept"] == 0 and status["table_version"] == 2
        number = int(status["result_no"])
        if status["result_valid"] and number not in taken:
            assert status["simulated"] == 1
            assert not taken or number - taken[-1] - 1 == status["missing_before"]
            taken.append(number)
            client.write_register(WRITE_ADDRESS, int(status["result_valid"]))
        return len(taken) >= count

    until(read, f"{count} results at port {port}")
    client.close()


def get(port: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
        body: bytes = answer.read()
    return body


def test_one_camera() -> None:
    recorded, live = readme_commands("one-camera")
    with Sample("one-camera") as sample:
        # What these two leave out is the ports of station.toml, which here are others.
        left_out = {"camera replay": " --frames-endpoint tcp://127.0.0.1:5560", "watch": " --results tcp://127.0.0.1:5561"}
        commands = [
            line.replace("--rate 2", "--rate 20")
            + "".join(words for name, words in left_out.items() if line.startswith(f"asperity {name} "))
            for line in recorded
        ]
        run, modbus, http, replay, watch = map(sample.start, commands)
        # Not opcua, whose start alone costs as much as all of this: its table is read by the others too.
        others = [sample.start(f"asperity gateway {name} --config gateway.toml") for name in ("ethernetip", "mqtt")]
        modbus.says("is served at")
        read_by_modbus(sample.port("5020"), COUNT)
        results = sample.results("5561", "st1", COUNT)
        assert {result.reason.name for result in results} >= {"GOOD", "SCORE_ABOVE_THRESHOLD"}
        http.says("is served at")
        shown = json.loads(get(sample.port("8088"), f"/api/v1/results?since=1&limit={COUNT}"))
        assert len(shown["items"]) == COUNT and b"st1" in get(sample.port("8088"), "/")
        others[0].says("is served at")
        others[1].says("cannot reach the broker")
        watch.says(r"st1 .* NG")
        assert replay.end() == 0
        make, camera_line, *copies = live
        assert sample.start(make).wait(PATIENCE_S) == 0
        camera = sample.start(camera_line)
        camera.says("sends to")
        for number, copy in enumerate(copies, start=1):
            assert sample.start(copy).wait(PATIENCE_S) == 0
            sample.results("5561", "st1", number, after=results[0].camera_session)
        assert {path.name for path in (sample.folder / "state").glob("st1*")} >= {"st1.journal", "st1.audit.jsonl"}
        assert camera.end() == 0 and run.end() == 0


def test_eight_stations() -> None:
    simulated, real = readme_commands("eight-stations")
    stations = [f"s{number}" for number in range(1, 9)]
    with Sample("eight-stations") as sample:
        commands = [line.replace("--rate 2", "--rate 4") for line in simulated]
        simulate, *gateways, http, watch = map(sample.start, commands)
        assert len(gateways) == len(stations)
        for number, gateway in enumerate(gateways, start=1):
            gateway.says("is served at")
            read_by_modbus(sample.port(f"503{number}"), COUNT if number == 1 else 1)
            assert gateway.end() == 0
        for station in stations:
            assert {result.station for result in sample.results("5571", station, COUNT)} == {station}
        http.says("is served at")
        assert b"s1" in get(sample.port("8091"), "/")
        watch.says(r"s1 .* NG")
        assert simulate.end() == 0, simulate.log()

        make, run_line, camera_line = real
        assert sample.start(make).wait(PATIENCE_S) == 0
        run = sample.start(run_line)
        camera = sample.start(camera_line)
        camera.says("sends to")
        shutil.copy(DEPLOY / "one-camera" / "parts" / "1.ply", sample.folder / "incoming" / "1")
        assert sample.results("5571", "s1", 1)[0].camera == "c1"
        journals = {path.stem for path in (sample.folder / "state").glob("*.journal")}
        assert journals == set(stations)
        assert camera.end() == 0 and run.end() == 0


def test_two_views() -> None:
    simulated, real = readme_commands("two-views")
    with Sample("two-views") as sample:
        simulate, modbus, http, watch = map(sample.start, (line.replace("--rate 2", "--rate 20") for line in simulated))
        modbus.says("is served at")
        read_by_modbus(sample.port("5041"), COUNT)  # a part in three waits a second for its picture
        results = sample.results("5581", "gear", COUNT)
        assert {result.reason.name for result in results} >= {"GOOD", "SCORE_ABOVE_THRESHOLD", "NO_FRAME"}
        assert not any(result.accept for result in sample.results("5581", "front", COUNT))
        http.says("is served at")
        assert b"gear" in get(sample.port("8101"), "/")
        watch.says(r"gear .* NG")
        simulate.end()  # in the middle of a part, which then has no result: its exit code says so

        run, *cameras = map(sample.start, real)
        with sample.client("5581", "gear") as client:
            until(lambda: bool(client.poll(20)) or client.trusted, "the station")

            def judged(number: int) -> bool:
                """A part each time, until both cameras are there."""
                if not client.request("trigger", trigger_id=number, timeout_ms=1000).ok:
                    client.poll(20)
                    return False
                parts: list[ReceivedResult] = []

                def answered() -> bool:
                    parts.extend(item for item in client.poll(20) if isinstance(item, ReceivedResult))
                    return any(part.trigger_id == number for part in parts)

                until(answered, "the part's result")
                return parts[-1].reason.name in ("GOOD", "SCORE_ABOVE_THRESHOLD")

            assert any(map(judged, range(1, 1000)))
        assert all(camera.poll() is None for camera in cameras) and run.end() == 0


def test_the_configuration_of_the_services() -> None:
    """What the units read, with this test's folder in place of the system's and the engine that needs no bundle."""
    with Sample("systemd") as sample:
        for path in sample.folder.glob("*.toml"):
            path.write_text(path.read_text().replace("/run/asperity", str(sample.folder)))
        (sample.folder / "taken").mkdir()
        run = sample.start("asperity run --config station.toml --engine simulated --journal state/journal")
        gateway = sample.start("asperity gateway modbus --config gateway.toml --port 5999")
        camera = sample.start("asperity camera live folder --config camera.toml --set path=taken --set record=record")
        gateway.says("is served at")
        camera.says("sends to")
        shutil.copy(DEPLOY / "one-camera" / "parts" / "1.ply", sample.folder / "taken")
        read_by_modbus(sample.port("5999"), 1)
        assert camera.end() == 0 and gateway.end() == 0 and run.end() == 0
