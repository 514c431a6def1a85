"""Which GPU and driver this machine has, according to the driver's own library, so nothing else need be installed."""

from __future__ import annotations

import ctypes
from pathlib import Path

import msgspec

from asperity.runtime.errors import EngineError

LIBRARY = "libcuda.so.1"
DRIVER_VERSION_FILE = Path("/proc/driver/nvidia/version")
MAX_VERSION_BYTES = 4096
MAX_NAME_BYTES = 256
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU with its driver, as far as built code depends on them."""

    name: str
    capability: str
    """Compute capability, ``8.7``."""
    driver: str
    """The kernel module's version, ``580.65.06``; empty where the system does not tell."""
    cuda: str
    """Newest CUDA that the driver runs, ``13.0``."""


def find_gpu(index: int = 0, library: str = LIBRARY) -> Gpu | None:
    """GPU ``index`` in the driver's order; None where there is no driver.

    Raises EngineError when there is a driver and it does not answer, or has no such GPU.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return None
    _ask(cuda.cuInit(0), "does not start")
    count, device, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _ask(cuda.cuDeviceGetCount(ctypes.byref(count)), "does not report how many GPUs there are")
    if not 0 <= index < count.value:
        raise EngineError(f"there is no GPU {index}; this machine shows {count.value} (see nvidia-smi)")
    _ask(cuda.cuDeviceGet(ctypes.byref(device), index), f"does not have GPU {index}")
    name = ctypes.create_string_buffer(MAX_NAME_BYTES)
    _ask(cuda.cuDeviceGetName(name, MAX_NAME_BYTES, device), "does not report the GPU's name")
    capability = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        _ask(
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "does not report the compute capability"
        )
        capability.append(str(value.value))
    _ask(cuda.cuDriverGetVersion(ctypes.byref(value)), "does not report its version")
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=".".join(capability),
        driver=driver_version(),
        cuda=f"{value.value // 1000}.{value.value % 1000 // 10}",
    )


def driver_version(path: Path = DRIVER_VERSION_FILE) -> str:
    """Version of the NVIDIA kernel module; empty where the system does not tell."""
    try:
        with path.open("rb") as file:
            words = file.read(MAX_VERSION_BYTES).decode(errors="replace").split()
    except OSError:
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "")


def _ask(status: int, told: str) -> None:
    if status != 0:
        raise EngineError(f"the NVIDIA driver {told} (CUDA error {status}); check the output of nvidia-smi")
