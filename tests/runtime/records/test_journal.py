"""The journal keeps what is owed through kill -9, never gives an id twice, and never believes a damaged slot."""

from __future__ import annotations

import errno
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asperity.runtime.errors import JournalError
from asperity.runtime.records import journal as journal_module
from asperity.runtime.records import journal_files
from asperity.runtime.records.journal import PAYLOAD_MAX, PROMISES_MAX, SLOT_NBYTES, Journal
from tests.runtime.records.journals import RESULTS_AT, SLOTS, fill, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "st1.journal"


def test_an_answer_replaces_what_was_owed(path: Path) -> None:
    journal = opened(path)
    result_id = journal.reserve()
    journal.owe(result_id, b"owed")
    assert journal.get(result_id) is None
    assert [(e.result_id, e.payload, e.owed) for e in journal.entries()] == [(1, b"owed", True)]
    journal.answer(result_id, b"done")
    assert journal.get(result_id) == b"done"
    assert [e.owed for e in journal.entries()] == [False]
    journal.close()


def test_what_is_owed_can_be_put_better_before_it_is_answered(path: Path) -> None:
    journal = opened(path)
    result_id = journal.reserve()
    for payload in (b"first", b"second", b"third"):
        journal.owe(result_id, payload)
        assert [e.payload for e in journal.entries()] == [payload]
    journal.answer(result_id, b"done")
    assert journal.get(result_id) == b"done"
    journal.close()


def test_the_ring_holds_the_newest(path: Path) -> None:
    journal = opened(path)
    fill(journal, 3 * SLOTS + 5)
    assert journal.last_id == 3 * SLOTS + 5
    assert journal.oldest_id == 2 * SLOTS + 6
    assert [e.result_id for e in journal.entries()] == list(range(journal.oldest_id, journal.last_id + 1))
    assert journal.get(journal.oldest_id - 1) is None
    assert journal.get(journal.last_id + 1) is None
    journal.close()


def test_an_owed_entry_is_never_overwritten(path: Path) -> None:
    journal = opened(path)
    owed_id = journal.reserve()
    journal.owe(owed_id, b"owed")
    fill(journal, SLOTS - 1)
    with pytest.raises(JournalError, match="slots"):
        fill(journal, 1)
    journal.close()


def test_ids_and_entries_go_on_after_a_clean_end(path: Path) -> None:
    journal = opened(path)
    fill(journal, 10)
    journal.close()
    journal = opened(path)
    assert journal.notes == []
    assert journal.reserve() == 11
    assert journal.get(10) == b"done 10"
    journal.close()


def test_a_new_journal_can_begin_at_an_id(path: Path) -> None:
    journal = opened(path, first_id=5000)
    assert journal.reserve() == 5000
    journal.close()


def test_promises_are_kept_until_redeemed(path: Path) -> None:
    journal = opened(path)
    fill(journal, 3)
    numbers = [journal.promise(b"trigger %d" % n) for n in range(3)]
    journal.redeem(numbers[1])
    journal.close()
    journal = opened(path)
    assert {n: (e.result_id, e.payload) for n, e in journal.promises().items()} == {
        numbers[0]: (4, b"trigger 0"),
        numbers[2]: (4, b"trigger 2"),
    }
    for number in journal.promises():
        journal.redeem(number)
    for _ in range(PROMISES_MAX):
        journal.promise(b"x")
    with pytest.raises(JournalError, match="triggers"):
        journal.promise(b"one too many")
    journal.close()


def test_one_process_a_journal(path: Path) -> None:
    journal = opened(path)
    with pytest.raises(JournalError, match="in use"):
        opened(path)
    journal.close()
    opened(path).close()


def test_too_long_a_payload_is_refused(path: Path) -> None:
    journal = opened(path)
    with pytest.raises(JournalError, match=str(PAYLOAD_MAX)):
        journal.answer(journal.reserve(), b"x" * (PAYLOAD_MAX + 1))
    journal.close()


def test_a_full_disk_is_named_when_the_journal_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(JournalError, match=r"no room .* MB"):
        opened(path)
    assert list(path.parent.iterdir()) == [], "nothing half-made is left"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"not a journal" + data[13:2048] + b"x" * 8 + data[2056:], "not a journal"),
        (lambda data: data[:1000], "not a journal"),
        (lambda data: data[:30] + b"\xff" + data[31:2078] + b"\xff" + data[2079:], "corrupt"),
        (lambda data: data[:-SLOT_NBYTES], "slots"),
    ],
    ids=["magic", "short", "header", "truncated"],
)
def test_a_damaged_file_is_refused_with_the_remedy(path: Path, change: object, words: str) -> None:
    opened(path).close()
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(JournalError, match=words) as caught:
        opened(path)
    assert "first_id" in str(caught.value)


def test_one_damaged_copy_of_the_header_is_survived(path: Path) -> None:
    journal = opened(path)
    fill(journal, 150)
    journal.close()
    data = bytearray(path.read_bytes())
    generations = [struct.unpack_from("<Q", data, at + 20)[0] for at in (0, 2048)]
    older = (0, 2048)[generations.index(min(generations))]
    data[older + 30] ^= 0xFF
    path.write_bytes(data)
    journal = opened(path)
    assert journal.reserve() == 151
    journal.close()


