"""What is kept from run to run is taken only where nothing that it depends on has changed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import kept as module
from tests.kept import imported_by, kept
from tests.places import ROOT


class Maker:
    """Counts how often it made something."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "thing").write_text("dear")


def test_it_is_made_once_and_again_where_somebody_changed_it(tmp_path: Path) -> None:
    make = Maker()
    place = kept("thing", make, tmp_path)
    assert kept("thing", make, tmp_path) == place and make.calls == 1
    (place / "sub" / "thing").write_text("other")
    assert (kept("thing", make, tmp_path) / "sub" / "thing").read_text() == "dear" and make.calls == 2
    (place / "more").write_text("")
    kept("thing", make, tmp_path)
    assert make.calls == 3 and not (place / "more").exists()
    kept("another", make, tmp_path)
    assert make.calls == 4


def test_what_was_broken_off_is_not_taken(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        kept("thing", broken, tmp_path)
    make = Maker()
    assert not (kept("thing", make, tmp_path) / "half").exists() and make.calls == 1


def test_other_sources_or_versions_have_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree"
    for name in ("runtime/weights.bin", "calibration/a.py", "tests/helper.py", "tests/test_one.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1")
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "BEGAN_S", float("inf"))
    digest = module.surroundings.__wrapped__
    seen = {digest()}
    assert digest() in seen
    for name in ("runtime/weights.bin", "calibration/a.py", "tests/helper.py"):
        (root / name).write_text("2")
        assert digest() not in seen, name
        seen.add(digest())
    (root / "tests/test_one.py").write_text("2")
    assert digest() in seen, "a test is no maker"
    few = (root / "tests/helper.py", root / "runtime")
    of_few = digest(few)
    (root / "calibration/a.py").write_text("3")
    assert digest() not in seen and digest(few) == of_few
    for name in ("runtime/weights.bin", "tests/helper.py"):
        (root / name).write_text("3")
        assert digest(few) != of_few, name
        of_few = digest(few)
    seen.add(digest())
    monkeypatch.setattr(module, "distributions", lambda: [])
    assert digest() not in seen
    seen.add(digest())
    monkeypatch.setattr(module, "BEGAN_S", 0.0)
    assert digest() not in seen, "sources that were written after the start are nobody else's"


def test_a_maker_depends_on_all_that_it_imports_and_on_nothing_else() -> None:
    """Each file that is imported, as the syntax has it, and the data that calibration reads; no gateway."""
    found = {str(path.relative_to(ROOT)) for path in imported_by("tests.conftest")}
    for name in ("calibration/calibrate.py", "export/onnx.py", "runtime/vision/preprocess.py", "tests/quick_exports.py",
                 "calibration/weights/points_lite.safetensors", "runtime/__init__.py"):  # fmt: skip
        assert name in found, name
    assert not [name for name in found if "gateways" in name or name.startswith("runtime/cuda")]
    files = imported_by("tests.export.exported")
    assert len(files) > 40
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())) if path.suffix == ".py" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("asperity", "tests")):
                named = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                assert {module._file_of(name) for name in named} <= {None, *files}, (path, named)
