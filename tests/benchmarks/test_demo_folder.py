"""The demo replaces what an earlier demo made, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.benchmarks.demo import MARK, _clear
from asperity.runtime.errors import UsageError


def test_frames_of_a_user_are_not_removed(tmp_path: Path) -> None:
    normals, station = tmp_path / "normals", tmp_path / "station"
    (normals / "rgb").mkdir(parents=True)
    (normals / "rgb" / "000.png").touch()
    with pytest.raises(UsageError, match="was not made by a demo"):
        _clear(tmp_path, normals, station)
    assert (normals / "rgb" / "000.png").exists() and not (tmp_path / MARK).exists()


def test_a_demo_is_replaced_even_if_it_was_interrupted(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    normals, station = out / "normals", out / "station"
    for _ in range(2):
        _clear(out, normals, station)
        assert not normals.exists() and not station.exists()
        (normals / "rgb").mkdir(parents=True)
        station.mkdir()


def test_a_finished_demo_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "station").mkdir()
    for name in ("summary.json", "truth.jsonl"):
        (tmp_path / name).touch()
    _clear(tmp_path, tmp_path / "normals", tmp_path / "station")
    assert not (tmp_path / "station").exists()
