"""A calibration folder becomes a bundle: graphs, banks, golden frames, manifest, signature, all proven before use.

Everything is written into a temporary folder next to the target and renamed at the end, so that a failure, a full disk
or an interrupt leaves no bundle and never a part of one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from asperity import runtime
from asperity.calibration.networks.torch_networks import TorchNetworks, restore
from asperity.calibration.profiles import profile_as_calibrated
from asperity.calibration.record import HEIGHTS, CalibrationFolder, load_folder
from asperity.export.golden import GoldenSet, make_golden
from asperity.export.onnx import export_graphs
from asperity.export.parity import ParityReport, prove_parity, reference_scores
from asperity.runtime.bundle.banks import bank_tensors
from asperity.runtime.bundle.checks import BANKS_FILE, INPUTS_FILE, RECIPE_NAME, check_manifest
from asperity.runtime.bundle.reader import MANIFEST_FILE, SIGNATURE_FILE, Bundle, decode_manifest, open_bundle
from asperity.runtime.bundle.sizes import geometry_fault
from asperity.runtime.bundle.surfaces import HEIGHTS_FILE, input_shapes
from asperity.runtime.engines.cpu import CpuEngine, OnnxNetworks
from asperity.runtime.engines.parity_gate import no_progress, prove
from asperity.runtime.errors import BundleError, DataError, UsageError
from asperity.runtime.files import put_folder
from asperity.runtime.frame import Frame
from asperity.runtime.manifest import FORMAT, Decision, File, Manifest
from asperity.runtime.security.signing_keys import SigningKey, TrustStore

PARITY_FILE = "parity.json"
PERCENTILE_SAMPLES = 100
"""A 99th percentile needs at least this many samples; with fewer the largest is taken."""
DEFAULT_TIMING_S = 20.0
FOLDER_MODE, FILE_MODE = 0o755, 0o644
"""A bundle holds no secret, and the station may run as another user than the one who calibrated."""

Say = Callable[[str], None]
"""Receives the export's progress as text."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported."""

    path: Path
    digest: str
    key_id: str
    nbytes: int
    threshold: float
    frame_p50_ms: float
    frame_p99_ms: float
    timed_frames: int
    spoiled: tuple[str, ...]
    """What was done to the golden frames that must be ng: geometry, colour. Empty: the bundle is for timing only."""
    parity: ParityReport


def export_bundle(
    calibration_dir: Path,
    bundle_dir: Path,
    trust: TrustStore,
    *,
    force: bool = False,
    threads: int | None = None,
    timing_s: float = DEFAULT_TIMING_S,
    timing_only: bool = False,
    say: Say = no_progress,
) -> ExportReport:
    """Write, sign, open and prove a bundle of a calibration folder. It is at ``bundle_dir`` when this returns.

    ``timing_only``: do not ask whether the networks see a defect, and give every frame the verdict unknown.

    Raises UsageError (target exists, without ``force``), DataError (calibration folder incomplete, disk full),
    CalibrationError (networks that see no spoiled frame), ParityError (engine and torch disagree), SignatureError.
    """
    folder = load_folder(calibration_dir)
    if not RECIPE_NAME.fullmatch(folder.record.recipe):
        raise DataError(
            f"{folder.path} calls its recipe {folder.record.recipe!r}; a recipe's name has 1 to 32 characters from "
            "a-z 0-9 _ -: calibrate again with --recipe NAME"
        )
    if fault := geometry_fault(folder.record.geometry, folder.record.network):
        raise DataError(f"{folder.path} has {fault}; calibrate again")
    if timing_only:
        decision = msgspec.structs.replace(folder.record.decision, timing_only=True)
        folder = dataclasses.replace(folder, record=msgspec.structs.replace(folder.record, decision=decision))
    key = trust.key_for_signing()
    with _replacing(bundle_dir, force) as draft_dir:
        report = _export(folder, draft_dir, bundle_dir, key, trust, threads, timing_s, say)
        say("opening and proving the bundle")
        bundle = open_bundle(draft_dir, trust)
        engine = CpuEngine.open(bundle, threads)
        try:
            prove(bundle, engine)
        finally:
            engine.close()
    _write_parity(folder, report.parity)
    return report


