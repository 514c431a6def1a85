"""The flow of deploy/node-red: whole and of core nodes, with the documented topics; and run by Node-RED where it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.publish import single

from asperity.testing import STATION, Camera, Line
from asperity.testing.site import free_port
from tests.deploy.sample import DEPLOY
from tests.places import DOCS
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.mqtt.mqtt_floor import MOSQUITTO, RUNNING, TOML, Broker

pytestmark = pytest.mark.usefixtures("forked_starts")

FLOW = DEPLOY / "node-red" / "flows.json"
CORE = {
    "tab", "comment", "function", "trigger", "status", "catch", "rbe", "debug", "inject", "mqtt in", "mqtt out",
    "mqtt-broker", "http in", "http response",
}  # fmt: skip
"""Types of @node-red/nodes, which every Node-RED has."""
NODE_RED = shutil.which("node-red") or os.environ.get("NODE_RED", "")
"""The program, or node_modules/node-red/red.js of an installation elsewhere."""
READY = 6
BASE = f"asperity/{STATION}/"


def nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FLOW.read_text())
    return found


def test_every_wire_leads_to_a_core_node() -> None:
    ids = {node["id"]: node for node in nodes()}
    assert len(ids) == len(nodes()) and {node["type"] for node in nodes()} == CORE
    wired = {target for node in nodes() for output in node.get("wires", []) for target in output}
    assert wired <= set(ids)
    for node in nodes():
        if node["type"] == "function":
            assert len(node["wires"]) == node["outputs"] and all(node["wires"])
        if "wires" in node and node["type"] not in ("comment", "inject", "status", "catch", "mqtt in", "http in"):
            assert node["id"] in wired, f"nothing leads to {node['id']}"
        for named in ("broker", "z"):
            assert named not in node or node[named] in ids or node["type"] == "mqtt-broker"
    (status,) = (node for node in nodes() if node["type"] == "status")
    assert {ids[name]["type"] for name in status["scope"]} == {"mqtt in"}


def test_the_topics_are_those_of_the_gateway() -> None:
    documented = set(re.findall(r"^\| `([\w/]+)` \|", (DOCS / "gateways.md").read_text(), flags=re.M))
    heard = {node["topic"].removeprefix(BASE) for node in nodes() if node["type"] == "mqtt in"}
    assert {name.replace("reply/+", "reply/ID") for name in heard} <= documented
    assert heard >= {"accept", "state", "result", "gap", "reply/+"} and "command/OP" in documented
    (command,) = (node for node in nodes() if node["id"] == "command")
    assert re.findall(r"`asperity/([^`]*)`", command["func"]) == [f"{STATION}/command/${{op}}"]
    kinds = {node["datatype"] for node in nodes() if node["type"] == "mqtt in"}
    assert kinds == {"utf8"}, "what is not JSON must be a reject, and Node-RED's own parser would drop it"


def test_the_readme_names_what_the_flow_has() -> None:
    readme = (FLOW.parent / "README.md").read_text()
    (page,) = (node["url"] for node in nodes() if node["type"] == "http in")
    groups = [node["name"][0] for node in nodes() if node["type"] == "comment"]
    assert f"`{page}`" in readme and re.findall(r"^\| (\d) ", readme, flags=re.M) == groups
    for node in nodes():
        assert node["type"] != "inject" or f"`{node['payload']}`" in readme
    for variable in ("wanted", "wanted_recipe"):
        assert f"`{variable}`" in readme and any(f"flow.get('{variable}')" in node.get("func", "") for node in nodes())


CALLS = """
const [, , functions, calls] = process.argv, kept = {}, made = JSON.parse(functions);
const store = name => ({get: key => (kept[name] || {})[key], set: (key, value) => ((kept[name] ||= {})[key] = value)});
const node = {status() {}, send() {}};
for (const [name, msg] of JSON.parse(calls)) {
    const run = new Function('msg', 'context', 'flow', 'node', made[name]);
    console.log(JSON.stringify(run(msg, store(name), store('flow'), node) ?? null));
}
"""


def run_functions(*calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """What the function nodes answer to messages, one after the other."""
    code = {node["id"]: node["func"] for node in nodes() if node["type"] == "function"}
    command = ["node", "-", json.dumps(code), json.dumps(calls)]
    done = subprocess.run(command, input=CALLS, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def heard(name: str, retain: bool = False, **fields: Any) -> tuple[str, dict[str, Any]]:
    node = {"result": "count", "gap": "count", "accept": "accept", "state": "alive"}[name]
    return node, {"topic": BASE + name, "payload": json.dumps(fields), "retain": retain}


@pytest.mark.foreign
@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_a_doubtful_accept_is_a_reject_and_every_result_is_counted_once() -> None:
    good = {"accept": True, "valid_ms": 500, "result_id": 7, "instance": "a", "n": 5}
    passes = [answer[0]["payload"] for answer in run_functions(
        heard("accept", **good), heard("accept", **good), heard("accept", **{**good, "n": 6}),
        heard("accept", **{**good, "n": 7}, retain=True), heard("accept", **{**good, "n": 8, "valid_ms": None}),
        heard("accept", **{**good, "n": 9, "accept": 1}), ("accept", {"payload": "null"}), ("accept", {"payload": "{"}),
        heard("accept", **{**good, "n": 12}), heard("accept", **{**good, "n": 20, "accept": False}),
        heard("accept", **{**good, "n": 19}), heard("accept", **{**good, "instance": "b", "n": 1}),
    )]  # fmt: skip
    assert passes == [True, False, True, False, False, False, False, False, True, False, False, True]

    alive = {"ready": True, "trusted": True, "session": "s", "beat": 1, "beat_timeout_ms": 600}
    beats = run_functions(
        heard("state", **alive), heard("state", **alive), heard("state", **{**alive, "beat": 2}),
        heard("state", **{**alive, "beat": 2}), heard("state", **{**alive, "beat": 3, "trusted": False}),
        heard("state", **{**alive, "beat": 4, "session": "t"}), heard("state", **{**alive, "beat": 5, "session": "t"}),
    )  # fmt: skip
    assert [answer and answer[0]["payload"] for answer in beats] == [False, None, True, None, False, False, True]

    numbers = [("result", {"result_id": n, "verdict": n % 3}) for n in (4, 5, 5, 8)]
    gaps = [("gap", {"first_id": 6, "last_id": 7}), ("gap", {"first_id": 9, "last_id": 10})]
    told = [*numbers, *gaps, ("result", {"result_id": 12})]
    counted = run_functions(*(heard(name, **fields) for name, fields in told))[-1]["payload"]
    assert counted == {
        "ok": 1, "ng": 2, "unknown": 1, "gaps": 2, "missing": 4, "unnamed": 1, "twice": 1, "next": 13,
    }  # fmt: skip


class NodeRed:
    """Node-RED with the flow, on its own port and for the broker of the test."""

    def __init__(self, line: Line, broker_port: int) -> None:
        self._port = free_port()
        folder = line.folder / "node-red"
        folder.mkdir()
        shipped = nodes()
        for node in shipped:
            if node["type"] == "mqtt-broker":
                node["port"] = str(broker_port)
        (folder / "flows.json").write_text(json.dumps(shipped))
        settings = (
            f"module.exports = {{uiPort: {self._port}, uiHost: '127.0.0.1', flowFile: 'flows.json', "
            "telemetry: {enabled: false}, logging: {console: {level: 'info'}}};\n"
        )
        (folder / "settings.js").write_text(settings)
        program = ["node", NODE_RED] if NODE_RED.endswith(".js") else [NODE_RED]
        self.process = line.spawn(*program, "--userDir", str(folder), "--settings", str(folder / "settings.js"))
        until(lambda: "Started flows" in self.process.log(), "the flow")

    def shown(self) -> dict[str, Any]:
        """What the flow's page says."""
        with suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/asperity/st1", timeout=10) as answer:
                body: dict[str, Any] = json.load(answer)
            return body
        return {"gate": {"pass": False, "why": "no page"}}

    def gate(self) -> tuple[bool, str]:
        gate = self.shown()["gate"]
        return gate["pass"], gate["why"]

    def press(self, button: str) -> None:
        """As the button in the editor."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/inject/do-{button}", data=b"", method="POST")
        urllib.request.urlopen(request, timeout=10).close()


def flow(line: Line, tmp_path: Path) -> tuple[Broker, NodeRed]:
    broker = Broker(line, "mosquitto")
    settings = TOML.format(version=broker.version, folder=tmp_path)
    GatewayProcess(line, "mqtt", settings, "--port", str(broker.port)).port()
    return broker, NodeRed(line, broker.port)


@pytest.mark.foreign
@pytest.mark.skipif(not NODE_RED or MOSQUITTO is None, reason="Node-RED (NODE_RED=.../red.js) or mosquitto is missing")
def test_node_red_shows_accept_by_the_rules_of_a_subscriber(tmp_path: Path) -> None:
    with Line("ok") as line, Camera(line) as camera:
        broker, red = flow(line, tmp_path)
        assert red.gate()[0] is False
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(10_000)

        def shows(passes: bool, why: str = "", word: str = "") -> bool:
            if word:
                camera.expose(word)
                line.listen(200)
            gate = red.gate()
            return gate[0] is passes and why in gate[1]

        until(lambda: shows(True, word="ok"), "a pass")
        until(lambda: shows(False, word="ng"), "a reject")
        until(lambda: shows(True, word="ok"), "a pass again")
        line.kill()
        until(lambda: shows(False), "a reject without a heartbeat")

        line.start()
        line.await_running()
        until(lambda: shows(True, word="ok"), "a pass after the restart")
        single(f"{BASE}accept", b"{", qos=1, hostname="127.0.0.1", port=broker.port)
        until(lambda: shows(False), "a reject of what cannot be read")
        until(lambda: shows(True, word="ok"), "a pass after that")
        counts = red.shown()["counts"]
        assert counts["ok"] and counts["ng"] and not counts["twice"] and not counts["unnamed"]
        broker.process.kill()
        until(lambda: shows(False), "a reject without a broker")
        broker.start()
        until(lambda: shows(True, word="ok"), "a pass with the broker back")


@pytest.mark.foreign
@pytest.mark.skipif(not NODE_RED or MOSQUITTO is None, reason="Node-RED (NODE_RED=.../red.js) or mosquitto is missing")
def test_node_red_asks_and_passes_only_the_part_that_it_triggered(tmp_path: Path) -> None:
    with (
        Line("ok", station={"name": STATION, "camera": "cam1", "triggers": "software"}) as line,
        Camera(line, triggered=True) as camera,
    ):
        _, red = flow(line, tmp_path)
        line.start()
        line.await_state(RUNNING)
        camera.wait_connected(10_000)

        def answered(code: str) -> bool:
            return bool(red.shown().get("answer")) and red.shown()["answer"]["code"] == code

        def passes_after_trigger() -> bool:
            red.press("trigger")
            trigger = camera.wait_trigger(2000)
            if trigger is None:
                return False
            camera.send(camera.picture(), trigger)
            line.listen(500)
            gate = red.shown()["gate"]
            return gate["pass"] is True and gate["trigger_id"] == trigger.trigger_id

        until(passes_after_trigger, "the pass of a triggered part")
        assert answered("OK") or answered("ACCEPTED")
        red.press("stop")
        line.await_state(READY)
        red.press("trigger")
        until(lambda: answered("WRONG_STATE"), "the refusal")
        red.press("start")
        line.await_state(RUNNING)
        line.listen(500)
        assert red.gate()[0] is False, "nothing passes after a trigger that was refused"
        until(passes_after_trigger, "the pass of the next part")
