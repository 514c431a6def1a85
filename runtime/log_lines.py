"""Log lines on stderr: for people, or one JSON object a line with the ids of what it is about."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from runtime.config import Log
from runtime.files import shown

TEXT_FORMAT = "%(asctime)s %(levelname)s %(message)s"


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
        """One line; a traceback follows on lines of its own."""
        return shown(super().formatMessage(record))


def begin(config: Log) -> None:
    """Write what the process logs to stderr, as ``[log]`` says."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if config.format == "json" else TextLines(TEXT_FORMAT))
    logging.basicConfig(level=config.level.upper(), handlers=[handler])
