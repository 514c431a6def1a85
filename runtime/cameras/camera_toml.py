"""``camera.toml`` as types: what `asperity camera live` reads. ``docs/cameras.md`` has a table made from this file.

``[camera]`` and ``[live]`` are here; the third table is the source's own and has its name (``SourceKind.options``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from asperity.runtime.cameras.source import Triggers, names
from asperity.runtime.errors import ConfigError
from asperity.runtime.settings.toml_tables import (
    Name,
    Section,
    endpoint_text,
    number,
    path_text,
    read_sections,
    text,
)

DEFAULT_FRAMES = "tcp://127.0.0.1:5560"
DEFAULT_RESULTS = "tcp://127.0.0.1:5561"


class CameraSection(Section, frozen=True, forbid_unknown_fields=True):
    """Who the camera is, and the station it sends to."""

    name: Annotated[Name, text("name of the camera, as in station.toml")] = "cam1"
    station: Annotated[Name, text("station whose triggers are answered")] = "st1"
    frames: Annotated[str, endpoint_text("frames socket of the inspector")] = DEFAULT_FRAMES
    results: Annotated[str, endpoint_text("results socket of the inspector, for its triggers")] = DEFAULT_RESULTS
    key: Annotated[str, path_text("key file of this camera, for a station with CURVE; empty: none")] = ""


class LiveSection(Section, frozen=True, forbid_unknown_fields=True):
    """How exposures become frames of the station."""

    triggers: Annotated[
        Triggers,
        text(
            "as `[station] triggers`: `free_run`: every exposure is sent; `software`: one exposure for each trigger of "
            "the station; `hard_wired`: a sensor fires the camera"
        ),
    ] = "free_run"
    silence_ms: Annotated[
        int,
        number(
            0, 86_400_000,
            "no exposure for this long ends the program with exit code 20; with `software` it is an exposure for each "
            "trigger that is waited for; 0: never; only for `hard_wired`, where parts may pause as long as they like",
        ),
    ] = 5000  # fmt: skip
    late_ms: Annotated[
        int,
        number(
            500, 60_000,
            "what may have waited for longer than this, in the camera or in the program, is not used: an exposure (its "
            "result is LOST) or a trigger (NO_FRAME)",
        ),
    ] = 1000  # fmt: skip
    lost_max: Annotated[
        int, number(1, 4096, "a larger gap in the camera's own count ends the program with exit code 20")
    ] = 64
    inspector_wait_ms: Annotated[int, number(0, 3_600_000, "at start, longest wait for the inspector")] = 10_000


class CameraConfig(NamedTuple):
    """A ``camera.toml`` for one source."""

    camera: CameraSection
    live: LiveSection
    options: Section


def tables(sources: Mapping[str, type[Section]]) -> Any:
    """``camera.toml`` with a table for each of these sources, by name."""
    fields: dict[str, type[Section]] = {"camera": CameraSection, "live": LiveSection, **sources}
    return msgspec.defstruct(
        "CameraToml", [(name, kind, kind()) for name, kind in fields.items()], bases=(Section,), frozen=True,
        forbid_unknown_fields=True,
    )  # fmt: skip


def load(
    source: str,
    options: type[Section],
    path: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> CameraConfig:
    """Read ``camera.toml`` for the source of this name and put ``overrides`` (table -> key -> value) over it.

    Without ``path`` every value is its default. Raises ConfigError naming the key, its value and the remedy.
    """
    others = {
        name: f"[{name}] is for another source than {source}; a camera.toml is of one camera, so give each its file"
        for name in names() if name != source
    }  # fmt: skip
    read = read_sections(tables({source: options}), path, overrides, others)
    if read.live.silence_ms == 0 and read.live.triggers != "hard_wired":
        raise ConfigError(
            f"[live] silence_ms is 0 with triggers = {read.live.triggers!r}: a camera that is gone would not be "
            "noticed; give the longest pause between two exposures"
        )
    return CameraConfig(read.camera, read.live, getattr(read, source))
