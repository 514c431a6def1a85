"""The rows of docs/failsafe.md against the tests that they name: with the mechanism switched off, the test must fail.

    python -m tests.failsafe.rows [--only TEXT] [--jobs N]     a table, row by row (`make failsafe-rows`)

Each entry of ``tests.failsafe.patches`` is run in a copy of the tree in which its patches are made. The present tree is
never touched.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as xml
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.failsafe.forks import Forks
from tests.places import ROOT

PAGE = ROOT / "docs" / "failsafe.md"
LEFT_OUT = shutil.ignore_patterns(".*", "build", "results", "node_modules", "*.egg-info")
LIMIT_S = 900
"""Longest that a test may take; each of its waits has a shorter one of its own."""
NO_PROOF = re.compile(
    r"(\w+\.)*(ImportError|ModuleNotFoundError|SyntaxError|NameError|AttributeError|TypeError|Failed: Timeout)\b"
)
"""A patch that breaks the program, or a test that never ends, shows nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """A fault that the page claims to be covered."""

    section: str
    fault: str
    tests: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by."""
        return self.section, self.fault


@dataclass(frozen=True, slots=True)
class Patch:
    """``find`` stands once in ``file`` and is replaced by ``put``."""

    file: str
    find: str
    put: str


Off = tuple[str, str, tuple[Patch, ...]]
"""Test, message and patches of an entry, as they stand under their row."""


def off(node: str, says: str, *patches: tuple[str, str, str]) -> Off:
    """``node``: below ``tests/``. ``patches``: file (of ``runtime/``, unless of ``examples/``), find, put."""
    made = [Patch(file if file.startswith("examples/") else f"runtime/{file}", *change) for file, *change in patches]
    return f"tests/{node}", says, tuple(made)


@dataclass(frozen=True, slots=True)
class Entry:
    """With ``patches`` made, ``node`` fails and its message holds ``says``; without them it passes."""

    section: str
    fault: str
    node: str
    says: str
    patches: tuple[Patch, ...]
    soak: bool

    @property
    def name(self) -> str:
        """For people: the row and the test."""
        return f"{self.section}: {self.fault} [{self.node.rpartition('::')[2]}]"

    @property
    def test(self) -> str:
        """The test's name, as the page has it."""
        return self.node.rpartition("::")[2].partition("[")[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test: ``passed``, ``failed``, ``skipped``, or ``broken`` where it could not be run."""

    word: str
    text: str
    took_s: float


def rows(page: str) -> list[Row]:
    """The rows of the page, in order."""
    found, section = [], ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line[3:].strip()
        elif line.startswith("| ") and not line.startswith("| fault "):
            cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            found.append(Row(section, cells[0], tuple(re.findall(r"`(test_\w+)`", cells[-1]))))
    return found


def drifted(patches: Sequence[Patch]) -> list[str]:
    """What is wrong with patches on the present tree, in words."""
    wrong = []
    for patch in patches:
        path = ROOT / patch.file
        count = path.read_text().count(patch.find) if path.is_file() else 0
        if count != 1 or patch.find == patch.put:
            wrong.append(f"{patch.file} has {patch.find!r} {count} times; it must be there once, and be changed")
    return wrong


class Copy(threading.local):
    """A copy of the tree for each thread, made once: patches are made in it and taken back."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ar-")
        self.tree = Path(self.folder.name) / "tree"
        shutil.copytree(ROOT, self.tree, symlinks=True, ignore=LEFT_OUT)
        self.later_s = 0
        self.forks = Forks()

    @contextmanager
    def patched(self, patches: Sequence[Patch]) -> Iterator[Path]:
        """The tree with these patches made."""
        before = {path: (path.read_text(), path.stat()) for path in {self.tree / patch.file for patch in patches}}
        try:
            for patch in patches:
                path = self.tree / patch.file
                text = path.read_text()
                if text.count(patch.find) != 1:
                    raise ValueError(f"{patch.file} does not have {patch.find!r} once")
                path.write_text(text.replace(patch.find, patch.put))
            # A time that no other form of the file has, so that no bytecode of another form is taken for this one's.
            self.later_s += 10
            for path, (_, stat) in before.items():
                os.utime(path, (stat.st_mtime + self.later_s,) * 2)
            yield self.tree
        finally:
            for path, (text, stat) in before.items():
                path.write_text(text)
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@cache
def copy() -> Copy:
    """Not made before it is needed."""
    return Copy()


