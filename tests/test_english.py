"""What users read is plain English: words and idioms that were replaced everywhere do not come back.

Looked at: the text of every string and docstring of the product, and the prose of the pages under ``docs/`` outside of
code. A text that means such a word itself puts it into code font on a page, or gets a line in ``EXCEPTIONS``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import ROOT

INSTEAD = {
    r"whoever": "anyone who, the client that, any user",
    r"befalls?": "happens to",
    r"somebody": "a client, another user, a person",
    r"anybody": "anyone, any client, any user",
    r"mends?|mended": "fix, correct, improve",
    r"trying on(?! \w)": "retrying",
    r"sees? to it": "make sure, or say what is done",
    r"for good(?! (?:part|frame|one|normal)s?\b)": "permanently",
    r"anew": "again",
    r"started again": "restarted",
    r"in force": "active",
    r"believed?": "trust",
    r"let in|lets? (?:nobody|them|him|it|clients?) in": "admit, refuse all connections",
    r"the bench(?:'s)?": "the engine thread",
    r"the desk(?:'s)?": "the I/O thread",
    r"beat (?:moves?|moved|stands|stood)|moving beat|beats? of its own": "the heartbeat advances, has stopped",
    r"(?:times|frames|results|requests|messages|bytes|exposures|choices|samples) a second": "per second",
    r"in (?:a|an) (?:process|thread|environment|folder) of its own": "in a separate process, in its own folder",
    r"on a (?:process|thread) of its own": "on its own thread",
    r"cannot be told|could not be told|is not told": "cannot be determined, is not reported",
    r"a number that is none|(?:gives?|gave) a number that is none": "NaN or infinity",
    r"(?<!\bthere )(?:is|are) no (?!longer\b|more\b|further\b|better\b|worse\b)\w+": "is not a ...",
    r"he|his|him": "they, their, them",
    r"conservation law": "accounting invariant",
    r"leapt": "jumped",
    r"for ever": "forever, endlessly",
    r"(?:this|one|another) box|(?:on|of) the box": "this machine",
    r"without a word": "unnoticed, without notice",
    r"(?<!\bare )(?<!\bis )all the same": "anyway",
    r"as (?:it|they) stands?": "unchanged, current",
    r"go(?:es|ing)? on (?:where|from)|gone on with": "resume, continue",
    r"what (?:becomes|became|came|comes) of": "the outcome of",
    r"the law(?:'s)?": "the accounting, the invariant",
    r"the beat(?:'s)?": "the heartbeat",
    r"one (?:command|entry|file|folder|frame|function|line|module|plan|process|row|set|station|thread) an? \w+": "per",
    r"at (?:most|least) so many": "this many",
    r"(?:own|its|their) words|words above": "the output, the message",
    r"roads?": "path, pipeline",
    r"after each other": "one after the other",
}
PATTERN = re.compile("|".join(rf"(?P<w{at}>\b(?:{words})\b)" for at, words in enumerate(INSTEAD)), re.I)
EXCEPTIONS: dict[str, str] = {}
"""Path -> a phrase that may stand there."""
PACKAGES = ("runtime", "calibration", "export", "benchmarks")


def pieces(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of what people may read of a file."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, node.value
        return
    code = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code ^= line.startswith("```")
        if not code and not line.startswith("    "):
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "``", line)


def faults(path: Path) -> Iterator[str]:
    name = str(path.relative_to(ROOT))
    for number, text in pieces(path):
        for match in PATTERN.finditer(" ".join(text.split())):
            found = match.group()
            if EXCEPTIONS.get(name) != found:
                instead = list(INSTEAD.values())[int(str(match.lastgroup)[1:])]
                yield f"{name}:{number}: {found!r}; write: {instead}"


def files() -> list[Path]:
    code = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted([*code, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "asperity").rglob("[a-z]*.py")])


def test_what_users_read_is_plain_english() -> None:
    found = [fault for path in files() for fault in faults(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("whoever comes", True), ("there is no GPU", False), ("it is no bundle", True), ("it is no longer open", False),
        ("a threshold for good parts", False), ("lost for good", True), ("the benchmark", False),
        ("10 frames a second", True), ("one file a station", True), ("one file at a time", False),
    ],
)  # fmt: skip
def test_the_list_finds_what_it_names_and_nothing_else(text: str, is_found: bool) -> None:
    assert bool(PATTERN.search(text)) == is_found
