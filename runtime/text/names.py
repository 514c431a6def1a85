"""Names of files and folders, and paths in settings: what may be written into a report, a record or a message later."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.numbers import whole_number

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_VARIABLE = re.compile(r"\$|%[A-Za-z]+%")
_DIGITS = re.compile(r"[0-9]+|[^0-9]+")


def natural_key(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key under which ``10`` follows ``9`` and ``part10`` follows ``part9``; equal numbers by their spelling."""
    numbers = ((whole_number(piece), piece) for piece in _DIGITS.findall(text))
    return tuple((1, 0, piece) if number is None else (0, number, "") for number, piece in numbers), text


def check_name(name: str) -> None:
    """Raises TextRefused for a file's or folder's name that cannot be written everywhere and read by people."""
    if has_stray_bytes(name):
        raise TextRefused("is not UTF-8; rename it")
    if not name.isprintable():
        raise TextRefused("holds characters that cannot be seen; rename it")
    if name != name.strip() or name.endswith("."):
        raise TextRefused(f"begins or ends with a blank or ends with a dot ({name!r}); rename it")


def host_name() -> str:
    """This computer's name; bytes that are not UTF-8 are written as ``\\xfc``."""
    return os.fsencode(os.uname().nodename).decode(errors="backslashreplace")


def has_stray_bytes(text: str) -> bool:
    """Whether a name holds bytes that are not UTF-8 (Python's surrogates), so that no text file can hold it."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def alike(name: str) -> str:
    """Names with the same answer differ only in case or in how an accent is written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_apart(names: Iterable[str]) -> None:
    """Raises TextRefused where two names are alike: one of them would be taken silently, or lost when copied."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(alike(name), name)
        if other != name:
            first, second = sorted((other, name))
            spelt = "" if first.isascii() and second.isascii() else f" ({first!a} and {second!a})"
            raise TextRefused(
                f"{first} and {second} differ only in case or in how an accent is written{spelt}; rename or remove one"
            )


def path_fault(text: str) -> str:
    """Why a path, in settings or options, is probably not what was meant; empty: it may be."""
    if _WINDOWS.match(text):
        return f"is {text!r}, a path of Windows; give a path of this computer"
    return f"is {text!r}, with a blank at one end; remove it" if text != text.strip() else ""


def path_from(text: str, base: Path) -> Path:
    """A path in settings: relative to the file's folder ``base``; ``~/`` is the user's home. Raises TextRefused."""
    if not text:
        raise TextRefused("is empty; give a path")
    if has_stray_bytes(text) or not text.isprintable():
        raise TextRefused(f"is {text!r}, which holds characters that cannot be seen; give a plain path")
    if _VARIABLE.match(text):
        raise TextRefused(f"is {text!r}, but variables are not replaced here; write the whole path")
    if fault := path_fault(text):
        raise TextRefused(fault)
    if text.startswith("~"):
        user, _, below = text.partition("/")
        home = os.environ.get("HOME", "")
        if user != "~" or not Path(home).is_absolute() or not home.strip("/"):
            raise TextRefused(f"is {text!r}, whose home folder is not known here; write the whole path")
        return Path(home) / below
    return base / text
