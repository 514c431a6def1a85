"""stdin, stdout and stderr, made safe to use at the start of each process.

A process may be started without them. The next files that it opens would then take their numbers, and what a native
library writes to stderr would land in the journal. And a terminal or a full disk that takes no more log lines must not
end a station.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import Buffer

STREAMS = ("stdin", "stdout", "stderr")
ESCAPES = "asperity.escapes"
r"""What the encoding of a stream does not have is written as ``\u00b5``: readable, and still JSON within JSON."""


def begin() -> None:
    """Open those that are closed on /dev/null; from now on no text is too odd to print, and stderr never fails."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, and is inherited by children as 0 to 2 are
            os.set_inheritable(number, True)
    for number, name in enumerate(STREAMS):
        if getattr(sys, name) is None:
            stream = _stream(number)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    codecs.register_error(ESCAPES, _escaped)
    # Only the interpreter's own streams: a test, or a program that runs a command, may have put its own there.
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ESCAPES)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _lossy(sys.stderr)


def flush() -> None:
    """Write what stdout still holds. Raises OSError once; what could not be written is then dropped."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python would try again at its end, fail again, say so and exit with 120.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
            sys.stdout.flush()
        raise


class _Lossy(io.FileIO):
    """A file that drops what it cannot take: a reader that is gone, a full disk, a terminal that is busy."""

    def write(self, data: Buffer) -> int:
        """All of it is written, or nobody wants it."""
        with memoryview(data) as view:
            size = view.nbytes
            with suppress(OSError):
                return super().write(view) or size
        return size


def _stream(number: int) -> io.TextIOWrapper:
    """As the interpreter would have opened it, had it been there, or not a folder."""
    mode: Literal["r", "w"] = "r" if number == 0 else "w"
    with suppress(OSError):
        return open(number, mode, encoding="utf-8", closefd=False)
    os.dup2(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), number)
    return open(number, mode, encoding="utf-8", closefd=False)


def _lossy(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    with suppress(OSError):
        stream.flush()
    raw = _Lossy(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=stream.encoding, errors=ESCAPES, line_buffering=True)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
    return "".join(rf"\u{unit}" for unit in pairs), error.end
