"""What is made from the sources is current and complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.runtime.errors import DataError
from tests.places import ROOT

pytest.importorskip("asyncua")

from asperity.runtime.documents import gateways_page, plc_page, station_page
from asperity.runtime.documents.everything import PAGES, made, write_all


@pytest.mark.parametrize("file", sorted(PAGES))
def test_every_made_file_is_current(file: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == made(ROOT, file), "run: make documents"


def test_every_file_of_the_folder_of_made_files_is_made() -> None:
    folder = ROOT / "examples" / "generated"
    assert {f"examples/generated/{path.name}" for path in folder.iterdir() if path.is_file()} <= set(PAGES)


def test_a_file_that_is_not_current_is_written_and_what_people_wrote_stays(tmp_path: Path) -> None:
    for file in PAGES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    assert write_all(tmp_path) == []
    page = tmp_path / "docs" / "plc.md"
    whole = page.read_text()
    page.write_text("By people.\n" + whole.replace("| 1 | `GOOD` |", "| 1 | `BETTER` |"))
    (tmp_path / "docs" / "states.md").unlink()
    (tmp_path / "examples" / "generated" / "asperity.h").unlink()
    with pytest.raises(FileNotFoundError):
        made(tmp_path, "docs/states.md")
    (tmp_path / "docs" / "states.md").write_text("")
    assert write_all(tmp_path) == ["docs/plc.md", "docs/states.md", "examples/generated/asperity.h"]
    assert page.read_text() == "By people.\n" + whole


def test_a_page_without_its_block_is_refused() -> None:
    with pytest.raises(DataError, match="each once"):
        plc_page.page("# nothing made here\n")


def test_every_key_has_a_description() -> None:
    for text, least in ((station_page.page(), 45), ("\n".join(gateways_page.keys()), 30)):
        rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
        assert len(rows) > least
        assert all(len(cells) >= 5 and len(cells[4].strip()) > 3 for cells in rows)
