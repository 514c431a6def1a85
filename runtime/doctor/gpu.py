"""What the cuda engine needs, from the driver up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asperity.runtime.cuda.cublas import NAMES as CUBLAS_NAMES
from asperity.runtime.doctor.findings import CUDA_ONLY, Finding, missing, note, ok, warning
from asperity.runtime.doctor.platforms import in_container, jetpack_of, pip, python_of_jetpack
from asperity.runtime.doctor.world import Imported, World

PYCUDA = "pycuda>=2025.1"
TENSORRT = "tensorrt>=10.3,<12"
TENSORRT_RTX = "tensorrt-rtx>=1.4,<2"
ONNX = "onnx>=1.18"
OLDEST_TENSORRT = (10, 3)
OLDEST_CUDA = (12, 6)
OLDEST_CAPABILITY = (7, 5)
NVCC = "/usr/local/cuda/bin/nvcc"
NO_NVCC = (
    "there is no nvcc either: install the CUDA toolkit (https://developer.nvidia.com/cuda-downloads), or build "
    "the wheel on a machine that has it"
)


def check_driver(world: World) -> Finding:
    """libcuda loads and starts."""
    driver = world.driver()
    if driver.error:
        return missing("driver", driver.error, _driver_remedy(world), CUDA_ONLY)
    kernel = _kernel_driver(world)
    served = f"CUDA {driver.cuda[0]}.{driver.cuda[1]}"
    if driver.cuda < OLDEST_CUDA:
        oldest = f"{OLDEST_CUDA[0]}.{OLDEST_CUDA[1]}"
        return missing("driver", f"{kernel}serves {served}; {oldest} is needed", _driver_remedy(world), CUDA_ONLY)
    return ok("driver", f"{kernel}serves up to {served}")


def check_gpu(world: World, index: int) -> Finding:
    """A GPU that the kernels are made for; ``index``: the one that the station's configuration names."""
    driver = world.driver()
    if driver.error:
        return missing("gpu", "cannot be detected without the driver", _driver_remedy(world), CUDA_ONLY)
    if not driver.gpus:
        remedy = "docker run --gpus all ..." if in_container(world) else "nvidia-smi  # and check CUDA_VISIBLE_DEVICES"
        return missing("gpu", f"the driver shows none{_hidden(world)}", remedy, CUDA_ONLY)
    said = [
        f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}, {gpu.memory_bytes / 2**30:.1f} GiB"
        for gpu in driver.gpus
    ]
    if index >= len(driver.gpus):
        listing = "; ".join(f"{number}: {words}" for number, words in enumerate(said))
        remedy = "nvidia-smi -L  # and set [engine] gpu in station.toml"
        return missing("gpu", f"there is no GPU {index}; there are {listing}", remedy, CUDA_ONLY)
    if driver.gpus[index].capability < OLDEST_CAPABILITY:
        return missing("gpu", f"{said[index]}: older than 7.5", "use another GPU, or --engine cpu", CUDA_ONLY)
    others = [words for number, words in enumerate(said) if number != index]
    more = f" ([engine] gpu = {index}; there are also {'; '.join(others)})" if others else ""
    return ok("gpu", said[index] + more)


def check_kernels(world: World, fatbin: Path, index: int) -> Finding:
    """The compiled kernels, loaded by the driver itself."""
    build = f"{world.python.executable} -m asperity.runtime.cuda.build"
    nvcc = world.say("nvcc", "--version") or world.say(NVCC, "--version")
    remedy = f"{build}  # in a checkout; needs nvcc, minutes" if nvcc else f"{build}  # in a checkout; {NO_NVCC}"
    if not world.exists(str(fatbin)):
        return missing("kernels", f"{fatbin} is not there", remedy, CUDA_ONLY)
    gpus = world.driver().gpus[index : index + 1]
    if not gpus:
        return note("kernels", f"{fatbin}; whether they match can be checked only with a GPU")
    gpu = gpus[0]
    if gpu.kernels != "ok":
        capability = f"{gpu.capability[0]}.{gpu.capability[1]}"
        found = f"{fatbin} does not load on {gpu.name} ({capability}): {gpu.kernels}"
        return missing("kernels", found, remedy, CUDA_ONLY)
    return ok("kernels", f"{fatbin} loads on {gpu.name}")


def check_pycuda(world: World) -> Finding:
    """pycuda; its driver module cannot be imported without libcuda, and is not tried then."""
    package = world.imported("pycuda")
    remedy = _pycuda_remedy(world)
    if package.error:
        return missing("pycuda", package.error, remedy, CUDA_ONLY)
    if world.driver().error:
        return note("pycuda", f"{_way(package)}; pycuda.driver cannot load without the NVIDIA driver")
    module = world.imported("pycuda.driver")
    if module.error:
        return missing("pycuda", f"{_way(package)}: {module.error}", f"{remedy} --force-reinstall", CUDA_ONLY)
    return ok("pycuda", _way(package))


