"""The published form beside ours in one run: the same prepared frames, weights, banks and threads, in turn.

Both start from the prepared frame and end with distances and image distances; background removal and the verdict are
the same code for both and not timed. The published form is ``benchmarks/published_form/torch_form.py``: on ONNX
Runtime and BLAS (``benchmarks/published_form/onnx_form.py``), the libraries that ours uses, or in torch.

The published form that is timed measures distances in float32, as published, and its matrix product loses digits of
small distances. That both compute the same function is therefore shown with its distances in float64, outside the
timing; the error of its float32 is reported separately.

    python -m asperity.benchmarks.published_form.side_by_side BUNDLE FRAMES [--profile paper]
"""

from __future__ import annotations

import logging
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
import onnxruntime as ort
import torch
import typer
from threadpoolctl import ThreadpoolController, threadpool_info

from asperity.benchmarks.published_form.mac_count import giga, graph_macs, matmul_gflops, search_macs, torch_macs
from asperity.benchmarks.published_form.onnx_form import Rival
from asperity.benchmarks.published_form.paired import ratio_of_medians
from asperity.benchmarks.published_form.torch_form import PublishedBank, PublishedPipeline, PublishedScores
from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.calibration.calibrate import FOLDER
from asperity.calibration.features.embedding import fit_station_statistics
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.profiles import network_for, profile
from asperity.calibration.record import load_folder
from asperity.export.bundle import stored_networks
from asperity.export.onnx import export_graphs
from asperity.runtime.bundle.banks import Banks
from asperity.runtime.bundle.reader import Bundle, open_bundle
from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.samples import read_sample
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.parity_gate import no_progress
from asperity.runtime.errors import DataError, FrameRefused, ParityError, UsageError
from asperity.runtime.frame import FloatArray, ModalityName, Prepared, Scores
from asperity.runtime.manifest import Network
from asperity.runtime.process.processors import usable_processors
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.vision.distances import ModalityBank
from asperity.runtime.vision.features import adapted_patches, frozen_patches, points_slots
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.preprocess import prepare

TOLERANCE = 1e-4
"""Largest difference of a patch's or an image's distance, relative to the frame's largest distance."""
CHECKED_FRAMES = 3
"""Frames compared with the oracle, and counted; a tenth of the frames if that is less."""
PERCENTILE_SAMPLES = 100
"""A 99th percentile needs at least this many frames; with fewer it is left out."""
SEEDED_BANK_FRAMES = 3
SEEDED_BANK_NOISE = 0.3
"""Standard deviation of the noise added to a made bank's rows, in standard deviations of the features."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One run."""

    bundle: Bundle
    folder: Path
    calibration: Path
    profile: str | None
    """None: the bundle's own. Another one: its network at the bundle's geometry, seeded weights and made banks."""
    frames: int
    threads: int
    rival: Literal["onnx", "torch"]
    bank_frames: int
    """Number of normal frames whose bank a made bank equals in size."""


@dataclass(frozen=True, slots=True)
class _Setting:
    network: Network
    networks: TorchNetworks
    graphs: dict[str, bytes]
    banks: Banks
    prepared: list[Prepared]
    banks_are: str


