"""Which exposure is which part's: each row of the table in docs/wire.md, and a hundred thousand parts of mixed faults.

The tests of rows take the matcher's class, so that ``test_each_rule_is_needed`` can run each of them on a matcher of
which one rule was taken out, and see it fail.
"""

from __future__ import annotations

import inspect
import random
import sys
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from asperity.runtime.clock import MS
from asperity.runtime.inspector import part_matching
from asperity.runtime.inspector.part_matching import DeviceClock, PartMatcher
from asperity.runtime.settings.station_toml import HardWired
from tests.runtime.inspector.line_simulation import (
    DEVICE_SETTINGS,
    FAULTS,
    PITCH_MS,
    SETTINGS,
    Exposure,
    Line,
    Outcome,
    make_line,
    play,
)

Make = Callable[[HardWired, int], Any]
PARTS = 10
TOUCHED = 5
"""The part with which something is wrong."""
MANY = 100_000


@pytest.fixture
def make() -> Make:
    return PartMatcher


def line(parts: int = PARTS, begin_ms: float = 5000.0) -> Line:
    """A faultless line: a part each 400 ms, announced 30 ms after its exposure, which takes 10 ms to arrive."""
    times_ms = [begin_ms + PITCH_MS * part for part in range(parts)]
    return Line(
        parts,
        [Exposure(at_ms, part) for part, at_ms in enumerate(times_ms)],
        [(at_ms + 30, part) for part, at_ms in enumerate(times_ms)],
        times_ms=times_ms,
    )


def said(outcome: Outcome) -> list[str]:
    """What each part got, in order."""
    assert not outcome.wrong
    assert set(outcome.answers.values()) == {1}
    return [outcome.of_part.get(part, "nothing") for part in range(PARTS)]


def all_own_but(**others: str) -> list[str]:
    """``own`` for every part but those named ``p5="NO_FRAME"``; a final ``after`` holds for all that come later."""
    found = ["own"] * PARTS
    after = others.pop("after", "")
    for name, reason in others.items():
        found[int(name[1:])] = reason
    if after:
        first = 1 + max(int(name[1:]) for name in others)
        found[first:] = [after] * (PARTS - first)
    return found


# ---------------------------------------------------------------------- the rows of the table


def row_one_exposure_in_one_window_is_that_parts(make: Make) -> None:
    assert said(play(line(), make)) == all_own_but()


def row_an_announcement_before_the_exposure_is_as_good(make: Make) -> None:
    given = line()
    given.announcements = [(at_ms - 15, part) for part, at_ms in enumerate(given.times_ms)]
    assert said(play(given, make)) == all_own_but()


def row_two_exposures_in_a_window_are_nobodys(make: Make) -> None:
    given = line()
    given.exposures.insert(TOUCHED + 1, Exposure(given.times_ms[TOUCHED] + 20, TOUCHED))
    outcome = play(given, make)
    assert said(outcome) == all_own_but(p5="AMBIGUOUS")
    assert outcome.exposures == Counter(AMBIGUOUS=2)


def row_an_exposure_in_two_windows_is_nobodys(make: Make) -> None:
    given = line()
    given.exposures.pop(TOUCHED + 1)
    given.announcements[TOUCHED + 1] = (given.times_ms[TOUCHED] + 45, TOUCHED + 1)
    assert said(play(given, make)) == all_own_but(p5="AMBIGUOUS", p6="AMBIGUOUS")


def row_a_lost_exposure_costs_what_it_may_have_been(make: Make) -> None:
    given = line()
    given.exposures[TOUCHED].fate = "lost"
    assert said(play(given, make)) == all_own_but(p5="NO_FRAME", p6="AMBIGUOUS")


def row_a_lost_exposure_next_to_a_late_announcement_accepts_no_neighbour(make: Make) -> None:
    """Part 5's exposure is lost and its announcement comes a pitch late, where only part 6's exposure is."""
    given = line()
    given.exposures[TOUCHED].fate = "lost"
    given.announcements[TOUCHED] = (given.announcements[TOUCHED][0] + PITCH_MS, TOUCHED)
    given.announcements.pop(TOUCHED + 1)
    assert said(play(given, make))[TOUCHED] == "AMBIGUOUS"


