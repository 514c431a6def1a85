"""A folder, a program that writes exposures into it, and a clock that the test moves."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asperity.runtime.cameras.files.read import ExposureFiles, FileOptions
from asperity.runtime.cameras.source import Shot
from asperity.runtime.cameras.sources.folder.options import FolderSection, settings_of
from asperity.runtime.cameras.sources.folder.source import Clocks, FolderSource
from asperity.runtime.errors import DataError
from asperity.runtime.frame import Frame

START_NS = 1_700_000_000_000_000_000
PAIRS = {"points": "xyz/*.npy", "colour": "rgb/*.png"}
SUFFIXES = {"points": "*_depth.npy", "colour": "*_color.png"}


def content(value: int) -> bytes:
    """A file that shows ``value``; the shortest piece that is cut off is noticed."""
    body = value.to_bytes(4, "big") * 16
    return zlib.crc32(body).to_bytes(4, "big") + body


def value_in(path: Path) -> int:
    """What a whole file shows. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) != 68 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "big"):
        raise DataError(f"{path} is cut off")
    return int.from_bytes(data[4:8], "big")


def read(files: ExposureFiles, options: FileOptions) -> Frame:
    """A frame whose colour and points say what their files show."""
    points = value_in(files.points)
    colour = points if files.colour is None else value_in(files.colour)
    rgb = np.frombuffer(colour.to_bytes(4, "big") * 3, np.uint8).reshape(2, 2, 3)
    return Frame("files", "", 0, rgb, xyz=np.full((2, 2, 3), points, np.float32), unit="mm")


def shown(shot: Shot) -> tuple[int, int]:
    """What colour and points of a shot say."""
    assert shot.frame.xyz is not None
    return int.from_bytes(shot.frame.rgb.tobytes()[:4], "big"), int(shot.frame.xyz[0, 0, 0])


def left_out(caplog: pytest.LogCaptureFixture) -> str:
    """What was said of exposures that were left out."""
    return "\n".join(record.getMessage() for record in caplog.records)


@dataclass
class Hot:
    """The folder ``path`` and its writer. ``options``: of ``[folder]``."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    waiting_max: int = 1000
    now_ns: int = 1
    source: FolderSource | None = None

    @property
    def wall_ns(self) -> int:
        return START_NS + self.now_ns

    def open(self, triggers: Any = "free_run", reader: Any = read) -> FolderSource:
        """Start the source again; what it had open is given up, as a kill does."""
        self.close()
        record = self.path.parent / f"{self.path.name}.taken"
        options = FolderSection(**{"path": str(self.path), "record": str(record), "points": "*.npy", **self.options})
        clocks = Clocks(lambda: self.now_ns, lambda: self.wall_ns, lambda seconds: self.tick(seconds * 1000))
        settings = settings_of(options, triggers)
        rules = replace(settings.rules, waiting_max=self.waiting_max)
        self.source = FolderSource(replace(settings, rules=rules), reader, clocks)
        return self.source

    def close(self) -> None:
        if self.source is not None:
            self.source.close()
            self.source = None

    def tick(self, ms: float) -> None:
        self.now_ns += round(ms * 1e6)

    def put(self, name: str, value: int, *, age_ms: float = 0) -> None:
        """A whole file, renamed into place."""
        self.write(f".{name.replace('/', '_')}.tmp", content(value), age_ms=age_ms)
        (self.path / f".{name.replace('/', '_')}.tmp").rename(self.path / name)

    def write(self, name: str, data: bytes, *, append: bool = False, age_ms: float = 0) -> None:
        with (self.path / name).open("ab" if append else "wb") as file:
            file.write(data)
        at = self.wall_ns - round(age_ms * 1e6)
        os.utime(self.path / name, ns=(at, at))

    def shots(self, ms: int = 1000) -> list[Shot]:
        """Every exposure that comes within the time."""
        assert self.source is not None
        found = []
        ends_ns = self.now_ns + ms * 1_000_000
        while (left_ms := (ends_ns - self.now_ns) // 1_000_000) > 0:
            shot = self.source.shot(left_ms)
            if shot is not None:
                found.append(shot)
        return found

    def values(self, ms: int = 1000) -> list[int]:
        """What they show, colour and points the same."""
        pairs = [shown(shot) for shot in self.shots(ms)]
        assert all(colour == points for colour, points in pairs), pairs
        return [points for _, points in pairs]


def hot_folder(folder: Path) -> Iterator[Hot]:
    """What a fixture yields: an empty folder ``in``, given up at the end."""
    for below in ("in", "in/rgb", "in/xyz"):
        (folder / below).mkdir()
    made = Hot(folder / "in")
    yield made
    made.close()
