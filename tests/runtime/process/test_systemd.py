"""The systemd units: what the program relies on is in them, and systemd itself reads them."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.cameras import camera_toml
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.cli import command_line
from asperity.runtime.errors import BundleError, CameraError, ConfigError, StationError, UsageError
from asperity.runtime.gateways import config as gateways
from asperity.runtime.settings import loading
from asperity.runtime.settings.paths import control_endpoint
from asperity.runtime.settings.toml_tables import Section
from asperity.runtime.sockets.reachability import open_to_network, open_to_users
from tests.places import DOCS, ROOT

UNITS = ROOT / "deploy" / "systemd"
NAMES = ["asperity-inspector.service", "asperity-gateway@.service", "asperity-camera@.service"]


def service(name: str) -> dict[str, list[str]]:
    """The [Service] section, every value of a key."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


@pytest.mark.parametrize("name", NAMES)
def test_what_the_program_relies_on_is_there(name: str) -> None:
    unit = service(name)
    assert unit["Type"] == ["notify"] and unit["NotifyAccess"] == ["main"]
    assert int(unit["WatchdogSec"][0]) >= 10 and unit["Restart"] == ["on-failure"]
    assert "143" in unit["SuccessExitStatus"]
    never_again = {int(code) for code in unit["RestartPreventExitStatus"][0].split()}
    assert {UsageError.exit_code, ConfigError.exit_code} <= never_again <= {2, 3, BundleError.exit_code}
    assert unit["NoNewPrivileges"] == ["yes"] and unit["ProtectSystem"] == ["strict"] and unit["UMask"] == ["0077"]
    assert unit["User"] == ["asperity"]
    assert unit["MemoryMax"][0] in {"80%", "512M"} and unit["MemorySwapMax"] == ["0"]
    assert int(unit["TasksMax"][0]) >= 256
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.read_string((UNITS / name).read_text())
    # A camera may be plugged in again at any time; the others are given up after some starts in a minute.
    assert ("StartLimitBurst" in parser["Unit"]) == (name != NAMES[2])
    assert (parser["Unit"]["StartLimitIntervalSec"] == "0") == (name == NAMES[2])


def test_only_the_services_user_reaches_the_sockets_of_the_shipped_configuration() -> None:
    """Whoever may send frames is the camera: the sockets lie where no other user of the computer can come."""
    unit, station, gateway = (
        service(NAMES[0]),
        loading.load(UNITS / "station.toml"),
        gateways.load(UNITS / "gateway.toml"),
    )
    assert unit["RuntimeDirectoryMode"] == ["0700"]
    folder = f"/run/{unit['RuntimeDirectory'][0]}"
    sockets = station.sockets
    ends = {name: getattr(sockets, name) for name in ("frames", "results", "bulk", "control")}
    assert {Path(end.removeprefix("ipc://")).parent for end in ends.values()} == {Path(folder)}, ends
    assert all(end.startswith("ipc:///") for end in ends.values()) and len(set(ends.values())) == len(ends)
    assert not sockets.insecure_lan and not open_to_network(station) and not open_to_users(station)
    assert (gateway.station.results, gateways.control_of(gateway)) == (ends["results"], ends["control"])
    assert gateway.station.name == station.station.name
    assert all(service(name)["User"] == unit["User"] for name in NAMES), "the files are of mode 0600"
    camera = camera_toml.load("folder", Section, UNITS / "camera.toml")
    assert (camera.camera.frames, camera.camera.results) == (ends["frames"], ends["results"])
    assert (camera.camera.name, camera.camera.station) == (station.station.camera, station.station.name)
    assert camera.live.triggers == station.station.triggers
    runtime = [value for name in NAMES for value in service(name)["Environment"] if "XDG_RUNTIME_DIR=/run" in value]
    assert len(runtime) == len(NAMES), "whoever leaves the control socket out finds it in the same folder"


