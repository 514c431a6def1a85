"""Numbers and names that the papers promise are those of the code."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from asperity.runtime.doctor.python import OLDEST
from asperity.runtime.documents.camera_sources import sources
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.settings.paths import control_endpoint
from asperity.runtime.settings.station_toml import StationConfig
from tests.places import DOCS, EXAMPLES, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
TEXTS = [ROOT / "README.md", ROOT / "asperity/client.py", *DOCS.glob("*.md"), *EXAMPLES.rglob("*.*")]
RECOMMENDED = {"`arrival_max_ms` 200"}
"""Values that a page tells to set."""
CLI = [sys.executable, "-m", "asperity.runtime.cli"]


def test_endpoints_that_are_shown_are_those_that_are_bound_by_default() -> None:
    sockets, gateways = StationConfig().sockets, GatewayConfig()
    ports = {sockets.frames, sockets.results, sockets.bulk} | {
        f"tcp://127.0.0.1:{table.port}" for table in
        (gateways.modbus, gateways.ethernetip, gateways.http, gateways.opcua, gateways.mqtt)
    }
    cameras = (msgspec.structs.astuple(kind.options()) for kind in sources().values())
    ports |= {value for options in cameras for value in options if isinstance(value, str)}
    known = {end.rpartition(":")[2] for end in ports} | {"8883"}
    for path in TEXTS:
        if not path.is_file() or {"node_modules", "__pycache__"} & set(path.parts):
            continue
        for port in re.findall(r"(?:127\.0\.0\.1|localhost):(\d{2,5})", path.read_text()):
            assert port in known, f"{path}: nothing listens at port {port} by default"


def test_the_control_socket_that_the_kits_try_is_the_station_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("/run/user/1000", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        names: dict[str, object] = {"os": os}
        for node in ast.parse((EXAMPLES / "python/subscribe.py").read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("FOLDER", "DEFAULTS"):
                exec(ast.unparse(node), names)
        assert names["DEFAULTS"][1] == control_endpoint("st1")  # type: ignore[index]
    usual = "`ipc://${process.env.XDG_RUNTIME_DIR || `/tmp/asperity-${process.getuid()}`}/asperity/st1.control`"
    assert usual in (EXAMPLES / "node/subscribe.mjs").read_text()


def test_versions_of_python_and_the_licence_agree() -> None:
    oldest = ".".join(map(str, OLDEST))
    assert PROJECT["requires-python"] == f">={oldest}" and f"With Python {oldest} or newer" in README
    newer = re.search(r"sys\.version_info < \((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    assert newer and f"Both need Python {newer[1]}.{newer[2]} or newer" in README
    assert f"Programming Language :: Python :: {oldest}" in PROJECT["classifiers"]
    assert PROJECT["license"] == "Apache-2.0" and README.rstrip().endswith("Apache-2.0.")
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_node_packages_are_those_of_the_lock_file() -> None:
    package = json.loads((EXAMPLES / "node/package.json").read_text())
    locked = json.loads((EXAMPLES / "node/package-lock.json").read_text())["packages"]
    for name, version in package["dependencies"].items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert locked[""]["dependencies"] == package["dependencies"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "--seconds", "0.1", "--results", "ipc://FOLDER/results"),
        ("run", "nothing"),
        ("keys", "export"),
        ("keys", "trust", "nothing"),
        ("camera", "replay", "nothing"),
        ("score", "nothing", "nothing"),
        ("gateway", "http", "--config", "nothing.toml"),
        ("simulate", "--script", "nothing"),
        ("simulate", "--nothing"),
    ],
    ids=" ".join,
)
def test_a_command_that_fails_says_so_on_stderr_alone(arguments: tuple[str, ...], tmp_path: Path) -> None:
    words = [word.replace("FOLDER", str(tmp_path)) for word in arguments]
    done = run(words, tmp_path)
    assert done.returncode not in (0, 1), done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    if "--nothing" not in arguments:
        assert done.stderr.splitlines()[-1].startswith("asperity: ")


@pytest.mark.parametrize(
    "arguments", [("keys", "list"), ("keys", "new"), ("keys", "new", "--client", "a", "--role", "read")], ids=" ".join
)
def test_json_is_the_only_line_of_stdout(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run([*arguments, "--json"], tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert isinstance(json.loads(done.stdout), dict)


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    private = {name: str(folder) for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOME")}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ASPERITY_KEYS": str(folder / "keys"), **private}
    return subprocess.run(
        [*CLI, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_numbers_that_pages_give_for_a_key_are_its_default() -> None:
    """`` `key` (500) `` and `` `[table] key` 2 s `` in the prose."""
    defaults: dict[str, set[float]] = {}
    for config in (StationConfig(), GatewayConfig()):
        for table in config.__struct_fields__:
            section = getattr(config, table)
            for key in getattr(section, "__struct_fields__", ()):
                value = getattr(section, key)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    defaults.setdefault(key, set()).add(float(value))
    checked = 0
    for page in DOCS.glob("*.md"):
        said_of_key = r"(twice |2 x )?`(?:\[\w+\] )?([a-z_]+_(?:ms|s))`,? \(?(\d+)( s)?\b"
        for match in re.finditer(said_of_key, page.read_text()):
            if match[2] in defaults:
                said = float(match[3]) * (1000 if match[4] and match[2].endswith("_ms") else 1)
                if match[0] not in RECOMMENDED:
                    said /= 2 if match[1] else 1
                    assert said in defaults[match[2]], f"{page.name}: {match[0]} is {defaults[match[2]]}"
                checked += 1
    assert checked > 8
