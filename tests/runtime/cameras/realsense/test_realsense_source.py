"""The source realsense through the real SDK, on a camera that the SDK emulates."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asperity.runtime.cameras.source import Shot, load
from asperity.runtime.cameras.sources.realsense.source import REALSENSE, RealSense
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError, SourceEnded
from asperity.runtime.frame import Intrinsics
from tests.runtime.cameras.realsense.realsense_emulation import PERIOD_US, Emulated, FreeRun, Lens, rs


@pytest.fixture
def camera() -> Emulated:
    return Emulated()


def shots(source: RealSense, most: int = 100) -> list[Shot]:
    """What has come."""
    found: list[Shot] = []
    while len(found) < most and (shot := source.shot(1)) is not None:
        found.append(shot)
    return found


def colours(source: RealSense) -> list[tuple[int | None, int, int]]:
    """Number, depth and colour of each exposure that has come."""
    return [(shot.number, *_values(shot)) for shot in shots(source)]


def _values(shot: Shot) -> tuple[int, int]:
    assert shot.frame.depth is not None
    return int(shot.frame.depth[0, 0]), int(shot.frame.rgb[0, 0, 0])


def test_it_is_found_by_its_name() -> None:
    kind = load("realsense")
    assert kind is REALSENSE and not kind.lacking()
    assert kind.triggers == ("free_run", "software", "hard_wired")


# ------------------------------------------------------------------ frames


def test_a_frame_is_depth_with_its_lens_and_unit(camera: Emulated) -> None:
    source = camera.open()
    camera.expose(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64), 7, at_us=1e6)
    shot = source.shot(1000)
    assert shot is not None and shot.number == 1
    frame = shot.frame
    assert frame.depth is not None and frame.depth.dtype == np.uint16 and frame.depth[3, 5] == 3 * 64 + 5
    assert frame.intrinsics == Intrinsics(60.0, 60.0, 31.5, 23.5)  # all coefficients 0: a pinhole
    assert (frame.unit, frame.scale, frame.clock, frame.t_exposure_us) == ("mm", 1.0, "device", 1_000_000)
    assert frame.sensor == source.sensor == "Emulated D435 0001 fw 5.17.0.10"
    assert (frame.rgb == 7).all()
    camera.expose(0, 8)
    assert frame.depth[3, 5] == 3 * 64 + 5 and (frame.rgb == 7).all()  # its own memory
    source.close()
    source.close()


def test_the_units_of_other_cameras() -> None:
    camera = Emulated(unit_m=0.0001)
    source = camera.open()
    camera.expose(5000, 1)
    [shot] = shots(source)
    assert (shot.frame.unit, shot.frame.scale) == ("mm", 0.1)


def test_a_distorted_lens_gives_the_points_of_the_sdk() -> None:
    lens = Lens(coefficients=(0.1, -0.2, 0.003, -0.002, 0.05))
    camera = Emulated(lens=lens)
    source = camera.open()
    camera.expose(400, 1)
    [shot] = shots(source)
    assert shot.frame.depth is None and shot.frame.xyz is not None and shot.frame.unit == "m"
    given = camera._depth.as_video_stream_profile().get_intrinsics()
    for row, column in ((0, 0), (7, 60), (47, 63), (24, 32)):
        point = rs.rs2_deproject_pixel_to_point(given, [column, row], 0.4)
        assert shot.frame.xyz[row, column] == pytest.approx(point, abs=1e-6)
    assert abs(shot.frame.xyz[0, 0, 0] / 0.4 - (0 - 31.5) / 60) > 1e-3  # which a pinhole would give
    source.close()


def test_the_same_lens_is_not_resampled_and_another_one_is() -> None:
    depth = np.full((48, 64), 400, np.uint16)
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 40] = 200
    camera = Emulated(colour_lens=Lens(shift_m=0.0))
    source = camera.open()
    camera.expose(depth, picture)
    [shot] = shots(source)
    assert shot.frame.depth is not None and (shot.frame.depth == 400).all()
    assert (shot.frame.rgb == picture).all()
    source.close()

    moved = Emulated(colour_lens=Lens(shift_m=-0.02))  # 3 pixels at 400 mm
    source = moved.open()
    moved.expose(depth, picture)
    [shot] = shots(source)
    assert [int(column) for column in np.unique(np.nonzero(shot.frame.rgb[..., 0])[1])] == [43]
    source.close()
    source = moved.open(align="colour")
    moved.expose(depth, picture)
    [shot] = shots(source)
    assert shot.frame.depth is not None and (shot.frame.rgb == picture).all()
    # The SDK's rounding leaves whole rows and columns without depth: why depth's own pixels are the default.
    assert 0.02 < (shot.frame.depth[:, :60] == 0).mean() < 0.15 and set(np.unique(shot.frame.depth)) == {0, 400}
    source.close()


def test_a_distorted_colour_lens() -> None:
    lens = Lens(f_px=55.0, coefficients=(0.1, -0.2, 0.003, -0.002, 0.05), shift_m=-0.02)
    camera = Emulated(colour_lens=lens)
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(64), np.arange(48)[:, None]
    source = camera.open()
    camera.expose(400, picture)
    [shot] = shots(source)
    given = camera._colour.as_video_stream_profile().get_intrinsics()
    for row, column in ((5, 10), (7, 50), (40, 60), (24, 32)):
        point = [(column - 31.5) / 60 * 0.4 - 0.02, (row - 23.5) / 60 * 0.4, 0.4]
        x, y = rs.rs2_project_point_to_pixel(given, point)
        assert shot.frame.rgb[row, column, :2] == pytest.approx([x, y], abs=1.0)
    source.close()
    with pytest.raises(ConfigError, match="not bring a depth lens pinhole and a colour lens inverse_brown_conrady"):
        camera.open(align="colour")


def test_a_picture_that_is_not_as_it_was_set_ends_it(camera: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    source = camera.open()
    camera.expose(400, 1)
    real = np.asanyarray
    monkeypatch.setattr(np, "asanyarray", lambda data: real(data)[:-1] if real(data).ndim == 2 else real(data))
    with pytest.raises(CameraLostError, match="not as it was set"):
        source.shot(1000)


# ------------------------------------------------------------------ which colour belongs to which depth


def test_lost_halves_are_missed_and_never_mixed(camera: Emulated, caplog: pytest.LogCaptureFixture) -> None:
    source = camera.open()
    for number in range(1, 8):
        camera.expose(100 + number, number, streams={3: "d", 5: "c", 6: ""}.get(number, "dc"))
    with caplog.at_level(logging.WARNING):
        assert colours(source) == [(number, 100 + number, number) for number in (1, 2, 4, 7)]
    assert "depth picture 3 at 100000 us has no colour picture" in caplog.text
    assert "colour picture 505" in caplog.text


def test_without_the_check_of_stamps_a_wrong_pair_passes(camera: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    source = camera.open()
    monkeypatch.setattr(source._pairing, "_apart_us", float("inf"))
    camera.expose(101, 1, streams="d")
    camera.expose(102, 2, streams="c")
    assert colours(source) == [(1, 101, 2)]


def test_pictures_may_come_late_and_in_any_order_of_streams(camera: Emulated) -> None:
    source = camera.open()
    for streams in ("d", "c"):
        for number in range(1, 6):
            camera.expose(100 + number, number, streams=streams, number=number)
    assert colours(source) == [(number, 100 + number, number) for number in range(1, 6)]


def test_pair_max_us_is_a_narrower_bound(camera: Emulated) -> None:
    source = camera.open(pair_max_us=2000)
    camera.expose(101, 1, colour_later_us=3000)
    camera.expose(102, 2, colour_later_us=1000)
    assert colours(source) == [(2, 102, 2)]


def test_more_pictures_than_may_wait_are_counted_as_missed(camera: Emulated) -> None:
    source = camera.open()
    for number in range(1, 31):
        camera.expose(100 + number, number)
    kept = colours(source)
    assert kept == [(number, 100 + number, number) for number in range(23, 31)]


def test_a_camera_that_was_restarted_ends_it(camera: Emulated) -> None:
    source = camera.open()
    camera.expose(100, 1, number=9)
    assert len(shots(source)) == 1
    camera.expose(100, 2, number=1)
    with pytest.raises(CameraLostError, match="restarted"):
        source.shot(1000)


def test_the_same_picture_twice_is_one_exposure(camera: Emulated) -> None:
    source = camera.open()
    camera.expose(101, 1, number=1)
    camera.expose(101, 1, streams="d", number=1)
    camera.expose(102, 2, number=2)
    assert colours(source) == [(1, 101, 1), (2, 102, 2)]


def test_the_counter_and_the_clock_wrap(camera: Emulated) -> None:
    source = camera.open()
    top = 2**32
    for step in range(-2, 3):
        camera.expose(100, 5, at_us=(top + step * PERIOD_US) % top, number=(10**6 + step), colour_later_us=0)
    found = shots(source)
    assert [shot.frame.t_exposure_us for shot in found] == [round(top + step * PERIOD_US) for step in range(-2, 3)]


def test_the_clock_wraps_during_a_long_pause(camera: Emulated) -> None:
    source = camera.open("hard_wired", depth_settings={"inter_cam_sync_mode": 3})
    camera.expose(100, 5, at_us=1e6)
    assert len(shots(source)) == 1
    source._clock_read_s -= 50 * 60  # 50 minutes ago: the clock of 71 minutes looks as if it had gone back
    camera.expose(100, 6, at_us=1e6 + 50 * 60e6)
    [shot] = shots(source)
    assert shot.frame.t_exposure_us == 3_001_000_000


# ------------------------------------------------------------------ clocks


def test_the_exposure_time_is_the_middle_of_the_exposure_where_the_camera_says_so(camera: Emulated) -> None:
    source = camera.open()
    camera.expose(400, 1, at_us=1e6, metadata={"frame_timestamp": 1_000_000, "sensor_timestamp": 996_800})
    [shot] = shots(source)
    assert shot.frame.t_exposure_us == 996_800


def test_a_clock_that_was_not_asked_for_is_refused(camera: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    camera.domain = rs.timestamp_domain.system_time
    source = camera.open()
    camera.expose(400, 1)
    assert source.shot(1) is None  # until the SDK has mapped the camera's clock, at the start only
    monkeypatch.setattr("asperity.runtime.cameras.sources.realsense.source.WRONG_CLOCK_S", 0.0)
    camera.expose(400, 1)
    with pytest.raises(CameraLostError, match="system_time is when a picture arrived"):
        source.shot(1000)
    source = Emulated().open(clock="host")
    source.close()


def test_a_clock_that_changes_ends_it(camera: Emulated) -> None:
    source = camera.open()
    camera.expose(400, 1)
    assert len(shots(source)) == 1
    camera.domain = rs.timestamp_domain.global_time
    camera.expose(400, 1)
    with pytest.raises(CameraLostError, match=r"global_time, not hardware_clock .*clock = 'device'"):
        source.shot(1000)


def test_the_time_of_arrival_is_not_an_exposure_time() -> None:
    camera = Emulated(domain="system_time")
    source = camera.open(clock="arrival")
    camera.expose(400, 1, at_us=time.time() * 1e6)
    [shot] = shots(source)
    assert (shot.frame.t_exposure_us, shot.frame.clock) == (0, "device")
    camera = Emulated(domain="system_time")
    source = camera.open(clock="arrival")
    camera.expose(400, 1, at_us=time.time() * 1e6, metadata={"sensor_timestamp": 123_456})
    [shot] = shots(source)
    assert (shot.frame.t_exposure_us, shot.frame.clock) == (123_456, "device")


def test_the_host_clock_must_be_this_hosts() -> None:
    camera = Emulated(domain="global_time")
    source = camera.open(clock="host")
    now_us = time.time() * 1e6
    camera.expose(400, 1, at_us=now_us)
    [shot] = shots(source)
    assert shot.frame.clock == "realtime" and abs(shot.frame.t_exposure_us - now_us) < 2
    source.close()
    source = camera.open(clock="host")
    camera.expose(400, 1, at_us=now_us - 60e6)
    with pytest.raises(CameraLostError, match=r"60.\d s before the clock of this computer"):
        source.shot(1000)


# ------------------------------------------------------------------ triggers


def test_every_trigger_is_answered_by_a_later_exposure() -> None:
    camera = Emulated(domain="global_time")
    source = camera.open("software", clock="host")
    with FreeRun(camera, lambda: time.time() * 1e6) as run:
        for _ in range(5):
            called_us = time.time() * 1e6
            source.trigger()
            shot = source.shot(5000)
            assert shot is not None and shot.number is None
            assert run.begun_us[_values(shot)[1]] > called_us
    source.close()


def test_by_the_cameras_own_clock_too(camera: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CameraError, match=r"does not tell its time .*clock = 'host'"):
        camera.open("software")
    start_s = time.monotonic()

    def now_us() -> float:
        return (time.monotonic() - start_s) * 1e6 + 5e6

    monkeypatch.setattr(RealSense, "_now_us", lambda self: now_us())
    source = camera.open("software")
    with FreeRun(camera, now_us) as run:
        for _ in range(2):
            called_us = now_us()
            source.trigger()
            shot = source.shot(5000)
            assert shot is not None and run.begun_us[_values(shot)[1]] > called_us
        # The control: an exposure that began before the trigger is there, and would come without the check.
        room = "asperity.runtime.cameras.sources.realsense"
        monkeypatch.setattr(f"{room}.source.begun_us", lambda pair, period_us: float("inf"))
        called_us = now_us()
        source.trigger()
        shot = source.shot(5000)
        assert shot is not None and run.begun_us[_values(shot)[1]] < called_us
    source.close()


def test_modes_that_cannot_be(camera: Emulated, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clock = 'arrival' does not say when"):
        camera.open("software", clock="arrival")
    with pytest.raises(ConfigError, match="inter_cam_sync_mode = 3"):
        camera.open("hard_wired")
    with pytest.raises(ConfigError, match="cannot be triggered"):
        camera.open("software", play=str(tmp_path / "x.db3"))
    with pytest.raises(ConfigError, match="cannot be set"):
        camera.open(play=str(tmp_path / "x.db3"), depth_settings={"laser_power": 30})
    source = camera.open("hard_wired", depth_settings={"inter_cam_sync_mode": 3}, warm_up_frames=30)
    camera.expose(101, 1)
    camera.expose(102, 2, number=4)
    assert colours(source) == [(1, 101, 1), (4, 102, 2)]  # from the first on, and by the camera's own count


# ------------------------------------------------------------------ the end


def test_a_camera_that_is_gone_is_lost(camera: Emulated) -> None:
    source = camera.open()
    assert source.shot(1) is None
    source._device = SimpleNamespace(is_connected=lambda: False)
    with pytest.raises(CameraLostError, match="was disconnected"):
        source.shot(1)


def test_a_camera_without_pictures_does_not_open(camera: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asperity.runtime.cameras.sources.realsense.source.WARM_UP_S", 0.0)
    with pytest.raises(CameraError, match="gave 0 exposures of 1 in time"):
        camera.open(warm_up_frames=1)


def test_the_first_exposures_are_discarded() -> None:
    camera = Emulated(domain="global_time")
    with FreeRun(camera, lambda: time.time() * 1e6, period_s=0.005):
        source = camera.open(clock="host", warm_up_frames=3)
        assert camera.number >= 3
        assert source.shot(5000) is not None
    source.close()


def test_a_recording_is_played_to_its_end(camera: Emulated, tmp_path: Path) -> None:
    file = tmp_path / "part.db3"
    camera.record(file, lambda: [camera.expose(100 + number, number) for number in range(1, 25)])
    with pytest.raises(CameraError, match="was recorded by camera 0001, not 7"):
        camera.open(play=str(file), serial="7")
    played = Emulated()
    source = played.open(play=str(file))
    found = []
    with pytest.raises(SourceEnded, match="has ended"):
        while True:
            if (shot := source.shot(1000)) is not None:
                found.append((shot.number, *_values(shot)))
    assert found == [(number, 100 + number, number) for number in range(1, 25)]
    source.close()
    for name in ("none.db3", "rubbish.db3"):
        (tmp_path / "rubbish.db3").write_bytes(b"rubbish" * 1000)
        with pytest.raises(CameraError, match=f"{name} (is not a file|cannot be played)"):
            played.open(play=str(tmp_path / name))