def row_a_missing_exposure_right_after_a_pause_is_unsynced(make: Make) -> None:
    """With announcements that lag a pitch, the first of them would take the second exposure."""
    given = line()
    given.exposures[3].fate = "broken"
    for exposure in given.exposures[3:]:
        exposure.at_ms += 2000
    given.announcements = [(at_ms + (2000 + PITCH_MS if part >= 3 else 0), part) for at_ms, part in given.announcements]
    assert said(play(given, make)) == ["own"] * 3 + ["UNSYNCED"] * 7


def row_a_broken_exposure_costs_its_part(make: Make) -> None:
    given = line()
    given.exposures[TOUCHED].fate = "broken"
    given.exposures.insert(TOUCHED + 1, Exposure(given.times_ms[TOUCHED] + 25, TOUCHED - 1))  # not of this part
    outcome = play(given, make)
    assert said(outcome) == all_own_but(p5="AMBIGUOUS")


def row_a_late_frame_is_stale(make: Make) -> None:
    given = line()
    given.exposures[TOUCHED].transit_ms = 85
    assert said(play(given, make)) == all_own_but(p5="STALE")


def row_a_very_late_frame_costs_its_part_only(make: Make) -> None:
    given = line()
    given.exposures[TOUCHED].transit_ms = 300
    outcome = play(given, make)
    assert said(outcome) == all_own_but(p5="NO_FRAME")
    assert outcome.exposures == Counter(STALE=1)


def row_no_exposure_costs_that_part_only(make: Make) -> None:
    given = line()
    given.exposures.pop(TOUCHED)
    assert said(play(given, make)) == all_own_but(p5="NO_FRAME")


def row_an_unannounced_exposure_leaves_the_line_unsynced(make: Make) -> None:
    given = line()
    given.exposures.insert(TOUCHED + 1, Exposure(given.times_ms[TOUCHED] + 200, -1))
    outcome = play(given, make)
    assert said(outcome) == all_own_but(p6="UNSYNCED", after="UNSYNCED")
    assert outcome.exposures["UNANNOUNCED"] == 1


def row_announcements_that_lag_a_pitch_accept_no_neighbour(make: Make) -> None:
    given = line()
    given.announcements = [
        (at_ms + (PITCH_MS if part >= TOUCHED else 0), part) for at_ms, part in given.announcements
    ]
    assert said(play(given, make))[TOUCHED:] == ["UNSYNCED"] * (PARTS - TOUCHED)


def row_a_start_is_unsynced_until_a_pause(make: Make) -> None:
    outcome = play(line(begin_ms=1000.0), make)
    assert said(outcome) == ["UNSYNCED"] * PARTS


def row_unsynced_ends_with_a_pause(make: Make) -> None:
    given = line()
    given.exposures.insert(3, Exposure(given.times_ms[2] + 200, -1))
    for exposure in given.exposures[TOUCHED + 1 :]:
        exposure.at_ms += 2000
    given.announcements = [(at_ms + (2000 if part >= TOUCHED else 0), part) for at_ms, part in given.announcements]
    assert said(play(given, make)) == ["own"] * 3 + ["UNSYNCED"] * 2 + ["own"] * 5


def row_the_first_after_a_pause_must_match(make: Make) -> None:
    given = line()
    given.exposures.pop(0)
    assert said(play(given, make)) == ["NO_FRAME"] + ["UNSYNCED"] * 9


def row_an_exposure_in_the_future_is_unsynced(make: Make) -> None:
    given = line()
    given.camera_clock_steps = [(given.times_ms[TOUCHED] - 100, 20.0), (given.times_ms[TOUCHED] + 100, -20.0)]
    assert said(play(given, make)) == all_own_but(p5="UNSYNCED", after="UNSYNCED")


def row_an_exposure_without_a_time_is_unsynced(make: Make) -> None:
    given = line()
    given.exposures[TOUCHED].fate = "no_time"
    outcome = play(given, make)
    assert said(outcome) == all_own_but(p5="UNSYNCED", after="UNSYNCED")


def row_another_camera_session_is_unsynced(make: Make) -> None:
    given = line()
    given.camera_restarts = [given.times_ms[TOUCHED] - 50]
    assert said(play(given, make)) == all_own_but(p5="UNSYNCED", after="UNSYNCED")


def row_what_is_under_way_when_the_clock_steps_is_unsynced(make: Make) -> None:
    given = line()
    given.clock_steps = [(given.times_ms[TOUCHED] + 40, 100.0)]
    assert said(play(given, make)) == all_own_but(p5="UNSYNCED", after="UNSYNCED")