def check_bindings(world: World) -> Finding:
    """cuda-bindings, of the driver's own major version."""
    major = world.driver().cuda[0]
    requirement = f"cuda-bindings>=12.6,<{major + 1}" if major else "cuda-bindings>=12.6"
    module = world.imported("cuda.bindings.driver")
    if module.error:
        return missing("cuda-bindings", module.error, pip(world, "install", requirement), CUDA_ONLY)
    have = _numbers(module.version)
    if major and have and have[0] > major:
        return warning(
            "cuda-bindings",
            f"{_way(module)}: made for CUDA {have[0]}, the driver serves {major}",
            pip(world, "install", requirement),
        )
    return ok("cuda-bindings", _way(module))


def check_tensorrt(world: World, index: int) -> Finding:
    """TensorRT or TensorRT-RTX: one of them builds and runs the networks."""
    full, rtx = world.imported("tensorrt"), world.imported("tensorrt_rtx")
    loaded = [f"{name} {_way(seen)}" for name, seen in (("tensorrt", full), ("tensorrt_rtx", rtx)) if not seen.error]
    if not full.error and _numbers(full.version) < OLDEST_TENSORRT and rtx.error:
        return missing("tensorrt", f"{loaded[0]}; 10.3 is needed", _tensorrt_remedy(world, index), CUDA_ONLY)
    if loaded and not world.is_installed("onnx"):
        found = f"{'; '.join(loaded)}; networks cannot be built here without onnx"
        return warning("tensorrt", found, pip(world, "install", ONNX))
    if loaded:
        return ok("tensorrt", "; ".join(loaded))
    broken = [f"{name}: {seen.error}" for name, seen in (("tensorrt", full), ("tensorrt_rtx", rtx)) if seen.is_there]
    said = "; ".join(broken) if broken else "neither tensorrt nor tensorrt_rtx is installed"
    return missing("tensorrt", said + _system_tensorrt(world), _tensorrt_remedy(world, index), CUDA_ONLY)


def check_cublas(world: World, names: Sequence[str] = CUBLAS_NAMES) -> Finding:
    """Only one of the nearest-neighbour paths needs it."""
    folder = "/".join(world.imported("numpy").path.split("/")[:-2])
    places = [path for name in names for path in world.glob(f"{folder}/nvidia/*/lib/{name}")] if folder else []
    seen = world.library([*names, *places])
    if seen is not None:
        return ok("cublas", seen)
    cuda = world.driver().cuda[0]
    package = "nvidia-cublas-cu12" if cuda == 12 else "nvidia-cublas"
    command = pip(world, "install", package)
    return note("cublas", "none loads: the product path is not available; the other paths do not need it", command)


def _driver_remedy(world: World) -> str:
    if jetpack_of(world) is not None:
        return "sudo apt-get install nvidia-jetpack"
    if in_container(world):
        return "docker run --gpus all ...  # the driver comes from the host (NVIDIA Container Toolkit)"
    system = (world.read("/etc/os-release") or "").lower()
    if "id=ubuntu" in system:
        return "sudo ubuntu-drivers install && sudo reboot"
    if "id=debian" in system:
        return "sudo apt-get install nvidia-driver firmware-misc-nonfree && sudo reboot  # from non-free"
    return "install the NVIDIA driver (https://www.nvidia.com/drivers) until nvidia-smi works"


def _kernel_driver(world: World) -> str:
    version = world.read("/sys/module/nvidia/version")
    return f"NVIDIA {version}, " if version else ""


def _hidden(world: World) -> str:
    chosen = world.environment.get("CUDA_VISIBLE_DEVICES")
    return "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen!r})"


def _pycuda_remedy(world: World) -> str:
    # PyPI has its source alone; it is compiled here, against the toolkit.
    install = "PATH=/usr/local/cuda/bin:$PATH " + pip(world, "install", PYCUDA)
    headers = f"sudo apt-get install g++ python{world.python.version[0]}.{world.python.version[1]}-dev"
    return f"{headers} && {install}"


def _tensorrt_remedy(world: World, index: int) -> str:
    jetpack = jetpack_of(world)
    if jetpack is None:
        gpus = world.driver().gpus[index : index + 1]
        # NVIDIA's tables of TensorRT-RTX name 7.5, 8.x and 12.x.
        rtx = bool(gpus) and gpus[0].capability[0] in (8, 12)
        return pip(world, "install", TENSORRT_RTX if rtx else TENSORRT)
    wanted = ".".join(str(part) for part in python_of_jetpack(jetpack))
    venv = f"/usr/bin/python{wanted} -m venv --system-site-packages .venv && .venv/bin/pip install '.[gpu]' onnx"
    if _dist_packages(world):
        return venv
    return f"sudo apt-get install python3-libnvinfer && {venv}"


def _dist_packages(world: World) -> list[str]:
    return world.glob("/usr/lib/python3*/dist-packages/tensorrt")


def _system_tensorrt(world: World) -> str:
    """Why a system's own TensorRT is not seen."""
    places = _dist_packages(world)
    if not places:
        return ""
    if world.python.is_venv and not world.python.sees_system:
        return f"; the system has one in {places[0]}, which this venv cannot see"
    return f"; the system has one in {places[0]}, for another Python than {world.python.executable}"


def _way(seen: Imported) -> str:
    return f"{seen.version or 'of unknown version'}, {seen.path or 'no file'}"


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split(".")[:2]:
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
