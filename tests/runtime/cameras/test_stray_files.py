"""What else lies in a folder of frames, and frames that were not written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.mvtec_files import read_frame, write_frame
from asperity.runtime.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Below a folder with a dot in its name."""
    folder = tmp_path / ".frames" / "v1.0"
    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for name in ("000", "001"):
        write_frame(folder, name, rgb, np.ones((24, 32, 3), np.float32))
    return folder


def test_files_that_file_managers_leave_are_no_frames(folder: Path) -> None:
    for name in ("rgb/._000.png", "xyz/._000.tiff", "rgb/.DS_Store", "rgb/Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\26\7")
    assert [sample.name for sample in list_samples(folder)] == ["000", "001"]


def test_extensions_in_capitals_are_frames(folder: Path) -> None:
    for path in (*folder.glob("rgb/*"), *folder.glob("xyz/*")):
        path.rename(path.with_suffix(path.suffix.upper()))
    assert [sample.name for sample in list_samples(folder)] == ["000", "001"]


@pytest.mark.parametrize("name", ["rgb/001.png", "xyz/001.tiff"])
def test_a_truncated_file_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=name):
        read_frame(folder / "rgb/001.png", folder / "xyz/001.tiff", camera="c", camera_session="s", seq=0)
