"""`asperity refit`: frames that came later, added to a calibration without starting over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asperity.runtime.files import shown

if TYPE_CHECKING:
    from asperity.calibration.record import CalibrationFolder, Refit

UNLIKELY = 0.01
"""A count that is less probable than this is pointed out."""


def command(
    earlier: Annotated[Path, typer.Argument(help="Output folder of `asperity calibrate`, or its calibration/.")],
    source: Annotated[Path, typer.Argument(help="Folder of the frames that came later (docs/cameras/files.md).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="New folder for calibration/ and bundle/.")],
    unselected: Annotated[
        bool,
        typer.Option(
            "--unselected",
            help="Required: say that these are frames of all later parts, whatever the verdict on them was.",
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave out the later frame of this name, of a part that a person calls bad; repeatable."),
    ] = None,
    exclude_earlier: Annotated[
        list[str] | None, typer.Option(help="The same for a frame of the earlier calibration; repeatable.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="False-reject rate, 0 to 1; default: as the earlier calibration was asked.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: one per core.")] = 0,
    timing_only: Annotated[
        bool,
        typer.Option("--timing-only", help="Skip the check that defects are found; every verdict will be unknown."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing calibration and bundle.")] = False,
    keys: Annotated[Path | None, typer.Option("--keys", help="Key folder; default: the user's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Add frames that came later to a calibration and write a signed bundle.

    Networks, geometry and adaptors stay, banks and threshold are made again, the promise is stated again. The promise
    needs frames of all parts of a time: those of accepted parts alone would lower the threshold without reason.
    """
    from asperity.calibration.record import RECORD
    from asperity.calibration.refit import refit
    from asperity.export.bundle import export_bundle, refuse_existing
    from asperity.export.commands.shown import bars, report_told, saying, show_export
    from asperity.runtime.security.signing_keys import TrustStore

    trust = TrustStore(keys)
    trust.key_for_signing()
    bundle_dir = output / "bundle"
    refuse_existing(bundle_dir, force)
    calibration = earlier if (earlier / RECORD).exists() else earlier / "calibration"
    with bars() as progress:
        folder = refit(
            calibration, source, output, progress, unselected=unselected, alpha=alpha, exclude=tuple(exclude or ()),
            exclude_earlier=tuple(exclude_earlier or ()), force=force,
        )  # fmt: skip
    with saying() as say:
        report = export_bundle(
            folder.path, bundle_dir, trust, force=force, threads=threads or None, timing_only=timing_only, say=say
        )
    if as_json:
        import msgspec

        record = folder.record
        typer.echo(
            json.dumps(
                {
                    "calibration": str(folder.path), "report": str(folder.report_path),
                    "false_rejects": msgspec.to_builtins(record.false_rejects), "threshold": record.decision.threshold,
                    "normal_frames": record.normal_frames, "refused": msgspec.to_builtins(record.refused),
                    "refit": msgspec.to_builtins(record.refit), "stage_s": record.stage_s,
                    "export": report_told(report),
                }
            )
        )  # fmt: skip
        return
    _show(folder)
    show_export(report)


def _show(folder: CalibrationFolder) -> None:
    record = folder.record
    found, now = record.refit, record.false_rejects
    assert found is not None
    typer.echo(f"added      {found.added} frames to {found.kept} (patches of {found.patches_reused} used again)")
    for refused in record.refused:
        typer.echo(shown(f"refused    {refused.name}: {refused.reason}, {refused.message}"))
    rows = (
        ("", "before", "now"),
        ("fit + tune + calibrate", *(_counts(one) for one in (found.earlier_frames, record.normal_frames))),
        ("rejected of good parts", *(f"{one.alpha_total:.2%}" for one in (found.earlier, now))),
        ("below, with 95 %", *(f"{one.bound_95:.2%}" for one in (found.earlier, now))),
        ("threshold", f"{found.earlier_threshold:.4g}", f"{record.decision.threshold:.4g}"),
    )
    for name, before, after in rows:
        typer.echo(f"           {name:24}{before:>16}{after:>16}")
    typer.echo(f"earlier    {surprise(found)}")
    typer.echo(f"promise    {now.statement}")
    typer.echo(f"report     {folder.report_path}")


def _counts(frames: dict[str, int]) -> str:
    return f"{frames['fit']} + {frames['tune']} + {frames['calibrate']}"


def surprise(found: Refit) -> str:
    """What the earlier threshold says of the later parts, and whether chance explains it."""
    text = f"the earlier threshold rejects {found.above_earlier} of {found.judged_earlier} later parts"
    if found.chance_of_fewer < UNLIKELY:
        return (
            f"{text}, fewer than chance explains ({found.chance_of_fewer:.2g}): were rejected parts left out? Then "
            "this calibration rejects more good parts than it says"
        )
    if found.chance_of_more < UNLIKELY:
        return (
            f"{text}, more than chance explains ({found.chance_of_more:.2g}): look at them before you use this "
            "calibration; bad parts belong into --exclude, a changed camera or light needs a calibration of its own"
        )
    return f"{text}, as chance explains"
