"""Every command leaves who, what and what came of it in a file; no disk holds up a frame, and no loss is hidden."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.errors import AuditError
from asperity.runtime.records import audit
from asperity.runtime.records.audit import ITSELF, Actor, Audit, AuditFile
from asperity.runtime.security.curve_keys import ClientKeys, Role
from asperity.runtime.settings.station_toml import Audit as AuditConfig
from tests.runtime.inspector.station_floor import Floor, MakeFloor, floors

PATIENCE_S = 60.0
PLC = Actor("plc1", "0123456789abcdef", "opcua line-3")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


def made(path: Path, **config: Any) -> Audit:
    return Audit(AuditConfig(**config), path, "a-session")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def commands(floor: Floor) -> list[tuple[str, str]]:
    ours = ("session", "recipe_change", "threshold_change")
    return [(entry["op"], entry["code"]) for entry in floor.audit() if entry["op"] not in ours]


# ---------------------------------------------------------------------- what is written


def test_what_changes_something_is_written_with_who_asked_and_what_came_of_it(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("set_threshold", threshold=0.5, actor="opcua ann 10.0.0.7", id="q-1")
    floor.settle()
    floor.ask("start")
    begun, opened, asked, changed, refused = floor.audit()
    assert (begun["op"], begun["code"], begun["fields"]["stations"]) == ("session", "BEGUN", ["st1"])
    assert (opened["op"], opened["code"], opened["actor"]["name"]) == ("recipe_change", "done", "the station")
    assert asked == {
        "t": "2023-11-14T22:13:20.000000Z", "n": 3, "session": floor.desk.session, "station": "st1",
        "op": "set_threshold", "fields": {"id": "q-1", "threshold": 0.5}, "code": "ACCEPTED", "text": "",
        "actor": {"name": "", "key": "", "says": "opcua ann 10.0.0.7"},
    }  # fmt: skip
    assert (changed["op"], changed["fields"]) == ("threshold_change", {"recipe": "a", "old": 1.0, "new": 0.5})
    assert (refused["op"], refused["code"]) == ("start", "WRONG_STATE") and "start" in refused["text"]
    events = {event.code: event for event in floor.events}
    assert events["COMMAND set_threshold OK"].actor == "says opcua ann 10.0.0.7"
    assert events["COMMAND WRONG_STATE"].severity == "warning"


def test_each_action_is_written_once_and_reading_and_parts_are_not(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("get_state")
    floor.ask("get_result", from_=1)
    floor.ask("trigger", trigger_id=1, timeout_ms=500)
    floor.ask("trigger", trigger_id=1, timeout_ms=500)
    for _ in range(3):
        floor.ask("stop", id="again")
    floor.ask("stop", session="00000000-0000-0000-0000-000000000001", uptime_ms=0)
    floor.ask("dance")
    floor.ask("start", station="st9")
    assert commands(floor) == [
        ("stop", "OK"), ("stop", "TOO_OLD"), ("dance", "UNKNOWN_OP"), ("start", "WRONG_STATION"),
    ]  # fmt: skip


def keyed(make: MakeFloor, folder: Path) -> tuple[Floor, str]:
    """A station that asks for keys, and the key's id of a client ``plc1`` that may read."""
    ClientKeys(folder / "keys").admit("plc1", (Role.READ,))
    floor = make("ok", security={"curve": True, "keys": str(folder / "keys")})
    (key_id,) = floor.sockets.access._clients
    return floor, key_id


def ask_as(floor: Floor, client: str, op: str, **fields: Any) -> wire.Reply:
    request = wire.encode_request(wire.Request(id=f"as-{next(floor.ids)}", op=op, **fields))
    return wire.decode_reply(floor.desk.requests.answer([b"me"], [request], client)[1])


def test_what_a_role_forbids_is_written_with_the_key_that_curve_proved(make: MakeFloor, tmp_path: Path) -> None:
    floor, key_id = keyed(make, tmp_path)
    for op, fields in (("halt", {}), ("trigger", {"trigger_id": 4, "timeout_ms": 50})):
        assert ask_as(floor, key_id, op, actor="admin (key 0)", **fields).code == "NOT_ALLOWED"
    assert ask_as(floor, "", "halt").code == "NOT_ALLOWED"
    told = [entry for entry in floor.audit() if entry["code"] == "NOT_ALLOWED"]
    assert [entry["op"] for entry in told] == ["halt", "trigger", "halt"]
    assert told[0]["actor"] == {"name": "plc1", "key": key_id, "says": "admin (key 0)"}
    assert told[1]["fields"]["trigger_id"] == 4
    floor.desk.turn()
    (event, *_) = [event for event in floor.events if event.code == "REFUSED ROLE plc1"]
    assert event.actor == f"plc1 (key {key_id})"


