"""Numbers in texts. Python's ``int`` takes digits of every script, blanks and underscores, and raises on long ones."""

from __future__ import annotations

import math
import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_WITH_UNIT = re.compile(r"([+-]?[0-9.]+) ?[^\W\d_]+(/[^\W\d_]+)?")
_POINT_ZERO = re.compile(r"(?<=[0-9])\.0\Z")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def whole_number(text: str) -> int | None:
    """A whole number of up to 18 digits 0 to 9; None: the text is not one."""
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """A finite number written with digits 0 to 9 and a point; None: the text is not one."""
    number = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def number_fault(text: str, *, whole: bool = False) -> str:
    """Why a text is not a number that can be used, with the remedy; empty: it is one, a whole one also as ``2.0``."""
    if (whole_number(_POINT_ZERO.sub("", text)) if whole else decimal_number(text)) is not None:
        return ""
    return f"{text!r} is not a {'whole ' if whole else ''}number that can be used; {_remedy(text, whole)}"


def _remedy(text: str, whole: bool) -> str:
    if _DECIMAL.fullmatch(text) and not whole:
        return "it is too large"
    if re.fullmatch("[0-9]{19,}", text):
        return "write at most 18 digits"
    if "," in text:
        return f"write {'digits only' if whole else 'a decimal point'}, and nothing between thousands"
    if text.endswith("%") and not whole and (percent := decimal_number(text[:-1])) is not None:
        return f"write the share itself, {percent / 100:g}"
    unit = _WITH_UNIT.fullmatch(text)
    return f"write {unit[1]} alone, without a unit" if unit else "write it with digits 0 to 9"
