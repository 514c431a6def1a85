"""``station.toml`` read: flags of ``asperity run`` override it, and relative paths are relative to the file.

An unknown key or a value out of range raises ConfigError with the key, the value and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from asperity.runtime.errors import ConfigError
from asperity.runtime.settings.cross_checks import check
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.settings.toml_tables import read_sections, where_of


def load(path: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> StationConfig:
    """Read ``station.toml`` and put ``overrides`` (section -> key -> value, from flags) over it.

    Without ``path`` every value is its default. Relative paths in it are relative to the file. Raises ConfigError.
    """
    config = read_sections(StationConfig, path, overrides)
    check(config, where_of(path))
    return config


def save(config: StationConfig) -> bytes:
    """The whole configuration as JSON, for another process of this program."""
    return msgspec.json.encode(config)


def restore(data: bytes) -> StationConfig:
    """Read what ``save`` wrote. Raises ConfigError."""
    try:
        return msgspec.json.decode(data, type=StationConfig)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"the configuration passed to this process cannot be read: {error}") from error
