"""Clouds for the checks of the point kernels, plain and degenerate; this module has no kernel."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.kernels import KernelEntry
from asperity.runtime.cuda.launch import Buffer, Device
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray

ENTRIES: tuple[KernelEntry, ...] = ()

KINDS = ("random", "lattice", "equal", "few", "one", "line", "nan", "empty")
EXACT = frozenset({"lattice", "equal", "few", "one", "line"})
"""Kinds of small whole numbers, where float32 makes no error and every tie is a true one."""

NOT_FINITE, COUNT, EMPTY, INDEX, SHAPE = 1, 2, 4, 8, 16
"""As in ``faults.cuh``."""
FAULT_OF = {"nan": NOT_FINITE, "empty": EMPTY}


def cloud_of(kind: str, size: int, points: int, rng: np.random.Generator) -> FloatArray:
    """size x size x 3 float32 in mm, (0, 0, 0) where empty. ``points`` is how many the random one has, about."""
    cloud = np.zeros((size, size, 3), dtype=np.float32)
    flat = cloud.reshape(-1, 3)
    rows, columns = np.divmod(np.arange(size * size), size)
    if kind in ("random", "nan"):
        # A part of about that many points in the middle: a curved surface with noise and holes.
        radius = np.sqrt(points / np.pi)
        away = np.hypot(rows - size / 2, columns - size / 2)
        inside = away < radius if points < size * size else np.ones(size * size, dtype=bool)
        inside &= rng.random(size * size) > 0.01 * (points < size * size)
        height = 400.0 + 6.0 * np.sin(rows / 9.0) * np.cos(columns / 7.0)
        whole = np.stack([(columns - size / 2) * 0.4, (rows - size / 2) * 0.4, height], axis=1)
        whole += rng.normal(scale=0.05, size=whole.shape)
        flat[inside] = whole[inside].astype(np.float32)
        if kind == "nan":
            flat[np.flatnonzero(inside)[inside.sum() // 2], 1] = np.nan
    elif kind == "lattice":
        flat[:] = np.stack([columns, rows, np.full_like(rows, 50)], axis=1)
    elif kind == "equal":
        flat[:] = (3.0, -2.0, 7.0)
    elif kind in ("few", "one"):
        chosen = rng.choice(size * size, 5 if kind == "few" else 1, replace=False)
        flat[chosen] = rng.integers(1, 99, (len(chosen), 3))
    elif kind == "line":
        flat[rows == columns] = np.stack([np.arange(size) * 2 + 1] * 3, axis=1)
    elif kind != "empty":
        raise EngineError(f"no cloud of kind {kind!r}")
    return cloud


def clear_fault(device: Device) -> Buffer:
    """A fault word without a fault."""
    return device.upload(np.zeros(1, dtype=np.uint32))


def fault_problems(device: Device, fault: Buffer, expected: int) -> list[str]:
    """What is wrong with the fault word: it must be exactly what the input calls for."""
    found = int(device.download(fault, (1,), np.uint32)[0])
    return [] if found == expected else [f"the fault word is {found:#x} and must be {expected:#x}"]
