"""What the MQTT gateway keeps for a broker that is away, how it goes on after a restart, and how requests are read."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.gateways.config import GatewayConfig, Mqtt
from asperity.runtime.gateways.link import Delivered, Item
from asperity.runtime.gateways.mqtt.commands import AUDIT_LINES_MAX, AUDIT_WITHIN_S, NO_ID, REPLIES_KEPT, Commands
from asperity.runtime.gateways.mqtt.gateway import serve
from asperity.runtime.gateways.mqtt.outbox import FULL, RESTARTED, UNCERTAIN, Outbox, StateFile, ids, uncertain
from asperity.testing import STATION
from tests.runtime.gateways.floor import NO_ANSWER, SESSION, FakeLink, reply, result
from tests.runtime.wire.test_wire_properties import batch_texts, part_ids, positions


def item(result_id: int) -> Delivered:
    return Delivered(result(result_id), True, 0.0)


@given(most=st.integers(1, 20), count=st.integers(0, 60), every=st.integers(1, 10))
def test_an_outbox_is_bounded_in_order_and_names_what_it_dropped(most: int, count: int, every: int) -> None:
    outbox, taken = Outbox(most), []
    for number in range(1, count + 1):
        outbox.put(item(number))
        assert len(outbox) <= most + 1
        if number % every == 0 and (one := outbox.take()) is not None:
            taken.append(one)
    while (one := outbox.take()) is not None:
        taken.append(one)
    covered = [number for one in taken for number in range(ids(one)[0], ids(one)[1] + 1)]
    assert covered == list(range(1, count + 1)), "each once, in order, delivered or named"
    assert all(one.why == FULL for one in taken if isinstance(one, Gap))


def test_ids_that_go_back_are_named_in_a_gap_of_their_own() -> None:
    outbox = Outbox(1)
    for number in (8, 9, 1, 2):
        outbox.put(item(number))
    found: list[Item] = []
    while (one := outbox.take()) is not None:
        found.append(one)
    assert found[:2] == [Gap(8, 9, FULL), Gap(1, 1, FULL)] and ids(found[2]) == (2, 2)


def test_what_was_under_way_is_named_before_what_waits() -> None:
    outbox = Outbox(10)
    outbox.put(item(9))
    outbox.name(uncertain([item(4), item(5), Gap(6, 7, "gone"), item(8)]))
    named = [outbox.take() for _ in range(4)]
    assert named[:3] == [Gap(4, 5, UNCERTAIN), Gap(6, 7, "gone"), Gap(8, 8, UNCERTAIN)]
    assert isinstance(named[3], Delivered) and outbox.take() is None


def test_a_restart_goes_on_after_what_was_sent_and_names_what_was_not_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "st1.mqtt"
    file = StateFile(path, "st1")
    assert file.since is None and file.gaps() == []
    file.write(12, 9)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_size <= 256
    again = StateFile(path, "st1")
    assert again.since == 13 and again.gaps() == [Gap(10, 12, RESTARTED)]
    again.write(12, 12)
    assert StateFile(path, "st1").gaps() == []


def test_a_state_file_is_of_one_gateway(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two brokers of one station: each gateway would go on after a restart where the other was, and skip results."""
    path = tmp_path / "kept" / "state"
    first = StateFile.held(path, "st1")
    first.write(7, 7)
    with pytest.raises(GatewayError, match=r"another gateway uses .*state; .* set state_file to another file for each"):
        StateFile.held(path, "st1")
    assert first._file is not None
    first._file.close()  # as its process ends, however
    assert StateFile.held(path, "st1").since == 8 and not caplog.text


