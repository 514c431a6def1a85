"""A simulated station whose triggers are hard-wired."""

from __future__ import annotations

from msgspec.structs import replace

from asperity.runtime.settings.station_toml import HardWired, StationConfig

WIRED = HardWired(early_ms=100, late_ms=300, arrival_max_ms=200, tolerance_ms=20, pitch_min_ms=500, quiet_ms=1600)
"""Wide windows: a busy computer is not a line."""
DEADLINE_MS = 1000
REST_SLACK_MS = 200


def wired(config: StationConfig) -> StationConfig:
    """The same station with hard-wired triggers."""
    limits = replace(config.limits, deadline_ms=max(config.limits.deadline_ms, DEADLINE_MS))
    stations = [replace(each, triggers="hard_wired", hard_wired=None) for each in config.stations]
    station = config.station if stations else replace(config.station, triggers="hard_wired")
    return replace(config, station=station, stations=stations, hard_wired=WIRED, limits=limits)
