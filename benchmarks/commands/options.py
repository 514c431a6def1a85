"""Options that several ``asperity bench`` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from asperity.runtime.errors import UsageError
from asperity.runtime.text.numbers import whole_number

Word = TypeVar("Word", bound=str)


def cores_of(text: str) -> tuple[int, ...]:
    """Cores from text such as ``0,1``; empty text: none. Raises UsageError."""
    cores = [whole_number(piece.strip()) for piece in text.split(",") if piece.strip()]
    known = {core for core in cores if core is not None and core >= 0}
    if len(known) != len(set(cores)):
        raise UsageError(f"--pin {text!r} is not a list of cores; give numbers separated by commas, such as 0 or 0,1")
    return tuple(sorted(known))


def numbers_of(text: str, option: str) -> tuple[float, ...]:
    """Numbers above 0 from text such as ``5,8``. Raises UsageError."""
    try:
        values = tuple(float(piece) for piece in text.split(",") if piece.strip())
    except ValueError:
        values = (0.0,)
    if not all(0 < value < 1e6 for value in values):
        raise UsageError(f"{option} {text!r}: give numbers above 0 separated by commas, such as 5 or 5,8")
    return values


def words_of(text: str, known: tuple[Word, ...], option: str) -> tuple[Word, ...]:
    """Words of ``known``, in its order, from text such as ``sockets,in-process``. Raises UsageError."""
    given = {piece.strip() for piece in text.split(",") if piece.strip()}
    if not given or not given <= set(known):
        raise UsageError(f"{option} {text!r}: choose from {', '.join(known)}, with commas")
    return tuple(word for word in known if word in given)


def both_or_neither(bundle: Path | None, folder: Path | None) -> None:
    """Raises UsageError for a bundle without frames, or frames without a bundle."""
    if (bundle is None) != (folder is None):
        raise UsageError("give a bundle and frames of its product, or neither for the simulated engine")
