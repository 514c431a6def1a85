"""The rows of docs/failsafe.md about hot folders: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

SOURCE = "cameras/sources/folder/source.py"
ARRIVALS = "cameras/sources/folder/arrivals.py"
FOLDER = "cameras/sources/folder/hot_folder.py"
NOT_RECORDED = (SOURCE, "self._taken.add(exposure.stem, tried, picture, taken=True)", "pass")
UNIT = "runtime/cameras/folder/test_folder_source.py"
ENDS = "runtime/cameras/folder/test_folder_ends.py"

TABLE: dict[str, dict[str, list[Off]]] = {
    "A folder that a camera's program writes into": {
        "a file is read while it is written": [
            off("runtime/cameras/folder/test_folder_machine.py::test_with_the_checks_off_a_torn_file_comes_through",
                "assert True == False", (ARRIVALS, "return now_ns - exposure.changed_ns >= self._rules.stable_ns", "return True")),
            off(f"{UNIT}::test_a_file_that_was_made_in_its_full_size_is_waited_for",
                "[1] == []", (FOLDER, "return size > 0 and os.lseek(handle, 0, os.SEEK_HOLE) < size", "return False")),
        ],
        "kill -9, a power cut or a restart between taking and sending": [
            off(f"{ENDS}::test_what_was_there_before_the_start[take-comes1]", "[1, 3] == [3]", NOT_RECORDED),
            off("runtime/cameras/folder/test_folder_kill.py::test_over_kills_each_exposure_comes_once_at_most_and_in_order[keep]",
                "assert [", NOT_RECORDED),
        ],
        "an exposure again: a name written again, a copy": [
            off(f"{UNIT}::test_a_name_that_comes_again_is_refused",
                "ValueError", (SOURCE, "if exposure.again and not settings.rules.overwritten:", "if False:")),
            off(f"{UNIT}::test_a_copy_of_an_exposure_is_refused",
                "[1] == []", (SOURCE, "if picture in self._pictures:", "if False:")),
        ],
        "an exposure out of order": [
            off(f"{UNIT}::test_a_name_that_comes_late_is_refused",
                "[1] == []", (ARRIVALS, "and known is None and self._is_past(stem):", "and False:")),
        ],
        "exposures of parts that are gone: old files, files that waited while the program stood still": [
            off(f"{UNIT}::test_an_exposure_that_is_too_old_is_refused",
                "== []", (ARRIVALS, "if self._rules.max_age_ns and age_ns > self._rules.max_age_ns:", "if False:")),
            off(f"{UNIT}::test_of_many_that_wait_the_oldest_are_refused",
                "assert [", (ARRIVALS, "if len(self._waiting) > self._rules.waiting_max:", "if False:")),
        ],
        "the folder's share is unmounted": [
            off(f"{ENDS}::test_a_folder_that_is_gone_or_another_one_ends_the_program",
                "DID NOT RAISE", (FOLDER, "if [found[:2] for found in stats] != self._identity:", "if False:")),
        ],
        "two programs take from one folder": [
            off(f"{ENDS}::test_a_folder_is_taken_by_one_program",
                "DID NOT RAISE", (FOLDER, "fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass")),
        ],
        "the record of what was taken is removed": [
            off(f"{ENDS}::test_without_its_record_nothing_is_taken[removed]",
                "DID NOT RAISE", ("cameras/sources/folder/taken.py", "if fault := self._file.fault():", "if fault := '':")),
        ],
        "half of an exposure is left, and a later exposure has its name": [
            off("runtime/cameras/folder/test_folder_ends.py::test_a_half_of_an_earlier_exposure_of_the_same_name_is_not_paired",
                "[(1, 2)]", (ARRIVALS, "if apart_ns > self._rules.settle_ns and not exposure.again:", "if False:")),
        ],
    },
}  # fmt: skip
