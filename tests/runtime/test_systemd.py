"""The systemd units: what the program relies on is in them, and systemd itself reads them."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from runtime.cli import register
from runtime.errors import BundleError, ConfigError, UsageError

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = ["asperity-inspector.service", "asperity-gateway@.service"]


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
    assert parser["Unit"]["StartLimitBurst"]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_is_one_that_the_program_knows(name: str) -> None:
    program, *arguments = service(name)["ExecStart"][0].replace("%i", "http").split()
    assert program.endswith("/bin/asperity")
    app = typer.Typer()
    register(app)
    command = [word for word in arguments if not word.startswith("-") and "/" not in word and word != "json"]
    told = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert told.exit_code == 0
    for option in [word for word in arguments if word.startswith("--")]:
        assert option in told.output


def test_systemd_reads_the_units_without_a_complaint(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not there")
    for name in NAMES:
        text = (UNITS / name).read_text().replace("/opt/asperity/bin/asperity", "/bin/true")
        text = text.replace("User=asperity", "User=root").replace("Group=asperity", "Group=root")
        (tmp_path / name).write_text(text)
    (tmp_path / "asperity-gateway@modbus.service").write_text((tmp_path / NAMES[1]).read_text())
    units = [str(tmp_path / NAMES[0]), str(tmp_path / "asperity-gateway@modbus.service")]
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    if "Failed to" in done.stderr and "dbus" in done.stderr.lower():
        pytest.skip("systemd-analyze does not run here")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr, done.stderr
    broken = tmp_path / "asperity-inspector.service"
    broken.write_text(broken.read_text().replace("Type=notify", "Type=nonsense"))
    said = subprocess.run([analyze, "verify", str(broken)], capture_output=True, text=True, check=False).stderr
    assert "nonsense" in said, "the control: a wrong unit is noticed"
