"""Nothing leaves the box: no look-up, call or file that the configuration does not name, seen in a sealed box."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import LiteBundle
from tests.system import sealed_box

LIMIT_S = 280.0
OURS = ("config/asperity/", "state/asperity/", "cache/asperity/", "run/asperity/", "out/")
REPORTS_SINCE = (1, 29)
"""The first ONNX Runtime whose Linux build reports to its vendor."""
LOUD = """
import contextlib, pathlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("telemetry.example.com", 443)
for address in ("203.0.113.7", "127.0.0.1"):
    with contextlib.suppress(OSError):
        socket.create_connection((address, 443), 30)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"who is there", ("224.0.0.251", 5353))
(pathlib.Path.home() / ".id").write_text("1")
pathlib.Path("/tmp/.session").write_text("1")
pathlib.Path("/var/tmp/cache").mkdir()
"""


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if why := sealed_box.why_not():
        pytest.skip(f"no namespaces for a sealed box: {why}")


def python(folder: Path, code: str, *arguments: str) -> sealed_box.Seen:
    return sealed_box.run(folder, [sys.executable, "-c", code, *arguments], LIMIT_S)


def test_the_box_sees_whoever_calls_and_writes(tmp_path: Path) -> None:
    seen = python(tmp_path, LOUD)
    assert seen.code == 0, seen.said
    assert any(re.fullmatch(r"udp \S+:53 telemetry\.example\.com", call) for call in seen.calls), seen.calls
    assert {"tcp 203.0.113.7:443", "tcp 127.0.0.1:443", "udp 224.0.0.251:5353"} <= set(seen.calls)
    assert {"home/.id", "covered/tmp/.session", "covered/var/tmp/cache"} <= set(seen.left)


def test_onnx_runtime_reports_where_nothing_turns_it_off(tmp_path: Path) -> None:
    """The control: the box itself does not silence it."""
    version = metadata.version("onnxruntime")
    if tuple(int(part) for part in version.split(".")[:2]) < REPORTS_SINCE:
        pytest.skip(f"onnxruntime {version} does not report yet")
    assert any("deviceid" in path for path in python(tmp_path, "import onnxruntime").left)


@pytest.mark.parametrize("package", ["runtime", "calibration", "export", "benchmarks"])
def test_each_package_turns_it_off_whatever_the_user_has_set(package: str, tmp_path: Path) -> None:
    code = "import importlib, sys; importlib.import_module(sys.argv[1]); import onnxruntime"
    command = ["env", "ORT_DISABLE_TELEMETRY=0", sys.executable, "-c", code, f"asperity.{package}"]
    seen = sealed_box.run(tmp_path, command, LIMIT_S)
    assert (seen.code, seen.calls, seen.left) == (0, [], []), seen


def test_a_station_calls_nobody_and_writes_nothing_that_its_configuration_does_not_name(
    tmp_path: Path, lite_bundle: LiteBundle
) -> None:
    for module in ("torch", "open3d", "asyncua", "paho", "prometheus_client", "amqtt"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    from tests.system import sealed_station

    seen = sealed_box.run(tmp_path, [sys.executable, sealed_station.__file__], LIMIT_S)
    assert seen.code == 0, seen.said
    assert seen.lost == 0
    # paho wakes its own thread by a pair of TCP sockets on 127.0.0.1, at a port of the kernel's choice.
    pairs = {call for call in seen.calls if re.fullmatch(r"tcp 127\.0\.0\.1:(3[2-9]|[45]\d|60)\d{3}", call)}
    assert set(seen.calls) - (pairs - sealed_station.NAMED) == sealed_station.NAMED
    others = [path for path in seen.left if not f"{path}/".startswith(OURS)]
    assert not others
    written = {path.split("/")[0] for path in seen.left}
    assert written >= {"config", "state", "cache", "out"}, "what is known to be written was seen"
    # Of the exporter as users have it, and as ``tests/quick_exports.py`` does.
    for graph in ("rgb.onnx", "points.onnx"):
        assert (tmp_path / "out/station/bundle" / graph).read_bytes() == (lite_bundle.path / graph).read_bytes(), graph
