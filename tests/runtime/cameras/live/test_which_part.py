"""Software triggers through a real station: no part gets the picture of another, whatever the camera does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from asperity.runtime.cameras.exposure_order import ExposureOrder
from asperity.runtime.cameras.sources.genicam import count as genicam_count
from asperity.runtime.cameras.sources.genicam.source import GenicamSection, GenicamSource
from asperity.runtime.reasons import Reason
from asperity.testing import CAMERA, STATION, Line
from tests.runtime.cameras.live.belt import ANSWER_MS, Belt, BeltSource, GenicamBelt, Plc, Scripted, watched

_first = count(1, 20)


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    limits = {"deadline_ms": 60_000, "max_age_ms": 60_000}
    station = {"name": STATION, "camera": CAMERA, "triggers": "software"}
    with Line(station=station, limits=limits) as made:
        made.start()
        made.await_running()
        yield made


CAMERAS = ["genicam", "genicam without latch", "scripted"]


def source_of(camera: str, script: Scripted) -> Any:
    if camera == "scripted":
        return BeltSource(script)
    return GenicamSource(GenicamBelt(script, latch=camera == "genicam"), GenicamSection(), "software")


def inspected(
    line: Line, camera: str, words: str, parts: int, transit_ms: float = 40, second_ms: int = 20
) -> tuple[Plc, dict[int, Any]]:
    """Trigger once for each part, as soon as the part before has its result."""
    belt, first = Belt(), next(_first)
    script = Scripted(belt, words, transit_ms, second_ms)
    with watched(line, belt, script, source_of(camera, script)) as plc:
        results = plc.inspect(*range(first, first + parts))
    return plc, dict(enumerate(results.values()))


def overtaken(line: Line, camera: str, timeout_ms: int = ANSWER_MS) -> tuple[Plc, dict[int, Any]]:
    """The camera exposes when the next part is there already, which was triggered."""
    belt, first = Belt(), next(_first)
    bad = first + -first % 3  # bad, then good: accepted with the picture of the good one
    script = Scripted(belt, "lags one", transit_ms=10)
    with watched(line, belt, script, source_of(camera, script)) as plc:
        results = plc.overtake(script, bad, bad + 1, timeout_ms)
    return plc, results


def accepted_as_it_is(results: dict[int, Any]) -> bool:
    return all(one.accept == Belt.is_good(one.trigger_id) for one in results.values())


@pytest.mark.parametrize("camera", CAMERAS)
def test_five_of_five_parts_have_the_verdict_of_their_own_picture(line: Line, camera: str) -> None:
    plc, results = inspected(line, camera, "one", 5)
    assert not plc.wrong(results) and plc.lost is None
    assert accepted_as_it_is(results) and len(results) == 5


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_that_loses_exposures_or_brings_them_late_costs_only_their_parts(line: Line, camera: str) -> None:
    plc, results = inspected(line, camera, "one lost one late one", 6)
    assert not plc.wrong(results)
    assert [results[at].reason for at in (1, 3)] == [Reason.NO_FRAME] * 2
    if camera != "scripted":  # it does not know of the trigger that was given up, and the loop ends it
        assert plc.lost is None and accepted_as_it_is({at: results[at] for at in (0, 2, 4, 5)})


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_that_exposes_twice_for_a_trigger_answers_none_by_the_picture_before(line: Line, camera: str) -> None:
    """The second exposure is still being computed when the next trigger comes."""
    plc, results = inspected(line, camera, "one two two-late two three-late", 7)
    assert not plc.wrong(results)
    if camera == "genicam":
        assert plc.lost is None and accepted_as_it_is(results)
    else:
        assert ("older than it" if camera == "scripted" else "more than once for a trigger") in str(plc.lost)


def test_the_pictures_of_the_part_before_are_noticed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the check of times a good part's picture passes the part after it."""
    monkeypatch.setattr(genicam_count.TriggerTimes, "is_before", lambda *_: False)
    plc, results = inspected(line, "genicam", "one two-late one two-late", 5, transit_ms=250, second_ms=200)
    assert plc.wrong(results)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_that_exposes_when_the_next_part_is_there_gives_its_picture_to_no_other(
    line: Line, camera: str
) -> None:
    plc, results = overtaken(line, camera)
    assert not plc.wrong(results)
    assert next(iter(results.values())).reason is Reason.NO_FRAME


def test_the_picture_of_the_next_part_is_noticed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the check of when it was exposed a bad part passes with the next one's picture."""
    monkeypatch.setattr(ExposureOrder, "latest_ns", lambda *given: 0)
    plc, results = overtaken(line, "scripted", timeout_ms=60_000)
    assert plc.wrong(results)
