"""``asperity watch`` prints what passes, and says so when nothing does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import zmq
from typer.testing import CliRunner

from asperity.runtime.commands import watch
from asperity.runtime.errors import StationError, UsageError
from tests.runtime.wire import wire_golden as golden

GOLDEN = golden.load()
STREAMS = ("result_ok", "result_unknown", "record_ok", "state", "event", "trigger")
APP = typer.Typer()
APP.command()(watch.command)


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[list[str]]:
    """A station that repeats the golden messages, and one malformed one, on both sockets."""
    results, bulk = f"ipc://{tmp_path}/results", f"ipc://{tmp_path}/bulk"
    stop, bound = threading.Event(), threading.Event()

    def publish() -> None:
        context = zmq.Context()
        sockets = {}
        for endpoint in (results, bulk):
            sockets[endpoint] = context.socket(zmq.PUB)
            sockets[endpoint].bind(endpoint)
        bound.set()
        while not stop.wait(0.01):
            for name in STREAMS:
                sockets[results].send_multipart(GOLDEN[name])
            sockets[results].send_multipart([b"event/st1/", b"{"])
            for name in ("map", "picture"):
                sockets[bulk].send_multipart(GOLDEN[name])
        context.destroy(linger=0)

    thread = threading.Thread(target=publish)
    thread.start()
    assert bound.wait(10)
    yield ["--results", results, "--bulk", bulk]
    stop.set()
    thread.join(10)


def lines(*arguments: str) -> list[str]:
    outcome = CliRunner().invoke(APP, [*arguments, "--seconds", "20"], catch_exceptions=False)
    assert outcome.exit_code == 0
    return outcome.stdout.splitlines()


def test_results_in_words(endpoints: list[str]) -> None:
    printed = set(lines("result", *endpoints, "--count", "6"))
    assert printed == {
        "st1  1001  OK  0.8125 / 2.5  GOOD  126.0 ms  4711",
        "st1  1003  UNKNOWN  none / none  DEADLINE  0.0 ms",
    }


def test_a_reject_says_by_which_modality() -> None:
    assert "SCORE_ABOVE_THRESHOLD by points" in watch.line(GOLDEN["result_ng"], json=False)


@pytest.mark.parametrize(
    ("what", "kinds"),
    [
        ("result", {"result"}),
        ("state", {"state"}),
        ("record", {"record"}),
        ("trigger", {"trigger"}),
        ("bulk", {"map", "picture"}),
    ],
)
def test_every_stream_as_json(endpoints: list[str], what: str, kinds: set[str]) -> None:
    found = [json.loads(line) for line in lines(what, *endpoints, "--count", "6", "--json")]
    assert len(found) == 6 and {line["kind"] for line in found} == kinds
    if what == "result":
        assert {line["result_id"]: line["accept"] for line in found} == {1001: True, 1003: False}
    if what == "record":
        assert found[0]["part_number"] == 4711 and found[0]["accept"] is True


def test_all_streams_and_what_is_malformed(endpoints: list[str]) -> None:
    wanted = {"result", "record", "state", "event", "trigger", "map", "picture"}
    for count in (60, 300, 1500):  # one of the two sockets may join long after the other
        found = [json.loads(line) for line in lines("all", *endpoints, "--count", str(count), "--json")]
        kinds = {line["kind"] for line in found if "kind" in line}
        if kinds == wanted:
            break
    assert kinds == wanted
    assert any("event is not JSON" in line["malformed"] for line in found if "malformed" in line)
    assert any(line.startswith("malformed: event is not JSON") for line in lines("event", *endpoints, "--count", "4"))


def test_silence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StationError, match=r"nothing received from station st1: nobody listens at .*--results"):
        watch.command(results=f"ipc://{tmp_path}/nobody", seconds=0.05)


def test_an_impossible_endpoint_is_named() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        watch.command(results="nonsense", seconds=0.05)