def _write_parity(folder: CalibrationFolder, parity: ParityReport) -> None:
    path = folder.report_path.with_name(PARITY_FILE)
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(parity), indent=1))
    except OSError as error:
        raise DataError(
            f"the bundle was exported, but its parity report {path} could not be written ({error.strerror}); free some "
            "space or make the folder writable"
        ) from error


def _export(
    folder: CalibrationFolder,
    draft_dir: Path,
    bundle_dir: Path,
    key: SigningKey,
    trust: TrustStore,
    threads: int | None,
    timing_s: float,
    say: Say,
) -> ExportReport:
    record = folder.record
    say("exporting the networks to ONNX")
    networks = stored_networks(folder)
    export_graphs(networks, record.network, draft_dir)
    banks = folder.banks()
    save_file(bank_tensors(banks), draft_dir / BANKS_FILE)
    if record.network.height is not None:
        _copy(folder.path / HEIGHTS, draft_dir / HEIGHTS_FILE)
    for name, path in folder.mask_paths().items():
        _copy(path, draft_dir / name)
    draft = _draft(folder, draft_dir, key)
    _write_inputs(folder, draft, networks)
    draft = _draft(folder, draft_dir, key)

    say("comparing the engine with torch")
    engine = CpuEngine.open(draft, threads)
    try:
        graphs = {name: draft.graph(name) for name in draft.graph_names()}
        onnx_networks = OnnxNetworks(graphs, record.network, threads or 1)
        decision, parity = prove_parity(draft, engine, networks, onnx_networks, no_progress)
        onnx_networks.close()
        draft = _with(draft, decision=decision)
        say("choosing golden frames" if decision.timing_only else "choosing and spoiling golden frames")
        golden = make_golden(folder, draft, engine)
        golden.write(draft_dir)
        say("timing the whole path")
        times_ms = measure_frames(engine, golden, timing_s)
    finally:
        engine.close()

    p99_ms = float(np.percentile(times_ms, 99)) if len(times_ms) >= PERCENTILE_SAMPLES else float(max(times_ms))
    manifest = _manifest(folder, decision, golden, p99_ms, draft_dir)
    try:
        check_manifest(manifest)
    except BundleError as error:
        raise DataError(f"calibration folder {folder.path} {error}; calibrate again") from error
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    decode_manifest(data, bundle_dir)
    (draft_dir / MANIFEST_FILE).write_bytes(data)
    (draft_dir / SIGNATURE_FILE).write_bytes(key.sign(data))
    for path in draft_dir.rglob("*"):
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
    return ExportReport(
        path=bundle_dir,
        digest=hashlib.sha256(data).hexdigest(),
        key_id=key.key_id,
        nbytes=sum(file.nbytes for file in manifest.files) + len(data),
        threshold=decision.threshold,
        frame_p50_ms=float(np.percentile(times_ms, 50)),
        frame_p99_ms=p99_ms,
        timed_frames=len(times_ms),
        spoiled=golden.spoiled,
        parity=parity,
    )


def stored_networks(folder: CalibrationFolder) -> TorchNetworks:
    """The calibration's networks, adaptors included. Raises DataError when the folder's weights do not fit."""
    record = folder.record
    calibrated = profile_as_calibrated(record.network, record.rgb_taps, record.rgb_norm)
    return restore(calibrated, folder.networks_path, record.weights)


def measure_frames(engine: CpuEngine, golden: GoldenSet, budget_s: float) -> list[float]:
    """Milliseconds of the whole path for golden frames in turn: 100 of them, or as many as the budget allows."""
    frames: list[Frame] = golden.frames
    engine.score(frames[0], no_progress)
    times_ms: list[float] = []
    end_ns = time.perf_counter_ns() + int(budget_s * 1e9)
    while len(times_ms) < PERCENTILE_SAMPLES and (len(times_ms) < len(frames) or time.perf_counter_ns() < end_ns):
        start_ns = time.perf_counter_ns()
        engine.score(frames[len(times_ms) % len(frames)], no_progress)
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return times_ms


