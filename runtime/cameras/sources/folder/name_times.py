"""Exposure times in names of files: ``%Y%m%d_%H%M%S_%f`` and numbers of seconds since 1970. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Literal

from asperity.runtime.errors import ConfigError

Zone = Literal["utc", "local"]

_DIGITS = {
    "Y": "[0-9]{4}", "m": "[0-9]{2}", "d": "[0-9]{2}", "H": "[0-9]{2}", "M": "[0-9]{2}", "S": "[0-9]{2}",
    "f": "[0-9]{1,9}", "s": "[0-9]{9,10}", "L": "[0-9]{12,13}", "U": "[0-9]{15,16}",
}  # fmt: skip
DATE = frozenset("YmdHMS")
US_PER_UNIT = {"s": 1_000_000, "L": 1000, "U": 1}


class NameTime:
    """Reads the time of an exposure out of what ``*`` of the pattern stands for."""

    def __init__(self, form: str, zone: Zone) -> None:
        """``form``: the whole name, with ``%Y %m %d %H %M %S %f`` or one of ``%s %L %U``, and ``*`` for any text.

        Raises ConfigError for a form that cannot give a time.
        """
        self.form, self._zone = form, zone
        pieces, used = [], []
        for piece in re.findall(r"%.|[^%]+|%$", form, re.DOTALL):
            if piece[0] != "%":
                pieces.append(".*?".join(re.escape(text) for text in piece.split("*")))
                continue
            kind = piece[1:]
            if kind not in _DIGITS or kind in used:
                raise ConfigError(
                    f"name_time = {form!r}: {piece} is not known or is there twice; use %Y %m %d %H %M %S with %f for "
                    "the fraction of the second, or one of %s (seconds since 1970), %L (ms), %U (us)"
                )
            used.append(kind)
            pieces.append(f"(?P<{kind}>{_DIGITS[kind]})")
        numbers = [kind for kind in used if kind in US_PER_UNIT]
        dated = set(used) >= DATE
        whole = (not numbers and dated) or (len(numbers) == 1 and set(used) <= {numbers[0], "f"})
        if not whole or ("f" in used and "s" not in used and not dated):
            raise ConfigError(
                f"name_time = {form!r} does not give a whole time; use %Y %m %d %H %M %S with %f for the fraction of "
                "the second, or one of %s (seconds since 1970), %L (ms), %U (us)"
            )
        self._rule = re.compile("".join(pieces), re.DOTALL)

    def exposed_us(self, stem: str) -> int | None:
        """Microseconds since 1970; None: the name has no such time, or one that the clock shows twice."""
        match = self._rule.fullmatch(stem)
        if match is None:
            return None
        found = match.groupdict()
        fraction_us = int(found.get("f", "0").ljust(6, "0")[:6])
        for kind, us in US_PER_UNIT.items():
            if kind in found:
                return int(found[kind]) * us + fraction_us
        try:
            moment = datetime(*(int(found[kind]) for kind in "YmdHMS"))  # type: ignore[arg-type]
            known = moment.replace(tzinfo=timezone.utc) if self._zone == "utc" else _local(moment)
        except (ValueError, OverflowError, OSError):
            return None
        if known is None:
            return None
        since = known - datetime(1970, 1, 1, tzinfo=timezone.utc)
        return since // timedelta(microseconds=1) + fraction_us if since > timedelta(0) else None


def _local(moment: datetime) -> datetime | None:
    """None in the hours that a change of daylight saving time shows twice or leaves out."""
    first, second = (moment.replace(fold=fold).astimezone(timezone.utc) for fold in (0, 1))
    return first if first == second else None
