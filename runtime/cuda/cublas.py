"""The vendor's matrix product, by ctypes: half inputs, float32 sums. Loaded only where a path needs it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asperity.runtime.cuda.launch import Buffer
from asperity.runtime.errors import EngineError

NAMES = ("libcublas.so.13", "libcublas.so.12")
WORKSPACE_BYTES = 32 * 2**20
"""Given once, so that cuBLAS allocates nothing on the frame path and may be captured. 32 MiB is its own size on 9.0."""

# cublas_api.h, library_types.h
_OP_N, _OP_T, _DEFAULT_ALGORITHM = 0, 1, -1
_R_32F, _R_16F, _COMPUTE_32F = 0, 2, 68


def candidates(paths: Iterable[str] | None = None) -> list[str]:
    """What to try to load: the linker's own names, then the libraries that pip packages bring."""
    found = list(NAMES)
    for folder in sys.path if paths is None else paths:
        for name in NAMES:
            found += sorted(str(path) for path in Path(folder).glob(f"nvidia/*/lib/{name}"))
    return found


class Cublas:
    """One handle on one stream. Raises EngineError where the library is missing or answers with an error."""

    def __init__(self, stream: int, alloc: Callable[[int], Buffer]) -> None:
        self._library = _load()
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        self._workspace = alloc(WORKSPACE_BYTES)
        self._call(
            "cublasSetWorkspace_v2",
            *(self._handle, ctypes.c_void_p(self._workspace.address), ctypes.c_size_t(WORKSPACE_BYTES)),
        )
        self._one, self._zero = ctypes.c_float(1.0), ctypes.c_float(0.0)

    def half_product(self, left: int, right: int, out: int, rows: int, columns: int, channels: int) -> None:
        """out (rows x columns float32) = left (rows x channels half) x right (columns x channels half) transposed."""
        # cuBLAS counts by columns: out transposed = right x left transposed.
        self._call(
            "cublasGemmEx",
            *(self._handle, _OP_T, _OP_N, columns, rows, channels, ctypes.byref(self._one)),
            *(ctypes.c_void_p(right), _R_16F, channels, ctypes.c_void_p(left), _R_16F, channels),
            *(ctypes.byref(self._zero), ctypes.c_void_p(out), _R_32F, columns, _COMPUTE_32F, _DEFAULT_ALGORITHM),
        )

    def close(self) -> None:
        """Give the handle back; its workspace belongs to its allocator."""
        self._call("cublasDestroy_v2", self._handle)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise EngineError(f"{name} failed with status {status}; use the tensor path, which needs no cuBLAS")


def _load() -> Any:
    for name in candidates():
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise EngineError(
        f"none of {', '.join(NAMES)} loads; run: pip install nvidia-cublas (or use the tensor path, which needs none)"
    )
