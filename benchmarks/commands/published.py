"""``asperity bench published``: the published form beside ours, in one run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle to run")],
    folder: Annotated[Path, typer.Argument(help="frames of its product, MVTec 3D-AD layout")],
    profile: Annotated[
        str | None,
        typer.Option(help="another profile than the bundle's: its network with seeded weights and made banks"),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="the bundle's calibration folder; default: the one beside the bundle")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="frames measured, after one to warm up")] = 60,
    threads: Annotated[int, typer.Option(min=0, max=256, help="threads of either side; 0: all cores")] = 0,
    rival: Annotated[
        str, typer.Option(help="what runs the published form: onnx (ONNX Runtime and BLAS, as ours) or torch")
    ] = "onnx",
    bank_frames: Annotated[int, typer.Option(min=1, help="normal frames that a made bank has the size of")] = 200,
    keys: Annotated[Path | None, typer.Option(help="folder of trusted keys")] = None,
    out: Annotated[Path | None, typer.Option(help="also write the result to this file")] = None,
) -> None:
    """Time the published form and ours in turn on the same frames; the ratio and the counted one as JSON on stdout."""
    from asperity.benchmarks.published_form.side_by_side import SideBySide, run_side_by_side
    from asperity.calibration.calibrate import FOLDER
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.engines.cpu import available_cores
    from asperity.runtime.errors import UsageError
    from asperity.runtime.security.signing_keys import TrustStore

    chosen: Literal["onnx", "torch"] = "torch" if rival == "torch" else "onnx"
    if rival != chosen:
        raise UsageError(f"--rival {rival!r} is not known; give onnx or torch")
    opened = open_bundle(bundle, TrustStore(keys))
    beside = calibration or bundle.absolute().parent / FOLDER
    options = SideBySide(opened, folder, beside, profile, frames, threads or available_cores(), chosen, bank_frames)
    result = run_side_by_side(options)
    text = json.dumps({"command": shlex.join(["asperity", *sys.argv[1:]]), **result}, indent=1)
    typer.echo(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
