"""`asperity camera live`, `list`: real cameras, found through the entry-point group ``asperity.cameras``."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from asperity.runtime.commands.progress import progress_bar
from asperity.runtime.errors import CameraError, RecordingEnded, UsageError
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_toml

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
    as_json: Json = False,
) -> None:
    """Send the exposures of a real camera to an inspector, or record them."""
    from asperity.runtime.cameras.camera_toml import load as load_config
    from asperity.runtime.cameras.live import LiveLoop
    from asperity.runtime.cameras.source import load, open_source
    from asperity.runtime.client.frame_sender import FrameSender
    from asperity.runtime.client.presence import nobody_at

    if frames < 0:
        raise UsageError(f"--frames {frames} is out of range; give 1 or more, or 0 for no limit")
    kind = load(source)
    read = load_config(source, kind.options, config, overrides(source, settings or ()))
    if write is not None:
        from asperity.runtime.commands import record_camera

        record_camera.check_options(read.live.triggers, every, parts)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        opened = open_source(source, kind, read.options, read.live.triggers)
        record_camera.record(opened, read.live, write, frames, every, parts, fills_view, as_json)
        return
    if every is not None or parts or fills_view:
        raise UsageError("--every, --parts and --fills-view are for recording; give --write FOLDER too")
    camera = read.camera
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        sender = stack.enter_context(
            FrameSender(
                camera.name, camera.frames, station=camera.station,
                results_endpoint=camera.results if read.live.triggers == "software" else "",
                key=Path(camera.key) if camera.key else None,
            )
        )  # fmt: skip
        opened = stack.enter_context(closing(open_source(source, kind, read.options, read.live.triggers)))
        if not sender.wait_connected(read.live.inspector_wait_ms):
            nobody = nobody_at(camera.frames, "[camera] frames")
            raise CameraError(
                f"no inspector accepted frames at {camera.frames} within {read.live.inspector_wait_ms} ms; start "
                "`asperity run` first" + (f": {nobody}" if nobody else "")
            )
        loop = LiveLoop(opened, sender, read.live)
        step = stack.enter_context(progress_bar(f"sending from {opened.sensor or source}", frames or None))
        with suppress(KeyboardInterrupt, RecordingEnded):  # stopped on request: what was done is said below
            loop.run(frames or None, step)
    done = loop.summary
    report = {"exposures": done.exposures, "sent": done.sent, "missed": done.missed, "dropped": done.dropped}
    typer.echo(
        json.dumps(report) if as_json else
        f"{done.sent} frames sent of {done.exposures} exposures, {done.missed} missed by the camera, {done.dropped} "
        "not taken by the station"
    )  # fmt: skip


def overrides(source: str, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``--set`` as tables. A value that is not TOML is a text. Raises UsageError."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        table, dot, key = name.strip().rpartition(".")
        if not equals or not key or (dot and not table):
            raise UsageError(f"--set {setting!r} is not KEY=VALUE or TABLE.KEY=VALUE")
        keys = found.setdefault(table or source, {})
        if key in keys:
            raise UsageError(f"--set gives {name.strip()} twice; give it once")
        keys[key] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    try:
        return decode_toml(f"value = {text}".encode())["value"]
    except TextRefused:
        return text
