"""Every file that a document links to or names as a result is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.places import DOCS, ROOT

PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
RESULT = re.compile(r"benchmarks/results/[\w./-]*\w")


def missing(page: Path, text: str) -> list[str]:
    """Relative links, and paths of results, that lead nowhere."""
    links = [link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"[a-z]+:|#", link)]
    found = [link for link in links if not (page.parent / link).exists()]
    return found + [path for path in RESULT.findall(text) if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    assert not missing(page, page.read_text())


def test_a_dead_link_would_be_found() -> None:
    text = "[a](station.md#top) [b](nowhere.md) [c](https://a.example/x)\n"
    text += "`benchmarks/results/none.json`, benchmarks/results/<gpu>/"
    assert missing(DOCS / "method.md", text) == ["nowhere.md", "benchmarks/results/none.json"]