def test_another_size_or_station_is_refused(path: Path) -> None:
    opened(path).close()
    with pytest.raises(JournalError, match=f"set it to {SLOTS}"):
        Journal.open(path, "st1", slots=2 * SLOTS)
    with pytest.raises(JournalError, match="belongs to station 'st1'"):
        Journal.open(path, "st2", slots=SLOTS)


def test_another_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(path).close()
    monkeypatch.setattr(journal_files, "VERSION", 99)
    with pytest.raises(JournalError, match="version 1, this program writes 99"):
        opened(path)


def crashed(path: Path, count: int) -> None:
    """A journal with ``count`` results and one owed, left without closing."""
    journal = opened(path)
    fill(journal, count)
    journal.owe(journal.reserve(), b"owed")
    copy = path.read_bytes()
    journal.close()
    path.write_bytes(copy)


def test_after_a_crash_of_the_process_ids_go_on_without_a_gap(path: Path) -> None:
    crashed(path, 10)
    journal = opened(path)
    assert journal.notes == []
    assert journal.reserve() == 12
    journal.close()


def test_after_a_power_cut_ids_go_on_after_a_named_gap(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed(path, 10)
    data = bytearray(path.read_bytes())
    data[RESULTS_AT : RESULTS_AT + SLOTS * SLOT_NBYTES] = bytes(SLOTS * SLOT_NBYTES)  # pages that never got to disk
    path.write_bytes(data)
    monkeypatch.setattr(journal_module, "_boot_id", lambda: "another boot")
    journal = opened(path)
    assert "1 to 100 are skipped" in journal.notes[0]
    assert journal.reserve() == 101, "every id below was reserved on disk and may have been published"
    journal.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(RESULTS_AT, RESULTS_AT + 12 * SLOT_NBYTES), st.integers(1, 255)), min_size=1))
def test_whatever_is_damaged_nothing_false_is_believed(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    path = Path(tempfile.mkdtemp(dir=tmp_path)) / "st1.journal"
    crashed(path, 10)
    data = bytearray(path.read_bytes())
    for at, mask in damage:
        data[at] ^= mask
    path.write_bytes(data)
    journal = opened(path)
    true = {n: (b"done %d" % n, b"owed %d" % n) for n in range(1, 11)} | {11: (b"owed",)}
    found = {e.result_id: e.payload for e in journal.entries()}
    assert all(payload in true[result_id] for result_id, payload in found.items())
    assert len(found) + len([note for note in journal.notes if "corrupt" in note]) >= 11 - _emptied(data)
    assert journal.reserve() >= 12 or found.keys() == set(range(1, journal.last_id))
    journal.close()


def _emptied(data: bytearray) -> int:
    """Slots whose state byte the damage turned into empty: they cannot be told from slots never used."""
    return sum(data[RESULTS_AT + (n % SLOTS) * SLOT_NBYTES] == 0 for n in range(1, 12))


def test_a_slot_that_is_altered_while_in_use_is_not_trusted(path: Path) -> None:
    journal = opened(path)
    fill(journal, 3)
    with path.open("r+b") as file:
        at = path.read_bytes().index(b"done 2")
        file.seek(at)
        file.write(b"gone")
    assert journal.get(1) == b"done 1" and journal.get(2) is None
    assert [entry.result_id for entry in journal.entries()] == [1, 3]
    journal.close()


CHILD = """
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from asperity.runtime.records.journal import Journal
journal = Journal.open(Path(sys.argv[1]), "st1", slots=64, reserve_ids=100)
for entry in journal.entries():
    if entry.owed:
        journal.answer(entry.result_id, entry.payload)
        print("published", entry.result_id, "restarted", flush=True)
while True:
    a, b = journal.reserve(), journal.reserve()
    for result_id in (a, b):
        journal.owe(result_id, b"restarted %d" % result_id + b"." * (result_id % 900))
        print("admitted", result_id, flush=True)
    for result_id in (b, a):
        journal.answer(result_id, b"live %d" % result_id + b"-" * (result_id % 900))
        print("published", result_id, "live", flush=True)
"""


def test_kill_9_at_random_points_owes_nothing_and_repeats_no_id(path: Path) -> None:
    rng = random.Random(20261123)
    admitted: list[int] = []
    published: dict[int, str] = {}
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        # So many lines, not so long a time: a crowded machine may not let the child run meanwhile.
        lines = [child.stdout.readline() for _ in range(rng.randint(1, 400))]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
        child.wait()
        for line in (line.decode() for line in lines if line.endswith(b"\n")):
            what, number, *kind = line.split()
            if what == "admitted":
                admitted.append(int(number))
            else:
                assert int(number) not in published, "published twice"
                published[int(number)] = kind[0]
    journal = opened(path)
    assert journal.notes == []
    assert len(admitted) > 50
    assert len(set(admitted)) == len(admitted), "an id was given twice"
    entries = {e.result_id: e for e in journal.entries()}
    for result_id in admitted:
        if result_id in published:
            kept = journal.get(result_id)
            assert kept is None or kept.startswith(f"{published[result_id]} {result_id}".encode())
        else:  # killed between the journal and the pipe: it is owed, or answered and to be had from the journal
            assert result_id in entries or result_id < journal.oldest_id
    assert journal.reserve() > max(admitted)
    journal.close()