def run_side_by_side(options: SideBySide) -> dict[str, Any]:
    """The figures. Raises DataError with no frame to score, ParityError where results differ beyond ``TOLERANCE``."""
    before = machine()
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.set_num_threads(options.threads)
    setting = _setting(options)
    engine = CpuEngine(
        options.bundle.manifest.geometry, setting.network, setting.graphs, setting.banks, threads=options.threads
    )
    plain, exact = _plain(setting, options), _exact(setting)
    ours_ms, plain_ms, ours_cpu_ms, plain_cpu_ms = [], [], [], []
    stages: list[dict[str, int]] = []
    worst = rounding = 0.0
    # Ours holds BLAS to less by itself; the rival may use all its threads.
    held = ThreadpoolController().limit(limits=options.threads, user_api="blas")
    try:
        for prepared in setting.prepared[: min(CHECKED_FRAMES, -(-options.frames // 10))]:
            worst = max(worst, difference(engine.score_prepared(prepared, no_progress), exact.score(prepared)))
            plain.score(prepared)
        if not worst <= TOLERANCE:
            raise ParityError(f"ours and the published form differ by {worst:.2g} of the largest distance")
        parts = plain.spent_ms if isinstance(plain, Rival) else {}
        parts.update(dict.fromkeys(parts, 0.0))
        for index in range(options.frames):
            prepared = setting.prepared[index % len(setting.prepared)]
            ours, wall_ms, cpu_ms = _timed(partial(engine.score_prepared, prepared, no_progress))
            ours_ms.append(wall_ms)
            ours_cpu_ms.append(cpu_ms)
            stages.append(dict(ours.stage_us))
            theirs, wall_ms, cpu_ms = _timed(partial(plain.score, prepared))
            plain_ms.append(wall_ms)
            plain_cpu_ms.append(cpu_ms)
            rounding = max(rounding, difference(ours, theirs))
    finally:
        held.restore_original_limits()
        engine.close()
    work = [_work(setting, exact, prepared) for prepared in setting.prepared[:CHECKED_FRAMES]]
    counted = float(np.mean([w[1]["total"] / w[0]["total"] for w in work]))
    ratio = ratio_of_medians(plain_ms, ours_ms)
    own = _figures(ours_ms)
    return {
        "measured": "prepared frame to distances; the published form and ours in turn; background removal outside",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": before,
        "versions": {"torch": torch.__version__, "onnxruntime": ort.__version__, "numpy": np.__version__},
        "blas": sorted({f"{one['internal_api']} {one.get('architecture', '')}" for one in threadpool_info()}),
        "float32_gflops": matmul_gflops(options.threads),
        "profile": setting.network.profile,
        "banks": setting.banks_are,
        "bank_rows": {name: len(bank.memory) for name, bank in setting.banks.items()},
        "threads": options.threads,
        "published_runs_on": "ONNX Runtime and numpy's BLAS" if options.rival == "onnx" else "torch",
        "nonempty_patches": round(float(np.mean([w[2] for w in work])), 1),
        "patches": setting.network.grid**2,
        **own,
        "published": _figures(plain_ms),
        "cpu_p50_ms": {
            name: round(float(np.median(times)), 1)
            for name, times in (("ours", ours_cpu_ms), ("published", plain_cpu_ms))
        },
        "ours_stage_p50_ms": {
            stage: round(float(np.median([one.get(stage, 0) for one in stages])) / 1000, 2) for stage in stages[0]
        },
        "published_stage_mean_ms": _parts(parts, plain_ms),
        "gmac": {"ours": work[0][0], "published": work[0][1]},
        "ratio_published": round(ratio.ratio, 3),
        "ratio_interval_95": [round(ratio.low, 3), round(ratio.high, 3)],
        "ratio_counted": round(counted, 3),
        "ratio_share_of_counted": round(ratio.ratio / counted, 3),
        "largest_difference": float(f"{worst:.3g}"),
        "tolerance": TOLERANCE,
        "published_float32_difference": float(f"{rounding:.3g}"),
    }


PUBLISHED: tuple[ModalityName, ...] = ("rgb", "points")
"""The published form has these two."""


def _plain(setting: _Setting, options: SideBySide) -> PublishedPipeline:
    """The rival."""
    banks = [_published(setting.banks[name]) for name in PUBLISHED]
    if options.rival == "torch":
        return PublishedPipeline(setting.network, setting.networks.modules, *banks)
    return Rival(setting.network, setting.networks.modules, banks[0], banks[1], options.threads)


def _exact(setting: _Setting) -> PublishedPipeline:
    """The oracle: distances in float64."""
    banks = [_published(setting.banks[name]) for name in PUBLISHED]
    return PublishedPipeline(setting.network, setting.networks.modules, *banks, distance_dtype=torch.float64)


def _parts(spent_ms: dict[str, float], times_ms: list[float]) -> dict[str, float]:
    """The rival's mean times, and the rest of it: sampling, grouping, interpolation, canvas, pooling."""
    means = {name: spent / len(times_ms) for name, spent in spent_ms.items()}
    means["rest"] = float(np.mean(times_ms)) - sum(means.values())
    return {name: round(mean, 2) for name, mean in means.items()}


def _timed(run: Callable[[], T]) -> tuple[T, float, float]:
    """The function's result, with wall and processor milliseconds."""
    cpu_ns, since_ns = time.process_time_ns(), time.perf_counter_ns()
    result = run()
    return result, (time.perf_counter_ns() - since_ns) / 1e6, (time.process_time_ns() - cpu_ns) / 1e6


def difference(ours: Scores, theirs: PublishedScores) -> float:
    """Largest difference of any scored patch's or image's distance, relative to the largest of its kind."""
    if not np.array_equal(ours.scored, theirs.scored):
        return float("inf")
    found = 0.0
    for own, distances, image in (
        (ours.modalities["rgb"], theirs.rgb_distances, theirs.rgb_image_distance),
        (ours.modalities["points"], theirs.points_distances, theirs.points_image_distance),
    ):
        other = distances.numpy().reshape(ours.scored.shape)[ours.scored]
        found = max(
            found,
            float(np.abs(own.distance_map[ours.scored] - other).max() / np.abs(other).max()),
            abs(own.image_distance - image) / abs(image),
        )
    return found


def _setting(options: SideBySide) -> _Setting:
    manifest = options.bundle.manifest
    if options.profile in (None, manifest.network.profile):
        folder = load_folder(options.calibration)
        prepared = _prepared(options, manifest.network)
        graphs = {name: options.bundle.graph(name) for name in options.bundle.graph_names()}
        return _Setting(
            manifest.network, stored_networks(folder), graphs, options.bundle.banks(), prepared, "the bundle's own"
        )
    chosen = profile(str(options.profile))
    network = network_for(chosen, manifest.geometry, "lsfa")
    prepared = _prepared(options, network)
    networks = build(chosen, seeded=True)
    fit_station_statistics(prepared[:SEEDED_BANK_FRAMES], network, networks, chosen)
    networks.set_adaptors(*networks.new_adaptors(seed=7))
    made = [
        adapted_patches(frozen_patches(one, network, networks), network, networks)
        for one in prepared[:SEEDED_BANK_FRAMES]
    ]
    most = max(int(one.nonempty.sum()) for one in made)
    network = msgspec.structs.replace(network, points_slots=points_slots(most, network.grid))
    sizes = (
        min(int(chosen.rgb_bank_share * network.rgb_grid**2 * options.bank_frames), chosen.rgb_bank_cap),
        min(int(chosen.points_bank_share * network.grid**2 * options.bank_frames), chosen.points_bank_cap),
    )
    points = [one.features["points"][one.nonempty.ravel()] for one in made]
    banks: Banks = {
        "rgb": _made_bank(np.concatenate([one.features["rgb"] for one in made]), sizes[0], 1),
        "points": _made_bank(np.concatenate(points), sizes[1], 2),
    }
    with tempfile.TemporaryDirectory(prefix="asperity-") as scratch:
        paths = export_graphs(networks, network, Path(scratch))
        graphs = {path.stem: path.read_bytes() for path in paths}
    banks_are = (
        f"made: rows of {SEEDED_BANK_FRAMES} frames drawn at random, with noise of {SEEDED_BANK_NOISE} standard "
        f"deviations, as many as {options.bank_frames} frames give; weights seeded"
    )
    return _Setting(network, networks, graphs, banks, prepared, banks_are)


def _made_bank(features: FloatArray, rows: int, seed: int) -> ModalityBank:
    rng = np.random.default_rng(seed)
    mean, std = float(features.mean()), float(features.std())
    chosen = (features[rng.integers(0, len(features), rows)] - np.float32(mean)) / np.float32(std)
    chosen += np.float32(SEEDED_BANK_NOISE) * rng.standard_normal(chosen.shape, dtype=np.float32)
    return ModalityBank(MemoryBank(chosen), mean, std)


def _prepared(options: SideBySide, network: Network) -> list[Prepared]:
    found: list[Prepared] = []
    for sample in list_samples(options.folder):
        if len(found) >= max(options.frames, SEEDED_BANK_FRAMES):
            break
        try:
            found.append(prepare(read_sample(sample), options.bundle.manifest.geometry, network))
        except FrameRefused as error:
            log.warning("%s is left out: %s", sample.name, error)
    if not found:
        raise DataError(f"no frame of {options.folder} can be prepared; give the bundle's own product")
    return found


def _published(bank: ModalityBank) -> PublishedBank:
    usual = None
    if bank.usual is not None:
        usual = (torch.from_numpy(np.array(bank.usual.mean)), torch.from_numpy(np.array(bank.usual.std)))
    projection = None if bank.projection is None else torch.from_numpy(np.array(bank.projection))
    return PublishedBank(
        torch.from_numpy(bank.memory.rows.copy()), bank.feature_mean, bank.feature_std, usual, projection
    )


def _work(
    setting: _Setting, plain: PublishedPipeline, prepared: Prepared
) -> tuple[dict[str, float], dict[str, float], int]:
    """GMAC of ours and of the published form for one frame, and its non-empty patches."""
    network, banks = setting.network, setting.banks
    tokens = plain.frozen(prepared)
    nonempty = int(tokens.nonempty.sum())
    scored = (tokens.nonempty.numpy() & prepared.inspect.ravel()).reshape(network.grid, network.grid)
    repeat = network.grid // network.rgb_grid
    distinct = scored.reshape(network.rgb_grid, repeat, network.rgb_grid, repeat).any(axis=(1, 3))
    larger = nonempty > network.points_slots
    left_out = "adaptor_points" if larger else "adaptor_points_full"
    ours = {name: graph_macs(model) for name, model in setting.graphs.items() if name != left_out}
    ours["knn_rgb"] = search_macs(int(distinct.sum()), len(banks["rgb"].memory), network.rgb_channels)
    ours["knn_points"] = search_macs(int(scored.sum()), len(banks["points"].memory), network.points_channels)
    everything = network.grid**2
    theirs = {
        "rgb": torch_macs(lambda: plain.rgb_tokens(prepared.image)),
        "points": torch_macs(lambda: plain.encoded(prepared.cloud)),
        "adaptors": torch_macs(lambda: plain.adapted(tokens)),
        "knn_rgb": search_macs(everything, len(banks["rgb"].memory), network.rgb_channels),
        "knn_points": search_macs(everything, len(banks["points"].memory), network.points_channels),
    }
    return giga(ours), giga(theirs), nonempty


def _figures(times_ms: list[float]) -> dict[str, Any]:
    p99 = round(float(np.percentile(times_ms, 99)), 2) if len(times_ms) >= PERCENTILE_SAMPLES else None
    return {
        "fps": round(1000 / float(np.mean(times_ms)), 3),
        "count": len(times_ms),
        "p50_ms": round(float(np.median(times_ms)), 2),
        "p99_ms": p99,
        "max_ms": round(max(times_ms), 2),
    }


def main(
    bundle: Annotated[Path, typer.Argument(help="bundle to run")],
    folder: Annotated[Path, typer.Argument(help="frames of its product, MVTec 3D-AD layout")],
    profile: Annotated[
        str | None,
        typer.Option(help="another profile than the bundle's: its network with seeded weights and made banks"),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="the bundle's calibration folder; default: the one beside the bundle")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="frames to measure, after one warm-up frame")] = 60,
    threads: Annotated[int, typer.Option(min=0, max=256, help="threads per side; 0: all cores")] = 0,
    rival: Annotated[
        str, typer.Option(help="what runs the published form: onnx (ONNX Runtime and BLAS, as ours) or torch")
    ] = "onnx",
    bank_frames: Annotated[int, typer.Option(min=1, help="size of a made bank, in normal frames")] = 200,
    keys: Annotated[Path | None, typer.Option(help="folder of trusted keys")] = None,
    out: Annotated[Path | None, typer.Option(help="also write the result to this file")] = None,
) -> None:
    """Time the published form and ours in turn on the same frames; the ratio and the counted one as JSON on stdout."""
    chosen: Literal["onnx", "torch"] = "torch" if rival == "torch" else "onnx"
    if rival != chosen:
        raise UsageError(f"--rival {rival!r} is not known; give onnx or torch")
    opened = open_bundle(bundle, TrustStore(keys))
    beside = calibration or bundle.absolute().parent / FOLDER
    options = SideBySide(opened, folder, beside, profile, frames, threads or usable_processors(), chosen, bank_frames)
    module = "asperity.benchmarks.published_form.side_by_side"
    report = {"command": shlex.join(["python", "-m", module, *sys.argv[1:]]), **run_side_by_side(options)}
    typer.echo(reports.as_text(report))
    if out is not None:
        reports.write_result(out, report)


if __name__ == "__main__":
    typer.run(main)
