"""Bytes of a text file to text: UTF-8, or what a byte order mark names; anything else is refused with its line."""

from __future__ import annotations

import codecs

SAVE_AS_UTF8 = "save it as UTF-8"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    # Before UTF-16, whose mark is the beginning of this one.
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)


class TextRefused(ValueError):
    """A text that cannot be used; the message is to follow the name of the file or field: ``is not TOML: ...``."""


def decode(data: bytes) -> str:
    """The text of a file, without byte order mark, its lines ending in ``\\n``. Raises TextRefused."""
    mark, codec, name = next((known for known in _MARKS if data.startswith(known[0])), (b"", "utf-8", "UTF-8"))
    try:
        text = data[len(mark) :].decode(codec)
    except UnicodeDecodeError as error:
        raise TextRefused(_damage(data[len(mark) :], error, name)) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        if not mark and len(data) > 3 and 0 in data[:2] + data[-2:] and 3 * data.count(0) >= len(data):
            raise TextRefused(f"is UTF-16 without a byte order mark; {SAVE_AS_UTF8}")
        line = text.partition("\0")[0].count("\n") + 1
        raise TextRefused(f"holds a NUL byte in line {line}; it is damaged or not a text file")
    return text


def _damage(data: bytes, error: UnicodeDecodeError, name: str) -> str:
    if name != "UTF-8":
        return f"begins as {name} text and is damaged after {error.start} bytes; {SAVE_AS_UTF8}"
    before = data[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    line = before.count(b"\n") + 1
    byte = data[error.start]
    meant = bytes([byte]).decode("cp1252", "replace")
    guess = f" ({meant!r} in Windows-1252)" if meant.isprintable() and meant != "\ufffd" else ""
    return f"is not UTF-8 text: line {line} holds the byte 0x{byte:02x}{guess}; {SAVE_AS_UTF8}"
