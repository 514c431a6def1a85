"""`asperity engines`: TensorRT engines for this machine's GPU, kept in a cache of this user (docs/engines.md)."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from asperity.runtime.files import shown

if TYPE_CHECKING:
    from asperity.runtime.engines.tensorrt.plan_cache import PlanCache, PlanSet

app = typer.Typer(
    name="engines",
    no_args_is_help=True,
    help="Build and manage TensorRT engines for this machine's GPU.",
)

Cache = Annotated[Path | None, typer.Option("--cache", help="Folder of engines; default: the user's cache.")]
MaxMbytes = Annotated[int, typer.Option("--cache-max-mbytes", min=64, help="Largest size of that folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Keys = Annotated[Path | None, typer.Option("--keys", help="Key folder; default: the user's.")]
DEFAULT_MAX_MBYTES = 8192


@app.command()
def build(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    precision: Annotated[str, typer.Option(help="Precision: fp32, fp16 or int8.")] = "fp16",
    softmax: Annotated[
        str, typer.Option(help="Precision of softmax: half, fp32, or auto (half, and fp32 if the gate refuses).")
    ] = "auto",
    library: Annotated[str, typer.Option(help="Library: tensorrt or tensorrt-rtx; default: the installed one.")] = "",
    gpu: Annotated[int, typer.Option(min=0, help="Number of the GPU, as in nvidia-smi.")] = 0,
    cache: Cache = None,
    cache_max_mbytes: MaxMbytes = DEFAULT_MAX_MBYTES,
    memory_mbytes: Annotated[int, typer.Option(min=64, help="GPU memory for the build.")] = 2048,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for the int8 ranges.")] = 1,
    nice: Annotated[int, typer.Option(min=0, max=19, help="Nice value of the build.")] = 0,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Build the engines of a bundle, for a station with the cuda engine."""
    from asperity.export.attempt import gpu_attempt
    from asperity.export.commands.shown import saying
    from asperity.export.tensorrt import BuildOptions, build_engines
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.cuda.environment import find_gpu
    from asperity.runtime.engines.tensorrt.library import LibraryName, load_library
    from asperity.runtime.engines.tensorrt.plan_cache import Precision
    from asperity.runtime.security.signing_keys import TrustStore

    os.nice(nice)
    options = BuildOptions(
        precision=one_of("--precision", precision, Precision),
        softmax=one_of("--softmax", softmax, Literal["auto", "half", "fp32"]),
        workspace_nbytes=memory_mbytes * 10**6,
        threads=threads,
    )
    loaded = load_library(one_of("--library", library, LibraryName) if library else None)
    opened = open_bundle(bundle, TrustStore(keys))
    with saying() as say:
        found = find_gpu(gpu)
        if found is None:
            say("no GPU found: the engines are built as a test and cannot run here")
        attempt = gpu_attempt(opened, loaded, gpu) if found else None
        built = build_engines(opened, _cache(cache, cache_max_mbytes), loaded, found, options, say, attempt)
    _show(built, as_json)


@app.command("list")
def list_sets(cache: Cache = None, as_json: Json = False) -> None:
    """List the built engines, last used first."""
    plans = _cache(cache, DEFAULT_MAX_MBYTES)
    sets, unusable = plans.survey()
    if as_json:
        typer.echo(json.dumps({"engines": [_told(found) for found in sets], "unusable": unusable}))
        return
    if not sets and not unusable:
        typer.echo(shown(f"no engines in {plans.folder}; `asperity engines build` makes some"))
    for found in sets:
        _show(found, as_json=False)
    for name, why in unusable.items():
        typer.echo(shown(f"{name}  unusable: {why}"))


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of a set of engines, from `asperity engines list`.")],
    cache: Cache = None,
) -> None:
    """Remove a set of engines."""
    _cache(cache, DEFAULT_MAX_MBYTES).remove(name)


@app.command()
def parity(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    precision: Annotated[str, typer.Option(help="Precision: fp16 or int8.")] = "fp16",
    frames: Annotated[int, typer.Option(min=1, help="Calibration frames to compare layers on.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Compare layers, scores and golden frames of a precision with the bundle's."""
    import msgspec

    from asperity.export.precision_parity import compare_precision
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.engines.tensorrt.plan_cache import Precision
    from asperity.runtime.security.signing_keys import TrustStore

    chosen = one_of("--precision", precision, Precision)
    report = compare_precision(open_bundle(bundle, TrustStore(keys)), chosen, frames, threads)
    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    for graph, layers in report.layers.items():
        worst = max(layers, key=lambda layer: layer.rms_error)
        typer.echo(
            f"{graph:20} output {layers[-1].rms_error:.5f} rms, {layers[-1].largest_error:.4f} largest, in standard "
            f"deviations; worst {worst.operator} {worst.tensor}: {worst.rms_error:.5f} rms"
        )
    scores = report.scores
    typer.echo(
        f"scores               within {scores.largest_shift:.4f} standard deviations on {scores.frames} frames, rank "
        f"correlation {scores.rank_correlation:.5f}"
    )
    typer.echo(f"gate                 {report.gate or 'passed'}")


@app.command("torch-tensorrt")
def torch_tensorrt(
    calibration: Annotated[Path, typer.Argument(help="Calibration folder of the bundle.")],
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    precision: Annotated[str, typer.Option(help="Precision: fp32, fp16 or int8.")] = "fp16",
    gpu: Annotated[int, typer.Option(min=0, help="Number of the GPU, as in nvidia-smi.")] = 0,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Compile the networks with Torch-TensorRT and test them with the bundle's gate."""
    import msgspec

    from asperity.export.torch_tensorrt import prove_torch_tensorrt
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.engines.tensorrt.plan_cache import Precision
    from asperity.runtime.security.signing_keys import TrustStore

    chosen = one_of("--precision", precision, Precision)
    decision = prove_torch_tensorrt(calibration, open_bundle(bundle, TrustStore(keys)), chosen, gpu)
    if as_json:
        typer.echo(msgspec.json.encode(decision))
        return
    typer.echo(f"gate                 passed, threshold {decision.threshold:.4f}")


def one_of(option: str, value: str, choices: Any) -> Any:
    """The value where it is one of a Literal's. Raises UsageError naming the option."""
    from asperity.runtime.errors import UsageError

    if value not in get_args(choices):
        raise UsageError(f"{option} {value!r} is not known; choose one of {', '.join(get_args(choices))}")
    return value


def _cache(folder: Path | None, max_mbytes: int) -> PlanCache:
    from asperity.runtime.engines.tensorrt.plan_cache import PlanCache
    from asperity.runtime.settings.paths import engine_cache
    from asperity.runtime.settings.station_toml import StationConfig

    return PlanCache(folder or engine_cache(StationConfig()), max_mbytes * 10**6)


def _told(found: PlanSet) -> dict[str, Any]:
    import msgspec

    values: dict[str, Any] = msgspec.to_builtins(found.record)
    return {"name": found.folder.name, "folder": str(found.folder), "nbytes": found.nbytes, **values}


def _show(found: PlanSet, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_told(found)))
        return
    key = found.record.key
    made = datetime.fromtimestamp(found.record.created_us / 1e6, timezone.utc)
    gpu = f"{key.gpu.name} (driver {key.gpu.driver})" if key.gpu else "no GPU"
    typer.echo(
        f"{found.folder.name}  {key.precision}, softmax {key.softmax}  bundle {key.bundle[:12]}  {key.library} "
        f"{key.version}  {gpu}  {found.nbytes / 1e6:.1f} MB  {made:%Y-%m-%d %H:%M} UTC"
    )
