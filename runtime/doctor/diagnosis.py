"""All checks in the order of the table, and the engine that they are judged for."""

from __future__ import annotations

from pathlib import Path

from asperity.runtime.doctor import box, gpu, python, recipes
from asperity.runtime.doctor.box import Setting
from asperity.runtime.doctor.findings import Diagnosis, Engine
from asperity.runtime.doctor.world import World


def diagnose(world: World, setting: Setting, fatbin: Path, wanted: Engine | None) -> Diagnosis:
    """Run all checks.

    ``wanted``: None for what the machine could run, which is cuda where the driver shows a GPU, else cpu.
    """
    station, index = setting.station, setting.station.engine.gpu
    recipes_found, digests = recipes.check_recipes(station)
    findings = (
        python.check_python(world),
        python.check_libraries(world),
        python.check_onnxruntime(world),
        python.check_zeromq(world),
        gpu.check_driver(world),
        gpu.check_gpu(world, index),
        gpu.check_kernels(world, fatbin, index),
        gpu.check_pycuda(world),
        gpu.check_bindings(world),
        gpu.check_tensorrt(world, index),
        gpu.check_cublas(world),
        box.check_engine_cache(world, setting),
        recipes_found,
        recipes.check_networks(world, station, digests),
        box.check_clock(world),
        box.check_time(world),
        box.check_power(world),
        box.check_processors(world),
        box.check_memory(world),
        box.check_journal(world, setting),
        box.check_keys(world, setting),
        box.check_sockets(setting),
        box.check_systemd(world),
        python.check_calibrate(world),
    )
    if wanted is not None:
        return Diagnosis(findings, wanted, "as requested")
    if world.driver().gpus:
        return Diagnosis(findings, Engine.CUDA, f"this machine has a GPU ({world.driver().gpus[0].name})")
    return Diagnosis(findings, Engine.CPU, "this machine shows no NVIDIA GPU")
