"""TOML and JSON to values. Nothing is chosen silently: a key that is given twice is refused."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any, TypeVar

import msgspec

from asperity.runtime.text.encoding import TextRefused, decode
from asperity.runtime.text.numbers import number_fault

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["TextRefused", "check_keys", "decode_json", "decode_toml", "keys_twice"]
T = TypeVar("T")
NESTED = "is nested too deeply"


def decode_toml(data: bytes) -> dict[str, Any]:
    """The tables of a TOML file. Raises TextRefused."""
    text = decode(data)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TextRefused(f"is not TOML: {error}{_number_meant(text, str(error))}") from None
    except RecursionError:
        raise TextRefused(f"{NESTED}; a value is one number, text or short list") from None
    except ValueError as error:  # a number with thousands of digits, a date that does not exist
        raise TextRefused(f"holds a value that is out of range: {error}") from None


def _number_meant(text: str, error: str) -> str:
    """What is wrong with the number in the line that an error names, such as ``5mm`` and ``0,02``; empty: no number."""
    at = re.search(r"at line ([0-9]+)", error)
    value = text.split("\n")[int(at[1]) - 1].partition("=")[2].partition("#")[0].strip() if at else ""
    fault = number_fault(value) if re.match(r"[+-]?\.?[0-9]", value) else ""
    return f"; {fault:.200}" if fault else ""


def decode_json(data: bytes, kind: type[T]) -> T:
    """A JSON document as ``kind``. Raises TextRefused; the message quotes keys, no values."""
    text = decode(data)
    try:
        check_keys(text)
        return msgspec.json.decode(text, type=kind)
    except TextRefused:
        raise
    except RecursionError:
        raise TextRefused(NESTED) from None
    except json.JSONDecodeError as error:
        raise TextRefused(f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise TextRefused(f"does not hold what it should: {error}") from None


def check_keys(text: str) -> None:
    """Raises TextRefused for JSON with a key that is given twice: readers differ in which of the two they take.

    Also for ``NaN`` and ``Infinity``. Raises JSONDecodeError, RecursionError where it is not JSON.
    """
    json.loads(text, object_pairs_hook=_each_once, parse_constant=_refuse_constant, parse_int=_unread)


def keys_twice(text: str) -> set[str]:
    """Keys that a JSON object has more than once, those of objects in it not counted. Raises as ``check_keys`` does."""
    pairs = json.loads(text, object_pairs_hook=list, parse_constant=_refuse_constant, parse_int=_unread)
    names = [name for name, _ in pairs] if text.lstrip().startswith("{") else []
    return {name for name, times in Counter(names).items() if times > 1}


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    keys = set()
    for key, _ in pairs:
        if key in keys:
            raise TextRefused(f"has the key {key!a} twice; remove one")
        keys.add(key)


def _refuse_constant(name: str) -> None:
    raise TextRefused(f"holds {name}, which is not a number in JSON")


def _unread(digits: str) -> None:
    """msgspec reads the number, and knows the range it must lie in."""
