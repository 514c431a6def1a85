"""Log lines on stderr: `text` for people, or `json`: one JSON object per line with the ids it concerns."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import msgspec

from asperity.runtime.clock import MS
from asperity.runtime.files import shown
from asperity.runtime.settings.station_toml import Log

TEXT_FORMAT = "%(asctime)s %(levelname)s %(message)s"
BOUNDED = {"bounded": True}
"""``extra`` of a line whose number the place that logs it bounds itself, by ``Repeats``: ``Rate`` lets it pass."""


class JsonLines(logging.Formatter):
    """``t_us level text`` and what ``extra={"ids": {...}}`` brings: ``station session kind result_id seq``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; no line break can get into it."""
        ids: dict[str, Any] = getattr(record, "ids", {})
        line = {"t_us": round(record.created * 1e6), "level": record.levelname.lower(), "logger": record.name}
        text = ids.get("text", record.getMessage())
        line |= {name: value for name, value in ids.items() if value is not None and name != "text"}
        line["text"] = shown(text)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextLines(logging.Formatter):
    """Lines for people. What a name from outside holds besides printable characters is written as escapes."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on its own lines."""
        return shown(super().formatMessage(record))


class Repeats:
    """Which lines were written a moment ago: ``most`` of a kind in ``repeat_ms``, for at most ``kinds_max`` kinds."""

    def __init__(self, repeat_ms: int, kinds_max: int, most: int = 1) -> None:
        self._repeat_ns, self._kinds_max, self._most = repeat_ms * MS, kinds_max, most
        self._kinds: OrderedDict[Hashable, tuple[int, int, int]] = OrderedDict()  # since when, written, held back

    def due(self, kind: Hashable, now_ns: int) -> int | None:
        """None: hold this one back. Else how many were held back before it."""
        since_ns, written, held = self._kinds.get(kind, (None, 0, 0))
        if since_ns is not None and now_ns - since_ns < self._repeat_ns:
            write = written < self._most
            self._kinds[kind] = since_ns, written + write, held + (not write)
            return 0 if write else None
        self._kinds[kind] = now_ns, 1, 0
        self._kinds.move_to_end(kind)
        while len(self._kinds) > self._kinds_max:
            self._kinds.popitem(last=False)
        return held


def with_held(text: str, held: int) -> str:
    """The text, with how many of its kind were held back before it."""
    return f"{text} ({held} more of this kind before)" if held else text


class Rate(logging.Filter):
    """Bounds the lines of each place in the program that logs, whatever is in them."""

    def __init__(self, repeats: Repeats) -> None:
        super().__init__()
        self._repeats = repeats
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line; the first one after others were held back says how many."""
        if getattr(record, "bounded", False):  # by the place that logs, which knows its kinds
            return True
        with self._lock:
            held = self._repeats.due((record.pathname, record.lineno), time.monotonic_ns())
        if held:
            record.msg, record.args = with_held(record.getMessage(), held), None
        return held is not None


def begin(config: Log, rate: Rate | None = None) -> None:
    """Write what the process logs to stderr, as ``[log]`` says; of each kind of line no more than ``rate`` allows."""
    handler = logging.StreamHandler()
    if rate is not None:
        handler.addFilter(rate)
    handler.setFormatter(JsonLines() if config.format == "json" else TextLines(TEXT_FORMAT))
    logging.basicConfig(level=config.level.upper(), handlers=[handler])
