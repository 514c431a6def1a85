"""A CPU stand-in for a GPU: the kernels' own sources, compiled for the host (``simt.hpp``), behind ``launch.Device``.

For tests and for trying the GPU benchmarks without a GPU. It is thousands of times slower than a device, says so in its
name, and no engine ever opens it.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asperity.runtime.cuda.build import CUDA_DIR, build_simt
from asperity.runtime.cuda.launch import Argument, Buffer, Enqueue, Launch
from asperity.runtime.errors import EngineError

GUARD_BYTES = 4096
"""Around every buffer; all bits set, which is NaN in every float format, and looked at after every launch."""

_GUARD = 0xFF
_ALIGN = 256


class ShimBuffer:
    """Memory between two guard zones."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        whole = np.full(nbytes + 2 * GUARD_BYTES + _ALIGN, _GUARD, dtype=np.uint8)
        start = GUARD_BYTES + -(whole.ctypes.data + GUARD_BYTES) % _ALIGN
        self._before, self.data, self._after = whole[:start], whole[start : start + nbytes], whole[start + nbytes :]
        self._untouched = self._before.tobytes(), self._after.tobytes()

    @property
    def address(self) -> int:
        """What a kernel gets; a multiple of 256, as from cudaMalloc."""
        return int(self.data.ctypes.data)

    def damage(self) -> str | None:
        """Where a kernel wrote outside of the buffer, or None."""
        before, after = self._untouched
        if self._before.tobytes() != before:
            return "before its start"
        if self._after.tobytes() != after:
            return "behind its end"
        return None


@dataclass(frozen=True, slots=True)
class ShimPart:
    """A part of a buffer."""

    whole: ShimBuffer
    offset: int

    @property
    def address(self) -> int:
        """What a kernel gets."""
        return self.whole.address + self.offset

    @property
    def nbytes(self) -> int:
        """Bytes to the end of the whole."""
        return self.whole.nbytes - self.offset


class ShimDevice:
    """``launch.Device`` on the CPU. ``order`` is the order in which threads run (see ``runtime.cuda``)."""

    name = "cpu-shim"
    multiprocessors = 2
    most_shared_bytes = 227 * 1024
    most_cluster = 8
    capability = (9, 0)
    """It knows what the newest sources ask of a chip."""

    def __init__(
        self,
        sources: Iterable[str] | None = None,
        extra: Path | None = None,
        order: int = 0,
        like: ShimDevice | None = None,
    ) -> None:
        """``sources`` are stems of .cu files in runtime/cuda (default: all), built now; ``extra`` is one more file.

        With ``like`` nothing is built: the kernels are that device's. Raises UsageError where they cannot be built.
        """
        self.order = order
        self._buffers: list[ShimBuffer] = []
        self._libraries: list[ctypes.CDLL] = []
        self._holders: dict[str, ctypes.CDLL] = {}
        if like is not None:
            self._libraries, self._holders = like._libraries, like._holders
            return
        names = list(sources) if sources is not None else sorted(path.stem for path in CUDA_DIR.glob("*.cu"))
        paths = build_simt(names, extra.resolve() if extra is not None else None)
        self._libraries = [ctypes.CDLL(str(path)) for path in paths]

    def alloc(self, nbytes: int) -> ShimBuffer:
        """Memory with all bits set."""
        buffer = ShimBuffer(nbytes)
        self._buffers.append(buffer)
        return buffer

    def upload(self, array: NDArray[Any]) -> ShimBuffer:
        """New memory with the array's bytes."""
        buffer = self.alloc(array.nbytes)
        self.write(buffer, array)
        return buffer

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """The array's bytes into the start of a buffer."""
        self._own(buffer).data[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The start of a buffer as a new array."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self._own(buffer).data[:nbytes].view(dtype).reshape(shape).copy()

    def launch(self, launch: Launch, *arguments: Argument) -> None:
        """Run one kernel to its end. Raises EngineError on a deadlock, a misused warp operation or a stray write."""
        library = self._library(launch.kernel)
        values = [_c_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        failed = library.simt_launch(
            ctypes.cast(getattr(library, f"simt_stub_{launch.kernel}"), ctypes.c_void_p),
            pointers,
            (ctypes.c_uint * 3)(*launch.grid),
            (ctypes.c_uint * 3)(*launch.block),
            ctypes.c_size_t(launch.shared_bytes),
            ctypes.c_uint(launch.cluster),
            ctypes.c_int(self.order),
        )
        if failed:
            library.simt_error.restype = ctypes.c_char_p
            raise EngineError(f"{launch.kernel}: {library.simt_error().decode()}")
        for buffer in self._buffers:
            where = buffer.damage()
            if where is not None:
                raise EngineError(f"{launch.kernel} (or a launch before it) wrote {where}: {buffer.nbytes} bytes long")

    def at(self, buffer: Buffer, offset: int) -> ShimPart:
        """The part of a buffer from ``offset`` bytes on."""
        return ShimPart(self._own(buffer), offset)

    def half_product(
        self, left: Buffer, right: Buffer, out: Buffer, *, rows: int, columns: int, channels: int, first: int
    ) -> None:
        """As numpy multiplies float32; products of halves are exact in it."""
        a = self.download(left, (rows, channels), np.float16).astype(np.float32)
        b = self.download(right, (first + columns, channels), np.float16)[first:].astype(np.float32)
        self.write(out, a @ b.T)

    def synchronize(self) -> None:
        """Nothing: launches end before they return."""

    def seconds(self, enqueue: Enqueue, repeats: int, before: Enqueue | None = None) -> list[float]:
        """Wall seconds of each call on this processor: they say nothing of a GPU."""
        spent = []
        for _ in range(repeats):
            if before is not None:
                before()
            start_ns = time.perf_counter_ns()
            enqueue()
            spent.append((time.perf_counter_ns() - start_ns) / 1e9)
        return spent

    def replayed(self, enqueue: Enqueue) -> Enqueue:
        """The same: there are no graphs."""
        return enqueue

    def fill(self, buffer: Buffer, byte: int) -> None:
        """Every byte of a buffer set to one value."""
        self._own(buffer).data[:] = byte

    def copy(self, source: Buffer, to: Buffer, nbytes: int) -> None:
        """Bytes from the start of one buffer to the start of another."""
        self._own(to).data[:nbytes] = self._own(source).data[:nbytes]

    def forget(self) -> None:
        """Give up every buffer, so that later launches need not look at their guard zones."""
        self._buffers.clear()

    def _library(self, kernel: str) -> ctypes.CDLL:
        if kernel in self._holders:
            return self._holders[kernel]
        for library in self._libraries:
            if hasattr(library, f"simt_stub_{kernel}"):
                self._holders[kernel] = library
                return library
        raise EngineError(f"no kernel {kernel!r} in the sources built for the CPU; is SIMT_KERNEL({kernel}) there?")

    def _own(self, buffer: Buffer) -> ShimBuffer:
        if not isinstance(buffer, ShimBuffer):
            raise EngineError(f"a {type(buffer).__name__} is not memory of the CPU stand-in")
        return buffer


def _c_value(argument: Argument) -> Any:
    if isinstance(argument, np.generic):
        c_type: Any = np.ctypeslib.as_ctypes_type(argument.dtype)  # type: ignore[arg-type]  # any scalar's type
        return c_type(argument.item())
    return ctypes.c_void_p(argument.address)
