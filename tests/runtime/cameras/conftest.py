"""A hot folder, given up at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.cameras.hot_folders import Hot


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[Hot]:
    for below in ("in", "in/rgb", "in/xyz"):
        (tmp_path / below).mkdir()
    made = Hot(tmp_path / "in")
    yield made
    made.close()
