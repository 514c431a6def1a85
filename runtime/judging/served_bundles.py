"""The newest bundle of each recipe that a station has served: an older one does not come back unnoticed.

A bundle that was replaced stays signed forever: with an old copy a station would judge parts as before,
and nothing would look wrong. So a small file next to the journal holds, for each recipe, when the newest bundle that
was served had been made (``created_us`` of its signed manifest). An older one opens only with ``[engine]
allow_older``, and then every state says so.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import msgspec

from asperity.runtime.errors import BundleError, JournalError
from asperity.runtime.files import OTHERS_MAY_WRITE, make_folder, read_file, write_whole
from asperity.runtime.manifest import LATEST_US, Manifest
from asperity.runtime.records.journal_files import IDS_SUFFIX
from asperity.runtime.settings.paths import journal_path
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.settings.toml_tables import Name
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json

MAX_NBYTES = 256 * 1024
RECIPES_MAX = 1024
"""Recipes that are remembered; beyond it, those whose bundles are the oldest are forgotten."""
ON_REQUEST = "to open it anyway, start with `asperity run --allow-older` or [engine] allow_older = true"


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    station: Name
    newest_us: dict[Name, Annotated[int, msgspec.Meta(ge=0, lt=LATEST_US)]] = msgspec.field(default_factory=dict)
    """``created_us`` of the newest bundle served, by recipe."""


def served_path(config: StationConfig) -> Path:
    """Path of the station's file."""
    return journal_path(config).with_name(f"{config.station.name}.served.json")


def begin(config: StationConfig) -> None:
    """Make an empty memory at a station's first start, before its journal is made. Raises JournalError.

    From then on it must be there. It lies in the journal's folder: where it cannot be written the journal cannot, and
    no bundle is at fault.
    """
    if not os.path.lexists(served_path(config)) and not _has_begun(config):
        try:
            _write(config, Memory(config.station.name))
        except BundleError as error:
            raise JournalError(str(error)) from error.__cause__


def check_age(manifest: Manifest, config: StationConfig) -> str:
    """Warning about a bundle that opens only because ``allow_older`` is set; empty: it opens anyway.

    Raises BundleError for a bundle older than the newest served, and where the memory cannot tell.
    """
    try:
        newest_us = _read(config).newest_us.get(manifest.recipe, 0)
    except BundleError as error:
        if not config.engine.allow_older:
            raise
        return f"it is unknown whether a newer one was served: {error}"
    if manifest.created_us >= newest_us:
        return ""
    told = (
        f"the bundle of recipe {manifest.recipe} was made {_date(manifest.created_us)} and is older than the newest "
        f"one that station {config.station.name} has served, made {_date(newest_us)}"
    )
    if not config.engine.allow_older:
        raise BundleError(f"{told}; use the newer one, or {ON_REQUEST}")
    return told


def remember(manifest: Manifest, config: StationConfig) -> None:
    """The station serves this bundle. Raises BundleError where that cannot be kept."""
    try:
        memory = _read(config)
    except BundleError:
        if not config.engine.allow_older:
            raise
        memory = Memory(config.station.name)
    if manifest.created_us <= memory.newest_us.get(manifest.recipe, 0):
        return
    newest = sorted({**memory.newest_us, manifest.recipe: manifest.created_us}.items(), key=lambda pair: pair[1])
    _write(config, Memory(config.station.name, dict(newest[-RECIPES_MAX:])))


def _has_begun(config: StationConfig) -> bool:
    path = journal_path(config)
    return os.path.lexists(path.with_name(path.name + IDS_SUFFIX))


def _read(config: StationConfig) -> Memory:
    path = served_path(config)
    advice = f"restore it, or, if no newer bundle can have been served: {ON_REQUEST} (the file is then written again)"
    try:
        memory = decode_json(read_file(path, MAX_NBYTES, forbidden=OTHERS_MAY_WRITE), Memory)
    except FileNotFoundError:
        if not _has_begun(config):
            return Memory(config.station.name)
        raise BundleError(
            f"{path}, which records the newest bundles that were served, is missing although the station has run "
            f"before; {advice}"
        ) from None
    except OSError as error:
        raise BundleError(
            f"{path}, which records the newest bundles that were served, cannot be read ({error.strerror}); {advice}"
        ) from None
    except TextRefused as error:
        raise BundleError(
            f"{path}, which records the newest bundles that were served, is damaged ({error}); {advice}"
        ) from None
    if memory.station != config.station.name:
        raise BundleError(f"{path} belongs to station {memory.station}, not {config.station.name}; {advice}")
    return memory


def _write(config: StationConfig, memory: Memory) -> None:
    path = served_path(config)
    try:
        make_folder(path.parent)
        write_whole(path, msgspec.json.format(msgspec.json.encode(memory), indent=1) + b"\n")
    except OSError as error:
        raise BundleError(
            f"{path}, which records the newest bundles that were served, cannot be written ({error.strerror}); free "
            "some space, make the folder writable, or set [journal] path"
        ) from error


def _date(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1e6, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