def run(tree: Path, nodes: Sequence[str]) -> Outcome:
    """Run tests of a tree in a process of their own, until one fails."""
    with tempfile.TemporaryDirectory(prefix="t", dir=tree.parent, ignore_cleanup_errors=True) as folder:
        return _run(tree, nodes, Path(folder))


def _run(tree: Path, nodes: Sequence[str], folder: Path) -> Outcome:
    report, log = folder / "report.xml", folder / "log"
    arguments = [
        "-q", "-x", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}", *nodes
    ]  # fmt: skip
    # Plugins that other packages bring along take longer to load than most of these tests take.
    own = {"PYTHONPATH": str(tree), "TMPDIR": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    began_s = time.monotonic()
    try:
        code = copy().forks.run(tree, own, arguments, log, LIMIT_S)
    except TimeoutError:
        return Outcome("broken", f"did not finish within {LIMIT_S} s", LIMIT_S)
    took_s = time.monotonic() - began_s
    if code not in (0, 1) or not report.is_file():
        return Outcome("broken", log.read_text(errors="replace")[-2000:], took_s)
    cases = list(xml.parse(report).iter("testcase"))
    for kind, word in (("error", "broken"), ("failure", "failed")):
        for case in cases:
            told = case.find(kind)
            if told is not None:
                return Outcome(word, told.get("message", ""), took_s)
    skips = [case.find("skipped") for case in cases]
    if all(skip is not None for skip in skips):
        return Outcome("skipped", "; ".join({skip.get("message", "") for skip in skips if skip is not None}), took_s)
    return Outcome("passed", "", took_s)


@cache
def unpatched(nodes: tuple[str, ...]) -> Outcome:
    """These tests on the tree as it is."""
    with copy().patched(()) as tree:
        return run(tree, nodes)


def patched(entry: Entry) -> Outcome:
    """The entry's test on a tree with its patches."""
    with copy().patched(entry.patches) as tree:
        return run(tree, (entry.node,))


def verdict(entry: Entry, outcome: Outcome) -> str:
    """Why the test proves nothing, in words; empty: it proves that the mechanism is needed."""
    if outcome.word != "failed":
        return f"with the mechanism switched off {entry.node} {outcome.word}: {outcome.text}"
    if NO_PROOF.match(outcome.text) or entry.says not in outcome.text:
        return f"{entry.node} failed, but not by {entry.says!r}: {outcome.text[:2000]}"
    return ""


def checked(entry: Entry) -> tuple[str, str, float]:
    """(``needed``, ``skipped`` or ``WRONG``, why, seconds) of an entry, its test run without and with its patches."""
    control = unpatched((entry.node,))
    if control.word != "passed":
        return ("skipped" if control.word == "skipped" else "WRONG"), f"without patches: {control.text}", control.took_s
    outcome = patched(entry)
    why = verdict(entry, outcome)
    return ("WRONG" if why else "needed"), why, outcome.took_s


def main() -> int:
    """Print a table, row by row; 1 where a test proves nothing."""
    from tests.failsafe.patches import ENTRIES

    parser = argparse.ArgumentParser(description="switch off what each row of docs/failsafe.md rests on")
    parser.add_argument("--only", default="", help="rows or tests whose name contains this")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    entries = [entry for entry in ENTRIES if given.only in entry.name]
    wrong = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for entry, (word, why, took_s) in zip(entries, pool.map(checked, entries), strict=True):
            print(f"{word:8} {took_s:6.1f} s  {entry.name}", flush=True)
            if word != "needed":
                print("         " + why.replace("\n", "\n         "), flush=True)
            wrong += word == "WRONG"
    print(f"{len(entries)} entries, {wrong} of them wrong")
    return 1 if wrong or not entries else 0


if __name__ == "__main__":
    sys.exit(main())
