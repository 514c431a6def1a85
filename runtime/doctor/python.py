"""Python, the packages, and the libraries that every engine needs."""

from __future__ import annotations

from pathlib import Path

from asperity.runtime.doctor.findings import Finding, listed, missing, note, ok, warning
from asperity.runtime.doctor.platforms import jetpack_of, pip, python_of_jetpack
from asperity.runtime.doctor.world import World
from asperity.runtime.extras import requirements

OLDEST = (3, 10)
LIBRARIES = (
    ("numpy", "numpy>=1.26"),
    ("scipy", "scipy>=1.11"),
    ("msgspec", "msgspec>=0.19"),
    ("safetensors", "safetensors>=0.5"),
    ("threadpoolctl", "threadpoolctl>=3.5"),
    ("cryptography", "cryptography>=43"),
    ("PIL", "pillow>=10.3"),
    ("tifffile", "tifffile>=2024.1"),
)
"""What Asperity itself requires besides those with their own line: module, requirement."""
CALIBRATE = {"torch": "torch", "open3d": "asperity.runtime.doctor.probes.open3d", "sklearn": "sklearn", "onnx": "onnx"}
"""What is needed to calibrate, and what to import for it."""


def check_python(world: World) -> Finding:
    """Version and kind of the interpreter."""
    version = ".".join(str(part) for part in world.python.version)
    kind = "venv" if world.python.is_venv else "not in a venv"
    found = f"{version}, {kind}, {world.python.executable}"
    if world.python.version[:2] < OLDEST or world.python.bits < 64:
        return missing("python", f"{found}: 64 bits and 3.10 or newer are needed", "python3.10 -m venv .venv")
    jetpack = jetpack_of(world)
    if jetpack is not None and world.python.version[:2] != python_of_jetpack(jetpack):
        wanted = ".".join(str(part) for part in python_of_jetpack(jetpack))
        return warning(
            "python",
            f"{found}; JetPack {jetpack} has TensorRT for Python {wanted} only (the cpu engine is not affected)",
            f"/usr/bin/python{wanted} -m venv --system-site-packages .venv",
        )
    if not world.python.is_venv:
        return note("python", found, "python3 -m venv .venv")
    if world.environment.get("PYTHONPATH"):
        return note("python", f"{found}; PYTHONPATH is set: {world.environment['PYTHONPATH']}")
    return ok("python", found)


def check_libraries(world: World) -> Finding:
    """Libraries of which nothing more is to be said than that they load."""
    wrong, versions = [], []
    for module, requirement in LIBRARIES:
        seen = world.imported(module)
        if seen.error:
            wrong.append((requirement, seen.error))
        else:
            versions.append(f"{module} {seen.version}")
    if wrong:
        said = "; ".join(f"{requirement.split('>')[0]}: {error}" for requirement, error in wrong)
        return missing("libraries", said, pip(world, "install", *(requirement for requirement, _ in wrong)))
    folder = Path(world.imported("numpy").path).parents[1]
    return ok("libraries", f"{', '.join(versions)} in {folder}")


def check_onnxruntime(world: World) -> Finding:
    """ONNX Runtime: it runs the networks of the cpu engine, and every engine's gate compares with it."""
    seen = world.imported("onnxruntime")
    if seen.error:
        return missing("onnxruntime", seen.error, pip(world, "install", "onnxruntime>=1.23"))
    numbers = tuple(int(part) for part in seen.version.split(".")[:2] if part.isdigit())
    if numbers < (1, 23):
        return missing(
            "onnxruntime", f"{seen.version} in {seen.path}; 1.23 is needed", pip(world, "install", "onnxruntime>=1.23")
        )
    return ok("onnxruntime", f"{seen.version}, {seen.path}")


def check_zeromq(world: World) -> Finding:
    """The sockets' library, with CURVE: without it nothing can be bound off loopback."""
    seen = world.imported("zmq")
    if seen.error:
        return missing("zeromq", seen.error, pip(world, "install", "pyzmq>=26"))
    told = world.imported("asperity.runtime.doctor.probes.curve")
    if told.error:
        return warning(
            "zeromq",
            f"pyzmq {seen.version}, {seen.path}: its libzmq has no CURVE, so a station with keys is not possible "
            f"({told.error})",
            pip(world, "install", "--force-reinstall", "--only-binary", "pyzmq", "pyzmq>=26"),
        )
    return ok("zeromq", f"pyzmq {seen.version} with libzmq {told.version}, CURVE, {seen.path}")


def check_calibrate(world: World) -> Finding:
    """Only for a machine that calibrates."""
    seen = {name: world.imported(module) for name, module in CALIBRATE.items() if world.is_installed(name)}
    absent = [name for name in CALIBRATE if name not in seen]
    broken = [f"{name}: {told.error}" for name, told in seen.items() if told.error]
    if broken:
        command = pip(world, "install", "--force-reinstall", *requirements("calibrate"))
        return warning("calibrate", "; ".join(broken), f"{command}  # only if this computer calibrates")
    if absent:
        command = pip(world, "install", *requirements("calibrate"))
        return note("calibrate", f"no {listed(absent)}: this computer inspects but does not calibrate", command)
    return ok("calibrate", ", ".join(f"{module} {told.version}" for module, told in seen.items()))
