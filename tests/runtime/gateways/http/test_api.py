"""``/api/v1`` with a client that others wrote: what may be read, what may be commanded, and by whom."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asperity.runtime.client.ordering import Gap
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import Gateway, Users
from asperity.runtime.gateways.http.api import COMMANDS, PREFIX
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.wire import OPERATIONS
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import COUNTERS, NO_ANSWER, reply, result, until
from tests.runtime.gateways.http.http_floor import Floor, get

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("users") / "users"
    users.put_user(path, users.new_user("viewer", "read", PASSWORD))
    users.put_user(path, users.new_user("plc", "operate", PASSWORD))
    return str(path)


def ask(
    floor: Floor, path: str, body: bytes | None = None, user: str = "", password: str = PASSWORD,
    kind: str = "application/json",
) -> tuple[int, Any]:  # fmt: skip
    """Status and JSON of an answer."""
    request = urllib.request.Request(floor.url.rstrip("/") + PREFIX + path, data=body)
    if body is not None:
        request.add_header("Content-Type", kind)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_results_come_in_order_with_their_gaps_and_by_number(make: Callable[..., Floor]) -> None:
    floor = make(results_kept=4)
    floor.show(result(11), result(12, Verdict.NG, part_id="P12"), Gap(13, 15, "lost"), result(16))
    status, found = ask(floor, "/results")
    assert status == 200
    assert [(item["kind"], item.get("result_id", item.get("first_id"))) for item in found["items"]] == [
        ("result", 11), ("result", 12), ("gap", 13), ("result", 16),
    ]  # fmt: skip
    assert [item["accept"] for item in found["items"] if item["kind"] == "result"] == [True, False, True]
    assert [item["result_id"] for item in ask(floor, "/results?since=14&limit=2")[1]["items"][1:]] == [16]
    assert ask(floor, "/results/12")[1]["part_id"] == "P12"
    assert ask(floor, "/results/17")[0] == ask(floor, "/nosuch")[0] == 404
    for query in ("since=x", "since=-1", "since=1&since=2", "since=%00", "limit=1001", "since=" + "9" * 40):
        assert ask(floor, f"/results?{query}")[0] == 400, query
    floor.show(result(17))
    first, second, *_ = ask(floor, "/results?since=10")[1]["items"]
    assert (first["kind"], first["first_id"], first["last_id"], second["result_id"]) == ("gap", 10, 11, 12)


def test_a_parts_identity_and_the_counters_are_answered_as_on_the_wire(floor: Floor) -> None:
    said = {"part_id": "01\x1d10L\u00fc", "lot": "L-7\u00fc", "order": "", "shift": "late", "position": -(2**40)}
    floor.show(result(1, **said))
    found = ask(floor, "/results/1")[1]
    assert {name: found[name] for name in said} == said
    assert ask(floor, "/counters")[0] == 503
    floor.link.counters = COUNTERS
    assert ask(floor, "/counters")[1]["rows"][0]["lot"] == "L-7\u00fc"


def test_accept_is_what_may_pass_at_the_moment_of_the_answer(floor: Floor) -> None:
    floor.show(result(21))
    found = ask(floor, "/results/21")[1]
    assert found["accept"] is True and 0 < found["valid_ms"] <= Gateway().accept_hold_ms
    floor.link.good = False
    found = ask(floor, "/results/21")[1]
    assert found["accept"] is False and found["valid_ms"] == 0
    state = ask(floor, "/state")[1]
    assert state["trusted"] is False and state["ready"] is False and "heartbeat" in state["why"]


def test_commands_need_a_user_who_may_operate(make: Callable[..., Floor], file: str) -> None:
    open_floor, floor = make(), make(accounts=Users(file=file))
    floor.link.replies.extend([reply("OK")] * 4)  # what a forwarded one would be answered with
    assert ask(open_floor, "/commands/stop", b"{}")[0] == 403, "nobody proves who they are"
    assert ask(floor, "/commands/stop", b"{}")[0] == 401
    assert ask(floor, "/commands/stop", b"{}", "viewer")[0] == 403
    assert ask(floor, "/commands/stop", b"{}", "plc", "wrong")[0] == 401
    assert ask(floor, "/commands/stop", b"{}", "nobody")[0] == 401
    assert floor.link.asked == open_floor.link.asked == []
    floor.link.replies.clear()
    floor.link.replies.extend([reply("OK"), reply("ACCEPTED", recipe_change=3), reply("BUSY"), NO_ANSWER])
    assert ask(floor, "/commands/stop", b"{}", "plc")[0] == 200
    status, said = ask(floor, "/commands/prepare_recipe", b'{"recipe": "lid"}', "plc")
    assert (status, said["ok"], said["recipe_change"]) == (202, True, 3)
    assert ask(floor, "/commands/start", b'{"mode": "single"}', "plc")[0] == 409
    assert ask(floor, "/commands/halt", b"{}", "plc")[0] == 504
    assert floor.link.asked == [
        ("stop", {"actor": "http plc"}), ("prepare_recipe", {"actor": "http plc", "recipe": "lid"}),
        ("start", {"actor": "http plc", "mode": "single"}), ("halt", {"actor": "http plc"}),
    ]  # fmt: skip
    assert "asperity_log_ins_refused_total 2.0" in get(floor.url + "metrics")[1]


@pytest.mark.parametrize(
    ("op", "body", "kind", "status"),
    [
        ("trigger", b"{}", "application/json", 400),
        ("trigger", b'{"trigger_id": 7, "trigger_id": 8, "timeout_ms": 9}', "application/json", 400),
        ("trigger", b'{"trigger_id": 7, "timeout_ms": 9, "actor": "the boss"}', "application/json", 400),
        ("trigger", b'{"trigger_id": 7, "timeout_ms": 9, "station": "other"}', "application/json", 400),
        ("trigger", b'{"trigger_id": 7, "timeout_ms": 9, "part": "A"}', "application/json", 400),
        ("stop", b'{"session": "", "uptime_ms": 1}', "application/json", 400),
        ("stop", b"[" * 3000, "application/json", 400),
        ("stop", b"", "application/json", 400),
        ("stop", b"{}", "text/plain", 415),
        ("stop", b"op=stop", "application/x-www-form-urlencoded", 415),
        ("stop", b'{"op": "start"}', "application/json", 400),
        ("stop", b" " * 5000, "application/json", 413),
        ("shutdown", b"{}", "application/json", 403),
        ("set_threshold", b'{"threshold": 1e9}', "application/json", 403),
        ("get_result", b'{"from": 1}', "application/json", 404),
        ("nosuch", b"{}", "application/json", 404),
        ("../stop", b"{}", "application/json", 404),
    ],
)
def test_what_may_not_be_asked_is_refused_in_words_and_not_passed_on(
    make: Callable[..., Floor], file: str, op: str, body: bytes, kind: str, status: int
) -> None:
    floor = make(accounts=Users(file=file))
    found, said = ask(floor, f"/commands/{op}", body, "plc", kind=kind)
    assert found == status and said["detail"]
    assert floor.link.asked == []


def test_a_trigger_that_was_refused_gives_no_accept_and_an_unanswered_one_shows_nothing(
    make: Callable[..., Floor], file: str
) -> None:
    floor = make(accounts=Users(file=file))
    body = b'{"trigger_id": 7, "timeout_ms": 500, "part_id": "A"}'
    floor.link.replies.append(reply("BUSY"))
    assert ask(floor, "/commands/trigger", body, "plc")[0] == 409
    floor.show(result(31, trigger_id=7), result(32, trigger_id=8))
    assert [item["accept"] for item in ask(floor, "/results")[1]["items"]] == [False, True]
    asking = ThreadPoolExecutor(1).submit(ask, floor, "/commands/trigger", body.replace(b"7", b"9"), "plc")
    until(lambda: len(floor.link.asked) == 2, "the second trigger")
    floor.show(result(33, trigger_id=9))
    assert ask(floor, "/results/33")[0] == 404, "its request has no answer yet"
    floor.link.open_futures[0].set_result(reply("ACCEPTED"))
    assert asking.result(PATIENCE_S)[0] == 202
    floor.show()
    assert ask(floor, "/results/33")[1]["accept"] is True


def test_where_nobody_may_read_without_a_name_only_probes_answer(make: Callable[..., Floor], file: str) -> None:
    floor = make(accounts=Users(file=file, anonymous_read=False))
    assert [floor.get(path)[0] for path in ("/", "/metrics", "/livez", "/readyz")] == [401, 401, 200, 200]
    assert ask(floor, "/results")[0] == 401 and ask(floor, "/results", user="viewer")[0] == 200
    for sent in ("Bearer x", "Basic ?", "Basic " + base64.b64encode(b"no colon").decode()):
        request = urllib.request.Request(floor.url + PREFIX[1:] + "/state", headers={"Authorization": sent})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=PATIENCE_S)
        refused.value.close()
        assert refused.value.code == 400


def test_commands_are_not_forwarded_where_the_gateway_may_not(make: Callable[..., Floor], file: str) -> None:
    floor = make(accounts=Users(file=file), own=Gateway(commands=False))
    assert ask(floor, "/commands/stop", b"{}", "plc")[0] == 403 and not floor.link.asked


def test_the_description_names_every_command_and_no_reference_of_it_leads_nowhere(floor: Floor) -> None:
    status, found = ask(floor, "/openapi.json")
    assert status == 200 and found["openapi"].startswith("3.1")
    assert {f"{PREFIX}/commands/{op}" for op in COMMANDS} < set(found["paths"])
    assert set(COMMANDS) == {op for op in OPERATIONS if not op.startswith("get_")} - {"shutdown", "set_threshold"}

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    named = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert references(found) <= named
    assert r"\A" not in json.dumps(found)