def row_the_answer_waits_for_the_last_announcement_in_time(make: Make) -> None:
    """Of two announcements, 10 ms before and 55 ms after, either could be the one of this exposure."""
    given = line()
    given.announcements.append((given.times_ms[TOUCHED] - 15, 77))
    given.announcements[TOUCHED] = (given.times_ms[TOUCHED] + 63, TOUCHED)
    outcome = play(given, make, HardWired(
        early_ms=20, late_ms=60, arrival_max_ms=15, tolerance_ms=5, pitch_min_ms=400, quiet_ms=1500,
    ))  # fmt: skip
    assert said(outcome) == all_own_but(p5="AMBIGUOUS")
    assert outcome.of_part[77] == "AMBIGUOUS"


ROWS = {name: row for name, row in globals().items() if name.startswith("row_")}


@pytest.mark.parametrize("row", ROWS.values(), ids=[name.removeprefix("row_") for name in ROWS])
def test_row(row: Callable[[Make], None], make: Make) -> None:
    row(make)


RULES: dict[str, tuple[str, str, Callable[[Make], None]]] = {
    "two exposures in a window": (
        "if len(inside) > 1:", "if False:", row_two_exposures_in_a_window_are_nobodys,
    ),
    "one exposure in two windows": (
        "if len(self._claims(inside[0])) > 1:", "if False:", row_an_exposure_in_two_windows_is_nobodys,
    ),
    "a missing exposure makes a gap": (
        "if any(since_ns < part.to_ns and until_ns > part.from_ns", "if any(False and until_ns > part.from_ns",
        row_a_lost_exposure_next_to_a_late_announcement_accepts_no_neighbour,
    ),
    "a broken exposure makes a gap": (
        "self._gaps.append((since_ns, until_ns))", "pass", row_a_broken_exposure_costs_its_part,
    ),
    "a missing exposure after a pause": (
        "if self._after_pause or since_ns is None:", "if since_ns is None:",
        row_a_missing_exposure_right_after_a_pause_is_unsynced,
    ),
    "late frames": ("if inside[0].late:", "if False:", row_a_late_frame_is_stale),
    "late frames of answered parts": (
        "elif all(each.answered for each in claims):", "elif False:", row_a_very_late_frame_costs_its_part_only,
    ),
    "no exposure": ("if not inside:\n            return Reason.NO_FRAME", "if not inside:\n            return None",
                    row_no_exposure_costs_that_part_only),
    "an exposure that nobody announced": (
        'self.unsync("an exposure was not announced")', "pass", row_announcements_that_lag_a_pitch_accept_no_neighbour,
    ),
    "unsynced at the start": ("self.synced = False\n        self.why", "self.synced = True\n        self.why",
                              row_a_start_is_unsynced_until_a_pause),
    "a pause ends it": ("self.synced = self._proving = True", "pass", row_unsynced_ends_with_a_pause),
    "quiet": ("now_ns - self._last_ns >= self._quiet_ns", "True", row_a_start_is_unsynced_until_a_pause),
    "the first must match": ("elif self._proving:", "elif False:", row_the_first_after_a_pause_must_match),
    "the future": ("elif exposed_ns > now_ns + self._tolerance_ns:", "elif False:",
                   row_an_exposure_in_the_future_is_unsynced),
    "no time": ('self.unsync("the time of an exposure is unknown")', "pass",
                row_an_exposure_without_a_time_is_unsynced),
    "unsynced answers what is under way": (
        "self._answers += [Match(key, None, Reason.UNSYNCED, why) for key in parts]", "pass",
        row_what_is_under_way_when_the_clock_steps_is_unsynced,
    ),
    "unsynced refuses announcements": (
        "        if not self.synced:\n            self._answers.append(Match(key",
        "        if False:\n            self._answers.append(Match(key",
        row_an_unannounced_exposure_leaves_the_line_unsynced,
    ),
    "windows reach back": ("self._before_ns = late + tolerance", "self._before_ns = tolerance",
                           row_one_exposure_in_one_window_is_that_parts),
    "windows reach ahead": ("self._after_ns = early + tolerance", "self._after_ns = 0",
                            row_an_announcement_before_the_exposure_is_as_good),
    "answers wait for late announcements": (
        "max(self._arrival_max_ns, late)", "self._arrival_max_ns",
        row_the_answer_waits_for_the_last_announcement_in_time,
    ),
    "answers wait for frames": (
        "max(self._arrival_max_ns, late)", "0", row_a_late_frame_is_stale,
    ),
}  # fmt: skip


