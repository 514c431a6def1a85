"""Ask the NVIDIA driver through libcuda alone: which GPUs, which CUDA, and whether the kernels load on each.

Run as a program (``python probes/gpu.py FATBIN``), since a broken driver can end a process: one JSON line on stdout.
Needs nothing but Python. It makes a context on every GPU for a moment and leaves everything else as it is.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

# cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
NAME_BYTES = 256


class DriverFault(Exception):
    """A call of the driver that failed."""


class Cuda:
    """The driver's calls by name; anything but success is a DriverFault."""

    def __init__(self, library: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise DriverFault(str(error)) from error

    def __call__(self, name: str, *arguments: Any) -> None:
        status = int(getattr(self._library, name)(*arguments))
        if status:
            said = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(said))
            raise DriverFault((said.value or f"CUDA error {status}".encode()).decode())


def probe(fatbin: Path, library: str = "libcuda.so.1") -> dict[str, Any]:
    """What there is."""
    try:
        cuda = Cuda(library)
        cuda("cuInit", 0)
        version, count = ctypes.c_int(), ctypes.c_int()
        cuda("cuDriverGetVersion", ctypes.byref(version))
        cuda("cuDeviceGetCount", ctypes.byref(count))
        gpus = [_gpu(cuda, index, fatbin) for index in range(count.value)]
    except DriverFault as error:
        return {"error": str(error), "cuda": [0, 0], "gpus": []}
    return {"error": "", "cuda": [version.value // 1000, version.value % 1000 // 10], "gpus": gpus}


def _gpu(cuda: Cuda, index: int, fatbin: Path) -> dict[str, Any]:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda("cuDeviceGet", ctypes.byref(device), index)
    cuda("cuDeviceGetName", name, NAME_BYTES, device)
    cuda("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    cuda("cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda("cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return {
        "name": name.value.decode(errors="replace"),
        "capability": [major.value, minor.value],
        "memory_bytes": memory.value,
        "kernels": _kernels(cuda, device, fatbin),
    }


def _kernels(cuda: Cuda, device: ctypes.c_int, fatbin: Path) -> str:
    """The driver itself says whether the file holds code for the GPU: no other reader of the format is as right."""
    if not fatbin.is_file():
        return "absent"
    context, module = ctypes.c_void_p(), ctypes.c_void_p()
    try:
        cuda("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            cuda("cuCtxSetCurrent", context)
            cuda("cuModuleLoadData", ctypes.byref(module), fatbin.read_bytes())
            cuda("cuModuleUnload", module)
        finally:
            cuda("cuDevicePrimaryCtxRelease_v2", device)
    except DriverFault as error:
        return str(error)
    return "ok"


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1]))))
