"""Who could reach the sockets is said at each start; a network on which nobody is asked is an alarm all the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asperity.runtime import wire
from asperity.runtime.doctor.findings import State
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.reachability import is_loopback
from tests.runtime.doctor.made_machine import Made, look, setting_in
from tests.runtime.inspector.station_floor import Floor, MakeFloor, floors

IPC = {name: f"ipc:///run/asperity/{name}" for name in ("frames", "results", "bulk", "control")}
LAN = IPC | {"frames": "tcp://0.0.0.0:5560", "insecure_lan": True}
CURVE = {"curve": True, "keys": "/nowhere"}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


def alarms(floor: Floor) -> tuple[str, ...]:
    """Of the last state that was published."""
    return wire.decode_state(floor.of_kind("state")[-1]).alarms


def events(floor: Floor, code: str) -> list[wire.Event]:
    return [event for event in floor.events if event.code == code]


def test_insecure_lan_is_an_alarm_from_the_start_on_also_after_a_reset(make: MakeFloor) -> None:
    floor = make("ok", sockets=LAN)
    (event,) = events(floor, "INSECURE_LAN")
    assert event.severity == "warning" and "frames tcp://0.0.0.0:5560" in event.text and "curve = true" in event.text
    assert "INSECURE_LAN" in alarms(floor)
    floor.ask("halt")
    floor.ask("reset")
    floor.settle()
    floor.pass_ms(1000)
    assert "INSECURE_LAN" in alarms(floor)


@pytest.mark.parametrize("sockets", [LAN, IPC | {"insecure_lan": True}])
def test_insecure_lan_is_an_alarm_wherever_the_sockets_are(make: MakeFloor, sockets: dict[str, Any]) -> None:
    assert "INSECURE_LAN" in alarms(make("ok", sockets=sockets))


def test_every_station_of_the_process_says_it(make: MakeFloor) -> None:
    floor = make("ok", sockets=LAN, names=("left", "right"))
    assert [event.station for event in events(floor, "INSECURE_LAN")] == ["left", "right"]


def test_loopback_by_tcp_is_said_once_and_files_need_no_word(make: MakeFloor) -> None:
    floor = make("ok", sockets=IPC | {"frames": "tcp://127.0.0.1:5560"})
    floor.pass_ms(1000)
    (event,) = events(floor, "OPEN_TO_USERS")
    assert event.severity == "info" and "could send frames as if they were the camera" in event.text
    assert "INSECURE_LAN" not in alarms(floor)


def test_files_of_one_user_need_no_word(make: MakeFloor) -> None:
    floor = make("ok", sockets=IPC)
    assert not events(floor, "OPEN_TO_USERS") and "INSECURE_LAN" not in alarms(floor)


@pytest.mark.parametrize(
    ("sections", "state", "words"),
    [
        ({"sockets": LAN}, State.WARNING, "insecure_lan is set"),
        ({}, State.NOTE, "every user of this computer"),
        ({"sockets": IPC}, State.OK, "ipc"),
        ({"security": CURVE}, State.OK, "CURVE"),
        ({"sockets": LAN, "security": CURVE}, State.OK, "CURVE"),
    ],
)
def test_the_doctor_says_it_before_the_start(
    tmp_path: Path, sections: dict[str, Any], state: State, words: str
) -> None:
    setting = replace(setting_in(tmp_path), station=msgspec.convert(sections, StationConfig))
    finding = look(Made(), setting)[1]["sockets"]
    assert finding.state is state and words in finding.found


def test_what_loopback_is() -> None:
    for endpoint in ("tcp://127.0.0.1:5560", "tcp://127.9.9.9:1", "tcp://localhost:5560", "tcp://[::1]:5560"):
        assert is_loopback(endpoint)
    for endpoint in ("tcp://0.0.0.0:5560", "tcp://*:5560", "tcp://192.168.0.2:5560", "tcp://[::]:5560", "tcp://eth0:1"):
        assert not is_loopback(endpoint)
