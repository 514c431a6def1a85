"""`asperity calibrate`: all steps from a folder of normal frames to a signed bundle."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asperity.calibration.commands.frame_options import Background, Exclude, Invalid, PointUnit, Z
from asperity.runtime.files import shown

if TYPE_CHECKING:
    from asperity.calibration.options import CalibrateOptions
from asperity.calibration.record import CalibrationFolder


def command(
    source: Annotated[Path, typer.Argument(help="Folder of normal frames (docs/cameras/files.md).")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for calibration/ (with its report) and bundle/.")
    ],
    profile: Annotated[str, typer.Option(help="Profile: lite, fast (no point network), edge or paper.")] = "lite",
    method: Annotated[
        str | None,
        typer.Option(
            help="Method: lsfa (adapt the features) or frozen (use them as they are); default: lsfa, but frozen with "
            "--profile fast and --modalities auto."
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name of the recipe; default: the name of the source folder.")] = "",
    alpha: Annotated[
        float | None, typer.Option(help="False-reject rate, 0 to 1; default: the best attainable rate up to 0.02.")
    ] = None,
    exclude: Exclude = None,
    unit: PointUnit = None,
    invalid: Invalid = None,
    inspect_mask: Annotated[
        Path | None, typer.Option(help="PNG of the frame size: only white pixels are judged.")
    ] = None,
    ignore_mask: Annotated[
        Path | None, typer.Option(help="PNG of the frame size: white pixels are not judged.")
    ] = None,
    rgb_weights: Annotated[Path | None, typer.Option(help="Weights of the colour network.")] = None,
    point_weights: Annotated[Path | None, typer.Option(help="Weights of the point network.")] = None,
    fusion: Annotated[
        str | None,
        typer.Option(help="Fusion: squares, average or ocsvm (a linear one-class SVM); default: the profile's."),
    ] = None,
    modalities: Annotated[
        str | None,
        typer.Option(
            help="Modalities: rgb and some of points,geometry,height,descriptor, or auto (the cheapest as good as the "
            "best on pseudo-defects); default: the profile's."
        ),
    ] = None,
    whitening: Annotated[
        bool, typer.Option("--whitening/--no-whitening", help="Whiten features where the profile does.")
    ] = True,
    held_out: Annotated[
        str, typer.Option(help="Held-out frames: split, or leave_one_out (weaker, for few frames).")
    ] = "split",
    keep_frames: Annotated[
        bool, typer.Option("--keep-frames/--no-keep-frames", help="Keep what `asperity refit` adds later frames to.")
    ] = True,
    views: Annotated[
        int, typer.Option(min=0, max=8, help="Views per fit frame (light, pose, noise) that the banks also hold.")
    ] = 0,
    tiles: Annotated[
        int, typer.Option(min=1, help="See the picture by so many tiles per side: finer, slower; needs frozen.")
    ] = 1,
    smallest_defect: Annotated[
        bool,
        typer.Option("--smallest-defect/--no-smallest-defect", help="Measure the smallest defect the station sees."),
    ] = True,
    geometry: Background = "auto",
    z: Z = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of split and adaptation.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most this many normal frames.")] = None,
    device: Annotated[str, typer.Option(help="Torch device for networks and adaptation.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: one per core.")] = 0,
    timing_only: Annotated[
        bool,
        typer.Option("--timing-only", help="Skip the check that defects are found; every verdict will be unknown."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing calibration and bundle.")] = False,
    keys: Annotated[Path | None, typer.Option("--keys", help="Key folder; default: the user's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Learn a product from normal frames and write a signed bundle."""
    from asperity.calibration.calibrate import calibrate, usual_method
    from asperity.calibration.options import chosen_options
    from asperity.export.bundle import export_bundle, refuse_existing
    from asperity.export.commands.shown import bars, report_told, saying, show_export
    from asperity.runtime.security.signing_keys import TrustStore
    from asperity.runtime.vision.missing_points import parse_invalid

    named = None if modalities is None else tuple(modalities.replace(" ", "").split(","))
    chosen: dict[str, Any] = {
        "profile": profile, "method": method or usual_method(profile, named),
        "recipe": recipe_name(recipe, source), "alpha": alpha,
        "exclude": tuple(exclude or ()), "unit": unit,
        "invalid": parse_invalid(invalid, none_allowed=True), "inspect_mask": _text(inspect_mask),
        "ignore_mask": _text(ignore_mask),
        "rgb_weights": _text(rgb_weights), "points_weights": _text(point_weights), "fusion": fusion,
        "modalities": named, "whitening": whitening, "held_out": held_out, "views": views, "geometry": geometry, "z": z,
        "seed": seed, "limit": limit, "device": device, "keep_frames": keep_frames, "tiles": tiles,
        "smallest_defect": smallest_defect,
    }  # fmt: skip
    options = chosen_options(**chosen)
    # What would fail after minutes of work is asked first.
    trust = TrustStore(keys)
    trust.key_for_signing()
    bundle_dir = output / "bundle"
    refuse_existing(bundle_dir, force)

    with bars() as progress:
        folder = calibrate(source, output, options, progress, force=force)
    with saying() as say:
        report = export_bundle(
            folder.path, bundle_dir, trust, force=force, threads=threads or None, timing_only=timing_only, say=say
        )
    if as_json:
        typer.echo(json.dumps({**_told(folder), "export": report_told(report)}))
        return
    _show(folder, command_line(source, output, options))
    show_export(report)


