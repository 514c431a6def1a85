"""The journal keeps what is owed through kill -9, never gives an id twice, and never believes a damaged slot."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asperity.runtime.errors import JournalError
from asperity.runtime.records import journal as journal_module
from asperity.runtime.records import journal_files
from asperity.runtime.records.journal import HEADER_NBYTES, PAYLOAD_MAX, PROMISES_MAX, SLOT_NBYTES, Journal

SLOTS = 64
RESULTS_AT = HEADER_NBYTES + PROMISES_MAX * SLOT_NBYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "st1.journal"


def opened(path: Path, **options: int) -> Journal:
    return Journal.open(path, "st1", slots=SLOTS, **{"reserve_ids": 100, **options})


def fill(journal: Journal, count: int) -> None:
    for _ in range(count):
        result_id = journal.reserve()
        journal.owe(result_id, b"owed %d" % result_id)
        journal.answer(result_id, b"done %d" % result_id)


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


IDS = ".ids"


def ids_of(path: Path) -> Path:
    return path.with_name(path.name + IDS)


def test_a_link_a_pipe_a_folder_and_another_users_file_are_refused(path: Path, tmp_path: Path) -> None:
    opened(path).close()
    elsewhere = tmp_path / "elsewhere"
    for refused in (path, ids_of(path)):
        refused.rename(elsewhere)
        for put, words in (
            (lambda at: at.symlink_to(elsewhere), "it is a link"),
            (lambda at: at.symlink_to(tmp_path / "nothing"), "it is a link"),
            (os.mkfifo, "it is a pipe, not a regular file"),
            (Path.mkdir, "Is a directory"),
        ):
            put(refused)  # type: ignore[operator]
            with pytest.raises(JournalError, match=words) as caught:
                opened(path)
            assert str(refused) in str(caught.value) and "[journal] path" in str(caught.value)
            refused.rmdir() if refused.is_dir() and not refused.is_symlink() else refused.unlink()
        elsewhere.rename(refused)
    opened(path).close()


def test_a_file_that_others_own_or_may_write_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(path).close()
    path.chmod(0o666)
    with pytest.raises(JournalError, match="mode 0666"):
        opened(path)
    path.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    if path.stat().st_uid == 0:
        os.chown(path, 4711, -1)
    with pytest.raises(JournalError, match="belongs to another user"):
        opened(path)


def replace_by_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.chmod(0o600)
    other.replace(path)


LOSSES: list[tuple[Callable[[Path], object], str]] = [
    (Path.unlink, "was removed"),
    (lambda path: path.rename(path.with_name("moved")), "was removed"),
    (replace_by_another, "was replaced by another file"),
    (lambda path: os.truncate(path, 0), "was truncated"),
    (lambda path: os.truncate(path, RESULTS_AT), "was truncated"),
    (lambda path: os.truncate(path, 10**9), "grew to"),
    (lambda path: path.write_bytes(bytes(path.stat().st_size)), "was overwritten"),
]
LOST = pytest.mark.parametrize(
    ("lose", "words"), LOSSES, ids=["removed", "moved", "replaced", "emptied", "cut", "grown", "overwritten"]
)


@LOST
def test_a_journal_that_is_lost_while_it_is_in_use_is_named_and_gives_no_id_twice(
    path: Path, lose: Callable[[Path], object], words: str
) -> None:
    journal = opened(path)
    fill(journal, 10)
    lose(path)
    given = [journal.reserve() for _ in range(500)]
    assert not journal.answer(given[0], b"done"), "what is not kept is not said to be kept"
    assert not journal.owe(given[1], b"owed")
    journal.redeem(journal.promise(b"trigger"))
    assert words in journal.fault and str(path) in journal.fault and journal.look() == journal.fault
    assert len(list(journal.entries())) <= 10
    given += [journal.reserve() for _ in range(500)]
    journal.close()
    path.unlink(missing_ok=True)
    journal = opened(path)
    assert "was not there although ids" in journal.notes[0] and f"continue at {journal.last_id + 1}" in journal.notes[0]
    assert journal.reserve() > max(given)
    journal.close()


@LOST
def test_ids_outlive_the_loss_of_both_files(path: Path, lose: Callable[[Path], object], words: str) -> None:
    journal = opened(path)
    fill(journal, 10)
    lose(ids_of(path))
    path.unlink()
    assert journal.look()
    given = [journal.reserve() for _ in range(300)]
    journal.close()
    journal = opened(path)
    assert journal.reserve() > max(given)
    journal.close()


def test_ids_outlive_the_loss_of_the_whole_folder(path: Path) -> None:
    journal = opened(path)
    fill(journal, 10)
    shutil.rmtree(path.parent)
    assert "was removed" in journal.look()
    given = [journal.reserve() for _ in range(300)]
    with pytest.raises(JournalError, match="in use by another process"):
        opened(path)
    journal.close()
    journal = opened(path)
    assert journal.reserve() > max(given)
    journal.close()


def test_ids_are_safe_as_soon_as_the_loss_is_seen(path: Path) -> None:
    journal = opened(path)
    fill(journal, 10)
    shutil.rmtree(path.parent)
    assert journal.look()
    for file in (journal._file, journal._ids):  # killed here
        file.close()
    journal = opened(path)
    assert journal.reserve() > 10
    journal.close()


def test_where_no_id_is_safe_none_is_given(path: Path) -> None:
    journal = opened(path)
    fill(journal, 10)
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"in its place")
    with pytest.raises(JournalError, match="no result id is safe to give"):
        journal.look()


def test_a_copy_from_before_does_not_bring_ids_back(path: Path) -> None:
    opened(path).close()
    before = path.read_bytes()
    journal = opened(path)
    fill(journal, 450)
    journal.close()
    path.write_bytes(before)
    journal = opened(path)
    assert "1 to 500 are skipped" in journal.notes[0] and "records ids that the journal does not" in journal.notes[0]
    assert journal.reserve() == 501
    journal.close()


def test_without_its_second_file_a_journal_goes_on_and_makes_it_again(path: Path) -> None:
    journal = opened(path)
    fill(journal, 10)
    journal.close()
    ids_of(path).unlink()  # as an earlier version left it
    journal = opened(path)
    assert journal.notes == [] and journal.reserve() == 11
    journal.close()
    assert ids_of(path).exists()


@pytest.mark.parametrize("damage", [lambda data: b"x" * len(data), lambda data: data[:-1], lambda data: b""])
def test_a_damaged_second_file_is_refused_with_the_remedy(path: Path, damage: Callable[[bytes], bytes]) -> None:
    opened(path).close()
    ids_of(path).write_bytes(damage(ids_of(path).read_bytes()))
    with pytest.raises(JournalError, match=r"st1\.journal\.ids is not a journal .* move it away if the journal"):
        opened(path)


def test_a_first_id_below_those_given_does_not_count(path: Path) -> None:
    opened(path, first_id=5000).close()
    path.unlink()
    journal = opened(path, first_id=1)
    assert journal.reserve() >= 5000
    journal.close()
    path.unlink()
    journal = opened(path, first_id=90_000)
    assert journal.reserve() == 90_000
    journal.close()


def test_a_disk_that_takes_nothing_more_is_a_fault_and_no_crash(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(path)
    fill(journal, 3)

    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert not journal.answer(journal.reserve(), b"done")
    assert "cannot be written (No space left on device)" in journal.fault
    journal.close()


def test_a_disk_that_takes_nothing_at_the_start_is_refused_and_nothing_is_held(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(path).close()

    def full(fd: int, buffers: list[bytes], offset: int, flags: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(JournalError, match=r"cannot be written \(Input/output error\)"):
        opened(path)
    monkeypatch.undo()
    journal = opened(path)
    assert journal.reserve() > 0
    journal.close()


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


CUT = """
import os, sys
from pathlib import Path
from asperity.runtime.records.journal import Journal
journal = Journal.open(Path(sys.argv[1]), "st1", slots=64)
for _ in range(70):
    journal.answer(journal.reserve(), b"done")
os.truncate(sys.argv[1], int(sys.argv[2]))
kept = journal.answer(journal.reserve(), b"done")
journal.get(70), list(journal.entries()), journal.promises()
print(kept, journal.fault)
"""


@pytest.mark.parametrize("nbytes", [0, HEADER_NBYTES, RESULTS_AT + SLOT_NBYTES])
def test_a_process_survives_that_its_journal_is_cut(path: Path, nbytes: int) -> None:
    command = [sys.executable, "-c", CUT, str(path), str(nbytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr}"
    assert done.stdout.startswith("False ") and "was truncated" in done.stdout


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
