"""`asperity camera`: frames for an inspector, or a data set, without hardware."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from asperity.runtime.cameras.camera_toml import DEFAULT_FRAMES, DEFAULT_RESULTS
from asperity.runtime.commands.check_camera import check
from asperity.runtime.commands.list_cameras import list_cameras
from asperity.runtime.commands.live_camera import live
from asperity.runtime.commands.progress import progress_bar
from asperity.runtime.errors import CameraError, UsageError
from asperity.runtime.frame import Unit
from asperity.runtime.security.private_files import CLIENT_KEY_VARIABLE
from asperity.runtime.text.numbers import whole_number

if TYPE_CHECKING:
    from asperity.runtime.cameras.stream import Exposure

app = typer.Typer(
    name="camera", no_args_is_help=True, help="Send frames from a camera, a virtual camera or recorded files."
)  # fmt: skip
app.command()(live)
app.command("list")(list_cameras)
app.command()(check)

Rate = Annotated[float | None, typer.Option(help="Frames per second, sent on schedule; default: 5.")]
Frames = Annotated[int, typer.Option(help="Stop after this many frames; 0: never.")]
Truth = Annotated[
    Path | None,
    typer.Option(help="Write the ground truth of every frame to this file (JSON lines), with masks next to it."),
]
OnTrigger = Annotated[bool, typer.Option("--on-trigger", help="Send a frame on each trigger of the station.")]
Station = Annotated[str, typer.Option(help="Station whose triggers are answered.")]
Name = Annotated[str, typer.Option("--camera", help="Name of the camera, as in station.toml.")]
FramesEndpoint = Annotated[str, typer.Option(help="Frames socket of the inspector.")]
ResultsEndpoint = Annotated[str, typer.Option(help="Results socket of the inspector, for its triggers.")]
Key = Annotated[
    Path | None, typer.Option(envvar=CLIENT_KEY_VARIABLE, help="Key file of this camera, for a station with CURVE.")
]
Wait = Annotated[float, typer.Option(help="Wait at most this long for an inspector.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

DEFAULT_RATE_HZ = 5.0
STREAM_FIRST = 500_000
"""Streams show other parts than data sets of the same seed."""


@app.command()
def virtual(
    product: Annotated[str, typer.Option(help="Product: bracket, roll, nameplate, wheel, cap or gasket.")] = "bracket",
    seed: Annotated[int, typer.Option(help="Seed of parts, poses, light and noise.")] = 1,
    size: Annotated[str, typer.Option(help="Size of the image in pixels: 256, or WIDTHxHEIGHT.")] = "256",
    defects: Annotated[str, typer.Option(help="Defects: mix (all kinds), none, or kinds separated by commas.")] = "mix",
    write: Annotated[
        Path | None, typer.Option(help="Write a data set (MVTec 3D-AD layout) to this new folder.")
    ] = None,
    train: Annotated[int, typer.Option(help="With --write: frames in train/good.")] = 200,
    validation: Annotated[int, typer.Option(help="With --write: frames in validation/good.")] = 0,
    test: Annotated[int, typer.Option(help="With --write: frames in test/good and per defect.")] = 10,
    test_good: Annotated[
        int | None, typer.Option(help="With --write: frames in test/good, if different from --test.")
    ] = None,
    severity: Annotated[float, typer.Option(help="Strength of surface defects, as a factor.")] = 1.0,
    defect_share: Annotated[float, typer.Option(help="When streaming: share of frames with a defect.")] = 0.5,
    first: Annotated[int, typer.Option(help="When streaming: index of the first frame.")] = STREAM_FIRST,
    rate: Rate = None,
    frames: Frames = 0,
    truth: Truth = None,
    on_trigger: OnTrigger = False,
    station: Station = "st1",
    camera: Name = "cam1",
    frames_endpoint: FramesEndpoint = DEFAULT_FRAMES,
    results_endpoint: ResultsEndpoint = DEFAULT_RESULTS,
    key: Key = None,
    wait_s: Wait = 10.0,
    as_json: Json = False,
) -> None:
    """Send frames of rendered parts to an inspector, or write them as a data set."""
    from asperity.runtime.cameras.stream import virtual_exposures
    from asperity.runtime.cameras.virtual.camera import VirtualCamera
    from asperity.runtime.cameras.virtual.dataset import Counts, mixed_kinds, write_dataset

    source = VirtualCamera(product, seed, _size(size), name=camera, severity=severity)
    kinds = _kinds(defects)
    if write is not None:
        if on_trigger or truth is not None or rate is not None or frames:
            raise UsageError("--write makes a data set; --rate, --frames, --truth and --on-trigger are for streaming")
        counts = Counts(train, validation, test, test_good)
        total = train + validation + counts.good + test * len(kinds)
        with progress_bar(f"rendering {product}", total) as step:
            written = write_dataset(source, write, counts, kinds, step)
        _say(as_json, f"wrote {written} frames to {write}", {"frames": written, "folder": str(write)})
        return
    if not 0 <= defect_share <= 1:
        raise UsageError(f"--defect-share {defect_share} is out of range; give 0 to 1")
    exposures = virtual_exposures(source, mixed_kinds(seed, kinds, defect_share), first)
    _stream(
        exposures, frames, rate, truth, on_trigger, station, camera, frames_endpoint, results_endpoint, key, wait_s,
        as_json,
    )  # fmt: skip


@app.command()
def replay(
    folder: Annotated[
        Path, typer.Argument(help="Folder of frames: a product, a split, or files of a camera (docs/cameras/files.md).")
    ],
    loop: Annotated[bool, typer.Option("--loop", help="Start again at the end.")] = False,
    unit: Annotated[str | None, typer.Option(help="Unit of the recorded points, if known: m, mm or um.")] = None,
    invalid: Annotated[
        list[str] | None,
        typer.Option(help="Missing points as stored: Z, or X,Y,Z with * for any; repeatable."),
    ] = None,
    rate: Rate = None,
    frames: Frames = 0,
    truth: Truth = None,
    on_trigger: OnTrigger = False,
    station: Station = "st1",
    camera: Name = "cam1",
    frames_endpoint: FramesEndpoint = DEFAULT_FRAMES,
    results_endpoint: ResultsEndpoint = DEFAULT_RESULTS,
    key: Key = None,
    wait_s: Wait = 10.0,
    as_json: Json = False,
) -> None:
    """Send recorded frames to an inspector."""
    from asperity.runtime.cameras.replay import ReplayCamera
    from asperity.runtime.cameras.stream import replay_exposures
    from asperity.runtime.vision.missing_points import parse_invalid

    units: dict[str | None, Unit | None] = {None: None, **{name: name for name in get_args(Unit)}}
    if unit not in units:
        raise UsageError(f"--unit {unit!r} is not known; choose one of {', '.join(get_args(Unit))}")
    source = ReplayCamera(folder, loop=loop, unit=units[unit], name=camera, invalid=parse_invalid(invalid) or ())
    if not loop:
        frames = min(frames or len(source), len(source))
    _stream(
        replay_exposures(source), frames, rate, truth, on_trigger, station, camera, frames_endpoint, results_endpoint,
        key, wait_s, as_json,
    )  # fmt: skip


def _stream(
    exposures: Iterable[Exposure],
    frames: int,
    rate: float | None,
    truth: Path | None,
    on_trigger: bool,
    station: str,
    camera: str,
    frames_endpoint: str,
    results_endpoint: str,
    key: Path | None,
    wait_s: float,
    as_json: bool,
) -> None:
    from asperity.runtime.cameras.schedule import Schedule
    from asperity.runtime.cameras.stream import StreamSummary, TruthFile, stream
    from asperity.runtime.client.frame_sender import FrameSender
    from asperity.runtime.client.presence import nobody_at

    if frames < 0:
        raise UsageError(f"--frames {frames} is out of range; give 1 or more, or 0 for no limit")
    if on_trigger and rate is not None:
        raise UsageError("--rate and --on-trigger cannot be used together")
    if not 0 <= wait_s <= 3600:
        raise UsageError(f"--wait-s {wait_s} is out of range; give 0 to 3600 seconds")
    schedule = None if on_trigger else Schedule(DEFAULT_RATE_HZ if rate is None else rate)
    summary = StreamSummary()
    with ExitStack() as stack:
        file = stack.enter_context(TruthFile(truth)) if truth is not None else None
        sender = stack.enter_context(
            FrameSender(
                camera,
                frames_endpoint,
                station=station,
                results_endpoint=results_endpoint if on_trigger else "",
                key=key,
            )
        )
        if not sender.wait_connected(round(wait_s * 1000)):
            nobody = nobody_at(frames_endpoint, "--frames-endpoint")
            raise CameraError(
                f"no inspector accepted frames at {frames_endpoint} within {wait_s:g} s; start `asperity run` first"
                + (f": {nobody}" if nobody else "")
                + (", or look in its log why this key was refused" if key else "")
            )
        step = stack.enter_context(progress_bar("sending", frames or None))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # until now it ended the process with 143
        with suppress(KeyboardInterrupt):  # stopped on request: what was done is told below
            stream(
                exposures, sender, schedule=schedule, summary=summary, frames=frames or None, truth=file, progress=step
            )
    told = {
        "exposures": summary.exposures, "sent": summary.sent, "dropped": summary.exposures - summary.sent,
        "late": summary.late, "seconds": round(summary.seconds, 3), "fps": round(summary.fps, 2),
    }  # fmt: skip
    _say(as_json, f"{summary.sent} of {summary.exposures} frames sent in {summary.seconds:.1f} s ({summary.fps:.2f} "
         f"frames/s), {summary.late} late, {told['dropped']} dropped", told)  # fmt: skip


def _size(text: str) -> int | tuple[int, int]:
    sides = [whole_number(piece) for piece in text.lower().split("x")]
    if not 1 <= len(sides) <= 2 or None in sides:
        raise UsageError(f"--size {text!r} is not valid; give pixels as 256 or WIDTHxHEIGHT, e.g. 320x240")
    width, height = cast("list[int]", [sides[0], sides[-1]])
    return width if len(sides) == 1 else (height, width)


def _kinds(text: str) -> list[str]:
    from asperity.runtime.cameras.virtual.defects import DEFECTS

    if text == "none":
        return []
    kinds = list(DEFECTS) if text == "mix" else [piece.strip() for piece in text.split(",")]
    unknown = [kind for kind in kinds if kind not in DEFECTS]
    if unknown:
        raise UsageError(f"--defects: {unknown[0]!r} is not known; give mix, none, or some of {', '.join(DEFECTS)}")
    return list(dict.fromkeys(kinds))


def _say(as_json: bool, sentence: str, told: dict[str, Any]) -> None:
    typer.echo(json.dumps(told) if as_json else sentence)
