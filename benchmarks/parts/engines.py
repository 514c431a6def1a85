"""Every network of every profile in every precision: how far its graph is from float32, and a real engine built of it.

Graphs are those of the exporter; weights are as shipped, or seeded where there are none (``paper``, and the RGB network
of `edge` without its package). Inputs are virtual frames after full preprocessing. Without a GPU TensorRT-RTX builds
but does not run, so no frame is timed here. Derived graphs and comparisons are kept in a folder, so that building
can be timed separately on a quiet machine.

    python -m asperity.benchmarks.parts.engines --out build/bench/engines.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console

from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.calibration.features.embedding import fit_station_statistics
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.profiles import network_for, profile
from asperity.export.commands.engines import one_of
from asperity.export.graph_inputs import record_inputs
from asperity.export.layers import LayerParity, compare_layers
from asperity.export.observe import Inputs
from asperity.export.onnx import export_graphs
from asperity.export.precision import TWINS, derived_graph
from asperity.export.quantize import activation_ranges
from asperity.export.tensorrt import build_plan
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.engines.tensorrt.library import Library, LibraryName, load_library
from asperity.runtime.engines.tensorrt.plan_cache import Precision, Softmax
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.features import points_slots
from asperity.runtime.vision.points import group
from asperity.runtime.vision.preprocess import Masks, prepare

PRODUCT = "bracket"
FORMS: tuple[tuple[Precision, Softmax], ...] = (("fp32", "fp32"), ("fp16", "half"), ("int8", "half"))
WORST = 3
"""Layers named of each graph."""
DERIVED = "derived.json"
WORK = Path("build/bench/engines")

Say = Callable[[str], None]


def run_engines(names: Sequence[str], frames: int, library: Library, work: Path, said: Say) -> dict[str, Any]:
    """The figures of these profiles; what ``work`` already holds is reused. Raises EngineError."""
    for name in names:
        if not (work / name / DERIVED).exists():
            derive_profile(name, frames, work / name, said)
    return {
        "benchmark": "engines",
        "measured": "a network's graph in each precision against float32 on virtual frames, by ONNX Runtime on the CPU "
        "in its rounding form; the engine that the library builds of it, with no GPU",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "library": library.label,
        "product": PRODUCT,
        "profiles": {name: _built(work / name, library, said) for name in names},
    }


def derive_profile(name: str, frames: int, folder: Path, said: Say) -> None:
    """Export a profile's graphs, derive every form, compare layers; graphs and figures go into the folder."""
    said(f"{name}: networks, frames, ONNX")
    networks, network, prepared = _made(name, frames)
    given = record_inputs(networks, network, prepared)
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    for path in export_graphs(networks, network, folder):
        said(f"{name}: {path.stem}")
        reached = path.stem if given.get(path.stem) else TWINS[path.stem]
        figures[path.stem] = _derived(path.read_bytes(), path.stem, given.get(path.stem, []), given[reached], folder)
    told = {
        "weights": {one.network: "seeded" if one.seeded else one.source for one in networks.origins},
        "points_slots": network.points_slots,
        "frames": frames,
        "commit": commit(),
        "graphs": figures,
    }
    (folder / DERIVED).write_text(json.dumps(told))


def _made(name: str, frames: int) -> tuple[TorchNetworks, Network, list[Prepared]]:
    """A profile's networks with fresh adaptors, its constants for a station of the virtual camera, prepared frames."""
    chosen = profile(name)
    camera = VirtualCamera(PRODUCT)
    shots = [camera.frame(index).frame for index in range(frames)]
    geometry = fit_geometry(shots)
    bare = network_for(chosen, geometry, "none")
    prepared = [prepare(frame, geometry, bare, Masks()) for frame in shots]
    networks = build(chosen)
    fit_station_statistics(prepared, bare, networks, chosen)
    networks.set_adaptors(*networks.new_adaptors(seed=0))
    most = max(int(group(one.cloud, bare).nonempty.sum()) for one in prepared)
    return networks, network_for(chosen, geometry, "lsfa", points_slots(most, chosen.grid)), prepared


def _derived(model: bytes, name: str, own: Sequence[Inputs], reached: Sequence[Inputs], folder: Path) -> dict[str, Any]:
    ranges = activation_ranges(model, name, reached)
    forms: dict[str, Any] = {}
    for precision, softmax in FORMS:
        form = derived_graph(model, name, precision, softmax, ranges)
        (folder / f"{name}.{precision}.onnx").write_bytes(form)
        forms[precision] = {"onnx_nbytes": len(form)}
        if precision != "fp32" and own:
            forms[precision] |= _told(compare_layers(model, form, name, own))
    return forms


def _told(layers: list[LayerParity]) -> dict[str, Any]:
    worst = sorted(layers, key=lambda layer: layer.rms_error, reverse=True)[:WORST]
    return {
        "output_rms_error": _short(layers[-1].rms_error),
        "output_largest_error": _short(layers[-1].largest_error),
        "largest_value": _short(max(layer.largest for layer in layers)),
        "worst": [
            {
                key: _short(value) if isinstance(value, float) else value
                for key, value in msgspec.to_builtins(one).items()
            }
            for one in worst
        ],
    }


def _short(value: float) -> float:
    return float(np.format_float_positional(value, 4, fractional=False))


def _built(folder: Path, library: Library, said: Say) -> dict[str, Any]:
    """What was derived, with an engine built of every form; ``build_s`` is wall time, in one thread."""
    told: dict[str, Any] = json.loads((folder / DERIVED).read_text())
    totals = {precision: {"plan_nbytes": 0, "build_s": 0.0} for precision, _ in FORMS}
    for name, forms in told["graphs"].items():
        for precision, _ in FORMS:
            said(f"{folder.name}: {name} {precision}")
            form = (folder / f"{name}.{precision}.onnx").read_bytes()
            begin_s = time.perf_counter()
            plan = build_plan(library, form, name).plan
            build_s = time.perf_counter() - begin_s
            forms[precision] |= {"plan_nbytes": len(plan), "build_s": round(build_s, 2)}
            totals[precision]["plan_nbytes"] += len(plan)
            totals[precision]["build_s"] = round(totals[precision]["build_s"] + build_s, 2)
    return {"totals": totals, **told}


def main(
    profiles: Annotated[str, typer.Option(help="lite, edge, paper, separated by commas")] = "lite,edge,paper",
    library: Annotated[
        str, typer.Option(help="tensorrt-rtx builds without a GPU; tensorrt needs one")
    ] = "tensorrt-rtx",
    frames: Annotated[int, typer.Option(min=1, help="number of virtual frames for comparing layers")] = 4,
    work: Annotated[Path, typer.Option(help="folder of derived graphs; those already there are reused")] = WORK,
    out: Annotated[Path | None, typer.Option(help="result file")] = None,
) -> None:
    """Build real engines of every network in fp32, fp16 and int8, and compare the graphs layer by layer."""
    loaded = load_library(one_of("--library", library, LibraryName))
    report = run_engines(profiles.split(","), frames, loaded, work, Console(markup=False, stderr=True).print)
    if out is not None:
        reports.write_result(out, report)
    typer.echo(reports.as_text({name: one["totals"] for name, one in report["profiles"].items()}))


if __name__ == "__main__":
    typer.run(main)
