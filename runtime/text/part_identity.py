"""What a plant calls a part: its id, and the lot, order and shift it belongs to. The one rule of what they may hold.

They cross every protocol, lie in the journal and are shown to people, so what could end a line, move a cursor or turn
the direction of writing is refused where it enters. A GS1 element string keeps its separator.
"""

from __future__ import annotations

import re
from typing import NamedTuple

GROUP_SEPARATOR = "\x1d"
"""Char 29, which ends an element of variable length in a GS1 code (FNC1 as readers transmit it)."""
PART_ID_MAX_NBYTES = 256
PART_ID_MAX_JSON_NBYTES = 512
"""In JSON, where ``"`` and ``\\`` take two bytes and a group separator six: a result must fit its 2 KiB."""
BATCH_TEXT_MAX_NBYTES = 64

# C1 controls, line and paragraph separators, what nobody sees or turns the direction of writing, non-characters.
FORBIDDEN = r"\u007f-\u009f\u00ad\u2028\u2029\u200b-\u200f\u061c\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff"
"""As the inside of a regular expression's brackets, in Python and in ECMA 262; beside them C0 controls, surrogates."""
_FORBIDDEN = re.compile(rf"[\u0000-\u001f\ud800-\udfff{FORBIDDEN}]")


class Batch(NamedTuple):
    """What several parts have in common."""

    lot: str = ""
    order: str = ""
    shift: str = ""


NO_BATCH = Batch()


def part_id_fault(text: str) -> str:
    """Why this cannot be a part's id, with the remedy; empty: it can."""
    fault = _fault(text.replace(GROUP_SEPARATOR, ""), "only the group separator U+001D may be in a part id")
    if fault:
        return fault
    nbytes = len(text.encode())
    if nbytes > PART_ID_MAX_NBYTES:
        return f"it has {nbytes} bytes of UTF-8; shorten it to at most {PART_ID_MAX_NBYTES}"
    in_json = nbytes + text.count('"') + text.count("\\") + 5 * text.count(GROUP_SEPARATOR)
    if in_json > PART_ID_MAX_JSON_NBYTES:
        most = PART_ID_MAX_JSON_NBYTES
        return f"it has {in_json} bytes in JSON, where a group separator takes 6; shorten it to at most {most}"
    return ""


def batch_text_fault(text: str) -> str:
    """Why this cannot be a lot, order or shift, with the remedy; empty: it can."""
    fault = _fault(text, "write it without")
    if fault:
        return fault
    nbytes, most = len(text.encode()), BATCH_TEXT_MAX_NBYTES
    return f"it has {nbytes} bytes of UTF-8; shorten it to at most {most}" if nbytes > most else ""


def shown_id(part_id: str) -> str:
    """A part's id for people: a group separator as the sign that Unicode has for it."""
    return part_id.replace(GROUP_SEPARATOR, "\u241d")


def _fault(text: str, remedy: str) -> str:
    found = _FORBIDDEN.search(text)
    if found is None:
        return ""
    letter = ord(found[0])
    what = "half a surrogate pair" if 0xD800 <= letter <= 0xDFFF else "a character that is not seen"
    return f"it holds U+{letter:04X}, {what}; {remedy}"
