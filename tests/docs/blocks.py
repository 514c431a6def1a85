"""The code in the pages: fenced and indented blocks, and code spans that are command lines.

A block is run by what it is: the word after its fence, or the program its first line names. One that cannot be run has
``<!-- not run: REASON -->`` on the line before it. ``text`` after a fence says that it is not code.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.places import DOCS, ROOT

PAGES = (
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
)  # fmt: skip
PROGRAMS = frozenset(
    ["asperity", "cc", "cd", "cmake", "export", "gcc", "git", "make", "node", "npm", "pip", "python", "python3", "sudo"]
)
"""What the first line of a block of shell begins with, where nothing says that it is one."""
KINDS = {"bash": "sh", "console": "sh", "shell": "sh", "py": "python", "javascript": "js", "mjs": "js", "iecst": "st"}
"""Other words after a fence -> ours."""
_FENCE = re.compile(r"^\s*(```+|~~~+)\s*([\w-]*)")
_MARK = re.compile(r"^<!-- not run: (.+) -->$")
_LIST = re.compile(r"^\s*([-*+]|\d+[.)])\s")


class Block(NamedTuple):
    """One block of code."""

    file: str
    line: int
    """Of its first line of code."""
    kind: str
    """sh, python, toml, json, c, js, st, text; empty: nothing says what it is."""
    text: str
    reason: str
    """Why it is not run; empty: it must be."""


def blocks(path: Path) -> Iterator[Block]:
    """The blocks of one page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    at, before, in_list = 0, "", False
    while at < len(lines):
        line, first = lines[at], at
        if fence := _FENCE.match(line):
            at = next(n for n in range(at + 1, len(lines) + 1) if n == len(lines) or lines[n].strip() == fence[1])
            text, kind, first = "\n".join(lines[first + 1 : at]), KINDS.get(fence[2], fence[2]), first + 1
            at += 1
        elif (
            line.startswith("    ")
            and (not before or before.startswith(("#", "<!--")))
            and (not in_list or _guessed(line.strip()) == "sh")
        ):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            text, kind = textwrap.dedent("\n".join(lines[first:at])).strip(), ""
        else:
            in_list = bool(_LIST.match(line)) or (in_list and (not line.strip() or line.startswith("  ")))
            before, at = line.strip(), at + 1
            continue
        above = next((lines[n].strip() for n in range(first - 1, -1, -1) if _is_text(lines[n])), "")
        mark = _MARK.match(above)
        yield Block(name, first + 1, kind or _guessed(text), _without_prompts(text), mark[1] if mark else "")
        before = ""


def _is_text(line: str) -> bool:
    return bool(line.strip()) and not _FENCE.match(line)


def _guessed(text: str) -> str:
    """``sh`` where the first line of code begins with one of PROGRAMS."""
    words = next((line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")), [""])
    return "sh" if words[0].removeprefix("$ ").rpartition("/")[2] in PROGRAMS else ""


def _without_prompts(text: str) -> str:
    """Of a terminal's screen what was typed: the lines that begin with ``$ ``, if there are any."""
    typed = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return "\n".join(typed) if typed else text


def present(text: str) -> str:
    """A page without what it says of code that only an earlier commit has."""
    return re.sub(r"commit `[0-9a-f]{7,40}` \([^)]*\)", "", text)


def spans(path: Path) -> Iterator[str]:
    """The code spans of one page that are command lines."""
    prose, inside = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if fence and (not inside or line.strip() == inside):
            inside = "" if inside else fence[1]
        elif not inside:
            prose.append(line)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", present("\n".join(prose))):
        words = span.split()
        if len(words) > 1 and words[0].rpartition("/")[2] in PROGRAMS:
            yield " ".join(words)
