"""Numbers in texts. Python's ``int`` takes digits of every script, blanks and underscores, and raises on long ones."""

from __future__ import annotations

import math
import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def whole_number(text: str) -> int | None:
    """A whole number of up to 18 digits 0 to 9; None: the text is not one."""
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """A finite number written with digits 0 to 9 and a point; None: the text is not one."""
    number = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None
