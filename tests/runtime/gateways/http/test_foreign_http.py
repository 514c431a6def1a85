"""Programs of others against the real HTTP gateway: schemathesis over all of ``/api/v1``, promtool over the scrape."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from asperity.runtime.gateways.log_ins import users
from asperity.testing import PATIENCE_S, STATION, Line
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.http.http_floor import get

OWN = Path(__file__).resolve().parents[4] / "build" / "foreign" / "bin"
SCHEMATHESIS = shutil.which("schemathesis", path=f"{OWN}:{os.environ['PATH']}")
PROMTOOL = shutil.which("promtool")
PASSWORD = "correct horse"
TOML = """
[gateway]
accept_simulated = true
[station]
bulk = '{bulk}'
[users]
file = '{users}'
delay_ms = 10  # schemathesis tries wrong passwords; how they are slowed down is tested elsewhere
delay_max_ms = 10
[http]
port = 0
"""
HOOKS = """
import json
import schemathesis
from hypothesis import strategies as st

SEEN = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Cn"))

def within(letters, nbytes, nbytes_in_json):
    return st.text(letters, max_size=nbytes).filter(
        lambda text: len(text.encode()) <= nbytes
        and len(json.dumps(text, ensure_ascii=False)) - 2 <= nbytes_in_json
    )

schemathesis.openapi.format("part-id", within(SEEN | st.just("\\x1d"), 256, 512))
schemathesis.openapi.format("batch-text", within(SEEN, 64, 384))
"""
"""The rules that the document names by ``format``, since JSON Schema counts letters and not bytes."""

pytestmark = [pytest.mark.foreign, pytest.mark.usefixtures("forked_starts")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a gateway whose station has judged a few parts, one of them in a lot."""
    with Line() as line:
        file = line.folder / "users"
        users.put_user(file, users.new_user("plc", "operate", PASSWORD))
        ends = [word for name, end in line.ends.items() for word in (f"--{name}", end)]
        line.asperity("simulate", "--rate", "10", "--script", "ok ok ng nan shape", "--station", STATION, *ends)
        gateway = GatewayProcess(line, "http", TOML.format(users=file, bulk=line.ends["bulk"]))
        url = f"http://127.0.0.1:{gateway.port()}"
        until(lambda: get(f"{url}/api/v1/results/6/map", "HEAD")[0] == 200, "a map")
        until(lambda: get(f"{url}/api/v1/counters")[0] == 200, "the counters")
        yield url
        assert "Traceback" not in gateway.log()


@pytest.mark.timeout(600)
@pytest.mark.skipif(SCHEMATHESIS is None, reason="schemathesis is not installed; run: make foreign-tools")
def test_schemathesis_finds_nothing_in_the_whole_api(url: str, tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    said = subprocess.run(
        [
            str(SCHEMATHESIS), "--no-color", "run", f"{url}/api/v1/openapi.json", "--auth", f"plc:{PASSWORD}",
            "--checks", "all", "--max-examples", "50", "--seed", "1", "--continue-on-failure",
        ],
        cwd=tmp_path, env={**os.environ, "SCHEMATHESIS_HOOKS": str(tmp_path / "hooks.py")},
        check=False, capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    print(said.stdout[-600:])
    assert said.returncode == 0, said.stdout[-8000:] + said.stderr[-2000:]
    assert "❌" not in said.stdout and " passed" in said.stdout


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; run: make foreign-tools")
def test_promtool_finds_nothing_in_the_scrape(url: str) -> None:
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_S) as answer:
        scraped = answer.read()
    command = [str(PROMTOOL), "check", "metrics"]
    said = subprocess.run(command, check=False, input=scraped, capture_output=True, timeout=PATIENCE_S)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")
