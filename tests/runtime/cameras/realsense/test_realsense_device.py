"""Which camera the source realsense opens, and its settings: written in order, read back."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asperity.runtime.cameras.sources.realsense import device as device_of
from asperity.runtime.cameras.sources.realsense.source import RealSense
from asperity.runtime.errors import CameraError, ConfigError
from tests.runtime.cameras.realsense.realsense_emulation import Emulated, rs


@pytest.fixture
def camera() -> Emulated:
    return Emulated()


def test_a_camera_is_chosen_by_its_serial_number(camera: Emulated, caplog: pytest.LogCaptureFixture) -> None:
    assert camera.open(serial="").sensor.startswith("Emulated D435 0001")
    other = Emulated(serial="0002", usb="2.1", context=camera.context)
    found = device_of.devices(camera.context)
    assert {each.id for each in found} == {"0001", "0002"}
    assert next(each.text for each in found if each.id == "0002") == (
        "Emulated D435, serial 0002, firmware 5.17.0.10, USB 2.1 (slow: use a USB 3 cable and port)"
    )
    with pytest.raises(CameraError, match="several RealSense cameras"):
        camera.open(serial="")
    with pytest.raises(CameraError, match=r"no RealSense camera with serial number 0003; connected: .*0001"):
        camera.open(serial="0003")
    with caplog.at_level(logging.WARNING):
        source = other.open()
    assert "USB 2" in caplog.text and " 0002 " in source.sensor
    camera.expose(1, 1)
    assert source.shot(1) is None
    other.expose(2, 2)
    assert source.shot(1) is not None


def test_its_statistics_are_not_for_others() -> None:
    assert not rs.rum.is_cloud_enabled()


def test_no_camera() -> None:
    assert device_of.devices(rs.context()) == []
    with pytest.raises(CameraError, match="no RealSense camera is connected"):
        RealSense(Emulated().options(serial=""), "free_run", rs.context())


def test_a_stream_that_the_camera_does_not_have(camera: Emulated) -> None:
    with pytest.raises(ConfigError, match=r"no depth stream of 640 x 48 at 30/s z16; it has: 64 x 48 at 30/s z16"):
        camera.open(depth_width_px=640)
    with pytest.raises(ConfigError, match="no colour stream of 64 x 48 at 30/s bgr8"):
        camera.open(colour_format="bgr8")


def test_settings_are_written_in_order_and_read_back(camera: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float]] = []
    real = device_of._check

    def check(rs: Any, sensor: Any, table: str, name: str, wanted: float) -> None:
        written.append((f"{table[0]} {name}", wanted))
        real(rs, sensor, table, name, wanted)

    monkeypatch.setattr(device_of, "_check", check)
    camera.open(depth_settings={"laser_power": 60, "exposure": 33}, colour_settings={"exposure": 120})
    once = [("d laser_power", 60), ("d exposure", 33), ("c exposure", 120)]
    clock = "global_time_enabled", 0.0
    assert written == [(f"d {clock[0]}", 0.0), *once[:2], (f"c {clock[0]}", 0.0), once[2], *once]
    assert camera.depth.get_option(rs.option.laser_power) == 60
    assert camera.depth.get_option(rs.option.global_time_enabled) == 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"laser_powr": 60}, "no option laser_powr; did you mean laser_power"),
     ({"gamma": 60}, "no option gamma; it has: "),
     ({"laser_power": 500}, r"laser_power is 500; this camera takes 0 to 360 in steps of 30"),
     ({"laser_power": "high"}, "laser_power has no value 'high'"),
     ({"depth_units": 0.002}, "depth_units is 0.002; this camera takes 0.001 to 0.001"),
     ({"global_time_enabled": 1}, "use clock")],
)  # fmt: skip
def test_settings_that_cannot_be(camera: Emulated, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        camera.open(depth_settings=settings)


def test_a_setting_that_did_not_take_is_named(camera: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = SimpleNamespace(get_option=lambda option: 90.0)
    with pytest.raises(CameraError, match=r"depth_settings: laser_power was set to 60 but the camera has 90"):
        device_of._check(rs, sensor, "depth_settings", "laser_power", 60.0)
    # One that a later one changed.
    real = device_of._write

    def write(rs: Any, sensor: Any, table: str, name: str, value: Any) -> None:
        real(rs, sensor, table, name, value)
        if name == "exposure":
            sensor.set_option(rs.option.laser_power, 0)

    monkeypatch.setattr(device_of, "_write", write)
    with pytest.raises(CameraError, match="laser_power was set to 60 but the camera has 0"):
        camera.open(depth_settings={"laser_power": 60, "exposure": 33})


def test_the_advanced_settings_are_compared(camera: Emulated, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        camera.open(advanced_json=str(tmp_path / "none.json"))
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"a\.json"):
        camera.open(advanced_json=str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text('{"param-zunits": "1000"}')
    with pytest.raises(CameraError, match="the camera refused"):
        camera.open(advanced_json=str(tmp_path / "a.json"))