@pytest.mark.parametrize("kind", ["a folder in its place", "a file for its folder", "others may write it"])
def test_a_state_file_that_cannot_be_written_ends_the_start(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in" / "state"
    if kind == "a folder in its place":
        path.mkdir(parents=True)
    elif kind == "a file for its folder":
        path.parent.touch()
    else:
        path.parent.mkdir()
        path.touch()
        path.chmod(0o666)
    with pytest.raises(ConfigError, match=r"\[mqtt\] state_file: .* cannot be written: .*; set another file"):
        StateFile.held(path, "st1")


@pytest.mark.parametrize(("number", "starts"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EOPNOTSUPP, True)])
def test_a_full_disk_shows_at_the_start(
    tmp_path: Path, number: int, starts: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "state"
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with nullcontext() if starts else pytest.raises(ConfigError, match=r"written: .* free some space"):
            StateFile.held(path, "st1")
    held = StateFile.held(path, "st1")
    assert path.stat().st_size == 256 and held.since is None and held.gaps() == []
    del held
    assert StateFile.held(path, "st1").since is None and not caplog.text  # reserved, and nothing was published


def test_a_record_that_was_cut_off_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "st1.mqtt"
    file = StateFile(path, "st1")
    for sent in range(1, 6):
        file.write(sent, sent)
        data = bytearray(path.read_bytes())
        newest = 128 * (sent % 2)
        data[newest + 20] ^= 1
        damaged = tmp_path / "damaged"
        damaged.write_bytes(data)
        assert StateFile(damaged, "st1").sent == sent - 1 and StateFile(path, "st1").sent == sent


@pytest.mark.parametrize("data", [b"", b"{}", b"of another", b"\xff" * 128, b"\0" * 5000])
def test_a_damaged_or_foreign_state_file_is_told_and_counts_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    path = tmp_path / "st1.mqtt"
    if data == b"of another":
        StateFile(path, "st2").write(5, 5)
    else:
        path.write_bytes(data)
    assert StateFile(path, "st1").since is None
    assert "publishing starts with new results" in caplog.text


@settings(max_examples=40)
@given(part_ids, batch_texts, positions)
def test_a_trigger_says_over_mqtt_what_its_part_is_called(part_id: str, lot: str, position: int | None) -> None:
    link = FakeLink()
    said = {"part_id": part_id, "lot": lot} | ({} if position is None else {"position": position})
    body = msgspec.json.encode({"id": "a", "trigger_id": 7, "timeout_ms": 300, **said})
    assert Commands(link, STATION).take_in("trigger", body, False) is None  # type: ignore[arg-type]
    assert link.asked == [("trigger", {"actor": "mqtt id=a", "trigger_id": 7, "timeout_ms": 300, **said})]
    broken = msgspec.json.encode({"id": "b", "trigger_id": 7, "timeout_ms": 300, "part_id": part_id + "\n"})
    answer = Commands(link, STATION).take_in("trigger", broken, False)  # type: ignore[arg-type]
    assert answer is not None and b"BAD_REQUEST" in answer[1] and b"part_id" in answer[1] and len(link.asked) == 1


def test_requests_are_done_once_and_always_answered() -> None:
    link = FakeLink()
    commands = Commands(link, STATION)  # type: ignore[arg-type]
    link.replies.extend([reply("OK"), NO_ANSWER, None])
    assert commands.take_in("start", b'{"id":"a"}', False) is None
    assert commands.take_in("trigger", b'{"id":"b","trigger_id":7,"part_id":"p","timeout_ms":300}', False) is None
    assert commands.take_in("stop", b'{"id":"c"}', False) is None
    answers = dict(commands.answers())
    told = {key: msgspec.json.decode(body) for key, body in answers.items()}
    assert (told["a"]["ok"], told["a"]["id"]) == (True, "a") and told["b"]["code"] == "FAILED" and "c" not in told
    assert link.asked == [
        ("start", {"actor": "mqtt id=a"}),
        ("trigger", {"actor": "mqtt id=b", "trigger_id": 7, "part_id": "p", "timeout_ms": 300}),
        ("stop", {"actor": "mqtt id=c"}),
    ]
    assert commands.take_in("start", b'{"id":"a"}', False) == ("a", answers["a"]), "the same answer again"
    assert commands.take_in("stop", b'{"id":"c"}', False) is None and len(link.asked) == 3


@pytest.mark.parametrize(
    ("op", "body", "retained", "where", "code"),
    [
        ("start", b"", False, NO_ID, "BAD_REQUEST"),
        ("start", b"{", False, NO_ID, "BAD_REQUEST"),
        ("start", b'{"id":"a/b"}', False, NO_ID, "BAD_REQUEST"),
        ("start", b'{"id":7}', False, NO_ID, "BAD_REQUEST"),
        ("start", b'{"id":"a","mode":"never"}', False, "a", "BAD_REQUEST"),
        ("trigger", b'{"id":"a"}', False, "a", "BAD_REQUEST"),
        ("trigger", b'{"id":"a","trigger_id":"7","timeout_ms":1}', False, "a", "BAD_REQUEST"),
        ("start", b'{"id":"a","v":2}', False, "a", "BAD_REQUEST"),
        ("start", b'{"id":"a","id":"b"}', False, NO_ID, "BAD_REQUEST"),
        ("trigger", b'{"id":"a","trigger_id":7,"trigger_id":8,"timeout_ms":9}', False, "a", "BAD_REQUEST"),
        ("start", b'{"id":"a","op":"stop"}', False, "a", "BAD_REQUEST"),
        ("start", b'{"id":"a"}', True, "a", "REFUSED"),
        ("shutdown", b'{"id":"a"}', False, "a", "NOT_ALLOWED"),
        ("set_threshold", b'{"id":"a","threshold":9.5}', False, "a", "NOT_ALLOWED"),
        ("st\xe9rt\n", b'{"id":"a"}', False, "a", "BAD_REQUEST"),
    ],
)
def test_a_request_that_may_not_be_is_answered_and_not_passed_on(
    op: str, body: bytes, retained: bool, where: str, code: str
) -> None:
    link = FakeLink()
    answer = Commands(link, STATION).take_in(op, body, retained)  # type: ignore[arg-type]
    assert answer is not None and answer[0] == where
    assert msgspec.json.decode(answer[1])["code"] == code and not link.asked


def test_a_threshold_is_not_set_over_mqtt_and_who_tried_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    link, now_s = FakeLink(), [1000.0]
    commands = Commands(link, STATION, clock=lambda: now_s[0])  # type: ignore[arg-type]

    def ask(number: int) -> None:
        answer = commands.take_in("set_threshold", b'{"id":"x%d","threshold":99}' % number, False)
        assert answer is not None
        told = msgspec.json.decode(answer[1])
        assert (told["ok"], told["code"]) == (False, "NOT_ALLOWED") and "not available over MQTT" in told["text"]

    ask(0)
    assert "set_threshold was requested (id x0) and refused" in caplog.text
    for number in range(1, 500):
        ask(number)
    assert len(caplog.records) == AUDIT_LINES_MAX, "bounded"
    now_s[0] += AUDIT_WITHIN_S
    ask(500)
    assert f"{500 - AUDIT_LINES_MAX} more" in caplog.text and "x500" in caplog.text and not link.asked


def test_what_a_request_knows_of_the_station_is_passed_on_and_who_asks_is_not_believed() -> None:
    link = FakeLink()
    body = {"id": "i" * 64, "session": SESSION, "uptime_ms": 7, "actor": "the boss", "station": "st1"}
    Commands(link, STATION).take_in("stop", msgspec.json.encode(body), False)  # type: ignore[arg-type]
    [(_, fields)] = link.asked
    assert fields == {"session": SESSION, "uptime_ms": 7, "actor": f"mqtt id={'i' * 56}"}
    assert len(fields["actor"]) <= 64


@given(st.binary(max_size=200), st.text(max_size=20))
def test_whatever_comes_nothing_breaks(body: bytes, op: str) -> None:
    Commands(FakeLink(), STATION).take_in(op, body, False)  # type: ignore[arg-type]


def test_the_memory_of_requests_is_bounded() -> None:
    link = FakeLink()
    commands = Commands(link, STATION)  # type: ignore[arg-type]
    for number in range(REPLIES_KEPT + 50):
        commands.take_in("shutdown", msgspec.json.encode({"id": f"r{number}"}), False)
    assert len(commands._asked) <= REPLIES_KEPT


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"host": "10.1.2.3"}, "set tls = true"),
        ({"prefix": "a/#"}, "prefix"),
        ({"tls": True, "ca_file": "/nonexistent/ca.pem"}, "ca_file"),
    ],
)
def test_what_cannot_be_or_could_be_overheard_is_refused_in_words(own: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        serve(GatewayConfig(mqtt=Mqtt(**own)))  # type: ignore[arg-type]
