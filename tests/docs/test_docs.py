"""What the pages show is run: each block of code, or it says why not; each command line they name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from asperity.runtime import __version__
from tests.docs.blocks import PAGES, Block, blocks, present, spans
from tests.docs.command_lines import commands, fault
from tests.docs.running import RUN_BY, Station, why_not
from tests.places import DOCS, ROOT
from tests.test_house import LEVELS

FOLDERS = ("runtime", "calibration", "export", "benchmarks", "tests", "examples", "deploy", "docs")
MADE_ON_A_GPU = "runtime/cuda/choice/"
PAGE = """\
# Page
    asperity watch   # indented

Text:

```python
print(1)
```
- a list

    its second paragraph

        asperity watch state

Text.

<!-- not run: needs a GPU -->
```sh
$ make gpu-check
all right
```

    some picture
```console
$ asperity keys list
plc1
$ asperity keys new
```
"""
BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def station() -> Iterator[Station]:
    made = Station()
    yield made
    made.close()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.file}:{block.line}")
def test_a_block_is_run_or_says_why_not(block: Block, station: Station) -> None:
    if block.kind == "sh":
        for words in commands(block.text):
            assert not (found := fault(words)), found
    if block.reason:
        return
    assert block.kind in RUN_BY, "name its language after a fence, or write <!-- not run: REASON --> above it"
    RUN_BY[block.kind](block, station)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_in_the_prose_exists(page: Path) -> None:
    for span in spans(page):
        first, *others = commands(span)
        assert not (found := fault(first, whole=False)), f"{span}: {found}"
        for other in others:
            # `asperity engines build | list | remove`: the others take the place of the last word.
            words = [*first[: first.index(next(w for w in reversed(first) if not w.startswith("-")))], *other]
            assert not (found := fault(words if len(other) == 1 else other, whole=False)), f"{span}: {found}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"there is no {file}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_that_is_named_exists(page: Path) -> None:
    text = present(page.read_text())
    for name in re.findall(r"`([\w./-]+\.(?:py|cu|cuh|mjs|st))`", text):
        assert any(f"/{path}".endswith(f"/{name}") for path in sources()), f"there is no {name}"
    for name in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w/-]+/)`", text):
        assert (ROOT / name).is_dir() or name == MADE_ON_A_GPU, f"there is no {name}"


@cache
def sources() -> list[str]:
    """Every file of the checkout's folders, as a path from its root."""
    files = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return [str(path.relative_to(ROOT)) for path in files if "node_modules" not in path.parts]


def test_the_ladder_of_the_architecture_is_that_of_the_house() -> None:
    text = (DOCS / "architecture.md").read_text()
    ladder = next(block for block in blocks(DOCS / "architecture.md") if block.text.startswith("runtime/\n")).text
    drawn = []
    for part in ladder.split("\n\n"):
        package, *rungs = part.splitlines()
        package = package.split("/")[0]
        before = "" if package == "asperity" else f"{package}."
        drawn += [{f"{before}{room}" for room in rung.split()} for rung in reversed(rungs)]
    rungs = [set(line.rpartition(":")[2].split()) for line in LEVELS.splitlines() if line.strip()]
    assert drawn == rungs, "draw the ladder in docs/architecture.md as LEVELS of tests/test_house.py"
    described = " ".join(re.findall(r"^\|([^|]+)\|", text.split("## A frame")[0], re.M))
    missing = {room for rung in rungs for room in rung if not re.search(rf"`{room.split('.')[-1]}/?`", described)}
    assert not missing, "give each room its sentence in docs/architecture.md"


def test_the_version_has_its_section_in_the_changelog() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert sections[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(__version__)} - \d{{4}}-\d\d-\d\d", sections[1])


