"""Checks between keys of ``station.toml``; the range of each single key is in its type."""

from __future__ import annotations

import logging

from asperity.runtime.errors import ConfigError
from asperity.runtime.manifest import Geometry
from asperity.runtime.settings.combined_stations import check_combined
from asperity.runtime.settings.paths import journal_path
from asperity.runtime.settings.station_toml import STATIONS_MAX, StationConfig, StationSection, hosted
from asperity.runtime.wire import MAX_HEADER_BYTES

LOG = logging.getLogger(__name__)

FRAME_NBYTES = {"frames_max_nbytes": (3, 12, 0), "frames_message_nbytes": (5, 15, 2 * MAX_HEADER_BYTES)}
"""Of a frame's largest part, and of its whole message: bytes per pixel at least (colour u1, depth u2), and with xyz;
room for topic and header."""


def check(config: StationConfig, where: str) -> None:
    """Raises ConfigError on what one field alone cannot say."""
    sockets = config.sockets
    if sockets.heartbeat_timeout_ms < sockets.heartbeat_ms:
        raise ConfigError(
            f"{where}: [sockets] heartbeat_timeout_ms is {sockets.heartbeat_timeout_ms}, below heartbeat_ms "
            f"({sockets.heartbeat_ms}); set it to 2 or 3 times that"
        )
    if sockets.frames_waiting_nbytes < sockets.frames_message_nbytes:
        raise ConfigError(
            f"{where}: [sockets] frames_waiting_nbytes is {sockets.frames_waiting_nbytes}, below frames_message_nbytes "
            f"({sockets.frames_message_nbytes}); set it to 2 times that or more"
        )
    in_work = config.limits.queue_length + config.triggers.pending_max + config.limits.seq_gap_max
    if config.journal.slots < 4 * in_work:
        raise ConfigError(
            f"{where}: [journal] slots is {config.journal.slots}, fewer than 4 x the {in_work} results that "
            "queue_length, pending_max and seq_gap_max allow to be pending; leave it at 4096"
        )
    for each in hosted(config):
        if each.station.triggers == "hard_wired":
            _check_hard_wired(each, where)
        if each.station.recipe and each.station.recipe not in config.recipes:
            known = ", ".join(config.recipes) or "none"
            table = "[[stations]]" if config.stations else "[station]"
            raise ConfigError(f"{where}: {table} recipe is {each.station.recipe!r}; available in [recipes]: {known}")
    if config.stations:
        _check_stations(config, where)
    check_combined(config, where)
    engine, limits = config.engine, config.limits
    if engine.name == "cuda" and 2 * engine.device_wait_ms >= limits.engine_stuck_ms:
        raise ConfigError(
            f"{where}: [engine] device_wait_ms is {engine.device_wait_ms}; twice that must be below [limits] "
            f"engine_stuck_ms ({limits.engine_stuck_ms}), or a GPU that hangs is mistaken for an engine that is stuck"
        )


def check_recipe(recipe: str, geometry: Geometry, config: StationConfig) -> None:
    """That frames of the recipe's size can come in through ``[sockets]``. Raises ConfigError where none can.

    A camera that sends depth needs less than one that sends xyz, so where only the latter is refused, the log says so.
    """
    pixels, size = geometry.height_px * geometry.width_px, f"{geometry.height_px} x {geometry.width_px} pixels"
    for key, (least, xyz, room) in FRAME_NBYTES.items():
        allowed = getattr(config.sockets, key)
        told = f"[sockets] {key} is {allowed}, and frames of recipe {recipe} ({size}) have"
        remedy = f"set it to {xyz * pixels + room} or more, or leave it out"
        if allowed < least * pixels:
            raise ConfigError(f"{told} at least {least * pixels}, so every one would be refused; {remedy}")
        if allowed < xyz * pixels:
            LOG.warning("%s %s as xyz: only frames with depth will be received; %s", told, xyz * pixels, remedy)


def _check_hard_wired(config: StationConfig, where: str) -> None:
    """That an exposure can lie in the window of one part only, and that a verdict can wait for its part."""
    wired, station = config.hard_wired, config.station.name
    window_ms = wired.early_ms + wired.late_ms + 2 * wired.tolerance_ms
    if window_ms >= wired.pitch_min_ms:
        raise ConfigError(
            f"{where}: station {station} has hard-wired triggers, and [hard_wired] pitch_min_ms is "
            f"{wired.pitch_min_ms}, not above early_ms + late_ms + 2 tolerance_ms ({window_ms}); measure the least "
            "time between two parts and set it, announce parts more punctually, or give software triggers"
        )
    if wired.arrival_max_ms >= wired.pitch_min_ms:
        raise ConfigError(
            f"{where}: [hard_wired] arrival_max_ms is {wired.arrival_max_ms}, not below pitch_min_ms "
            f"({wired.pitch_min_ms}): if the camera's clock went back by a pitch, each part would be given the next "
            "one's picture; send smaller pictures or over a faster link, or give software triggers"
        )
    if wired.arrival_max_ms > config.limits.max_age_ms:
        raise ConfigError(
            f"{where}: [hard_wired] arrival_max_ms is {wired.arrival_max_ms}, above [limits] max_age_ms "
            f"({config.limits.max_age_ms}), after which a frame is STALE; raise max_age_ms to it"
        )
    settled_ms = wired.early_ms + max(wired.arrival_max_ms, wired.late_ms) + wired.late_ms + 3 * wired.tolerance_ms
    if settled_ms >= config.limits.deadline_ms:
        raise ConfigError(
            f"{where}: station {station}: which part an exposure belongs to may be known only after {settled_ms} ms "
            "([hard_wired] early_ms + late_ms + 3 tolerance_ms, and the larger of arrival_max_ms and late_ms); "
            f"[limits] deadline_ms is {config.limits.deadline_ms}; raise it above that"
        )


def _check_stations(config: StationConfig, where: str) -> None:
    """That no two stations of the process have in common what makes them two."""
    if config.station != StationSection():
        raise ConfigError(
            f"{where}: [station] (and --station, --camera, --autostart) applies to a process with one station, but "
            "there are [[stations]]; move its keys into these"
        )
    if config.journal.path:
        raise ConfigError(
            f"{where}: [journal] path (and --journal) names the single file {config.journal.path}, but there are "
            "[[stations]]; give each of them a journal, or none: then it is named after the station"
        )
    if len(config.stations) > STATIONS_MAX:
        raise ConfigError(
            f"{where}: there are {len(config.stations)} [[stations]], but one process hosts at most {STATIONS_MAX}; "
            "run the others in another process"
        )
    taken: dict[tuple[str, str | int], int] = {}
    for at, each in enumerate(hosted(config), start=1):
        station = each.station
        marks: dict[str, str | int] = {"name": station.name, "number": station.number, "camera": station.camera}
        for key, value in {**marks, "journal": str(journal_path(each))}.items():
            other = taken.setdefault((key, value), at)
            if other != at:
                raise ConfigError(
                    f"{where}: [[stations]] no. {other} and no. {at} both have {key} {value!r}; give each its own {key}"
                )
