"""`asperity export`: a signed bundle from a calibration folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="Output folder of `asperity calibrate`, or its calibration/.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the bundle; default: bundle/ next to calibration/.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    keys: Annotated[Path | None, typer.Option("--keys", help="Key folder; default: the user's.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: one per core.")] = 0,
    timing_only: Annotated[
        bool,
        typer.Option("--timing-only", help="Skip the check that defects are found; every verdict will be unknown."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write a signed bundle from a calibration folder.

    The networks are exported to ONNX and compared with torch; golden frames are chosen; the bundle is signed, opened
    and tested.
    """
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
