"""The source genicam over a stand-in camera: what the simulated producer of the SDK does not have."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.live import LiveLoop
from asperity.runtime.cameras.source import Shot, Triggers
from asperity.runtime.cameras.sources.genicam import source as genicam
from asperity.runtime.cameras.sources.genicam.payload import Delivery
from asperity.runtime.cameras.sources.genicam.source import GenicamSection, GenicamSource
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError
from asperity.runtime.reasons import Reason
from asperity.testing import CAMERA, PATIENCE_MS, STATION, Line
from tests.runtime.cameras.genicam.genicam_stand_in import MM, StandIn, StandInNodes, delivery, part, picture, points

TRIGGER = {"TriggerSelector": "AcquisitionStart", "TriggerMode": "Off", "TriggerSource": "Line9"}


def opened(camera: StandIn, triggers: Triggers = "free_run", **options: Any) -> GenicamSource:
    return GenicamSource(camera, GenicamSection(**options), triggers)


def shots(source: GenicamSource, count: int) -> list[Shot]:
    found = [source.shot(1) for _ in range(count)]
    return [one for one in found if one is not None]


def test_a_frame_is_all_of_one_buffer_with_the_cameras_own_number_and_time() -> None:
    camera = StandIn()
    camera.queue.extend([delivery(7, time_us=1_000), delivery(9, time_us=3_000)])
    source = opened(camera)
    first, second = shots(source, 2)
    assert (first.number, second.number) == (7, 9)
    assert (first.frame.t_exposure_us, second.frame.t_exposure_us, first.frame.clock) == (1_000, 3_000, "device")
    for shot in (first, second):
        assert shot.number is not None and shot.frame.xyz is not None
        assert np.array_equal(shot.frame.rgb, picture(shot.number))
        assert np.array_equal(shot.frame.xyz, points(shot.number))
        assert shot.frame.sensor == source.sensor == "Stand In S1" and shot.frame.unit == "mm"
    assert source.shot(1) is None, "a time-out alone is not a loss"
    source.close()
    assert camera.closed == 1 and camera.buffers == 4


def test_settings_come_before_the_trigger_and_after_what_every_camera_needs() -> None:
    nodes = StandInNodes(TRIGGER, GenDCStreamingMode="On", AcquisitionMode="SingleFrame", Gain=0)
    opened(StandIn(nodes), "hard_wired", settings=("Gain=3",), trigger_line="Line1")
    assert nodes.log[:6] == ["GenDCStreamingMode=Off", "AcquisitionMode=Continuous", "Gain=3",
                             "TriggerSelector=FrameStart", "TriggerMode=On", "TriggerSource=Line1"]  # fmt: skip
    free = StandInNodes(TRIGGER)
    opened(StandIn(free))
    assert free.values["TriggerMode"] == "Off"


def wrong_serial() -> GenicamSource:
    return opened(StandIn(serial="S2"), serial="S1")


def unset() -> GenicamSource:
    return opened(StandIn(StandInNodes()), settings=("Gain=3",))


def no_trigger() -> GenicamSource:
    return opened(StandIn(), "software")


def not_a_setting() -> GenicamSource:
    return opened(StandIn(), settings=("Gain",))


@pytest.mark.parametrize(
    ("make", "words"),
    [(wrong_serial, "serial is S1 and the camera .* says S2"), (unset, "no node Gain"), (no_trigger, "TriggerMode"),
     (not_a_setting, "NODE = VALUE")],
)  # fmt: skip
def test_a_camera_that_is_refused_is_closed(
    make: Callable[[], GenicamSource], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[StandIn] = []

    def close(camera: StandIn) -> None:
        closed.append(camera)

    monkeypatch.setattr(StandIn, "close", close)
    with pytest.raises((CameraError, ConfigError), match=words):
        make()
    assert len(closed) == 1


def test_a_damaged_exposure_is_left_out_counted_and_logged_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    camera = StandIn()
    camera.queue.append(delivery(1))
    for number in range(2, 40):
        camera.queue.append(Delivery((), None if number % 2 else number))
    camera.queue.extend([Delivery(delivery(40).parts[:1], 40, 0, MM), delivery(41)])
    with caplog.at_level(logging.WARNING):
        first, second = shots(opened(camera), 2 + 39)
    assert (first.number, second.number) == (1, 41) and len(caplog.messages) == 6
    assert "came incomplete (1 so far)" in caplog.messages[0]


def test_without_frame_ids_an_incomplete_buffer_still_counts() -> None:
    camera = StandIn()
    camera.queue.extend([delivery(None, seed=1), Delivery(()), delivery(None, seed=2)])
    assert [shot.number for shot in shots(opened(camera), 3)] == [1, 3]


def test_a_first_exposure_without_3d_data_names_the_remedy() -> None:
    camera = StandIn()
    camera.queue.append(Delivery(delivery(1).parts[:1], 1))
    with pytest.raises(CameraError, match="ComponentEnable"):
        opened(camera).shot(1)


@pytest.mark.parametrize("change", ["size", "format", "unit", "components"])
def test_a_camera_that_changes_while_open_is_lost(change: str) -> None:
    camera, other = StandIn(), delivery(2)
    if change == "size":
        other = other._replace(parts=(part("RGB8", picture()[1:]), part("Coord3D_ABC32f", points()[1:])))
    elif change == "format":
        other = other._replace(parts=(other.parts[0]._replace(format="BGR8"), other.parts[1]))
    elif change == "unit":
        other = other._replace(scan3d=MM._replace(unit="Meter"))
    else:
        other = other._replace(parts=(*other.parts, part("Confidence8", picture()[..., 0])))
    camera.queue.extend([delivery(1), other])
    source = opened(camera)
    assert source.shot(1) is not None
    with pytest.raises(CameraLostError, match="changed"):
        source.shot(1)


def test_a_device_that_is_gone_is_lost_and_closes() -> None:
    camera = StandIn()
    camera.queue.extend([delivery(1), CameraLostError("Stand In S1 is lost")])
    source = opened(camera)
    assert source.shot(1) is not None
    with pytest.raises(CameraLostError):
        source.shot(1)
    source.close()


def test_ptp_is_said_only_while_the_camera_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = StandInNodes(PtpEnable=True, PtpStatus="Slave")
    camera = StandIn(nodes)
    camera.queue.extend([delivery(1, time_us=1_700_000_037_000_000), delivery(2)])
    source = opened(camera, ptp_ahead_s=37)
    first = source.shot(1)
    assert first is not None
    assert (first.frame.clock, first.frame.t_exposure_us) == ("ptp", 1_700_000_000_000_000)
    monkeypatch.setattr(genicam, "CLOCK_CHECK_S", 0.0)
    for status in ("Faulty", "Master"):  # Master: it follows no clock but its own
        nodes.values["PtpStatus"] = status
        with pytest.raises(CameraLostError, match="no longer synchronised"):
            source.shot(1)


class Triggered(StandIn):
    """Exposes once for each TriggerSoftware, and sometimes on its own. ``latch``: its clock can be read."""

    def __init__(self, latch: bool = False) -> None:
        clock = {"TimestampLatch": 0, "TimestampLatchValue": 0} if latch else {}
        super().__init__(StandInNodes({**TRIGGER, **clock}))
        self.count = self._last_us = 0
        self.nodes.on_execute = self.executed

    def executed(self, name: str) -> None:
        if name == "TriggerSoftware":
            self.expose()
        else:
            self.nodes.values["TimestampLatchValue"] = time.monotonic_ns()

    def expose(self) -> None:
        self.count += 1
        self.queue.append(delivery(self.count, time_us=max(time.monotonic_ns() // 1000, self._last_us + 1)))
        self._last_us = self.queue[-1].time_us  # type: ignore[union-attr]


def test_five_of_five_triggers_are_answered_by_an_exposure_after_them() -> None:
    camera = Triggered(latch=True)
    source = opened(camera, "software")
    assert camera.nodes.values["TriggerSource"] == "Software" and camera.nodes.values["TriggerMode"] == "On"
    for turn in range(5):
        for _ in range(turn % 3):  # a spurious pulse before the trigger
            camera.expose()
        before = camera.count
        source.trigger()
        shot = source.shot(1)
        assert shot is not None and shot.number == before + 1
        assert np.array_equal(shot.frame.rgb, picture(before + 1)) and source.shot(1) is None


@pytest.mark.parametrize("before_next", [True, False])
def test_an_exposure_too_many_of_a_camera_that_does_not_tell_its_time_ends_it(before_next: bool) -> None:
    """The next one may come so soon before a trigger that nothing tells it from the answer."""
    camera = Triggered()
    source = opened(camera, "software")
    source.trigger()
    assert source.shot(1) is not None
    camera.expose()
    with pytest.raises(CameraLostError, match="more than once for a trigger, and its clock cannot be read"):
        source.trigger() if before_next else source.shot(1)


def test_an_exposure_out_of_order_ends_it() -> None:
    camera = Triggered()
    source = opened(camera, "software")
    for late in (delivery(1, time_us=99_000), delivery(9, time_us=1)):  # an old number; an old time
        camera.count = 4
        source.trigger()
        assert source.shot(1) is not None
        camera.nodes.on_execute = lambda name, late=late: camera.queue.append(late)  # type: ignore[misc]
        source.trigger()
        with pytest.raises(CameraLostError, match="from before it"):
            source.shot(1)
        camera.nodes.on_execute = lambda name: camera.expose()
        source = opened(camera, "software")


def test_a_first_trigger_without_an_answer_ends_it() -> None:
    camera = Triggered()
    source = opened(camera, "software")
    camera.nodes.on_execute = lambda name: None
    source.trigger()
    assert source.shot(1) is None
    with pytest.raises(CameraLostError, match="did not answer its first trigger"):
        source.trigger()


@pytest.mark.parametrize("late", ["lost", "before the next trigger", "after the next trigger"])
def test_the_exposure_of_a_trigger_that_was_not_answered_in_time_never_answers_the_next(late: str) -> None:
    camera = Triggered()
    source = opened(camera, "software")
    source.trigger()
    assert source.shot(1) is not None
    camera.nodes.on_execute = lambda name: None
    source.trigger()
    camera.count += 1  # exposed, and on its way
    now_us = time.monotonic_ns() // 1000
    assert source.shot(1) is None
    if late == "before the next trigger":
        camera.queue.append(delivery(2, time_us=now_us + 1))

    def expose(name: str) -> None:
        if late == "after the next trigger":
            camera.queue.append(delivery(2, time_us=now_us + 1))
        camera.expose()

    camera.nodes.on_execute = expose
    source.trigger()
    shot = source.shot(PATIENCE_MS)
    assert shot is not None and shot.number == 3 and np.array_equal(shot.frame.rgb, picture(3))


def test_exposures_without_times_answer_no_trigger() -> None:
    camera = Triggered()
    source = opened(camera, "software")
    camera.nodes.on_execute = lambda name: camera.queue.append(delivery(1))
    source.trigger()
    with pytest.raises(CameraLostError, match="does not say when it exposed"):
        source.shot(1)


def test_a_damaged_answer_is_not_owed() -> None:
    camera = Triggered()
    source = opened(camera, "software")
    source.trigger()
    assert source.shot(1) is not None
    camera.nodes.on_execute = lambda name: camera.queue.append(Delivery((), 2))
    source.trigger()
    assert source.shot(1) is None
    camera.count, camera.nodes.on_execute = 2, lambda name: camera.expose()
    source.trigger()
    shot = source.shot(1)
    assert shot is not None and shot.number == 3


def test_colour_of_another_size_is_resampled_only_where_that_is_asked_for() -> None:
    large = np.repeat(np.repeat(picture(1), 2, axis=0), 2, axis=1)
    twice = Delivery((part("RGB8", large), part("Coord3D_ABC32f", points(1))), 1, 0, MM)
    camera = StandIn()
    camera.queue.extend([twice, twice])
    with pytest.raises(CameraError, match=r"16 x 12 pixels and 3D data of 8 x 6; .* resample_colour"):
        opened(camera).shot(1)
    source = opened(camera, resample_colour=True)
    shot = source.shot(1)
    assert shot is not None and np.array_equal(shot.frame.rgb, picture(1))
    assert shot.frame.sensor == source.sensor == "Stand In S1, colour resampled"


def test_a_camera_that_does_not_obey_its_trigger_is_lost() -> None:
    camera = Triggered()
    camera.queue.extend(delivery(number) for number in range(1, 20))
    with pytest.raises(CameraLostError, match="exposes without a trigger"):
        opened(camera, "software").trigger()


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Line() as made:
        made.start()
        made.await_running()
        yield made


def run(line: Line, camera: StandIn, frames: int, wanted: int) -> dict[int, Any]:
    """Results by seq, once there are ``wanted`` of so many frames."""
    with ExitStack() as stack:
        sender = stack.enter_context(FrameSender(CAMERA, line.ends["frames"], station=STATION))
        assert sender.wait_connected(PATIENCE_MS)
        loop = LiveLoop(opened(camera), sender, LiveSection())

        def paced() -> None:  # free run sends without waiting; here every frame shall be judged
            seq, session = sender.seq, sender.camera_session
            line.wait(lambda: any((one.camera_session, one.seq) == (session, seq) for one in line.heard.results), "it")

        loop.run(frames, paced)

        def results() -> dict[int, Any]:
            return {one.seq: one for one in line.heard.results if one.camera_session == sender.camera_session}

        line.wait(lambda: len(results()) >= wanted, f"{wanted} results")
        return results()


def test_every_exposure_has_one_result_and_a_lost_one_is_lost(line: Line) -> None:
    camera = StandIn(wraps=True)
    camera.queue.extend([delivery(65_534), Delivery(()), delivery(1), delivery(2), delivery(5)])
    results = run(line, camera, 4, 7)  # 65534, 65535, 1, 2, 3, 4, 5
    lost = [one.reason is Reason.LOST for _, one in sorted(results.items())]
    assert lost == [False, True, False, False, True, True, False]
    assert not any(one.accept for one in results.values() if one.reason is Reason.LOST)


def test_a_silent_camera_ends_the_loop(line: Line) -> None:
    with FrameSender(CAMERA, line.ends["frames"], station=STATION) as sender:
        loop = LiveLoop(opened(StandIn()), sender, LiveSection(silence_ms=1))
        with pytest.raises(CameraLostError, match=r"Stand In S1 gave no exposure for 1 ms"):
            loop.run()
