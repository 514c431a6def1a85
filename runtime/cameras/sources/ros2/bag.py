"""Messages of a ROS 2 bag: a folder with ``metadata.yaml``, an ``.mcap`` or a ``.db3`` file, not compressed."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from asperity.runtime.cameras.sources.ros2.link import NAMED_MAX, Received
from asperity.runtime.errors import CameraError, SourceEnded
from asperity.runtime.files import read_file

METADATA_MAX_NBYTES = 2**22
COMPRESSED = re.compile(rb"compression_mode[\"']?\s*:\s*[\"']?(?!none)\w", re.IGNORECASE)
REMEDY = "; write a plain copy with `rosbags-convert --src BAG --dst COPY`"
CHUNK_SLACK_NBYTES = 64 * 2**20
"""A chunk of an MCAP file may be this much larger than the largest message."""


class Bag:
    """The messages of some topics, at the pace of the recording."""

    def __init__(self, path: Path, topics: tuple[tuple[str, str], ...], *, max_nbytes: int, speed: float) -> None:
        """``topics``: name and type. ``speed``: 2 is twice as fast as recorded, 0 does not wait. Raises CameraError."""
        from rosbags.rosbag2 import Reader

        self.nodes = ("bag",) * len(topics)
        self._path, self._speed = path, speed
        _check_sizes(path, max_nbytes)
        self._reader: Any = None
        try:
            self._reader = Reader(path)
            self._reader.open()
            _check_opened(self._reader.storage, max_nbytes + CHUNK_SLACK_NBYTES)
            self._wanted = {one.id: at for one in self._reader.connections for at, topic in enumerate(topics)
                            if topic == (one.topic, one.msgtype)}  # fmt: skip
        except CameraError:
            self.close()
            raise
        except Exception as error:  # the reader of another package may raise anything on a damaged file
            self.close()
            raise CameraError(f"{path} is not a bag that can be read: {error}") from error
        if len(set(self._wanted.values())) < len(topics):
            there = sorted(f"{one.topic} ({one.msgtype})" for one in self._reader.connections)
            lacking = [f"{name} ({kind})" for at, (name, kind) in enumerate(topics) if at not in self._wanted.values()]
            self.close()
            raise CameraError(
                f"{path} has no {' and '.join(lacking)}; it has {', '.join(there[:NAMED_MAX]) or 'no topics'}"
            )
        self._messages = self._read()
        self._next: tuple[int, Received] | None = None
        self._began: tuple[int, float] | None = None

    def take(self, timeout_ms: int) -> Received | None:
        """The next message, None when it is not due within ``timeout_ms``. Raises CameraError, SourceEnded."""
        if self._next is None:
            try:
                self._next = next(self._messages, None)
            except Exception as error:  # as above
                raise CameraError(f"{self._path} is damaged: {error}") from error
        if self._next is None:
            raise SourceEnded(f"{self._path} has ended")
        at_ns, received = self._next
        now_s = time.monotonic()
        self._began = self._began or (at_ns, now_s)
        due_s = self._began[1] + (at_ns - self._began[0]) / 1e9 / self._speed if self._speed else now_s
        time.sleep(min(max(due_s - now_s, 0.0), timeout_ms / 1000))
        if due_s - now_s > timeout_ms / 1000:
            return None
        self._next = None
        return received

    def close(self) -> None:
        """Close the files."""
        with suppress(Exception):
            self._reader.close()

    def _read(self) -> Iterator[tuple[int, Received]]:
        wanted = [one for one in self._reader.connections if one.id in self._wanted]
        for connection, at_ns, data in self._reader.messages(wanted):
            yield at_ns, Received(self._wanted[connection.id], bytes(data), None)


def _check_sizes(path: Path, max_nbytes: int) -> None:
    """Raises CameraError for what cannot be a bag, and for messages that are too large, before they are read."""
    try:
        folder = path.is_dir()
        files = sorted(path.glob("*.db3")) if folder else [path]
        if folder:
            text = read_file(path / "metadata.yaml", METADATA_MAX_NBYTES, follow=True)
            if COMPRESSED.search(text) or any(path.glob("*.zstd")):
                raise CameraError(f"{path} is compressed{REMEDY}")
        if not folder and path.suffix not in (".mcap", ".db3"):
            raise CameraError(f"{path} is not a bag; give its folder, its .mcap or its .db3 file")
        for file in files:
            if file.stat().st_size and file.suffix == ".db3":
                with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
                    (largest,) = database.execute("SELECT max(length(data)) FROM messages").fetchone()
                if (largest or 0) > max_nbytes:
                    raise CameraError(f"{file} has a message of {largest} bytes; give a larger message_max_mb")
    except OSError as error:
        raise CameraError(f"{error.filename} cannot be read: {error.strerror}; give a bag's folder or file") from error
    except sqlite3.Error as error:
        raise CameraError(f"{path} is not a bag that can be read: {error}") from error


def _check_opened(storage: Any, max_nbytes: int) -> None:
    """Raises CameraError for chunks whose size has no bound before they are read."""
    for file in getattr(storage, "storages", [storage]):
        chunks = getattr(file, "chunks", None)
        if chunks is None:
            continue
        if not chunks and file.metadata.message_count:
            raise CameraError(f"{file.path} has no index of its chunks{REMEDY}")
        for chunk in chunks:
            if chunk.compression:
                raise CameraError(f"{file.path} is compressed ({chunk.compression}){REMEDY}")
            if max(chunk.compressed_size, chunk.uncompressed_size) > max_nbytes:
                raise CameraError(f"{file.path} has a chunk of {chunk.uncompressed_size} bytes{REMEDY}")
