"""``[folder]`` of ``camera.toml``, and what follows from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asperity.runtime.cameras.files.grouping import Pattern
from asperity.runtime.cameras.files.intrinsics import read_intrinsics
from asperity.runtime.cameras.files.read import COLOUR_SUFFIXES, POINTS_SUFFIXES, FileOptions
from asperity.runtime.cameras.source import Triggers
from asperity.runtime.cameras.sources.folder.arrivals import Rules
from asperity.runtime.cameras.sources.folder.name_times import NameTime, Zone
from asperity.runtime.clock import MS
from asperity.runtime.errors import ConfigError, DataError, UsageError
from asperity.runtime.frame import MAX_SIDE_PX, Clock
from asperity.runtime.settings.toml_tables import Section, number, path_text, text
from asperity.runtime.vision.missing_points import parse_invalid

SENSOR_MAX = 64
INTRINSICS = "intrinsics.json"


class FolderSection(Section, frozen=True, forbid_unknown_fields=True):
    """A folder in which the camera's own program puts its files."""

    path: Annotated[str, path_text("the folder; required")] = ""
    points: Annotated[
        str, text("name of the file with points or depth, below the folder; `*` is what names the exposure")
    ] = "*.ply"
    colour: Annotated[
        str, text("name of the colour picture of the same exposure, with the same `*`; empty: it is in the first file")
    ] = ""
    order: Annotated[
        Literal["name", "time"],
        text("`name`: by what `*` stands for, numbers as numbers; `time`: as they are found in the folder"),
    ] = "name"
    complete: Annotated[
        Literal["stable", "renamed", "marker"],
        text(
            "when a file is whole: `stable`: size and time did not change for stable_ms; `renamed`: it appears under "
            "its name when it is; `marker`: when there is a file with `marker` added to the name"
        ),
    ] = "stable"
    stable_ms: Annotated[int, number(10, 60_000, "see `complete`")] = 300
    settle_ms: Annotated[
        int, number(100, 600_000, "a file that is damaged or whose other half is missing is waited for this long")
    ] = 2000
    marker: Annotated[str, text("ending of markers, added to `*` or to the name of every file")] = ".done"
    before: Annotated[
        Literal["skip", "take"],
        text("what is in the folder at the start: `skip`: left out; `take`: taken, except what was taken before"),
    ] = "skip"
    after: Annotated[
        Literal["keep", "move", "delete"], text("what happens to files that were taken; before they are sent")
    ] = "keep"
    move_to: Annotated[
        str, path_text("where they are moved to, on the same disk; empty: `taken` in the folder")
    ] = ""
    overwritten: Annotated[
        bool, text("the program writes the same name again and again; only with one file per exposure")
    ] = False
    max_age_ms: Annotated[
        int, number(0, 86_400_000, "an older exposure is left out, because its part is gone; 0: of any age")
    ] = 5000
    poll_ms: Annotated[int, number(1, 10_000, "time between two looks into the folder")] = 50
    files_max: Annotated[int, number(10, 1_000_000, "more files in the folder end the program")] = 100_000
    file_max_mb: Annotated[int, number(1, 4096, "a larger file is left out")] = 512
    name_time: Annotated[
        str,
        text(
            "exposure time in what `*` stands for: `%Y%m%d_%H%M%S_%f`, or seconds `%s`, ms `%L`, us `%U` since 1970, "
            "and `*` for other text; empty: no exposure times"
        ),
    ] = ""
    name_time_zone: Annotated[Zone, text("of dates in names")] = "utc"
    clock: Annotated[
        Clock, text("clock of these times; `realtime` only if it is this computer's, `ptp` of one synchronised with it")
    ] = "device"
    sensor: Annotated[str, text("model and serial number of the camera, in every frame")] = ""
    unit: Annotated[Literal["", "m", "mm", "um"], text("of the stored lengths; empty: as the files or recipe say")] = ""
    scale: Annotated[float, number(0, 1e9, "stored value times this is in `unit`; 0: as the files say, else 1")] = 0.0
    invalid: Annotated[
        str, text("what is stored for a missing point: z, or `x,y,z` with `*` for any; several separated by blanks")
    ] = ""
    intrinsics: Annotated[
        str, path_text("lens of depth pictures; empty: `intrinsics.json` in the folder, if there is one")
    ] = ""
    white_level: Annotated[
        int, number(0, 65_535, "of pictures with more than 8 bits: the value that becomes 255; 0: they are refused")
    ] = 0
    rows: Annotated[int, number(0, MAX_SIDE_PX, "of clouds whose files do not say it; 0: they say it")] = 0
    columns: Annotated[int, number(0, MAX_SIDE_PX, "as `rows`")] = 0
    resample: Annotated[bool, text("reduce a colour picture of a multiple of the points' size to it")] = True
    record: Annotated[
        str, path_text("file that remembers what was taken; empty: one per folder in the user's state folder")
    ] = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """``FolderSection``, checked."""

    path: Path
    folders: tuple[str, ...]
    """Those with files, relative to ``path``."""
    rules: Rules
    files: FileOptions
    times: NameTime | None
    clock: Clock
    sensor: str
    take: bool
    move_to: Path | None
    delete: bool
    record: Path | None
    poll_ms: int
    files_max: int


