"""Paths and endpoints that follow from ``station.toml`` where it names none."""

from __future__ import annotations

from pathlib import Path

from asperity.runtime.folders import cache_folder, runtime_folder, state_folder
from asperity.runtime.settings.station_toml import StationConfig


def journal_path(config: StationConfig) -> Path:
    """Path of the station's journal."""
    if config.journal.path:
        return Path(config.journal.path)
    return state_folder("[journal] path") / f"{config.station.name}.journal"


def trace_path(config: StationConfig) -> Path:
    """Where the station's slowest frames are written."""
    if config.trace.folder:
        return Path(config.trace.folder) / f"{config.station.name}.trace.json"
    return journal_path(config).with_name(f"{config.station.name}.trace.json")


def audit_path(config: StationConfig) -> Path:
    """Where the process's audit file is written; ``config``: of its first station."""
    if config.audit.path:
        return Path(config.audit.path)
    return journal_path(config).with_name(f"{config.station.name}.audit.jsonl")


def engine_cache(config: StationConfig) -> Path:
    """Folder of the networks built for this machine's GPU."""
    if config.engine.cache:
        return Path(config.engine.cache)
    return cache_folder("[engine] cache") / "engines"


def control_endpoint(station: str, configured: str = "") -> str:
    """The control socket's endpoint: ``configured``, or the one in this user's runtime folder that clients try too."""
    if configured:
        return configured
    return f"ipc://{runtime_folder() / station}.control"
