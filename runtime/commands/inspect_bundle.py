"""`asperity inspect`: what a bundle is, where it came from, and whether it opens and passes its gate here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from asperity.runtime.bundle.reader import Bundle
    from asperity.runtime.engines.parity_gate import GoldenCheck
    from asperity.runtime.manifest import Manifest, SmallestDefect


def command(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    keys: Annotated[Path | None, typer.Option("--keys", help="Key folder; default: the user's.")] = None,
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Score the golden frames with the CPU engine.")] = True,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Verify a bundle and show its contents.

    The exit code is not 0 if a station would not open the bundle.
    """
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.errors import BundleError, EngineError
    from asperity.runtime.security.signing_keys import TrustStore

    opened: Bundle | None = None
    checks: list[GoldenCheck] = []
    fault: BundleError | EngineError | None = None
    try:
        opened = open_bundle(bundle, TrustStore(keys))
        if gate:
            checks = _gate(opened, threads)
    except (BundleError, EngineError) as error:
        fault = error
    manifest = opened.manifest if opened else _manifest_of(bundle)
    told: dict[str, Any] = {
        "path": str(bundle),
        "opens": fault is None,
        "fault": str(fault) if fault else None,
        "digest": opened.digest if opened else None,
        "signed_by": opened.key_id if opened else None,
        "gate": [_check_told(check) for check in checks] if checks else None,
    }
    if manifest is not None:
        told |= _manifest_told(manifest)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        _print(told)
    if fault is not None:
        raise fault


def _gate(opened: Bundle, threads: int) -> list[GoldenCheck]:
    from asperity.runtime.engines.cpu import CpuEngine
    from asperity.runtime.engines.own_threshold import decision_for
    from asperity.runtime.engines.parity_gate import no_progress, pass_gate

    engine = CpuEngine.open(opened, threads or None)
    try:
        return pass_gate(opened, engine, decision_for(opened, engine, no_progress))
    finally:
        engine.close()


def _manifest_of(path: Path) -> Manifest | None:
    """The claims of a bundle that does not open, for display only; None when that cannot be read either."""
    from asperity.runtime.bundle.reader import decode_manifest, read_manifest
    from asperity.runtime.errors import BundleError

    try:
        return decode_manifest(read_manifest(path), path)
    except BundleError:
        return None


def _manifest_told(manifest: Manifest) -> dict[str, Any]:
    import msgspec

    from asperity.runtime.vision.missing_points import option_of

    decision, geometry, network = manifest.decision, manifest.geometry, manifest.network
    return {
        "recipe": manifest.recipe,
        "profile": network.profile,
        "adaptor": network.adaptor,
        "format": manifest.format,
        "asperity": manifest.asperity,
        "created_us": manifest.created_us,
        "frame_px": [geometry.width_px, geometry.height_px],
        "unit": geometry.unit,
        "invalid": None if geometry.invalid is None else [option_of(value) for value in geometry.invalid],
        "mm_per_px": geometry.mm_per_px,
        "background": {"method": geometry.method, "why": geometry.why},
        "masks": [name for name in (geometry.inspect_mask, geometry.ignore_mask) if name],
        "weights": [msgspec.to_builtins(origin) for origin in manifest.weights],
        "bank_rows": {name: one.bank_rows for name, one in decision.modalities().items()},
        "decision": {
            "engine": decision.engine,
            "precision": decision.precision,
            "fusion": decision.fusion,
            "timing_only": decision.timing_only,
            "threshold": decision.threshold,
            "alpha": decision.alpha,
            "alpha_total": decision.alpha_total,
            "alpha_asked": decision.alpha_asked,
            "calibration_frames": len(decision.calibration_scores),
            "held_out": manifest.held_out,
        },
        "silhouette": [msgspec.to_builtins(limits) for limits in manifest.silhouette],
        "normal_frames": manifest.normal_frames,
        "tiles": network.tiles,
        "smallest_defects": [msgspec.to_builtins(one) for one in manifest.smallest_defects],
        "golden": [msgspec.to_builtins(golden) for golden in manifest.golden],
        "golden_tolerance": manifest.golden_tolerance,
        "frame_p99_ms": manifest.frame_p99_ms,
        "files": [msgspec.to_builtins(file) for file in manifest.files],
    }


