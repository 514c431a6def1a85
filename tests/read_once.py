"""Files of frames are read once: a calibration reads each several times, and many tests calibrate from one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asperity.runtime.cameras import mvtec_files

MOST_NBYTES = 2**26
Read = Callable[[Path], NDArray[Any]]


@pytest.fixture(scope="module", autouse=True)
def frames_are_read_once() -> Iterator[None]:
    """Within a module's tests a file that has not changed since is not decoded again; nobody can write into an array.
    How files are read: ``tests/runtime/cameras``."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("read_rgb", "read_xyz"):
            patch.setattr(mvtec_files, name, _remembered(getattr(mvtec_files, name)))
        yield


def _remembered(read: Read) -> Read:
    known: dict[tuple[object, ...], NDArray[Any]] = {}

    def once(path: Path) -> NDArray[Any]:
        try:
            now = path.stat()
        except OSError:
            return read(path)
        key = (path, now.st_ino, now.st_mtime_ns, now.st_ctime_ns, now.st_size)
        if key not in known:
            if sum(array.nbytes for array in known.values()) > MOST_NBYTES:
                known.clear()
            known[key] = np.asarray(read(path))
            known[key].flags.writeable = False
        return known[key]

    return once
