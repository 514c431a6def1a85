"""The record of what was taken from a folder: the last 1024, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asperity.runtime.cameras.sources.folder.arrivals import MAX_STEM_NBYTES, REMEMBERED, Seen
from asperity.runtime.cameras.sources.folder.taken import HEADER_NBYTES, SLOT_NBYTES, Taken
from asperity.runtime.errors import CameraError

FOLDER = Path("/srv/camera")
PICTURE = bytes(range(16))


def halves(number: int) -> dict[str, Seen]:
    return {"points": Seen(2**64 - 1, 100, number), "colour": Seen(7, 2**40, number - 1)}


def taken(path: Path, *numbers: int, refused: tuple[int, ...] = ()) -> Taken:
    record = Taken(path, FOLDER)
    for number in numbers:
        record.add(str(number), halves(number), PICTURE, taken=number not in refused)
    return record


def test_what_was_decided_is_known_after_a_kill(tmp_path: Path) -> None:
    stems = [os.fsdecode(b"part\xff"), "é" * (MAX_STEM_NBYTES // 2), "3"]
    record = Taken(tmp_path / "r", FOLDER)
    for number, stem in enumerate(stems, start=1):
        record.add(stem, halves(number), PICTURE, taken=number != 3)
    record.close()
    again = Taken(tmp_path / "r", FOLDER)
    assert [entry.stem for entry in again.entries] == stems
    assert [(entry.number, entry.taken, entry.picture) for entry in again.entries] == [
        (1, True, PICTURE), (2, True, PICTURE), (3, False, PICTURE),
    ]  # fmt: skip
    assert [dict(entry.halves) for entry in again.entries] == [halves(1), halves(2), halves(3)]
    again.close()


def test_the_last_ones_are_kept_and_the_latest_time_of_all(tmp_path: Path) -> None:
    record = taken(tmp_path / "r", 10**9, refused=(10**9,))  # not on the disk at once, so that this is quick
    numbers = range(1, REMEMBERED + 11)
    for number in numbers:
        record.add(str(number), halves(number), taken=False)
    record.close()
    again = Taken(tmp_path / "r", FOLDER)
    assert [entry.stem for entry in again.entries] == [str(number) for number in numbers[-REMEMBERED:]]
    assert again.entries[-1].latest_ns == 10**9
    again.close()


def test_a_power_cut_while_an_exposure_is_entered_costs_that_one(tmp_path: Path) -> None:
    taken(tmp_path / "r", 1, 2, 3).close()
    data = bytearray((tmp_path / "r").read_bytes())
    at = HEADER_NBYTES + 3 * SLOT_NBYTES
    data[at + 50 : at + SLOT_NBYTES] = bytes(SLOT_NBYTES - 50)
    (tmp_path / "r").write_bytes(data)
    again = Taken(tmp_path / "r", FOLDER)
    assert [entry.stem for entry in again.entries] == ["1", "2"]
    again.add("3", halves(3), PICTURE, taken=True)
    again.close()
    assert [entry.stem for entry in Taken(tmp_path / "r", FOLDER).entries] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("passed", "refused", "doubtful"), [(2, (), None), (1, (), "2"), (1, (2,), None), (0, (2,), "1")]
)
def test_what_was_perhaps_not_sent_is_named(
    tmp_path: Path, passed: int, refused: tuple[int, ...], doubtful: str | None
) -> None:
    record = Taken(tmp_path / "r", FOLDER)
    for number in (1, 2):
        record.add(str(number), halves(number), PICTURE, taken=number not in refused)
        if number == passed:
            record.passed_on()
    record.close()
    found = Taken(tmp_path / "r", FOLDER).doubtful
    assert (found and found.stem) == doubtful


def test_the_record_of_another_folder_is_refused(tmp_path: Path) -> None:
    taken(tmp_path / "r", 1).close()
    with pytest.raises(CameraError, match="is not the record of what was taken from"):
        Taken(tmp_path / "r", Path("/srv/other"))


def test_a_record_is_used_by_one_program(tmp_path: Path) -> None:
    record = taken(tmp_path / "r")
    with pytest.raises(CameraError, match="another program takes the exposures"):
        Taken(tmp_path / "r", FOLDER)
    record.close()