def test_blocks_are_found_in_both_forms(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert [(block.line, block.kind, block.text, block.reason) for block in blocks(page)] == [
        (2, "sh", "asperity watch   # indented", ""),
        (7, "python", "print(1)", ""),
        (13, "sh", "asperity watch state", ""),
        (19, "sh", "make gpu-check", "needs a GPU"),
        (23, "", "some picture", ""),
        (25, "sh", "asperity keys list\nasperity keys new", ""),
    ]


def test_commands_are_found_in_shell() -> None:
    text = (
        'K=/tmp/x; frame="python3 -m asperity.benchmarks.gpu.frame --fresh"   # it\'s "named"\n'
        "for s in $(python3 -m asperity.benchmarks.gpu.check --list | grep -v x); do\n"
        "    timeout 90 asperity doctor \\\n        --json 2>/dev/null; done\nA=1 make demo && $frame --list > file\n"
    )
    found = [" ".join(words) for words in commands(text)]
    frame = "python3 -m asperity.benchmarks.gpu.frame --fresh"
    listed = "python3 -m asperity.benchmarks.gpu.check --list"
    assert [line for line in found if line.startswith(("asperity", "python", "make"))] == [
        frame, listed, "asperity doctor --json 2", "make demo", f"{frame} --list",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("asperity", "needs one"),
        ("asperity nothing", "no command nothing"),
        ("asperity watch results --cuont 3", "has no --cuont"),
        ("asperity watch nothing", "nothing"),
        ("asperity watch --count many", "many"),
        ("asperity keys new extra", "takes no extra"),
        ("asperity inspect", "needs"),
        ("asperity watch --station", "needs a value"),
        ("asperity inspect BUNDLE --json", ""),
        ("make nothing", "no target nothing"),
        ("make demo NOTHING=1", "no variable NOTHING"),
        ("python -m asperity.nothing", "no module"),
        ("python -m asperity.runtime.states", "does nothing"),
        ("python -m asperity.benchmarks.gpu.check --nothing", "has no --nothing"),
        (".venv/bin/pip install '.[http,nothing]'", "no extra nothing"),
        ("pip install 'dist/asperity-0.1.9-py3-none-any.whl[http]'", "a wheel of this version"),
        ("pip install asperity", "no package index has asperity"),
        ("pip install 'asperity[mqtt]>=0.2'", "no package index has asperity"),
        ("asperity-service keys nothing", "no command nothing"),
        ("node examples/nothing.mjs", "there is no examples/nothing.mjs"),
        ("python nothing.py", "there is no nothing.py"),
    ],
)
def test_a_command_line_that_does_not_exist_is_named(line: str, said: str) -> None:
    found = fault(next(commands(line)))
    assert said in found and bool(found) == bool(said)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("toml", "[station]\nnmae = 'x'\n"),
        ("json", '{"v": 1, "nothing": 1}'),
        ("json", '{"v": 1, "id": "q-1", "op": "get_nothing", "station": "st1"}'),
        ("st", "station : ASPERITY_STATION;\nstation(wrods := registers);"),
        ("sh", "asperity keys revoke --client nobody"),
        ("sh", "asperity simulate --script nothing"),
        ("sh", "rm file"),
        ("python", "import asperity.nothing"),
    ],
)
def test_a_block_that_does_not_run_fails(kind: str, text: str, station: Station) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        RUN_BY[kind](Block("page.md", 1, kind, text, ""), station)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("toml", "[modbus]\nport = 5020\n"),
        ("json", '{"v": 1, "id": "q-1", "op": "get_state", "station": "st1"}'),
        (
            "json",
            '{"v": 1, "station": "st1", "session": "0b0e7a1c-3f52-4c1e-9d0a-5f6e7d8c9b0a", "state": 8}',
        ),
        ("json", '{"t": 1}\n{"t": 2,\n "fields": {}}'),
        ("python", "from asperity.runtime.client import station_client\nprint(station_client)"),
        ("c", '#include "asperity.h"\nstruct asperity_record record;\n'),
        ("js", "export const a = 1;\n"),
    ],
)
def test_a_block_that_runs_passes(kind: str, text: str, station: Station) -> None:
    RUN_BY[kind](Block("page.md", 1, kind, text, ""), station)


def test_a_reason_is_known_for_what_takes_long() -> None:
    assert why_not(["asperity", "calibrate", "x"]) and why_not([".venv/bin/python3", "-m", "asperity.benchmarks.x"])
    assert why_not(["asperity", "watch", "--key", "KEYFILE"])
    assert not why_not(["asperity", "simulate", "--reason", "STALE"])