def recipe_name(asked: str, source: Path) -> str:
    """The recipe's name: as asked, else the source folder's in the letters that a name may have.

    Raises UsageError for one that cannot travel in topics and in ``station.toml``.
    """
    from asperity.runtime.bundle.checks import RECIPE_NAME
    from asperity.runtime.errors import UsageError

    if asked and not RECIPE_NAME.fullmatch(asked):
        raise UsageError(f"--recipe {asked!r} must be 1 to 32 characters from a-z 0-9 _ -")
    plain = re.sub(r"[^a-z0-9_]+", "-", source.absolute().name.lower()).strip("-")
    return asked or plain[:32] or "product"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _told(folder: CalibrationFolder) -> dict[str, Any]:
    import msgspec

    record = folder.record
    return {
        "calibration": str(folder.path),
        "report": str(folder.report_path),
        "recipe": record.recipe,
        "background": {"method": record.geometry.method, "why": record.geometry.why},
        "false_rejects": msgspec.to_builtins(record.false_rejects),
        "normal_frames": record.normal_frames,
        "refused": msgspec.to_builtins(record.refused),
        "repeats": msgspec.to_builtins(record.repeats),
        "suspects": msgspec.to_builtins(record.suspects),
        "choice": msgspec.to_builtins(record.choice),
        "smallest_defects": msgspec.to_builtins(record.smallest_defects),
        "adaptation": record.adaptation,
        "stage_s": record.stage_s,
    }


def command_line(source: Path, output: Path, options: CalibrateOptions) -> str:
    """The same calibration again, to be copied; further options may follow."""
    import msgspec

    from asperity.calibration.options import CalibrateOptions
    from asperity.runtime.vision.missing_points import NONE, option_of

    words = ["asperity", "calibrate", str(source), "-o", str(output), "--force"]
    named = {"points_weights": "--point-weights"}
    usual = CalibrateOptions(recipe=recipe_name("", source), smallest_defect=True)
    for name in msgspec.structs.asdict(options):
        value, option = getattr(options, name), named.get(name, f"--{name.replace('_', '-')}")
        if value == getattr(usual, name) or name == "strangest":
            continue
        if name == "invalid":
            words += [word for one in value or () for word in (option, option_of(one))] or [option, NONE]
        elif name == "exclude":
            words += [word for one in value for word in (option, one)]
        elif isinstance(value, bool):
            words.append(option if value else f"--no-{option.removeprefix('--')}")
        elif name == "modalities":
            words += [option, ",".join(value)]
        else:
            words += [option, str(value)]
    return shlex.join(words)


def _show(folder: CalibrationFolder, again: str) -> None:
    from asperity.calibration.frames.parts import listed
    from asperity.calibration.report.choice import chosen_words
    from asperity.runtime.commands.inspect_bundle import smallest_told
    from asperity.runtime.manifest import LEVEL_FIGURE

    record = folder.record
    counts = ", ".join(f"{count} {name}" for name, count in record.normal_frames.items())
    typer.echo(f"recipe     {record.recipe}: {counts}")
    for refused in record.refused:
        typer.echo(shown(f"refused    {refused.name}: {refused.reason}, {refused.message}"))
    geometry = record.geometry
    typer.echo(f"background {geometry.method}: {geometry.why}")
    view_mm2 = geometry.height_px * geometry.width_px * geometry.mm_per_px**2
    for each in record.silhouette:
        if each.figure == "area_mm2":
            low, high = each.low / view_mm2, min(each.high / view_mm2, 1.0)
            typer.echo(f"part       {low:.1%} to {high:.1%} of the view; no more is judged")
        elif each.figure == LEVEL_FIGURE:
            typer.echo(
                f"level      z within {each.low:.5g} to {each.high:.5g} mm: an empty view outside of it is rejected; "
                "judge one before production (asperity score)"
            )
    for repeat in record.repeats:
        verdict = "one part" if repeat.counted else "one part? counted as different ones, see the report"
        typer.echo(f"repeated   {listed(repeat.frames)}: {verdict}")
    if record.choice is not None:
        typer.echo(f"chosen     {chosen_words(record.choice)}")
    for suspect in record.suspects:
        told = ", ".join(f"{name} {value:+.1f}" for name, value in suspect.deviations.items())
        calibrated = "; it calibrates: excluded, the promise covers no part like it" * (suspect.split == "calibrate")
        typer.echo(shown(f"look at    {suspect.name}: {told} robust standard deviations beyond its like{calibrated}"))
    if record.suspects:
        options = " ".join(f"--exclude {shlex.quote(one.name)}" for one in record.suspects)
        typer.echo(shown(f"exclude    only parts that a person finds bad: {again} {options}"))
    typer.echo(f"promise    {record.false_rejects.statement}")
    for one in record.smallest_defects:
        typer.echo(f"sees       {smallest_told(one)}")
    typer.echo(f"report     {folder.report_path}")
