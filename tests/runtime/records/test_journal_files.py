"""The files of a journal refused, lost, cut or on a full disk: it is named, and no id is given twice."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asperity.runtime.errors import JournalError
from asperity.runtime.records.journal import HEADER_NBYTES, SLOT_NBYTES
from tests.runtime.records.journals import RESULTS_AT, fill, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "st1.journal"


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