def _write_inputs(folder: CalibrationFolder, draft: Bundle, networks: TorchNetworks) -> None:
    """Calibration inputs with the torch reference's scores of them against the whole banks."""
    stored = folder.calibration_inputs()
    tensors: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(stored[name], dtype=kind)
        for name, (kind, _) in input_shapes(folder.record.network).items()
    }
    path = draft.path / INPUTS_FILE
    save_file(tensors, path)
    if folder.record.options.held_out == "leave_one_out":
        # The stored scores leave each frame's own rows out of the banks, which no engine can do.
        written = _draft(folder, draft.path, None)
        record = folder.record
        scores = reference_scores(written.calibration_inputs(), record.network, record.decision, networks, written)
        save_file({**tensors, "scores": scores.astype(np.float32)}, path)


def _draft(folder: CalibrationFolder, draft_dir: Path, key: SigningKey | None) -> Bundle:
    """A bundle in the making: its files as they are, no golden frames, no signature. Only the exporter opens it."""
    manifest = _manifest(folder, folder.record.decision, None, 1.0, draft_dir)
    return Bundle(path=draft_dir, manifest=manifest, digest="", key_id=key.key_id if key else "")


def _with(draft: Bundle, decision: Decision) -> Bundle:
    manifest = msgspec.structs.replace(draft.manifest, decision=decision)
    return Bundle(path=draft.path, manifest=manifest, digest=draft.digest, key_id=draft.key_id)


def _manifest(
    folder: CalibrationFolder, decision: Decision, golden: GoldenSet | None, frame_p99_ms: float, draft_dir: Path
) -> Manifest:
    record = folder.record
    return Manifest(
        format=FORMAT,
        asperity=runtime.__version__,
        recipe=record.recipe,
        created_us=time.time_ns() // 1000,
        geometry=record.geometry,
        network=record.network,
        weights=record.weights,
        decision=decision,
        silhouette=record.silhouette,
        golden=golden.golden if golden else (),
        golden_tolerance=record.golden_tolerance,
        normal_frames=record.normal_frames,
        frame_p99_ms=frame_p99_ms,
        files=tuple(_files(draft_dir)),
        smallest_defects=record.smallest_defects,
        held_out=record.options.held_out,
    )


def _files(draft_dir: Path) -> Iterator[File]:
    for path in sorted(draft_dir.rglob("*")):
        if path.is_file() and path.name not in (MANIFEST_FILE, SIGNATURE_FILE):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield File(path=path.relative_to(draft_dir).as_posix(), nbytes=path.stat().st_size, sha256=digest)


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise DataError(f"{source} is missing: the calibration folder is incomplete, calibrate again")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def refuse_existing(target: Path, force: bool) -> None:
    """Raises UsageError when something is at ``target``, or with ``force`` something that is not a bundle."""
    if target.exists() and not force:
        raise UsageError(f"{target} exists; name another folder, or give --force to replace it")
    if target.exists() and not (target / MANIFEST_FILE).is_file():
        raise UsageError(f"{target} is not a bundle, so --force does not replace it; name another folder")


@contextlib.contextmanager
def _replacing(target: Path, force: bool) -> Iterator[Path]:
    """A temporary folder next to ``target`` that replaces it when the block succeeds, and is removed when it fails."""
    target = Path(target).absolute()
    refuse_existing(target, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise DataError(f"no bundle can be written to {target} ({error.strerror}); name another folder") from error
    try:
        yield draft
        draft.chmod(FOLDER_MODE)
        put_folder(draft, target)
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise DataError(
                f"the disk is full: the bundle {target} was not written; free some space, or name a folder on another "
                "disk, and export again"
            ) from error
        raise DataError(f"the bundle {target} could not be written ({error}); nothing was left behind") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
