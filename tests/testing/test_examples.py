"""The examples that customers are shown run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import asperity.client
import asperity.testing
from asperity.testing import Camera, Line
from tests.places import DOCS, ROOT

PAGES = re.findall(r"^```python\n(.*?)^```$", (DOCS / "testing.md").read_text(), flags=re.M | re.S)
DEFAULT_ENDS = {"results": "tcp://127.0.0.1:5561"}


def example(doc: str | None) -> str:
    """The indented lines of a docstring, as a program."""
    assert doc is not None
    lines = doc.splitlines()
    return dedent("\n".join(line for line in lines if line.startswith("    ") or not line.strip())).strip() + "\n"


@pytest.mark.parametrize("number", range(len(PAGES)))
def test_the_tests_in_docs_testing_pass(number: int, tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(PAGES[number])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(tmp_path / "none.ini")]
    (tmp_path / "none.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    done = subprocess.run([*command, "test_page.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_there_is_a_page_for_a_gateway_and_one_for_a_camera() -> None:
    assert len(PAGES) == 2


def test_the_client_s_example_prints_every_part() -> None:
    code = example(asperity.client.__doc__)
    with Line(limits={"deadline_ms": 30_000, "max_age_ms": 60_000}) as line, Camera(line) as camera:
        for name, end in DEFAULT_ENDS.items():
            assert code.count(end) == 1
            code = code.replace(end, line.ends[name])
        line.start()
        line.await_running()
        program = line.spawn(sys.executable, "-c", code)

        def told() -> bool:
            assert program.poll() is None, program.log()
            camera.expose("ok", part_id="P1")
            return "P1 reject" in program.log()

        line.wait(told, "the result of a part")
        assert "pass" not in program.log(), "nothing of a simulation passes unless the program asks for it"


def test_the_kit_s_example_runs() -> None:
    exec(example(asperity.testing.__doc__), {})