def settings_of(options: FolderSection, triggers: Triggers) -> Settings:
    """Raises ConfigError."""
    if not options.path:
        raise ConfigError("[folder] path is missing; set it to the folder in which the camera's program puts its files")
    path = Path(os.path.realpath(options.path))
    try:
        pattern = Pattern(options.points, options.colour)
    except DataError as error:
        raise ConfigError(f"[folder] {error}") from None
    _check(options, triggers)
    folders = {name.rpartition("/")[0] for name in (options.points, options.colour) if name}
    move_to = Path(os.path.realpath(options.move_to or path / "taken")) if options.after == "move" else None
    if move_to is not None:
        _check_target(path, folders, move_to)
    if options.after != "keep":
        _check_writable(options.after, {path / folder for folder in folders})
    return Settings(
        path=path,
        folders=tuple(folders),
        rules=Rules(
            pattern,
            order=options.order,
            complete=options.complete,
            marker=options.marker,
            stable_ns=options.stable_ms * MS,
            settle_ns=options.settle_ms * MS,
            max_age_ns=options.max_age_ms * MS,
            max_nbytes=options.file_max_mb * 2**20,
            overwritten=options.overwritten,
        ),
        files=_file_options(options, path),
        times=NameTime(options.name_time, options.name_time_zone) if options.name_time else None,
        clock=options.clock,
        sensor=options.sensor or f"folder {path.name}".encode("ascii", "replace").decode()[:SENSOR_MAX],
        take=options.before == "take",
        move_to=move_to,
        delete=options.after == "delete",
        record=Path(os.path.realpath(options.record)) if options.record else None,
        poll_ms=options.poll_ms,
        files_max=options.files_max,
    )


def _check(options: FolderSection, triggers: Triggers) -> None:
    if triggers == "software":
        raise ConfigError(
            "[live] triggers = software: a folder cannot expose, the camera's own program does; set free_run"
        )
    if triggers == "hard_wired" and not options.name_time:
        raise ConfigError(
            "[live] triggers = hard_wired needs exposure times: have the program put them into the names of its files "
            "and set [folder] name_time, or set free_run"
        )
    if options.settle_ms <= options.stable_ms:
        raise ConfigError(
            f"[folder] settle_ms = {options.settle_ms} must be above stable_ms = {options.stable_ms}, or every file "
            "is given up before it is complete"
        )
    if options.overwritten and (options.colour or options.order == "name" or options.complete == "marker"):
        raise ConfigError(
            "[folder] overwritten = true needs order = time, no marker and one file per exposure (colour empty): "
            "from two files that are overwritten, colour and points of two exposures could be mixed"
        )
    suffix = options.marker.lower()
    if options.complete == "marker" and (not suffix or "/" in suffix or suffix in POINTS_SUFFIXES + COLOUR_SUFFIXES):
        raise ConfigError(f"[folder] marker = {options.marker!r} is not the ending of a marker; set one such as .done")
    sensor = options.sensor
    if not (sensor.isascii() and sensor.isprintable() and len(sensor) <= SENSOR_MAX and sensor == sensor.strip()):
        raise ConfigError(
            f"[folder] sensor = {sensor!r}: use at most {SENSOR_MAX} printable letters of ASCII, no blank at the ends"
        )
    if (options.rows == 0) != (options.columns == 0):
        raise ConfigError("[folder] rows and columns are given together, or neither")


def _check_target(path: Path, folders: set[str], move_to: Path) -> None:
    if move_to in {path / folder for folder in folders} | {path}:
        raise ConfigError(f"[folder] move_to = {move_to} is a folder in which files are looked for; name another one")
    there = next(each for each in (move_to, *move_to.parents) if each.is_dir())
    try:
        same = there.stat().st_dev == path.stat().st_dev
    except OSError:
        return  # the folder is missing, which is said where it is opened
    if not same:
        raise ConfigError(
            f"[folder] move_to = {move_to} is not on the disk of {path}, so files cannot be moved in one step; name a "
            "folder on the same disk"
        )
    _check_writable("move", {there})


def _check_writable(after: str, folders: set[Path]) -> None:
    for folder in sorted(folders):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(
                f"[folder] after = {after}: this program may not write in {folder}; allow its user to (a service needs "
                "ReadWritePaths= too, docs/service.md), or set after = keep"
            )


def _file_options(options: FolderSection, path: Path) -> FileOptions:
    intrinsics = Path(options.intrinsics) if options.intrinsics else None
    if intrinsics is None and (path / INTRINSICS).is_file():
        intrinsics = path / INTRINSICS
    try:
        if intrinsics is not None:
            read_intrinsics(intrinsics)  # once now, so that a mistake in it does not refuse every exposure
        invalid = parse_invalid(options.invalid.split() or None, several="a blank between several values") or ()
    except DataError as error:
        raise ConfigError(f"[folder] intrinsics: {error}") from None
    except UsageError as error:
        raise ConfigError(f"[folder] {str(error).removeprefix('--')}") from None
    return FileOptions(
        unit=options.unit or None,
        scale=options.scale or None,
        invalid=invalid,
        intrinsics=intrinsics,
        white_level=options.white_level,
        size_px=(options.rows, options.columns) if options.rows else None,
        resample=options.resample,
    )