def test_a_claim_cannot_be_taken_for_what_is_proven() -> None:
    assert Actor(says="plc1 (key 0123456789abcdef)").text == "says plc1 (key 0123456789abcdef)"
    assert Actor("n" * 32, "0123456789abcdef", "x" * 64).text.startswith("n" * 32 + " (key 0123456789abcdef), says")
    assert all(len(actor.text) <= 64 for actor in (Actor("n" * 32, "0" * 16, "x" * 64), Actor(says="x" * 64)))
    assert (Actor().text, ITSELF.text, Actor(key="0" * 16).text) == ("", "the station", f"(key {'0' * 16})")


def test_log_ins_are_written_let_in_or_not(make: MakeFloor, tmp_path: Path) -> None:
    floor, key_id = keyed(make, tmp_path)
    access = floor.sockets.access
    import zmq.utils.z85

    public = zmq.utils.z85.decode(access._clients[key_id].public_key)
    assert access.connects("control", public, "10.0.0.7", 0).status == "200"
    assert access.connects("frames", public, "10.0.0.7", 0).reason == "WRONG_SOCKET"
    assert access.connects("control", b"\0" * 32, "10.0.0.8", 0).reason == "UNKNOWN_KEY"
    told = [entry for entry in floor.audit() if entry["op"] == "log_in"]
    assert [(entry["code"], entry["fields"], entry["actor"]["name"]) for entry in told] == [
        ("OK", {"where": "control", "peer": "10.0.0.7"}, "plc1"),
        ("WRONG_SOCKET", {"where": "frames", "peer": "10.0.0.7"}, "plc1"),
        ("UNKNOWN_KEY", {"where": "control", "peer": "10.0.0.8"}, ""),
    ]
    floor.desk.audit.log_in("opcua", Actor(says="bob"), "BAD_PASSWORD", peer="10.0.0.9")  # as a gateway would
    assert floor.audit()[-1]["code"] == "BAD_PASSWORD"


def test_names_from_outside_neither_end_a_line_nor_reach_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    one = made(path)
    one.record("st1", 'stop"}\n{', PLC, "REFUSED", "a\r\nb\x1b[2J\u202e\u2028c", part='"\\')
    assert one.write_waiting()
    (line,) = path.read_bytes().splitlines()
    assert line.isascii() and all(byte >= 0x20 for byte in line)
    entry = json.loads(line)
    assert (entry["op"], entry["text"], entry["fields"]) == ('stop"}\n{', "a\r\nb\x1b[2J\u202e\u2028c", {"part": '"\\'})


def test_refusals_beyond_a_minutes_worth_are_counted_and_what_was_done_is_always_written(tmp_path: Path) -> None:
    now = [Now(0, 1_700_000_000_000_000)]
    one = Audit(AuditConfig(refusals_per_min=2), tmp_path / "audit", "s", lambda: now[0])
    for number in range(5):
        one.record("st1", "halt", PLC, "NOT_ALLOWED", refused=True, number=number)
        one.record("st1", "stop", PLC, "OK", number=number)
    one.look()
    now[0] = Now(60_000 * MS, 1_700_000_060_000_000)
    one.look()
    one.record("st1", "halt", PLC, "NOT_ALLOWED", refused=True)
    assert one.write_waiting()
    told = [(entry["op"], entry["code"]) for entry in lines(tmp_path / "audit")]
    assert told.count(("halt", "NOT_ALLOWED")) == 3 and told.count(("stop", "OK")) == 5
    (more,) = [entry for entry in lines(tmp_path / "audit") if entry["code"] == "REFUSALS"]
    assert more["fields"] == {"entries": 3}


# ---------------------------------------------------------------------- the file


