"""`asperity export`: a calibration folder becomes a signed bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="Folder that `asperity calibrate` wrote, or its calibration/.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the bundle.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    keys: Annotated[Path | None, typer.Option("--keys", help="Key folder; default the user's.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: all cores.")] = 0,
    timing_only: Annotated[
        bool, typer.Option("--timing-only", help="Do not ask whether it sees defects: every frame will be unknown.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Export networks to ONNX, compare them with torch, choose and spoil golden frames, sign, open and prove."""
    from asperity.calibration.record import RECORD
    from asperity.export.bundle import export_bundle
    from asperity.export.commands.shown import report_told, saying, show_export
    from asperity.runtime.security.signing_keys import TrustStore

    calibration = folder if (folder / RECORD).exists() else folder / "calibration"
    target = output or calibration.parent / "bundle"
    with saying() as say:
        report = export_bundle(
            calibration, target, TrustStore(keys),
            force=force, threads=threads or None, timing_only=timing_only, say=say,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report_told(report)))
    else:
        show_export(report)