def without(before: str, after: str) -> Make:
    """The matcher's class with one rule taken out of its source."""
    source = inspect.getsource(part_matching)
    assert source.count(before) == 1, f"the rule {before!r} is not there once"
    names: dict[str, Any] = {"__name__": "runtime.part_matching_without"}
    module = types.ModuleType(names["__name__"])
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(source.replace(before, after), "part_matching", "exec"), module.__dict__)
    matcher: Make = module.__dict__["PartMatcher"]
    return matcher


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_needed(rule: str) -> None:
    before, after, row = RULES[rule]
    with pytest.raises((AssertionError, ValueError)):  # ValueError: a picture that is not there was given away
        row(without(before, after))


# ---------------------------------------------------------------------- many parts


def many(
    rate: float, faults: tuple[str, ...], make: Make = PartMatcher, apart: int = 0, **options: Any
) -> Counter[str]:
    rng, total = random.Random(7), Counter[str]()
    while total["parts"] < MANY:
        given = make_line(rng, 60, rate, faults, apart)
        outcome = play(given, make, **options)
        assert set(outcome.answers.values()) <= {1}
        total += Counter(parts=given.parts, own=len(outcome.own), wrong=len(outcome.wrong), bound=len(outcome.bound))
    return total


def test_without_faults_every_part_has_its_own_verdict() -> None:
    total = many(0.0, ())
    assert total["own"] == total["parts"] and total["wrong"] == 0


def test_no_part_has_anothers_picture_whatever_goes_wrong() -> None:
    total = many(0.12, FAULTS)
    assert total["wrong"] == 0
    assert total["own"] > total["parts"] // 4, "the simulation judged next to nothing"


def test_a_device_clock_gives_no_part_anothers_picture() -> None:
    """One fault at a time. Of mixed faults one kind is left: an exposure missed right after a pause, while
    announcements lag by a pitch (docs/decisions/which-part.md)."""
    for ppm in (20.0, -20.0):
        total = many(
            0.12, FAULTS, apart=6, settings=DEVICE_SETTINGS, make_device_clock=DeviceClock, device_drift_ppm=ppm
        )
        assert total["wrong"] == 0
        assert total["own"] > total["parts"] // 10, "the simulation judged next to nothing"


def test_the_simulation_sees_wrong_bindings_where_the_rule_is_weaker() -> None:
    weaker = without('self.unsync("an exposure was not announced")', "pass")
    assert many(0.12, FAULTS, weaker)["wrong"] > 0


# ---------------------------------------------------------------------- bounds


def test_a_flood_is_bounded_and_answered() -> None:
    matcher = PartMatcher(SETTINGS, 0)
    matcher.expose(0, 10_000 * MS, 10_000 * MS)
    for key in range(1, 2000):
        matcher.expose(key, 10_000 * MS + key, 10_000 * MS + key)
    answered = matcher.settle(11_000 * MS)
    assert sorted(match.exposure or 0 for match in answered) == list(range(2000))
    assert {match.reason.name for match in answered if match.reason} == {"UNSYNCED"}


def test_every_answer_comes_in_bounded_time() -> None:
    matcher = PartMatcher(SETTINGS, 0)
    matcher.announce(1, 10_000 * MS)
    matcher.expose(2, 9_990 * MS, 10_010 * MS)
    assert matcher.settle(10_010 * MS) == []
    due_ns = matcher.next_due_ns()
    assert due_ns is not None and due_ns <= 10_010 * MS + matcher.longest_ns
    (match,) = matcher.settle(10_000 * MS + matcher.longest_ns)
    assert (match.part, match.exposure, match.reason) == (1, 2, None)
    assert matcher.next_due_ns() is None


def test_a_device_clock_is_known_after_its_first_frames_and_maps_by_the_fastest() -> None:
    clock = DeviceClock(HardWired(pitch_min_ms=400, transit_ms=5, device_frames=3))
    transits_ms = [30, 5, 40, 25, 60]
    found = [clock.map(1000 * (77_000 + 400 * n), (400 * n + transit) * MS) for n, transit in enumerate(transits_ms)]
    assert found == [None, None, None, 1200 * MS, 1600 * MS]
