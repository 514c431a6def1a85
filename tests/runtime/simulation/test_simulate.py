"""`asperity simulate`: every reason by name, at speed, with the law holding and a clean end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import zmq
from typer.testing import CliRunner

from asperity.runtime import wire
from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.commands.simulate import command
from asperity.runtime.errors import ConfigError, UsageError
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.security.curve_keys import ClientKeys, Role
from asperity.runtime.simulation.line_faults import FAULTS
from asperity.runtime.simulation.player import words_of
from asperity.runtime.simulation.scenes import OF_PARTS, SCENES
from asperity.runtime.simulation.simulated_parts import check_words
from asperity.runtime.wire import ReceivedResult

pytestmark = pytest.mark.usefixtures("forked_starts")

PATIENCE_S = 120.0
NAMES = ("frames", "results", "bulk", "control")
PATIENT = """
[limits]
deadline_ms = 60000
max_age_ms = 60000
[timing]
shutdown_ms = 60000
[sockets]
heartbeat_timeout_ms = 60000
linger_ms = 30000
"""
"""A station to which a pause of a crowded machine makes no frame late and no camera dead."""
UNHURRIED = ClientLimits(request_tries=200, patience_ms=60_000)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="asp-") as made:  # ipc paths must be short
        yield Path(made)


def ends(folder: Path) -> dict[str, str]:
    return {name: f"ipc://{folder}/{name}" for name in NAMES}


def simulate(folder: Path, *arguments: str, more: str = "", **options: Any) -> subprocess.Popen[bytes]:
    """``more``: tables of station.toml."""
    file = folder / "station.toml"
    file.write_text(PATIENT + more)
    given = [argument.partition("=")[0] for argument in arguments]
    named = {"--config": file, **{f"--{name}": end for name, end in ends(folder).items()}}
    where = [f"{option}={value}" for option, value in named.items() if option not in given]
    start = [sys.executable, "-m", "asperity.runtime.cli", "simulate", "--log-level=error", *where, *arguments]
    return subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def told(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log.decode()
    summary: dict[str, Any] = json.loads(out)
    return summary


def test_no_reason_is_left_out() -> None:
    assert set(SCENES) == set(Reason) - OF_PARTS
    names = [reason.name for reason in Reason if reason not in OF_PARTS]
    assert words_of("ok=20 all LOST") == ["ok=20", *names, "LOST"]


def test_words_that_are_none_are_named() -> None:
    with pytest.raises(UsageError, match="LOSST is not a reason; use one of: NOT_JUDGED"):
        words_of("ok LOSST")
    with pytest.raises(UsageError, match="VIEW_MISSING is a reason of parts with views"):
        words_of("ok VIEW_MISSING")
    with pytest.raises(ConfigError, match="sorry"):
        words_of("sorry")
    with pytest.raises(UsageError, match="empty"):
        words_of(" ")


def test_every_reason_comes_about_by_name(folder: Path) -> None:
    process = simulate(folder, "--json", "--rate=100", "--script=all", "--deadline-ms=3000", "--once")
    summary = told(process)
    seen = {reason for reason, count in summary["by_reason"].items() if count}
    assert seen == {reason.name for reason in SCENES} - {"NOT_JUDGED"}, summary
    assert summary["missed"] == {} and summary["gaps"] == 0 and summary["unanswered"] == 0
    assert summary["balanced"] and summary["restarts"] >= 2


WIRED = """
[station]
triggers = "hard_wired"
[hard_wired]
early_ms = 100
late_ms = 300
arrival_max_ms = 200
tolerance_ms = 20
pitch_min_ms = 450
"""


def test_every_fault_of_a_hard_wired_line_comes_about_by_its_word(folder: Path) -> None:
    process = simulate(folder, "--json", f"--script=ok {' '.join(FAULTS)}", "--once", more=WIRED)
    summary = told(process)
    assert summary["missed"] == {} and summary["gaps"] == 0 and summary["unanswered"] == 0
    assert {fault.reason.name for fault in FAULTS.values()} <= set(summary["by_reason"])
    assert summary["balanced"] and summary["restarts"] == 0


VIEWS = """
[triggers]
timeout_max_ms = 60000
[[stations]]
name = "arm"
camera = "arm"
triggers = "software"
[[combined]]
name = "st1"
number = 9
views = ["arm", "arm"]
triggered = "one_by_one"
complete_ms = 400000
"""


@pytest.mark.parametrize("more", ["", VIEWS])
def test_parts_with_views_are_simulated(folder: Path, more: str) -> None:
    views = () if more else ("--views=2",)
    summary = told(simulate(folder, "--json", "--rate=50", "--script=ok ok ok ng", "--once", *views, more=more))
    assert summary["balanced"] and summary["unanswered"] == 0 and summary["gaps"] == 0
    assert summary["by_reason"] == {"GOOD": 1, "SCORE_ABOVE_THRESHOLD": 1}
    assert summary["exposures"] == 4


def test_words_of_a_part_with_views_are_those_of_exposures() -> None:
    check_words(["ok=20", "ng", "NO_FRAME"])
    with pytest.raises(UsageError, match="LOST cannot be played at a part with views"):
        check_words(["ok", "LOST"])


def test_a_change_of_recipe_fails_on_demand(folder: Path) -> None:
    summary = told(simulate(folder, "--json", "--rate=50", "--script=ok recipe-fails ng", "--once"))
    assert summary["missed"] == {} and summary["balanced"]
    assert summary["by_reason"] == {"GOOD": 2, "SCORE_ABOVE_THRESHOLD": 1}, "the recipe before it judges on"


def test_a_record_that_cannot_hold_the_score_says_not_judged(folder: Path) -> None:
    process = simulate(folder, "--stdin", "--json", "--rate=50", "--script=ok", stdin=subprocess.PIPE)
    assert process.stdin is not None
    context = zmq.Context()
    records = context.socket(zmq.SUB)
    try:
        records.subscribe(b"record/st1/")
        records.connect(ends(folder)["results"])
        codes: set[int] = set()
        ends_s = time.monotonic() + PATIENCE_S
        while Reason.NOT_JUDGED not in codes:
            assert records.poll(round(1000 * PATIENCE_S)) and time.monotonic() < ends_s, codes
            record = wire.decode_record_message(records.recv_multipart())[1]
            assert record.accept == (record.reason_code == Reason.GOOD)
            assert record.flags & 4, "the record says that it is a simulation"
            if not codes:  # a publisher forgets what came before the subscription: the word waits for the first record
                process.stdin.write(b"NOT_JUDGED\n")
                process.stdin.flush()
            codes.add(record.reason_code)
        assert codes == {Reason.NOT_JUDGED, Reason.GOOD}
        process.send_signal(signal.SIGINT)
        assert told(process)["balanced"]
    finally:
        context.destroy(linger=0)
        process.kill()


def test_two_thousand_results_at_500_a_second_keep_the_law(folder: Path) -> None:
    process = simulate(folder, "--json", "--rate=500", "--count=2000", "--script=ok ok ok ng")
    items: list[ReceivedResult | Gap] = []
    sockets = ends(folder)["results"], ends(folder)["control"]
    with StationClient(*sockets, station="st1", since=1, limits=UNHURRIED) as station:
        ends_s = time.monotonic() + PATIENCE_S
        while len(items) < 2000 and time.monotonic() < ends_s:
            items += station.poll(50)
            for item in items[-3:]:
                assert not (isinstance(item, ReceivedResult) and station.accepts(item)), "a simulation must not pass"
    summary = told(process)
    assert [item.result_id for item in items if isinstance(item, ReceivedResult)] == list(range(1, 2001))
    assert summary["by_reason"] == {"GOOD": 1500, "SCORE_ABOVE_THRESHOLD": 500}
    assert summary["balanced"] and summary["results"] == 2000 and summary["gaps"] == 0
    assert all(item.simulated for item in items if isinstance(item, ReceivedResult))


def test_each_word_is_played_at_every_station_of_a_process_of_several(folder: Path) -> None:
    stations = "".join(f'[[stations]]\nname = "{name}"\nnumber = {number}\ncamera = "{name}"\n'
                       for number, name in enumerate(("left", "right")))  # fmt: skip
    script = "--script=ok ng RESTARTED LOST SHUTDOWN WRONG_CAMERA ok"
    summary = told(simulate(folder, script, "--once", "--rate=50", "--json", more=stations))
    assert (summary["unanswered"], summary["gaps"], summary["missed"], summary["balanced"]) == (0, 0, {}, True)
    wanted = {"RESTARTED": 2, "SHUTDOWN": 2, "LOST": 2, "WRONG_CAMERA": 1, "SCORE_ABOVE_THRESHOLD": 2}
    assert {name: summary["by_reason"][name] for name in wanted} == wanted
    assert summary["restarts"] >= 4, "a frame may be answered before the kill that it was to meet: then once more"


def test_triggers_are_answered_word_by_word(folder: Path) -> None:
    process = simulate(folder, "--on-trigger", "--script=ok ng NO_FRAME LOST")
    sockets = ends(folder)["results"], ends(folder)["control"]
    try:
        with StationClient(*sockets, station="st1", since=1, limits=UNHURRIED) as plc:
            ends_s = time.monotonic() + PATIENCE_S
            while plc.state is None or plc.state.state != 8:
                plc.poll(50)
                assert time.monotonic() < ends_s
            answers: dict[int, ReceivedResult] = {}
            trigger_id, first = 0, 0
            while time.monotonic() < ends_s and not (first and trigger_id == first + 3):
                trigger_id += 1
                reply = plc.request("trigger", trigger_id=trigger_id, part_id=f"P{trigger_id}", timeout_ms=5000)
                assert reply.ok, reply
                while trigger_id not in answers:
                    for item in plc.poll(50):
                        assert isinstance(item, ReceivedResult)
                        answers[item.trigger_id] = item
                if not first and answers[trigger_id].reason in JUDGED:  # PUB forgets what came before the subscription
                    first = trigger_id
            reasons = [answers[first + n].reason for n in range(4)]
            assert reasons == [Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD, Reason.NO_FRAME, Reason.GOOD]
            assert answers[first].part_id == f"P{first}"
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log.decode()


def test_typed_words_come_next_and_what_came_of_them_is_said(folder: Path) -> None:
    process = simulate(folder, "--stdin", "--json", "--rate=50", "--script=ok", stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(b"STALE DUPLICATE_SEQ\nSTAALE\n")
    process.stdin.flush()
    lines = sorted(process.stderr.readline().decode() for _ in range(3))
    assert lines[0].startswith("DUPLICATE_SEQ: ") and "DUPLICATE_SEQ" in lines[0][15:]
    assert lines[1].startswith("STAALE is not a reason") and lines[2] == "STALE: STALE\n"
    process.send_signal(signal.SIGINT)
    assert told(process)["balanced"]


def test_when_it_is_killed_its_inspector_goes_too(folder: Path) -> None:
    process = simulate(folder, "--rate=50")
    with StationClient(ends(folder)["results"], station="st1") as station:
        station.await_state(round(PATIENCE_S * 1000))
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        ends_s = time.monotonic() + PATIENCE_S
        while station.state is not None and station.state.state != 2:
            station.poll(50)
            assert time.monotonic() < ends_s, "the inspector lives on"


def test_a_station_that_asks_for_keys_is_simulated_with_one(folder: Path) -> None:
    keys = ClientKeys(folder / "keys")
    _, key = keys.admit("simulate", (Role.CAMERA, Role.READ, Role.ADMINISTER))
    security = f'[security]\ncurve = true\nkeys = "{folder}/keys"\n'
    process = simulate(folder, more=security)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "give --key" in log.decode()
    script = "--script=ok STALE SHUTDOWN ABORTED"
    summary = told(simulate(folder, "--json", f"--key={key}", script, "--once", more=security))
    assert summary["missed"] == {} and summary["by_reason"]["STALE"] and summary["by_reason"]["SHUTDOWN"]


def test_told_to_end_while_it_starts_it_ends(folder: Path) -> None:
    process = simulate(folder)
    caught = 0
    ends_s = time.monotonic() + PATIENCE_S
    while not caught >> (signal.SIGTERM - 1) & 1 and time.monotonic() < ends_s:
        time.sleep(0.01)
        caught = int(Path(f"/proc/{process.pid}/status").read_text().split("SigCgt:")[1].split()[0], 16)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 143) and "Traceback" not in log.decode(), log.decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate=0"], "--rate 0 is out of range"),
        (["--rate=5000"], "at most 1000"),
        (["--script=LOSST"], "not a reason"),
        (["--reason=ok"], "not a reason"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], words: str) -> None:
    app = typer.Typer()
    app.command()(command)
    told = CliRunner().invoke(app, arguments)
    assert isinstance(told.exception, UsageError) and words in str(told.exception)


def test_a_simulated_station_is_not_opened_to_the_network_either(folder: Path) -> None:
    process = simulate(folder, "--results=tcp://0.0.0.0:1")
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 11
    assert "insecure-lan" in log.decode() and "Traceback" not in log.decode()


def test_a_word_that_is_tried_again_brings_another_picture() -> None:
    """The same one would be FROZEN_IMAGE: a first try that was late could never be made good."""

    class Exposures:
        sent: list[bytes] = []  # noqa: RUF012

        def expose(self, word: str, **changes: Any) -> None:
            self.sent.append(changes["rgb"].tobytes())

    for _ in range(2):
        SCENES[Reason.REFUSED_DATA](Exposures())  # type: ignore[arg-type]
    assert len(set(Exposures.sent)) == 2
