"""`asperity camera live`: a real camera, found by its source's name in the entry-point group ``asperity.cameras``."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from asperity.runtime.commands.gateway import Format, LogFormat
from asperity.runtime.commands.progress import progress_bar
from asperity.runtime.errors import CameraError, CameraLostError, SourceEnded, UsageError, first_line
from asperity.runtime.files import shown
from asperity.runtime.process import early_signals
from asperity.runtime.process.end_limit import EndLimit
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_toml

if TYPE_CHECKING:
    from asperity.runtime.cameras.camera_toml import CameraConfig
    from asperity.runtime.cameras.source import Source, SourceKind
    from asperity.runtime.settings.toml_tables import Section

log = logging.getLogger("asperity.camera")

END_S = 5.0
"""Longest that a driver may take to return, once the process was asked to stop or its camera is lost."""

SourceName = Annotated[str, typer.Argument(help="Camera source, as `asperity camera list` shows it.", metavar="SOURCE")]
Config = Annotated[
    Path | None, typer.Option(help="camera.toml: tables [camera], [live] and one named after the source.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of camera.toml, as KEY=VALUE (of the source) or TABLE.KEY=VALUE; "
                 "repeatable."),
]  # fmt: skip
Frames = Annotated[int, typer.Option(help="Stop after this many frames; 0: never.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def live(
    source: SourceName,
    config: Config = None,
    settings: Settings = None,
    frames: Frames = 0,
    write: Annotated[
        Path | None,
        typer.Option(help="Send nothing: record normal frames in this folder, for `asperity calibrate`."),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(help="With --write: a frame every so many seconds, 0: each exposure; default: on Enter."),
    ] = None,
    parts: Annotated[
        int, typer.Option(help="With --write: this many frames in a row are of one part (parts.csv); 0: not said.")
    ] = 0,
    fills_view: Annotated[
        bool, typer.Option("--fills-view", help="With --write: the material fills the view; do not look for a part.")
    ] = False,
    log_format: Format = LogFormat.TEXT,
    as_json: Json = False,
) -> None:
    """Send the exposures of a real camera to an inspector, or record them.

    It ends with exit code 20 when the camera is lost, silent or changed, so that its service starts it again.
    """
    from asperity.runtime.cameras.live import LiveLoop
    from asperity.runtime.client.frame_sender import FrameSender
    from asperity.runtime.client.presence import nobody_at
    from asperity.runtime.process.systemd import Supervision

    if frames < 0:
        raise UsageError(f"--frames {frames} is out of range; give 1 or more, or 0 for no limit")
    if write is None and (every is not None or parts or fills_view):
        raise UsageError("--every, --parts and --fills-view are for recording; give --write FOLDER too")
    with ExitStack() as stack:
        limit = stack.enter_context(EndLimit(END_S))
        found = read_settings(source, config, settings)
        begin_log(log_format)
        if write is not None:
            from asperity.runtime.commands.record_camera import Wanted, record

            wanted = Wanted(write, frames, every, parts, fills_view, found.config.live.triggers)
            record(stack.enter_context(open_camera(found, limit)), found.config.live, wanted, as_json)
            return
        camera, supervision = found.config.camera, Supervision()
        sender = stack.enter_context(
            FrameSender(
                camera.name, camera.frames, station=camera.station,
                results_endpoint=camera.results if found.config.live.triggers == "software" else "",
                key=Path(camera.key) if camera.key else None,
            )
        )  # fmt: skip
        opened = stack.enter_context(open_camera(found, limit))
        stack.callback(supervision.stopping)
        loop = LiveLoop(opened, sender, found.config.live, supervision)
        stack.enter_context(suppress(SourceEnded))  # at the end of a recording: what was done is said below
        supervision.ready()
        log.info("%s is open and waits for an inspector at %s", opened.sensor, camera.frames)
        if not loop.wait_inspector():
            nobody = nobody_at(camera.frames, "[camera] frames")
            raise CameraError(
                f"no inspector accepted frames at {camera.frames} within {found.config.live.inspector_wait_ms} ms; "
                "start `asperity run` first" + (f": {nobody}" if nobody else "")
                + (", or look in its log why this key was refused" if camera.key else "")
            )
        log.info("%s sends to %s as camera %s", opened.sensor, camera.frames, camera.name)
        bar = progress_bar(f"sending from {opened.sensor}", frames or None) if sys.stderr.isatty() else None
        step = stack.enter_context(bar or nullcontext(lambda: None))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # until now it ended the process with 143
        with suppress(KeyboardInterrupt):  # stopped on request: what was done is said below
            if not early_signals.told():
                loop.run(frames or None, step)
    done = loop.summary
    report = {
        "exposures": done.exposures, "sent": done.sent, "missed": done.missed, "dropped": done.dropped,
        "late": done.late, "unanswered": done.unanswered,
    }  # fmt: skip
    typer.echo(
        json.dumps(report) if as_json else
        f"{done.sent} frames sent of {done.exposures} exposures: {done.missed} missed by the camera, {done.dropped} "
        f"not taken by the station, {done.late} too late; {done.unanswered} triggers not answered"
    )  # fmt: skip


class Chosen(NamedTuple):
    """A source and what ``camera.toml`` says to it."""

    name: str
    kind: SourceKind
    config: CameraConfig


def read_settings(source: str, config: Path | None, settings: Sequence[str] | None) -> Chosen:
    """The source, and ``camera.toml`` with ``--set`` over it. Raises UsageError, CameraError, ConfigError."""
    from asperity.runtime.cameras.camera_toml import CameraSection, LiveSection
    from asperity.runtime.cameras.camera_toml import load as load_config
    from asperity.runtime.cameras.source import load

    kind = load(source)
    given = overrides(source, settings or (), {"camera": CameraSection, "live": LiveSection, source: kind.options})
    return Chosen(source, kind, load_config(source, kind.options, config, given))


@contextmanager
def open_camera(chosen: Chosen, limit: EndLimit) -> Iterator[Source]:
    """An open camera, closed at the end. A lost one may not return from that: then ``limit`` ends the process."""
    from asperity.runtime.cameras.source import open_source

    opened = open_source(chosen.name, chosen.kind, chosen.config.options, chosen.config.live.triggers)
    try:
        yield opened
    except CameraLostError as error:
        limit.start(error.exit_code, shown(error))
        raise
    finally:
        try:
            opened.close()
        except Exception as error:  # noqa: BLE001 - another package's source may raise anything
            log.warning("the camera was not closed: %s: %s", type(error).__name__, first_line(error))


def begin_log(log_format: LogFormat) -> None:
    """Log to stderr, each kind of line at most once in some seconds."""
    from asperity.runtime.settings import log_lines
    from asperity.runtime.settings.station_toml import Log

    settings = Log(format=log_format.value)
    log_lines.begin(settings, log_lines.Rate(log_lines.Repeats(settings.repeat_ms, settings.kinds_max)))


def overrides(
    source: str, settings: Sequence[str], kinds: Mapping[str, type[Section]]
) -> dict[str, dict[str, Any]]:
    """``--set`` as tables. A value that is not TOML, or for a key that is a text, is a text. Raises UsageError."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        table, dot, key = name.strip().rpartition(".")
        if not equals or not key or (dot and not table):
            raise UsageError(f"--set {setting!r} is not KEY=VALUE or TABLE.KEY=VALUE")
        keys = found.setdefault(table or source, {})
        if key in keys:
            raise UsageError(f"--set gives {name.strip()} twice; give it once")
        table_kind = kinds.get(table or source)
        is_text = table_kind is not None and isinstance(getattr(table_kind(), key, None), str)
        keys[key] = _value(value.strip(), is_text)
    return found


def _value(text: str, is_text: bool) -> Any:
    try:
        read = decode_toml(f"value = {text}".encode())
    except TextRefused:
        return text
    whole = len(read) == 1 and (isinstance(read["value"], str) or not is_text)  # more than one: of several lines
    return read["value"] if whole else text