def _check_told(check: GoldenCheck) -> dict[str, Any]:
    return {
        "name": check.golden.name,
        "kind": check.golden.kind,
        "verdict": check.golden.verdict,
        "expected": check.golden.score,
        "seen": check.judgement.score,
        "ms": round(check.wall_ms, 1),
    }


def _print(told: dict[str, Any]) -> None:
    from datetime import datetime, timezone

    import msgspec
    from rich.table import Table

    from asperity.runtime.commands.tables import print_table
    from asperity.runtime.files import shown
    from asperity.runtime.manifest import SmallestDefect

    def row(label: str, text: str) -> None:
        typer.echo(f"{label:<10} {shown(text)}")

    row("bundle", f"{told['path']}  {(told['digest'] or '')[:12]}")
    state = "opens" if told["opens"] else "DOES NOT OPEN"
    row("state", state + (f", signed by trusted key {told['signed_by']}" if told["signed_by"] else ""))
    if "recipe" in told:
        decision, made = told["decision"], datetime.fromtimestamp(told["created_us"] / 1e6, tz=timezone.utc)
        total = sum(file["nbytes"] for file in told["files"])
        width_px, height_px = told["frame_px"]
        if decision["timing_only"]:
            row("use", "FOR TIMING ONLY: nothing shows that it sees a defect, and every frame is unknown")
        row("recipe", f"{told['recipe']} (profile {told['profile']}, adaptor {told['adaptor']})")
        row("made", f"{made:%Y-%m-%d %H:%M} UTC by Asperity {told['asperity']}, bundle format {told['format']}")
        row("frames", f"{width_px} x {height_px} px, {told['mm_per_px']:.3g} mm per pixel, unit {told['unit']}")
        if told["invalid"] is not None:
            row("missing", f"stored as {'  '.join(told['invalid'])}" if told["invalid"] else "every point is measured")
        row("background", f"{told['background']['method']}: {told['background']['why']}")
        for origin in told["weights"]:
            row("weights", f"{origin['network']}: {_origin(origin)}")
        row("banks", ", ".join(f"{name} {rows} rows" for name, rows in told["bank_rows"].items()))
        by = f"{decision['engine']}, {decision['precision']}"
        frames = f"{decision['calibration_frames']} calibration frames, {decision['held_out']}"
        row("threshold", f"{decision['threshold']:.4g} ({by}; {frames})")
        promised = f"{decision['alpha_total']:.2%} of good parts rejected on average"
        if decision["timing_only"]:
            promised = "all parts rejected, good and bad"
        elif decision["alpha_total"] == 1:
            promised = "none: how many good parts are rejected is not known"
        row("promise", promised)
        if told["tiles"] > 1:
            row("tiles", f"{told['tiles']} x {told['tiles']} network inputs see the window's picture")
        for one in told["smallest_defects"]:
            row("sees", smallest_told(msgspec.convert(one, SmallestDefect)))
        row("time", f"p99 {told['frame_p99_ms']:.1f} ms a frame on the machine that calibrated")
        row("size", f"{len(told['files'])} files, {total / 1e6:.1f} MB")
    if told["gate"]:
        golden = Table("golden frame", "kind", "verdict", "expected", "seen", "ms")
        for check in told["gate"]:
            golden.add_row(shown(check["name"]), check["kind"], check["verdict"], f"{check['expected']:.4f}",
                           f"{check['seen']:.4f}", f"{check['ms']:.0f}")  # fmt: skip
        print_table(golden)


def smallest_told(smallest: SmallestDefect) -> str:
    """Which defects of a kind are found, in words: ``bump: half from 2.1 mm, 95 of 100 from 3.9 mm``."""

    def told(size_mm: float | None, strength: float | None) -> str:
        if size_mm is None or strength is None:
            return f"not up to {smallest.largest_mm:.3g} mm"
        what = f"{strength:.0%} of its colour" if smallest.kind == "stain" else f"{strength:.2g} mm high or deep"
        return f"from {size_mm:.2g} mm ({what})"

    half = told(smallest.half_mm, smallest.half_strength)
    return f"{smallest.kind}: half {half}, 95 of 100 {told(smallest.often_mm, smallest.often_strength)}"


def _origin(origin: dict[str, Any]) -> str:
    if origin["seeded"]:
        return f"{origin['source']}: RANDOM WEIGHTS, for timing only, not for inspection"
    return f"{origin['source']} ({origin['licence']}), sha256 {origin['sha256'][:12]}"
