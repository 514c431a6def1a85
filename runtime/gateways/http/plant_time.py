"""Times for people, in the plant's time zone; machines get UTC."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo
from zoneinfo import ZoneInfo

from asperity.runtime.errors import ConfigError


def zone_of(name: str) -> tzinfo | None:
    """The zone of ``[http] time_zone``; None, for an empty name: this computer's. Raises ConfigError."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # KeyError: there is none of that name, or no list of zones at all
        raise ConfigError(
            f"[http] time_zone is {name!r}, which this computer does not know; use a name such as Europe/Berlin. "
            "If the name is right, install the list of zones: sudo apt install tzdata, or pip install tzdata"
        ) from error


def shown_time(t_us: int, zone: tzinfo | None, *, ms: bool = True) -> str:
    """With the zone's abbreviation, by which the hour that comes twice in autumn is two."""
    try:
        local = datetime.fromtimestamp(t_us / 1e6, tz=timezone.utc).astimezone(zone)
        fraction = f".{local.microsecond // 1000:03d}" if ms else ""
        return f"{local:%Y-%m-%d %H:%M:%S}{fraction} {local:%Z}"
    except (ValueError, OverflowError, OSError):
        return f"{t_us} us"  # a clock beyond the calendar's end
