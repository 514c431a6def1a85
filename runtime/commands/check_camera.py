"""`asperity camera check`: whether a camera is set up so that parts can be judged."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asperity.runtime.commands.live_camera import (
    END_S,
    Config,
    Json,
    Settings,
    SourceName,
    open_camera,
    read_settings,
)
from asperity.runtime.commands.progress import progress_bar
from asperity.runtime.errors import DataError, SourceEnded, UsageError
from asperity.runtime.process.end_limit import EndLimit

if TYPE_CHECKING:
    from asperity.runtime.cameras.setup.health import Finding, Health
    from asperity.runtime.frame import Frame

FRAMES = (1, 100)
MOST_NBYTES = 2 * 2**30
"""All exposures are kept until the camera is closed: looking at one takes longer than the next one takes to come."""


def check(
    source: SourceName,
    config: Config = None,
    settings: Settings = None,
    frames: Annotated[int, typer.Option(help="Exposures to look at, 1 to 100; the scene should stand still.")] = 10,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write a PNG: colour, the part found, depth, and where there were points."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a camera gives: rate, age, valid points, depth noise, exposure, plane and part. Needs no inspector."""
    from asperity.runtime.cameras.setup.exposures import Exposures
    from asperity.runtime.cameras.setup.health import Health

    if not FRAMES[0] <= frames <= FRAMES[1]:
        raise UsageError(f"--frames {frames} is out of range; give {FRAMES[0]} to {FRAMES[1]}")
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture {picture} must end in .png")
    found = read_settings(source, config, settings)
    with EndLimit(END_S) as limit, open_camera(found, limit) as opened:
        sensor = opened.sensor or source
        exposures = Exposures(opened, found.config.live)
        taken = [exposures.take()]
        _refuse_too_many(frames, taken[0].shot.frame)
        # A recording may end before.
        with suppress(SourceEnded), progress_bar(f"exposures of {sensor}", frames) as step:
            step()
            while len(taken) < frames:
                taken.append(exposures.take())
                step()
    health = Health(found.config.live.triggers)
    for each in taken:
        health.add(each)
    findings = health.findings()
    if picture is not None:
        _write(picture, health)
    if as_json:
        lines = [asdict(one) for one in findings]
        typer.echo(json.dumps({"sensor": sensor, "figures": health.figures(), "findings": lines}))
        return
    typer.echo(f"{sensor}, {len(taken)} exposures")
    for one in findings:
        typer.echo(_line(one))
    bad = sum(not one.good for one in findings)
    typer.echo(f"{bad} of {len(findings)} lines need a look" if bad else "nothing stands out")


def _refuse_too_many(frames: int, first: Frame) -> None:
    nbytes = sum(array.nbytes for array in (first.rgb, first.xyz, first.depth) if array is not None)
    if nbytes * frames > MOST_NBYTES:
        most = max(1, MOST_NBYTES // nbytes)
        raise UsageError(f"--frames {frames} of {nbytes / 1e6:.0f} MB each are too many; give {most} or fewer")


def _line(one: Finding) -> str:
    line = f"  {'ok  ' if one.good else 'LOOK'}  {one.name}: {one.value}"
    return line if one.good else f"{line}\n        good is: {one.wanted}\n        to do: {one.remedy}"


def _write(path: Path, health: Health) -> None:
    from PIL import Image

    from asperity.runtime.cameras.setup.check_picture import check_picture
    from asperity.runtime.files import write_whole

    if health.look is None or health.rgb is None or health.valid_counts is None:
        raise DataError(f"{path} is not written: no exposure could be used")
    share = (health.valid_counts / len(health.looks)).astype("float32")
    data = io.BytesIO()
    Image.fromarray(check_picture(health.rgb, health.look, share)).save(data, "PNG", compress_level=3)
    try:
        write_whole(path, data.getvalue(), mode=0o666)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; name another file") from error