def test_the_file_is_this_users_and_is_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "audit"
    before = os.umask(0)
    try:
        file = AuditFile(path, 1_000_000, 3)
        file.append(b"one\n")
    finally:
        os.umask(before)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.close()
    again = AuditFile(path, 1_000_000, 3)
    again.append(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_an_entry_that_was_torn_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_bytes(b'{"n":1}\n{"n":2,"op":"st')
    path.chmod(0o600)
    AuditFile(path, 1_000_000, 3).append(b'{"n":1}\n')
    assert path.read_bytes().splitlines()[-1] == b'{"n":1}'


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder", "other users may write"])
def test_a_file_that_cannot_be_relied_on_stops_the_start(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "audit", tmp_path / "target"
    if kind == "link":
        target.write_bytes(b"")
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"")
        path.chmod(0o622)
    one = made(path)
    with pytest.raises(AuditError, match=str(path)):
        one.start()
    assert not target.exists() or target.read_bytes() == b""


def test_the_files_are_bounded_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    file = AuditFile(path, 100, 3)
    for number in range(20):
        file.append(b"%02d" % number + b"." * 47 + b"\n")
    found = sorted(each.name for each in tmp_path.iterdir())
    assert found == ["audit", "audit.1", "audit.2"]
    assert all(each.stat().st_size <= 100 and each.stat().st_mode & 0o777 == 0o600 for each in tmp_path.iterdir())
    kept = [line[:2] for name in ("audit.2", "audit.1", "audit") for line in (tmp_path / name).read_bytes().split()]
    assert kept == [b"%02d" % number for number in range(14, 20)], "what is kept is the youngest, in order"


def test_a_file_that_was_moved_away_is_not_written_on(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    file = AuditFile(path, 1_000_000, 3)
    file.append(b"one\n")
    path.rename(tmp_path / "elsewhere")
    file.append(b"two\n")
    (tmp_path / "elsewhere").rename(path)
    file.append(b"three\n")
    assert path.read_bytes() == b"one\nthree\n"
    path.unlink()
    path.symlink_to(tmp_path / "target")
    with pytest.raises(AuditError, match="link"):
        file.append(b"four\n")
    assert not (tmp_path / "target").exists()


# ---------------------------------------------------------------------- the disk


def test_a_disk_that_hangs_holds_nobody_up_and_what_is_lost_is_counted(
    make: MakeFloor, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = make("ok", audit={"queue_entries": 16})
    hanging, going = threading.Event(), threading.Event()
    sync = os.fdatasync

    def hang(fd: int) -> None:
        hanging.set()
        assert going.wait(PATIENCE_S)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", hang)
    one = floor.desk.audit
    one.start()
    try:
        floor.ask("stop")
        assert hanging.wait(PATIENCE_S)
        for _ in range(20):
            floor.ask("start")
            floor.send()
            floor.serve()
            floor.ask("stop")
        assert [result.accept for result in floor.results] == [True] * 20, "frames are judged while the disk hangs"
        assert "AUDIT" in floor.state.alarms and one.lost > 20
        lost = one.lost
        assert f"{lost} entries are lost" in floor.station.controller.alarms["AUDIT"]
        floor.ask("reset")
        floor.settle()
        assert "AUDIT" in floor.state.alarms, "a reset hides nothing that lasts"
        going.set()
        ends_s = time.monotonic() + PATIENCE_S
        while "AUDIT" in floor.state.alarms:
            assert time.monotonic() < ends_s
            time.sleep(0.01)
    finally:
        going.set()
        one.close()
    found = floor.audit()
    (told,) = [entry for entry in found if entry["code"] == "LOST"]
    assert told["fields"]["entries"] == one.lost >= lost
    numbers = [entry["n"] for entry in found]
    assert numbers == sorted(set(numbers)), "each once, in order"
    missing = told["n"] - len([n for n in numbers if n <= told["n"]])
    assert missing == one.lost, "the numbers show where"
    assert "AUDIT_BACK" in [event.code for event in floor.events]


def test_a_disk_that_fails_is_an_alarm_is_tried_again_and_loses_nothing(
    make: MakeFloor, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = make("ok")
    full = [True]
    write = os.write

    def fail(fd: int, data: bytes) -> int:
        if full[0]:
            if len(data) > 1:
                write(fd, bytes(data)[:20])  # the end of the disk's room lies in the middle of an entry
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(audit.os, "write", fail)
    floor.ask("stop")
    assert not floor.desk.audit.write_waiting()
    assert "AUDIT" in floor.state.alarms
    assert "No space left" in floor.station.controller.alarms["AUDIT"]
    floor.ask("start")
    assert floor.state.state == 8, "the station works on"
    full[0] = False
    assert floor.desk.audit.write_waiting()
    assert "AUDIT" not in floor.state.alarms
    whole = [json.loads(line) for line in _whole(audit_file(floor))]
    assert [entry["op"] for entry in whole] == ["session", "recipe_change", "stop", "start"]


def audit_file(floor: Floor) -> Path:
    return floor.desk.audit._file.path


def _whole(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]


def test_a_full_disk_stops_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(audit.os, "open", full)
    one = made(tmp_path / "audit")
    one.start()
    one.record("st1", "stop", PLC, "OK")
    monkeypatch.undo()
    one.close()
    assert [entry["op"] for entry in lines(tmp_path / "audit")] == ["stop"], "written as soon as there was room"


def test_what_waits_is_written_when_the_process_ends(tmp_path: Path) -> None:
    one = made(tmp_path / "audit")
    one.start()
    for number in range(300):
        one.record("st1", "stop", PLC, "OK", number=number)
    one.close()
    assert [entry["fields"]["number"] for entry in lines(tmp_path / "audit")] == list(range(300))
