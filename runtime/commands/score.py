"""`asperity score`: judge files offline with a bundle, one JSON line per frame."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from asperity.runtime.cameras.files.samples import Sample
    from asperity.runtime.engines import Engine
    from asperity.runtime.frame import Frame, Scores
    from asperity.runtime.manifest import Decision, Manifest
    from asperity.runtime.vision.scoring import Judgement

MAP_FLOOR = 4.0
"""A map whose highest value is lower than this is not stretched to full red."""


def command(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    sources: Annotated[
        list[Path], typer.Argument(help="Folders of frames, or single files of one (docs/cameras/files.md).")
    ],
    maps: Annotated[Path | None, typer.Option(help="Write images of the anomaly maps to this new folder.")] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of the points: m, mm or um; default: as in the bundle.")
    ] = None,
    invalid: Annotated[
        list[str] | None,
        typer.Option(help="Missing points as stored, besides the bundle's: Z, or X,Y,Z with * for any; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge at most this many frames.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: one per core.")] = 0,
    keys: Annotated[Path | None, typer.Option("--keys", help="Key folder; default: the user's.")] = None,
) -> None:
    """Judge recorded frames with a bundle and print JSON lines."""
    from rich.progress import track

    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.cameras.files.samples import read_sample
    from asperity.runtime.engines.cpu import CpuEngine
    from asperity.runtime.engines.parity_gate import prove
    from asperity.runtime.errors import UsageError
    from asperity.runtime.frame import MM_PER_UNIT, Unit
    from asperity.runtime.security.signing_keys import TrustStore
    from asperity.runtime.vision.missing_points import parse_invalid

    if unit is not None and unit not in MM_PER_UNIT:
        raise UsageError(f"--unit {unit!r} is not known; give one of {', '.join(MM_PER_UNIT)}")
    missing = parse_invalid(invalid) or ()
    samples = [sample for source in sources for sample in _samples(source)][:limit]
    if maps is not None:
        _check_maps(maps, samples)
    opened = open_bundle(bundle, TrustStore(keys))
    engine = CpuEngine.open(opened, threads or None)
    counts = {"ok": 0, "ng": 0, "unknown": 0}
    try:
        decision = prove(opened, engine)
        for seq, sample in enumerate(_tracked(track, samples)):
            frame = read_sample(sample, camera="score", camera_session="score", seq=seq, part_id=sample.rgb.stem,
                                unit=cast(Unit | None, unit), invalid=missing)  # fmt: skip
            judgement, scores, line = judge(frame, engine, decision, opened.manifest)
            counts[line["verdict"]] += 1
            typer.echo(json.dumps({"name": sample.name, **line, "rgb": str(sample.rgb), "xyz": str(sample.xyz)}))
            if maps is not None and scores is not None:
                _write_map(maps, sample.name, frame, scores, decision, judgement)
    finally:
        engine.close()
    typer.echo(f"{len(samples)} frames: {counts['ok']} ok, {counts['ng']} ng, {counts['unknown']} unknown", err=True)


def judge(
    frame: Frame, engine: Engine, decision: Decision, manifest: Manifest
) -> tuple[Judgement, Scores | None, dict[str, Any]]:
    """Verdict, scores (None where there are none) and line of a frame. Refusals and engine errors give unknown."""
    from asperity.runtime.engines.parity_gate import VERDICT_NAMES, no_progress
    from asperity.runtime.errors import EngineError, FrameRefused
    from asperity.runtime.frame import Verdict
    from asperity.runtime.reasons import Reason
    from asperity.runtime.vision.scoring import Judgement, decide

    start_ns = time.perf_counter_ns()
    scores: Scores | None = None
    try:
        scores = engine.score(frame, no_progress)
        judgement: Judgement = decide(scores, decision, manifest.silhouette, manifest.geometry)
    except FrameRefused as error:
        judgement = Judgement(Verdict.UNKNOWN, error.reason, str(error))
    except EngineError as error:
        judgement = Judgement(Verdict.UNKNOWN, Reason.ENGINE, str(error))
    region = judgement.region
    line: dict[str, Any] = {
        "verdict": VERDICT_NAMES[judgement.verdict],
        "accept": judgement.verdict is Verdict.OK,
        "score": judgement.score,
        "threshold": judgement.threshold,
        "p_value": judgement.p_value,
        "reason_code": int(judgement.reason),
        "reason": judgement.reason.name,
        "detail": judgement.detail,
        "modality": judgement.modality,
        "region": None
        if region is None
        else {"x": region.x, "y": region.y, "w": region.w, "h": region.h, "area_px": region.area_px},
        **{
            f"{name}_image_distance": scores.modalities[name].image_distance if scores else None
            for name in manifest.network.modalities
        },
        "ms": round((time.perf_counter_ns() - start_ns) / 1e6, 1),
    }
    return judgement, scores, line


def _samples(source: Path) -> list[Sample]:
    """Frames of a folder, or the one frame that a file is half of. Raises DataError."""
    from asperity.runtime.cameras.files.folders import list_samples, one_sample
    from asperity.runtime.errors import DataError

    if source.is_dir():
        return list_samples(source)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder of frames or files of single frames")
    return [one_sample(source)]


def _tracked(track: Any, samples: list[Sample]) -> list[Sample]:
    from rich.console import Console

    return cast("list[Sample]", track(samples, "scoring", console=Console(markup=False, stderr=True), transient=True))


def _map_path(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '_')}.png"


def _check_maps(folder: Path, samples: list[Sample]) -> None:
    """Raises UsageError where the map of one frame would replace another's."""
    from asperity.runtime.errors import UsageError

    taken: dict[Path, Sample] = {}
    for sample in samples:
        other = taken.setdefault(_map_path(folder, sample.name), sample)
        if other is not sample:
            raise UsageError(
                f"--maps: {other.rgb} and {sample.rgb} would both be drawn in {_map_path(folder, sample.name)}; score "
                "them one after the other, with a folder each"
            )


def _write_map(folder: Path, name: str, frame: Frame, scores: Scores, decision: Decision, judgement: Judgement) -> None:
    from PIL import Image

    from asperity.runtime.errors import DataError
    from asperity.runtime.frame import Verdict
    from asperity.runtime.vision.maps import pixel_map, source_map
    from asperity.runtime.vision.overlay import heat_overlay
    from asperity.runtime.vision.scoring import fused_map

    height_px, width_px = frame.shape_px
    pixels = pixel_map(fused_map(scores.modalities, decision))
    low = float(pixels.min())
    placed = source_map(pixels, scores.window, height_px, width_px, outside=low)
    region = judgement.region if judgement.verdict is Verdict.NG else None
    picture = heat_overlay(frame.rgb, placed, max(low, 0.0), max(float(pixels.max()), MAP_FLOOR), region)
    path = _map_path(folder, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            Image.fromarray(picture).save(file, "PNG")
    except FileExistsError as error:
        raise DataError(f"map {path} exists and is not overwritten; name a new folder with --maps") from error
    except OSError as error:
        raise DataError(
            f"map {path} cannot be written ({error.strerror or error}); free space or change --maps"
        ) from error
