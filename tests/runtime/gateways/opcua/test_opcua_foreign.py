"""The companion's types, events, methods and alarms as node-opcua sees them, which others wrote."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from asperity.runtime.states import ALARMS
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import SESSION, Loop, reply, result, until
from tests.runtime.gateways.opcua.opcua_floor import Served

NODE = Path(__file__).parents[1] / "node"
pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(
        not shutil.which("node") or not (NODE / "node_modules").is_dir(), reason="run: make foreign-tools"
    ),
]


def test_node_opcua_sees_the_companion_as_it_is(loop: Loop, tmp_path: Path) -> None:
    served = Served(loop, tmp_path)
    told: list[dict[str, Any]] = []

    def of(key: str) -> list[dict[str, Any]]:
        return [each for each in list(told) if key in each]

    def listen() -> None:
        assert process.stdout is not None
        told.extend(msgspec.json.decode(line) for line in process.stdout)

    def show(text: str, condition: Any) -> None:
        def holds() -> bool:
            served.refresh()
            assert process.poll() in (None, 0)
            return bool(condition())

        until(holds, text)

    process = subprocess.Popen(["node", "companion.js", served.url], stdout=subprocess.PIPE, cwd=NODE)
    thread = threading.Thread(target=listen, daemon=True)
    try:
        thread.start()
        show("the client", lambda: of("ready"))
        served.link.replies.extend([reply("ACCEPTED", recipe_change=3), reply("OK"), reply("ACCEPTED")])
        served.link.put(result(1, part_id="p1", recipe="bracket", trigger_id=6))
        assert served.link.state is not None
        served.link.state = replace(served.link.state, alarms=("DRIFT",))
        show("the acknowledgement", lambda: [each for each in of("alarm") if each["acked"]])
        show("the event", lambda: of("result"))
        served.link.state = replace(served.link.state, alarms=())
        show("the end", lambda: process.poll() is not None)
        thread.join(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        served.close()
    assert of("systems")[0]["systems"] == ["ns=2;s=MachineVision"]
    assert {"VisionStateMachine", "RecipeManagement", "ResultManagement"} <= set(of("below")[0]["below"])
    content = [True, 1, 1, "GOOD", 0.25, 0.5, "", 6, 101, "", "", ""]
    assert of("result") == [{"result": "1", "state": 1, "content": content, "session": SESSION}]
    first = {"alarm": "DRIFT", "active": True, "message": ALARMS["DRIFT"], "severity": 500, "retain": True}
    assert of("alarm")[0] == {**first, "acked": False}
    assert {**first, "acked": True} in of("alarm")
    assert (of("alarm")[-1]["active"], of("alarm")[-1]["retain"]) == (False, False)
    codes = {key: of(key)[0][key] for key in ("acknowledged", "again", "unknown", "refreshed", "foreign")}
    assert codes == {
        "acknowledged": "Good", "again": "BadConditionBranchAlreadyAcked", "unknown": "BadEventIdUnknown",
        "refreshed": "Good", "foreign": "BadSubscriptionIdInvalid",
    }  # fmt: skip
    assert of("latest") == [{"latest": "1", "part": "p1", "recipe": "bracket", "content": content}]
    assert of("found") == [{"found": "1", "error": 0, "status": "Good"}]
    assert of("missing") == [{"missing": -5, "undefined": 0}]
    assert of("prepared") == [{"prepared": "lid", "completed": False, "error": 0}]
    assert of("job") == [{"job": SESSION, "error": 0}] and of("few") == [{"few": "BadArgumentsMissing"}]
    assert [op for op, _ in served.link.asked] == ["prepare_recipe", "start", "trigger"]