def environment(unit: dict[str, list[str]]) -> dict[str, str]:
    """What systemd gives the process of a unit, as far as folders follow from it."""
    made = {}
    for key, root in (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib")):
        if key in unit:
            variable = f"{key.removesuffix('Directory').upper()}_DIRECTORY"
            made[variable] = ":".join(f"{root}/{folder}" for folder in unit[key][0].split())
    return {**made, **dict(pair.split("=", 1) for line in unit["Environment"] for pair in shlex.split(line))}


@pytest.mark.parametrize("station", ["st1", "left"])
def test_the_processes_of_the_units_meet_at_one_control_socket(monkeypatch: pytest.MonkeyPatch, station: str) -> None:
    """Where no file names it; /tmp is private to each unit, so it could not be there."""
    words = shlex.split((UNITS / "asperity-service").read_text().partition("exec ")[2].replace("\\\n", " "))
    command = dict(word.split("=", 1) for word in words if "=" in word)
    met = set()
    for given in (*(environment(service(name)) for name in NAMES), command):
        with monkeypatch.context() as patch:
            for variable in [name for name in os.environ if name.startswith("XDG_") or name.endswith("_DIRECTORY")]:
                patch.delenv(variable)
            for variable, value in given.items():
                patch.setenv(variable, value)
            met.add(control_endpoint(station))
    assert met == {f"ipc:///run/{service(NAMES[0])['RuntimeDirectory'][0]}/{station}.control"}


def test_the_camera_of_the_shipped_configuration_sends_to_its_sockets(tmp_path: Path) -> None:
    text = (UNITS / "station.toml").read_text()
    (line,) = [line.removeprefix("#   ") for line in text.splitlines() if " camera replay " in line]
    sockets = loading.load(UNITS / "station.toml").sockets
    words = line.split()
    assert words[:3] == ["asperity-service", "camera", "replay"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options == {"--frames-endpoint": sockets.frames, "--results-endpoint": sockets.results}
    write_frame(tmp_path, "0", np.zeros((3, 4, 3), np.uint8), np.ones((3, 4, 3), np.float32))
    arguments = ["camera", "replay", str(tmp_path), *words[4:], "--frames", "1", "--wait-s", "0"]
    with pytest.raises((CameraError, StationError)):
        command_line()(arguments, prog_name="asperity")


def test_a_command_for_the_service_has_its_user_and_its_folders() -> None:
    """Keys that are trusted elsewhere are not the service's: what it reads follows from these."""
    words = shlex.split((UNITS / "asperity-service").read_text().partition("exec ")[2].replace("\\\n", " "))
    unit, *others = map(service, NAMES)
    assert words[:4] == ["runuser", "-u", unit["User"][0], "--"] and words[4] == "env"
    given = dict(word.split("=") for word in words[5:-2])
    assert given.pop("HOME") == f"/var/lib/{unit['StateDirectory'][0]}"
    assert words[-2:] == [unit["ExecStart"][0].split()[0], "$@"]
    for each in (unit, *others):
        folders = dict(word.split("=") for word in each["Environment"][0].split())
        assert folders == given, "the service and a command for it must use the same folders"
    assert os.access(UNITS / "asperity-service", os.X_OK)


def test_the_page_installs_what_the_units_run() -> None:
    page = (DOCS / "service.md").read_text()
    unit = service(NAMES[0])
    assert f"useradd --system --user-group --home-dir /var/lib/{unit['StateDirectory'][0]}" in page
    program = unit["ExecStart"][0].split()[0]
    assert f"{program.removesuffix('/bin/asperity')}/bin/pip install" in page
    for file in UNITS.iterdir():
        assert f"deploy/systemd/{file.name}" in page, "the page must install every file"
    for extra in ("opcua", "mqtt", "http", "genicam", "realsense", "ros2"):
        assert re.search(rf"pip install '\.\[[\w,]*\b{extra}\b", page)
    for name in NAMES:
        assert "docs/service.md" in (UNITS / name).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_no_packet_leaves_for_the_internet(name: str) -> None:
    unit = service(name)
    families = set(unit["RestrictAddressFamilies"][0].split())
    assert families == {"AF_UNIX", "AF_INET", "AF_INET6"} | ({"AF_NETLINK"} if name == NAMES[2] else set())
    assert unit["IPAddressDeny"] == ["any"]
    allowed = unit["IPAddressAllow"][0].split()
    assert "localhost" in allowed, "every endpoint of the defaults"
    networks = [ip_network(word) for word in allowed if word not in ("localhost", "link-local", "multicast")]
    assert ("multicast" in allowed) == (name == NAMES[2]), "by which cameras are found; no router forwards it"
    assert all(network.is_private for network in networks)
    assert (NAMES.index(name) == 0) == (allowed == ["localhost"]), "the inspector speaks to this machine alone"


def test_of_device_files_a_camera_has_those_of_usb_alone() -> None:
    inspector, gateway, camera = map(service, NAMES)
    assert gateway["PrivateDevices"] == ["yes"]
    assert "PrivateDevices" not in camera and camera["DevicePolicy"] == ["closed"]
    assert camera["DeviceAllow"] == ["char-usb_device rw", "char-video4linux rw"]
    assert "DeviceAllow" not in inspector


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_is_one_that_the_program_knows(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = service(name)["ExecStart"][0].replace("%i", "http").split()
    assert program.endswith("/bin/asperity")
    monkeypatch.setenv("COLUMNS", "200")
    command = [word for word in arguments if not word.startswith("-") and "/" not in word and word != "json"]
    with pytest.raises(SystemExit) as ended:
        command_line()([*command, "--help"], prog_name="asperity")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for option in [word for word in arguments if word.startswith("--")]:
        assert option in shown


def test_systemd_reads_the_units_without_a_complaint(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not there")
    for name in NAMES:
        text = (UNITS / name).read_text().replace("/opt/asperity/bin/asperity", "/bin/true")
        text = text.replace("User=asperity", "User=root").replace("Group=asperity", "Group=root")
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / name.replace("@", "@one")) for name in NAMES]
    for name, path in zip(NAMES, units, strict=True):
        Path(path).write_text((tmp_path / name).read_text())
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    if "Failed to" in done.stderr and "dbus" in done.stderr.lower():
        pytest.skip("systemd-analyze does not run here")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr, done.stderr
    broken = tmp_path / "asperity-inspector.service"
    broken.write_text(broken.read_text().replace("Type=notify", "Type=nonsense"))
    broken.write_text(broken.read_text().replace("IPAddressAllow=localhost", "IPAddressAllow=10.0.0.0/nowhere"))
    said = subprocess.run([analyze, "verify", str(broken)], capture_output=True, text=True, check=False).stderr
    assert "nonsense" in said and "nowhere" in said, "the control: a wrong unit is noticed"
